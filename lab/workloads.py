# SPDX-License-Identifier: BSD-3-Clause
"""S31, table 6 and figure 11 of SETH: what programs gain that do not only communicate; S7, table 1: which functions a host
spends its time in, when a guest sends and receives in bulk.

                     host's CPU                     |            wire's CPU
     a  ray tracer 0, MariaDB, or a lonely job      |
     c  web server                             ═ vifd or bridge ═  wire  ray tracer 1, visitors of the web server
                                                    |              b     sysbench

    workload                     the paper's
    ray tracing                  RayTracing: a parallel program on two computers
    ray tracing + file server    RayTracing + FTPServ.: one of them also has a guest that serves files
    OLTP                         Sysbench OLTP: MySQL in a guest, clients on the network
    CPU job + web server         RUBiS + SPEC CPU: the time of programs that only compute, beside a guest that serves pages

Theory of operation. The configurations are those of hosts.py. What is looked at is the time of the work, as in the
paper, and what of it is CPU time of vifd (driver). The ray tracer (ray.c) swaps half of its picture with the other node
pass by pass, and checks it: all configurations have to render the same. The web server sends as much by second in all
configurations, since the paper's wire is slow enough to be what limits it there, while time is what the work beside it
has left. How much that is comes from the paper's shares of CPU, measured once with VETH and nothing beside it: what a guest
sends in bulk takes 47 % of the host's CPU (table 3 has 94.5 of 200 %), and so do pages, of which the paper tells no
figure. Visitors come so many times a second, whether those before them are done or not.

Table 1 counts samples by function, of xenoprof there, of perf here (symbols.py).
"""
import os
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import symbols
from cpus import HOST_CPU, WIRE_CPU, PinnedNetns, cpu_ticks, need_two_cpus
from hosts import BASE as NATIVE
from hosts import CONFIGS, SHARED, VIFDS, Native, Vif
from lib.sweep import MEMORY
from rows import bar, interleave, number, row
from workload_programs import Database, RayTracing, WebServer, need_programs

TITLE = "SETH, table 6 and figure 11 (S31): workloads in guests, by how their packets get there; table 1 (S7)"
BASE = "VETH"
BASES = {"S7": "the paper's"} # shares of the CPU, as they are

# Workload -> the paper's: SETH's time by VETH's; from its text, which has throughput for OLTP, "performance" for the second.
PAPER = {"ray tracing": 0.944, "ray tracing + file server": round(1 / 1.11, 3), "OLTP": round(1 / 1.12, 3),
         "CPU job + web server": 0.96}
UNITS = {"ray tracing": "pass", "ray tracing + file server": "file", "OLTP": "transaction", "CPU job + web server": "page"}
SHARE = 94.51 / 200 # of the host's CPU
TRIAL = {"file": 50, "page": 300} # a second, to see what they cost

NOTES = (
    "time: of a pass of the ray tracer, of a transaction with 8 threads, less is better. The paper's: figure 11, by its text.",
    "driver: CPU time of all of vifd by pass, transaction, file or page; native's is the kernel's, which nobody counts. sleeps: how",
    "often vifd slept, and was woken again.",
    "served: what the web server beside it sends in each configuration; it should be the same, or time says nothing.",
    "Table 1: share of the host's busy CPU in VETH, by perf; the paper's function that does the same, and its share, beside it.",
    "Its cache misses by function need a counter that virtual machines do not have; those of vifd's parts, simulated, are in table 5.")
WHY = {"S31": "A host's time here is the program's for the most part, as in the paper, so that even half of the driver's CPU time is "
              "some percent of the work's. What must hold is the driver's CPU time by unit of work.",
       "S7": "The paper shows eight functions, and these are all functions that do the same, together. Its NIC is no pair of virtual "
             "interfaces, where the kernel sends by copying and the far end receives within the system call. And VETH's system "
             "calls do more than a hypercall has to, a page fault's work for each page; nothing cheaper stands for it."}
WAKING = (
    "Some 45 packets a transaction, most of 100 bytes, one after the other: what vifd does with them costs next to nothing, to wake "
    "it and to put it to sleep is nearly all of its time. A guest that got a packet by reference gives it back when it has read "
    "it, and vifd, which waits for that on behalf of the sender, is woken once more; with SETH-isolated there is a copy, and nothing "
    "to give back. And where VETH takes longer for a packet, the next one comes before vifd sleeps. By transaction, driver in ms, and "
    "how often vifd slept:")


class Sample(dict):
    """Figures by metric; printed as such."""

    def __str__(self):
        return ", ".join(f"{metric} {number(value)}" for metric, value in self.items())


class Workloads:
    def __init__(self, lab, stack):
        self.lab = lab
        self.passes, self.seconds = (16, 1) if lab.quick else (32, 2)
        memory = tempfile.mkdtemp(prefix=f"vifd-{os.getpid()}-", dir=MEMORY)
        stack.callback(shutil.rmtree, memory, ignore_errors=True)
        self.wire = stack.enter_context(PinnedNetns(lab.folder, "wire", WIRE_CPU))
        self.hosts, self.databases, self.servers = {}, {}, {}
        for index, config in enumerate(CONFIGS, 1):
            lab.say(f"workloads: {config}")
            host = (Vif if CONFIGS[config] else Native)(lab.folder, stack, config, index, self.wire, guests="abc")
            self.hosts[config], self.databases[config] = host, Database(host, Path(memory))
            self.servers[config] = WebServer(host, Path(memory))
        self.picture, seconds = RayTracing(self.hosts[BASE], self.passes, alone=True).run()
        lab.say(f"workloads: the picture is {self.picture}, {number(seconds * 1e3)} ms a pass by one node alone")
        self.set_loads()

    def set_loads(self):
        """How much the web servers send: what takes VETH its share of the host's CPU."""
        self.rates = {name: SHARE * self.rate_by_share(name) for name in WebServer.SIZES}
        self.lab.notes.append("Asked for, by the second: " + ", ".join(
            f"{number(rate)} of a {name} of {WebServer.SIZES[name] >> 10} KiB" for name, rate in self.rates.items()) + ".")
        self.lab.say(f"workloads: {self.lab.notes[-1]}")

    def rate_by_share(self, name):
        """How many files a second VETH's web server sends, by the share of the host's CPU that this takes."""
        with self.servers[BASE].visitors(name, TRIAL[name]) as visitors:
            time.sleep(0.3)
            before, start, (busy, idle) = visitors.bytes_fetched(), time.monotonic(), cpu_ticks(HOST_CPU)
            time.sleep(1)
            octets, seconds = visitors.bytes_fetched() - before, time.monotonic() - start
            busy, idle = (now - then for now, then in zip(cpu_ticks(HOST_CPU), (busy, idle)))
        return octets / WebServer.SIZES[name] / seconds * (busy + idle) / busy

    def look(self, config):
        """What vifd has done so far: ms of CPU time, and how often it has slept."""
        if config == NATIVE:
            return {}
        vifd = self.hosts[config].vifd
        return {"driver": vifd.cpu_seconds() * 1e3, "sleeps": vifd.ctl("show workers")[0]["sleeps"]}

    def sample(self, config, milliseconds, count, before, **more):
        """milliseconds and count of units of work, and look() before it."""
        after = self.look(config)
        return Sample({"time": milliseconds, **{name: (after[name] - before[name]) / count for name in after}, **more})

    def render(self, config, alone=False):
        picture, seconds = RayTracing(self.hosts[config], self.passes, alone).run()
        if picture != self.picture:
            raise OSError(f"{config}: the picture is {picture}, and should be {self.picture}")
        return seconds * 1e3

    def ray_tracing(self, config):
        before = self.look(config)
        return self.sample(config, self.render(config), self.passes, before)

    def oltp(self, config):
        before = self.look(config)
        count, seconds = self.databases[config].run(self.seconds)
        return self.sample(config, seconds * 1e3, count, before)

    def beside(self, config, name, alone):
        """Rendering beside the web server."""
        with self.servers[config].visitors(name, self.rates[name]) as visitors:
            time.sleep(0.2)
            before, fetched, start = self.look(config), visitors.bytes_fetched(), time.monotonic()
            milliseconds = self.render(config, alone)
            count = (visitors.bytes_fetched() - fetched) / WebServer.SIZES[name]
            return self.sample(config, milliseconds, count, before, served=count / (time.monotonic() - start))

    def ray_tracing_and_files(self, config):
        return self.beside(config, "file", alone=False)

    def job_and_pages(self, config):
        return self.beside(config, "page", alone=True)


def measure(lab):
    """All samples, {workload: {configuration: [Sample]}}; and of table 1, what symbols.measure() returns."""
    with ExitStack() as stack:
        workloads = Workloads(lab, stack)
        taken = {}
        each = (workloads.ray_tracing, workloads.ray_tracing_and_files, workloads.oltp, workloads.job_and_pages)
        for name, sample in zip(PAPER, each):
            taken[name] = interleave(3 if lab.quick else 5, list(CONFIGS), sample, lambda text, name=name: lab.say(f"{name}, {text}"))
        return taken, symbols.measure(lab, {config: workloads.hosts[config] for config in (BASE, SHARED)})


def figures_of(samples, config, metric):
    return [sample[metric] for sample in samples[config] if metric in sample]


def rows_of(taken):
    rows = []
    for name, samples in taken.items():
        metrics = [("time", f"{name}: time", "ms"), ("driver", f"{name}: driver by {UNITS[name]}", "ms"),
                   ("sleeps", f"{name}: vifd's sleeps by {UNITS[name]}", "times")]
        if "server" in name:
            metrics.append(("served", f"{name}: served", f"{UNITS[name]}s/s"))
        for metric, title, unit in metrics:
            ratios = {BASE: 1, SHARED: PAPER[name]} if metric == "time" else {}
            for config in CONFIGS:
                values = figures_of(samples, config, metric)
                more = {"paper_ratio": ratios[config]} if config in ratios else {}
                if values:
                    rows.append(row("S31", config, title, unit, None, values, **more))
    return rows


def bars_of(taken, explain):
    """The work must not take longer than with VETH, and the driver's CPU time for it must be less."""
    bars = []
    for name, samples in taken.items():
        for metric, title, most, paper in (("time", "time", 1, PAPER[name]), ("driver", f"driver by {UNITS[name]}", 0.8, None)):
            bars.append(bar("S31", SHARED, f"{name}: {title}", figures_of(samples, SHARED, metric), paper,
                            (BASE, figures_of(samples, BASE, metric)), most=most))
            if name == "OLTP":
                explain(bars[-1], WAKING, {config: {metric: statistics.median(figures_of(samples, config, metric))
                                                    for metric in ("driver", "sleeps")} for config in VIFDS})
    return bars


def run(lab):
    """Run the experiment; its rows."""
    need_two_cpus()
    need_programs()
    before = os.sched_getaffinity(0)
    lab.stack.callback(os.sched_setaffinity, 0, before)
    os.sched_setaffinity(0, {WIRE_CPU})
    lab.notes += NOTES
    taken, counted = measure(lab)
    lab.bars += bars_of(taken, lab.explain)
    return rows_of(taken) + symbols.rows_of(counted)
