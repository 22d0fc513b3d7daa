# SPDX-License-Identifier: BSD-3-Clause
"""A8 to A12, tables IV to VII of the LRO paper: what a guest receives of a TCP stream whose segments nobody has merged
before vifd, and what that costs, by how vifd merges them.

                                                    ┌─ vhost-user ── guest, QEMU         10.90.0.2  (a)
    wire 10.90.0.1 ══ veth ══ nic0 ── AF_XDP ─ vifd ┤
                                                    └─ TAP ── guest, a namespace         10.90.0.2  (b)
    wire 10.91.0.1 ══ veth ══ namespace native, the kernel's own stack, without GRO      10.91.0.2  Linux
    wire 10.92.0.1 ══ veth ══ the same with GRO                                          10.92.0.2  Linux-GRO

Configurations are the paper's: off (its Xen), LRO (merged packets are copied into one piece before the bridge), BO (they are
not), DA (and wait), and beside them auto, vifd's own law of when to wait. One vifd serves all: its uplink is told by
`uplink set`, between samples. (a) and (b) are measured one after the other, each with a vifd of its own.

What DA is. The paper's lets packets wait until the second poll; a poll follows an interrupt, which its NIC holds back while
packets keep coming, so that a poll more is a certain time (33 us there) in which the driver domain runs once, and not twice.
vifd polls whenever it is woken: to count polls, as DA-polls does, changes how packets are merged, but not how often it runs.
So DA here is the same said in time: usec:300, which sleeps through a stream for so long. That is nine times the paper's
delay, at nine times its throughput; what it costs is in the rows `added delay`.

Theory of operation. The paper's receiver has one CPU, with the guest, the driver domain and the hypervisor on it, and a
sender of its own; so has ours (cpus.py). The wire's CPU also runs the veth's receive poll up to the XDP program and the
copy into the packet buffers, which on a NIC is DMA's work. The paper adds up cycles by oprofile; here CPU time counts:
of all of vifd's threads (driver), of QEMU's CPU threads, which sleep while the guest is idle (guest), and what
the host's CPU did not idle (total), each times the TSC's frequency, by the bytes acknowledged meanwhile. In (b) the
guest's stack receives inside vifd's write() to the TAP, or in the program: only the time in user mode is vifd's alone.
"""
import collections
import itertools
import os
import socket
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import tcp
from cpus import HOST_CPU, WIRE_CPU, PinnedNetns, cpu_ticks, need_two_cpus
from lib.guest import Guest, accelerator, build_image
from lib.vifd import Netns, Vifd
from rows import bar, interleave, number, row

TITLE = "Tables IV to VII (A8 to A12): receiving TCP, merged in six ways, into a QEMU guest (a) and a TAP (b)"
BASE = "off"

# What vifd's uplink is told; None: the kernel's own stack, without vifd.
CONFIGS = {"Linux": None, "Linux-GRO": None, BASE: "lro=off bo=on", "LRO": "lro=poll bo=off", "BO": "lro=poll bo=on",
           "DA-polls": "lro=every:2 bo=on", "DA": "lro=usec:300 bo=on", "auto": "lro=auto bo=on"}
NATIVE = ["Linux", "Linux-GRO"]

# metric -> row's ID, unit, the paper's figures
METRICS = {
    "throughput": ("A8", "Mb/s", {"Linux": 721.1, BASE: 535.9, "LRO": 577.2, "BO": 576.5, "DA": 747.5}),
    "cycles/byte driver": ("A9", "cycles", {BASE: 14.5, "LRO": 13.4, "BO": 13.0, "DA": 3.3}),
    "cycles/byte guest": ("A9", "cycles", {BASE: 8.7, "LRO": 7.1, "BO": 7.7, "DA": 5.9}),
    "cycles/byte total": ("A9", "cycles", {"Linux": 17.5, BASE: 23.2, "LRO": 20.6, "BO": 20.6, "DA": 9.2}),
    "cycles/byte vifd": ("A9", "cycles", {}),
    "cycles/byte vifd, user mode": ("A9", "cycles", {}),
    "LRO rate": ("A10", "segments", {BASE: 1, "LRO": 2.55, "DA": 4.71}),
    "TCP_RR": ("A11", "1/s", {"Linux": 6090, BASE: 5036, "LRO": 5010, "BO": 4999, "DA": 5015}),
    "added delay": ("A12", "us", {"DA": 33.17}),
    "added delay, 99 %": ("A12", "us", {}),
    "added delay, most": ("A12", "us", {}),
}
VIFD_CYCLES = ("cycles/byte driver", "cycles/byte vifd") # (a), (b)
DELAYS = {"added delay": 0.5, "added delay, 99 %": 0.99, "added delay, most": 1} # shares of what was held
STAGES = ("channel", "header", "bridge", "offload", "copy", "uplink", "idle")

ETH_P_ALL, FRAME = 3, 1514
# The host's default, which namespaces have. A guest of 256 MiB has a third of it, and a stream to it would stop for its window.
TCP_RMEM = "4096 131072 6291456"


class Plan(NamedTuple):
    """How often and how long; times in seconds. ramp: for a stream to get going."""

    rounds: int
    ramp: float
    stream: float
    transactions: float
    pairs: int
    pair: float


QUICK = Plan(3, 0.3, 0.5, 0.15, 60, 0.05)
FULL = Plan(5, 0.4, 1.6, 0.4, 100, 0.1)

NOTES = (
    "(a) into a QEMU guest by vhost-user, (b) into a TAP, whose receiver is a namespace. The host's side has one CPU, the wire another.",
    "cycles: CPU time by TSC cycles. driver: all of vifd. guest: QEMU's CPU threads, which sleep while the guest is idle;",
    "what QEMU's other threads do for it is in the total only. total: whatever the host's CPU did.",
    "In (b) the guest's stack receives inside vifd's write() to the TAP, or in the program, if that is just reading: `vifd` is driver and",
    "part of the guest. vifd's time in user mode is the driver's for sure, and how the rest divides cannot be told.",
    "LRO rate: segments by packets that went on (Linux-GRO: as the kernel counts them; there, too, DMA's work is the wire's).",
    "added delay: how long the packets that waited at all did, from their first segment on, vifd's naps included: half of them",
    "at most that, by a histogram with four steps an octave. Whoever has the CPU when vifd wants it adds to it.")
EMULATED = (
    "No KVM that works here: the guest's CPU is emulated, its cycles are those of the emulation, many times what they would be.",
    "Linux and Linux-GRO, which are not emulated, are no measure for the rest of (a), but for (b).")

WHY = {
    "A8": "What merging saves is work by packet. vifd's own share of that is small beside the guest's stack, so that the guest gains most; "
          "a poll of a veth brings dozens of segments, where the paper's NIC brought two or three, so that LRO alone, "
          "which merges what one poll brings, already does most of what the paper had to wait for (DA).",
    "A9": "vifd takes a tenth of the cycles of the paper's driver domain. Most of what merging (LRO, BO, DA-polls) leaves of it "
          "is to be woken and to wake; DA, which sleeps its delay out, saves that.",
    "A10": "A poll of a veth brings dozens of segments, one of the paper's NIC at 1 Gb/s two or three.",
    "A11": "A single packet is never held back, nor does vifd nap where requests come in.",
    "A12": "Ours is DA by time, usec:300, and the histogram's step. The paper's 33 us, until the second poll, are the time that "
           "two packets take to arrive at 1 Gb/s; DA-polls is that rule, where polls follow each other as soon as one is done.",
}
WHY_TOTAL = {
    "a": "The guest's copy to its program, by an emulated CPU, is not less by merging. Cycles by byte:",
    "b": "The total has the receiving program with its copy to user memory, and the kernel's work for the veth before vifd gets a frame, "
         "by segment, neither of which LRO in vifd can save. Cycles by byte:"}
WHY_DRIVER = ("Without LRO vifd takes less than a tenth of the paper's 14.5 cycles by byte, and the copy into the guest's "
              "buffers, which merging cannot save, is a good part of that. Cycles by byte of vifd's stages:")


class Sample(dict):
    """Figures by metric; printed as such.

    busy    share of the host's CPU
    stages  cycles by byte of vifd's stages
    """

    def __init__(self, figures, busy=None, stages=None):
        super().__init__(figures)
        self.busy, self.stages = busy, stages or {}

    def __str__(self):
        return ", ".join(f"{metric} {number(value)}" for metric, value in self.items())


class Native:
    """A namespace that receives by itself what comes over a veth pair from the wire."""

    def __init__(self, lab, stack, wire, index, gro):
        self.address, self.link, self.interface = f"10.9{index}.0.2", f"wire{index}", "eth0"
        self.end = stack.enter_context(PinnedNetns(lab.folder, f"native{index}", HOST_CPU))
        wire.run(f"ip link add {self.link} type veth peer name {self.interface} netns {self.end.netns}")
        wire.run(f"ethtool -K {self.link} tso off") # as an XDP program at the other end has it
        wire.address(self.link, f"10.9{index}.0.1/24")
        wire.receive_on_cpu(self.link)
        self.end.address(self.interface, f"{self.address}/24")
        self.end.receive_on_cpu(self.interface)
        self.end.run(f"ethtool -K {self.interface} gro {'on' if gro else 'off'}")
        tcp.serve(self.end)

    def set(self, _):
        pass

    def look(self):
        """Packets that have come over the link, and as how many the kernel's IP has received them."""
        names, values = (line.split() for line in self.end.run("grep ^Ip: /proc/net/snmp").splitlines())
        return {"segments": self.end.counter(self.interface, "rx_packets"),
                "packets": int(values[names.index("InReceives")])}


class Vif:
    """vifd with an uplink on the other end of the wire's first veth pair, and one guest."""

    address, link = "10.90.0.2", "wire0"

    def __init__(self, lab, stack, wire):
        self.lab, self.stack = lab, stack
        nic = stack.enter_context(Netns(lab.folder, "nic"))
        wire.run(f"ip link add {self.link} type veth peer name nic0 netns {nic.netns}")
        wire.address(self.link, "10.90.0.1/24")
        wire.receive_on_cpu(self.link)
        nic.run("ip link set nic0 addrgenmode none; ip link set nic0 up") # its kernel has nothing to say there
        uplink = f"uplink add wire af-xdp=nic0 netns={nic.netns} bridge=br0 {CONFIGS[BASE]}"
        self.vifd = stack.enter_context(Vifd(lab.folder, "set workers=1", "bridge add br0", uplink, affinity=[HOST_CPU]))
        self.hz = self.vifd.ctl("profile")["tsc_hz"]
        self.start_guest()
        tcp.serve(self.end)

    def set(self, config):
        self.vifd.ctl(f"uplink set wire {CONFIGS[config]}")

    def look(self):
        """What vifd has done so far, its time by mode, and a histogram of delays."""
        (lro,) = self.vifd.ctl("show lro wire")
        stages = {stage["stage"]: stage["cycles"] for stage in self.vifd.ctl("profile")["stages"]}
        user, system = Path(f"/proc/{self.vifd.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return {"segments": lro["segments"], "packets": lro["packets"], **stages, "driver": self.vifd.cpu_seconds(),
                "user": int(user), "system": int(system), "delays": collections.Counter(dict(lro["delays"]))}


class QemuVif(Vif):
    """(a): the guest is a virtual machine."""

    def start_guest(self):
        path = f"{self.lab.folder}/guest.sock"
        self.vifd.ctl(f"guest add guest vhost-user={path} bridge=br0")
        self.end = self.stack.enter_context(Guest("guest", path, self.lab.folder, mac="52:54:00:90:00:02", affinity=[HOST_CPU]))
        self.end.address(f"{self.address}/24")
        self.end.run(f"echo {TCP_RMEM} >/proc/sys/net/ipv4/tcp_rmem")
        self.threads = [cpu["thread-id"] for cpu in self.end.qmp("query-cpus-fast")]

    def look(self):
        return {**super().look(), "guest": sum(thread_seconds(thread) for thread in self.threads)}

    @staticmethod
    def cycles(spent, each):
        return {"cycles/byte driver": each(spent["driver"]), "cycles/byte guest": each(spent["guest"])}


class TapVif(Vif):
    """(b): the guest is a namespace."""

    def start_guest(self):
        self.end = self.stack.enter_context(PinnedNetns(self.lab.folder, "guest", HOST_CPU))
        self.vifd.ctl(f"uplink add guest tap=eth0 netns={self.end.netns} bridge=br0")
        self.end.address("eth0", f"{self.address}/24")

    @staticmethod
    def cycles(spent, each):
        user = spent["user"] / max(1, spent["user"] + spent["system"])
        return {"cycles/byte vifd": each(spent["driver"]), "cycles/byte vifd, user mode": each(spent["driver"] * user)}


def percentile(histogram, share):
    """What a share of all did not exceed, as far as {upper bound: count} tells; 0 of none."""
    wanted, bounds = share * histogram.total(), [0, *sorted(histogram)]
    so_far = itertools.accumulate(histogram[bound] for bound in bounds)
    return next(bound for bound, count in zip(bounds, so_far) if count >= wanted)


def thread_seconds(thread):
    """CPU time that a thread has used."""
    return int(Path(f"/proc/{thread}/schedstat").read_text().split()[0]) / 1e9


class Lro:
    """A wire; behind it a Vif, and the kernel's own stack beside that."""

    def __init__(self, lab, stack, kind):
        self.plan = QUICK if lab.quick else FULL
        self.wire = stack.enter_context(PinnedNetns(lab.folder, "wire", WIRE_CPU))
        self.vif = kind(lab, stack, self.wire)
        self.ends = dict.fromkeys(CONFIGS, self.vif)
        for index, config in enumerate(NATIVE, 1):
            self.ends[config] = Native(lab, stack, self.wire, index, gro=config == "Linux-GRO")
        self.wire.ping(self.vif.address)

    def check_segments(self):
        """What leaves the wire must not be larger than a frame, or there would be nothing to merge."""
        for end in dict.fromkeys(self.ends.values()):
            with self.wire.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as watch, \
                    tcp.Stream(self.wire, end.address):
                watch.bind((end.link, ETH_P_ALL))
                longest = max(len(watch.recv(1 << 17)) for _ in range(2000))
            if longest != FRAME:
                raise OSError(f"the longest frame on {end.link} has {longest} bytes, and not {FRAME}")

    def stream(self, config):
        """Receive for a while: throughput, and cycles by byte."""
        end = self.ends[config]
        end.set(config)
        with tcp.Stream(self.wire, end.address) as stream:
            time.sleep(self.plan.ramp)
            before = self.look(end, stream)
            time.sleep(self.plan.stream)
            after = self.look(end, stream)
        delays = after.pop("delays", collections.Counter()) - before.pop("delays", collections.Counter())
        spent = {name: after[name] - before[name] for name in before}
        octets = spent["bytes"]
        busy = spent["clock"] - spent["idle"]

        def each(seconds):
            return seconds * self.vif.hz / octets

        figures = {"throughput": octets * 8 / spent["clock"] / 1e6, "cycles/byte total": each(busy)}
        if end is self.vif:
            figures.update(end.cycles(spent, each), **{name: percentile(delays, share) / 1e3 for name, share in DELAYS.items()})
        figures["LRO rate"] = spent["segments"] / spent["packets"] if spent["packets"] else 1 # off: nothing was to be merged
        return Sample(figures, busy / spent["clock"],
                      {stage: spent[stage] / octets for stage in STAGES if stage in spent})

    @staticmethod
    def look(end, stream):
        return {**end.look(), "clock": time.monotonic(), "bytes": stream.acked(),
                "idle": cpu_ticks(HOST_CPU)[1] / os.sysconf("SC_CLK_TCK")}

    def transactions(self, config):
        end = self.ends[config]
        end.set(config)
        with tcp.Echo(self.wire, end.address) as echo:
            return Sample({"TCP_RR": echo.rate(self.plan.transactions)})

    def pairs_of_transactions(self, config):
        """Transactions with BASE and with config, by turns so short that both see the same machine: [rate], [rate]."""
        rates = {BASE: [], config: []}
        with tcp.Echo(self.wire, self.vif.address) as echo:
            for done in range(self.plan.pairs):
                for one in list(rates)[::-1 if done % 2 else 1]:
                    self.vif.set(one)
                    rates[one].append(echo.rate(self.plan.pair))
        return rates[BASE], rates[config]


def measure(lab, letter, kind):
    """All samples of one kind of guest: {configuration: [Sample]} of streams and of transactions, and what
    pairs_of_transactions() returns."""
    def say(text):
        lab.say(f"lro ({letter}) {text}")

    def told(what):
        return lambda text: say(f"{what}, {text}")

    with ExitStack() as stack:
        say("vifd, its guest, and two that do without")
        lro = Lro(lab, stack, kind)
        lro.check_segments()
        streams = interleave(lro.plan.rounds, list(CONFIGS), lro.stream, told("stream"))
        transactions = interleave(lro.plan.rounds, list(CONFIGS), lro.transactions, told("transactions"))
        say(f"transactions, {lro.plan.pairs} pairs of {BASE} and auto")
        pairs = lro.pairs_of_transactions("auto")
    return streams, transactions, pairs


def figures_of(samples, config, metric):
    return [sample[metric] for sample in samples.get(config, ()) if metric in sample]


def rows_of(letter, streams, transactions, _):
    rows = []
    for metric, (ident, unit, paper) in METRICS.items():
        for config in CONFIGS:
            values = [value for samples in (streams, transactions) for value in figures_of(samples, config, metric)]
            if values:
                more = {"stages": stages_of(streams[config])} if metric in VIFD_CYCLES else {}
                rows.append(row(ident + letter, config, metric, unit, paper.get(config), values, **more))
    return rows


def stages_of(samples):
    """Medians."""
    return {stage: round(statistics.median(sample.stages[stage] for sample in samples), 4) for stage in STAGES}


def bars_of(letter, streams, _, pairs, explain):
    """What must be reached; explain is lab.explain()."""
    def against(ident, config, base, metric, paper, **limit):
        return bar(ident + letter, config, metric, figures_of(streams, config, metric), paper,
                   (base, figures_of(streams, base, metric)), **limit)

    bars = [against("A8", "auto", BASE, "throughput", 1.40, least=1.8),
            bar("A10" + letter, "auto", "LRO rate", figures_of(streams, "auto", "LRO rate"), 4.71, least=20),
            bar("A11" + letter, "auto", "TCP_RR", pairs[1], 1.00, (BASE, pairs[0]), least=0.97)]
    total = against("A9", "DA", BASE, "cycles/byte total", 0.40, most=0.5, shape="DA/off")
    parts = [("vifd", "cycles/byte vifd"), ("driver", "cycles/byte driver"), ("guest", "cycles/byte guest")]
    explain(total, WHY_TOTAL[letter], profile(streams, [(name, metric) for name, metric in parts
                                                        if figures_of(streams, BASE, metric)] + [("total", "cycles/byte total")]))
    if letter == "b": # driver and guest: the paper's driver and guest together make 0.40
        return [*bars, total, against("A9", "DA", BASE, "cycles/byte vifd", 0.40, most=0.45)]
    driver = against("A9", "DA", BASE, "cycles/byte driver", 0.23, most=0.45)
    explain(driver, WHY_DRIVER, {config: stages_of(streams[config]) for config in (BASE, "DA")})
    return [*bars, total, driver,
            against("A13", "BO", "LRO", "cycles/byte guest", 1.08, most=1.05)] # A13: with BO the guest got slower


def profile(streams, parts):
    """Medians of these parts, [(name, metric)], of off and DA."""
    return {config: {name: round(statistics.median(figures_of(streams, config, metric)), 2) for name, metric in parts}
            for config in (BASE, "DA")}


def run(lab):
    """Run the experiment; its rows."""
    need_two_cpus()
    before = os.sched_getaffinity(0)
    lab.stack.callback(os.sched_setaffinity, 0, before)
    os.sched_setaffinity(0, {WIRE_CPU}) # we are the sender
    lab.notes += NOTES + (EMULATED if accelerator() == "tcg" else ())
    rows = []
    for letter, kind in (("a", QemuVif), ("b", TapVif)):
        samples = measure(lab, letter, kind)
        rows += rows_of(letter, *samples)
        lab.bars += bars_of(letter, *samples, lab.explain)
        lab.notes.append(f"({letter}) the host's CPU, saturated in the paper, was busy here: " + ", ".join(
            f"{config} {statistics.median(sample.busy for sample in samples[0][config]):.0%}" for config in CONFIGS) + ".")
    return rows
