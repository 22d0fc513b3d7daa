# SPDX-License-Identifier: BSD-3-Clause
"""Ports of different MTU on one bridge: what does not fit is counted, and its sender is told.

         namespace 1                one vifd process             namespace 2
    ┌──────────────────┐       ┌──────────────────────┐       ┌──────────────────┐
    │ Linux       tap0 ┼───────┼─ p1      br0      p2 ─┼───────┼ tap0       Linux │
    └──────────────────┘       └──────────────────────┘       └──────────────────┘
      10.77.0.1, fd77::1         MTU 1500     MTU 1300           10.77.0.2, fd77::2

Linux announces with each TCP connection the largest segment that its own interface takes, so that a segment which is
too big for the other end is rare. To make TCP depend on ICMP, the narrow end is told to announce more (advmss), as an
end with a narrow link further on would.
"""
import collections
import re
import socket
import struct
import time

import pytest

from net.test_tap import MIB, arrived, capture, eventually, frame_of, tcp_copy, udp_echo

WIDE, NARROW = 1500, 1300
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0
FRAG_NEEDED = b"\x03\x04"  # ICMP type and code

Ends = collections.namedtuple("Ends", "vifd wide narrow")


@pytest.fixture
def make_ends(start_vifd, make_netns):
    def make(bridge="", narrow=NARROW):
        vifd = start_vifd(f"bridge add br0 {bridge}")
        ends = [make_netns("wide"), make_netns("narrow")]
        for n, (end, mtu) in enumerate(zip(ends, (WIDE, narrow)), 1):
            vifd.ctl(f"uplink add p{n} tap=tap0 netns={end.netns} mtu={mtu} bridge=br0")
            end.address("tap0", f"10.77.0.{n}/24", f"fd77::{n}/64")
        ends[1].run("ip route change 10.77.0.0/24 dev tap0 src 10.77.0.2 advmss 1460")
        ends[1].run("ip -6 route add fd77::1 dev tap0 advmss 1440")
        for address in ("10.77.0.2", "fd77::2"):
            ends[0].run(f"ping -q -c 1 -W 2 {address}")
        return Ends(vifd, *ends)
    return make


def route_mtu(end, to):
    """The path MTU that end has been told of."""
    found = re.search(r"\bmtu (\d+)", end.run(f"ip route get {to}"))
    return found and int(found[1])


def too_big(vifd, port="p2"):
    """(packets too big for a port, senders told)"""
    stats = vifd.stats(port)
    return stats["drop_too_big"], stats["too_big_answers"]


@pytest.mark.parametrize("to,header", [("10.77.0.2", 28), ("fd77::2", 48)])
def test_ping_is_told(make_ends, to, header):
    vifd, wide, narrow = make_ends()
    wide.run(f"ping -q -c 2 -i 0.05 -W 2 -M do -s {NARROW - header} {to}")
    assert too_big(vifd) == (0, 0)
    said = wide.run(f"ping -c 1 -W 2 -M do -s {NARROW - header + 1} {to} || true")
    assert re.search(rf"From {to} .*(Frag needed and DF set \(mtu = {NARROW}\)|Packet too big: mtu={NARROW})", said), said
    assert too_big(vifd) == (1, 1)
    assert route_mtu(wide, to) == NARROW
    # From now on Linux knows by itself.
    said = wide.run(f"ping -c 1 -W 2 -M do -s {NARROW - header + 1} {to} 2>&1 || true")
    assert re.search(rf"local error: message too long, mtu[=:] ?{NARROW}", said), said
    assert too_big(vifd) == (1, 1)
    assert not any(count for name, count in vifd.stats("p1").items() if name.startswith("drop_") and name != "drop_nowhere")


@pytest.mark.parametrize("to", ["10.77.0.{}", "fd77::{}"])
@pytest.mark.parametrize("offloads", ["on", "off"])
def test_tcp_finds_the_mtu(make_ends, to, offloads):
    vifd, wide, narrow = make_ends()
    wide.run(f"ethtool -K tap0 tso {offloads} gso {offloads}")
    tcp_copy(wide, narrow, to.format(2), 32 * MIB)
    dropped, answers = too_big(vifd)
    assert dropped >= 1 and 1 <= answers <= dropped
    assert route_mtu(wide, to.format(2)) == NARROW
    assert vifd.stats("p2")["send_gso_packets" if offloads == "on" else "send_packets"] > 100
    tcp_copy(narrow, wide, to.format(1), 32 * MIB)
    assert too_big(vifd, "p1") == (0, 0)
    # The next connection begins with what was learnt.
    before = too_big(vifd)
    tcp_copy(wide, narrow, to.format(2), MIB)
    assert too_big(vifd) == before


def test_tcp_through_vlan(make_ends):
    vifd, wide, narrow = make_ends()
    if "Unknown" in wide.run("ip link add link tap0 name v5 type vlan id 5 2>&1; ip link del v5 2>&1 || true"):
        pytest.skip("this kernel has no VLAN interfaces")
    for n, end in enumerate((wide, narrow), 1):
        end.run("ip link add link tap0 name v5 type vlan id 5")
        end.address("v5", f"10.5.0.{n}/24")
    narrow.run("ip route change 10.5.0.0/24 dev v5 src 10.5.0.2 advmss 1460")
    tcp_copy(wide, narrow, "10.5.0.2", 4 * MIB)
    assert too_big(vifd)[1] >= 1
    assert route_mtu(wide, "10.5.0.2") == NARROW  # tags do not count


def test_udp_in_both_directions(make_ends):
    vifd, wide, narrow = make_ends()
    for to, header in (("10.77.0.2", 28), ("fd77::2", 48)):
        udp_echo(wide, narrow, to, [0, 100, NARROW - header])
        with wide.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(bytes(NARROW - header + 1), (to, 7001))  # lost; but its sender is told
            assert eventually(lambda: route_mtu(wide, to) == NARROW)
        udp_echo(wide, narrow, to, [NARROW - header + 1, 4000])  # from now on in fragments that fit
    assert too_big(vifd) == (2, 2)


def test_ipv4_that_may_be_fragmented_is_dropped(make_ends):
    """A bridge does not fragment, and who did not set DF does not expect to be told."""
    vifd, wide, narrow = make_ends()
    with wide.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, capture(wide) as watch:
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        for size in (NARROW - 28, NARROW - 27, WIDE - 28):
            client.sendto(bytes(size), ("10.77.0.2", 7001))
        assert eventually(lambda: too_big(vifd) == (2, 0))
        assert not [frame for frame in arrived(watch) if frame[34:36] == FRAG_NEEDED]
    assert route_mtu(wide, "10.77.0.2") is None


def test_what_is_no_ip_is_dropped(make_ends):
    vifd, wide, narrow = make_ends()
    with capture(wide) as send:
        for size in (NARROW, NARROW + 1):
            send.send(frame_of(narrow.mac("tap0"), wide.mac("tap0"), bytes(size)))
    assert eventually(lambda: too_big(vifd) == (1, 0))


def test_told_as_often_as_is_good(make_ends):
    """A sender that does not listen is told a thousand times a second at most."""
    vifd, wide, narrow = make_ends()
    ip = struct.pack("!BBHHHBBH4B4B", 0x45, 0, WIDE, 0, 0x4000, 64, 17, 0, 10, 77, 0, 1, 10, 77, 0, 2)
    frame = frame_of(narrow.mac("tap0"), wide.mac("tap0"), ip.ljust(WIDE, b"u"), protocol=0x0800)
    with capture(wide) as send:
        start = time.monotonic()
        for _ in range(2000):
            send.send(frame)
        dropped, answers = eventually(lambda: (now := too_big(vifd))[0] >= 500 and now)  # not 2000: tap0 has a short queue
        took = time.monotonic() - start
    assert 64 <= answers < 66 + 1000 * took and answers <= dropped


def test_nobody_is_told_if_so_configured(make_ends):
    """As many bridges do, the packet is dropped; but counted."""
    vifd, wide, narrow = make_ends(bridge="too-big=off")
    for to, header in (("10.77.0.2", 28), ("fd77::2", 48)):
        wide.run(f"ping -q -c 1 -W 2 -M do -s {NARROW - header} {to}")
        said = wide.run(f"ping -c 1 -W 0.3 -M do -s {NARROW - header + 1} {to} || true")
        assert "100% packet loss" in said and "From" not in said
        assert route_mtu(wide, to) is None
    assert too_big(vifd) == (2, 0)


def test_only_where_the_destination_is_known_to_be(make_ends, make_netns):
    """A packet that is flooded may fit the port where its destination turns out to be."""
    vifd, wide, narrow = make_ends()
    other = make_netns("other")
    vifd.ctl(f"uplink add p3 tap=tap0 netns={other.netns} mtu={WIDE} bridge=br0")
    other.address("tap0", "10.77.0.3/24")
    wide.run("ip neigh replace 10.77.0.9 lladdr 52:54:00:00:00:99 dev tap0")
    with capture(other) as watch:
        wide.run(f"ping -q -c 1 -W 0.3 -M do -s {WIDE - 28} 10.77.0.9 || true")
        assert [frame for frame in arrived(watch) if len(frame) == WIDE + 14]
    assert too_big(vifd) == (1, 0)
    assert route_mtu(wide, "10.77.0.9") is None


def test_mtu_changed_later(make_ends):
    """`ip link set mtu` behind vifd's back is noticed."""
    vifd, wide, narrow = make_ends()
    for mtu in (1450, 1280):
        narrow.run(f"ip link set tap0 mtu {mtu}")
        assert eventually(lambda: {port["name"]: port["mtu"] for port in vifd.ctl("show ports")} == {"p1": WIDE, "p2": mtu})
        wide.run("ip route flush cache; ip -6 route flush cache")
        wide.run(f"ping -q -c 1 -W 2 -M do -s {mtu - 28} 10.77.0.2")
        said = wide.run(f"ping -c 1 -W 2 -M do -s {mtu - 27} 10.77.0.2 || true")
        assert f"Frag needed and DF set (mtu = {mtu})" in said
    assert "p2: the MTU of its interface is 1280 now, was 1450" in vifd.log()
