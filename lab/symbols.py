# SPDX-License-Identifier: BSD-3-Clause
"""S7, table 1 of SETH: what a host's CPU does while a guest sends to the wire and receives from it in bulk, by function.

The paper has eight functions of the driver domain and the hypervisor for each, by xenoprof. perf's cpu-clock interrupts
the host's CPU 5000 times a second of its own time, in a virtual machine, too. A sample has the functions that were entered
and not left yet, and so it can be told what the kernel was doing for whom:

    what                 here                                      the paper's
    grant operations     madvise() of channel=remap                do_grant_table_op, hypercall, hypercall_page
    copy                 memcpy() in vifd                          gnttab_copy
    NIC                  system calls of the uplink's sockets      tg3_poll, tg3_start_xmit_dma_bug
    back end             vifd's snet                               net_tx_action, net_rx_action
    segmentation         vifd's offload driver                     skb_segment
    wake-ups             epoll_wait(), eventfds                    -
    rest of vifd         bridge, worker, ..                        -
    front end            vif-front                                 -
    program              the one that sends or receives            -
    rest                 whoever else runs on this CPU             -

Shares are of samples that were not idle. The paper's are of functions that it chose to show: they do not add up.
"""
import re
import subprocess
import time
from collections import Counter

from cpus import HOST_CPU
from hosts import SHARED
from lib.guest import with_parent
from rows import row
from tcp import Connection

HERTZ, RAMP, WRITE, FUNCTIONS = 4999, 0.3, 65536, 8
LOADS = {"sending": ("a", "wire"), "receiving": ("wire", "a")}

# What a sample of vifd is of: the first that one of its functions matches.
OPERATIONS = {
    "grant operations": re.compile(r"madvise"),
    "NIC": re.compile(r"sys_(send|recv|poll|bpf|setsockopt)|xsk_"),
    "wake-ups": re.compile(r"epoll|eventfd|sys_(write|read)|futex|nanosleep"),
    "copy": re.compile(r"mem(cpy|move)|pkt_copy"),
    "back end": re.compile(r"^(snet|zone|slab|channel)_"),
    "segmentation": re.compile(r"^(tso|offload|csum|sum|linear)_"),
    "rest of vifd": re.compile(""),
}
WHOSE = {"vif-front": "front end", "tcp_end": "program"}
NAMES = [*OPERATIONS, *WHOSE.values(), "rest"]

PAPER = {("sending", "grant operations"): 5.33 + 3.35 + 3.17, ("sending", "NIC"): 5.14 + 3.91, ("sending", "back end"): 3.64,
         ("sending", "segmentation"): 3.04, ("receiving", "grant operations"): 3.37 + 2.70 + 2.58, ("receiving", "copy"): 8.98,
         ("receiving", "NIC"): 3.48, ("receiving", "back end"): 2.92 + 2.33}


def operation(program, chain):
    """What a sample is of, None: the CPU was idle. chain: functions, the innermost first."""
    if program.startswith("vifd"):
        return next(name for name, pattern in OPERATIONS.items() if any(map(pattern.search, chain)))
    if program.startswith("swapper") and not any("softirq" in function for function in chain):
        return None
    return WHOSE.get(program, "rest")


def parse(text):
    """Samples in what `perf script -F comm,ip,sym` says: program and chain of each."""
    for sample in text.split("\n\n"):
        program, *frames = sample.strip().split("\n")
        if frames:
            yield program.strip(), [frame.split(maxsplit=1)[-1] for frame in frames]


def shares(samples):
    """Percent of what was not idle: by operation, and by function of vifd and the kernel for it."""
    operations, functions, total = Counter(), Counter(), 0
    for program, chain in samples:
        name = operation(program, chain)
        if name:
            total += 1
            operations[name] += 1
            if program.startswith("vifd"):
                functions[chain[0]] += 1
    return [{name: 100 * count / max(1, total) for name, count in counts.items()} for counts in (operations, functions)]


def record(path, seconds):
    """What perf sees on the host's CPU."""
    subprocess.run(with_parent(["perf", "record", "-q", "-e", "cpu-clock", "-F", HERTZ, "-g", "-C", HOST_CPU, "-o", path,
                                "sleep", seconds]), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    said = subprocess.run(["perf", "script", "-i", path, "-F", "comm,ip,sym"], text=True, capture_output=True, check=True)
    path.unlink()
    return said.stdout


def measure(lab, hosts):
    """{(sending or receiving, configuration): [shares()]} of hosts, {configuration: hosts.Vif}."""
    taken = {}
    for load, (source, sink) in LOADS.items():
        for config, host in hosts.items():
            with Connection(host.end(source), host.end(sink), host.address(sink), ("write", "read"), WRITE):
                time.sleep(RAMP)
                taken[load, config] = [shares(parse(record(lab.folder / "perf.data", 0.4 if lab.quick else 0.8)))
                                       for _ in range(3 if lab.quick else 5)]
            lab.say(f"{load}, {config}: " + ", ".join(f"{name} {taken[load, config][-1][0].get(name, 0):.1f} %" for name in NAMES))
    return taken


def rows_of(taken):
    rows = []

    def add(load, config, name, which, paper=None):
        values = [sample[which].get(name, 0) for sample in taken[load, config]]
        rows.append(row("S7", config, f"{load}: {name}", "%", paper, values))

    for load, config in taken:
        for name in NAMES:
            paper = PAPER.get((load, name)) if config != SHARED else None
            add(load, config, name, 0, paper and round(paper, 2))
    for load, config in taken:
        if config != SHARED:
            total = sum((Counter(sample[1]) for sample in taken[load, config]), Counter())
            for name, _ in total.most_common(FUNCTIONS):
                add(load, config, name, 1)
    return rows
