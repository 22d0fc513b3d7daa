# SPDX-License-Identifier: BSD-3-Clause
"""snet: network namespaces that vif-front makes guests of one vifd, and what else is on its bridge.

       namespace 1                                                      namespace 2
    ┌──────────────┐                 ┌────────────────────┐                 ┌──────────────┐
    │ Linux  eth0 ═╪═ vif-front ═ snet ═ p1   br0   p2 ═ snet ═ vif-front ═╪═ eth0  Linux │
    └──────────────┘                 └─────────┬──────────┘                 └──────────────┘
      10.79.0.1/24                             └── or: tap=eth0, af-xdp=nic2 ... 10.79.0.2/24
      fd79::1/64                                                                 fd79::2/64

What is sent is compared with what arrives, while programs come and go.
"""
import collections
import contextlib
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lib.guest import ROOT, with_parent
from lib.vifd import SANITIZER, VifdError, program
from net.test_tap import MIB, eventually, tcp_copy, udp_echo

Lan = collections.namedtuple("Lan", "vifd ends fronts")
FAMILIES = ["10.79.0.{}", "fd79::{}"]


class Front:
    """A running vif-front. ready: wait until it has said so."""

    def __init__(self, folder, name, *options, ready=True):
        self.log_path, self.options = Path(folder) / f"{name}.front", list(map(str, options))
        self.process = None
        self.start(ready)

    def start(self, ready=True):
        with open(self.log_path, "ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(with_parent([program("front/vif-front"), *self.options]),
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if ready and not eventually(lambda: "vif-front: ready\n" in self.log()[begin:] or self.ended(), 10) or self.ended():
            raise VifdError(f"vif-front is not ready: {self.log()}", self.process.poll())

    def ended(self):
        return self.process.poll() is not None

    def log(self):
        return self.log_path.read_text(errors="replace")

    def says(self, sentence, times=1):
        """Wait until it has."""
        return eventually(lambda: self.log().count(sentence) >= times, 10)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM ends it promptly and cleanly."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(5)
        assert status == 0 and not SANITIZER.search(self.log()), f"vif-front ended with {status}: {self.log()}"


@pytest.fixture
def start_front(folder, cleanup, request):
    """Start a vif-front, which must end cleanly with the test."""
    def start(name, *options, **more):
        front = Front(folder, name, *options, **more)
        cleanup.callback(lambda: front.ended() or front.stop())
        request.node.vifds = getattr(request.node, "vifds", []) + [front] # so that a failure shows its log
        return front
    return start


@pytest.fixture
def make_lan(folder, start_vifd, make_netns, start_front):
    """far: what the second end is, see above, with an MTU; guest: options of `guest add`; count: of fronts; channel: theirs."""
    def make(far="front", guest="", count=2, before=(), channel="snet", mtu=1500):
        ends = [make_netns(f"n{n}") for n in range(1, count + 1)]
        commands = [*before, "bridge add br0"]
        fronts = range(1, count + 1) if far == "front" else [1]
        for n in fronts:
            commands.append(f"guest add p{n} {channel}={folder}/p{n}.sock {guest} bridge=br0")
        if far == "tap":
            commands.append(f"uplink add p2 tap=eth0 netns={ends[1].netns} mtu={mtu} bridge=br0")
        if far in ("af-packet", "af-xdp"):
            nics = make_netns("nics")
            nics.run(f"ip link add nic2 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {ends[1].netns}; ip link set nic2 up")
            commands.append(f"uplink add p2 {far}=nic2 netns={nics.netns} bridge=br0")
        vifd = start_vifd(*commands)
        connect = "--connect" if channel == "snet" else "--vhost-user"
        started = [start_front(f"p{n}", connect, f"{folder}/p{n}.sock", "--netns", ends[n - 1].netns,
                               "--ip", f"10.79.0.{n}/24", "--ip", f"fd79::{n}/64") for n in fronts]
        if far != "front":
            ends[1].address("eth0", "10.79.0.2/24", "fd79::2/64")
        ends[0].ping("10.79.0.2")
        return Lan(vifd, ends, started)
    return make


def link(end):
    """The interface: its index, MTU, MAC and addresses."""
    text = end.run("ip address show dev eth0")
    return {"index": int(text.split(":")[0]), "mtu": int(re.search(r"mtu (\d+)", text)[1]),
            "mac": re.search(r"link/ether (\S+)", text)[1],
            "addresses": sorted(re.findall(r"inet6? (\S+) .*scope global", text)),
            "carrier": "NO-CARRIER" not in text}


# ---- packets ----

@pytest.mark.parametrize("channel, guest", [("snet", "trust=isolated"), ("snet", "trust=shared"), ("vhost-user", "")])
@pytest.mark.parametrize("far", ["front", "tap", "af-xdp"])
def test_carries_unchanged(make_lan, far, channel, guest):
    vifd, (one, two), _ = make_lan(far, guest, channel=channel)
    for address in FAMILIES:
        tcp_copy(one, two, address.format(2), 64 * MIB)
        tcp_copy(two, one, address.format(1), 64 * MIB)
        sizes = [1, 17, 18, 1000, 1400, 1472, 1473, 9000, 40000, 65000]
        udp_echo(one, two, address.format(2), sizes)
        udp_echo(two, one, address.format(1), sizes)
    stats = vifd.stats("p1")
    # 64 KiB cross whole (S33).
    assert stats["recv_gso_packets"] > 1000
    if far != "af-xdp":
        assert stats["recv_bytes"] / stats["recv_packets"] > 4000
        assert stats["send_gso_packets"] > 1000 and stats["segmented_packets"] == 0
    assert all(guest["breaks"] == 0 for guest in vifd.ctl("show guests"))


@pytest.mark.parametrize("before", [(), ("set workers=2",)])
def test_three_at_once(make_lan, before):
    _, (one, two, three), _ = make_lan(count=3, before=before)
    failures = []

    def copy(*args):
        try:
            tcp_copy(*args)
        except Exception as error: # pylint: disable=broad-except
            failures.append(error)
    copies = [threading.Thread(target=copy, args=args) for args in (
        (one, two, "10.79.0.2", 64 * MIB), (two, three, "fd79::3", 64 * MIB), (three, one, "10.79.0.1", 64 * MIB))]
    for thread in copies:
        thread.start()
    for thread in copies:
        thread.join()
    assert not failures


@pytest.mark.parametrize("channel", ["snet", "vhost-user"])
def test_front_without_offload(make_lan, channel):
    vifd, (one, two), _ = make_lan(guest="offload=off", channel=channel)
    features = one.run("ethtool -k eth0")
    assert "tcp-segmentation-offload: off" in features and "tx-checksumming: off" in features
    tcp_copy(one, two, "10.79.0.2", 16 * MIB)
    assert vifd.stats("p1")["recv_gso_packets"] == 0


@pytest.mark.parametrize("channel", ["snet", "vhost-user"])
def test_rests_when_idle(make_lan, channel):
    _, _, fronts = make_lan(channel=channel)
    eventually(lambda: False, 0.5)
    before = [Path(f"/proc/{front.process.pid}/schedstat").read_text().split()[0] for front in fronts]
    time.sleep(1)
    after = [Path(f"/proc/{front.process.pid}/schedstat").read_text().split()[0] for front in fronts]
    for then, now in zip(before, after):
        assert int(now) - int(then) < 20e6 # ns: 2 %


# ---- what vifd says, and when it goes ----

def test_takes_mtu_and_mac_from_vifd(folder, start_vifd, make_netns, start_front):
    end = make_netns("n1")
    vifd = start_vifd("bridge add br0",
                      f"guest add p1 snet={folder}/p1.sock mtu=9000 mac=52:54:00:79:00:01 bridge=br0")
    front = start_front("p1", "--connect", f"{folder}/p1.sock", "--netns", end.netns)
    assert (link(end)["mtu"], link(end)["mac"]) == (9000, "52:54:00:79:00:01")
    vifd.stop()
    vifd.commands[-1] = f"guest add p1 snet={folder}/p1.sock mtu=1400 bridge=br0"
    vifd.start()
    assert front.says("connected again")
    assert (link(end)["mtu"], link(end)["mac"]) == (1400, "52:54:00:79:00:01")


def test_mac_and_name_of_its_own(folder, start_vifd, make_netns, start_front):
    end = make_netns("n1")
    start_vifd("bridge add br0", f"guest add p1 snet={folder}/p1.sock bridge=br0")
    front = start_front("p1", "--connect", f"{folder}/p1.sock", "--netns", f"/run/netns/{end.netns}", "--ifname", "web7",
                        "--mac", "52:54:00:79:00:77", "--cpu", 0)
    assert end.mac("web7") == "52:54:00:79:00:77"
    assert end.run(f"taskset -p {front.process.pid}").split()[-1] == "1"


def test_big_frames(make_lan):
    _, (one, _), _ = make_lan(guest="mtu=9000")
    one.run("ping -q -c 3 -i 0.05 -W 2 -s 8972 -M do 10.79.0.2")
    one.run("ping -q -c 3 -i 0.05 -W 2 -s 60000 10.79.0.2")


@pytest.mark.parametrize("how, channel", [("kill", "snet"), ("stop", "snet"), ("kill", "vhost-user")])
def test_connections_survive_vifd(make_lan, how, channel):
    vifd, (one, two), fronts = make_lan(channel=channel)
    before = [link(end) for end in (one, two)]
    done = []
    copy = threading.Thread(target=lambda: done.append(tcp_copy(one, two, "10.79.0.2", 1024 * MIB)), daemon=True)
    copy.start()
    for times in (1, 2, 3):
        time.sleep(0.3)
        assert copy.is_alive()
        getattr(vifd, how)()
        assert all(front.says("waiting", times) for front in fronts)
        assert not link(one)["carrier"]
        vifd.start()
        assert all(front.says("connected again", times) for front in fronts)
    copy.join(60)
    assert done == [None]
    assert [link(end) for end in (one, two)] == before


def test_front_is_killed_under_traffic(make_lan):
    vifd, (one, two, three), fronts = make_lan(count=3)
    one.spawn("ping -f -s 20000 10.79.0.2")
    two.spawn("ping -f -s 1000 10.79.0.1")
    for _ in range(5):
        time.sleep(0.1)
        fronts[1].kill()
        assert "eth0" not in two.run("ip link")
        three.run("ping -q -c 3 -i 0.05 -W 2 10.79.0.1") # the others are served
        fronts[1].start()
        one.ping("10.79.0.2")
    tcp_copy(one, two, "10.79.0.2", 16 * MIB)
    tcp_copy(two, three, "10.79.0.3", 16 * MIB)
    assert all(guest["breaks"] == 0 for guest in vifd.ctl("show guests"))


def test_waits_for_a_vifd_that_is_not_there(folder, start_vifd, make_netns, start_front):
    end = make_netns("n1")
    front = start_front("p1", "--connect", f"{folder}/p1.sock", "--netns", end.netns, "--ip", "10.79.0.1/24", ready=False)
    assert front.says("no vifd is listening there; waiting")
    start_vifd("bridge add br0", f"guest add p1 snet={folder}/p1.sock bridge=br0")
    assert front.says("vif-front: ready")
    assert link(end)["addresses"] == ["10.79.0.1/24"]


# ---- ends ----

def test_leaves_nothing_behind(make_lan):
    vifd, (one, two), fronts = make_lan()
    fronts[0].stop()
    assert "eth0" not in one.run("ip link")
    vifd.stop()
    assert fronts[1].says("waiting")
    fronts[1].stop() # while vifd is away
    assert "eth0" not in two.run("ip link")


def test_interface_is_deleted(make_lan):
    _, (one, _), fronts = make_lan()
    one.run("ip link del eth0")
    assert fronts[0].process.wait(5) == 1
    assert "interface 'eth0' has been deleted" in fronts[0].log()


def test_second_front_is_told_why_not(make_lan, folder):
    _, (one, _), fronts = make_lan()
    began = time.monotonic()
    done = subprocess.run([program("front/vif-front"), "--connect", f"{folder}/p1.sock", "--ifname", "other", "--netns",
                           one.netns], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert f"another front end is connected there, pid {fronts[0].process.pid}" in done.stderr
    assert time.monotonic() - began < 1.5 # at once, but for starting it
    assert "other" not in one.run("ip link")
    one.run("ping -q -c 3 -i 0.05 -W 2 10.79.0.2")


@pytest.mark.parametrize("options, status, sentence", [
    ("", 2, "--connect is missing"),
    ("--connect x --vhost-user y", 2, "exclude each other"),
    ("--connect x more", 2, "unexpected argument more"),
    ("--connect x --ip 10.0.0.256/24", 2, "not 10.0.0.256/24"),
    ("--connect x --ip 10.0.0.1/33", 2, "not 10.0.0.1/33"),
    ("--connect x --ip fd00::1/", 2, "not fd00::1/"),
    ("--connect x --mac 01:00:00:00:00:01", 2, "not 01:00:00:00:00:01"),
    ("--connect x --cpu many", 2, "not many"),
    ("--no-such-option", 2, "--help"),
    ("--connect x --netns no-such", 1, "no network namespace 'no-such'"),
    ("--connect x --ifname lo", 1, "'lo' exists"),
    ("--connect x --ifname sixteen-letters-", 1, "1 to 15 characters"),
    ("--connect x --ifname no/name", 1, "'no/name' cannot be the name"),
    ("--connect /dev/null --ifname vifx%d", 1, "/dev/null: not a socket"),
    ("--vhost-user /dev/null --ifname vifx%d", 1, "/dev/null: not a socket"),
    ("--connect " + 120 * "x" + " --ifname vifx%d", 1, "longer than 107 characters"),
    ("--help", 0, "Usage: vif-front"),
    ("--version", 0, "vif-front "),
])
def test_says_what_is_wrong(options, status, sentence):
    done = subprocess.run([program("front/vif-front"), *options.split()], capture_output=True, text=True, timeout=10,
                          check=False)
    assert (done.returncode, sentence in done.stdout + done.stderr) == (status, True), done


def test_the_manual_has_every_option():
    manual = (ROOT / "docs/man/vif-front.1").read_text().replace("\\-", "-")
    usage = subprocess.run([program("front/vif-front"), "--help"], capture_output=True, text=True, check=True).stdout
    for option in re.findall(r"--[a-z]+[a-z-]*", usage):
        assert option in manual, option


# ---- the examples ----

@contextlib.contextmanager
def running(*command):
    with subprocess.Popen(with_parent(command), stdout=subprocess.DEVNULL) as process:
        yield process
        process.terminate()


@pytest.mark.parametrize("size", [60, 1514])
def test_examples(folder, start_vifd, size):
    paths = [f"{folder}/p{n}.sock" for n in (1, 2)]
    start_vifd("bridge add br0", *(f"guest add p{n} snet={path} bridge=br0" for n, path in enumerate(paths)))
    with running(program("front/snet-pingpong"), "--connect", paths[1], "--reflect"):
        printed = subprocess.check_output([program("front/snet-pingpong"), "--connect", paths[0], "--size", str(size),
                                           "--count", "2000"], text=True, timeout=30)
    assert re.match(rf"{size} bytes, 2000 round trips: p50 .* 0 lost$", printed)
    printed = subprocess.check_output([program("front/snet-gen"), "--from", paths[0], "--to", paths[1], "--size", str(size),
                                       "--seconds", "1"], text=True, timeout=30)
    assert int(re.search(r"received (\d+)", printed)[1]) > 10000 and " bad 0 " in printed
