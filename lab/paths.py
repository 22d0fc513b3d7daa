# SPDX-License-Identifier: BSD-3-Clause
"""P2 to P4: what it costs a guest that its driver domain shares its CPU, or has another one; and how long the path is.

    native     a ── veth ── the kernel's bridge ── veth ── b
    vifd       a ── vif-front ══ snet ── vifd ── snet ══ vif-front ── b

    same CPU       CPU 0: a, its vif-front, vifd      CPU 1: b, its vif-front
    separate CPU   CPU 0: a, its vif-front            CPU 1: vifd, b, its vif-front      (b has a third CPU if there is one)

Guest a sends to b (send), or receives from it, one TCP stream whose sender's kernel makes frames of 1500 bytes.

Theory of operation. The paper has Xen on one CPU and on two, and a client behind a NIC; it has been read as an abstract, which
gives no tables. Its Xen mapped pages by hypercalls for each packet, which channel=remap stands for (VETH, src/guest/snet_remap.c);
the same with vifd's own channel shows what is left without. The client is a second guest and not a wire, because
what a veth's receive path does is charged to who sends into it: with two CPUs that would be vifd in one placement and
nobody in the other.

CPU time is that of processes: a's program and vif-front, with a's kernel down to IP inside its read() and write() (guest),
and vifd (driver). For native it is what CPU 0 did not idle. Counters of instructions do not exist in most virtual machines, and
callgrind counts user mode only, so that the length of the path is told in two ways: instructions in user mode by byte and
by packet, of vifd and vif-front; and for the ratio to native, of which nothing is in user mode, CPU time by byte in
cycles of the TSC.
"""
import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import misses
from cpus import HOST_CPU, WIRE_CPU, cpu_ticks, need_two_cpus
from hosts import GUESTS, Front, Host, Native
from lib.vifd import Vifd
from rows import bar, interleave, number, row
from tcp import Connection

TITLE = "Driver domain on the guest's CPU, and on one of its own (P2 to P4)"
BASE = "native"

# Configuration -> what `guest add` is told, vifd's CPU; None: without vifd.
PLACES = {"same CPU": HOST_CPU, "separate CPU": WIRE_CPU}
CHANNELS = {"": "trust=isolated", "VETH, ": "channel=remap"}
CONFIGS = {BASE: None, **{name + place: (option, cpu) for name, option in CHANNELS.items() for place, cpu in PLACES.items()}}
XEN = ["VETH, same CPU", "VETH, separate CPU"]
DIRECTIONS = {"send": ("a", "b"), "receive": ("b", "a")}

# The paper's, as multiples of native: "more than 50 %" is lost; "3 to 4 times" the path.
LOST, PATH = 0.5, 3.5

RAMP, LARGE, ROOM = 0.15, 65536, 384 << 10
DOMAINS = {"guest": "front end", "driver": "vifd"} # domain -> the process that is counted for it

STANDS = {
    "P2": "channel=remap (VETH) stands for Xen's mapping of pages by hypercalls; a process, vifd, for the driver domain's virtual machine, "
          "and a switch of processes for one of domains.",
    "P3": "Kernel instructions cannot be counted here: CPU time by byte stands for the length of the path where it is compared with "
          "native, and instructions are those in user mode, by callgrind.",
}
WHY = {
    "P2": "Mapping for each packet costs more than half, as in the paper; vifd's own channel, which maps nothing, is nearer to native.",
    "P3": "Most of what is longer than native is the driver domain, as in the paper; on a CPU of its own it is woken up more often, by "
          "fewer packets at a time.",
}
NOTES = (
    "CPU time: guest is a's program and vif-front, with a's kernel; driver is vifd. native: what a's CPU did not idle.",
    "instructions: in user mode, by callgrind, in which both are slower than they are; how many packets they find at a time is not what it",
    "would be at speed. By packet: of those that passed vifd in the direction of the data.")
TWO_CPUS = "Two CPUs: on a separate CPU vifd shares it with guest b, and the throughput is that of both."


class Sample(dict):
    """Figures by metric; printed as such."""

    def __str__(self):
        return ", ".join(f"{metric} {number(value)}" for metric, value in self.items())


class Placed(Host):
    """A vifd on some CPU, with guests a and b. counted: what vifd and a's vif-front run in, {"vifd": .., "front end": ..}"""

    def __init__(self, folder, stack, name, index, wire, counted=()):
        self.counted = dict(counted)
        super().__init__(folder, stack, name, index, wire)

    def connect(self):
        option, cpu = CONFIGS[self.name]
        socket = f"{self.folder}/{self.name.replace(', ', '-').replace(' ', '-')}"
        commands = ["set workers=1 idle-spin=off", "bridge add br0"]
        commands += [f"guest add {guest} snet={socket}-{guest}.sock {option} bridge=br0" for guest in self.ends]
        self.vifd = self.stack.enter_context(Vifd(self.folder, *commands, name=Path(socket).name, affinity=[cpu],
                                                  wrapper=self.counted.get("vifd", ())))
        self.fronts = {guest: Front(self.folder, self.stack, f"{Path(socket).name}-{guest}", end, self.address(guest), GUESTS[guest][1],
                                    wrapper=self.counted.get("front end", ()) if guest == "a" else ())
                       for guest, end in self.ends.items()}

    def look(self):
        return {"driver": self.vifd.cpu_seconds(), "front end": self.fronts["a"].cpu_seconds()}

    def packets(self, sends):
        return self.vifd.port_counters("a" if sends else "b")[0]


def connection(host, direction):
    source, sink = DIRECTIONS[direction]
    return Connection(host.end(source), host.end(sink), host.address(sink), ("write", "read"), LARGE, ROOM)


class Paths:
    """All configurations, each with guests of its own."""

    def __init__(self, lab, stack):
        self.seconds = 0.4 if lab.quick else 1
        self.hosts = {}
        for index, config in enumerate(CONFIGS, 1):
            kind = Placed if CONFIGS[config] else Native
            self.hosts[config] = kind(lab.folder, stack, config, index, None)
            self.hosts[config].set_frames(True)
        self.hz = next(host for host in self.hosts.values() if isinstance(host, Placed)).vifd.ctl("profile")["tsc_hz"]

    def sample(self, config, direction):
        """One stream of a configuration."""
        host = self.hosts[config]
        with connection(host, direction) as stream:
            time.sleep(RAMP)
            before = self.look(host, stream)
            time.sleep(self.seconds)
            after = self.look(host, stream)
        spent = {name: after[name] - before[name] for name in before}
        if not spent["bytes"]:
            raise OSError(f"{config}: nothing arrives")

        def each(seconds):
            return seconds * self.hz / spent["bytes"]

        figures = {"throughput": spent["bytes"] * 8 / spent["clock"] / 1e6}
        if isinstance(host, Placed):
            figures.update({"guest": each(spent["program"] + spent["front end"]), "driver": each(spent["driver"])})
            figures["total"] = figures["guest"] + figures["driver"]
        else:
            figures["total"] = each(spent["clock"] - spent["idle"])
        return Sample(figures)

    @staticmethod
    def look(host, stream):
        return {**host.look(), **stream.look(), "clock": time.monotonic(), "idle": cpu_ticks(HOST_CPU)[1] / os.sysconf("SC_CLK_TCK")}


def measure(lab):
    """All samples: {direction: {configuration: [Sample]}}."""
    with ExitStack() as stack:
        paths = Paths(lab, stack)
        return {direction: interleave(3 if lab.quick else 9, list(CONFIGS), lambda config: paths.sample(config, direction),
                                      lambda text: lab.say(f"paths: {direction}, {text}"))
                for direction in DIRECTIONS}


def count(lab, config, rounds):
    """Instructions of a configuration: {direction: [Sample]}, by domain and by part of vifd, by byte and by packet."""
    name = config.replace(", ", "-").replace(" ", "-")
    outs = {process: lab.folder / f"{name}-{process.replace(' ', '-')}.callgrind" for process in DOMAINS.values()}
    counted, dumps = {}, 0
    with ExitStack() as stack:
        host = Placed(lab.folder, stack, config, 9, None, {process: misses.command(out) for process, out in outs.items()})
        host.set_frames(True)
        pids = {"vifd": host.vifd.pid, "front end": host.fronts["a"].process.pid}
        for direction in DIRECTIONS:
            counted[direction] = []
            with connection(host, direction) as stream:
                time.sleep(1)
                for _ in range(rounds):
                    for pid in pids.values():
                        misses.control(pid, "--zero")
                    octets, packets = stream.look()["bytes"], host.packets(direction == "send")
                    time.sleep(0.5)
                    octets, packets = stream.look()["bytes"] - octets, host.packets(direction == "send") - packets
                    dumps += 1
                    for pid in pids.values():
                        misses.control(pid, "--dump")
                    sums = {process: misses.by_component(Path(f"{out}.{dumps}").read_text(), ("Ir",)) for process, out in outs.items()}
                    counted[direction].append(Sample(instructions(sums, octets, packets)))
                    lab.say(f"paths: callgrind, {config}, {direction}: {counted[direction][-1]}")
    return counted


def instructions(sums, octets, packets):
    """By metric, from sums of processes by component."""
    figures = {}
    for domain, process in DOMAINS.items():
        total = sum(sums[process].values())
        figures[f"instructions/byte {domain}"] = total / octets
        figures[f"instructions/packet {domain}"] = total / packets
    figures.update({f"instructions/packet, {part}": value / packets for part, value in sums["vifd"].items()})
    return figures


def figures_of(samples, config, metric):
    return [sample[metric] for sample in samples[config] if metric in sample]


def rows_of(taken):
    rows = []
    for direction, samples in taken.items():
        for config in CONFIGS:
            more = {"paper_ratio": LOST} if config in XEN else {"paper_ratio": 1} if config == BASE else {}
            rows.append(row("P2", config, f"throughput, {direction}", "Mb/s", None, figures_of(samples, config, "throughput"), **more))
        for part, ident in (("total", "P3"), ("guest", "P4"), ("driver", "P4")):
            for config in CONFIGS:
                values = figures_of(samples, config, part)
                more = {"paper_ratio": PATH if config in XEN else 1} if part == "total" and config in (*XEN, BASE) else {}
                if values:
                    rows.append(row(ident, config, f"cycles/byte {part}, {direction}", "cycles", None, values, **more))
    return rows


def rows_of_instructions(counted):
    return [row("P4" if "," in metric else "P3", config, f"{metric}{';' if ',' in metric else ','} {direction}", "instructions", None,
                [sample[metric] for sample in samples])
            for config, directions in counted.items() for direction, samples in directions.items() for metric in samples[0]]


def bars_of(taken, explain):
    """The paper's: a CPU of its own costs more CPU time."""
    bars = []
    for direction, samples in taken.items():
        same, separate = XEN
        one = bar("P3", separate, f"cycles/byte total, {direction}", figures_of(samples, separate, "total"), None,
                  (same, figures_of(samples, same, "total")), least=1)
        explain(one, "Switches of processes on one CPU cost as much as wake-ups across CPUs and cache lines that move save. Cycles by byte:",
                {config: {part: round(statistics.median(figures_of(samples, config, part)), 2) for part in ("guest", "driver")}
                 for config in XEN})
        bars.append(one)
    return bars


def run(lab):
    """Run the experiment; its rows."""
    need_two_cpus()
    before = os.sched_getaffinity(0)
    lab.stack.callback(os.sched_setaffinity, 0, before)
    os.sched_setaffinity(0, {WIRE_CPU})
    lab.notes += NOTES
    if os.cpu_count() == 2:
        lab.notes.append(TWO_CPUS)
    taken = measure(lab)
    counted = {config: count(lab, config, 3 if lab.quick else 5) for config in (PLACES if lab.quick else CONFIGS) if CONFIGS[config]}
    lab.bars += bars_of(taken, lab.explain)
    return rows_of(taken) + rows_of_instructions(counted)
