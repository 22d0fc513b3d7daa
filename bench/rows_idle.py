# SPDX-License-Identifier: BSD-3-Clause
"""The idle rows: what waiting for packets costs, and what not waiting costs.

idle-cpu: ten guests are connected to vifd, and ten to Open vSwitch-DPDK, and none of them sends anything; the row
is each switch's share of a core over some seconds.

idle-spin: vifd, told how long to spin before it sleeps (off: not at all; auto: adaptive; fixed: that long always),
carries one packet at a time through two guests, with a gap from one packet to the next that is short or long
compared with a spin. Each setting is a pair of rows a gap: the packet's latency, and vifd's share of a core.
"""

import time

from host import BenchError, Host
from results import Bar, Row, Sample
from stations import GENERATOR_MIB, Generator, Placement, classify
from switches import OVS_DPDK_MIB, SWITCH_CPU, OvsDpdk, Vifd

GUESTS = 10
SPINS = {"off": "off", "auto": "auto", "fixed": "100"}  # name -> what vifd is told; microseconds
GAPS = {"20us": 20, "1ms": 1000}
IDLE_BAR = 1.0  # percent of a core
FIGURES = {"p50": "ns", "p99": "ns", "cpu": "% of a core"}

SPIN_ROWS = [f"idle-spin-{spin}-{gap}-{figure}" for spin in SPINS for gap in GAPS for figure in FIGURES]
ROWS = ["idle-cpu"] + SPIN_ROWS


def rows(wanted, options, say):
    """Measure the wanted rows of this group."""
    made = []
    if "idle-cpu" in wanted:
        made.append(idle_cpu(options, say))
    spins = [row for row in wanted if row in SPIN_ROWS]
    if spins:
        made += idle_spin(spins, options, say)
    return made


def share(switch, action):
    """Percent of a core that a switch used while the action ran, and what that returned."""
    start, before = time.monotonic(), switch.cpu_seconds()
    result = action()
    return 100 * (switch.cpu_seconds() - before) / (time.monotonic() - start), result


def idle_cpu(options, say):
    """Ten guests each, in turn."""
    seconds, rounds = (2, 2) if options.quick else (4, 5)
    shares = {}
    with Host() as host:
        host.hugepages(GENERATOR_MIB + OVS_DPDK_MIB)
        say(f"idle: starting vifd and ovs-dpdk with {GUESTS} guests each")
        switches = [Vifd(host, guests=GUESTS, cpu=SWITCH_CPU), OvsDpdk(host, guests=GUESTS)]
        generator = Generator(host, [path for switch in switches for path in switch.sockets])
        for pair in range(GUESTS):
            generator.wait_ready(pair)
        for switch in switches:
            switch.pause()
        for done in range(rounds):
            for switch in switches:
                switch.resume()
                time.sleep(0.5)
                used, _ = share(switch, lambda: time.sleep(seconds))
                switch.pause()
                shares.setdefault(switch.name, []).append(Sample(used, None))
            say(f"idle round {done + 1}/{rounds}: " + ", ".join(
                f"{name} {samples[-1].value:.2f} % of a core" for name, samples in shares.items()))
        for switch in switches:
            switch.resume()
    return Row("idle-cpu", "ovs-dpdk", "% of a core", False, shares["vifd"], shares["ovs-dpdk"],
               Bar(IDLE_BAR, absolute=True))


def idle_spin(wanted, options, say):
    """Latency and CPU of each setting, a round after the other."""
    milliseconds, rounds = (200, 2) if options.quick else (500, 5)
    samples = {}
    with Host() as host:
        host.hugepages(GENERATOR_MIB)
        say("idle-spin: starting vifd with two guests")
        vifd = Vifd(host, guests=2, cpu=SWITCH_CPU)
        generator = Generator(host, vifd.sockets)
        placement = Placement(host)
        for done in range(rounds):
            for gap, gap_us in GAPS.items():
                cells = []
                for spin, setting in SPINS.items():
                    got, where = spin_sample(vifd, generator, placement, setting, gap_us,
                                             milliseconds)
                    for figure, value in got.items():
                        samples.setdefault(f"idle-spin-{spin}-{gap}-{figure}",
                                           []).append(Sample(value, where))
                    cells.append(f"{spin} {got['p50'] / 1e3:.1f} us {got['cpu']:.0f} %")
                say(f"idle-spin, a packet every {gap}, round {done + 1}/{rounds}: " +
                    ", ".join(cells))
    return [Row(name, "none", FIGURES[name.rpartition("-")[2]], False, samples[name])
            for name in wanted]


def spin_sample(vifd, generator, placement, setting, gap_us, milliseconds):
    """One sample of one setting: latencies and CPU, and the placement."""
    before = placement.probe()
    vifd.ctl("set", f"idle-spin={setting}")
    generator.command("warm", 0, 64, 15)
    generator.command("latency", 0, 64, 100, gap_us)  # so that an adaptive spin has adapted
    used, got = share(vifd, lambda: generator.command("latency", 0, 64, milliseconds, gap_us))
    if not got["count"]:
        raise BenchError(f"vifd lost {got['lost']} packets of {got['lost']}")
    return ({"p50": got["p50"], "p99": got["p99"], "cpu": used},
            classify(before, placement.probe()))
