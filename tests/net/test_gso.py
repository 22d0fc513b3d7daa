# SPDX-License-Identifier: BSD-3-Clause
"""Our segments beside the Linux kernel's GSO, byte for byte: gso_pairs.c makes and compares them and says how.

Here are the packets: as many as that program draws from a seed, and a set whose headers scapy made.
"""
import functools
import json
import operator
import os
import random
import struct
import subprocess

import pytest
from scapy.layers.inet import (IP, TCP, UDP, IPOption, IPOption_NOP, IPOption_Router_Alert, IPOption_RR,
                               IPOption_Timestamp)
from scapy.layers.inet6 import (IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN,
                                RouterAlert)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from lib.guest import ROOT, with_parent
from lib.vifd import BUILD

SEED = int(os.environ.get("VIFD_SEED", 1))
NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_ECN = 1, 0, 1, 4, 5, 0x80
TCP_CSUM, UDP_CSUM = 16, 6  # offsets in their headers
SEGMENTS_MAX = {"TCP": 256, "UDP": 128}


def gso_pairs(build, *arguments, packets=None):
    program = (BUILD if build == "build" else ROOT / build) / "tests" / "net" / "gso_pairs"
    done = subprocess.run(with_parent([program, *map(str, arguments)]), timeout=120, input=packets, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("build, count", [("build", 20000), ("build-asan", 1500)])
def test_drawn(build, count):
    compared = gso_pairs(build, SEED, count)
    assert compared["packets"] == count
    assert compared["segments"] > 20 * count


# ---- scapy's packets ----

def ipv4_layers(draw):
    options = draw.choice([
        [], [], [IPOption_Router_Alert()], [IPOption_RR(routers=["0.0.0.0"] * draw.randint(1, 9))],
        [IPOption_Timestamp()], [IPOption_NOP()] * draw.randint(1, 40), [IPOption(b"\x86\x06\x00\x00\x00\x01")]])
    return [IP(src="10.0.0.1", dst=draw.choice(["10.0.0.2", "224.0.0.9", "255.255.255.255"]), options=options,
               id=draw.choice([0, 1, 0x7fff, 0xfffe, 0xffff, draw.randrange(65536)]), flags=draw.choice(["", "DF"]),
               tos=draw.randrange(256), ttl=draw.randint(1, 255))]


def padding(draw):
    return PadN(optdata=bytes(draw.randint(0, 20)))


def ipv6_layers(draw):
    layers = [IPv6(src="fd00::1", dst=draw.choice(["fd00::2", "ff02::1"]), tc=draw.randrange(256),
                   fl=draw.randrange(1 << 20), hlim=draw.randint(1, 255))]
    if draw.random() < 0.3:
        options = draw.choice([[RouterAlert()], [padding(draw)], [padding(draw), padding(draw)]])
        layers.append(IPv6ExtHdrHopByHop(options=options))
    if draw.random() < 0.3:
        layers.append(IPv6ExtHdrDestOpt(options=[padding(draw)]))
    if draw.random() < 0.2:
        layers.append(IPv6ExtHdrRouting(type=2, segleft=0, addresses=["fd00::9"]))
    return layers


def tcp_layer(draw):
    options = draw.sample([("MSS", 1460), ("SAckOK", b""), ("WScale", 7), ("NOP", None), ("NOP", None),
                           ("Timestamp", (draw.randrange(1 << 32), 5)), ("SAck", (1, 2)), ("EOL", None)],
                          draw.randint(0, 5))
    flags = "".join(flag for flag in "FSRPAUECN" if draw.random() < 0.4)
    return TCP(sport=draw.randrange(65536), dport=draw.randrange(65536), options=options, flags=flags,
               seq=draw.choice([0, 0xffffffff, 0xfffff000, draw.randrange(1 << 32)]), ack=draw.randrange(1 << 32),
               window=draw.randrange(65536), urgptr=draw.randrange(65536))


def scapy_packet(draw):
    """A super-packet as a guest hands it over: its virtio_net_hdr, and a frame whose checksum is the pseudo header's."""
    ip = draw.choice([4, 6])
    kind = draw.choice(["TCP", "TCP", "UDP"])
    tags = draw.choice([[], [], [Dot1Q(vlan=draw.randrange(4095), prio=draw.randrange(8))],
                        [Dot1AD(vlan=2), Dot1Q(vlan=3)], [Dot1Q(vlan=2), Dot1Q(vlan=3)]])
    l4 = tcp_layer(draw) if kind == "TCP" else UDP(sport=draw.randrange(65536), dport=draw.randrange(65536))
    layers = [Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02"), *tags,
              *(ipv4_layers(draw) if ip == 4 else ipv6_layers(draw)), l4]
    l4_header = len(bytes(l4))
    gso_size = draw.choice([1448, 1460, 1428, 536, 8948, draw.randint(1, 1500), draw.randint(200, 20000)])
    # Room for IPv4 options and IPv6 extension headers in 64 KiB
    payload = draw.randbytes(min(draw.choice([65535, gso_size + l4_header + 1, draw.randrange(65536)]),
                                 gso_size * SEGMENTS_MAX[kind], 65535 - 200 - l4_header))
    frame = bytearray(bytes(functools.reduce(operator.truediv, layers) / payload))
    l4_at = len(frame) - len(payload) - l4_header

    field = l4_at + (TCP_CSUM if kind == "TCP" else UDP_CSUM)
    frame[field:field + 2] = struct.pack("!H", pseudo_sum(frame, ip, l4_at, 14 + 4 * len(tags), kind))
    gso = GSO_NONE
    if len(payload) + l4_header - 20 > gso_size:  # or Linux finds it too small for GSO, see gso_pairs.c
        gso = GSO_UDP if kind == "UDP" else GSO_TCPV4 if ip == 4 else GSO_TCPV6
        if kind == "TCP" and draw.random() < 0.5:
            gso |= GSO_ECN
    vnet = struct.pack("<BBHHHH", NEEDS_CSUM, gso, l4_at + l4_header, gso_size if gso else 0, l4_at,
                       TCP_CSUM if kind == "TCP" else UDP_CSUM)
    return vnet + frame


def pseudo_sum(frame, ip, l4_at, l3_at, kind):
    addresses = frame[l3_at + 8:l3_at + 40] if ip == 6 else frame[l3_at + 12:l3_at + 20]
    total = sum(struct.unpack(f"!{len(addresses) // 2}H", addresses)) + len(frame) - l4_at + (6 if kind == "TCP" else 17)
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


@pytest.mark.parametrize("build", ["build", "build-asan"])
def test_scapy(build):
    draw = random.Random(SEED)
    packets = [scapy_packet(draw) for _ in range(400)]
    compared = gso_pairs(build, "-", packets=b"".join(struct.pack("=I", len(packet)) + packet for packet in packets))
    assert compared["packets"] == len(packets)
    assert compared["segments"] > 10 * len(packets)
