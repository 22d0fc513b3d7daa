# SPDX-License-Identifier: BSD-3-Clause
"""kill -9 of vifd under TCP traffic, in both socket roles and both directions: the stream goes on within two seconds
of the restart, and nobody touches the guest.

    guest ── vhost-user, reconnecting ── vifd ── TAP (persistent) ── wire
"""
import re
import time

import pytest

from lib.traffic import serve, tcp_copy


def tcp_bytes(wire):
    """Bytes that the iperf3 server has received, or had acknowledged, on all its connections."""
    text = wire.run("ss -tinH sport = :5201")
    return sum(map(int, re.findall(r"bytes_(?:received|acked):(\d+)", text)))


def wait_for_progress(wire, seconds, much=1 << 20):
    """Until another MiB has moved; how long that took."""
    begin, start = time.monotonic(), tcp_bytes(wire)
    while tcp_bytes(wire) - start < much:
        assert time.monotonic() - begin < seconds, f"TCP does not move for {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - begin


@pytest.fixture(scope="module", params=["server", "client"])
def one(request, make_lab):
    """A lab with one guest; the parameter is vifd's role."""
    lab = make_lab(persistent=True)
    lab.guest("one", listen=request.param == "client")
    serve(lab.wire)
    return lab


@pytest.mark.parametrize("direction", ["to-wire", "from-wire"])
def test_killed_under_traffic(one, direction):
    guest = one.guests["one"]
    guest.ping(one.address["wire"])
    guest.spawn(f"iperf3 -c {one.address['wire']} -t 14 {'-R' if direction == 'from-wire' else ''} >/dev/null;"
                f" echo $? >/tmp/{direction}")
    wait_for_progress(one.wire, 10)
    for _ in range(2):
        one.restart_vifd()
        # 2 seconds of which QEMU may take one until it connects again
        assert wait_for_progress(one.wire, 5) <= 2.0
        time.sleep(1)
    guest.run(f"until [ -e /tmp/{direction} ]; do sleep 0.2; done", timeout=30)
    assert guest.run(f"cat /tmp/{direction}").strip() == "0"
    tcp_copy(guest, one.wire, one.address["wire"])
    tcp_copy(one.wire, guest, one.address["one"])
    assert one.show_guest("one")["connected"]
