# SPDX-License-Identifier: BSD-3-Clause
"""AF_PACKET uplinks: two namespaces that talk through one vifd, over veth pairs whose near ends it has.

     namespace one                 namespace nics                namespace two
    ┌─────────────┐      ┌────────────────────────────────┐      ┌─────────────┐
    │ Linux  eth0 ═══════╪ nic1 ── p1   br0   p2 ── nic2 ╪═══════ eth0  Linux │
    └─────────────┘      └────────────────────────────────┘      └─────────────┘
      10.79.0.1/24                  one vifd process               10.79.0.2/24
      fd79::1/64                                                   fd79::2/64

Also the masks of abilities (offload=), of TAP and AF_PACKET uplinks: what leaves for the second namespace is looked at
there, with the kernel's opinion of each packet in front of it.
"""
import collections
import contextlib
import os
import signal
import socket
import struct
import time

import pytest

from lib.traffic import tcp_copy
from lib.vifd import VifdError
from net.test_tap import checksum, drops, eventually, raw, udp_echo

ETH_P_ALL, ETH_P_TEST = 3, 0x88b5  # the latter: for local experiments
SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR = 263, 8, 15
VNET_LEN, NEEDS_CSUM = 10, 1
ONE, TWO = "52:54:00:00:00:01", "52:54:00:00:00:02"

Lan = collections.namedtuple("Lan", "vifd nics one two")


@pytest.fixture
def make_lan(start_vifd, make_netns):
    """before: vifd commands that come first; kind and options2 of the second uplink, options of both."""
    def make(options="", options2="", before=(), kind="af-packet", mtu=1500):
        nics, ends = make_netns("nics"), [make_netns("one"), make_netns("two")]
        nics.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")  # its kernel has nothing to say
        for n, (end, mac) in enumerate(zip(ends, (ONE, TWO)), 1):
            if n == 2 and kind == "tap":
                nic = f"tap=eth0 netns={end.netns}"
            else:
                nics.run(f"ip link add nic{n} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {end.netns}")
                nic = f"{kind if n == 2 else 'af-packet'}=nic{n} netns={nics.netns}"
            if n == 1:
                vifd = start_vifd(*before, "bridge add br0")
            vifd.ctl(f"uplink add p{n} {nic} {options} {options2 if n == 2 else ''} bridge=br0")
            end.run(f"ip link set eth0 address {mac}")
            end.address("eth0", f"10.79.0.{n}/24", f"fd79::{n}/64")
        ends[0].ping("10.79.0.2")  # until both carriers are up
        return Lan(vifd, nics, *ends)
    return make


def uplink(vifd, port):
    return next(row for row in vifd.ctl("show uplinks") if row["name"] == port)


def packet_socket(end, protocol=ETH_P_ALL):
    """Sees the frames that end's eth0 receives and sends."""
    watch = end.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    watch.bind(("eth0", protocol))
    return watch


def look(ip, vnet):
    """Of an IPv4/TCP packet: flags and GSO type in its vnet header, whether the checksum is complete, and payload."""
    ip = ip[:int.from_bytes(ip[2:4], "big")]
    assert checksum(ip[:20]) == 0xffff
    complete = checksum(ip[12:20] + struct.pack("!HH", 6, len(ip) - 20) + ip[20:]) == 0xffff
    return vnet[0], vnet[1], complete, ip[20 + (ip[32] >> 4) * 4:]


# ---- traffic ----

@pytest.mark.parametrize("address", ["10.79.0.{}", "fd79::{}"])
def test_tcp_carries_whole_packets_unchanged(make_lan, address):
    lan = make_lan()
    tcp_copy(lan.one, lan.two, address.format(2), megabytes=64)
    tcp_copy(lan.two, lan.one, address.format(1), megabytes=64)
    for port in ("p1", "p2"):
        stats = lan.vifd.stats(port)
        # 64 KiB cross whole in both directions, nobody segments or sums (M6, M7).
        assert stats["recv_gso_packets"] > 500 and stats["send_gso_packets"] > 500
        assert stats["segmented_packets"] == stats["checksummed_packets"] == 0
        assert not drops(lan.vifd.stats(port)).keys() - {"drop_queue_full"}


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_udp_of_all_sizes(make_lan, mtu):
    lan = make_lan(mtu=mtu)
    sizes = [0, 1, 17, 18, 19, 100, 149, 150, 151, 1000, 1471, 1472, 1473, 4000, 8972, 8973, 30000, 65000]
    udp_echo(lan.one, lan.two, "10.79.0.2", sizes)
    udp_echo(lan.one, lan.two, "fd79::2", sizes)
    assert not drops(lan.vifd.stats("p1")) and not drops(lan.vifd.stats("p2"))


def test_vlan_interfaces(make_lan):
    """The kernel takes the tag off what it hands over; TCP's unfinished checksums lie behind it."""
    lan = make_lan()
    if "Unknown" in lan.one.run("ip link add link eth0 name v5 type vlan id 5 2>&1; ip link del v5 2>&1 || true"):
        pytest.skip("this kernel has no VLAN interfaces")
    for n, end in enumerate((lan.one, lan.two), 1):
        end.run("ip link add link eth0 name v5 type vlan id 5")
        end.run("ip link add link v5 name v57 type vlan id 7")  # a tag in a tag
        end.address("v5", f"10.5.0.{n}/24")
        end.address("v57", f"10.57.0.{n}/24")
    for net in ("10.5.0", "10.57.0"):
        lan.one.ping(f"{net}.2")
        tcp_copy(lan.one, lan.two, f"{net}.2", megabytes=16)
        tcp_copy(lan.two, lan.one, f"{net}.1", megabytes=16)


def tcp_packet(payload):
    """An IPv4/TCP packet whose checksum is to be finished."""
    source, to = bytes([10, 79, 0, 1]), bytes([10, 79, 0, 2])
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 1, 0x4000, 64, 6, 0, source, to)
    ip = ip[:10] + struct.pack("!H", ~checksum(ip) & 0xffff) + ip[12:]
    start = checksum(source + to + struct.pack("!HH", 6, 20 + len(payload)))
    return ip + struct.pack("!HHIIBBHHH", 7, 9, 1, 1, 0x50, 0x18, 500, start, 0) + payload


@pytest.mark.parametrize("tags", [[], [(0x8100, 5)], [(0x88a8, 6), (0x8100, 7)]])
@pytest.mark.parametrize("size", [10, 1400, 30000])
@pytest.mark.parametrize("offload", ["none", "all"])
def test_tagged_packets_with_offloads(make_lan, tags, size, offload):
    """A packet whose checksum is unfinished, one that is to be segmented too, behind no, one and two VLAN tags."""
    lan = make_lan(options2=f"offload={offload}")
    tagging = b"".join(struct.pack("!HH", *tag) for tag in tags)
    payload = os.urandom(size)
    ethernet = raw(TWO) + raw(ONE) + tagging + b"\x08\x00"
    gso = size > 1460
    start = len(ethernet) + 20
    vnet = struct.pack("<BBHHHH", 1, 1 if gso else 0, start + 20, 1400 if gso else 0, start, 16)
    with packet_socket(lan.one) as send, packet_socket(lan.two) as watch:
        for end in (send, watch):
            end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        watch.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        send.send(vnet + ethernet + tcp_packet(payload))
        got = b""
        while len(got) < size:
            data, extra, _, where = watch.recvmsg(1 << 17, 1 << 10)
            frame = data[VNET_LEN:]
            if where[2] == socket.PACKET_OUTGOING or frame[12:14] not in (b"\x08\x00", b"\x81\x00", b"\x88\xa8"):
                continue
            if tags:  # the kernel takes the outermost tag off
                *_, tci, tpid = struct.unpack("IIIHHHH", extra[0][2])
                assert (tpid, tci) == tags[0]
            behind = frame[12 + 4 * max(0, len(tags) - 1):]
            assert behind[:2] == b"\x08\x00"
            flags, _, complete, tcp_payload = look(behind[2:], data[:2])
            assert complete or flags & NEEDS_CSUM and offload == "all"
            got += tcp_payload
    assert got == payload
    assert not drops(lan.vifd.stats("p1")) and not drops(lan.vifd.stats("p2"))


@pytest.mark.parametrize("protocol", [0x8100, 0x88a8])
def test_tags_are_put_back(make_lan, protocol):
    """Frames of all sizes around that of the header copy (192), where the tag moves bytes across its end."""
    lan = make_lan()
    tag = struct.pack("!HH", protocol, 0x6005)  # with a priority
    with packet_socket(lan.one) as send, packet_socket(lan.two) as watch:
        watch.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        for size in (64, 150, 187, 188, 189, 190, 191, 192, 193, 195, 196, 197, 300, 1514):
            payload = os.urandom(size - 18)
            send.send(raw(TWO) + raw(ONE) + tag + struct.pack("!H", ETH_P_TEST) + payload)
            while True:
                frame, extra, _, where = watch.recvmsg(1 << 17, 1 << 10)
                if where[2] != socket.PACKET_OUTGOING and frame[12:14] == struct.pack("!H", ETH_P_TEST):
                    break
            *_, tci, tpid = struct.unpack("IIIHHHH", extra[0][2])
            assert (tpid, tci, frame[14:]) == (protocol, 0x6005, payload), size


def test_several_queues(make_lan):
    """Each frame comes in once, by one of the queues, and its flow's frames in order."""
    lan = make_lan("queues=4", before=["set workers=2"])
    flows, each = 32, 50
    before = lan.vifd.stats("p1")["recv_packets"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(lan.two.socket(socket.AF_INET, socket.SOCK_DGRAM, timeout=1))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        server.bind(("", 7001))
        clients = [stack.enter_context(lan.one.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(flows)]
        for number in range(each):
            for client in clients:
                client.sendto(number.to_bytes(4, "big"), ("10.79.0.2", 7001))
        got = collections.defaultdict(list)
        for _ in range(flows * each):
            data, where = server.recvfrom(100)
            got[where].append(int.from_bytes(data, "big"))
        with pytest.raises(socket.timeout):
            server.recvfrom(100)
    assert len(got) == flows and all(numbers == list(range(each)) for numbers in got.values())
    stats = lan.vifd.stats("p1")
    assert flows * each <= stats["recv_packets"] - before < flows * each + 10  # a few of ARP
    assert min(worker["packets"] for worker in lan.vifd.ctl("show workers")) > flows
    tcp_copy(lan.one, lan.two, "10.79.0.2", megabytes=16)
    assert uplink(lan.vifd, "p1")["queues"] == 4


@pytest.mark.parametrize("queues", [1, 3])
def test_own_frames_are_not_seen(make_lan, queues):
    lan = make_lan(f"queues={queues}")
    quiet = lan.vifd.stats("p2")["recv_packets"]
    frame = raw("ff:ff:ff:ff:ff:ff") + raw(ONE) + struct.pack("!H", ETH_P_TEST) + bytes(50)
    with packet_socket(lan.one) as send, packet_socket(lan.two, ETH_P_TEST) as watch:
        for _ in range(100):
            send.send(frame)
        assert [watch.recv(100) for _ in range(100)] == 100 * [frame]
        watch.settimeout(0.2)
        with pytest.raises(socket.timeout):
            watch.recv(100)
    assert lan.vifd.stats("p2")["send_packets"] >= 100
    assert lan.vifd.stats("p2")["recv_packets"] - quiet < 10  # two's ARP at most
    # ... nor what another sends on our interface, for that comes from this side.
    before = lan.vifd.stats("p2")["recv_packets"]
    with lan.nics.socket(socket.AF_PACKET, socket.SOCK_RAW) as local:
        local.bind(("nic2", 0))
        for _ in range(100):
            local.send(frame)
    time.sleep(0.3)
    assert lan.vifd.stats("p2")["recv_packets"] - before < 10


# ---- masks ----

MASKS = {"none": [], "csum": ["csum"], "csum+sg": ["csum", "sg"], "all": None}


@pytest.mark.parametrize("offload", MASKS)
@pytest.mark.parametrize("kind", ["tap", "af-packet"])
def test_masks(make_lan, kind, offload):
    """The wire sees what a NIC of these abilities would have been given, and right checksums."""
    lan = make_lan(kind=kind, options2=f"offload={offload}")
    port = next(row for row in lan.vifd.ctl("show ports") if row["name"] == "p2")
    if offload == "all":
        assert {"sg", "csum", "tso4", "tso6", "ecn"} <= set(port["caps"])
    else:
        assert sorted(port["caps"]) == MASKS[offload]
    seen = []
    with packet_socket(lan.two) as watch:
        watch.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        tcp_copy(lan.one, lan.two, "10.79.0.2", megabytes=4)
        watch.settimeout(0.1)
        with contextlib.suppress(socket.timeout):
            while len(seen) < 500:
                frame, where = watch.recvfrom(1 << 17)
                if where[2] != socket.PACKET_OUTGOING and frame[22:24] == b"\x08\x00" and frame[33] == 6:
                    seen.append(look(frame[VNET_LEN + 14:], frame[:2]))
    assert len(seen) > 50
    whole = [gso for _, gso, _, _ in seen if gso]
    if offload == "none":
        assert all(complete for _, _, complete, _ in seen)
        assert not any(flags & NEEDS_CSUM for flags, *_ in seen)
    else:
        assert all(flags & NEEDS_CSUM or complete for flags, _, complete, _ in seen)
        assert any(flags & NEEDS_CSUM for flags, *_ in seen)
    assert bool(whole) == (offload == "all")
    stats = lan.vifd.stats("p2")
    assert bool(stats["segmented_packets"]) == (offload != "all")
    tcp_copy(lan.two, lan.one, "10.79.0.1", megabytes=16)
    if kind == "tap":  # the mask works both ways
        assert bool(lan.vifd.stats("p2")["recv_gso_packets"]) == (offload == "all")


# ---- the interface ----

def test_show(make_lan):
    lan = make_lan("queues=2")
    row = uplink(lan.vifd, "p1")
    assert row["kind"] == "af-packet" and row["interface"] == "nic1" and row["netns"] == lan.nics.netns
    assert (row["state"], row["queues"], row["mtu"]) == ("up", 2, 1500)
    assert {"sg", "csum", "tso4", "tso6", "ecn"} <= set(row["caps"])
    assert "driver-csum" in row["got"]
    assert "nic1" in lan.vifd.vifctl("show", "uplinks").stdout


def test_what_the_kernel_lost_is_told(make_lan):
    """While vifd does nothing its sockets overflow."""
    lan = make_lan()
    frame = raw(TWO) + raw(ONE) + struct.pack("!H", ETH_P_TEST) + bytes(1500)
    assert uplink(lan.vifd, "p1")["kernel"] == {"rx_dropped": 0}
    received = lan.vifd.stats("p1")["recv_packets"]
    with packet_socket(lan.one) as send:
        os.kill(lan.vifd.pid, signal.SIGSTOP)
        for _ in range(20000):
            send.send(frame)
        os.kill(lan.vifd.pid, signal.SIGCONT)
    assert eventually(lambda: uplink(lan.vifd, "p1")["kernel"]["rx_dropped"] + lan.vifd.stats("p1")["recv_packets"]
                      - received >= 20000)
    assert uplink(lan.vifd, "p1")["kernel"]["rx_dropped"] > 1000


def test_mtu_changes_are_noticed(make_lan):
    lan = make_lan()
    lan.nics.run("ip link set nic2 mtu 1300")
    assert eventually(lambda: uplink(lan.vifd, "p2")["mtu"] == 1300)


def test_interface_goes_down_and_away(make_lan):
    lan = make_lan()
    lan.nics.run("ip link set nic2 down")
    assert uplink(lan.vifd, "p2")["state"] == "down"
    lan.one.run("ping -c 3 -i 0.05 -W 0.1 10.79.0.2", check=False)
    assert "p2: its interface 'nic2' is down or gone" in lan.vifd.log()
    assert lan.vifd.stats("p2")["drop_device_error"] > 0
    lan.nics.run("ip link set nic2 up")
    lan.one.ping("10.79.0.2")
    assert "p2: its interface 'nic2' is up again" in lan.vifd.log()
    lan.nics.run("ip link del nic2")
    assert uplink(lan.vifd, "p2")["state"] == "gone"
    lan.one.run("ping -c 3 -i 0.05 -W 0.1 10.79.0.2", check=False)
    assert lan.vifd.log().count("is down or gone") == 2
    lan.vifd.ctl("uplink del p2")


@pytest.mark.parametrize("options, says", [
    ("af-packet=nic9", "there is no interface 'nic9' in network namespace '{}'"),
    ("af-packet=lo", "interface 'lo' is no Ethernet interface"),
    ("af-packet=nic1 tap=nic1", "give only one of tap=IFNAME or af-packet=IFNAME or af-xdp=IFNAME"),
    ("af-packet=nic1 xdp-mode=skb", "xdp-mode= is for af-xdp= only"),
    ("af-xdp=nic1 offload=none", "offload= is for tap= and af-packet="),
])
def test_refusals(make_lan, options, says):
    lan = make_lan()
    with pytest.raises(VifdError) as refusal:
        lan.vifd.ctl(f"uplink add p3 {options} netns={lan.nics.netns} bridge=br0")
    assert says.format(lan.nics.netns) in str(refusal.value)
    assert [row["name"] for row in lan.vifd.ctl("show ports")] == ["p1", "p2"]


def test_wrong_namespace(make_lan):
    lan = make_lan()
    with pytest.raises(VifdError, match="there is no interface 'nic1'$"):
        lan.vifd.ctl("uplink add p3 af-packet=nic1 bridge=br0")


@pytest.mark.parametrize("kind", ["af-packet", "af-xdp", "tap"])
def test_mtu_is_restored(start_vifd, make_netns, kind):
    """When the uplink is removed, and by the next vifd when this one is killed."""
    nics = make_netns("nics")
    if kind == "tap":
        nics.run("ip tuntap add nic0 mode tap")
    else:
        nics.run("ip link add nic0 type veth peer name far0")
    mtu = lambda: nics.run("cat /sys/class/net/nic0/mtu").strip()
    nics.run("ip link set nic0 mtu 1400")
    add = f"uplink add p1 {kind}=nic0 netns={nics.netns} mtu=1450 bridge=br0"

    vifd = start_vifd("bridge add br0", add)
    assert mtu() == "1450"
    vifd.ctl("uplink del p1")
    assert mtu() == "1400"
    vifd.ctl(add)
    assert mtu() == "1450"
    vifd.kill()
    assert mtu() == "1450"
    start_vifd()
    assert mtu() == "1400"
    assert "promiscuity 0" in nics.run("ip -d link show nic0")
