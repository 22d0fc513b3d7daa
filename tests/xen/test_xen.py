# SPDX-License-Identifier: BSD-3-Clause
"""Guests of a real Xen with their stock front end, one paravirtual and one PVH: first behind the kernel's back end, which
vifd is compared with, then behind vifd.

    pv   10.0.0.2 ── netfront ── xen-netback ──┐
    pvh  10.0.0.3 ── netfront ── xen-netback ──┴── xenbr0, dom0's  10.0.0.1

    pv   10.0.0.2 ── netfront ──┐
    pvh  10.0.0.3 ── netfront ──┼── vifd's br0 ── TAP ── namespace wire  10.0.0.1
    box  10.0.0.4 ── vif-front ─┘

One boot for all: the tests run in the order of the file. What they print are figures of an emulated machine; no second of
them decides anything.
"""
import re
import time

import pytest

from lib.guest import GuestError
from lib.xen import NETBACK, VIFD

pytestmark = pytest.mark.timeout(600) # the first test boots all

ADDRESS = {"dom0": "10.0.0.1", "wire": "10.0.0.1", "pv": "10.0.0.2", "pvh": "10.0.0.3", "box": "10.0.0.4"}
STREAM_PORT = 7000
MIB = 1 << 20
COSTS_MEGABYTES = 64


class Stream:
    """Bytes over TCP that the sink knows, from the time of construction on."""

    def __init__(self, source, sink, megabytes):
        self.source, self.sink = source, sink
        self.paths = [f"/tmp/stream.{name}" for name in ("sent", "got", "bytes")]
        self._listen(*self.paths)
        sent = self.paths[0]
        source.spawn(f"stream send {ADDRESS[sink.name]} {STREAM_PORT} {megabytes * MIB} >{sent}.new; mv {sent}.new {sent}")

    def _listen(self, sent, got, octets):
        self.source.run(f"rm -f {sent}")
        self.sink.run(f"rm -f {got} {octets}")
        self.sink.spawn(f"stream recv {STREAM_PORT} {octets} >{got}.new; echo status $? >>{got}.new; mv {got}.new {got}")
        self.sink.run(f"until [ -s {octets} ]; do usleep 50000; done")

    def received(self):
        return int(self.sink.run(f"cat {self.paths[2]}"))

    def wait_for(self, octets, seconds=120):
        """Until the sink has so many; how long that took."""
        begin = time.monotonic()
        while self.received() < octets:
            assert time.monotonic() - begin < seconds, f"TCP does not move for {seconds} s"
        return time.monotonic() - begin

    def finish(self, seconds=240):
        """AssertionError if a byte is wrong or missing."""
        sent, got = (end.run(f"until [ -e {path} ]; do usleep 50000; done; cat {path}", seconds).split()
                     for end, path in ((self.source, self.paths[0]), (self.sink, self.paths[1])))
        assert got == sent + ["status", "0"], f"{self.sink.name} got {got}, {self.source.name} sent {sent}"


def stream(source, sink, megabytes):
    Stream(source, sink, megabytes).finish()


@pytest.fixture(scope="module")
def guests(dom0):
    """The two guests, without a network."""
    return {name: dom0.create(name, name, ADDRESS[name]) for name in ("pv", "pvh")}


# ---- the kernel's back end ----


@pytest.fixture(scope="module")
def netback(dom0, guests):
    dom0.start_netback("10.0.0.1/24")
    for guest in guests.values():
        guest.attach(NETBACK)
    return guests


@pytest.mark.parametrize("name", ["pv", "pvh"])
def test_netback(dom0, netback, name):
    """What the stock back end does here, so that what vifd does not can be told from what the machine does not."""
    netback[name].ping(ADDRESS["dom0"])
    stream(netback[name], dom0, 32)
    stream(dom0, netback[name], 32)


def test_netback_is_in_the_way(dom0, netback):
    """Two back ends would fight for each device: vifd says so and ends."""
    with pytest.raises(GuestError, match="xen-netback is loaded, .* rmmod xen-netback"):
        dom0.vifd("bridge add br0", "xen bridge=br0")
    netback["pv"].ping(ADDRESS["dom0"])


@pytest.fixture(scope="module")
def netback_costs(dom0, netback):
    """What the stock back end costs. It is gone then."""
    costs = netback["pv"].iperf_costs(dom0, ADDRESS["dom0"], COSTS_MEGABYTES)
    for guest in netback.values():
        guest.detach()
    dom0.stop_netback()
    return costs


# ---- vifd ----


@pytest.fixture(scope="module")
def ends(dom0, guests, netback_costs):
    """All ends, by name, and vifd, as "vifd"."""
    wire, box = dom0.netns("wire"), dom0.netns("box")
    wire.run("/bin/ip tuntap add wire0 mode tap vnet_hdr; ip link set wire0 up; ip addr add 10.0.0.1/24 dev wire0")
    vifd = dom0.vifd("bridge add br0", "uplink add wire tap=wire0 netns=wire bridge=br0",
                     "guest add box snet=/run/vifd/box.sock bridge=br0", "xen bridge=br0")
    box.spawn("vif-front --connect /run/vifd/box.sock --ifname eth0 --ip 10.0.0.4/24")
    for guest in guests.values():
        guest.attach(VIFD)
    return {"vifd": vifd, "wire": wire, "box": box, **guests}


def test_everyone_hears_everyone(ends):
    for name in ("pv", "pvh"):
        for other in ADDRESS.keys() - {name, "dom0"}:
            ends[name].ping(ADDRESS[other])


@pytest.mark.parametrize("source, sink, megabytes", [
    ("pv", "wire", 256), ("wire", "pv", 256), ("pvh", "wire", 64), ("wire", "pvh", 64), ("pv", "pvh", 64), ("pvh", "pv", 64),
    ("pv", "box", 64), ("box", "pv", 64)])
def test_bulk_integrity(ends, source, sink, megabytes):
    """Every byte arrives, and packets cross whole (M7): the mean packet is far larger than 1500 bytes."""
    ends[source].ping(ADDRESS[sink])
    ports = {name: ends[name].port() if name in ("pv", "pvh") else name for name in (source, sink)}
    before = {name: ends["vifd"].stats(port) for name, port in ports.items()}
    stream(ends[source], ends[sink], megabytes)
    after = {name: ends["vifd"].stats(port) for name, port in ports.items()}

    def more(name, counter):
        return after[name][counter] - before[name][counter]
    assert more(source, "recv_gso_packets") > 0
    assert more(sink, "send_gso_packets") > 0
    assert more(source, "recv_bytes") / more(source, "recv_packets") > 8000
    assert more(sink, "segmented_packets") == 0


def test_costs(ends, netback_costs):
    """What vifd costs beside the kernel's back end: printed. How many packets come at once is the machine's mood, and moves
    hypercalls with it; what decides is far beyond that."""
    costs = ends["pv"].iperf_costs(ends["wire"], ADDRESS["wire"], COSTS_MEGABYTES)
    print()
    for way, cost in costs.items():
        print(f"netback {way:11} {netback_costs[way]}\nvifd    {way:11} {cost}")
        assert cost.insns <= 2.5 * netback_costs[way].insns
        assert cost.hypercalls <= 5 * netback_costs[way].hypercalls


def test_detach_attach(ends):
    """xl takes a device away and gives one again."""
    ends["pv"].detach()
    assert ends["pv"].port() not in {port["name"] for port in ends["vifd"].ctl("show ports")}
    ends["pv"].attach(VIFD)
    ends["pv"].ping(ADDRESS["wire"])
    stream(ends["pv"], ends["wire"], 8)
    stream(ends["wire"], ends["pv"], 8)


@pytest.mark.parametrize("source, sink", [("pv", "wire"), ("wire", "pv")])
def test_killed_under_traffic(ends, source, sink):
    """kill -9 of vifd and a new one; the guest is not touched, and its TCP goes on."""
    running = Stream(ends[source], ends[sink], 256)
    running.wait_for(16 * MIB)
    ends["vifd"].kill()
    ends["vifd"].start()
    there = running.received()
    assert there < 256 * MIB, "all was there before vifd was killed"
    print(f"TCP went on {running.wait_for(there + MIB):.1f} s after vifd was ready")
    running.finish()


def test_destroyed_under_traffic(dom0, ends):
    """A guest that sends and receives is destroyed: its port goes, nobody else notices. Then there is a new one, with its
    device from the beginning."""
    port = ends["pvh"].port()
    out, back = (Stream(ends[a], ends[b], 1024) for a, b in (("pvh", "wire"), ("pv", "pvh")))
    out.wait_for(4 * MIB)
    dom0.destroy(ends["pvh"])
    end = time.monotonic() + 60
    while port in {row["name"] for row in ends["vifd"].ctl("show ports")}:
        assert time.monotonic() < end, f"{port} does not go"
    ends["pv"].run("killall stream", check=False)
    ends["wire"].run("killall stream", check=False)
    ends["pv"].ping(ADDRESS["wire"])
    stream(ends["pv"], ends["wire"], 8)
    ends["pvh"] = dom0.create("pvh", "pvh", ADDRESS["pvh"], VIFD)
    ends["pvh"].ping(ADDRESS["pv"])
    stream(ends["wire"], ends["pvh"], 8)


def test_ends_cleanly(ends):
    """SIGTERM under guests; what vifd said has no complaint in it."""
    ends["vifd"].stop()
    assert not re.search("error|broken", ends["vifd"].log())
