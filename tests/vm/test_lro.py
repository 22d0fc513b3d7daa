# SPDX-License-Identifier: BSD-3-Clause
"""Guests receive what a wire delivers in segments as large packets (A1-A4).

    wire ══ veth ══ af_xdp ─┐
                            ├─ br0 ─┬─ guest web    takes large packets
                            ┘       └─ guest plain  offload=off: takes none, and sends none

XDP hands over what the wire carries, so that a large packet was merged by vifd.
"""
import pytest

from lib.traffic import tcp_copy

MEGABYTES = 16


@pytest.fixture(scope="module")
def lab(make_lab):
    lab = make_lab(uplink="af_xdp")
    lab.start_guest("web")
    lab.start_guest("plain", options="offload=off")
    for name in ("web", "plain"):
        lab.finish_guest(name)
        lab.wire.ping(lab.address[name])
        lab.wire.ping(lab.address6[name])
    return lab


def growth(before, after):
    return {name: after[name] - before[name] for name in ("segments", "packets", "aggregates")}


def lro(lab, port):
    return lab.vifd.ctl(f"show lro {port}")[0]


def wrong_checksums(end):
    names, values = (line.split() for line in end.run("grep ^Tcp: /proc/net/snmp").splitlines())
    return int(dict(zip(names, values))["InCsumErrors"])


@pytest.mark.parametrize("mode", ["poll", "every:2", "auto"])
def test_bulk_from_the_wire_is_merged(lab, mode):
    lab.vifd.ctl(f"uplink set wire lro={mode}")
    before, packets = lro(lab, "wire"), lab.vifd.stats("web")
    for address in (lab.address, lab.address6):
        tcp_copy(lab.wire, lab.guests["web"], address["web"], megabytes=MEGABYTES)
    grown, after = growth(before, lro(lab, "wire")), lab.vifd.stats("web")
    assert grown["segments"] >= 2 * MEGABYTES * 2 ** 20 / 1500
    assert grown["segments"] > grown["packets"], grown
    assert after["send_gso_packets"] - packets["send_gso_packets"] >= grown["aggregates"] > 0
    assert wrong_checksums(lab.guests["web"]) == 0


def test_off_merges_nothing(lab):
    lab.vifd.ctl("uplink set wire lro=off")
    before = lro(lab, "wire")
    tcp_copy(lab.wire, lab.guests["web"], lab.address["web"], megabytes=4)
    assert growth(before, lro(lab, "wire"))["segments"] == 0
    lab.vifd.ctl("uplink set wire lro=auto")


def test_a_plain_guest_gets_segments(lab):
    before = lro(lab, "wire")
    for address in (lab.address, lab.address6):
        tcp_copy(lab.wire, lab.guests["plain"], address["plain"], megabytes=4)
    assert growth(before, lro(lab, "wire"))["aggregates"] == 0
    stats = lab.vifd.stats("plain")
    assert stats["send_gso_packets"] == stats["segmented_packets"] == 0
    assert wrong_checksums(lab.guests["plain"]) == 0


def test_what_a_guest_sends_in_segments_is_merged_for_another(lab):
    """Off unless asked for."""
    plain, web = lab.guests["plain"], lab.guests["web"]
    assert [row["name"] for row in lab.vifd.ctl("show lro")] == ["wire"]
    before = lab.vifd.stats("web")["send_gso_packets"]
    tcp_copy(plain, web, lab.address["web"], megabytes=4)
    assert lab.vifd.stats("web")["send_gso_packets"] == before
    lab.vifd.ctl("guest set plain lro=auto")
    for address in (lab.address, lab.address6):
        tcp_copy(plain, web, address["web"], megabytes=MEGABYTES)
        tcp_copy(web, plain, address["plain"], megabytes=2)
    row = lro(lab, "plain")
    assert row["segments"] >= 2 * MEGABYTES * 2 ** 20 / 1500 and row["aggregates"] > 0
    assert lab.vifd.stats("web")["send_gso_packets"] - before >= row["aggregates"]
    assert wrong_checksums(web) == wrong_checksums(plain) == 0
