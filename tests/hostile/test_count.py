# SPDX-License-Identifier: BSD-3-Clause
"""Per packet of 64 KiB from guest to guest: exactly one payload copy, no system call, no allocation. Counted.

    a ── vifd ── b      pump.c: both drivers poll; one worker that never sleeps meanwhile

Allocations and copies of the whole process are counted by count_calls.c, loaded into vifd; system calls of the worker by
strace, attached to it. Both are shown to count: vifd allocates when it starts, and the worker sleeps when it is told to.
"""
import json
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from lib.guest import with_parent
from lib.vifd import BUILD

PACKETS = 200
# Bytes of a packet that may be copied beside the payload's one copy: its headers on the way in and out.
HEADERS = 512
# The main thread's timer may allocate when it sets itself anew.
TICK_SECONDS = 0.25
SHAPES = {"one-piece": (0, 2048), "pages": (4096, 4096), "large-buffers": (0, 65600), "400-pieces": (164, 2048)}


class Pump:
    def __init__(self, folder, shape, cleanup):
        command = [BUILD / "tests" / "hostile" / "pump", f"{folder}/a.sock", f"{folder}/b.sock", *SHAPES[shape]]
        self.process = cleanup.enter_context(subprocess.Popen(with_parent(command), text=True, stdin=subprocess.PIPE,
                                                              stdout=subprocess.PIPE))
        cleanup.callback(self.process.kill)

    def __call__(self, packets):
        self.process.stdin.write(f"{packets}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def start(start_vifd, folder):
    # With a second of spin the worker polls from the first packet to the last.
    return start_vifd("set workers=1", "set idle-spin=1000000", "bridge add br0",
                      *(f"guest add {name} vhost-user={folder}/{name}.sock bridge=br0" for name in "ab"))


def worker_of(vifd):
    tasks = Path(f"/proc/{vifd.pid}/task")
    return next(task.name for task in tasks.iterdir() if (task / "comm").read_text().startswith("vifd-w"))


@pytest.mark.parametrize("shape", SHAPES)
def test_one_copy_no_allocation(start_vifd, folder, cleanup, monkeypatch, shape):
    counters = Path(folder) / "counters"
    counters.write_bytes(bytes(24))

    def count():
        return struct.unpack("QQQ", counters.read_bytes())

    with monkeypatch.context() as patch:
        patch.setenv("COUNT_CALLS", str(counters))
        patch.setenv("LD_PRELOAD", str(BUILD / "tests" / "hostile" / "libcount_calls.so"))
        vifd = start(start_vifd, folder)
    pump = Pump(folder, shape, cleanup)
    pump(10) # addresses are learned
    stats = vifd.stats("b")
    time.sleep(0.1) # the control socket has its allocations behind it
    before = count()
    assert before[0] > 0, "nothing is counted"
    begin = time.monotonic()
    pumped = pump(PACKETS)
    ticks = (time.monotonic() - begin) / TICK_SECONDS + 1
    allocations, copies, copied = (after - then for after, then in zip(count(), before))
    print(f"{shape}: {allocations} allocations, {copies / PACKETS} copies and {copied / PACKETS} bytes a packet")
    sent = vifd.stats("b")["send_packets"] - stats["send_packets"]
    assert sent == PACKETS and vifd.stats("b")["segments"] == 0
    assert allocations <= ticks
    assert pumped["bytes"] - HEADERS <= copied / PACKETS <= pumped["bytes"] + HEADERS


def test_no_system_call(start_vifd, folder, cleanup):
    vifd = start(start_vifd, folder)
    pump = Pump(folder, "pages", cleanup)
    pump(10)
    trace, worker = Path(folder) / "trace", worker_of(vifd)
    strace = cleanup.enter_context(subprocess.Popen(with_parent(["strace", "-ttt", "-p", worker, "-o", trace]),
                                                    stderr=subprocess.PIPE, text=True))
    cleanup.callback(strace.kill)
    assert "attached" in strace.stderr.readline()
    begin = time.time()
    pumped = pump(PACKETS)
    end = time.time()
    vifd.ctl("set idle-spin=0")
    pump(1)
    time.sleep(0.2)
    strace.send_signal(signal.SIGINT)
    strace.wait(10)
    times = [float(line.split()[0]) for line in trace.read_text().splitlines() if line[:1].isdigit()]
    assert [at for at in times if at > end], "strace saw nothing at all"
    assert not [at for at in times if begin <= at <= end], trace.read_text()[:2000]
    assert pumped["kicks"] == 0 or vifd.stats("a")["wakeups"] == 0
