# SPDX-License-Identifier: BSD-3-Clause
"""The AF_XDP row: from a guest out to a wire and back, by way of an uplink on the one end of a veth pair.

        CPU 0                  CPU 1, one of them at a time
      gen: port 0 ── vhost-user ── vifd ────── AF_XDP ── nic0 ══ veth ══ far0, reflect
           port 1 ── vhost-user ── ovs-afxdp ─ AF_XDP ── nic0 ══ veth ══ far0, reflect

The far end turns every frame round in its driver (reflect.c). Both ends of a veth pair work on the CPU that sends,
so that CPU 1 carries the kernel's part of both directions beside the switch, and the far end's. Interleaving and
placement are those of the vhost rows.
"""

import subprocess
import time

from host import BenchError, Host, answer, run, wait_for
from results import DISTURBED, Bar, Row
from rows_vhost import (RAMP_MS, SAMPLE_MS, Series, bad_frames, enough, spent,
                        stage_medians, undisturbed)
from stations import GENERATOR_MIB, Generator, Placement, classify
from switches import OVS_DPDK, OVS_DPDK_MIB, SWITCH_CPU, TOOLS, OpenVSwitch, Vifd

LOAD, SIZE = "64", 64
UMEM_MIB = 8 # what vifd takes of the huge pages, for its AF_XDP socket
BARS = {"afxdp-pps-64": 1.5}
ROWS = list(BARS)


def wire(host, netns, name):
    """A veth pair: nic0 in a namespace for a switch to take, and behind it a station that sends everything back."""
    far = host.netns(f"{name}-far")
    run("ip", "-n", netns, "link", "add", "nic0", "type", "veth", "peer", "name", "far0", "netns", far)
    run("ip", "-n", netns, "link", "set", "nic0", "up")
    run("ip", "-n", far, "link", "set", "far0", "up")
    answer(host.spawn(f"reflect-{name}", TOOLS / "reflect", "far0", netns=far,
                      stdout=subprocess.PIPE, text=True))


class VifdXdp(Vifd):
    """vifd with a guest and an AF_XDP uplink."""

    def __init__(self, host):
        super().__init__(host, guests=1, cpu=SWITCH_CPU)
        netns = host.netns("vifd-nic")
        wire(host, netns, self.name)
        self.ctl("uplink", "add", "wire", "af-xdp=nic0", f"netns={netns}", "bridge=br0")

    def uplink(self):
        """What it got of AF_XDP's modes."""
        return ", ".join(self.ctl("show", "uplinks")[0]["got"])


class OvsXdp(OpenVSwitch):
    """Open vSwitch-DPDK with a vhost-user and an AF_XDP port, both served by a polling thread on its own CPU."""

    def __init__(self, host):
        super().__init__(host, "ovs-afxdp", pmd_cpu_mask=hex(1 << SWITCH_CPU), **OVS_DPDK)
        wire(host, self.netns, self.name)
        self.vsctl("add-port", "br0", "vhu0", "--", "set", "interface", "vhu0", "type=dpdkvhostuser")
        self.vsctl("add-port", "br0", "nic0", "--", "set", "interface", "nic0", "type=afxdp")
        self.sockets = [self.dir / "vhu0"]
        wait_for("ovs-afxdp: its socket", self.sockets[0].exists, self.process)
        error = self.vsctl("get", "interface", "nic0", "error").strip()
        if error != "[]":
            raise BenchError(f"ovs-afxdp: {error}")

    def uplink(self):
        """What it got of AF_XDP's modes."""
        return self.appctl("dpctl/show").partition("xdp-mode-in-use=")[2].split(")")[0]


def sample(switch, generator, port):
    """One sample of a switch that was just set going: its figures, and whether it was disturbed."""
    wait_for(f"{switch.name}: a packet there and back",
             lambda: generator.command("echo", port, SIZE, 5)["received"], switch.process)
    generator.command("echo", port, SIZE, RAMP_MS)
    before = switch.ctl("profile") if isinstance(switch, Vifd) else None
    got, disturbed = undisturbed(switch, generator, "echo", port, SIZE, SAMPLE_MS)
    figures = {"mpps": got["received"] / got["seconds"] / 1e6, "bad": got["bad"]}
    if before:
        figures.update(spent(before, switch.ctl("profile")))
    return figures, disturbed


def measure(options, say):
    """Take rounds of samples, until there are enough near ones or time is up: the Series, and the uplinks."""
    series, rounds, done = Series(), 5 if options.quick else 15, 0
    with Host() as host:
        host.hugepages(GENERATOR_MIB + OVS_DPDK_MIB + UMEM_MIB)
        say("afxdp: starting vifd, ovs-afxdp and the generator")
        switches = [VifdXdp(host), OvsXdp(host)]
        uplinks = {switch.name: switch.uplink() for switch in switches}
        generator = Generator(host, [path for switch in switches for path in switch.sockets])
        placement = Placement(host)
        for switch in switches:
            switch.pause()
        end = time.monotonic() + options.minutes * 60
        while time.monotonic() < end and not enough(series, [LOAD], switches, rounds, done):
            order = list(enumerate(switches))
            take_round(series, order[::-1] if done % 2 else order, generator, placement)
            done += 1
            say(f"afxdp round {done}/{rounds}: " + ", ".join(
                told(switch.name, *series.samples[(LOAD, switch.name)][-1]) for switch in switches))
        for switch in switches:
            switch.resume()
    return series, uplinks


def take_round(series, order, generator, placement):
    """One sample of every switch; order is of (port of the generator, switch)."""
    before = placement.probe()
    for port, switch in order:
        switch.resume()
        figures, disturbed = sample(switch, generator, port)
        switch.pause()
        after = placement.probe()
        series.add(LOAD, switch.name, DISTURBED if disturbed else classify(before, after), figures)
        before = after


def told(name, placement, figures):
    """A sample in words."""
    return f"{name} {figures['mpps']:.3f} Mpps {placement}" + (" BAD FRAMES" if figures["bad"] else "")


def rows(wanted, options, say):
    """Measure the row."""
    series, uplinks = measure(options, say)
    extra = {**bad_frames(series, LOAD), "stages": stage_medians(series, LOAD), "uplinks": uplinks}
    return [Row(name, "ovs-afxdp", "Mpps", True, series.of(LOAD, "vifd", "mpps"),
                series.of(LOAD, "ovs-afxdp", "mpps"), Bar(BARS[name]), extra) for name in wanted]
