# SPDX-License-Identifier: BSD-3-Clause
"""Cache misses of vifd by component, as table 5 of SETH has them: vifd runs in valgrind's callgrind, which simulates caches.

What this can tell: which parts of vifd's own code, the C library's copying included, miss how often by what they carry,
in a cache of a given size, whatever machine this is. What it cannot: valgrind sees one process and no kernel. So the
guest's copy_to_user, where SETH's cold misses go, is not in it, nor is mapping and unmapping, where VETH has the most.
Nobody else can evict or change a line of the simulated cache: a packet that another process has just written into a buffer
that vifd touched before is found in it, and cold misses are too few. Lines are known by virtual address: what is mapped
twice is in it twice. And vifd is some 50 times slower in there: how far TCP has opened its window, and so how many
buffers take turns, differs from run to run, and with trust=shared the receiver may get some copies, as any that is slow.
"""
import re
import subprocess

EVENTS = ("ILmr", "DLmr", "DLmw") # misses of the last level; all reads and writes
CACHES = ("--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=2097152,8,64") # the paper's second level: 2 MiB

# Source file or function -> component; the first that matches.
COMPONENTS = (
    ("copy", re.compile(r"mem(cpy|move)|pkt_copy_out")),
    ("back end", re.compile(r"src/(guest|snet)/")),
    ("zones", re.compile(r"src/zone/")),
    ("bridge", re.compile(r"src/bridge/")),
    ("packets, worker", re.compile(r"src/(pkt|port|offload)/")),
    ("rest", re.compile("")),
)
NAMES = [name for name, _ in COMPONENTS]


def command(out, *simulated):
    """What vifd is started with, to write its dumps to OUT.N. simulated: options of the caches, none: there are none."""
    return ["valgrind", "-q", "--tool=callgrind", *simulated, f"--callgrind-out-file={out}"]


def control(pid, what):
    """what: --zero, --dump"""
    done = subprocess.run(["callgrind_control", what, str(pid)], text=True, capture_output=True, timeout=60)
    if done.returncode or "Error" in done.stdout + done.stderr:
        raise OSError(f"callgrind_control {what}: {done.stdout}{done.stderr}")


def component(file, function):
    return next(name for name, pattern in COMPONENTS if pattern.search(f"{file} {function}"))


def by_component(text, counted=EVENTS):
    """Sums of these events in a dump of callgrind; a call's are counted in who is called."""
    names, where = {"f": {}, "n": {}}, {"fl": "", "fn": ""}
    sums, columns, called = dict.fromkeys(NAMES, 0), [], False
    for line in text.splitlines():
        if line.startswith("events:"):
            events = line.split()[1:]
            columns = [events.index(event) for event in counted]
        elif match := re.match(r"(c?)(fl|fi|fe|fn)=\((\d+)\)(?: (.*))?", line):
            calls, kind, number, name = match.groups()
            table = names["n" if kind == "fn" else "f"]
            if name is not None:
                table[number] = name
            if not calls:
                where["fn" if kind == "fn" else "fl"] = table.get(number, "")
        elif line.startswith("calls="):
            called = True
        elif line[:1] in "0123456789+-*" and line:
            costs = line.split()[1:]
            if not called:
                sums[component(where["fl"], where["fn"])] += sum(int(costs[i]) for i in columns if i < len(costs))
            called = False
    return sums
