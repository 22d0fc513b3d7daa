# SPDX-License-Identifier: BSD-3-Clause
"""Received segments cross the bridge as one packet (A1-A4, A15).

     namespace wire                one vifd process                     namespace far
    ┌─────────────┐      ┌──────────────────────────────────────┐      ┌─────────────┐
    │ Linux  eth0 ═ veth ═ nic0 ── wire, af-xdp   br0   far ──── tap0 ─┼ Linux       │
    └─────────────┘      └──────────────────────────────────────┘      └─────────────┘
      10.79.0.1, fd79::1                                                10.79.0.2, fd79::2

AF_XDP hands over segments as the wire carries them, so that whatever arrives in one piece was merged by vifd. The far
end is captured with the kernel's own description of each packet in front (PACKET_VNET_HDR).
"""
import collections
import contextlib
import random
import socket
import struct
import time

import pytest
from scapy.all import IP, TCP, UDP, Ether, IPv6

from lib.traffic import tcp_copy

ETH_P_ALL = 3
SOL_PACKET, PACKET_VNET_HDR = 263, 15
VNET_LEN, GSO_TCPV4, GSO_TCPV6 = 10, 1, 4
PSH, ACK = 0x08, 0x10
MSS = {"ipv4": 1448, "ipv6": 1428}
MIB = 1 << 20

Line = collections.namedtuple("Line", "vifd wire far")
Seen = collections.namedtuple("Seen", "gso_type gso_size frame")


@pytest.fixture
def make_line(start_vifd, make_netns):
    """The line, with these settings of both ports."""
    def make(uplink="", far_options="", queues=1):
        nics, wire, far = make_netns("nics"), make_netns("wire"), make_netns("far")
        many = f"numrxqueues {queues} numtxqueues {queues}"
        nics.run(f"ip link add nic0 {many} type veth peer name eth0 netns {wire.netns} {many}")
        wire.address("eth0", "10.79.0.1/24", "fd79::1/64")
        vifd = start_vifd(
            "bridge add br0",
            f"uplink add wire af-xdp=nic0 netns={nics.netns} queues={queues} {uplink} bridge=br0",
            f"uplink add far tap=tap0 netns={far.netns} {far_options} bridge=br0")
        far.address("tap0", "10.79.0.2/24", "fd79::2/64")
        wire.ping("10.79.0.2")
        wire.ping("fd79::2")
        return Line(vifd, wire, far)
    return make


def lro(vifd, port="wire"):
    (row,) = vifd.ctl(f"show lro {port}")
    return row


def consistent(row):
    """What was counted adds up."""
    assert sum(row["flushed"].values()) == row["packets"] <= row["segments"], row
    assert row["aggregates"] <= row["packets"], row
    if row["aggregates"] == 0:
        assert row["packets"] == row["segments"], row


def segments(line, count, *, size=None, port=5000, last_flags=PSH, network="ipv4", **fields):
    """A train of TCP segments from the wire to the far end, as frames, and their payload."""
    ether = Ether(src=line.wire.mac("eth0"), dst=line.far.mac("tap0"))
    size = size or MSS[network]
    frames, payload = [], random.Random(count * size).randbytes(count * size)
    for i in range(count):
        if network == "ipv6":
            ip = IPv6(src="fd79::1", dst="fd79::2")
        else:
            ip = IP(src="10.79.0.1", dst="10.79.0.2", flags="DF", id=(65530 + i) % 65536)
        tcp = TCP(sport=port, dport=port, seq=(2 ** 32 - 3000 + i * size) % 2 ** 32, ack=77, window=500,
                  flags=ACK | (last_flags if i == count - 1 else 0), options=[("NOP", 0), ("NOP", 0), ("Timestamp", (1, 2))],
                  **fields)
        frames.append(bytes(ether / ip / tcp / payload[i * size:(i + 1) * size]))
    return frames, payload


def send(line, frames):
    with line.wire.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("eth0", 0))
        for frame in frames:
            out.send(frame)


@contextlib.contextmanager
def capture(end, interface="tap0"):
    with end.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL), timeout=1) as watch:
        watch.setsockopt(socket.SOL_SOCKET, 33, 64 * MIB) # SO_RCVBUFFORCE
        watch.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        watch.bind((interface, ETH_P_ALL))
        yield watch


def arrived(watch, until, port=5000):
    """What came in for that TCP or UDP port, until so many bytes of frames did or a second passed without any."""
    seen, total = [], 0
    with contextlib.suppress(socket.timeout):
        while total < until:
            data, where = watch.recvfrom(1 << 17)
            frame = data[VNET_LEN:]
            layer = Ether(frame)
            if where[2] == socket.PACKET_OUTGOING or not (layer.haslayer(TCP) or layer.haslayer(UDP)):
                continue
            if layer[TCP if layer.haslayer(TCP) else UDP].dport != port:
                continue
            seen.append(Seen(data[1] & 0x7f, struct.unpack_from("<H", data, 4)[0], frame))
            total += len(frame)
    return seen


def payload_of(seen):
    return b"".join(bytes(Ether(one.frame)[TCP].payload) for one in seen)


@pytest.mark.parametrize("mode", ["off", "poll", "every:2", "usec:100", "auto"])
def test_tcp_both_ways_in_every_mode(make_line, mode):
    line = make_line(f"lro={mode}")
    for address in ("10.79.0.2", "fd79::2"):
        tcp_copy(line.wire, line.far, address, 32)
    for address in ("10.79.0.1", "fd79::1"):
        tcp_copy(line.far, line.wire, address, 8)
    row = lro(line.vifd)
    assert row["lro"] == mode and row["bo"] == "on"
    gso = line.vifd.stats("far")["send_gso_packets"]
    if mode == "off":
        assert row["aggregates"] == gso == 0
    else:
        consistent(row)
        assert row["segments"] >= 64 * MIB // 1500
        assert gso == row["aggregates"] > 0
        assert row["rate"] > 1 # how far above is the lab's business: it depends on who has the CPUs
    assert "InCsumErrors" in line.far.run("nstat -az 2>/dev/null || cat /proc/net/snmp")
    names, values = (text.split() for text in line.far.run("grep ^Tcp: /proc/net/snmp").splitlines())
    assert int(dict(zip(names, values))["InCsumErrors"]) == 0


@pytest.mark.parametrize("mode,naps", [("off", False), ("every:2", False), ("usec:300", True), ("auto", True)])
def test_naps_where_a_delay_is_allowed(make_line, mode, naps):
    """Through a stream. A request and its reply, one at a time, keep the worker from it."""
    line = make_line(f"lro={mode}")
    line.vifd.ctl("set idle-spin=off")
    tcp_copy(line.wire, line.far, "10.79.0.2", 64)
    (before,) = line.vifd.ctl("show workers")
    assert (before["naps"] > 0) is naps
    time.sleep(0.1) # what was still on its way
    (before,) = line.vifd.ctl("show workers")
    line.wire.run("ping -c 50 -i 0.01 -q 10.79.0.2")
    (after,) = line.vifd.ctl("show workers")
    assert after["naps"] == before["naps"] and after["sleeps"] > before["sleeps"]


@pytest.mark.parametrize("bo", ["on", "off"])
@pytest.mark.parametrize("network", ["ipv4", "ipv6"])
def test_a_train_arrives_as_one_packet(make_line, network, bo):
    line = make_line(f"lro=usec:10000 bo={bo}")
    frames, payload = segments(line, 40, network=network)
    with capture(line.far) as watch:
        send(line, frames)
        seen = arrived(watch, len(payload))
    assert payload_of(seen) == payload
    # A sender that is interrupted for more than 10 ms starts another packet, which may be of one segment.
    kinds = {(one.gso_type, one.gso_size) for one in seen if len(one.frame) > 1514}
    assert len(seen) < 20 and kinds == {(GSO_TCPV6 if network == "ipv6" else GSO_TCPV4, MSS[network])}
    first, last = Ether(seen[0].frame)[TCP], Ether(seen[-1].frame)[TCP]
    assert (first.seq, first.ack, first.window) == (2 ** 32 - 3000, 77, 500)
    assert last.flags == ACK | PSH
    row = lro(line.vifd)
    assert row["bo"] == bo and row["segments"] == 40 and row["packets"] == len(seen)
    consistent(row)


@pytest.mark.parametrize("far_options", ["offload=none", "offload=csum", "offload=csum+sg"])
def test_who_takes_no_large_packets_gets_the_segments(make_line, far_options):
    line = make_line("lro=usec:10000", far_options)
    frames, payload = segments(line, 40)
    with capture(line.far) as watch:
        send(line, frames)
        seen = arrived(watch, sum(map(len, frames)))
    assert [one.frame for one in seen] == frames # checksums, IDs and all
    assert lro(line.vifd)["aggregates"] == 0


def test_what_must_not_be_merged_is_not(make_line):
    line = make_line("lro=usec:10000")
    base, _ = segments(line, 8)
    damaged = bytearray(base[2])
    damaged[-1] ^= 1
    acked = Ether(base[4])
    acked[TCP].ack += 1
    del acked[TCP].chksum
    odd = [base[0], base[1], bytes(damaged), base[3], bytes(acked), base[6], base[5], base[7]]
    with capture(line.far) as watch:
        send(line, odd)
        seen = [one.frame for one in arrived(watch, sum(map(len, odd)) - 66)]
    assert seen[0][66:] == odd[0][66:] + odd[1][66:]
    for frame, sent in zip(seen[1:], odd[2:], strict=True):
        assert frame.hex() == sent.hex()
    row = lro(line.vifd)
    consistent(row)
    assert row["aggregates"] == 1


def test_many_flows_side_by_side(make_line):
    line = make_line("lro=usec:10000")
    trains = [segments(line, 10, port=6000 + i) for i in range(50)]
    mixed = [frames[i] for i in range(10) for frames, _ in trains]
    with capture(line.far) as watch:
        send(line, mixed)
        seen = collections.defaultdict(list)
        with contextlib.suppress(socket.timeout):
            while True:
                data, where = watch.recvfrom(1 << 17)
                layer = Ether(data[VNET_LEN:])
                if where[2] != socket.PACKET_OUTGOING and layer.haslayer(TCP):
                    seen[layer[TCP].dport].append(Seen(data[1], 0, data[VNET_LEN:]))
    for i, (_, payload) in enumerate(trains):
        assert payload_of(seen[6000 + i]) == payload
    row = lro(line.vifd)
    consistent(row)
    assert row["segments"] == 500 and row["rate"] > 1


def test_a_lone_segment_waits_no_longer_than_said(make_line):
    """Without PSH nothing but time ends its wait; the worker sleeps meanwhile, and has to be back."""
    line = make_line("lro=usec:10000")
    frames, payload = segments(line, 1, last_flags=0)
    for _ in range(5):
        with capture(line.far) as watch:
            began = time.monotonic()
            send(line, frames)
            seen = arrived(watch, len(payload))
            took = time.monotonic() - began
        assert [one.frame for one in seen] == frames
        assert 0.008 < took < 1
    row = lro(line.vifd)
    assert row["flushed"]["timing"] == 5
    assert row["delay_max_ns"] >= 10_000_000 and row["delay_p50_ns"] >= 10_000_000


@pytest.mark.parametrize("mode", ["poll", "every:1000", "auto"])
def test_a_lone_segment_soon_goes_on(make_line, mode):
    line = make_line(f"lro={mode}")
    frames, payload = segments(line, 1, last_flags=0)
    with capture(line.far) as watch:
        send(line, frames)
        assert [one.frame for one in arrived(watch, len(payload))] == frames
    assert lro(line.vifd)["delay_max_ns"] < 1_000_000_000


def test_settings_change_at_run_time(make_line):
    line = make_line()
    assert (lro(line.vifd)["lro"], lro(line.vifd)["bo"]) == ("auto", "on") # what AF_XDP has by itself
    assert [row["name"] for row in line.vifd.ctl("show lro")] == ["wire"]
    frames, payload = segments(line, 1, last_flags=0)
    line.vifd.ctl("uplink set wire lro=usec:10000")
    for setting in ("lro=off", "lro=usec:10000", "bo=off", "lro=every:3 bo=on"):
        line.vifd.ctl("uplink set wire lro=usec:10000")
        with capture(line.far) as watch:
            send(line, frames)
            line.vifd.ctl(f"uplink set wire {setting}")
            assert [one.frame for one in arrived(watch, len(payload))] == frames
    assert (lro(line.vifd)["lro"], lro(line.vifd)["bo"]) == ("every:3", "on")
    line.vifd.ctl("uplink set wire bo=off")
    assert (lro(line.vifd)["lro"], lro(line.vifd)["bo"]) == ("every:3", "off") # what is not said stays
    line.vifd.ctl("uplink set far lro=auto")
    assert {row["name"] for row in line.vifd.ctl("show lro")} == {"wire", "far"}


def test_settings_and_ports_change_under_traffic(make_line):
    line = make_line("lro=auto", queues=2)
    modes = ["off", "poll", "every:2", "usec:50", "auto"]
    line.far.spawn("iperf3 -s")
    line.far.run("until grep -q ':1451 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done")
    line.wire.spawn("iperf3 -c 10.79.0.2 -t 6 -P 4", log=f"{line.wire.tmp}/iperf.log")
    end = time.monotonic() + 3
    for i in range(1000):
        line.vifd.ctl(f"uplink set wire lro={modes[i % 5]} bo={'on' if i % 2 else 'off'}")
        if time.monotonic() > end:
            break
    line.vifd.ctl("uplink set wire lro=usec:10000")
    line.vifd.ctl("uplink del far") # what is held has nowhere to go
    time.sleep(0.2)
    line.vifd.ctl("uplink del wire") # or comes from nowhere
    assert line.vifd.running
    assert line.vifd.ctl("show lro") == []
