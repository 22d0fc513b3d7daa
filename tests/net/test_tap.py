# SPDX-License-Identifier: BSD-3-Clause
"""TAP uplinks: network namespaces that talk through one vifd.

       namespace 1              one vifd process               namespace 2, 3
    ┌──────────────┐        ┌──────────────────────┐        ┌──────────────┐
    │ Linux  tap0 ─┼────────┼─ p1    br0    p2, p3 ─┼────────┼─ tap0  Linux │
    └──────────────┘        └──────────────────────┘        └──────────────┘
      10.77.0.1/24                                            10.77.0.2, .3
      fd77::1/64                                              fd77::2, ::3

What is sent is compared with what arrives, and the counters of both kernels with vifd's.
"""
import collections
import contextlib
import hashlib
import os
import random
import socket
import struct
import threading
import time

import pytest

from lib.vifd import VifdError

ETH_P_ALL, ETH_P_ARP, ETH_P_TEST = 3, 0x0806, 0x88b5  # the last: for local experiments
UDP_SEGMENT, SOL_UDP = 103, 17
SOL_PACKET = 263
PACKET_AUXDATA, PACKET_VNET_HDR = 8, 15
MIB = 1 << 20

Lan = collections.namedtuple("Lan", "vifd ends")


@pytest.fixture
def make_lan(start_vifd, make_netns):
    """count namespaces on one bridge: port pN is interface tap0 of ends[N - 1]."""
    def make(count=2, options="", before=(), bridge=""):
        vifd = start_vifd(*before, f"bridge add br0 {bridge}")
        ends = []
        for n in range(1, count + 1):
            end = make_netns(f"n{n}")
            vifd.ctl(f"uplink add p{n} tap=tap0 netns={end.netns} {options} bridge=br0")
            end.address("tap0", f"10.77.0.{n}/24", f"fd77::{n}/64")
            ends.append(end)
        return Lan(vifd, ends)
    return make


def eventually(condition, timeout=5):
    """Wait until condition() is true; returns what it returned last."""
    end = time.monotonic() + timeout
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


def tcp_copy(source, sink, address, size):
    """Send size bytes through TCP; nothing may be lost, changed or swapped."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    block, offsets = os.urandom(2 * MIB), random.Random(size)
    sent, got, received = hashlib.sha1(), hashlib.sha1(), 0

    def send():
        with source.socket(family, socket.SOCK_STREAM) as client:
            client.connect((address, 7000))
            for left in range(size, 0, -MIB):
                at = offsets.randrange(MIB)
                piece = memoryview(block)[at:at + min(MIB, left)]
                client.sendall(piece)
                sent.update(piece)

    with sink.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", 7000))
        server.listen()
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        with server.accept()[0] as connection:
            connection.settimeout(20)
            buffer = memoryview(bytearray(MIB))
            while n := connection.recv_into(buffer):
                got.update(buffer[:n])
                received += n
        sender.join()
    assert (received, got.hexdigest()) == (size, sent.hexdigest())


def capture(end, protocol=ETH_P_ALL):
    """A socket that sees the frames that end's tap0 receives and sends."""
    watch = end.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    watch.bind(("tap0", protocol))
    return watch


def arrived(watch, timeout=0.3):
    """The frames that a capture has seen come in, until none has come for a while."""
    watch.settimeout(timeout)
    frames = []
    with contextlib.suppress(socket.timeout):
        while True:
            frame, where = watch.recvfrom(1 << 17)
            if where[2] != socket.PACKET_OUTGOING:
                frames.append(frame)
    return frames


def raw(mac):
    return bytes.fromhex(mac.replace(":", ""))


def frame_of(to, source, payload=b"", protocol=ETH_P_TEST):
    return raw(to) + raw(source) + struct.pack("!H", protocol) + payload.ljust(46, b"\0")


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[:len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def drops(stats):
    """What a port has dropped, but for what Linux said while its port was the only one: drop_nowhere."""
    return {name: count for name, count in stats.items()
            if name.startswith("drop_") and name != "drop_nowhere" and count}


# ---- traffic ----

def test_ping(make_lan):
    _, (one, two, three) = make_lan(3)
    for source, n in ((one, 2), (two, 3), (three, 1)):
        source.run(f"ping -q -c 3 -i 0.05 -W 2 10.77.0.{n}")
        source.run(f"ping -q -c 3 -i 0.05 -W 2 fd77::{n}")
    one.run("ping -q -c 20 -i 0.01 -W 2 -s 1472 -M do 10.77.0.2")
    one.run("ping -q -c 20 -i 0.01 -W 2 -s 20000 10.77.0.2")  # IP fragments


@pytest.mark.parametrize("address", ["10.77.0.{}", "fd77::{}"])
def test_tcp_carries_whole_packets_unchanged(make_lan, address):
    vifd, (one, two) = make_lan()
    tcp_copy(one, two, address.format(2), 256 * MIB)
    tcp_copy(two, one, address.format(1), 256 * MIB)
    for port in ("p1", "p2"):
        stats = vifd.stats(port)
        # Segmentation offload is at work: 64 KiB cross whole, nobody segments (M6, M7).
        assert stats["recv_gso_packets"] > 1000 and stats["send_gso_packets"] > 1000
        assert stats["recv_bytes"] / stats["recv_packets"] > 4000
        assert stats["segmented_packets"] == stats["checksummed_packets"] == 0


@pytest.mark.parametrize("way", ["there", "back"])
def test_tcp_gigabyte(make_lan, way):
    _, (one, two) = make_lan()
    if way == "there":
        tcp_copy(one, two, "10.77.0.2", 1024 * MIB + 12345)
    else:
        tcp_copy(two, one, "10.77.0.1", 1024 * MIB + 12345)


@pytest.mark.parametrize("offload", ["tso off", "tx off", "tx off sg off"])
def test_tcp_from_a_sender_without_offloads(make_lan, offload):
    vifd, (one, two) = make_lan()
    one.run(f"ethtool -K tap0 {offload} gso off")
    tcp_copy(one, two, "10.77.0.2", 16 * MIB)
    assert vifd.stats("p1")["recv_gso_packets"] == 0
    tcp_copy(two, one, "10.77.0.1", 16 * MIB)


def test_tcp_both_ways_at_once(make_lan):
    _, (one, two, three) = make_lan(3)
    copies = [threading.Thread(target=tcp_copy, args=args, daemon=True) for args in (
        (one, two, "10.77.0.2", 64 * MIB), (two, three, "10.77.0.3", 64 * MIB), (three, one, "10.77.0.1", 64 * MIB))]
    failures = []
    hook, threading.excepthook = threading.excepthook, lambda args: failures.append(args.exc_value)
    try:
        for copy in copies:
            copy.start()
        for copy in copies:
            copy.join()
    finally:
        threading.excepthook = hook
    assert not failures


def udp_echo(one, two, address, sizes):
    """Send a datagram of each size and back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with one.socket(family, socket.SOCK_DGRAM, timeout=5) as client, \
            two.socket(family, socket.SOCK_DGRAM, timeout=5) as server:
        server.bind(("", 7001))
        for size in sizes:
            data = os.urandom(size)
            client.sendto(data, (address, 7001))
            got, where = server.recvfrom(1 << 16)
            assert got == data
            server.sendto(got, where)
            assert client.recv(1 << 16) == data


@pytest.mark.parametrize("mtu", [1500, 9000, 65521])
def test_udp_of_all_sizes(make_lan, mtu):
    vifd, (one, two) = make_lan(options=f"mtu={mtu}")
    assert one.run("cat /sys/class/net/tap0/mtu").strip() == str(mtu)
    sizes = [0, 1, 17, 18, 19, 100, 150, 151, 1000, 1471, 1472, 1473, 4000, 8972, 8973, 30000, 65507]
    udp_echo(one, two, "10.77.0.2", sizes)
    udp_echo(one, two, "fd77::2", sizes[:-1])
    assert not drops(vifd.stats("p1")) and not drops(vifd.stats("p2"))


def test_udp_segmentation_offload(make_lan):
    vifd, (one, two) = make_lan()
    if "uso" not in vifd.ctl("show ports")[0]["caps"]:
        pytest.skip("this kernel has no UDP segmentation offload for TAP")
    one.run("ping -q -c 1 10.77.0.2")
    data = os.urandom(40 * 1000)
    with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, \
            two.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("", 7001))
        client.setsockopt(SOL_UDP, UDP_SEGMENT, 1000)
        client.sendto(data, ("10.77.0.2", 7001))
        assert [server.recv(1 << 16) for _ in range(40)] == [data[i:i + 1000] for i in range(0, 40000, 1000)]
    assert vifd.stats("p2")["send_gso_packets"] == 1


def test_vlan_interfaces(make_lan):
    _, (one, two) = make_lan()
    if "Unknown" in one.run("ip link add link tap0 name v5 type vlan id 5 2>&1; ip link del v5 2>&1 || true"):
        pytest.skip("this kernel has no VLAN interfaces")
    for n, end in enumerate((one, two), 1):
        end.run("ip link add link tap0 name v5 type vlan id 5")
        end.run("ip link add link v5 name v57 type vlan id 7")  # a tag in a tag
        end.address("v5", f"10.5.0.{n}/24")
        end.address("v57", f"10.57.0.{n}/24")
    for net in ("10.5.0", "10.57.0"):
        one.run(f"ping -q -c 2 -i 0.05 -W 2 {net}.2")
        tcp_copy(one, two, f"{net}.2", 16 * MIB)
        udp_echo(one, two, f"{net}.2", [0, 100, 1400, 5000])


def tcp_packet(payload, offload):
    """An IPv4/TCP packet; with offload its checksum is left to be finished."""
    source, to = bytes([10, 77, 0, 1]), bytes([10, 77, 0, 2])
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 1, 0x4000, 64, 6, 0, source, to)
    ip = ip[:10] + struct.pack("!H", ~checksum(ip) & 0xffff) + ip[12:]
    pseudo = source + to + struct.pack("!HH", 6, 20 + len(payload))
    tcp = struct.pack("!HHIIBBHHH", 7, 9, 1, 1, 0x50, 0x18, 500, 0, 0)
    if offload:
        csum = checksum(pseudo)
    else:
        csum = ~checksum(pseudo + tcp + payload) & 0xffff
    return ip + tcp[:16] + struct.pack("!H", csum) + tcp[18:] + payload


@pytest.mark.parametrize("tags", [[], [(0x8100, 5)], [(0x88a8, 6), (0x8100, 7)]])
@pytest.mark.parametrize("size", [10, 1400, 30000])
def test_tagged_packets_with_offloads(make_lan, tags, size):
    """A packet whose checksum is unfinished, one that is to be segmented too, behind no, one and two VLAN tags."""
    vifd, (one, two) = make_lan()
    tagging = b"".join(struct.pack("!HH", *tag) for tag in tags)
    payload = os.urandom(size)
    ethernet = raw(two.mac("tap0")) + raw(one.mac("tap0")) + tagging + b"\x08\x00"
    gso = size > 1460
    start = len(ethernet) + 20
    vnet = struct.pack("<BBHHHH", 1, 1 if gso else 0, start + 20, 1400 if gso else 0, start, 16)
    with capture(one) as send, capture(two) as watch:
        for end in (send, watch):
            end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        watch.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        send.send(vnet + ethernet + tcp_packet(payload, offload=True))
        got = b""
        while len(got) < size:
            data, extra, _, where = watch.recvmsg(1 << 17, 1 << 10)
            frame = data[10:]
            if where[2] == socket.PACKET_OUTGOING or frame[12:14] not in (b"\x08\x00", b"\x81\x00", b"\x88\xa8"):
                continue
            if tags:  # the kernel takes the outermost tag off
                status, _, _, _, _, tci, protocol = struct.unpack("IIIHHHH", extra[0][2])
                assert (protocol, tci) == tags[0]
            behind = frame[12 + 4 * max(0, len(tags) - 1):]
            assert behind[:2] == b"\x08\x00"
            ip_len = struct.unpack("!H", behind[4:6])[0]
            got += behind[42:2 + ip_len]
    assert got == payload
    assert not drops(vifd.stats("p1"))


# ---- forwarding ----

def test_broadcast_reaches_all_and_unicast_only_one(make_lan):
    vifd, (one, two, three) = make_lan(3)
    one.run("ip neigh flush all")
    with capture(three) as watch, capture(two) as also:
        one.run("ping -q -c 5 -i 0.05 -W 2 10.77.0.2")
        seen, replied = arrived(watch), arrived(also)
    asked = raw("ff:ff:ff:ff:ff:ff") + raw(one.mac("tap0"))
    assert any(frame[:14] == asked + b"\x08\x06" for frame in seen)
    assert all(frame[0] & 1 for frame in seen)  # nothing but group addresses
    assert len([frame for frame in replied if frame[:6] == raw(two.mac("tap0"))]) >= 5
    assert vifd.stats("p1")["flooded_packets"] >= 1


def test_learns_where_addresses_are(make_lan):
    vifd, ends = make_lan(3)
    for end in ends:
        end.run("ping -q -c 1 -b 10.77.0.255 -W 0.1 || true")
    table = vifd.fdb()
    for n, end in enumerate(ends, 1):
        row = table[end.mac("tap0")]
        assert (row["port"], row["static"]) == (f"p{n}", False)
        assert row["age_seconds"] <= 5
    bridge, = vifd.ctl("show bridges")
    assert bridge["fdb_used"] == bridge["learned"] == 3
    assert bridge["ports"] == ["p1", "p2", "p3"]


def test_station_moves_and_ages(make_lan):
    vifd, (one, two, three) = make_lan(3, bridge="ageing=1")
    station = "52:54:00:aa:bb:cc"
    announce = frame_of("ff:ff:ff:ff:ff:ff", station)
    with capture(one) as at_one, capture(two) as at_two:
        at_one.send(announce)
        assert eventually(lambda: vifd.fdb().get(station, {}).get("port") == "p1")
        at_two.send(announce)
        assert eventually(lambda: vifd.fdb()[station]["port"] == "p2")
    assert vifd.ctl("show bridges")[0]["moved"] == 1
    assert eventually(lambda: station not in vifd.fdb())
    assert vifd.ctl("show bridges")[0]["aged"] >= 1


def test_static_entries(make_lan):
    vifd, (one, two, three) = make_lan(3)
    station = "52:54:00:aa:bb:cc"
    vifd.ctl(f"fdb add br0 {station} p3")
    with capture(one) as at_one, capture(two, ETH_P_TEST) as at_two, capture(three, ETH_P_TEST) as at_three:
        at_two.send(frame_of("ff:ff:ff:ff:ff:ff", station))  # somebody else claims it
        assert len(arrived(at_three)) == 1
        at_one.send(frame_of(station, one.mac("tap0"), b"hello"))
        assert [frame[14:19] for frame in arrived(at_three)] == [b"hello"]
        assert not arrived(at_two)
        assert vifd.fdb()[station]["static"]
        vifd.ctl(f"fdb del br0 {station}")
        at_one.send(frame_of(station, one.mac("tap0"), b"hello"))
        assert len(arrived(at_three)) == len(arrived(at_two)) == 1  # unknown: flooded


def test_bad_frames_are_counted(make_lan):
    vifd, (one, two) = make_lan()
    ours = one.mac("tap0")
    before = vifd.stats("p1")
    frames = {
        "drop_bad_source": [frame_of("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"),
                            frame_of("ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00")],
        "drop_reserved_group": [frame_of("01:80:c2:00:00:00", ours), frame_of("01:80:c2:00:00:0e", ours)],
        "drop_same_port": [frame_of(ours, ours)],
    }
    with capture(one) as send, capture(two, ETH_P_TEST) as watch:
        for bad in frames.values():
            for frame in bad:
                send.send(frame)
        send.send(frame_of("01:80:c2:00:00:10", ours, b"good"))
        assert [frame[14:18] for frame in arrived(watch)] == [b"good"]
    after = vifd.stats("p1")
    assert {name: after[name] - before[name] for name in frames} == {name: len(bad) for name, bad in frames.items()}


def test_flood_of_addresses_leaves_others_alone(make_lan):
    vifd, (one, two, three) = make_lan(3, bridge="fdb-max=64")
    one.run("ping -q -c 1 -W 2 10.77.0.2")
    with capture(three) as flood:
        for n in range(5000):
            flood.send(frame_of("ff:ff:ff:ff:ff:ff", f"52:00:00:00:{n >> 8:02x}:{n & 255:02x}"))
    bridge, = vifd.ctl("show bridges")
    assert bridge["fdb_used"] == bridge["fdb_size"] == 64
    received = vifd.stats("p3")["recv_packets"] # the TAP's queue drops what vifd is too slow for
    assert received > 1000 and bridge["evicted"] + bridge["refused"] >= received - 100
    table = vifd.fdb()
    assert table[one.mac("tap0")]["port"] == "p1" and table[two.mac("tap0")]["port"] == "p2"
    # So that three overhears nothing.
    with capture(three) as watch:
        one.run("ping -q -c 3 -i 0.05 -W 2 10.77.0.2")
        assert all(frame[0] & 1 for frame in arrived(watch))


def test_counters_add_up(make_lan):
    vifd, (one, two) = make_lan()
    tcp_copy(one, two, "10.77.0.2", 64 * MIB)
    udp_echo(two, one, "10.77.0.1", range(0, 3000, 50))
    with capture(one) as send:
        send.send(frame_of("01:80:c2:00:00:00", one.mac("tap0")))
    ends = (1, one), (2, two)
    # What the kernel has sent we have received, and the other way round; once nothing is under way between two looks.
    for _ in range(20):
        time.sleep(0.3)
        stats = {n: vifd.stats(f"p{n}") for n, _ in ends}
        ours = [stats[n][f"{way}_{unit}"] for n, _ in ends for way in ("recv", "send") for unit in ("packets", "bytes")]
        theirs = [end.counter("tap0", f"{way}_{unit}") for _, end in ends for way in ("tx", "rx")
                  for unit in ("packets", "bytes")]
        if ours == theirs:
            break
    assert ours == theirs
    for n, _ in ends:
        # Every packet taken in has been sent or is counted as dropped.
        assert stats[n]["recv_packets"] == (stats[3 - n]["send_packets"] + stats[n]["drop_nowhere"]
                                             + sum(drops(stats[n]).values()))
    assert stats[1]["drop_reserved_group"] == 1


@pytest.mark.parametrize("address,protocol", [("10.77.0.{}", 0x0800), ("fd77::{}", 0x86dd)])
def test_checksums_on_the_wire(make_lan, address, protocol):
    """Between kernels without offloads every packet that crosses is complete."""
    _, (one, two) = make_lan()
    for end in (one, two):
        end.run("ethtool -K tap0 tx off rx off tso off gso off gro off")
    with capture(two, protocol) as watch:
        watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * MIB)
        tcp_copy(one, two, address.format(2), 2 * MIB)
        udp_echo(one, two, address.format(2), [1, 2, 500, 1400])
        frames = arrived(watch)
    assert len(frames) > 1000
    for frame in frames:
        if frame[20] not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) and protocol == 0x86dd:
            continue  # neighbour and multicast listener discovery
        assert len(frame) <= 1514
        if protocol == 0x0800:
            assert checksum(frame[14:34]) == 0xffff
            length = struct.unpack("!H", frame[16:18])[0] - 20
            pseudo, segment = frame[26:34] + struct.pack("!HH", frame[23], length), frame[34:34 + length]
        else:
            length = struct.unpack("!H", frame[18:20])[0]
            pseudo, segment = frame[22:54] + struct.pack("!IHH", length, 0, frame[20]), frame[54:54 + length]
        assert checksum(pseudo + segment) == 0xffff, frame.hex()


def test_packet_larger_than_the_mtu(make_lan):
    vifd, (one, two) = make_lan(bridge="too-big=off")  # with it Linux would soon know
    one.run("ip link set tap0 mtu 9000")
    one.run("ping -q -c 1 10.77.0.2")
    with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(bytes(1472), ("10.77.0.2", 7001))
        client.sendto(bytes(1473), ("10.77.0.2", 7001))
        client.sendto(bytes(8000), ("10.77.0.2", 7001))
    assert eventually(lambda: vifd.stats("p2")["drop_too_big"] == 2)
    assert two.counter("tap0", "rx_errors") == 0


# ---- the interface ----

@pytest.mark.parametrize("workers", [1, 2])
def test_several_queues(make_lan, workers):
    vifd, (one, two) = make_lan(options="queues=4", before=[f"set workers={workers}"])
    assert "multi_queue" in one.run("ip tuntap show")
    queues = [queue for worker in vifd.ctl("show workers") for queue in worker["queues"]]
    assert sorted((queue["port"], queue["queue"]) for queue in queues) == [(f"p{p}", q) for p in (1, 2) for q in range(4)]
    for _ in range(3):
        tcp_copy(one, two, "10.77.0.2", 32 * MIB)
        tcp_copy(two, one, "10.77.0.1", 32 * MIB)


def test_created_interface_vanishes_with_the_port(make_lan):
    vifd, (one, two) = make_lan()
    vifd.ctl("uplink del p1")
    one.run("! ip link show tap0")
    assert [port["name"] for port in vifd.ctl("show ports")] == ["p2"]
    vifd.ctl(f"uplink add p1 tap=tap0 netns={one.netns} bridge=br0")
    one.address("tap0", "10.77.0.1/24")
    one.run("ping -q -c 2 -i 0.05 -W 2 10.77.0.2")


@pytest.mark.parametrize("made,queues", [("", 1), ("multi_queue", 1), ("multi_queue", 3)])
def test_attached_interface_stays(make_lan, make_netns, made, queues):
    vifd, (one,) = make_lan(1)
    own = make_netns("own")
    own.run(f"ip tuntap add mytap mode tap {made}")
    own.address("mytap", "10.77.0.9/24")
    mac = own.mac("mytap")
    for _ in range(2):
        vifd.ctl(f"uplink add own tap=mytap netns=/run/netns/{own.netns} queues={queues} bridge=br0")  # by path
        own.run("ping -q -c 2 -i 0.05 -W 2 10.77.0.1")
        tcp_copy(one, own, "10.77.0.9", 16 * MIB)
        tcp_copy(own, one, "10.77.0.1", 16 * MIB)
        vifd.ctl("uplink del own")
        assert own.mac("mytap") == mac


@pytest.mark.parametrize("command,message", [
    ("tap=x netns=nobody-made-this", "no network namespace 'nobody-made-this'"),
    ("tap=x netns=/dev/null", "/dev/null is no network namespace"),
    ("tap=sixteen-letters- netns={netns}", "1 to 15 characters"),
    ("tap=lo netns={netns}", "'lo' exists and is no TAP"),
    ("tap=tap0 netns={netns}", "busy"),
    ("tap=single queues=2 netns={netns}", "single queue"),
    ("tap=x mtu=67 netns={netns}", "mtu|MTU"),
])
def test_errors_are_explained(make_lan, command, message):
    vifd, (one,) = make_lan(1)
    one.run("ip tuntap add single mode tap")
    with pytest.raises(VifdError, match=message) as caught:
        vifd.ctl(f"uplink add wrong {command.format(netns=one.netns)} bridge=br0")
    assert caught.value.status == 1
    # Nothing is left behind, also not vifd in another namespace.
    assert [port["name"] for port in vifd.ctl("show ports")] == ["p1"]
    one.run("! ip link show x")
    assert os.stat(f"/proc/{vifd.pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino


def test_interface_deleted_under_us(make_lan):
    vifd, (one, two, three) = make_lan(3)
    one.run("ip link del tap0")
    two.run("ping -q -c 3 -i 0.05 -W 2 10.77.0.3")  # the broadcast goes to p1 too
    assert eventually(lambda: "p1: its interface has been deleted" in vifd.log())
    busy = vifd.cpu_seconds()
    time.sleep(1)
    assert vifd.cpu_seconds() - busy < 0.1
    vifd.ctl("uplink del p1")
    vifd.ctl(f"uplink add p1 tap=tap0 netns={one.netns} bridge=br0")
    one.address("tap0", "10.77.0.1/24")
    one.run("ping -q -c 2 -i 0.05 -W 2 10.77.0.2")


def test_interface_that_is_down(make_lan):
    vifd, (one, two) = make_lan()
    one.run("ping -q -c 1 -W 2 10.77.0.2")
    two.run("ip link set tap0 down")
    one.run("ping -q -c 3 -i 0.05 -W 0.2 10.77.0.2 || true")
    assert vifd.stats("p2")["drop_device_error"] >= 3
    two.address("tap0")
    one.run("ping -q -c 2 -i 0.05 -W 2 10.77.0.2")


def test_ports_come_and_go_under_traffic(make_lan, make_netns):
    vifd, (one, two) = make_lan(before=["set workers=2"])
    guest = make_netns("guest")
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            vifd.ctl(f"uplink add guest tap=tap0 netns={guest.netns} bridge=br0")
            vifd.ctl("uplink del guest")

    changes = threading.Thread(target=come_and_go, daemon=True)
    changes.start()
    try:
        tcp_copy(one, two, "10.77.0.2", 256 * MIB)
    finally:
        over.set()
        changes.join()
    assert not drops(vifd.stats("p1"))


def test_idle_uplinks_cost_nothing(make_lan):
    vifd, ends = make_lan(4)
    time.sleep(1)  # neighbour discovery
    before = vifd.cpu_seconds()
    time.sleep(2)
    assert vifd.cpu_seconds() - before < 0.02
