# SPDX-License-Identifier: BSD-3-Clause
"""Which tables and figures the papers have, and where their figures come from here; the shapes that must hold.

EXHIBITS is the one list of them. An exhibit's rows are those of its experiment whose ID is one of its own, with or without
a letter behind it (A8: A8a, A8b). Its name is the paper's letter in docs/theory.md and what the paper calls it;
`lab/run fig5` or `ONLY=M28` finds it, too, and where two papers have a figure 9, `fig9` is both.
"""
import re
from collections import namedtuple

# A panel of an exhibit's plot.
#   bars    a configuration's figure by that of the base, the paper's beside ours, for each metric that matches
#   metrics the figures themselves, the paper's beside ours, a metric beside the other
#   sizes   ours, of each configuration, by the size in the metric's name
Plot = namedtuple("Plot", "kind metrics label")
Exhibit = namedtuple("Exhibit", "name title experiment idents plots stands", defaults=((), ""))

LATENT = ("No hypervisor switches domains here: the models empty the TLB each round, each 8th round or never. Global pages are "
          "`never`: entries that stay.")
EXHIBITS = (
    Exhibit("M-table1", "Throughput of Linux, driver domain and guest", "menon", ("M3",), (Plot("bars", ".*", "throughput"),)),
    Exhibit("M-fig3", "Transmit throughput in different configurations", "menon", ("M25",), (Plot("bars", ".*", "throughput"),)),
    Exhibit("M-fig4", "Receive throughput in different configurations", "menon", ("M26",), (Plot("bars", ".*", "throughput"),)),
    Exhibit("M-fig5", "Contribution of individual transmit optimisations", "menon", ("M28",), (Plot("bars", "throughput", "throughput"),)),
    Exhibit("M-fig6", "Breakdown of execution cost, high-level and unoptimised interface", "menon", ("M29",),
            (Plot("bars", ".*", "cycles"),)),
    Exhibit("M-fig7", "Advantage of the higher-level interface", "fig7", ("M30",),
            (Plot("bars", "throughput", "throughput"), Plot("bars", "cpu_per_byte", "vifd's CPU time by byte"))),
    Exhibit("M-fig8", "I/O channel optimisation benefit", "menon", ("M31",), (Plot("bars", ".*", "cycles"),)),
    Exhibit("M-fig9", "TLB misses for the transmit benchmark", "tlb", ("M32",),
            (Plot("metrics", "tx 64K, 64 entries, [^,]*: by 4k", "walks, superpages by 4 KiB pages"),), LATENT),
    Exhibit("M-fig10", "Transmit performance with writes", "menon", ("M33",), (Plot("bars", "throughput", "throughput"),)),
    Exhibit("M-fig11", "Receive performance in different driver configurations", "menon", ("M34",), (Plot("bars", "throughput", "throughput"),)),
    Exhibit("M-fig12", "Data TLB misses in driver domain configurations", "tlb", ("M36",),
            (Plot("metrics", "rx MTU, 64 entries, [^,]*: by 4k", "walks, superpages by 4 KiB pages"),), LATENT),
    Exhibit("M-fig13", "Receive performance in guest domains and Linux", "menon", ("M37",), (Plot("bars", "throughput", "throughput"),)),
    Exhibit("S-table1", "Symbols of network processing in the driver domain", "workloads", ("S7",), (Plot("metrics", ".*", "share of CPU, %"),)),
    Exhibit("S-table2", "Round trip and CPU of a 4-byte ping-pong", "seth", ("S19",),
            (Plot("bars", "round trip.*", "round trip"), Plot("bars", "CPU.*", "CPU"))),
    Exhibit("S-fig9", "Transmitting data of various sizes", "seth", ("S20",), (Plot("sizes", "send .*", "throughput, Mb/s"),)),
    Exhibit("S-table3", "CPU and transfer cost of transmitting 64 KiB", "seth", ("S21",),
            (Plot("bars", "CPU, send 64 KiB", "CPU"), Plot("bars", "cycles/byte total, send 64 KiB", "transfer cost"))),
    Exhibit("S-fig10", "Receiving data of various sizes", "seth", ("S22",), (Plot("sizes", "receive .*", "throughput, Mb/s"),)),
    Exhibit("S-table4", "CPU and transfer cost of receiving packets of 1500 bytes", "seth", ("S23",),
            (Plot("bars", "CPU, receive 1500 B", "CPU"), Plot("bars", "cycles/byte total, receive 1500 B", "transfer cost"))),
    Exhibit("S-table5", "CPU and cache misses of components when receiving", "seth", ("S24", "S25"),
            (Plot("metrics", "cycles/byte .*, receive 1500 B", "cycles by byte"), Plot("metrics", "misses/KiB.*", "misses by KiB")),
            "System calls that fill in and clear page table entries stand for the grant table's hypercalls; a simulated cache for "
            "the CPU's count of misses."),
    Exhibit("S-table6", "Real workloads", "workloads", ("S31",), (Plot("bars", ".*", "time"),)),
    Exhibit("S-fig11", "Time of real workloads", "workloads", ("S31",), (Plot("bars", ".*", "time"),)),
    Exhibit("A-tableI", "Throughput and LRO rate of the earlier work", "consolidation", ("A1",), (Plot("bars", ".*", "throughput"),)),
    Exhibit("A-tableIV", "Receive throughput", "lro", ("A8",), (Plot("bars", "throughput", "throughput"),)),
    Exhibit("A-tableV", "Cycles by byte received", "lro", ("A9",), (Plot("bars", "cycles/byte .*", "cycles by byte"),)),
    Exhibit("A-tableVI", "Packets merged into one", "lro", ("A10",), (Plot("metrics", ".*", "segments by packet"),)),
    Exhibit("A-tableVII", "Request and response", "lro", ("A11",), (Plot("bars", ".*", "transactions"),)),
    Exhibit("A-delay", "Delay that merging adds (section III)", "lro", ("A12",), (Plot("metrics", ".*", "us"),)),
    Exhibit("A-consolidation", "Several guests with competing load (the paper's future work)", "consolidation", ("A16",),
            (Plot("bars", ".*", "throughput"),)),
    Exhibit("P-placements", "Driver domain on the guest's CPU, and on one of its own", "paths", ("P2", "P3", "P4")),
)

# Shape -> what it says. The bar that checks it is the experiment's, rows.bar(..., shape=its name).
SHAPES = {
    "high/none": "Menon, figure 5: Guest-high over Guest-none, throughput, at least 2.5",
    "high-ioc/high": "Menon, figure 5: Guest-high-ioc over Guest-high, throughput, at least 1.1",
    "all/none": "Menon, figure 5: Guest-high-ioc-sp over Guest-none, throughput, at least 3",
    "remap/copy": "Menon, figure 13: receiving packets of the MTU, remapping is worse than copying",
    "high-level/low-level": "Menon, figure 7: high-level NIC over a wire without offloads by low-level NIC, throughput, at least 1.5",
    "SETH/VETH": "SETH, tables 3 and 4: CPU by byte, SETH's by VETH's, at most 0.8",
    "DA/off": "LRO, table V: CPU by byte, delayed aggregation's by that without LRO, at most 0.5",
}


def owns(exhibit, ident):
    """Whether rows with this ID are the exhibit's."""
    return any(re.fullmatch(f"{own}[a-z]?", ident) for own in exhibit.idents)


def called(exhibit):
    """What one may call it."""
    return {exhibit.name.lower(), exhibit.name.partition("-")[2].lower(), *map(str.lower, exhibit.idents)}


def resolve(names, experiments):
    """What is meant by names on the command line: {experiment: IDs of the wanted rows, none: all}, in the experiments' order.
    ValueError names what is not known."""
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
