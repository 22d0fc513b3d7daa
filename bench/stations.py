# SPDX-License-Identifier: BSD-3-Clause
"""The bench's helpers in C, driven line by line: the packet generator and the placement probe."""

import json
import subprocess

from host import BenchError, answer, ask, wait_for
from results import FAR, MIXED, NEAR
from switches import GENERATOR_CPU, SWITCH_CPU, TOOLS

GENERATOR_MIB = 512

# A cache line's round trip between two CPUs, ns: about 40 to 160 within a shared cache, 500 and more across.
NEAR_BELOW, FAR_ABOVE = 250, 350


class Generator:
    """gen: two virtio-user front ends for every pair of sockets."""

    def __init__(self, host, sockets):
        devices = [f"--vdev=net_virtio_user{i},path={path},queues=1,queue_size=256"
                   for i, path in enumerate(sockets)]
        self.process = host.spawn(
            "gen", TOOLS / "gen", "--lcores", f"0@{GENERATOR_CPU}", "--no-pci", "--in-memory",
            "--single-file-segments", "--no-telemetry", "-m", GENERATOR_MIB, *devices,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if json.loads(answer(self.process, 60))["ports"] != len(sockets):
            raise BenchError("gen: not all of its ports came up")

    def wait_ready(self, pair):
        """Until a pair's switch is awake and carries packets both ways."""
        wait_for(f"pair {pair}: packets carried",
                 lambda: all(self.command("warm", pair, 64, 15).values()), self.process)

    def command(self, *words):
        """One command of gen.c; returns its answer."""
        reply = json.loads(ask(self.process, " ".join(str(word) for word in words)))
        if "error" in reply:
            raise BenchError(f"gen: {reply['error']}: {words}")
        return reply


class Placement:
    """placement: tells near from far. The switch's CPU must be idle when it is asked."""

    def __init__(self, host):
        self.process = host.spawn("placement", TOOLS / "placement", GENERATOR_CPU, SWITCH_CPU,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def probe(self):
        """The round trip of a cache line, in ns."""
        return float(ask(self.process, ""))


def classify(before, after):
    """The placement of a sample from the probes around it."""
    if max(before, after) < NEAR_BELOW:
        return NEAR
    if min(before, after) > FAR_ABOVE:
        return FAR
    return MIXED
