# SPDX-License-Identifier: BSD-3-Clause
"""The hosts that Menon, Cox and Zwaenepoel compare: Linux by itself, its stack in the driver domain, and a guest.

    guest a ── vif-front ══ snet ┐        ┌ TAP ════════ wire 1, wire 2, ...   10.96.H.1I   sent to
                                 ├─ vifd ─┤
    driver domain's stack ── TAP ┘        └ AF_XDP ══ veth ══ the same         10.97.H.1I   received from

    Linux ── veth with all offloads ── 10.96.H.1I;  veth without any ── 10.97.H.1I

H is the host's number, I the wire's; the host has the last number 1 in all these networks. One of guest and stack is there.

Theory of operation. What is sent leaves by a NIC with all offloads, a TAP of the wire's. What is received comes in frames of
1500 bytes, each written to a buffer by somebody else, as a NIC does: the kernel, on the wire's CPU. All else of a host has one
CPU (cpus.py): program, kernel of the guest, vif-front, vifd. The wires have the other one. Who is woken on the host's CPU does
not push aside who runs there (run_in_turn()): a hypervisor lets a domain go on, too, and a switch for each frame would hide
everything else.
"""
import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from cpus import HOST_CPU, WIRE_CPU, PinnedNetns, cpu_ticks
from hosts import Front
from lib.traffic import cpu_seconds
from lib.vifd import Vifd, program

SENT_TO, RECEIVED_FROM = "10.96", "10.97"
REMAPS = ("cycles", "mapped", "handed_over", "zeroed") # of `show guests`


def switches(pid):
    """How often the threads of a process have got a CPU from somebody, or been taken off it."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        count += sum(int(line.split()[1]) for line in status.read_text().splitlines() if "ctxt_switches" in line)
    return count


def run_in_turn(pid):
    """Have a process wait for its turn when it is woken."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))


def wake_cost(hz):
    """Cycles that a wake-up costs, and the switch that it leads to."""
    done = subprocess.run([program("lab/wake_cost"), str(HOST_CPU)], check=True, capture_output=True, text=True)
    return float(done.stdout) * 1e-9 * hz


class Wires:
    """count namespaces, each with an interface to each host for either direction."""

    def __init__(self, lab, stack, count):
        self.all = [stack.enter_context(PinnedNetns(lab.folder, f"wire{i}", WIRE_CPU)) for i in range(1, count + 1)]

    def ends(self, network, host):
        """[(wire, its address)] in one of the two networks of a host."""
        return [(wire, f"{network}.{host}.{10 + i}") for i, wire in enumerate(self.all, 1)]


class Host:
    """One of them; number: the third of its addresses."""

    def __init__(self, lab, stack, name, number, wires):
        self.lab, self.stack, self.name, self.number, self.wires = lab, stack, name, number, wires
        self.end = stack.enter_context(PinnedNetns(lab.folder, f"{name}-end", HOST_CPU))
        self.connect()
        for network in (SENT_TO, RECEIVED_FROM):
            for wire, address in wires.ends(network, number):
                wire.ping(self.address(network))

    def address(self, network):
        return f"{network}.{self.number}.1"

    def wire_links(self, network, prefix, near):
        """veth pairs to all wires, whose near ends are in the namespace near: their names."""
        for i, (wire, address) in enumerate(self.wires.ends(network, self.number), 1):
            link = f"{prefix}{self.number}"
            wire.run(f"ip link add {link} type veth peer name {prefix}{i} netns {near.netns}")
            wire.address(link, f"{address}/24")
            wire.receive_on_cpu(link)
        return [f"{prefix}{i}" for i in range(1, len(self.wires.all) + 1)]

    def send_frames(self, prefix):
        """Have the wires send nothing longer than a frame."""
        for wire in self.wires.all:
            wire.run(f"ethtool -K {prefix}{self.number} tso off gso off")

    def look(self):
        """What the host has done so far, in seconds and counts."""
        return {"clock": time.monotonic(), "idle": cpu_ticks(HOST_CPU)[1] / os.sysconf("SC_CLK_TCK")}

    def told(self):
        """What vifd tells of itself, and when: it may take its time."""
        return {"clock": time.monotonic()}


class Linux(Host):
    """The kernel alone, on the wires' interfaces."""

    def connect(self):
        for network, prefix in ((SENT_TO, "s"), (RECEIVED_FROM, "r")):
            names = self.wire_links(network, prefix, self.end)
            for i, name in enumerate(names, 1):
                self.end.run(f"ip link set {name} up; ip addr add {self.address(network)}/32 dev {name}; "
                             f"ip route add {network}.{self.number}.{10 + i} dev {name} src {self.address(network)}")
                self.end.receive_on_cpu(name)
                if network == RECEIVED_FROM:
                    self.end.run(f"ethtool -K {name} gro off")
        self.send_frames("r")


class Domain(Host):
    """A vifd, and behind it what subclasses say.

    SETTINGS: name -> what `set`, `guest add` and `uplink add af-xdp=` are told
    """

    def connect(self):
        pages, guest, uplink = self.SETTINGS[self.name]
        self.nic = self.stack.enter_context(PinnedNetns(self.lab.folder, f"{self.name}-nic", HOST_CPU))
        commands = [f"set workers=1 idle-spin=off {pages}", "bridge add br0", self.near(guest)]
        for i, wire in enumerate(self.wires.all, 1):
            commands.append(f"uplink add tx{i} tap=s{self.number} netns={wire.netns} bridge=br0")
        for i, name in enumerate(self.wire_links(RECEIVED_FROM, "r", self.nic), 1):
            self.nic.run(f"ip link set {name} addrgenmode none up")
            commands.append(f"uplink add rx{i} af-xdp={name} netns={self.nic.netns} lro=off {uplink} bridge=br0")
        self.vifd = self.stack.enter_context(Vifd(self.lab.folder, *commands, name=f"{self.name}-vifd", affinity=[HOST_CPU]))
        run_in_turn(self.vifd.pid)
        for wire, address in self.wires.ends(SENT_TO, self.number):
            wire.address(f"s{self.number}", f"{address}/24")
            wire.receive_on_cpu(f"s{self.number}")
        self.send_frames("r")
        self.start()
        self.end.run(f"ip addr add {self.address(RECEIVED_FROM)}/24 dev eth0")
        self.hz = self.vifd.ctl("profile")["tsc_hz"]

    def look(self):
        return {**super().look(), "vifd": self.vifd.cpu_seconds(), "vifd switches": switches(self.vifd.pid)}

    def told(self):
        stages = {f"stage {stage['stage']}": stage["cycles"] for stage in self.vifd.ctl("profile")["stages"]}
        return {**super().told(), **stages}


class Driver(Domain):
    """The stack of the driver domain itself."""

    SETTINGS = {"driver-none": ("pages=4k", "", "buffers=page"), "driver-MTU": ("pages=4k", "", ""),
                "driver-MTU-SP": ("", "", "")}

    def near(self, _):
        return f"uplink add stack tap=eth0 netns={self.end.netns} bridge=br0"

    def start(self):
        self.end.address("eth0", f"{self.address(SENT_TO)}/24")


class Guest(Domain):
    """A guest, which is a namespace."""

    SETTINGS = {"none": ("pages=4k", "channel=flip offload=off", ""), "sp": ("", "channel=flip offload=off", ""),
                "ioc": ("pages=4k", "offload=off", ""), "high": ("pages=4k", "channel=flip", ""),
                "high-ioc": ("pages=4k", "", ""), "high-ioc-sp": ("", "", "")}

    def near(self, options):
        return f"guest add guest snet={self.lab.folder}/{self.name}.sock {options} bridge=br0"

    def start(self):
        self.front = Front(self.lab.folder, self.stack, self.name, self.end, self.address(SENT_TO), HOST_CPU)
        run_in_turn(self.front.process.pid)

    @contextmanager
    def without_gso(self):
        """Have the guest's TCP make packets of the MTU, as if its kernel could not cut larger ones."""
        self.end.run("ip link set eth0 gso_max_segs 1")
        try:
            yield
        finally:
            self.end.run("ip link set eth0 gso_max_segs 65535")

    def look(self):
        return {**super().look(), "front": self.front.cpu_seconds(), "front switches": switches(self.front.process.pid)}

    def told(self):
        remap = self.vifd.ctl("show guests")[0].get("remap", {})
        return {**super().told(), **{f"remap {name}": remap.get(name, 0) for name in REMAPS}}
