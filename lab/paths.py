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
and vifd (driver). For native it is what CPU 0 did not idle.

The length of the path is instructions by byte, which no counter of a virtual machine's tells, as a rule: they are counted
in an emulated machine, the kernel's included (path_length.py). What vifd's own are for, callgrind says, which sees user mode.
"""
import os
import time
from contextlib import ExitStack
from pathlib import Path

import misses
import path_length
from cpus import HOST_CPU, WIRE_CPU, cpu_ticks, need_two_cpus
from hosts import GUESTS, Front, Host, Native
from lib.vifd import Vifd
from rows import interleave, number, row
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

STANDS = {
    "P2": "channel=remap (VETH) stands for Xen's mapping of pages by hypercalls; a process, vifd, for the driver domain's virtual "
          "machine, and a switch of processes for one of domains."}
WHY = {
    "P2": "Mapping for each packet costs a guest about half of its throughput or more, as in the paper; vifd's own channel, which "
          "maps nothing, comes nearer to native. With two CPUs the far end has vifd's separate CPU, too."}
LENGTH = (
    "Native has no NIC's driver here, a veth being the shortest path there is, and vif-front has a system call for each packet, "
    "so that the path with vifd is longer beside it than Xen's was. Where vifd has a CPU of its own, a byte takes {} of the "
    "instructions that it takes on the same CPU when sending, {} when receiving (VETH: {} and {}): more of them where each "
    "packet wakes somebody up on the other CPU, fewer where they come in bursts.")
NOTES = (
    "CPU time: guest is a's program and vif-front, with a's kernel; driver is vifd. native: what a's CPU did not idle.",
    "instructions/byte: counted in an emulated machine, the kernel's included, between guest a and a wire that is a TAP",
    "(lab/path_length.py); switches/MiB: writes to CR3, there. instructions/packet: vifd's in user mode, by callgrind, in which it",
    "is slower than it is; how many packets it finds at a time is not what it would be at speed. By packet: of those that passed",
    "vifd in the direction of the data.")


class Sample(dict):
    """Figures by metric; printed as such."""

    def __str__(self):
        return ", ".join(f"{metric} {number(value)}" for metric, value in self.items())


class Placed(Host):
    """A vifd on some CPU, with guests a and b."""

    def connect(self):
        option, cpu = CONFIGS[self.name]
        socket = f"{self.folder}/{self.name.replace(', ', '-').replace(' ', '-')}"
        commands = ["set workers=1 idle-spin=off", "bridge add br0"]
        commands += [f"guest add {guest} snet={socket}-{guest}.sock {option} bridge=br0" for guest in self.ends]
        self.vifd = self.stack.enter_context(Vifd(self.folder, *commands, name=Path(socket).name, affinity=[cpu],
                                                  wrapper=self.wrapper))
        self.fronts = {guest: Front(self.folder, self.stack, f"{Path(socket).name}-{guest}", end, self.address(guest),
                                    GUESTS[guest][1]) for guest, end in self.ends.items()}

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
        self.seconds = 0.3 if lab.quick else 0.8
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
        return {**host.look(), **stream.look(), "clock": time.monotonic(),
                "idle": cpu_ticks(HOST_CPU)[1] / os.sysconf("SC_CLK_TCK")}


def measure(lab):
    """All samples: {direction: {configuration: [Sample]}}."""
    with ExitStack() as stack:
        paths = Paths(lab, stack)
        return {direction: interleave(3 if lab.quick else 7, list(CONFIGS), lambda config: paths.sample(config, direction),
                                      lambda text: lab.say(f"paths: {direction}, {text}"))
                for direction in DIRECTIONS}


def count(lab, config, rounds):
    """vifd's instructions of a configuration by packet, in user mode: {direction: [Sample by part of vifd]}."""
    out = lab.folder / "paths.callgrind"
    counted, dumps = {}, 0
    with ExitStack() as stack:
        host = Placed(lab.folder, stack, config, 9, None, wrapper=misses.command(out))
        host.set_frames(True)
        for direction in DIRECTIONS:
            counted[direction] = []
            with connection(host, direction) as _:
                time.sleep(1)
                for _ in range(rounds):
                    misses.control(host.vifd.pid, "--zero")
                    packets = host.packets(direction == "send")
                    time.sleep(0.5)
                    packets = host.packets(direction == "send") - packets
                    misses.control(host.vifd.pid, "--dump")
                    dumps += 1
                    sums = misses.by_component(Path(f"{out}.{dumps}").read_text(), ("Ir",))
                    counted[direction].append(Sample({part: value / packets for part, value in sums.items()}))
                    lab.say(f"paths: callgrind, {direction}: {counted[direction][-1]}")
    return counted


def figures_of(samples, config, metric):
    return [sample[metric] for sample in samples[config] if metric in sample]


def rows_of(taken):
    rows = []
    for direction, samples in taken.items():
        for config in CONFIGS:
            more = {"paper_ratio": LOST if config in XEN else 1} if config in (*XEN, BASE) else {}
            rows.append(row("P2", config, f"throughput, {direction}", "Mb/s", None, figures_of(samples, config, "throughput"),
                            **more))
        for part in ("total", "guest", "driver"):
            rows += [row("P4", config, f"cycles/byte {part}, {direction}", "cycles", None, values)
                     for config in CONFIGS if (values := figures_of(samples, config, part))]
    return rows


def rows_of_length(lengths):
    rows = []
    for direction, samples in lengths.items():
        for metric in dict.fromkeys(metric for counted in samples.values() for metric in counted[0]):
            for config in CONFIGS:
                whole = metric == "instructions/byte" and config in (*XEN, BASE)
                more = {"paper_ratio": PATH if config in XEN else 1} if whole else {}
                if values := figures_of(samples, config, metric):
                    rows.append(row("P3" if metric == "instructions/byte" else "P4", config, f"{metric}, {direction}",
                                    metric.partition("/")[0], None, values, **more))
    return rows


def rows_of_parts(counted):
    return [row("P4", "same CPU", f"instructions/packet {part}, {direction}", "instructions", None,
                [sample[part] for sample in samples])
            for direction, samples in counted.items() for part in samples[0]]


def why_length(lengths):
    ratios = [path_length.ratio(lengths[direction], "instructions/byte", name + "separate CPU", name + "same CPU")
              for name in CHANNELS for direction in DIRECTIONS]
    return LENGTH.format(*map("{:.2f}".format, ratios))


def run(lab):
    """Run the experiment; its rows."""
    need_two_cpus()
    before = os.sched_getaffinity(0)
    lab.stack.callback(os.sched_setaffinity, 0, before)
    lab.notes += NOTES
    lengths = path_length.measure(lab, CONFIGS)
    os.sched_setaffinity(0, {WIRE_CPU})
    taken = measure(lab)
    counted = count(lab, "same CPU", 3 if lab.quick else 5)
    lab.why["P3"] = why_length(lengths)
    return rows_of(taken) + rows_of_length(lengths) + rows_of_parts(counted)
