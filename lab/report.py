# SPDX-License-Identifier: BSD-3-Clause
"""The report: each table and figure of the papers, their figures and ours; the shapes that must hold.

EXHIBITS is the one list of them. An exhibit's rows are those of its experiment whose ID is one of its own, with or without
a letter behind it (A8: A8a, A8b). Its name is the paper's letter in docs/theory.md and what the paper calls it;
`lab/run fig5` or `ONLY=M28` finds it, too, and where two papers have a figure 9, `fig9` is both.
"""
import os
import re
from collections import namedtuple
from pathlib import Path

import stamp
from report_plot import draw
from report_words import BAR_HEAD, bar_line, explanation, markdown, sentence, table, whys

ROOT = Path(__file__).resolve().parents[1]
LEAST_SAMPLES = 3

# A panel, or some, of an exhibit's plot.
#   bars    a configuration's figure by that of the base, the paper's beside ours, for each metric that matches
#   metrics the figures themselves, the paper's beside ours, a metric beside the other
#   sizes   ours, of each configuration, by the size in the metric's name
Plot = namedtuple("Plot", "kind metrics label")
# says: what the paper says in words; stands: what stands in for a hypervisor; rows: of the experiment's results, once read.
Exhibit = namedtuple("Exhibit", "name title experiment idents plots says stands rows", defaults=((), "", "", ()))
PAPERS = {"M": "Optimizing Network Virtualization in Xen (Menon, Cox, Zwaenepoel 2006)",
          "S": "A low-overhead networking mechanism for virtualized HPC systems: SETH (Jang, Seo, Jo, Kim 2012)",
          "A": "LRO in Xen with backend optimisation and delayed aggregation",
          "P": "Characterization of network processing overheads in Xen (Apparao, Makineni, Newell 2006)"}

SWITCHES = ("No hypervisor switches domains here: the models empty the TLB each round, each 8th round or never. "
            "Global pages are `never`: entries that stay.")
GRANTS = ("System calls that fill in and clear page table entries stand for the grant table's hypercalls; a simulated "
          "cache for the CPU's count of misses.")
THROUGHPUT = (Plot("bars", "throughput.*", "throughput"),)
CYCLES = (Plot("bars", "cycles.*", "cycles"),)
EXHIBITS = (
    Exhibit("M-table1", "Throughput of Linux, driver domain and guest", "menon", ("M3",), THROUGHPUT),
    Exhibit("M-fig3", "Transmit throughput in different configurations", "menon", ("M25",), THROUGHPUT),
    Exhibit("M-fig4", "Receive throughput in different configurations", "menon", ("M26",), THROUGHPUT),
    Exhibit("M-fig5", "Contribution of individual transmit optimisations", "menon", ("M28",), THROUGHPUT),
    Exhibit("M-fig6", "Execution cost, high-level and unoptimised interface", "menon", ("M29",), CYCLES),
    Exhibit("M-fig7", "Advantage of the higher-level interface", "fig7", ("M30",),
            (*THROUGHPUT, Plot("bars", "cpu_per_byte", "vifd's CPU time by byte"))),
    Exhibit("M-fig8", "I/O channel optimisation benefit", "menon", ("M31",), CYCLES),
    Exhibit("M-fig9", "TLB misses for the transmit benchmark", "tlb", ("M32",),
            (Plot("metrics", "tx 64K, 64 entries, (.*): by 4k", "walks, superpages by 4 KiB pages"),), stands=SWITCHES),
    Exhibit("M-global", "Global pages on a real Xen (section 4.3)", "xen", ("M17",),
            (Plot("bars", "TLB flushes", "writes that flush the TLB"),),
            says="global pages help a driver domain that is alone; guests make the TLB be flushed whole at each switch."),
    Exhibit("M-channels", "Channels of a guest on a real Xen (section 4.1)", "xen", ("M11",),
            (Plot("bars", "instructions/byte.*", "instructions"),)),
    Exhibit("M-fig10", "Transmit performance with writes", "menon", ("M33",), THROUGHPUT),
    Exhibit("M-fig11", "Receive performance in different driver configurations", "menon", ("M34",), THROUGHPUT),
    Exhibit("M-fig12", "Data TLB misses in driver domain configurations", "tlb", ("M36",),
            (Plot("metrics", "rx MTU, 64 entries, (.*): by 4k", "walks, superpages by 4 KiB pages"),), stands=SWITCHES),
    Exhibit("M-fig13", "Receive performance in guest domains and Linux", "menon", ("M37",), THROUGHPUT),
    Exhibit("S-table1", "Symbols of network processing in the driver domain", "workloads", ("S7",),
            (Plot("metrics", "(.*: (?:grant operations|copy|NIC|back end|segmentation))", "share"),)),
    Exhibit("S-table2", "Round trip and CPU of a 4-byte ping-pong", "seth", ("S19",),
            (Plot("bars", "round trip.*", "round trip"), Plot("bars", "CPU.*", "CPU"))),
    Exhibit("S-fig9", "Transmitting data of various sizes", "seth", ("S20",), (Plot("sizes", "send .*", "throughput, Mb/s"),),
            "equal as long as pieces are small; SETH is more than 50 Mb/s above VETH beyond 128 KiB, on a wire of 1 Gb/s."),
    Exhibit("S-table3", "CPU and transfer cost of transmitting 64 KiB", "seth", ("S21",),
            (Plot("bars", "CPU, send 64 KiB", "CPU"), Plot("bars", "cycles/byte total, send 64 KiB", "transfer cost"))),
    Exhibit("S-fig10", "Receiving data of various sizes", "seth", ("S22",), (Plot("sizes", "receive .*", "throughput, Mb/s"),),
            "all reach their most at 256 bytes; SETH is below VETH at 512 B and 1 KiB: its larger requests fill the ring."),
    Exhibit("S-table4", "CPU and transfer cost of receiving packets of 1500 bytes", "seth", ("S23",),
            (Plot("bars", "CPU, receive 1500 B", "CPU"), Plot("bars", "cycles/byte total, receive 1500 B", "transfer cost"))),
    Exhibit("S-table5", "CPU and cache misses of components when receiving", "seth", ("S24", "S25"),
            (Plot("metrics", "cycles/byte (.*), receive 1500 B", "cycles by byte"),
             Plot("metrics", "misses/KiB (.*)", "misses by KiB")), stands=GRANTS),
    Exhibit("S-table6", "Real workloads", "workloads", ("S31",), (Plot("bars", ".*: driver.*", "driver's CPU time"),)),
    Exhibit("S-fig11", "Time of real workloads", "workloads", ("S31",), (Plot("bars", ".*: time", "time"),)),
    Exhibit("A-tableI", "Throughput and LRO rate of the earlier work", "consolidation", ("A1",), THROUGHPUT),
    Exhibit("A-tableIV", "Receive throughput", "lro", ("A8",), THROUGHPUT),
    Exhibit("A-tableV", "Cycles by byte received", "lro", ("A9",), CYCLES),
    Exhibit("A-tableVI", "Packets merged into one", "lro", ("A10",), (Plot("metrics", ".*", "segments by packet"),)),
    Exhibit("A-tableVII", "Request and response", "lro", ("A11",), (Plot("bars", ".*", "transactions"),)),
    Exhibit("A-delay", "Delay that merging adds (section III)", "lro", ("A12",), (Plot("metrics", ".*", "delay"),)),
    Exhibit("A-consolidation", "Several guests with competing load (the paper's future work)", "consolidation", ("A16",),
            (*THROUGHPUT, Plot("bars", "transactions.*", "transactions"))),
    Exhibit("P-placements", "Driver domain on the guest's CPU, and on one of its own", "paths", ("P2", "P3", "P4"),
            (*THROUGHPUT, Plot("bars", "instructions/byte, .*", "instructions"), Plot("bars", "cycles/byte total, .*", "CPU time")),
            says="both directions lose more than half; the path is three to four times as long as the native one, most of it "
            "in hypervisor and driver domain; a CPU of its own costs more CPU time than sharing the guest's."),
)

# Shape -> what it says. The bar that checks it is the experiment's, rows.bar(..., shape=its name).
SHAPES = {
    "high/none": "Menon, figure 5: Guest-high over Guest-none, throughput, at least 2.5",
    "high-ioc/high": "Menon, figure 5: Guest-high-ioc over Guest-high, throughput, at least 1.1",
    "all/none": "Menon, figure 5: Guest-high-ioc-sp over Guest-none, throughput, at least 3",
    "remap/copy": "Menon, figure 13: receiving packets of the MTU, remapping is worse than copying",
    "high-level/low-level": "Menon, figure 7: high-level NIC over a wire without offloads by low-level NIC, at least 1.5",
    "SETH/VETH": "SETH, tables 3 and 4: CPU by byte, SETH's by VETH's, at most 0.8",
    "DA/off": "LRO, table V: CPU by byte, delayed aggregation's by that without LRO, at most 0.5",
}


def everything():
    """All experiments that the papers' tables and figures need, as resolve() has them."""
    return {exhibit.experiment: set() for exhibit in EXHIBITS}


def owns(exhibit, ident):
    """Whether rows with this ID are the exhibit's."""
    return any(re.fullmatch(f"{own}[a-z]?", ident) for own in exhibit.idents)


def called(exhibit):
    """What one may call it."""
    return {exhibit.name.lower(), exhibit.name.partition("-")[2].lower(), *map(str.lower, exhibit.idents)}


def resolve(names, experiments):
    """What is meant by names on the command line: {experiment: IDs of the wanted rows, none: all}, in the order of
    experiments. ValueError names what is not known."""
    wanted = {}
    for name in names:
        if name in experiments:
            wanted[name] = None
            continue
        meant = [exhibit for exhibit in EXHIBITS if name.lower() in called(exhibit) and exhibit.experiment in experiments]
        if not meant:
            raise ValueError(name)
        for exhibit in meant:
            idents = wanted.setdefault(exhibit.experiment, set())
            if idents is not None:
                idents.update(exhibit.idents)
    return {name: wanted[name] or set() for name in experiments if name in wanted}


def read(out):
    """All results that are there: {experiment: what lab/run has written}."""
    names = dict.fromkeys([*everything(), *sorted(path.stem for path in out.glob("*.json"))])
    found = {name: stamp.read(out / f"{name}.json") for name in names}
    return {name: results for name, results in found.items() if results and "stamp" in results}


def filled(results):
    """The exhibits with their rows."""
    rows = {name: one["rows"] for name, one in results.items()}
    return [exhibit._replace(rows=[row for row in rows.get(exhibit.experiment, ()) if owns(exhibit, row["id"])])
            for exhibit in EXHIBITS]


def problems(exhibits, results, wanted):
    """What a report must have and this one has not, in words. wanted: what counts, {experiment: IDs of rows, none: all}."""
    found = []
    for exhibit in exhibits:
        idents = wanted.get(exhibit.experiment)
        if idents is None or idents and idents.isdisjoint(exhibit.idents):
            continue
        if not exhibit.rows:
            found.append(f"{exhibit.name} ({exhibit.title}): {exhibit.experiment} has no rows {', '.join(exhibit.idents)}")
        few = [f"{row['metric']}, {row['config']}" for row in exhibit.rows if row["ours"]["n"] < LEAST_SAMPLES]
        if few:
            found.append(f"spread: {exhibit.name} has less than {LEAST_SAMPLES} samples in {len(few)} rows, as of {few[0]}")
    bars = all_bars(results)
    if wanted == everything():
        found += [f"shape {name}: no bar" for name in SHAPES if name not in {bar.get("shape") for bar in bars}]
    return found


def all_bars(results):
    return [bar for one in results.values() for bar in one["bars"]]


def write(out, path, plots):
    """Write a report of the results in out to path, and its plots into a folder."""
    results = read(out)
    exhibits = filled(results)
    plots.mkdir(parents=True, exist_ok=True)
    parts = [head(results, path), contents(exhibits), shapes(results)]
    for letter, paper in PAPERS.items():
        parts.append(f"## {letter}: {paper}\n")
        for exhibit in exhibits:
            if exhibit.name.startswith(f"{letter}-") and exhibit.rows:
                parts.append(section(exhibit, results[exhibit.experiment], path, plots))
    parts += [others(name, one, exhibits) for name, one in results.items()]
    path.write_text("\n".join(part for part in parts if part))


def head(results, path):
    """What was run, when and on what."""
    stamps = {name: one["stamp"] for name, one in results.items()}
    lines = [(name, one["date"], "quick" if one["quick"] else "full", one["commit"], f"{one['seconds']:.0f} s")
             for name, one in stamps.items()]
    machines = dict.fromkeys(one["machine"] for one in stamps.values())
    text = ("# The papers' tables and figures, re-run\n\nWritten by `make lab`; how each figure is measured is in "
            f"[lab/README.md]({relative(ROOT / 'lab' / 'README.md', path)}). "
            "`paper ÷ base` and `here ÷ base` have both figures as multiples of the same configuration's.\n\n"
            "Machine: " + "; ".join(machines) + ".\n\n")
    if len({one["digest"] for one in stamps.values()}) > 1:
        text += "The experiments were not all run with the same programs.\n\n"
    return text + markdown(("experiment", "date", "mode", "commit", "took"), lines)


def relative(there, path):
    """there, as a link in the file path."""
    return os.path.relpath(there, path.parent)


def contents(exhibits):
    return " · ".join(f"[{exhibit.name}](#{anchor(exhibit)})" for exhibit in exhibits if exhibit.rows) + "\n"


def anchor(exhibit):
    return exhibit.name.lower()


def shapes(results):
    """The shapes that must hold, then all other bars; what is missed, explained."""
    bars = all_bars(results)
    named = [(bar, SHAPES.get(bar.get("shape"))) for bar in bars]
    lines = [(said, *bar_line(bar)) for bar, said in named if said]
    text = "## Shapes that must hold\n\n"
    if lines:
        text += markdown(("shape", *BAR_HEAD), lines)
    rest = [bar_line(bar) for bar, said in named if not said]
    if rest:
        text += f"\nBars of the experiments' own:\n\n{markdown(BAR_HEAD, rest)}"
    missed = [explanation(bar) for bar in bars if not bar["pass"]]
    return text + ("\n### What is missed, and why\n\n" + "\n".join(missed) if missed else "")


def section(exhibit, results, path, plots):
    """An exhibit: plot, what agrees, what stands in for what, table."""
    text = f"<a id=\"{anchor(exhibit)}\"></a>\n### {exhibit.name}: {exhibit.title}\n\n"
    plot = plots / f"{exhibit.name}.svg"
    if draw(exhibit, results, plot):
        text += f"![{exhibit.title}]({relative(plot, path)})\n\n"
    if exhibit.says:
        text += f"The paper: {exhibit.says}\n\n"
    text += sentence(exhibit, results) + "\n\n"
    stands = " ".join(filter(None, [exhibit.stands, *whys(exhibit.rows, results["stands"])]))
    if stands:
        text += f"In place of a hypervisor: {stands}\n\n"
    metrics = {(row["id"], row["metric"]) for row in exhibit.rows if row["paper"] is not None or "paper_ratio" in row}
    main = [row for row in exhibit.rows if (row["id"], row["metric"]) in metrics] or exhibit.rows
    text += table(main, results)
    rest = [row for row in exhibit.rows if row not in main]
    return text + (folded(f"{len(rest)} more rows, for which the paper has no figure", table(rest, results)) if rest else "")


def others(name, results, exhibits):
    """An experiment's notes, and its rows that no table or figure of the papers has."""
    shown = [row for exhibit in exhibits if exhibit.experiment == name for row in exhibit.rows]
    rest = [row for row in results["rows"] if row not in shown]
    text = f"## Experiment {name}: {results['title']}\n\n" + "\n".join(results["notes"]) + "\n"
    return text + (folded(f"{len(rest)} rows beside the papers' tables and figures", table(rest, results)) if rest else "")


def folded(title, text):
    return f"\n<details><summary>{title}</summary>\n\n{text}\n</details>\n"
