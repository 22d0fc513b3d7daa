# SPDX-License-Identifier: BSD-3-Clause
"""M32 and M36, figures 9 and 12 of "Optimizing Network Virtualization in Xen": data TLB misses of the driver domain with
4 KiB pages and with superpages (M15); M16, how many superpages stay whole when restricted pages are grouped; and M19, what a
load leaves behind, given back in units of superpages.

    tlb_path, in valgrind                                                        tlb_model
    driver ── rings in guest memory ── vifd: virtio_net, bridge, tap ── kernel   L1 ── L2 ── page walk
       └─────────── loads, stores and marks, as lackey prints them ──── pipe ───────┘

Theory of operation. The paper counts with the CPU's counters. A virtual machine has none, as a rule, so that here vifd's own
code on vifd's own memory runs in valgrind, which prints each access, and models of TLBs count what would miss. One trace
goes through all models at once: with 4 KiB pages or with the superpages that the kernel gave, by a TLB of one level
as the paper's CPU has it or of two as today's have, and emptied when the CPU comes back to vifd from another domain
always, now and then, or never (entries are tagged, or the CPU is vifd's alone). The same program without valgrind says what
CPU time superpages save, and has the CPU count its misses if it can.

The paper's CPU: 64 entries for pages of all sizes, no second level; a guest of 256 MiB has 64 of its superpages of 4 MiB.
Of ours, of 2 MiB, that is 128 MiB, over which packets lie at random. What a round has is what vifd takes at once: 4
packets of 64 KiB, 32 of the MTU.
"""
import fcntl
import itertools
import json
import os
import shutil
import subprocess
from collections import defaultdict

from lib.guest import with_parent
from lib.vifd import program
from rows import bar, interleave, number, row

TITLE = "Figures 9 and 12 (M32, M36): page walks of vifd's data path; superpages that stay whole (M16, M19)"
BASE = "4k"

# The workloads: direction and packets for tlb_path, row's ID
WORKLOADS = {"tx 64K": ("tx", "tso", "M32"), "tx MTU": ("tx", "mtu", "M32"),
             "rx 64K": ("rx", "tso", "M36"), "rx MTU": ("rx", "mtu", "M36")}
QUICK_WORKLOADS = ["tx 64K", "rx MTU"] # the two that the paper has figures of
# Where packets lie: how, and within how many MiB
PLACES = {"128 MiB": ("scattered", 128), "512 MiB": ("scattered", 512), "128 MiB in blocks": ("blocks", 128)}
MAIN = "128 MiB"

PAGES = {BASE: "pages=4k", "superpages": "pages=map"}
TLBS = {"64 entries": "l1=64,super=shared,l2=0", "two levels": "l1=64x4,super=32x4,l2=1536x12"}
SWITCHES = {"each round": 1, "8th round": 8, "never": 0}

# Superpages' misses by those of 4 KiB pages. Global pages (GP) keep entries where there are no guests: figure 12's
# SP-GP is 1.26 times Linux, whose eighteenfold is MTU. Figure 9's SP-GP is as its SP.
PAPER = {("tx 64K", "each round"): 1 / 3.8, ("tx 64K", "8th round"): 1 / 3.8,
         ("rx MTU", "each round"): 0.14, ("rx MTU", "8th round"): 0.14, ("rx MTU", "never"): 1.26 / 18}

# CPU time by packet with superpages by that with 4 KiB pages: the throughputs of a CPU that is saturated, the other way
# round. Figure 5's high-ioc by its high-ioc-sp; figure 11's MTU by its MTU-SP.
PAPER_TIME = {"tx 64K": ("M28", 3230 / 3310), "rx MTU": ("M34", 2033 / 2301)}
UNTRACED = {"ns/packet": "CPU time", "misses/packet": "the CPU's count"} # unit -> metric
UNTRACED_ROUNDS, SEEDS = 4000, 3

# The C library copies large pieces by one instruction that valgrind takes a byte at a time: by its vector loop, then.
TUNABLES = {"GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=0x40000000"}
F_SETPIPE_SZ, PIPE_BYTES = 1031, 1 << 20

WHY = {
    "M32": "Superpages take most walks away, as in the paper; more stay because packets here are spread at random over as much memory as "
           "the TLB reaches, and because vifd's own small pages are fetched again whenever it has been emptied.",
    "M36": "What a frame of the MTU touches beside its payload (rings, packets, stack) is on small pages, which is much of what is "
           "missed at each switch; without switches, and with a TLB of today, nothing is.",
}

NOTES = (
    "CPU time: of the same program without valgrind, on this CPU. .. by 4k: superpages' by that of 4 KiB pages, round by round.",
    "walks: misses in the last level of the TLB, in one trace of vifd's loads and stores, by a model (no counters are needed).",
    "64 entries: the paper's TLB, for pages of all sizes, fully associative. two levels: 64 of 4 ways for 4 KiB, 32 of 4 ways",
    "for superpages, 1536 of 12 ways for both. each round, 8th round, never: when the TLB is emptied, as by a switch of domains.",
    "Kernel and driver are played: the kernel's part of readv() and writev() touches vifd's memory as its copy does; what the",
    "driver, the guest and the kernel do on memory of their own is left out. The paper counts those, too, in figure 9.",
    "given back (M19): of 64 MiB after a load that filled it with buffers of 2 KiB, so many of which are held on, wherever they lie:",
    "superpages: zones of two superpages each, as zone_group_trim() does; 4k: what single pages could be, at the price of the rest.",
    "Figure 9's three configurations are 4k, superpages and superpages here; 12's are 4k, 4k never (GP), superpages, superpages never.")


class Sample(dict):
    """What tlb_model says of each model, by (pages, TLB, switches), and what it was of.

    packets  that were counted
    memory   what the kernel gave of superpages, by whose memory it is
    """

    def __init__(self, models, path):
        super().__init__((key, models[model_name(key)]) for key in all_models())
        self.packets, self.memory = path["packets"], path["memory"]

    def walks(self, key):
        """A packet's."""
        return sum(self[key]["walks"].values()) / self.packets

    def misses_in(self, key):
        """A packet's misses in the first level, by whose memory was touched."""
        return {name: round(misses / self.packets, 4) for name, misses in self[key]["misses_in"].items()}

    def __str__(self):
        return f"{self.packets} packets, {next(iter(self.values()))['accesses']} accesses, walks a packet " + ", ".join(
            f"{number(self.walks((BASE, tlb, switch)))} -> {number(self.walks(('superpages', tlb, switch)))} ({tlb}, {switch})"
            for tlb, switch in (("64 entries", "8th round"), ("two levels", "never")))


def all_models():
    return itertools.product(PAGES, TLBS, SWITCHES)


def model_name(key):
    return "-".join(str(list(table).index(word)) for table, word in zip((PAGES, TLBS, SWITCHES), key))


def model_arguments():
    return [f"{model_name(key)}:{PAGES[key[0]]},{TLBS[key[1]]},switch={SWITCHES[key[2]]}" for key in all_models()]


def path_command(lab, workload, place, rounds, seed, *options):
    direction, packets, _ = WORKLOADS[workload]
    return [program("lab/tlb_path"), *options, direction, packets, *PLACES[place], rounds, seed, lab.folder / "tlb.map"]


def trace(lab, workload, place, rounds, seed):
    """Run the data path once, and the models on its trace."""
    reader, writer = os.pipe()
    fcntl.fcntl(reader, F_SETPIPE_SZ, PIPE_BYTES)
    with open(lab.folder / "tlb.log", "ab") as log:
        model = subprocess.Popen(with_parent([program("lab/tlb_model"), lab.folder / "tlb.map", *model_arguments()]), stdin=reader,
                                 stdout=subprocess.PIPE, stderr=log)
        path = subprocess.Popen(
            with_parent(["valgrind", "--tool=lackey", "--trace-mem=yes", f"--log-fd={writer}",
                         *path_command(lab, workload, place, rounds, seed)]),
            stdout=subprocess.PIPE, stderr=log, pass_fds=[writer], env=dict(os.environ, **TUNABLES))
    os.close(reader)
    os.close(writer)
    try:
        said, counted = path.communicate()[0], model.communicate()[0]
    finally:
        path.kill()
        model.kill()
    if path.returncode or model.returncode:
        raise OSError(f"tlb_path ended with {path.returncode}, tlb_model with {model.returncode}: "
                      + (lab.folder / "tlb.log").read_text(errors="replace")[-500:])
    return Sample(json.loads(counted), json.loads(said))


class Untraced(dict):
    """By packet, what the data path takes when it runs as it is: CPU time, and TLB misses where the CPU counts them."""

    def __str__(self):
        return ", ".join(f"{number(value)} {unit}" for unit, value in self.items())


def untraced(lab, workload, pages, seed):
    done = subprocess.run(
        with_parent(path_command(lab, workload, MAIN, UNTRACED_ROUNDS, seed, "-c", *(["-4"] if pages == BASE else []))),
        check=True, stdout=subprocess.PIPE)
    said = json.loads(done.stdout)
    return Untraced((unit, said[name] / said["packets"])
                    for unit, name in (("ns/packet", "cpu_nsec"), ("misses/packet", "counted")) if name in said)


def untraced_configs(workloads):
    return {f"{workload}, {pages}": (workload, pages) for workload in workloads for pages in PAGES}


def untraced_rows(workloads, samples):
    """The same with 4 KiB pages and with superpages, and these by those."""
    rows = []
    for workload, (unit, metric) in itertools.product(workloads, UNTRACED.items()):
        ident, paper = PAPER_TIME.get(workload, ("M15", None)) if unit == "ns/packet" else (WORKLOADS[workload][2], None)
        ours = {pages: [sample[unit] for sample in samples[f"{workload}, {pages}"] if unit in sample] for pages in PAGES}
        if not all(ours.values()): # this CPU has no counters
            continue
        rows += [row(ident, pages, f"{workload}, {metric}", unit, None, ours[pages]) for pages in PAGES]
        rows.append(row(ident, "superpages", f"{workload}, {metric}: by 4k", "times", paper,
                        [large / small for large, small in zip(ours["superpages"], ours[BASE])]))
    return rows


def rows_of(place, samples):
    """A place's rows: page walks of each workload and model; and what superpages make of them, where the paper says it."""
    rows = []
    for workload, tlb, switch in itertools.product(samples, TLBS, SWITCHES):
        ours, ident = samples[workload], WORKLOADS[workload][2]
        metric = f"{workload}, {tlb}, {switch}" + ("" if place == MAIN else f", {place}")
        for pages in PAGES:
            key = pages, tlb, switch
            rows.append(row(ident, pages, metric, "walks/packet", None, [sample.walks(key) for sample in ours],
                            misses_in=ours[0].misses_in(key)))
        if (workload, switch) in PAPER and tlb == "64 entries":
            rows.append(row(ident, "superpages", metric + ": by 4k", "times", PAPER[workload, switch],
                            [sample.walks(("superpages", tlb, switch)) / sample.walks((BASE, tlb, switch)) for sample in ours]))
    return rows


def memory_rows(samples):
    """M15: how much of the memory that packets pass through is on superpages."""
    shares = defaultdict(list)
    for sample in itertools.chain(*samples.values()):
        for name, pages in sample.memory.items():
            shares[name].append(pages["superpages"] / pages["resident"])
    return [row("M15", name, "memory on superpages", "share", None, values) for name, values in shares.items()]


def superpage_rows(runs):
    """M16: of the superpages in use, those that can be mapped as such, and what all pages in use take of a TLB."""
    said = subprocess.run([program("lab/superpages"), str(runs)], check=True, text=True, stdout=subprocess.PIPE).stdout
    outcomes = defaultdict(list)
    for outcome in map(json.loads, said.splitlines()):
        outcomes[outcome["workload"], outcome["policy"]].append(outcome)
    return [row("M16", policy, f"{workload}: {metric}", unit, None, [of(outcome) for outcome in ours])
            for metric, unit, of in (("whole", "of 1", lambda outcome: outcome["whole"] / outcome["used"]),
                                     ("to map all", "entries", lambda outcome: outcome["entries"]))
            for (workload, policy), ours in outcomes.items()]


def balloon(runs):
    """M19: {buffers held after the load: [what is said]}."""
    said = subprocess.run([program("lab/balloon"), str(runs)], check=True, text=True, stdout=subprocess.PIPE).stdout
    outcomes = defaultdict(list)
    for outcome in map(json.loads, said.splitlines()):
        outcomes[outcome["held"]].append(outcome)
    return outcomes


def balloon_rows(outcomes):
    """What could be given back of 64 MiB, and which superpages of the rest can still be mapped as such."""
    rows = []
    for held, ours in outcomes.items():
        rows += [row("M19", BASE, f"given back, {held} buffers held", "of 1", None, [one["pages_free"] / one["pages"] for one in ours]),
                 row("M19", "superpages", f"given back, {held} buffers held", "of 1", None,
                     [one["given_back"] / one["zones"] for one in ours])]
        if held:
            rows.append(row("M19", BASE, f"whole of the rest, {held} buffers held", "of 1", None,
                            [one["whole"] / one["used"] for one in ours]))
        if all(one["after"] for one in ours):
            rows.append(row("M19", "superpages", f"whole of the rest, {held} buffers held", "of 1", None,
                            [one["super_after"] / one["after"] for one in ours]))
    return rows


def balloon_bars(outcomes):
    """After a load all that nobody holds goes back; what has to stay is on as many superpages as before."""
    bars = [bar("M19", "superpages", "given back, 0 buffers held", [one["given_back"] / one["zones"] for one in outcomes[0]], least=1)]
    for held, ours in outcomes.items():
        kept = [(one["super_after"] / one["after"]) / (one["super_before"] / one["before"]) for one in ours
                if one["after"] and one["super_before"]]
        if kept: # or the kernel gave no superpages
            bars.append(bar("M19", "superpages", f"whole of the rest, by before, {held} buffers held", kept, least=1))
    return bars


def bars_of(samples):
    """With a TLB of today that keeps its entries, superpages must be worth as much as in the paper."""
    bars = []
    for workload, paper in (("tx 64K", 1 / 3.8), ("rx MTU", 0.14)):
        small, large = ([sample.walks((pages, "two levels", "never")) for sample in samples[workload]] for pages in PAGES)
        bars.append(bar(WORKLOADS[workload][2], "superpages", f"{workload}, two levels, never", large, paper, (BASE, small),
                        most=round(paper, 3)))
    return bars


def run(lab):
    """Run the experiment; its rows."""
    if not shutil.which("valgrind"):
        raise OSError("there is no valgrind: `scripts/install-deps.sh lab` installs it")
    rounds, workloads = (16, QUICK_WORKLOADS) if lab.quick else (64, list(WORKLOADS))
    rows = []
    for place in [MAIN] if lab.quick else PLACES:
        numbers = {workload: itertools.count(1) for workload in workloads}
        samples = interleave(SEEDS, workloads,
                             lambda workload: trace(lab, workload, place, rounds, next(numbers[workload])),
                             lambda text: lab.say(f"tlb: {place}, {text}"))
        rows += rows_of(place, samples)
        if place == MAIN:
            rows += memory_rows(samples)
            lab.bars += bars_of(samples)
    configs = untraced_configs(workloads)
    numbers = {config: itertools.count(1) for config in configs}
    samples = interleave(3 if lab.quick else 15, list(configs),
                         lambda config: untraced(lab, *configs[config], next(numbers[config])),
                         lambda text: lab.say(f"tlb: untraced, {text}"))
    rows += untraced_rows(workloads, samples)
    if not any("misses/packet" in sample for sample in itertools.chain(*samples.values())):
        lab.notes.append("This machine does not count TLB misses: they are those of the models alone.")
    lab.notes += NOTES
    outcomes = balloon(SEEDS)
    lab.bars += balloon_bars(outcomes)
    return rows + superpage_rows(SEEDS) + balloon_rows(outcomes)
