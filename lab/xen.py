# SPDX-License-Identifier: BSD-3-Clause
"""M10 to M12 and M17 on a real Xen: what the ways of a guest's packets cost a driver domain, beside the kernel's back end, and
what global pages do to its TLB.

    netback              guest 10.0.0.2 ── netfront ── xen-netback ── xenbr0, dom0's 10.0.0.1
    copy, header, map    guest 10.0.0.2 ── netfront ── vifd, `xen tx=...` ── br0 ── TAP ── namespace wire 10.0.0.1

Theory of operation. Debian's Xen, dom0 and a PV guest run in an emulated machine, where seconds mean little, but counts are
those of any machine: a plug-in of the emulator counts what dom0's CPU executes, with what Xen does for it, while iperf3 in
dom0 sends so many bytes to the guest and gets as many from it. All configurations take turns in one boot: the guest's
device is attached to each of them anew.

The second boot has Xen's global pages switched on, which Xen has off by default. With them each switch between a PV
guest's kernel and its programs leaves the kernel's entries in the TLB; each switch between domains flushes them by two
writes to CR4 (M17). Switches to the idle domain and back flush nothing (M18), as they do in neither.
"""
from lib.xen import NETBACK, VIFD, Dom0
from rows import bar, interleave, row

TITLE = "Channels of a guest on a real Xen (M10, M11, M12), and global pages (M17)"
BASE = "netback"
BASES = {"M17": "netback, off"}

WIRE = "10.0.0.1"
WAYS = ("to guest", "from guest")
# vifd's configurations -> the paper's
MODES = {"copy": "M12", "header": "M11", "map": "M10"}
# metric -> unit, and how a lib.xen.Cost has it
METRICS = {"instructions/byte": ("", "insns"), "hypercalls": ("", "hypercalls"), "grant hypercalls": ("", "grant"),
           "CR3 writes": ("", "cr3"), "system calls": ("", "syscalls")}
FLUSHES = {"CR3 writes": lambda cost: cost.cr3, "CR4 writes": lambda cost: cost.cr4,
           "TLB flushes": lambda cost: cost.cr3 + cost.cr4}

NOTES = ("Of dom0's CPU, Xen's work for it included; iperf3 is part of it, the guest has another CPU. Counted by a plug-in of",
         "the emulator. copy: the whole packet by grant copy; header: its first bytes, and the rest when it is known where it",
         "goes; map: first bytes copied, the rest mapped and unmapped. In a PV domain a system call is two writes to CR3.",
         "Global pages: counts of writes that flush the TLB. Only their cost shows here, two writes to CR4 for each switch",
         "between domains: the emulator empties its TLB at each write to CR3 whether an entry is global or not, so that there",
         "are no misses to be saved. What they save on a TLB that honours the bit is in figure 9's rows, which are of models.")
WHY_MORE = ("A program in a PV domain pays two writes to CR3 and an iret hypercall for each system call, and the kernel's back end "
            "makes none: a packet from the TAP is one, as is what goes there, and each burst has one for its copies, one for "
            "its notification. TCP's acknowledgements let two or three packets come at a time, so that bursts are short. The "
            "TAP's own copy, and that into pages that the hypervisor finds without the kernel, are the instructions.")


class Lab:
    """One boot."""

    def __init__(self, lab, name, megabytes, xen=""):
        self.megabytes = megabytes
        self.dom0 = lab.stack.enter_context(Dom0(lab.folder, name=name, xen=xen, counts=True))
        self.guest = self.dom0.create("pv", "pv", "10.0.0.2")
        self.wire = self.dom0.netns("wire")
        self.wire.run("/bin/ip tuntap add wire0 mode tap vnet_hdr")
        self.wire.address(f"{WIRE}/24", interface="wire0")

    def sample(self, config):
        """{way: Cost} of a configuration, from nothing."""
        if config == BASE:
            return self.netback()
        vifd = self.dom0.vifd("bridge add br0", "uplink add wire tap=wire0 netns=wire bridge=br0", f"xen tx={config} bridge=br0")
        costs = self.costs(VIFD, self.wire)
        vifd.stop()
        return costs

    def netback(self):
        self.dom0.start_netback(f"{WIRE}/24")
        costs = self.costs(NETBACK, self.dom0)
        self.dom0.stop_netback()
        return costs

    def costs(self, vif, end):
        self.guest.attach(vif)
        costs = self.guest.iperf_costs(end, WIRE, self.megabytes)
        self.guest.detach()
        return costs


class Samples(dict):
    """{way: Cost}, in few words."""

    def __str__(self):
        return "; ".join(f"{way}: {cost.insns:.2f} insn/byte, {cost.hypercalls} hypercalls, {cost.cr3} CR3, {cost.cr4} CR4"
                         for way, cost in self.items())


def measure(lab, name, configs, rounds, megabytes, xen=""):
    """Boot and measure; {config: [{way: Cost}]}."""
    lab.say(f"xen: booting {name}")
    one = Lab(lab, name, megabytes, xen)
    samples = interleave(rounds, configs, lambda config: Samples(one.sample(config)), lambda text: lab.say(f"xen: {text}"))
    one.dom0.stop()
    return samples


def channel_rows(samples, megabytes):
    rows = []
    for config, costs in samples.items():
        for way in WAYS:
            for metric, (unit, attribute) in METRICS.items():
                rows.append(row("M11", config, f"{metric}, {way}, {megabytes} MiB", unit, None,
                                [getattr(cost[way], attribute) for cost in costs]))
    return rows


def channel_bars(samples, explain):
    """The default mode beside the kernel's back end, round by round."""
    bars = []
    for way in WAYS:
        for metric, most in (("instructions/byte", 1.2), ("hypercalls", 1), ("CR3 writes", 2)):
            attribute = METRICS[metric][1]
            ours, theirs = ([getattr(cost[way], attribute) for cost in samples[config]] for config in ("copy", BASE))
            one = bar("M11", "copy", f"{metric}, {way}", ours, base=(BASE, theirs), most=most)
            explain(one, WHY_MORE)
            bars.append(one)
    return bars


def flush_rows(samples, state):
    return [row("M17", f"{config}, {state}", metric, "", None, [sum(value(cost[way]) for way in WAYS) for cost in costs])
            for config, costs in samples.items() for metric, value in FLUSHES.items()]


def run(lab):
    """Run the experiment; its rows."""
    rounds, megabytes = (3, 32) if lab.quick else (5, 128)
    off = measure(lab, "off", [BASE, *MODES], rounds, megabytes)
    on = measure(lab, "on", [BASE, "copy"], rounds, megabytes, "global-pages=on")
    lab.notes += NOTES
    lab.bars += channel_bars(off, lab.explain)
    return (channel_rows(off, megabytes) + flush_rows({config: off[config] for config in on}, "off") + flush_rows(on, "on"))
