# SPDX-License-Identifier: BSD-3-Clause
"""snet: who gets to see what, what is copied, and ports that are tied to each other.

       namespace 1                                                      namespace 2
    ┌──────────────┐                 ┌────────────────────┐                 ┌──────────────┐
    │ Linux  eth0 ═╪═ vif-front ═ snet ═ p1   br0   p2 ═ snet ═ vif-front ═╪═ eth0  Linux │
    └──────────────┘                 │         p3         │                 └──────────────┘
      10.79.0.1/24                   └──────────╨─────────┘                     10.79.0.2/24
                                              snet
                                             a spy
"""
import json
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from lib.guest import with_parent
from lib.vifd import BUILD, VifdError
from net.test_snet import make_lan, start_front # pylint: disable=unused-import
from net.test_tap import MIB, eventually, tcp_copy, udp_echo

MARKER = "nobody else is to read this: 1f0a9c"
KEEPER = "52:54:00:00:00:0c"
TICK_SECONDS = 0.25 # the main thread's timer may allocate when it sets itself anew
LARGES = 32 # buffers of an uplink's queue for packets beyond 2 KiB (src/uplink/recv_bufs.h)
PAIR = ["--ip", "10.79.0.{}/24", "--ip", "fd79::{}/64"]


# ---- who sees what ----

@pytest.mark.parametrize("spy, others, sees", [
    ("isolated", "isolated", False), ("isolated", "shared", False), ("shared", "isolated", False), ("shared", "shared", True)])
def test_spy(make_lan, folder, spy, others, sees):
    """What two guests send each other a third one sees only where all agreed to it."""
    vifd, (one, two), _ = make_lan(guest=f"trust={others}")
    vifd.ctl(f"guest add p3 snet={folder}/p3.sock trust={spy} bridge=br0")
    watcher = subprocess.Popen(with_parent([BUILD / "tests" / "net" / "snet_spy", f"{folder}/p3.sock", MARKER]), text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert watcher.stdout.readline() == "ready\n"
        with two.socket() as server, one.socket() as client:
            server.bind(("10.79.0.2", 7001))
            server.listen()
            client.connect(("10.79.0.2", 7001))
            with server.accept()[0] as connection:
                for _ in range(200):
                    client.sendall(MARKER.encode() * 100)
                    connection.sendall(MARKER.encode() * 100)
                    for end in (client, connection):
                        left = len(MARKER) * 100
                        while left:
                            left -= len(end.recv(left))
        shown = [len(row["zones"]) for row in vifd.ctl("show guests")]
        vifd.ctl("guest del p1")
        time.sleep(0.6) # the next tick tells of it
        said = json.loads(watcher.communicate(timeout=20)[0])
    finally:
        watcher.kill()
        watcher.wait()
    assert vifd.stats("p3")["send_packets"] < 50 # what is flooded while addresses are learnt is for everybody
    assert (said["found"] > 0) == sees, said
    assert (said["zones"] > shown[2]) == sees, (said, shown)
    assert (said["gone"] > 0) == sees, said # what p1 sent from


# ---- what is copied ----

def grown(vifd, port, work):
    """What a port's counters have grown by while work was done."""
    before = vifd.stats(port)
    work()
    after = vifd.stats(port)
    return {name: after[name] - before[name] for name in after if isinstance(after[name], int)}


def copied(vifd, one, two):
    return grown(vifd, "p2", lambda: tcp_copy(one, two, "10.79.0.2", 64 * MIB))


def test_isolated_is_copied_once(make_lan):
    vifd, (one, two), _ = make_lan(guest="trust=isolated")
    counts = copied(vifd, one, two)
    assert 64 * MIB <= counts["copied_bytes"] <= counts["send_bytes"], counts
    assert counts["referenced_packets"] == 0


def test_shared_touches_no_payload(make_lan):
    """Bar of SETH: with trust=shared no byte of payload is touched by vifd."""
    vifd, (one, two), _ = make_lan(guest="trust=shared")
    assert eventually(lambda: all(len(row["zones"]) > 0 for row in vifd.ctl("show guests")))
    counts = copied(vifd, one, two)
    assert counts["copied_bytes"] == 0, counts
    assert counts["send_bytes"] > 64 * MIB and counts["referenced_packets"] > 1000, counts
    assert counts["linearised_packets"] == counts["segmented_packets"] == counts["checksummed_packets"] == 0


@pytest.mark.parametrize("uplink", ["tap", "af-packet", "af-xdp"])
def test_shared_receives_from_the_wire_where_it_lies(make_lan, uplink):
    """What an uplink receives stays in its buffers until the front end returns them."""
    vifd, (one, two), _ = make_lan(uplink, "trust=shared")
    counts = grown(vifd, "p1", lambda: tcp_copy(two, one, "10.79.0.1", 64 * MIB))
    assert counts["referenced_packets"] > counts["send_packets"] / 2, counts
    assert eventually(lambda: vifd.ctl("show guests")[0]["references"] == 0)
    vifd.ctl("uplink del p2")
    row = vifd.ctl("show guests")[0]
    assert row["connected"] and row["breaks"] == 0 and row["references"] == 0


@pytest.mark.parametrize("uplink", ["tap", "af-packet"])
def test_from_the_wire_without_a_copy_or_an_allocation(make_netns, start_vifd, folder, cleanup, monkeypatch, uplink):
    """Counted in the whole process, by hostile/count_calls.c in front of libc."""
    wire, nics, counters = make_netns("wire"), make_netns("nics"), Path(folder) / "counters"
    counters.write_bytes(bytes(24))
    if uplink == "tap":
        where = f"tap=eth0 netns={wire.netns} mtu=60000"
    else:
        nics.run(f"ip link add nic mtu 60000 type veth peer name eth0 mtu 60000 netns {wire.netns}")
        where = f"af-packet=nic netns={nics.netns}"
    with monkeypatch.context() as patch:
        patch.setenv("COUNT_CALLS", str(counters))
        patch.setenv("LD_PRELOAD", str(BUILD / "tests" / "hostile" / "libcount_calls.so"))
        vifd = start_vifd("set workers=1", "bridge add br0", f"uplink add p1 {where} bridge=br0",
                          f"guest add p2 snet={folder}/p2.sock trust=shared mtu=60000 mac={KEEPER} bridge=br0")
    wire.run("ip link set eth0 up")
    guest = cleanup.enter_context(subprocess.Popen(
        with_parent([BUILD / "tests" / "net" / "snet_spy", f"{folder}/p2.sock", MARKER]), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    cleanup.callback(guest.kill)
    assert guest.stdout.readline() == "ready\n"
    frame = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in (KEEPER, wire.mac("eth0"))) + b"\x88\xb5" + bytes(50000)
    with wire.socket(socket.AF_PACKET, socket.SOCK_RAW) as send:
        send.bind(("eth0", 0))
        assert eventually(lambda: send.send(frame) and vifd.stats("p2")["referenced_packets"] > 0, 10)
        time.sleep(0.3) # the guest gives back, and the control socket has its allocations behind it
        stats, before, begin = vifd.stats("p2"), struct.unpack("QQQ", counters.read_bytes()), time.monotonic()
        for _ in range(10):
            time.sleep(0.1)
            for _ in range(10):
                send.send(frame)
        time.sleep(0.1)
        after, ticks = struct.unpack("QQQ", counters.read_bytes()), (time.monotonic() - begin) / TICK_SECONDS + 1
    allocations, _, copied_bytes = (now - then for now, then in zip(after, before))
    stats = {name: count - stats[name] for name, count in vifd.stats("p2").items() if isinstance(count, int)}
    assert before[0] > 0 and stats["referenced_packets"] >= 100 and stats["copied_bytes"] == 0, stats
    assert allocations <= ticks and copied_bytes < 100 * 1000, (allocations, copied_bytes)


@pytest.mark.parametrize("uplink", ["tap", "af-packet", "af-xdp"])
def test_isolated_gets_a_copy_from_the_wire(make_lan, uplink):
    vifd, (one, two), _ = make_lan(uplink, "trust=isolated")
    counts = grown(vifd, "p1", lambda: tcp_copy(two, one, "10.79.0.1", 16 * MIB))
    assert counts["referenced_packets"] == 0 and counts["copied_bytes"] > 16 * MIB * 0.9, counts


@pytest.mark.parametrize("uplink", ["tap", "af-packet"])
def test_guest_that_returns_nothing(make_lan, folder, cleanup, uplink):
    """It keeps all large buffers of an uplink: that goes on beside its zone, and is back there when the guest is gone."""
    vifd, (one, two), _ = make_lan(uplink, "trust=shared", mtu=60000)
    vifd.ctl(f"guest add p3 snet={folder}/p3.sock trust=shared mtu=60000 mac={KEEPER} bridge=br0")
    keeper = cleanup.enter_context(subprocess.Popen(
        with_parent([BUILD / "tests" / "net" / "snet_spy", f"{folder}/p3.sock", MARKER, "keep"]), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    cleanup.callback(keeper.kill)
    assert keeper.stdout.readline() == "ready\n"
    frame = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in (KEEPER, two.mac("eth0"))) + b"\x88\xb5" + bytes(50000)
    with two.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        for count in range(1, 101):
            wire.send(frame)
            assert eventually(lambda: vifd.stats("p3")["send_packets"] >= count)
    stats = vifd.stats("p3")
    assert LARGES <= stats["referenced_packets"] < LARGES + 10 and stats["copied_bytes"] > 50 * 49000, stats
    counts = grown(vifd, "p1", lambda: tcp_copy(two, one, "10.79.0.1", 64 * MIB))
    assert counts["copied_bytes"] > 32 * MIB and not counts["drop_no_buffers"], counts
    keeper.kill()
    assert eventually(lambda: vifd.ctl("show guests")[1]["references"] == 0)
    counts = grown(vifd, "p1", lambda: tcp_copy(two, one, "10.79.0.1", 64 * MIB))
    assert counts["referenced_packets"] > counts["send_packets"] / 2, counts


@pytest.mark.parametrize("ring, full", [("ring=16 entry=256", True), ("", False)])
def test_small_rings_of_large_entries(make_lan, ring, full):
    """The ring-full drops of SETH (S22) can be had. How many there are otherwise depends on who has the CPU."""
    vifd, (one, two), _ = make_lan(guest=ring)
    counts = grown(vifd, "p2", lambda: udp_flood(one))
    assert counts["send_packets"] > 0 and (counts["drop_queue_full"] > 0 or not full), counts
    tcp_copy(one, two, "10.79.0.2", 16 * MIB)


def udp_flood(end):
    with end.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(20000):
            client.sendto(bytes(600), ("10.79.0.2", 9))


# ---- tied ports ----

def test_direct(folder, start_vifd, make_netns, start_front):
    """Two guests that name each other need no bridge, and no addresses are learnt."""
    ends = [make_netns("n1"), make_netns("n2")]
    vifd = start_vifd("bridge add br0", f"guest add p1 snet={folder}/p1.sock direct=p2")
    for n in (1, 2):
        start_front(f"p{n}", "--connect", f"{folder}/p{n}.sock", "--netns", ends[n - 1].netns,
                    *(word.format(n) for word in PAIR), ready=n == 1)
    vifd.ctl(f"guest add p2 snet={folder}/p2.sock trust=shared direct=p1")
    assert eventually(lambda: vifd.ctl("show guests")[1]["connected"], 10)
    ends[0].ping("10.79.0.2")
    tcp_copy(ends[0], ends[1], "10.79.0.2", 64 * MIB)
    udp_echo(ends[1], ends[0], "fd79::1", [1, 1400, 9000, 65000])
    assert [(row["bridge"], row["direct"]) for row in vifd.ctl("show ports")] == [(None, "p2"), (None, "p1")]
    assert vifd.ctl("show fdb") == []
    vifd.ctl("guest del p2")
    counts = grown(vifd, "p1", lambda: ends[0].run("ping -c 1 -W 1 10.79.0.2 || true"))
    assert counts["drop_nowhere"] > 0
    vifd.ctl(f"guest add p2 snet={folder}/p2.sock direct=p1")
    assert eventually(lambda: vifd.ctl("show guests")[1]["connected"], 10)
    ends[0].ping("10.79.0.2")


def test_direct_to_an_uplink(folder, start_vifd, make_netns, start_front):
    ends = [make_netns("n1"), make_netns("n2")]
    vifd = start_vifd(f"uplink add wire tap=eth0 netns={ends[1].netns} direct=p1",
                      f"guest add p1 snet={folder}/p1.sock direct=wire")
    start_front("p1", "--connect", f"{folder}/p1.sock", "--netns", ends[0].netns, *(word.format(1) for word in PAIR))
    ends[1].address("eth0", "10.79.0.2/24")
    ends[0].ping("10.79.0.2")
    tcp_copy(ends[0], ends[1], "10.79.0.2", 32 * MIB)
    tcp_copy(ends[1], ends[0], "10.79.0.1", 32 * MIB)
    assert vifd.stats("wire")["recv_gso_packets"] > 100


@pytest.mark.parametrize("command, sentence", [
    ("snet={}/x.sock", "bridge=BRIDGE or direct=PORT is missing"),
    ("snet={}/x.sock bridge=br0 direct=p1", "give only one of bridge=BRIDGE or direct=PORT"),
    ("snet={}/x.sock direct=x", "a port cannot be tied to itself"),
    ("snet={}/x.sock direct=p1", "that port is on bridge 'br0'; it needs direct=x instead"),
    ("snet={}/x.sock direct=p2", "that port is for 'p3' (its direct=)"),
    ("snet={}/x.sock direct=p4 isolated", "isolated is what a bridge sees to"),
    ("snet={}/x.sock bridge=br0 client", "client is for vhost-user="),
    ("snet={}/x.sock bridge=br0 queues=2", "queues= is for vhost-user="),
    ("snet={}/x.sock bridge=br0 ring=1000", "ring=1000: give a power of two"),
    ("snet={}/x.sock bridge=br0 entry=40", "entry=40: give a multiple of 16"),
    ("vhost-user={}/x.sock bridge=br0 trust=shared", "are for snet= only"),
    ("snet={}/p1.sock bridge=br0", "is in use by another program"),
])
def test_what_is_refused(folder, start_vifd, command, sentence):
    vifd = start_vifd("bridge add br0", f"guest add p1 snet={folder}/p1.sock bridge=br0",
                      f"guest add p2 snet={folder}/p2.sock direct=p3")
    with pytest.raises(VifdError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        vifd.ctl(f"guest add x {command.format(folder)}")
    assert [row["name"] for row in vifd.ctl("show ports")] == ["p1", "p2"]


# ---- what is told ----

def test_show_memory(make_lan):
    vifd, _, _ = make_lan("af-xdp", "trust=shared ring=256 entry=64")
    rows = {(row["owner"], row["what"]): row for row in vifd.ctl("show memory")}
    assert set(rows) == {("worker 0", "packets"), ("p1", "zones to send from"), ("p1", "zones to receive into"),
                         ("p1", "rings"), ("p2", "frames")}
    for row in rows.values():
        assert row["size"] % (2 << 20) == 0 and 0 < row["resident"] <= row["size"] >= row["superpages"], row
        assert row["pages"] in ("hugetlb", "transparent", "4k")
    guest = vifd.ctl("show guests")[0]
    assert guest["ring"] == 256 and guest["entry"] == 64 and guest["trust"] == "shared"
    assert [queue["size"] for queue in guest["queues"]] == [256]
    assert {zone["access"] for zone in guest["zones"]} == {"read", "write"}
    for command in (["show", "memory"], ["show", "guests"]):
        text = vifd.vifctl(*command).stdout
        assert "transparent" in text or "4k" in text or "hugetlb" in text
