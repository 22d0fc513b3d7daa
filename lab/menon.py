# SPDX-License-Identifier: BSD-3-Clause
"""Table 1 and figures 3 to 6, 8, 10, 11 and 13 of "Optimizing Network Virtualization in Xen" (M3, M5, M25 to M37): TCP streams
that a guest, the driver domain and Linux send and receive, one for each NIC, and what each of the paper's optimisations adds.
The hosts are drawn in menon_hosts.py.

    what the paper leaves out or adds   here
    superpages (sp)                     `set pages=best` against `pages=4k`
    I/O channel (ioc), to send          `guest add ... channel=zones` against channel=flip: pages mapped for each packet
    I/O channel, to receive (copy)      the same: pages that change hands, are remapped and zeroed
    high-level interface (high)         `offload=on` against `offload=off`
    MTU-sized buffers (MTU)             `uplink add ... buffers=mtu` against `buffers=page`: a page each, zeroed

Theory of operation. The paper saturates the one CPU of its server and counts what gets through, and where its cycles go
by domain. So here: CPU time of program and vif-front, in which the guest's kernel runs, is the guest's; that of vifd the
driver domain's. What the hypervisor did in the paper is done by Linux here, and taken out of both: system calls that map
and unmap (vifd takes their time itself, src/guest/snet_remap.c), and each wake-up with the switch that it leads to, at
the price that wake_cost.c finds. All of it is by bytes acknowledged.

Guests are namespaces, so that nothing is emulated. Their kernel is today's: above a NIC that cannot segment it cuts its packets
late by itself (GSO), as the paper's software offload driver does, which the paper's Linux 2.6.11 could not. `none, no GSO` is
without; no bar counts on that.

An idle CPU does not halt meanwhile (/dev/cpu_dma_latency): a NIC takes a packet without being woken by an interrupt, which in a
virtual machine the sender has to pay for.
"""
import os
import statistics
import struct
import time
from collections import namedtuple
from contextlib import ExitStack

from cpus import HOST_CPU, WIRE_CPU, need_two_cpus
from menon_hosts import RECEIVED_FROM, SENT_TO, Driver, Guest, Linux, Wires, run_in_turn, wake_cost
from rows import bar, interleave, number, row
from tcp import Connection

TITLE = "Table 1, figures 3 to 6, 8, 10, 11 and 13 (M3 to M37): guest, driver domain and Linux, one TCP stream for each NIC"
BASE = "none"
BASES = {"M3": "Linux", "M5": None, "M25": "guest", "M26": "guest", "M31": "high", "M34": "driver-none", "M37": "flip"}

WIRES, SIZE = 4, 65536 # as the paper has them
RAMP = 0.25 # seconds for the streams to get going
STAGES = ("channel", "header", "bridge", "offload", "copy", "uplink")

# Configuration -> host, what the program at it calls (figure 10: write), whether its kernel may use GSO.
Case = namedtuple("Case", "host verb gso", defaults=("sendfile", True))
GUESTS = ("none", "sp", "ioc", "high", "high-ioc", "high-ioc-sp")
SENDS = {"Linux": Case("Linux"), "driver": Case("driver-none"), "driver-opt": Case("driver-MTU-SP"),
         **{name: Case(name) for name in GUESTS}, "none, no GSO": Case("none", gso=False)}
WRITES = {name: Case(name, "write") for name in GUESTS}
RECEIVES = {**{name: Case(name) for name in ("Linux", "driver-none", "driver-MTU", "driver-MTU-SP")},
            "flip": Case("high"), "copy": Case("high-ioc"), "copy-SP": Case("high-ioc-sp")}

# Row's ID -> what is done, and its configurations: theirs above, the paper's Mb/s
THROUGHPUT = {
    "M3": {"send": {"Linux": ("Linux", 3760), "driver": ("driver", 3760), "guest": ("none", 750)},
           "receive": {"Linux": ("Linux", 2508), "driver": ("driver-none", 1738), "guest": ("flip", 820)}},
    "M25": {"send": {"Linux": ("Linux", 3760), "driver": ("driver", 3760), "driver-opt": ("driver-opt", 3760),
                     "guest": ("none", 750), "guest-opt": ("high-ioc-sp", 3310)}},
    "M26": {"receive": {"Linux": ("Linux", 2508), "driver": ("driver-none", 1738), "driver-opt": ("driver-MTU-SP", 2343),
                        "guest": ("flip", 820), "guest-opt": ("copy-SP", 970)}},
    "M28": {"send": {**{name: (name, mbps) for name, mbps in zip(GUESTS, (750, 766, 806, 2794, 3230, 3310))},
                     "none, no GSO": ("none, no GSO", None)}},
    "M33": {"write": {**{name: (name, None) for name in GUESTS}, "high-ioc-sp": ("high-ioc-sp", 1848)}},
    "M34": {"receive": {"Linux": ("Linux", 2508), "driver-none": ("driver-none", 1738), "driver-MTU": ("driver-MTU", 2033),
                        "driver-MTU-SP": ("driver-MTU-SP", 2301)}},
    "M37": {"receive": {"Linux": ("Linux", 2508), "flip": ("flip", 820), "copy": ("copy", 970), "copy-SP": ("copy-SP", 970)}},
}
# Row's ID -> two configurations that are sent from, and the second's cycles as a multiple of the first's, by the paper
BREAKDOWN = {"M29": (("none", "high"), {"guest": 1 / 4, "driver": 1 / 2.1, "VMM": 1 / 1.9}),
             "M31": (("high", "high-ioc"), {"guest": 1, "driver": 1, "VMM": 0.62})}
DOMAINS = ("guest", "driver", "VMM")
# Of section 2 (M5): what is done, with its configuration, and of all cycles the shares of these domains in the paper
SHARES = {"send": ("none", {("driver", "VMM"): 0.6, ("VMM",): 0.3}), "receive": ("flip", {("driver", "VMM"): 0.7, ("VMM",): 0.4})}

STANDS = {
    **dict.fromkeys(("M28", "M33", "M37"),
                    "channel=flip of `guest add` stands for the hypervisor's remaps: system calls that fill in and clear "
                    "page table entries (src/guest/snet_remap.c). Global pages have no rows: nothing switches domains."),
    **dict.fromkeys(("M5", "M29", "M31"),
                    "VMM: system calls that map and unmap, and wake-ups with the switches that they lead to, counted at "
                    "what one of them costs (lab/wake_cost.c)."),
    "M34": "A TAP with a namespace behind it is the driver domain's own stack. Global pages have no rows: nothing switches "
           "domains.",
}
NO_LIMIT = ("The paper's Linux and driver domain were limited by four NICs of a gigabit when sending; here nothing but the "
            "CPU limits them. When receiving, the driver domain's stack gets frame by frame through write() to a TAP, where "
            "the paper's driver gives it bursts; so does the guest's, and that, not the channel, is most of what receiving "
            "costs here.")
WHY = {
    **dict.fromkeys(("M3", "M25", "M26"), NO_LIMIT),
    "M5": "The paper's share of the hypervisor has its interrupts and scheduler, too; ours only what stands for remaps and "
          "wake-ups, which has become dear beside the rest.",
    "M28": "A remap is dearer than the paper's beside everything else (lab/README.md), so that the I/O channel alone gains "
           "more; the guest's kernel segments late by itself, and without that (`none, no GSO`) the high-level interface "
           "would gain more.",
    "M29": "Packets of 64 KiB spare the guest what they spared the paper's, and the others more: what is left to do for a "
           "packet is little today.",
    "M31": "Nothing but wake-ups is left of the hypervisor's work here; Xen's had interrupts, its scheduler and more to do.",
    "M33": "Copying from the program to the kernel costs hardly more than what sendfile() does for each page, unlike in the "
           "paper.",
    "M34": "Zeroing a page takes a quarter of a microsecond today, where nothing has to be allocated for it; and today's TLB "
           "reaches over all that vifd touches.",
    "M37": "Four system calls for each frame remap its page and take it back; what they are compared with, copying 1500 "
           "bytes, takes a twentieth of a microsecond. flip has that copy, too, for no NIC wrote into its page; the second "
           "bar is without it.",
}

NOTES = (
    "throughput: what all streams deliver together; program, guest's kernel, vif-front and vifd have one CPU, the wires another.",
    "cycles/byte: guest: program and vif-front, in which the guest's kernel runs; driver: vifd; VMM: system calls that map and",
    "unmap, wake-ups and the switches that they lead to, taken out of both. total: whatever the CPU did not idle.",
    "none, no GSO: the guest's kernel hands over frame by frame, as the paper's did; otherwise it segments late by itself.")
MACHINE_NOTE = "The host's CPU, saturated in the paper unless the NICs were, was busy here: "


class Sample(dict):
    """Figures by metric; printed as such. busy: share of the host's CPU; stages: vifd's, cycles by byte; counts: remaps."""

    def __init__(self, figures, busy, stages, counts):
        super().__init__(figures)
        self.busy, self.stages, self.counts = busy, stages, counts

    def share(self, domains):
        """Of all cycles of the domains, those of these."""
        cycles = {domain: self[f"cycles/byte {domain}"] for domain in DOMAINS}
        return sum(cycles[domain] for domain in domains) / sum(cycles.values())

    def __str__(self):
        return f"{', '.join(f'{metric} {number(value)}' for metric, value in self.items())}; busy {self.busy:.0%}"


def stay_awake(stack):
    """Have idle CPUs poll, not halt, to the end of the stack."""
    latency = stack.enter_context(open("/dev/cpu_dma_latency", "wb", buffering=0))
    latency.write(struct.pack("@i", 0))


def spent_between(before, after):
    return {name: after[name] - before[name] for name in before}


class Menon:
    def __init__(self, lab, stack, hosts):
        self.lab, self.seconds = lab, 0.3 if lab.quick else 0.8
        wires = Wires(lab, stack, WIRES)
        self.hosts = {}
        for number_, (name, kind) in enumerate(hosts.items(), 1):
            lab.say(f"menon: {name}")
            self.hosts[name] = kind(lab, stack, name, number_, wires)
        self.hz = self.hosts["none"].hz
        self.wake = wake_cost(self.hz)

    def streams(self, stack, host, case, sends):
        network = SENT_TO if sends else RECEIVED_FROM
        for wire, address in host.wires.ends(network, host.number):
            if sends:
                ends = (host.end, wire, address, (case.verb, "discard"))
            else:
                ends = (wire, host.end, host.address(network), ("sendfile", "read"))
            connection = stack.enter_context(Connection(*ends, SIZE))
            run_in_turn(connection.programs[HOST_CPU].pid)
            yield connection

    def sample(self, case, sends):
        host = self.hosts[case.host]
        with ExitStack() as stack:
            if not case.gso:
                stack.enter_context(host.without_gso())
            streams = list(self.streams(stack, host, case, sends))
            time.sleep(RAMP)
            told, before = host.told(), self.look(host, streams)
            time.sleep(self.seconds)
            after, told_after = self.look(host, streams), host.told()
        return self.figures(spent_between(before, after), spent_between(told, told_after))

    @staticmethod
    def look(host, streams):
        looks = [stream.look() for stream in streams]
        return {**host.look(), **{name: sum(look[name] for look in looks) for name in ("bytes", "program")}}

    def figures(self, spent, told):
        """A sample of what was spent meanwhile, and of what vifd has told, which is of a little more time."""
        spent = {**{name: value * spent["clock"] / told["clock"] for name, value in told.items()}, **spent}
        octets, busy = spent["bytes"], max(0, spent["clock"] - spent["idle"])
        if octets == 0:
            raise OSError("nothing arrives")
        cycles = self.hz / octets
        figures = {"throughput": octets * 8 / spent["clock"] / 1e6, "cycles/byte total": busy * cycles}
        if "front" in spent:
            mapping, wake = spent["remap cycles"] / octets, self.wake / octets
            driver, guest = spent["vifd"] * cycles, (spent["program"] + spent["front"]) * cycles
            figures.update({"cycles/byte guest": guest - spent["front switches"] * wake,
                            "cycles/byte driver": driver - mapping - spent["vifd switches"] * wake,
                            "cycles/byte VMM": mapping + (spent["front switches"] + spent["vifd switches"]) * wake})
        counts = {name.removeprefix("remap "): count for name, count in spent.items() if name.startswith("remap ")}
        return Sample(figures, busy / spent["clock"], self.stages(spent, cycles), counts)

    @staticmethod
    def stages(spent, cycles):
        """vifd's CPU time by stage: the profile's shares, for its clock goes on while vifd is pushed aside."""
        known = {stage: spent[f"stage {stage}"] for stage in STAGES if f"stage {stage}" in spent}
        whole = sum(known.values())
        return {stage: spent["vifd"] * cycles * count / whole for stage, count in known.items()} if whole else {}


def wanted(lab):
    """Which cases are to be measured: {direction: {configuration: Case}}."""
    cases = {"send": {}, "write": {}, "receive": {}}
    for ident, directions in THROUGHPUT.items():
        if lab.wants(ident):
            for direction, configs in directions.items():
                cases[direction].update({ours: tables()[direction][ours] for ours, _ in configs.values()})
    for ident, (pair, _) in BREAKDOWN.items():
        if lab.wants(ident):
            cases["send"].update({name: SENDS[name] for name in pair})
    if lab.wants("M5"):
        for direction, (config, _) in SHARES.items():
            cases[direction][config] = tables()[direction][config]
    return {direction: cases[direction] for direction in cases if cases[direction]}


def tables():
    return {"send": SENDS, "write": WRITES, "receive": RECEIVES}


def measure(lab):
    """All samples: {direction: {configuration: [Sample]}}."""
    cases, taken = wanted(lab), {}
    used = {"none"} | {case.host for configs in cases.values() for case in configs.values()}
    kinds = {"Linux": Linux, **dict.fromkeys(Driver.SETTINGS, Driver), **dict.fromkeys(Guest.SETTINGS, Guest)}
    with ExitStack() as stack:
        menon = Menon(lab, stack, {name: kind for name, kind in kinds.items() if name in used})
        for direction, configs in cases.items():
            taken[direction] = interleave(3 if lab.quick else 5, list(configs),
                                          lambda config: menon.sample(configs[config], direction != "receive"),
                                          lambda text: lab.say(f"menon: {direction}, {text}"))
    return taken


def values(samples, metric):
    return [sample[metric] for sample in samples]


def rows_of(taken):
    rows = []
    for ident, directions in THROUGHPUT.items():
        for direction, configs in directions.items():
            for config, (ours, mbps) in configs.items():
                samples = taken.get(direction, {}).get(ours)
                if samples:
                    metric = f"throughput, {direction}" if ident == "M3" else "throughput"
                    rows.append(row(ident, config, metric, "Mb/s", mbps, values(samples, "throughput")))
                    if ident not in ("M3", "M33"):
                        rows.append(row(ident, config, "cycles/byte total", "cycles", None, values(samples, "cycles/byte total"),
                                        stages=medians([sample.stages for sample in samples]),
                                        remaps=medians([sample.counts for sample in samples])))
    for ident, (pair, paper) in BREAKDOWN.items():
        if all(config in taken.get("send", {}) for config in pair):
            for domain in DOMAINS:
                for config, multiple in zip(pair, (1, paper[domain])):
                    rows.append(row(ident, config, f"cycles/byte {domain}", "cycles", None,
                                    values(taken["send"][config], f"cycles/byte {domain}"), paper_ratio=multiple))
    return rows + rows_of_shares(taken)


def rows_of_shares(taken):
    rows = []
    for direction, (config, shares) in SHARES.items():
        samples = taken.get(direction, {}).get(config, ())
        for domains, paper in shares.items() if samples else ():
            rows.append(row("M5", config, f"{' and '.join(domains)}, {direction}", "share", paper,
                            [sample.share(domains) for sample in samples]))
    return rows


def medians(dicts):
    return {name: round(statistics.median(one[name] for one in dicts), 4) for name in dicts[0]}


def profile(samples):
    """Where the cycles go, for what a bar has to explain."""
    parts = {metric.removeprefix("cycles/byte "): statistics.median(values(samples, metric))
             for metric in samples[0] if metric.startswith("cycles/byte")}
    return {**parts, **{f"vifd: {stage}": value for stage, value in medians([sample.stages for sample in samples]).items()}}


# Bar: row's ID, direction, configuration and that it is by, the paper's ratio, what is wanted, shape, why it would be missed
BARS = (
    ("M28", "send", "high", "none", 2794 / 750, 2.5, "high/none",
     "Where the guest's kernel segments late by itself (GSO), a NIC that segments saves it less than it saved the paper's."),
    ("M28", "send", "high-ioc", "high", 3230 / 2794, 1.1, "high-ioc/high",
     "The pages of a packet of 64 KiB are mapped by one system call, sixteen at a time, as the kernel maps files: less than a "
     "hypercall was."),
    ("M28", "send", "high-ioc-sp", "none", 3310 / 750, 3, "all/none",
     "Where the guest's kernel segments late by itself (GSO), a NIC that segments saves it less than it saved the paper's."),
    ("M37", "receive", "copy", "flip", 970 / 820, 1.05, "remap/copy",
     "What the guest's stack costs for each frame hides what the channel costs."),
)


def add_bars(lab, taken):
    for ident, direction, config, base, paper, least, shape, why in BARS:
        samples = taken.get(direction, {})
        if lab.wants(ident) and config in samples and base in samples:
            one = bar(ident, config, "throughput", values(samples[config], "throughput"), round(paper, 2),
                      (base, values(samples[base], "throughput")), least=least, shape=shape)
            lab.explain(one, why, {name: profile(samples[name]) for name in (base, config)})
            lab.bars.append(one)
    samples = taken.get("receive", {})
    if lab.wants("M37") and "flip" in samples and "copy" in samples:
        # the paper's NIC has written into the page: take out what the other one needs for its copy
        spared = [flip["cycles/byte total"] - copy.stages["copy"] for flip, copy in zip(samples["flip"], samples["copy"])]
        one = bar("M37", "flip", "cycles/byte total, without its copy", spared, round(970 / 820, 2),
                  ("copy", values(samples["copy"], "cycles/byte total")), least=1.05)
        lab.explain(one, BARS[-1][-1], {name: profile(samples[name]) for name in ("flip", "copy")})
        lab.bars.append(one)


def run(lab):
    """Run the experiment; its rows."""
    need_two_cpus()
    before = os.sched_getaffinity(0)
    lab.stack.callback(os.sched_setaffinity, 0, before)
    os.sched_setaffinity(0, {WIRE_CPU})
    stay_awake(lab.stack)
    taken = measure(lab)
    lab.notes += NOTES
    lab.notes.append(MACHINE_NOTE + "; ".join(
        f"{direction}: " + ", ".join(f"{config} {statistics.median(one.busy for one in samples):.0%}"
                                     for config, samples in configs.items()) for direction, configs in taken.items()) + ".")
    add_bars(lab, taken)
    return rows_of(taken)
