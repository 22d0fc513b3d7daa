# SPDX-License-Identifier: BSD-3-Clause
"""The TAP rows: one TCP stream between two namespaces, through a switch with a TAP in each.

      namespace A                     the switch                    namespace B
      iperf3 -c ── TCP/IP ── tap0 ── user space or kernel ── tap1 ── TCP/IP ── iperf3 -s

Nothing is pinned: sender, switch and receiver share the CPUs as the scheduler likes. Every switch is measured once
a round, all others standing still. The price of a byte is the switch process's user and system time over the bytes
that the receiver got; system time holds what the stream costs inside a TAP's write, up to the receiving socket.
"""

import json

from host import BenchError, Host, run, wait_for
from results import Bar, Row, Sample
from stations import Placement, classify
from switches import (ADDRESSES, KernelBridge, OvsNetdev, OvsNetdevTso, OVS_DPDK_MIB, TAP_MIB, TapFwd,
                      VdeSwitch, Vifd)

PEERS = (VdeSwitch, OvsNetdev, OvsNetdevTso, TapFwd, KernelBridge)
BARS = {"tap-tcp": {"vde_switch": 5.0, "ovs-netdev": 5.0, "ovs-netdev-tso": 1.0, "tapfwd": 0.9},
        "tap-cpu-per-byte": {"ovs-netdev-tso": 0.8}}
ROWS = list(BARS)


def start(host):
    """All the switches, standing still, with a server at the far end of each."""
    switches = [Vifd(host, taps=True)] + [peer(host) for peer in PEERS]
    for switch in switches:
        (near, _), (far, address) = switch.ends
        server = host.spawn(f"iperf3-{switch.name}", "iperf3", "-s", netns=far)
        wait_for("iperf3", lambda netns=far: ":5201" in run("ss", "-Hltn", netns=netns), server)
        wait_for(f"{switch.name}: a ping across", lambda netns=near, to=address: pings(netns, to),
                 switch.process)
        switch.pause()
    return switches


def pings(netns, address):
    """Does the other end answer?"""
    try:
        run("ping", "-c1", "-W1", address, netns=netns)
    except BenchError:
        return False
    return True


def sample(switch, seconds):
    """One stream: Gb/s that arrived, and what the switch spent on a byte in ns (None: unknown)."""
    before = switch.cpu_seconds()
    report = json.loads(run("iperf3", "-c", ADDRESSES[1], "-t", seconds, "-J",
                            netns=switch.ends[0][0]))
    after = switch.cpu_seconds()
    got = report["end"]["sum_received"]
    cost = None if before is None else (after - before) * 1e9 / got["bytes"]
    return got["bits_per_second"] / 1e9, cost


def rows(wanted, options, say):
    """Measure the wanted rows of this group."""
    seconds, rounds = (2, 3) if options.quick else (3, 9)
    speed, price = {}, {}
    with Host() as host:
        host.hugepages(OVS_DPDK_MIB + 2 * TAP_MIB)
        say("tap: starting " + ", ".join(["vifd"] + [peer.__name__ for peer in PEERS]))
        switches = start(host)
        placement = Placement(host)
        for done in range(rounds):
            cells = []
            for switch in switches[::-1] if done % 2 else switches:
                before = placement.probe()
                switch.resume()
                gbps, cost = sample(switch, seconds)
                switch.pause()
                where = classify(before, placement.probe())
                speed.setdefault(switch.name, []).append(Sample(gbps, where))
                if cost is not None:
                    price.setdefault(switch.name, []).append(Sample(cost, where))
                cells.append(f"{switch.name} {gbps:.1f} Gb/s" +
                             ("" if cost is None else f" {cost:.2f} ns/B"))
            say(f"tap round {done + 1}/{rounds}: " + ", ".join(cells))
        for switch in switches:
            switch.resume()
    return [row for name in wanted for row in
            (compare(name, "Gb/s", True, speed) if name == "tap-tcp" else
             compare(name, "ns/byte", False, price))]


def compare(name, unit, higher_is_better, samples):
    """A row for each peer that has samples."""
    bars = BARS[name]
    return [Row(name, peer, unit, higher_is_better, samples["vifd"], samples[peer],
                Bar(bars[peer]) if peer in bars else None)
            for peer in samples if peer != "vifd"]
