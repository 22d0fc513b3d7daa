# SPDX-License-Identifier: BSD-3-Clause
"""A guest with every offload and the wire, over each kind of uplink (M6, M8).

    guest web (every offload) ── br0 ── tap | af_packet | af_xdp ── wire

The guest's NIC is the same over all of them. What the uplink cannot do vifd does, and only that; either way both ends
receive what was sent, and no checksum is wrong.
"""
import collections

import pytest

from lib.traffic import tcp_copy

# caps: of the port, as `show ports` has them
Case = collections.namedtuple("Case", "uplink options caps")
ALL = {"sg", "csum", "tso4", "tso6", "ecn"}
CASES = {
    "tap": Case("tap", "", ALL),
    "tap-none": Case("tap", "offload=none", set()),
    "af_packet": Case("af_packet", "", ALL),
    "af_xdp": Case("af_xdp", "", {"sg"}),
}
MEGABYTES = 16
HARMLESS = {"drop_no_buffers", "drop_queue_full"} # what TCP provokes, and repairs


@pytest.fixture(scope="module", params=CASES)
def case(request, make_lab):
    """A lab over one of the uplinks, with a guest that has talked to the wire already."""
    case = CASES[request.param]
    lab = make_lab(uplink=case.uplink, uplink_options=case.options)
    web = lab.guest("web")
    for address in (lab.address, lab.address6):
        web.ping(address["wire"])
        lab.wire.ping(address["web"])
    return case, lab, web


def growth(lab, port, action):
    """By how much the counters of a port grow while action() runs; nothing may be dropped for good meanwhile."""
    before = lab.vifd.stats(port)
    action()
    after = lab.vifd.stats(port)
    grown = {name: after[name] - before[name] for name in after if isinstance(after[name], int)}
    dropped = {name: count for name, count in grown.items() if name.startswith("drop_") and count}
    assert dropped.keys() <= HARMLESS, dropped
    return grown


def wrong_checksums(end):
    """TCP segments that an end's kernel has refused."""
    names, values = (line.split() for line in end.run("grep ^Tcp: /proc/net/snmp").splitlines())
    return int(dict(zip(names, values))["InCsumErrors"])


def copy_both_families(lab, source, sink):
    for address in (lab.address, lab.address6):
        tcp_copy(source, sink, address[sink.name], megabytes=MEGABYTES)


def test_caps(case):
    """What the uplink says that it can do is what the tests below take for granted."""
    want, lab, _ = case
    port = next(port for port in lab.vifd.ctl("show ports") if port["name"] == "wire")
    assert port["kind"] == want.uplink.replace("_", "-")
    assert set(port["caps"]) & ALL == want.caps


def test_guest_to_wire(case):
    want, lab, web = case
    grown = growth(lab, "wire", lambda: copy_both_families(lab, web, lab.wire))
    assert wrong_checksums(lab.wire) == 0
    assert grown["send_bytes"] > 2 * MEGABYTES << 20
    if "tso4" in want.caps:
        assert grown["send_gso_packets"] > 0
        assert grown["segmented_packets"] == grown["checksummed_packets"] == 0
    else:
        assert grown["send_gso_packets"] == 0
        assert grown["segmented_packets"] > 100
        assert grown["checksummed_packets"] > 0
        assert grown["send_bytes"] / grown["send_packets"] < 1600


def test_wire_to_guest(case):
    """The guest's port takes everything: whatever the wire sends, there is nothing for vifd to do."""
    want, lab, web = case
    received = {}
    grown = growth(lab, "web", lambda: received.update(
        growth(lab, "wire", lambda: copy_both_families(lab, lab.wire, web))))
    assert wrong_checksums(web) == 0
    assert received["recv_bytes"] > 2 * MEGABYTES << 20
    assert grown["segmented_packets"] == grown["checksummed_packets"] == 0
    # what the uplink takes whole it hands over whole, too, and so it goes on to the guest; AF_XDP's segments are merged
    assert (received["recv_gso_packets"] > 0) == ("tso4" in want.caps)
    assert (grown["send_gso_packets"] > 0) == ("tso4" in want.caps or want.uplink == "af_xdp")
