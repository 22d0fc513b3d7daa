# SPDX-License-Identifier: BSD-3-Clause
"""dpdk-testpmd's virtio-user as the front end: two ports of one testpmd bounce packets through vifd.

    testpmd port 0 ── vhost-user ──┐
                                   ├── br0
    testpmd port 1 ── vhost-user ──┘
"""
import itertools
import time

import pytest

from lib.testpmd import Testpmd
from lib.vifd import Vifd

MACS = "52:54:00:99:00:00", "52:54:00:99:00:01"
EACH_KNOWS_THE_OTHER = [f"--eth-peer={port},{MACS[1 - port]}" for port in (0, 1)]


class Ports:
    """Two guest ports of one vifd, made anew for each case."""

    def __init__(self, folder):
        self.folder, self.serial = folder, itertools.count()
        self.vifd = Vifd(folder, "bridge add br0")
        self.vifd.start()
        self.names = []

    def add(self, options=""):
        self.remove()
        self.names = [f"p{next(self.serial)}" for _ in MACS]
        for name in self.names:
            self.vifd.ctl(f"guest add {name} vhost-user={self.folder}/{name}.sock {options} bridge=br0")

    def remove(self):
        for name in self.names:
            self.vifd.ctl(f"guest del {name}")
        self.names = []

    def devices(self, options=""):
        return [f"path={self.folder}/{name}.sock,mac={mac}{',' if options else ''}{options}"
                for name, mac in zip(self.names, MACS)]

    def stats(self):
        rows = {row["name"]: row for row in self.vifd.ctl("show stats")}
        return [rows[name] for name in self.names]

    def features(self):
        return [set(row["features"]) for row in self.vifd.ctl("show guests")]


@pytest.fixture(scope="module")
def ports(module_folder):
    ports = Ports(module_folder)
    yield ports
    ports.vifd.stop()


def check_flow(ports, bounced, least=5000):
    """Packets went round, and vifd's counters agree with testpmd's."""
    for received, sent in bounced:
        assert received > least and sent > least
    stats = ports.stats()
    for this, other, (received, sent) in zip(stats, reversed(stats), bounced):
        assert this["recv_packets"] == sent
        assert this["send_packets"] == received or this["send_packets"] - received < 2048 # still in the ring
        dropped = sum(count for name, count in {**this}.items() if name.startswith("drop_"))
        assert dropped == 0
        assert this["recv_packets"] == other["send_packets"]


CASES = [
    "", "mrg_rxbuf=0", "mrg_rxbuf=1,in_order=0", "in_order=1", "in_order=0", "mrg_rxbuf=0,in_order=0",
    "mrg_rxbuf=0,in_order=1,vectorized=1",
    "queue_size=64", "queue_size=128", "queue_size=256", "queue_size=512", "queue_size=1024", "queue_size=4096",
]


@pytest.mark.parametrize("size", [64, 1518])
@pytest.mark.parametrize("options", CASES)
def test_bounce(ports, options, size):
    ports.add()
    with Testpmd(ports.devices(options), f"--txpkts={size}", *EACH_KNOWS_THE_OTHER) as testpmd:
        bounced = testpmd.bounce(0.7)
        check_flow(ports, bounced)
        for features in ports.features():
            assert ("mrg_rxbuf" in features) == ("mrg_rxbuf=0" not in options)
            assert ("in_order" in features) == ("in_order=0" not in options)


def test_chained_descriptors(ports):
    """Packets in three pieces, each in a descriptor of its own."""
    ports.add()
    with Testpmd(ports.devices(), "--txpkts=60,700,740", "--tx-offloads=0x8000", *EACH_KNOWS_THE_OTHER) as testpmd:
        bounced = testpmd.bounce(0.7)
        check_flow(ports, bounced)
        assert ports.stats()[0]["recv_bytes"] == ports.stats()[0]["recv_packets"] * 1500


def test_two_queue_pairs(ports):
    ports.add("queues=2")
    with Testpmd(ports.devices("queues=2,cq=1"), "--rxq=2", "--txq=2", *EACH_KNOWS_THE_OTHER) as testpmd:
        bounced = testpmd.bounce(0.7)
        check_flow(ports, bounced)
        for guest in ports.vifd.ctl("show guests"):
            assert sum(ring["running"] for ring in guest["rings"]) == 4


def test_packed_ring_is_not_offered(ports):
    """Asked for and refused: the front end falls back to split rings."""
    ports.add()
    with Testpmd(ports.devices("packed_vq=1"), *EACH_KNOWS_THE_OTHER) as testpmd:
        check_flow(ports, testpmd.bounce(0.7))
        assert not any("ring_packed" in features for features in ports.features())


def test_odd_queue_size(ports):
    """Not a power of two: the front end itself refuses it, and vifd serves the next one."""
    ports.add()
    with Testpmd(ports.devices("queue_size=100")) as testpmd:
        assert testpmd.greeting.count("virtqueue size is not power of 2") == 2
    test_bounce(ports, "", 64)


def test_front_end_killed_under_traffic(ports):
    """The same sockets serve the next front end."""
    ports.add()
    for _ in range(3):
        with Testpmd(ports.devices(), *EACH_KNOWS_THE_OTHER) as testpmd:
            testpmd.run("start tx_first 1")
            time.sleep(0.3)
            testpmd.process.kill()
    with Testpmd(ports.devices(), *EACH_KNOWS_THE_OTHER) as testpmd:
        for received, _ in testpmd.bounce(0.5):
            assert received > 5000


def test_front_end_listens(ports):
    """vifd in the client role, towards virtio-user's server mode."""
    ports.add("client")
    with Testpmd(ports.devices("server=1"), *EACH_KNOWS_THE_OTHER) as testpmd:
        check_flow(ports, testpmd.bounce(0.7))
