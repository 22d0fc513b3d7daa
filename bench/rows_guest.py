# SPDX-License-Identifier: BSD-3-Clause
"""The guest rows: real virtual machines with their kernel's own driver, behind vifd and behind Open vSwitch-DPDK.

      guest a ── vhost-user ──┐                      guest a ── vhost-user ──┐
      guest b ── vhost-user ──┼── vifd               guest b ── vhost-user ──┼── ovs-dpdk-tso
      wire    ── TAP ─────────┘                      wire    ── TAP ─────────┘

Both sets, of the demo's guests, run side by side, and one TCP stream at a time crosses one of them; Open vSwitch,
which polls, stands still (SIGSTOP) while it is vifd's turn. Open vSwitch gets a CPU for its polling thread, as it
must have; its guests and the far end of its wire share the other one. vifd needs no CPU of its own, so that its
guests, its wire and itself may use both.
"""

import concurrent.futures
import shlex
import sys

from host import Host, run, wait_for
from results import Bar, Row, Sample
from stations import Placement, classify
from switches import (GENERATOR_CPU, OVS_DPDK, OVS_DPDK_MIB, ROOT, SWITCH_CPU, TAP_MIB, OpenVSwitch, Vifd,
                      end_up, has_interface)

sys.path.insert(0, str(ROOT / "tests"))

from lib.guest import Guest, accelerator, build_image  # noqa: E402
from lib.traffic import Wire, iperf, serve  # noqa: E402

ADDRESS = {"a": "10.77.0.1", "b": "10.77.0.2", "wire": "10.77.0.3"}
PATHS = {"guest-to-wire": ("a", "wire"), "wire-to-guest": ("wire", "a"), "guest-to-guest": ("a", "b")}
BARS = {"guest-to-wire": 1.0, "wire-to-guest": 1.0, "guest-to-guest": 1.5}
ROWS = list(PATHS)
PEER = "ovs-dpdk-tso"


class OvsDpdkTso(OpenVSwitch):
    """Open vSwitch-DPDK with userspace TSO. A guest's socket must be QEMU's: only so does it offer TSO to guests."""

    def __init__(self, host, sockets, tap):
        super().__init__(host, PEER, pmd_cpu_mask=hex(1 << SWITCH_CPU), userspace_tso_enable="true",
                         **OVS_DPDK)
        self.sockets = sockets
        for i, path in enumerate(sockets):
            self.vsctl("add-port", "br0", f"vhu{i}", "--", "set", "interface", f"vhu{i}",
                       "type=dpdkvhostuserclient", f"options:vhost-server-path={path}")
        self.vsctl("add-port", "br0", tap, "--", "set", "interface", tap, "type=internal")


class PinnedWire(Wire):
    """A wire whose commands stay on one CPU."""

    @staticmethod
    def pinned(command):
        """The same shell command, on that CPU."""
        return f"exec taskset -c {GENERATOR_CPU} sh -c {shlex.quote(command)}"

    def run(self, command, *args, **kwargs):
        return super().run(self.pinned(command), *args, **kwargs)

    def spawn(self, command, *args, **kwargs):
        super().spawn(self.pinned(command), *args, **kwargs)


class Set:
    """A switch, and by name the three ends around it."""

    def __init__(self, switch, wire):
        self.switch = switch
        self.ends = {"wire": wire}

    def boot(self, host, **how):
        """Start the two guests, and wait for them."""
        for i, (name, path) in enumerate(zip(("a", "b"), self.switch.sockets)):
            guest = Guest(f"{self.switch.name}-{name}", path, host.dir, mac=f"52:54:00:77:00:0{i + 1}",
                          **how)
            host.callback(guest.stop)
            self.ends[name] = guest
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(Guest.wait, (self.ends["a"], self.ends["b"])))

    def settle(self):
        """Wait until the guests have their addresses and everyone reaches everyone."""
        for name in ("a", "b"):
            self.ends[name].address(f"{ADDRESS[name]}/24")
        for end in self.ends.values():
            serve(end)
        for name in ("a", "b"):
            for other in ADDRESS.keys() - {name}:
                self.ends[name].ping(ADDRESS[other])

    def gbps(self, source, sink, seconds):
        """What one TCP stream carries."""
        received = iperf(self.ends[source], ADDRESS[sink], seconds)["end"]["sum_received"]
        return received["bits_per_second"] / 1e9


def start_vifd(host):
    """vifd's set."""
    vifd = Vifd(host, guests=2)
    netns = host.netns("wire")
    vifd.ctl("uplink", "add", "wire", "tap=wire0", f"netns={netns}", "bridge=br0")
    return Set(vifd, take_wire(host, netns, "wire0", Wire))


def start_ovs(host):
    """Open vSwitch's set. The TAP is born in the switch's namespace and moves to the wire's."""
    ovs = OvsDpdkTso(host, [host.dir / f"qemu-{i}.sock" for i in range(2)], "wire0")
    netns = host.netns("ovs-wire")
    wait_for("ovs-dpdk-tso: its TAP", lambda: has_interface(ovs.netns, "wire0"), ovs.process)
    run("ip", "-n", ovs.netns, "link", "set", "wire0", "netns", netns)
    return Set(ovs, take_wire(host, netns, "wire0", PinnedWire))


def take_wire(host, netns, interface, kind):
    """The wire's end of an uplink."""
    end_up(netns, interface, ADDRESS["wire"])
    wire = kind(netns, host.dir)
    host.callback(wire.stop)
    return wire


def rows(wanted, options, say):
    """Measure the wanted rows of this group."""
    seconds, rounds = (3, 2) if options.quick else (4, 7)
    samples = {}
    build_image()
    with Host() as host:
        host.hugepages(OVS_DPDK_MIB + TAP_MIB)
        say(f"guest: booting two guests ({accelerator()}) on vifd and two on {PEER}")
        sets = [start_vifd(host), start_ovs(host)]
        sets[0].boot(host)
        sets[1].boot(host, listen=True, affinity=[GENERATOR_CPU])
        sets[1].settle()
        sets[1].switch.pause()
        sets[0].settle()
        sets[0].switch.pause()
        placement = Placement(host)
        for done in range(rounds):
            for row in wanted:
                source, sink = PATHS[row]
                for each in sets[::-1] if done % 2 else sets:
                    before = placement.probe()
                    each.switch.resume()
                    gbps = each.gbps(source, sink, seconds)
                    each.switch.pause()
                    samples.setdefault((row, each.switch.name), []).append(
                        Sample(gbps, classify(before, placement.probe())))
                say(f"{row} round {done + 1}/{rounds}: " + ", ".join(
                    f"{each.switch.name} {samples[(row, each.switch.name)][-1].value:.2f} Gb/s"
                    for each in sets))
        for each in sets:
            each.switch.resume()
    return [Row(row, PEER, "Gb/s", True, samples[(row, "vifd")], samples[(row, PEER)],
                Bar(BARS[row])) for row in wanted]
