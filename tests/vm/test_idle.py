# SPDX-License-Identifier: BSD-3-Clause
"""Ten connected, idle guests cost less than one per cent of a CPU."""
import time

from lib.traffic import cpu_seconds


def test_idle(make_lab):
    lab = make_lab()
    names = [f"idle{number}" for number in range(10)]
    for name in names:
        lab.start_guest(name, memory=192)
    for name in names:
        lab.finish_guest(name).ping(lab.address["wire"])
    time.sleep(2) # neighbour discovery and the like die down
    before = cpu_seconds(lab.vifd.pid)
    time.sleep(5)
    assert (cpu_seconds(lab.vifd.pid) - before) / 5 < 0.01
    assert all(guest["connected"] for guest in lab.vifd.ctl("show guests"))
