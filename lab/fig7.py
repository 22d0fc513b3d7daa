# SPDX-License-Identifier: BSD-3-Clause
"""M30, figure 7 of "Optimizing Network Virtualization in Xen": a guest's transmit throughput with a high-level NIC, over
a wire's NIC that can do less and less, and with a NIC that offers no offloads at all.

    guest high 10.88.0.1 ── all offloads ──┐          ┌── TAP offload=none    ── wire none     10.88.0.3
                                           │          ├── TAP offload=csum    ── wire csum     10.88.0.4
                                           ├── vifd ──┤
                                           │          ├── TAP offload=csum+sg ── wire csum-sg  10.88.0.5
    guest low  10.88.0.2 ── none ──────────┘          └── TAP offload=all     ── wire all      10.88.0.6

high sends to each wire in turn (configurations none, csum, csum-sg, all); low sends to wire all (guest-none). One TCP
stream by sendfile(), as in the paper.

Theory of operation. The paper measures how much one saturated CPU gets out (cpus.py). One CPU is the host, with the guests
and vifd on it, and another one is all the wires: their iperf3, and also (receive packet steering) their kernel's
receive path, which would otherwise run inside vifd's write() to the TAP and be counted as vifd's.
"""
import concurrent.futures
import statistics
from collections import namedtuple

from cpus import HOST_CPU, WIRE_CPU, PinnedNetns, cpu_ticks, need_two_cpus
from lib.guest import Guest, GuestError, accelerator, build_image
from lib.traffic import measure, serve
from lib.vifd import Vifd
from rows import bar, interleave, row

TITLE = "Figure 7 (M30): guest to wire, high-level NIC over wires of different offloads, and low-level NIC (guest-none)"
BASE = "guest-none"

# config -> what the wire's TAP may do, Mb/s of the paper (its text: csum is "comparable to" none)
WIRES = {"none": ("none", 1461), "csum": ("csum", 1461), "csum-sg": ("csum+sg", 2007), "all": ("all", 2794)}
PAPER = {BASE: 750, **{config: mbps for config, (_, mbps) in WIRES.items()}}

WHY = {"M30": "What the guest need not do, and what crosses channel and bridge in one piece, is worth as much as ever; but a TAP "
              "takes a frame by a system call that copies it, so that checksum and scatter/gather save nothing there, and only TSO, "
              "which saves calls, does."}
WHY_LOW = ("With guest-none the guest's kernel segments, with none vifd does: what that saves is the guest's and the channel's work "
           "by packet, and where this is small beside the copies and the wire's system calls there is less to gain. "
           "Nanoseconds of CPU time by byte:")

NOTES = ("throughput: what one TCP stream delivers; the guest and vifd share a CPU, the wire has another.",
         "cpu_per_byte: CPU time of the whole vifd process for each byte delivered. The paper does not give it.",
         "A TAP takes each frame by a system call that copies it, so that scatter/gather saves less here than on a NIC.")
EMULATED = ("No KVM that works here: the guest's CPU is emulated, and what the guest does costs many times what it would.",
            "So guest-none, where the guest does most, comes out too slow beside the others, and these are closer",
            "together than they would be. cpu_per_byte is of vifd, which is not emulated.")


class Sample(namedtuple("Sample", "mbps ns_per_byte host_busy")):
    def __str__(self):
        return f"{self.mbps:.0f} Mb/s, vifd {self.ns_per_byte:.3f} ns/B, host's CPU {self.host_busy:.0%} busy"


class Fig7:
    def __init__(self, lab):
        self.lab = lab
        self.seconds = 1 if lab.quick else 2
        names = ["high", "low", *WIRES]
        self.address = {name: f"10.88.0.{i}" for i, name in enumerate(names, 1)}
        self.wires = {name: lab.stack.enter_context(PinnedNetns(lab.folder, name, WIRE_CPU)) for name in WIRES}
        commands = ["set workers=1", "bridge add br0"]
        for name, (offload, _) in WIRES.items():
            commands.append(f"uplink add {name} tap=wire0 netns={self.wires[name].netns} offload={offload} bridge=br0")
        for name, options in (("high", ""), ("low", "offload=off ")):
            commands.append(f"guest add {name} vhost-user={lab.folder}/{name}.sock {options}bridge=br0")
        self.vifd = lab.stack.enter_context(Vifd(lab.folder, *commands, affinity=[HOST_CPU]))
        self.start_wires()
        self.start_guests()

    def start_wires(self):
        for name, wire in self.wires.items():
            wire.address("wire0", f"{self.address[name]}/24")
            wire.receive_on_cpu("wire0")
            serve(wire)

    def start_guests(self):
        self.guests = {}
        for i, name in enumerate(("high", "low"), 1):
            self.guests[name] = Guest(name, f"{self.lab.folder}/{name}.sock", self.lab.folder,
                                      mac=f"52:54:00:88:00:0{i}", affinity=[HOST_CPU])
            self.lab.stack.callback(self.guests[name].stop)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(Guest.wait, self.guests.values()))
        for name, guest in self.guests.items():
            guest.address(f"{self.address[name]}/24")
            for wire in self.wires:
                guest.ping(self.address[wire])
        for offload in ("scatter-gather", "tx-checksumming", "tcp-segmentation-offload"):
            for name, wanted in (("high", "on"), ("low", "off")):
                self.check_offload(self.guests[name], offload, wanted)

    @staticmethod
    def check_offload(guest, offload, wanted):
        """The guest's kernel must see the NIC that the configuration is named after."""
        if f"{offload}: {wanted}" not in guest.run("ethtool -k eth0"):
            raise GuestError(f"{guest.name}: {offload} is not {wanted}")

    def sample(self, config):
        """One stream of a configuration."""
        busy, idle = cpu_ticks(HOST_CPU)
        guest, wire = (self.guests["low"], "all") if config == BASE else (self.guests["high"], config)
        got = measure(guest, self.wires[wire], self.address[wire], self.vifd, self.seconds, options="-Z")
        busy, idle = (after - before for after, before in zip(cpu_ticks(HOST_CPU), (busy, idle)))
        return Sample(got["gbps"] * 1e3, got["vifd_ns_per_byte"], busy / (busy + idle))


def profile(samples):
    """Where the time of the host's CPU goes: medians."""
    vifd = statistics.median(one.ns_per_byte for one in samples)
    host = statistics.median(one.host_busy * 8e3 / one.mbps for one in samples)
    return {"vifd": round(vifd, 2), "guest and the rest": round(host - vifd, 2)}


def run(lab):
    """Run the experiment; its rows."""
    need_two_cpus()
    build_image()
    lab.say(f"fig7: vifd, four wires, two guests ({accelerator()})")
    fig7 = Fig7(lab)
    configs = [BASE, *WIRES]
    lab.notes += NOTES + (EMULATED if accelerator() == "tcg" else ())
    lab.say("fig7: a stream of each configuration to warm up")
    for config in configs:
        fig7.sample(config)
    samples = interleave(5 if lab.quick else 9, configs, fig7.sample, lambda text: lab.say(f"fig7: {text}"))
    lab.notes.append("The host's CPU, saturated in the paper, was busy here: " + ", ".join(
        f"{config} {statistics.median(one.host_busy for one in samples[config]):.0%}" for config in configs) + ".")
    low = bar("M30", "none", "throughput", [one.mbps for one in samples["none"]], 1461 / 750,
              (BASE, [one.mbps for one in samples[BASE]]), least=1.5, shape="high-level/low-level")
    lab.explain(low, WHY_LOW, {config: profile(samples[config]) for config in (BASE, "none")})
    lab.bars.append(low)
    return ([row("M30", config, "throughput", "Mb/s", PAPER[config], [one.mbps for one in samples[config]])
             for config in configs] +
            [row("M30", config, "cpu_per_byte", "ns", None, [one.ns_per_byte for one in samples[config]])
             for config in configs])
