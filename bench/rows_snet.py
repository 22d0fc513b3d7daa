# SPDX-License-Identifier: BSD-3-Clause
"""The snet rows: two programs on shared memory through vifd, and through a dpdk-testpmd that only passes bursts on.

        CPU 0                                      CPU 1, one of them at a time
      gen_snet: port 1 ──┬── snet, bridge br0 ──> vifd ──────────┐
                port 2 <─┼─────────────────────────────────────<─┘
                port 3 ──┼── snet, direct ──────> vifd ──────────┐
                port 4 <─┼─────────────────────────────────────<─┘
                port 5 ──┼── memif ─────────────> testpmd-memif ─┐
                port 6 <─┴─────────────────────────────────────<─┘

vifd's guests have trust=isolated, its default: one copy a packet, into the receiver's own memory. On the bridge it learns
and validates. testpmd copies twice, in and out, and looks at nothing. Interleaving and placement are those of the vhost
rows, the guests' loop is the same for all (gen_snet.c).
"""

import json
import subprocess
import time

from host import BenchError, Host, answer, wait_for
from results import Bar, Row, summary
from rows_vhost import Series, bad_frames, enough, progress, stage_medians, take_round
from stations import Generator, Placement
from switches import GENERATOR_CPU, SWITCH_CPU, Switch, Vifd

TESTPMD_MIB = 256
ZONES_MIB = 64  # of huge pages, which the vifds take for their guests' zones
LOAD, PEER = "64", "testpmd-memif"
# Row -> which vifd, and how many times the peer's packets it must carry.
BARS = {"snet-pps-64": ("vifd", 1.0), "snet-pps-64-direct": ("vifd-direct", 1.2)}
ROWS = list(BARS)


class VifdSnet(Vifd):
    """vifd with two snet guests, on a bridge or tied to each other."""

    def __init__(self, host, name):
        self.name = name
        super().__init__(host, cpu=SWITCH_CPU)
        paths = [host.dir / f"{name}-{i}.sock" for i in range(2)]
        for i, path in enumerate(paths):
            where = f"direct=g{1 - i}" if "direct" in name else "bridge=br0"
            self.ctl("guest", "add", f"g{i}", f"snet={path}", where)
        self.sockets = [f"snet:{path}" for path in paths]


class TestpmdMemif(Switch):
    """dpdk-testpmd passing bursts between two memif ports."""

    name = PEER

    def __init__(self, host):
        paths = [host.dir / f"memif-{i}.sock" for i in range(2)]
        devices = [f"--vdev=net_memif{i},role=server,id=0,rsize=10,socket={path},socket-abstract=no"
                   for i, path in enumerate(paths)]
        self.process = host.spawn(
            "testpmd-memif", "dpdk-testpmd", "--lcores", f"0@{SWITCH_CPU},1@{SWITCH_CPU}", "--no-pci", "--in-memory",
            "--single-file-segments", "--no-telemetry", "-m", TESTPMD_MIB, *devices, "--",
            "--forward-mode=io", "--nb-cores=1", "--burst=32", "--no-lsc-interrupt",
            "--disable-link-check", "--total-num-mbufs=16384", stdin=subprocess.PIPE)
        wait_for("testpmd", lambda: all(path.exists() for path in paths), self.process)
        self.sockets = [f"memif:{path}" for path in paths]


class SnetGenerator(Generator):
    """gen_snet: a front end for every socket."""

    def __init__(self, host, sockets):  # pylint: disable=super-init-not-called
        self.process = host.spawn("gen_snet", Vifd.build / "bench" / "gen_snet", *sockets, cpu=GENERATOR_CPU,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if json.loads(answer(self.process))["ports"] != len(sockets):
            raise BenchError("gen_snet: not all of its ports came up")


def measure(options, say):
    """Take rounds of samples, until there are enough near ones or time is up. Returns the Series."""
    series, rounds, done = Series(), 4 if options.quick else 15, 0
    with Host() as host:
        host.hugepages(TESTPMD_MIB + ZONES_MIB)
        say("snet: starting testpmd-memif, two vifds and the generator")
        peer = TestpmdMemif(host)
        switches = [VifdSnet(host, "vifd"), VifdSnet(host, "vifd-direct"), peer]
        generator = SnetGenerator(host, [path for switch in switches for path in switch.sockets])
        placement = Placement(host)
        for pair, switch in enumerate(switches):
            generator.wait_ready(pair)
            switch.pause()
        end = time.monotonic() + options.minutes * 60
        while time.monotonic() < end and not enough(series, [LOAD], switches, rounds, done):
            take_round(series, LOAD, switches[::-1] if done % 2 else switches, switches, generator, placement)
            progress(series, LOAD, switches, done, rounds, say, "snet")
            done += 1
        for switch in switches:
            switch.resume()
    return series


def rows(wanted, options, say):
    """Measure the wanted rows of this group."""
    series = measure(options, say)
    made = []
    for name in wanted:
        switch, limit = BARS[name]
        cycles = summary([sample.value for sample in series.of(LOAD, switch, "cycles")])
        extra = {**bad_frames(series, LOAD, switch), "cycles": cycles, "stages": stage_medians(series, LOAD, switch)}
        made.append(Row(name, PEER, "Mpps", True, series.of(LOAD, switch, "mpps"), series.of(LOAD, PEER, "mpps"),
                        Bar(limit), extra))
    return made
