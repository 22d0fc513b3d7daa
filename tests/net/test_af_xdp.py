# SPDX-License-Identifier: BSD-3-Clause
"""AF_XDP uplinks: two namespaces that talk through one vifd, over veth pairs whose near ends it has.

     namespace one                 namespace nics                namespace two
    ┌─────────────┐      ┌────────────────────────────────┐      ┌─────────────┐
    │ Linux  eth0 ═══════╪ nic1 ── p1   br0   p2 ── nic2 ╪═══════ eth0  Linux │
    └─────────────┘      └────────────────────────────────┘      └─────────────┘
      10.78.0.1/24                  one vifd process               10.78.0.2/24
      fd78::1/64                                                   fd78::2/64

A veth leaves checksums unfinished, for there is no wire; vifd has to see to it that no unfinished one is taken for a
complete one, and no wrong one for a right one.
"""
import collections
import concurrent.futures
import contextlib
import os
import re
import socket
import struct
import time

import pytest

from lib.traffic import tcp_copy
from net.test_tap import MIB, checksum, drops, udp_echo

ETH_P_ALL = 3

Lan = collections.namedtuple("Lan", "vifd nics ends")


@pytest.fixture
def make_lan(start_vifd, make_netns):
    """Both uplinks with these options; peers are the far ends' ethtool settings, queues those of the veth pairs."""
    def make(options="", peers="", queues=1, mtu=1500, before=()):
        nics, ends = make_netns("nics"), [make_netns("one"), make_netns("two")]
        many = f"numrxqueues {queues} numtxqueues {queues}"
        commands = [*before, "bridge add br0"]
        for n, end in enumerate(ends, 1):
            nics.run(f"ip link add nic{n} mtu {mtu} {many} type veth peer name eth0 mtu {mtu} netns {end.netns} {many}")
            if peers:
                end.run(f"ethtool -K eth0 {peers}")
            end.address("eth0", f"10.78.0.{n}/24", f"fd78::{n}/64")
            commands.append(f"uplink add p{n} af-xdp=nic{n} netns={nics.netns} {options} bridge=br0")
        vifd = start_vifd(*commands)
        ends[0].ping("10.78.0.2") # until both carriers are up
        return Lan(vifd, nics, ends)
    return make


def got(vifd, port):
    return next(row for row in vifd.ctl("show uplinks") if row["name"] == port)["got"]


def checksum_errors(end):
    """How many packets the kernel at that end has found damaged."""
    text = end.run("cat /proc/net/snmp")
    total = 0
    for proto in ("Tcp", "Udp"):
        names, values = re.findall(rf"^{proto}: (.*)$", text, re.M)
        total += int(dict(zip(names.split(), values.split()))["InCsumErrors"])
    return total + sum(map(int, re.findall(r"^Udp6InCsumErrors\s+(\d+)", end.run("cat /proc/net/snmp6"), re.M)))


@contextlib.contextmanager
def capture(end):
    with end.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL), timeout=0.5) as watch:
        watch.setsockopt(socket.SOL_SOCKET, 33, 64 * MIB) # SO_RCVBUFFORCE
        watch.bind(("eth0", ETH_P_ALL))
        yield watch


def arrived(watch):
    frames = []
    with contextlib.suppress(socket.timeout):
        while True:
            frame, where = watch.recvfrom(1 << 17)
            if where[2] != socket.PACKET_OUTGOING:
                frames.append(frame)
    return frames


def l4_of(frame):
    """Pseudo header and L4 packet of an IPv4 or IPv6 frame of TCP or UDP, else None."""
    kind, ip = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and not struct.unpack("!H", ip[6:8])[0] & 0x3fff:
        length = struct.unpack("!H", ip[2:4])[0]
        protocol, addresses, l4 = ip[9], ip[12:20], ip[(ip[0] & 15) * 4:length]
    elif kind == b"\x86\xdd":
        length = struct.unpack("!H", ip[4:6])[0]
        protocol, addresses, l4 = ip[6], ip[8:40], ip[40:40 + length]
    else:
        return None
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    return addresses + struct.pack("!II", len(l4), protocol), l4


# ---- traffic ----

MODES = [("auto", ""), ("native", ""), ("skb", "tso off gso off"), ("auto", "tx off")]


@pytest.mark.parametrize("mode,peers", MODES)
def test_ping_and_tcp_both_ways(make_lan, mode, peers):
    vifd, _, (one, two) = make_lan(f"xdp-mode={mode}", peers)
    assert got(vifd, "p1")[:2] == ["skb" if mode == "skb" else "native", "copy"]
    for address in ("10.78.0.2", "fd78::2"):
        one.run(f"ping -q -c 20 -i 0.01 -W 2 {address}")
    one.run("ping -q -c 20 -i 0.01 -W 2 -s 1472 -M do 10.78.0.2")
    one.run("ping -q -c 5 -i 0.01 -W 2 -s 20000 10.78.0.2") # IP fragments
    tcp_copy(one, two, "10.78.0.2", 32)
    tcp_copy(two, one, "10.78.0.1", 32)
    tcp_copy(one, two, "fd78::2", 8)
    udp_echo(one, two, "10.78.0.2", [0, 1, 17, 18, 19, 22, 23, 100, 1471, 1472, 1473, 4000, 65507])
    udp_echo(one, two, "fd78::2", [0, 1, 2, 3, 1452, 1453, 65507 - 20])
    assert not drops(vifd.stats("p1")) and not drops(vifd.stats("p2"))
    assert checksum_errors(one) == checksum_errors(two) == 0


def test_large_packets_of_a_tap_leave_in_segments(make_lan, make_netns):
    """What a TAP hands over whole, checksum unfinished, an AF_XDP uplink sends in right pieces, and the other way."""
    vifd, _, (one, _) = make_lan()
    other = make_netns("tap")
    vifd.ctl(f"uplink add wire tap=eth0 netns={other.netns} bridge=br0")
    other.address("eth0", "10.78.0.3/24", "fd78::3/64")
    other.ping("10.78.0.1")
    tcp_copy(other, one, "10.78.0.1", 32)
    tcp_copy(one, other, "10.78.0.3", 32)
    tcp_copy(other, one, "fd78::1", 8)
    stats = vifd.stats("p1")
    assert stats["segmented_packets"] > 100 and stats["send_gso_packets"] == 0
    assert not drops(vifd.stats("p1")) and not drops(vifd.stats("wire"))
    assert checksum_errors(one) == checksum_errors(other) == 0


@pytest.mark.parametrize("mtu", [1500, 9000]) # jumbo packets leave by the socket, which workers share
def test_two_workers_send_through_one_queue(make_lan, make_netns, mtu):
    vifd, _, (one, two) = make_lan(mtu=mtu, before=["set workers=2"])
    other = make_netns("tap")
    vifd.ctl(f"uplink add wire tap=eth0 netns={other.netns} bridge=br0")
    other.address("eth0", "10.78.0.3/24")
    other.ping("10.78.0.1")
    owner = {queue["port"]: row["id"] for row in vifd.ctl("show workers") for queue in row["queues"]}
    assert owner["p2"] != owner["wire"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for copy in [pool.submit(tcp_copy, source, one, "10.78.0.1", 32) for source in (two, other)]:
            copy.result()
    assert checksum_errors(one) == 0
    assert set(drops(vifd.stats("p1"))) <= {"drop_queue_full"}


def test_jumbo_packets(make_lan):
    """Packets of several frames, where the kernel has multi-buffer AF_XDP; what fits one frame anywhere."""
    vifd, _, (one, two) = make_lan(mtu=9000)
    if "multi-buffer" not in got(vifd, "p1"):
        assert vifd.ctl("show ports")[0]["mtu"] == 3818
        pytest.skip("this kernel has no multi-buffer AF_XDP")
    one.run("ping -q -c 20 -i 0.01 -W 2 -s 8972 -M do 10.78.0.2")
    udp_echo(one, two, "10.78.0.2", [*range(3700, 3900), *range(7500, 8000, 7), 8971, 8972, 8973, 65507])
    tcp_copy(one, two, "10.78.0.2", 32)
    tcp_copy(two, one, "fd78::1", 32)
    assert vifd.stats("p1")["recv_bytes"] / vifd.stats("p1")["recv_packets"] > 4000
    assert not drops(vifd.stats("p1")) and not drops(vifd.stats("p2"))
    assert checksum_errors(one) == checksum_errors(two) == 0


def test_several_queues(make_lan):
    vifd, nics, (one, two) = make_lan("queues=4", queues=4)
    assert [row["queues"] for row in vifd.ctl("show ports")] == [4, 4]
    kernel = nics.counter("nic1", "rx_packets"), nics.run("cat /proc/net/snmp")
    for _ in range(8): # each connection on a queue of its own
        tcp_copy(one, two, "10.78.0.2", 2)
    carried = re.findall(r"rx_queue_\d_xdp_packets: (\d+)", nics.run("ethtool -S nic1"))
    assert len(carried) == 4 and sum(int(count) > 0 for count in carried) > 1
    assert nics.counter("nic1", "rx_packets") > kernel[0]
    assert nics.run("cat /proc/net/snmp") == kernel[1] # no packet went astray, into the kernel of the near end
    assert not drops(vifd.stats("p1")) and not drops(vifd.stats("p2"))


def test_queues_that_are_not_used_are_told_of(make_lan, make_netns):
    vifd, nics, _ = make_lan()
    nics.run("ip link add many numrxqueues 2 numtxqueues 2 type veth peer name far numrxqueues 2 numtxqueues 2")
    vifd.ctl(f"uplink add p3 af-xdp=many netns={nics.netns} bridge=br0")
    assert "many has 2 receive queues, of which 1" in vifd.log()


# ---- checksums ----

@pytest.mark.parametrize("mode,peers", [("native", ""), ("skb", "tso off gso off")])
def test_checksums_on_the_wire(make_lan, mode, peers):
    """Senders leave their checksums unfinished; every one that leaves vifd is finished and right."""
    vifd, _, (one, two) = make_lan(f"xdp-mode={mode}", peers)
    two.run("ethtool -K eth0 gro off")
    with capture(two) as watch:
        tcp_copy(one, two, "10.78.0.2", 2)
        tcp_copy(one, two, "fd78::2", 2)
        udp_echo(one, two, "10.78.0.2", [1, 2, 500, 1400])
        frames = [l4 for l4 in map(l4_of, arrived(watch)) if l4]
    assert len(frames) > 2000
    for pseudo, l4 in frames:
        assert checksum(pseudo + l4) == 0xffff
    assert vifd.stats("p2")["checksummed_packets"] > 2000


def test_wrong_checksums_stay_wrong(make_lan):
    """A damaged packet arrives as damaged as it was sent, and its receiver finds that out."""
    vifd, _, (one, two) = make_lan()
    source, to = socket.inet_aton("10.78.0.1"), socket.inet_aton("10.78.0.2")
    mac = [bytes.fromhex(end.mac("eth0").replace(":", "")) for end in (two, one)]
    with capture(one) as send, capture(two) as watch, two.socket(socket.AF_INET, socket.SOCK_DGRAM, timeout=1) as server:
        server.bind(("", 7003))
        sent = []
        for n in range(200):
            payload = os.urandom(100)
            udp = struct.pack("!HHHH", 7002, 7003, 108, 0) + payload
            right = ~checksum(source + to + struct.pack("!II", 108, 17) + udp) & 0xffff
            wrong = right ^ 1 << n % 16 or right ^ 3 # 0 would be: none to be checked
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 128, n, 0, 64, 17, 0) + source + to
            ip = ip[:10] + struct.pack("!H", ~checksum(ip) & 0xffff) + ip[12:]
            sent.append(b"".join(mac) + b"\x08\x00" + ip + udp[:6] + struct.pack("!H", wrong) + payload)
            send.send(sent[-1])
        frames = [frame for frame in arrived(watch) if frame[:6] == mac[0]]
        with pytest.raises(socket.timeout):
            pytest.fail(f"found to be good: {server.recv(1000).hex()}")
    assert [frame for frame in frames if frame in sent] == sent
    assert checksum_errors(two) == 200
    assert vifd.stats("p2")["checksummed_packets"] == 0


# ---- coming and going ----

# bpf(BPF_PROG_QUERY) of BPF_TCX_EGRESS, which no tool of Debian 12 shows; a kernel without it (before 6.6) fails.
EGRESS_PROGRAMS = """
import ctypes, socket, struct, sys
attr = ctypes.create_string_buffer(struct.pack("IIIIQI", socket.if_nametoindex(sys.argv[1]), 47, 0, 0, 0, 0), 64)
failed = ctypes.CDLL(None).syscall(321, 16, attr, len(attr))
print(0 if failed else struct.unpack_from("I", attr.raw, 24)[0])
"""


def egress_programs(nics, interface):
    return int(nics.run(f"/usr/bin/python3 -c '{EGRESS_PROGRAMS}' {interface}"))


def untouched(nics, interface):
    """Has it neither an XDP program, nor one in its egress path, nor promiscuous mode?"""
    text = nics.run(f"ip -d link show {interface}")
    return "xdp" not in text and "promiscuity 0" in text and egress_programs(nics, interface) == 0


def test_leaves_the_interface_as_it_was(make_lan):
    vifd, nics, (one, _) = make_lan("mtu=1400")
    assert not untouched(nics, "nic1")
    assert egress_programs(nics, "nic1") == ("tc bursts" in got(vifd, "p1"))
    assert "mtu 1400" in nics.run("ip link show nic1")
    vifd.ctl("uplink del p1")
    assert untouched(nics, "nic1")
    assert "mtu 1500" in nics.run("ip link show nic1")
    nics.address("nic1", "10.78.0.9/24")
    one.ping("10.78.0.9") # the kernel's again
    nics.run("ip address del 10.78.0.9/24 dev nic1")
    vifd.ctl(f"uplink add p1 af-xdp=nic1 netns={nics.netns} bridge=br0")
    one.ping("10.78.0.2")


@pytest.mark.parametrize("mode", ["native", "skb"])
def test_killed(make_lan, mode):
    """kill -9 leaves nothing on the interface, and the next vifd works at once."""
    vifd, nics, (one, two) = make_lan(f"xdp-mode={mode}", "tso off gso off")
    one.spawn("ping -q -f 10.78.0.2")
    for _ in range(3):
        vifd.kill()
        end = time.monotonic() + 2
        while not untouched(nics, "nic1") and time.monotonic() < end:
            time.sleep(0.01)
        assert untouched(nics, "nic1") and untouched(nics, "nic2")
        vifd.start()
        one.ping("10.78.0.2")
    vifd.kill()
    nics.address("nic1", "10.78.0.9/24")
    one.ping("10.78.0.9")
    nics.run("ip address del 10.78.0.9/24 dev nic1")
    vifd.start()
    tcp_copy(one, two, "10.78.0.2", 2)


def test_interface_that_goes_down_and_away(make_lan):
    vifd, nics, (one, two) = make_lan()
    one.spawn("ping -q -f 10.78.0.2")
    nics.run("ip link set nic2 down")
    time.sleep(0.2)
    nics.run("ip link set nic2 up")
    one.ping("10.78.0.2")
    nics.run("ip link del nic2")
    time.sleep(0.2)
    cpu = vifd.cpu_seconds()
    one.stop()
    time.sleep(0.5)
    assert vifd.cpu_seconds() - cpu < 0.3
    vifd.ctl("uplink del p2")
    nics.run(f"ip link add nic2 type veth peer name eth0 netns {two.netns}")
    two.address("eth0", "10.78.0.2/24")
    one.run("ip neigh flush all") # it has another address now
    vifd.ctl(f"uplink add p2 af-xdp=nic2 netns={nics.netns} bridge=br0")
    one.ping("10.78.0.2")


def test_sleeps_when_there_is_nothing_to_do(make_lan):
    vifd, _, _ = make_lan()
    time.sleep(0.5)
    before = vifd.cpu_seconds()
    time.sleep(1)
    assert vifd.cpu_seconds() - before < 0.1
