# SPDX-License-Identifier: BSD-3-Clause
"""kill -9 and restart of vifd under the traffic of two honest front ends (restart.c)."""
import json
import subprocess
import time

import pytest

from lib.guest import with_parent
from lib.vifd import BUILD

RESTARTS = 5


def wait_for_guests(vifd, guests):
    """Until both have connected again and their rings run: to be killed in a handshake is another test."""
    deadline = time.monotonic() + 10
    while not all(ring["running"] for guest in vifd.ctl("show guests") for ring in guest["rings"]):
        assert guests.poll() is None, guests.communicate()
        assert time.monotonic() < deadline, vifd.ctl("show guests")
        time.sleep(0.05)


@pytest.mark.parametrize("features", [[], ["in-order"], ["event-idx"], ["in-order", "event-idx"]], ids="+".join)
def test_restart(start_vifd, folder, cleanup, features):
    sockets = [f"{folder}/{name}.sock" for name in "ab"]
    vifd = start_vifd("bridge add br0", *(f"guest add {name} vhost-user={path} bridge=br0"
                                          for name, path in zip("ab", sockets)))
    guests = cleanup.enter_context(
        subprocess.Popen(with_parent([BUILD / "tests" / "hostile" / "restart", *sockets, RESTARTS, *features]),
                         text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    cleanup.callback(guests.kill)
    assert guests.stdout.readline() == "ready\n"
    for _ in range(RESTARTS):
        time.sleep(0.3)
        vifd.kill()
        vifd.start()
        wait_for_guests(vifd, guests)
        time.sleep(0.3)
    out, err = guests.communicate(timeout=30)
    assert guests.returncode == 0, err
    seen = json.loads(out)
    assert seen["wrong"] == 0
    assert seen["received"] > seen["sent"] / 2, seen
    assert seen["repeated"] <= RESTARTS * 2 * 256, seen # at most what was in flight when it was killed
    assert seen["longest_outage_ms"] < 2000, seen
