# SPDX-License-Identifier: BSD-3-Clause
"""A host with guests that are network namespaces, connected in one of the ways that SETH compares.

    VETH, SETH-isolated, SETH-shared: a vifd each            native: Linux alone

     a ── vif-front ══ snet ┐      ┌ AF_XDP ══ veth ── wire       a ── veth ┐            ┌ veth ── wire
     c ── vif-front ══ snet ┼ vifd ┤                              c ── veth ┤ its bridge ┤
     b ── vif-front ══ snet ┘      │                              b ── veth ┘            │
     ───────────── host's CPU: a, c, vifd, bridge ─────────────  wire's CPU: b, wire

VETH is channel=remap of `guest add`: system calls that fill in and clear page table entries stand for the two hypercalls
of the grant table (src/guest/snet_remap.c). vifd sleeps as soon as there is nothing to do (idle-spin=off): what shares
a CPU must not spin on it. The wire's link has no offloads, in native too: what comes from it are frames of 1500 bytes.
"""
import subprocess
import time
from pathlib import Path

from cpus import HOST_CPU, WIRE_CPU, PinnedNetns
from lib.guest import with_parent
from lib.traffic import cpu_seconds
from lib.vifd import Vifd, VifdError, program

BASE = "native"

# What `guest add` is told; None: without vifd.
CONFIGS = {BASE: None, "VETH": "channel=remap", "SETH-isolated": "trust=isolated", "SETH-shared": "trust=shared"}
SHARED, VIFDS = "SETH-shared", ["VETH", "SETH-isolated", "SETH-shared"]

# Guest -> last number of its address, CPU. The wire has the number 3.
GUESTS = {"a": (1, HOST_CPU), "b": (2, WIRE_CPU), "c": (4, HOST_CPU)}


class Front:
    """A vif-front, to the end of the stack. connect: --connect or --vhost-user"""

    def __init__(self, folder, stack, name, end, address, cpu, connect="--connect"):
        log_path = Path(folder) / f"{name}.log"
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(with_parent([
                program("front/vif-front"), connect, f"{folder}/{name}.sock", "--netns", end.netns,
                "--ip", f"{address}/24", "--cpu", cpu]), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(self.stop)
        deadline = time.monotonic() + 10
        while "vif-front: ready" not in log_path.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise VifdError(f"vif-front is not ready: {log_path.read_text()}", self.process.poll())
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)


class Host:
    """Guests, what they are connected to and how, for one configuration.

    wire    None: there is none
    guests  names, of GUESTS
    wrapper what runs vifd, if anything does
    """

    def __init__(self, folder, stack, name, index, wire, *, guests="ab", wrapper=()):
        self.folder, self.stack, self.name, self.wire, self.wrapper = folder, stack, name, wire, wrapper
        self.net, self.link = f"10.95.{index}", f"wire{index}"
        self.ends = {guest: stack.enter_context(PinnedNetns(folder, f"{name}-{guest}", GUESTS[guest][1])) for guest in guests}
        self.nic = stack.enter_context(PinnedNetns(folder, f"{name}-nic", HOST_CPU))
        if wire:
            wire.run(f"ip link add {self.link} type veth peer name nic0 netns {self.nic.netns}")
            wire.address(self.link, f"{self.address('wire')}/24")
            wire.receive_on_cpu(self.link)
        self.connect()
        for guest in guests[1:]:
            self.ends[guest].ping(self.address(guests[0]))
        if wire:
            wire.run(f"ethtool -K {self.link} tso off gso off")
            for guest in guests:
                wire.ping(self.address(guest))

    def end(self, name):
        """The namespace of a guest, or the wire."""
        return self.wire if name == "wire" else self.ends[name]

    def address(self, name):
        return f"{self.net}.{3 if name == 'wire' else GUESTS[name][0]}"

    def set_frames(self, small):
        """Have the guests send frames of 1500 bytes only, or whatever TCP makes."""
        for end in self.ends.values():
            end.run(f"ethtool -K eth0 tso {'off' if small else 'on'} gso {'off' if small else 'on'}")


class Native(Host):
    """Linux alone: veth pairs and its bridge."""

    def connect(self):
        self.nic.run("ip link add br0 type bridge mcast_snooping 0; ip link set br0 up")
        ports = []
        if self.wire:
            self.nic.run("ip link set nic0 master br0 up; ethtool -K nic0 tx off tso off gso off") # as AF_XDP has it
            ports.append("nic0")
        for guest, end in self.ends.items():
            ports.append(f"port-{guest}")
            self.nic.run(f"ip link add {ports[-1]} type veth peer name eth0 netns {end.netns}; ip link set {ports[-1]} master br0 up")
            end.address("eth0", f"{self.address(guest)}/24")
            end.receive_on_cpu("eth0")
        for port in ports:
            self.nic.receive_on_cpu(port)

    def look(self, _=None):
        return {}


class Vif(Host):
    """A vifd with its guests and the wire. options: what `guest add` is told, None: CONFIGS has it"""

    options = None

    def connect(self):
        commands = ["set workers=1 idle-spin=off", "bridge add br0"]
        commands += [f"guest add {guest} snet={self.folder}/{self.name}-{guest}.sock {self.options or CONFIGS[self.name]} bridge=br0"
                     for guest in self.ends]
        if self.wire:
            self.nic.run("ip link set nic0 addrgenmode none; ip link set nic0 up")
            commands.append(f"uplink add wire af-xdp=nic0 netns={self.nic.netns} lro=off bridge=br0")
        self.vifd = self.stack.enter_context(
            Vifd(self.folder, *commands, name=self.name, affinity=[HOST_CPU], wrapper=self.wrapper))
        self.fronts = {guest: Front(self.folder, self.stack, f"{self.name}-{guest}", end, self.address(guest), GUESTS[guest][1])
                       for guest, end in self.ends.items()}
        self.hz = self.vifd.ctl("profile")["tsc_hz"]

    def look(self, receiver=None):
        """What vifd and a's vif-front have done so far; receiver: port whose counters are wanted, too."""
        user, system = Path(f"/proc/{self.vifd.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        told = {**{stage["stage"]: stage["cycles"] for stage in self.vifd.ctl("profile")["stages"]},
                "user": int(user), "system": int(system), "driver": self.vifd.cpu_seconds(),
                "front end": self.fronts["a"].cpu_seconds()}
        if receiver:
            stats = self.vifd.stats(receiver)
            told.update(copied=stats["copied_bytes"], referenced=stats["referenced_packets"], sent=stats["send_packets"],
                        full=stats["drop_queue_full"])
        return told
