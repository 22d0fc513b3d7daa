# SPDX-License-Identifier: BSD-3-Clause
"""The vhost rows: two virtio-user front ends through vifd, Open vSwitch-DPDK and bare rte_vhost.

        CPU 0                                   CPU 1, one of them at a time
      gen: port 0 ──┬── vhost-user ──┬────────> vifd ─────────┐
           port 1 <─┼────────────────┼──────────────────────<─┘
           port 2 ──┼────────────────┼────────> ovs-dpdk ─────┐
           port 3 <─┼────────────────┼──────────────────────<─┘
           port 4 ──┼────────────────┼────────> testpmd-io ───┐
           port 5 <─┴────────────────┴──────────────────────<─┘

All switches run from the start and all but one stand still (SIGSTOP), so that samples of different switches are
a quarter of a second apart. Before and after each sample, while all stand still, the placement of the two CPUs is
probed; a sample counts as near (or far) if both probes say so. One during which another process took the CPU of the
generator or of the switch counts for neither.
"""

import time

from host import Host, thread_times, waited
from results import DISTURBED, NEAR, Bar, Row, Sample
from stations import GENERATOR_MIB, Generator, Placement, classify
from switches import OVS_DPDK_MIB, SWITCH_CPU, OvsDpdk, Testpmd, Vifd

SAMPLE_MS, RAMP_MS = 150, 25
DISTURBED_MS = 3
TESTPMD_MIB = 512

# What is measured: name -> (kind of run, mode, frame size). The rows name what they are made of.
LOADS = {"64": ("run", "uni", 64), "512": ("run", "uni", 512), "1518": ("run", "uni", 1518),
         "1518-touched": ("run", "touched", 1518), "latency": ("latency", "", 64)}

BARS = {"vhost-pps-64": {"ovs-dpdk": 1.5, "testpmd-io": 1.1},
        "vhost-pps-512": {"ovs-dpdk": 1.8, "testpmd-io": 1.4},
        "vhost-pps-1518": {"ovs-dpdk": 2.0, "testpmd-io": 1.5},
        "vhost-pps-1518-touched": {"ovs-dpdk": 1.3, "testpmd-io": 1.1},
        "vhost-latency-p50": {"ovs-dpdk": 1.0, "testpmd-io": 1.0},
        "vhost-latency-p99": {"ovs-dpdk": 1.0, "testpmd-io": 1.0}}
CYCLES_BARS = {"vhost-cycles-64": 65, "vhost-cycles-1518": 150}
ROWS = list(BARS) + list(CYCLES_BARS)


def load_of(row):
    """The load that a row is measured with."""
    return "latency" if "latency" in row else row.split("-", 2)[2]


class Series:
    """Everything sampled: by load, by switch."""

    def __init__(self):
        self.samples = {}

    def add(self, load, switch, placement, figures):
        """Take in the figures (a dictionary) of one sample."""
        self.samples.setdefault((load, switch), []).append((placement, figures))

    def of(self, load, switch, figure):
        """The Samples of one figure."""
        return [Sample(figures[figure], placement)
                for placement, figures in self.samples.get((load, switch), [])
                if figures.get(figure) is not None]

    def near_count(self, load, switch):
        """How many samples so far were near."""
        return sum(placement == NEAR for placement, _ in self.samples.get((load, switch), []))


def sample_run(switch, generator, pair, mode, size):
    """Packets per second through a switch; of vifd, what it spent on them too."""
    generator.command("run", pair, mode, size, RAMP_MS)
    before = switch.ctl("profile") if isinstance(switch, Vifd) else None
    got, disturbed = undisturbed(switch, generator, "run", pair, mode, size, SAMPLE_MS)
    figures = {"mpps": got["received"] / got["seconds"] / 1e6, "bad": got["bad"]}
    if before:
        figures.update(spent(before, switch.ctl("profile")))
    return figures, disturbed


def undisturbed(switch, generator, *command):
    """A generator's command, and whether somebody else took a CPU from it or the switch meanwhile."""
    processes = (switch.process, generator.process)
    before = [thread_times(process) for process in processes]
    got = generator.command(*command)
    after = [thread_times(process) for process in processes]
    return got, any(waited(*times) > DISTURBED_MS / 1e3 for times in zip(before, after))


def spent(before, after):
    """Busy cycles per packet between two profiles, and by stage."""
    packets = after["packets"] - before["packets"]
    if not packets:
        return {}
    stages = {now["stage"]: (now["cycles"] - then["cycles"]) / packets
              for then, now in zip(before["stages"], after["stages"])}
    return {"cycles": (after["busy_cycles"] - before["busy_cycles"]) / packets, "stages": stages}


def sample(switch, generator, pair, load):
    """One sample of a switch that was just set going: its figures, and whether it was disturbed."""
    kind, mode, size = LOADS[load]
    generator.wait_ready(pair)
    if kind == "run":
        return sample_run(switch, generator, pair, mode, size)
    got, disturbed = undisturbed(switch, generator, "latency", pair, size, SAMPLE_MS, 0)
    figures = {"p50": got.get("p50"), "p99": got.get("p99"), "bad": got["bad"] + got["lost"]}
    return figures, disturbed


def measure(loads, options, say):
    """Take rounds of samples, until there are enough near ones or time is up. Returns the Series."""
    series, rounds = Series(), 4 if options.quick else 15
    with Host() as host:
        host.hugepages(GENERATOR_MIB + OVS_DPDK_MIB + TESTPMD_MIB)
        say("vhost: starting vifd, ovs-dpdk, testpmd-io and the generator")
        switches = [Vifd(host, guests=2, cpu=SWITCH_CPU), OvsDpdk(host), Testpmd(host)]
        generator = Generator(host, [path for switch in switches for path in switch.sockets])
        placement = Placement(host)
        for pair, switch in enumerate(switches):
            generator.wait_ready(pair)
            switch.pause()
        end = time.monotonic() + options.minutes * 60
        done = 0
        while time.monotonic() < end and not enough(series, loads, switches, rounds, done):
            for load in loads:
                take_round(series, load, switches[::-1] if done % 2 else switches, switches,
                           generator, placement)
                progress(series, load, switches, done, rounds, say)
            done += 1
        for switch in switches:
            switch.resume()
    return series


def enough(series, loads, switches, rounds, done):
    """So many rounds, each seen near; or four times as many, wherever they were."""
    return done >= 4 * rounds or done >= rounds and all(
        series.near_count(load, switch.name) >= rounds for load in loads for switch in switches)


def take_round(series, load, order, switches, generator, placement):
    """One sample of every switch."""
    before = placement.probe()
    for switch in order:
        switch.resume()
        figures, disturbed = sample(switch, generator, switches.index(switch), load)
        switch.pause()
        after = placement.probe()
        series.add(load, switch.name, DISTURBED if disturbed else classify(before, after), figures)
        before = after


def progress(series, load, switches, done, rounds, say, group="vhost"):
    """Say what the last round of a load gave."""
    cells = []
    for switch in switches:
        where, figures = series.samples[(load, switch.name)][-1]
        value = f"{figures['mpps']:.1f} Mpps" if "mpps" in figures else f"{figures['p50']} ns"
        if figures.get("cycles"):
            value += f" {figures['cycles']:.0f} cycles"
        cells.append(f"{switch.name} {value} {where}" + (" BAD FRAMES" if figures["bad"] else ""))
    say(f"{group} {load} round {done + 1}/{rounds}: " + ", ".join(cells))


def rows(wanted, options, say):
    """Measure the wanted rows of this group."""
    series = measure(sorted({load_of(row) for row in wanted}, key=list(LOADS).index), options, say)
    made = []
    for name in wanted:
        load = load_of(name)
        if name in CYCLES_BARS:
            made.append(Row(name, "none", "cycles/packet", False, series.of(load, "vifd", "cycles"),
                            bar=Bar(CYCLES_BARS[name], absolute=True),
                            extra={"stages": stage_medians(series, load)}))
            continue
        latency = load == "latency"
        figure = name.rpartition("-")[2] if latency else "mpps"
        for peer, limit in BARS[name].items():
            made.append(Row(name, peer, "ns" if latency else "Mpps", not latency,
                            series.of(load, "vifd", figure), series.of(load, peer, figure),
                            Bar(limit), bad_frames(series, load)))
    return made


def bad_frames(series, load, switch="vifd"):
    """Frames that came out of vifd wrong or, one at a time, not at all: there must be none."""
    return {"bad": sum(figures["bad"] for _, figures in series.samples[(load, switch)])}


def stage_medians(series, load, switch="vifd"):
    """vifd's cycles per packet by stage, near."""
    near = [figures["stages"] for placement, figures in series.samples[(load, switch)]
            if placement == NEAR and "stages" in figures]
    return {stage: round(sorted(one[stage] for one in near)[len(near) // 2], 1)
            for stage in (near[0] if near else ())}
