# SPDX-License-Identifier: BSD-3-Clause
"""What guests with every offload see: bulk integrity, UDP, VLANs, several queues, more memory, isolation, coming and going.

    guest a ──┐
    guest b ──┼── br0 ── TAP ── wire
"""
import pytest

from lib.guest import GuestError
from lib.traffic import iperf, serve, tcp_copy


@pytest.fixture(scope="module")
def pair(lab):
    lab.start_guest("a", cpus=2, queues=2)
    lab.start_guest("b")
    return lab.finish_guest("a"), lab.finish_guest("b")


def test_everyone_hears_everyone(lab, pair):
    a, b = pair
    for addresses in (lab.address, lab.address6):
        a.ping(addresses["b"])
        b.ping(addresses["a"])
        a.ping(addresses["wire"])
        lab.wire.ping(addresses["b"])


def test_bulk_integrity(lab, pair):
    a, b = pair
    for source, sink in ((a, b), (b, a), (a, lab.wire), (lab.wire, a)):
        tcp_copy(source, sink, lab.address[sink.name], megabytes=32)


def test_packets_cross_whole(lab, pair):
    """TSO at work (M7): the mean packet between guests is far larger than the wire's 1500 bytes."""
    a, b = pair
    serve(b)
    before = lab.vifd.stats("a"), lab.vifd.stats("b")
    iperf(a, lab.address["b"], 2)
    after = lab.vifd.stats("a"), lab.vifd.stats("b")
    packets = after[0]["recv_packets"] - before[0]["recv_packets"]
    octets = after[0]["recv_bytes"] - before[0]["recv_bytes"]
    assert octets / packets > 8000
    assert after[1]["send_gso_packets"] > before[1]["send_gso_packets"]
    assert after[1]["segmented_packets"] == before[1]["segmented_packets"]


@pytest.mark.parametrize("size", [64, 1400, 8000])
def test_udp(lab, pair, size):
    """8000 bytes cross as IP fragments."""
    a, _ = pair
    serve(lab.wire)
    total = iperf(a, lab.address["wire"], 2, f"-u -b 4M -l {size}")["end"]["sum"]
    assert total["packets"] > 100
    assert total["lost_percent"] < 60 # a busy host loses some; bad checksums or fragments would lose all


def test_both_queue_pairs_carry(lab, pair):
    """The driver spreads its flows over both pairs by itself when it has as many CPUs."""
    a, _ = pair
    serve(lab.wire)
    iperf(a, lab.address["wire"], 2, "-P 4")
    rings = [ring for ring in lab.show_guest("a")["rings"] if ring["running"]]
    assert len(rings) == 4
    tcp_copy(a, lab.wire, lab.address["wire"])
    tcp_copy(lab.wire, a, lab.address["a"])


def test_vlan(lab, pair, folder):
    """The tag crosses untouched, and so do large packets behind it. (Not every kernel that plays the wire knows VLANs,
    so the wire only looks.)"""
    a, b = pair
    seen = f"{folder}/seen"
    lab.wire.spawn("timeout 60 tcpdump -i wire0 -n -e -l vlan 7 and arp", log=seen)
    for end, address in ((a, "10.89.0.1"), (b, "10.89.0.2")):
        end.run(f"ip link add link eth0 name tagged type vlan id 7; ip addr add {address}/24 dev tagged;"
                f" ip link set tagged up")
    try:
        a.ping("10.89.0.2")
        tcp_copy(a, b, "10.89.0.2")
        tcp_copy(b, a, "10.89.0.1")
        a.run("ping -c 3 -W 1 10.89.0.9", check=False) # asks everyone, the wire too
        lab.wire.run(f"until grep -q 'vlan 7.*who-has 10.89.0.9' {seen}; do sleep 0.1; done")
    finally:
        for end in (a, b):
            end.run("ip link del tagged")


def test_more_memory(lab, pair):
    """A memory region that is plugged in while traffic flows."""
    _, b = pair
    serve(lab.wire)
    before = len(lab.show_guest("b")["memory"])
    b.spawn(f"iperf3 -c {lab.address['wire']} -t 4; echo done >/tmp/plugged")
    b.plug_memory(128)
    b.run("until [ -e /tmp/plugged ]; do sleep 0.2; done")
    assert len(lab.show_guest("b")["memory"]) == before + 1
    b.run("echo online >/sys/devices/system/memory/auto_online_blocks;"
          "for state in /sys/devices/system/memory/memory*/state; do echo online >$state; done", check=False)
    b.run("dd if=/dev/zero of=/tmp/fill bs=1M count=120", check=False) # pushes buffers into the new region
    b.run("rm -f /tmp/fill")
    tcp_copy(b, lab.wire, lab.address["wire"])
    tcp_copy(lab.wire, b, lab.address["b"])


def test_isolation(lab, pair):
    """Isolated guests reach the wire and not each other; taken back, they do."""
    a, b = pair
    for name in ("a", "b"):
        lab.vifd.ctl(f"guest set {name} isolated=on")
    try:
        a.ping(lab.address["wire"])
        before = lab.vifd.stats("a")["drop_isolated"]
        with pytest.raises(GuestError):
            a.ping(lab.address["b"], timeout=3)
        assert lab.vifd.stats("a")["drop_isolated"] > before
    finally:
        for name in ("a", "b"):
            lab.vifd.ctl(f"guest set {name} isolated=off")
    a.ping(lab.address["b"])


def test_spoofing(lab, pair):
    """spoof=strict: what comes from another address than the guest's is dropped and counted."""
    a, b = pair
    lab.vifd.ctl(f"guest set a mac={a.mac} spoof=strict")
    try:
        a.ping(lab.address["b"])
        before = lab.vifd.stats("a")["drop_spoofed"]
        a.run("ip link set eth0 down; ip link set eth0 address 52:54:00:66:66:66; ip link set eth0 up")
        with pytest.raises(GuestError):
            a.ping(lab.address["b"], timeout=3)
        assert lab.vifd.stats("a")["drop_spoofed"] > before
    finally:
        a.run(f"ip link set eth0 down; ip link set eth0 address {a.mac}; ip link set eth0 up;"
              f" ip addr add {lab.address6['a']}/64 dev eth0")
        lab.vifd.ctl("guest set a spoof=off")
    a.ping(lab.address["b"])


def test_driver_comes_back(lab, pair):
    """The guest resets the device and drives it again."""
    _, b = pair
    b.run("rmmod virtio_net && insmod /modules/virtio_net.ko")
    b.address(f"{lab.address['b']}/24", f"{lab.address6['b']}/64")
    b.ping(lab.address["wire"])
    tcp_copy(b, lab.wire, lab.address["wire"])
    tcp_copy(lab.wire, b, lab.address["b"])


def test_guest_comes_and_goes(lab, pair):
    """A third guest, added and removed under the others' traffic, twice."""
    a, _ = pair
    serve(lab.wire)
    a.spawn(f"iperf3 -c {lab.address['wire']} -t 12 >/dev/null && echo fine >/tmp/steady")
    for name in ("c", "d"):
        guest = lab.guest(name)
        guest.ping(lab.address["b"])
        lab.remove_guest(name)
    a.run("until [ -e /tmp/steady ]; do sleep 0.2; done", timeout=30)
    assert {port["name"] for port in lab.vifd.ctl("show ports")} == {"wire", "a", "b"}
