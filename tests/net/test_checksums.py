# SPDX-License-Identifier: BSD-3-Clause
"""Every checksum on the wire is right, whatever was sent and whatever the uplink can do.

    namespace far          one vifd process         namespace wire
    ┌───────────┐       ┌────────────────────┐      ┌──────────────────┐
    │ Linux tap0┼───────┼─ far (offload=all) │      │                  │
    └───────────┘       │         br0    wire┼──────┼─ eth0 <- capture │
    storm.c ─vhost-user─┼─ guest             │      │                  │
                        └────────────────────┘      └──────────────────┘
      10.77.0.1, fd77::1                             10.77.0.2, fd77::2

Of a TAP uplink eth0 is the TAP itself; AF_PACKET and AF_XDP have the far end of a veth pair there.

The wire's interface is captured with the kernel's own opinion in front of each packet (PACKET_VNET_HDR): nothing may
be larger than the uplink can take, and a checksum left to finish is right as far as it goes.
"""
import contextlib
import os
import random
import socket
import struct
import subprocess
import threading

import pytest

from lib.guest import with_parent
from lib.vifd import BUILD

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86dd
VLAN_TAGS = (0x8100, 0x88a8)
SOL_PACKET, PACKET_STATISTICS, PACKET_VNET_HDR = 263, 6, 15
VNET_LEN, NEEDS_CSUM = 10, 1
SOL_UDP, UDP_SEGMENT = 17, 103
TCP, UDP, FRAGMENT = 6, 17, 44
EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options
CSUM_OFFSET = {TCP: 16, UDP: 6}
MIB = 1 << 20
SEED = int(os.environ.get("VIFD_SEED", 1))


def sums_up(data, more=0):
    """Is the one's complement sum of these bytes and more all ones (RFC 1071)? 2**16 is 1 modulo 65535."""
    total = int.from_bytes(data, "big") << (8 if len(data) & 1 else 0)
    return (total + more) % 65535 == 0


def ip_layers(packet):
    """Of an IP packet: addresses, protocol (None: a fragment) and what that carries. AssertionError for bad headers."""
    if packet[0] >> 4 == 4:
        header_len, total_len, fragment = packet[0] % 16 * 4, *struct.unpack_from("!HxxH", packet, 2)
        assert sums_up(packet[:header_len]), "IPv4 header checksum"
        assert total_len <= len(packet), "IPv4 length"
        return packet[12:20], None if fragment & 0x3fff else packet[9], packet[header_len:total_len]
    end, protocol, at = 40 + struct.unpack_from("!H", packet, 4)[0], packet[6], 40
    assert end <= len(packet), "IPv6 length"
    while protocol in EXTENSIONS:
        protocol, at = packet[at], at + 8 + packet[at + 1] * 8
    return packet[8:40], None if protocol == FRAGMENT else protocol, packet[at:end]


def verify(vnet, frame, partial_allowed):
    """The protocol whose checksum is right, None if there is none to see. AssertionError if it is wrong."""
    at = 14
    while struct.unpack_from("!H", frame, at - 2)[0] in VLAN_TAGS:
        at += 4
    if struct.unpack_from("!H", frame, at - 2)[0] not in (ETH_P_IP, ETH_P_IPV6):
        return None
    flags, gso_type = vnet[:2]
    assert gso_type == 0, "larger than a segment"
    addresses, protocol, segment = ip_layers(frame[at:])
    if protocol not in CSUM_OFFSET:
        return None
    if protocol == UDP:
        assert struct.unpack_from("!H", segment, 4)[0] == len(segment), "UDP length"
    field = struct.unpack_from("!H", segment, CSUM_OFFSET[protocol])[0]
    pseudo = int.from_bytes(addresses, "big") + protocol + len(segment)
    if flags & NEEDS_CSUM:
        assert partial_allowed, "checksum left to finish"
        assert field % 65535 == pseudo % 65535, "pseudo header"
    else:
        assert field or protocol == TCP, "no UDP checksum"
        assert sums_up(segment, pseudo), f"checksum of protocol {protocol}"
    return protocol


class Capture:
    """Verifies what an interface of a namespace receives, from start to stop()."""

    def __init__(self, end, interface, partial_allowed):
        self.partial_allowed, self.verified, self.wrong, self.partial = partial_allowed, {TCP: 0, UDP: 0}, [], 0
        self.socket = end.socket(socket.AF_PACKET, socket.SOCK_RAW, 0, timeout=0.5)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 256 * MIB)  # SO_RCVBUFFORCE
        self.socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self.socket.bind((interface, ETH_P_ALL))
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                packet, where = self.socket.recvfrom(1 << 17)
            except TimeoutError:
                if self.stopping:
                    return
                continue
            if where[2] == socket.PACKET_OUTGOING:
                continue
            vnet, frame = packet[:VNET_LEN], packet[VNET_LEN:]
            try:
                protocol = verify(vnet, frame, self.partial_allowed)
            except (AssertionError, IndexError, struct.error) as why:
                self.wrong.append((repr(why), packet.hex()[:400]))
                continue
            if protocol:
                self.verified[protocol] += 1
                self.partial += vnet[0] & NEEDS_CSUM

    def stop(self):
        """Look at what is still queued, and end. AssertionError if anything was wrong."""
        self.stopping = True
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.lost = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        self.socket.close()
        print(f"verified {self.verified}, of those left to finish {self.partial}; not seen {self.lost}")
        assert not self.wrong, f"{len(self.wrong)} wrong, such as {self.wrong[:3]}"


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(range(255)), random.Random(1).randbytes(1499)], ids=len)
def test_verify_can_fail(payload):
    """What the other tests rest on: a right packet passes, any changed bit does not."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 1, 0, 64, UDP, 0, bytes([10, 0, 0, 1]), bytes(4))
    ip = ip[:10] + struct.pack("!H", 65535 - int.from_bytes(ip, "big") % 65535) + ip[12:]
    udp = struct.pack("!HHHH", 7, 9, 8 + len(payload), 0) + payload
    padded = int.from_bytes(udp, "big") << (8 * (len(udp) & 1))
    total = (padded + int.from_bytes(ip[12:20], "big") + UDP + len(udp)) % 65535
    udp = udp[:6] + struct.pack("!H", 65535 - total) + udp[8:]
    frame = bytes(12) + b"\x08\x00" + ip + udp
    assert verify(bytes(VNET_LEN), frame, False) == UDP
    draw = random.Random(SEED)
    for at in draw.sample(range(14, len(frame)), min(40, len(frame) - 14)):
        changed = bytearray(frame)
        changed[at] ^= 1 << draw.randrange(8)
        with pytest.raises((AssertionError, IndexError, struct.error)):
            assert verify(bytes(VNET_LEN), bytes(changed), False) == UDP


# ---- traffic ----

def tcp_stream(source, sink, address, size):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with sink.socket(family, socket.SOCK_STREAM) as server, source.socket(family, socket.SOCK_STREAM) as client:
        server.bind(("", 0))
        server.listen()
        client.connect((address, server.getsockname()[1]))
        with server.accept()[0] as connection:
            receiver = threading.Thread(target=drain, args=(connection,), daemon=True)
            receiver.start()
            draw = random.Random(SEED)
            data = memoryview(draw.randbytes(2 * MIB))
            while size > 0:
                size -= client.send(data[draw.randrange(MIB):][:draw.choice([1, 777, 9999, MIB])])
            client.shutdown(socket.SHUT_WR)
            receiver.join(20)
            assert not receiver.is_alive()


def drain(connection):
    connection.settimeout(20)
    while connection.recv(MIB):
        pass


def udp_mix(source, address, count):
    """Datagrams of all sizes, some of them in fragments, and some that one system call makes many of (USO)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    draw = random.Random(SEED)
    with source.socket(family, socket.SOCK_DGRAM) as client:
        for n in range(count):
            segment = draw.choice([1, 100, 999, 1400]) if n % 4 == 0 else 0
            client.setsockopt(SOL_UDP, UDP_SEGMENT, segment)
            size = draw.randint(1, segment * 40) if segment else draw.choice([0, 1, 2000, draw.randint(0, 1400)])
            with contextlib.suppress(ConnectionRefusedError):
                client.sendto(draw.randbytes(size), (address, 7001))


def drops(stats):
    """What a port has dropped, but for what Linux said while its port was the only one."""
    return {name: count for name, count in stats.items()
            if name.startswith("drop_") and name != "drop_nowhere" and count}


# Options of the wire, and whether it takes unfinished checksums.
WIRES = {"tap-none": ("tap=eth0 offload=none", False), "tap-csum": ("tap=eth0 offload=csum", True),
         "tap-csum+sg": ("tap=eth0 offload=csum+sg", True), "af-packet-none": ("af-packet=nic offload=none", False),
         "af-xdp": ("af-xdp=nic", False)}


@pytest.fixture
def make_wire(make_netns):
    """A namespace for the capture, and the `uplink add` command that leads there."""
    def make(options, mtu=1500):
        wire = uplink = make_netns("wire")
        if "nic" in options:
            uplink = make_netns("nic")
            uplink.run(f"ip link add nic mtu {mtu} type veth peer name eth0 mtu {mtu} netns {wire.netns}")
            wire.run("ethtool -K eth0 gro off; ip link set eth0 up")  # or it would merge what came in segments
        return wire, f"uplink add wire {options} netns={uplink.netns} mtu={mtu} bridge=br0"
    return make


@pytest.mark.parametrize("options, partial", WIRES.values(), ids=WIRES)
def test_kernel_traffic(start_vifd, make_netns, make_wire, options, partial):
    far, (wire, uplink) = make_netns("far"), make_wire(options)
    vifd = start_vifd("bridge add br0", f"uplink add far tap=tap0 netns={far.netns} bridge=br0", uplink)
    far.address("tap0", "10.77.0.1/24", "fd77::1/64")
    wire.address("eth0", "10.77.0.2/24", "fd77::2/64")
    far.ping("10.77.0.2")  # until a veth pair is up
    capture = Capture(wire, "eth0", partial)
    for address in ("10.77.0.2", "fd77::2"):
        with wire.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("", 7001))  # nobody reads: it is seen all the same
            udp_mix(far, address, 800)
        tcp_stream(far, wire, address, 16 * MIB)
    capture.stop()
    stats = vifd.stats("wire")
    assert capture.verified[TCP] > 20000 and capture.verified[UDP] > 5000
    assert capture.partial > 20000 if partial else capture.partial == 0
    assert stats["segments"] > 20000 and (stats["checksummed_packets"] > 20000) != partial


# AF_XDP's frames end before what storm.c draws does.
@pytest.mark.parametrize("options, partial", list(WIRES.values())[:-1], ids=list(WIRES)[:-1])
def test_guest_traffic(start_vifd, make_wire, folder, options, partial):
    count, (wire, uplink) = 1000, make_wire(options, 9216)
    vifd = start_vifd("bridge add br0", uplink, f"guest add guest vhost-user={folder}/guest.sock mtu=9216 bridge=br0")
    wire.run("ip link set eth0 up; until grep -q 1 /sys/class/net/eth0/carrier; do sleep 0.05; done")
    capture = Capture(wire, "eth0", partial)
    subprocess.run(with_parent([BUILD / "tests" / "net" / "storm", f"{folder}/guest.sock", str(SEED), str(count)]),
                   check=True, timeout=60)
    capture.stop()
    guest, stats = vifd.stats("guest"), vifd.stats("wire")
    assert guest["recv_packets"] == count, drops(guest)
    assert not drops(stats)
    assert capture.verified[TCP] > 10000 and capture.verified[UDP] > 5000
    assert sum(capture.verified.values()) + capture.lost == stats["send_packets"]
