# SPDX-License-Identifier: BSD-3-Clause
"""Jumbo frames: the guests learn an MTU of 9000 from vifd, the uplink has it too.

    guest big    (offloads)    ──┐
    guest plain  (no offloads) ──┼── br0 ── TAP, mtu 9000 ── wire
"""
from lib.guest import NO_OFFLOADS
from lib.traffic import tcp_copy


def test_jumbo(make_lab):
    lab = make_lab(mtu=9000)
    lab.start_guest("big", device="host_mtu=9000")
    lab.start_guest("plain", device="host_mtu=9000," + NO_OFFLOADS)
    ends = [lab.finish_guest("big"), lab.finish_guest("plain"), lab.wire]
    for guest in ends[:2]:
        assert guest.run("cat /sys/class/net/eth0/mtu").strip() == "9000"
    for source in ends:
        for sink in ends:
            if source is not sink:
                source.run(f"ping -c 2 -s 8900 {lab.address[sink.name]}")
                tcp_copy(source, sink, lab.address[sink.name])
    # without offloads, whole frames of 9000 bytes went out
    stats = lab.vifd.stats("plain")
    assert stats["recv_bytes"] / stats["recv_packets"] > 1600
