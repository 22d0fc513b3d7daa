# SPDX-License-Identifier: BSD-3-Clause
"""A16, what the LRO paper leaves for later: receiving in several guests that compete for the host's CPU. A1, its table I
(of its predecessor): LRO and one guest.

                                                        ┌─ vhost-user ─ vif-front ── guest 1   10.90.0.11
    wire 10.90.0.1 ══ veth ══ nic0 ── AF_XDP ─ vifd ────┼─ ..                        ..
                                                        ├─ vhost-user ─ vif-front ── guest 8   10.90.0.18
                              a job that only computes  └─ vhost-user ─ vif-front ── echo      10.90.0.19
    wire 10.91.0.1 ══ veth ══ namespace native, the kernel's own stack, without GRO    10.91.0.2   Linux

    ─ wire's CPU ─            ─────────────────── host's CPU ───────────────────

Theory of operation. Each of 2, 4 or 8 guests receives a TCP stream from the wire, as fast as it can. Beside them one more
answers to one who waits for each answer, and a ray tracer takes all the CPU time that it is given: together with it the
host has more to do than it can. The streams go on while vifd's uplink is told to merge as in lro.py: not (off, the paper's
Xen), at every poll (poll, its LRO with backend optimisation), or by vifd's own law (auto). Guests are namespaces, each
behind a vif-front and a vhost-user channel, where vifd copies what they receive, as Xen does; so their kernels' time is
in their vif-fronts', and vifd's (driver) is its own. Two guests are looked at without that job, too (alone).

Table I is of one guest that has the CPU for itself.
"""
import os
import statistics
import subprocess
import time
from contextlib import ExitStack

from cpus import HOST_CPU, WIRE_CPU, PinnedNetns, cpu_ticks, need_two_cpus
from hosts import Front
from lib.guest import with_parent
from lib.vifd import Vifd, program
from lro import CONFIGS, Native
from rows import bar, interleave, number, row
from tcp import Connection

TITLE = "Several guests that receive and compete for the CPU (A16); LRO and one guest, table I (A1)"
BASE = "off"

MERGING = {BASE: CONFIGS[BASE], "poll": CONFIGS["BO"], "auto": CONFIGS["auto"]}
EARLIER = {"Linux": None, BASE: CONFIGS[BASE], "LRO": CONFIGS["LRO"]}
# Case -> how many guests receive, whether there is a job beside them
CASES = {"2 guests alone": (2, False), "2 guests": (2, True), "4 guests": (4, True), "8 guests": (8, True)}
MOST = "8 guests"
ECHO, PING, WRITE = 9, 4, 65536
RAMP, SETTLE = 0.5, 0.1 # seconds for streams to get going, and to get used to another way of merging

# Table I: throughput, Mb/s, and LRO rate
PAPER = {"throughput": {"Linux": 715.1, BASE: 569.0, "LRO": 606.0}, "LRO rate": {"Linux": 1, BASE: 1, "LRO": 2.65}}

# metric -> unit
METRICS = {"throughput": "Mb/s", "fairness": "share", "cycles/byte driver": "cycles", "cycles/byte guests": "cycles",
           "LRO rate": "segments", "transactions": "1/s"}

NOTES = (
    "A16: 2, 4 or 8 guests receive a TCP stream each; beside them one answers to a ping-pong, and a job takes what CPU time is left.",
    "throughput: of all streams together. fairness: Jain's index of their shares: 1 is all the same, 1/n one that has it all.",
    "transactions: of the ping-pong, 4 bytes there and back. LRO rate: segments by packet.",
    "driver: CPU time of all of vifd; guests: of all vif-fronts, with the guests' kernels but without their programs.",
    "A1: one guest, no job. Linux: a namespace that receives by itself, without GRO.")
WHY = {"A16": "The paper has no figures: it leaves consolidation for later. Without merging the guests' kernels take most of the host's "
              "CPU; with it a multiple arrives for less. The ping-pong does not suffer from that as long as nobody else wants the CPU "
              "(alone). With a job it does: the time that merging saves is the job's, and an echo that wakes up while it runs waits for "
              "the end of its time slice, some milliseconds. The more guests, the more rarely vifd gets the CPU and the more frames it "
              "finds then, which makes each cheaper without merging, too.",
       "A1": "A poll of vifd's finds more segments than one of the paper's NIC, which is a gigabit's: it merges more."}


class Sample(dict):
    """Figures by metric; printed as such. wire_busy: share of the wire's CPU"""

    def __init__(self, figures, wire_busy):
        super().__init__(figures)
        self.wire_busy = wire_busy

    def __str__(self):
        return ", ".join(f"{metric} {number(value)}" for metric, value in self.items())


class Consolidation:
    def __init__(self, lab, stack):
        self.folder, self.seconds = lab.folder, 0.4 if lab.quick else 1.0
        self.wire = stack.enter_context(PinnedNetns(lab.folder, "wire", WIRE_CPU))
        nic = stack.enter_context(PinnedNetns(lab.folder, "nic", HOST_CPU))
        self.wire.run(f"ip link add wire0 type veth peer name nic0 netns {nic.netns}")
        self.wire.address("wire0", "10.90.0.1/24")
        self.wire.receive_on_cpu("wire0")
        nic.run("ip link set nic0 addrgenmode none; ip link set nic0 up") # its kernel has nothing to say there
        commands = [f"guest add guest{index} vhost-user={lab.folder}/guest{index}.sock bridge=br0" for index in range(1, ECHO + 1)]
        self.vifd = stack.enter_context(
            Vifd(lab.folder, "set workers=1 idle-spin=off", "bridge add br0", *commands,
                 f"uplink add wire af-xdp=nic0 netns={nic.netns} bridge=br0 {MERGING[BASE]}", affinity=[HOST_CPU]))
        self.ends, self.fronts = {}, []
        for index in range(1, ECHO + 1):
            self.start_guest(stack, index)
        self.hz = self.vifd.ctl("profile")["tsc_hz"]
        self.native = Native(lab, stack, self.wire, 1, gro=False)
        self.wire.ping(self.native.address)

    def start_guest(self, stack, index):
        name = f"guest{index}"
        end = stack.enter_context(PinnedNetns(self.folder, name, HOST_CPU))
        self.fronts.append(Front(self.folder, stack, name, end, self.address(index), HOST_CPU, "--vhost-user"))
        self.wire.ping(self.address(index))
        self.ends[index] = end

    @staticmethod
    def address(index):
        return f"10.90.0.{10 + index}"

    def stream(self, end, address):
        return Connection(self.wire, end, address, ("write", "read"), WRITE)

    def sample(self, config, merging, streams, echo=None):
        """What the streams carry in self.seconds, whose uplink is told how to merge (None: it is not vifd's)."""
        if merging:
            self.vifd.ctl(f"uplink set wire {merging}")
        time.sleep(SETTLE)
        before = self.look(merging, streams, echo)
        time.sleep(self.seconds)
        spent = {name: after - before[name] for name, after in self.look(merging, streams, echo).items()}
        octets = [spent[stream] for stream in range(len(streams))]
        if not sum(octets):
            raise OSError(f"{config}: nothing arrives")
        figures = {"throughput": sum(octets) * 8 / spent["clock"] / 1e6,
                   "LRO rate": spent["segments"] / spent["packets"] if spent["packets"] else 1} # off: nothing was to be merged
        if merging:
            figures["cycles/byte driver"] = spent["driver"] * self.hz / sum(octets)
            figures["cycles/byte guests"] = spent["guests"] * self.hz / sum(octets)
        if echo:
            figures["fairness"] = sum(octets) ** 2 / len(octets) / sum(each * each for each in octets)
            figures["transactions"] = spent["echo"] / PING / spent["clock"]
        return Sample(figures, 1 - spent["idle"] / os.sysconf("SC_CLK_TCK") / spent["clock"])

    def look(self, merging, streams, echo):
        told = {"clock": time.monotonic(), "idle": cpu_ticks(WIRE_CPU)[1]}
        told.update({index: stream.look()["bytes"] for index, stream in enumerate(streams)})
        if echo:
            told["echo"] = echo.look()["bytes"]
        if not merging:
            return {**told, **self.native.look()}
        lro = self.vifd.ctl("show lro wire")[0]
        return {**told, "segments": lro["segments"], "packets": lro["packets"], "driver": self.vifd.cpu_seconds(),
                "guests": sum(front.cpu_seconds() for front in self.fronts)}

    def alone(self, config):
        """Table I: one guest, or Linux."""
        end, address = (self.ends[1], self.address(1)) if EARLIER[config] else (self.native.end, self.native.address)
        with self.stream(end, address) as stream:
            time.sleep(RAMP)
            return self.sample(config, EARLIER[config], [stream])

    def together(self, case, rounds, say):
        """All samples of a case: {configuration: [Sample]}."""
        count, busy = CASES[case]
        with ExitStack() as stack:
            if busy:
                job = subprocess.Popen(with_parent(["taskset", "-c", HOST_CPU, program("lab/ray"), "alone", 1 << 30]))
                stack.callback(job.wait)
                stack.callback(job.kill)
            streams = [stack.enter_context(self.stream(self.ends[index], self.address(index))) for index in range(1, count + 1)]
            echo = stack.enter_context(Connection(self.wire, self.ends[ECHO], self.address(ECHO), ("ping", "echo"), PING))
            time.sleep(2 * RAMP)
            return interleave(rounds, list(MERGING), lambda config: self.sample(config, MERGING[config], streams, echo), say)


def figures_of(samples, config, metric):
    return [sample[metric] for sample in samples[config] if metric in sample]


def rows_of(alone, together):
    rows = [row("A1", config, metric, METRICS[metric], PAPER[metric][config], figures_of(alone, config, metric))
            for metric in PAPER for config in EARLIER]
    for metric, unit in METRICS.items():
        for case, samples in together.items():
            rows += [row("A16", config, f"{metric}, {case}", unit, None, figures_of(samples, config, metric)) for config in MERGING]
    return rows


def bars_of(together):
    """What must be reached with the most guests: with auto they receive no less than without, nor does it favour one."""
    samples = together[MOST]

    def against(metric, **limit):
        return bar("A16", "auto", f"{metric}, {MOST}", figures_of(samples, "auto", metric), None,
                   (BASE, figures_of(samples, BASE, metric)), **limit)

    return [against("throughput", least=1), against("fairness", least=0.8)]


def run(lab):
    """Run the experiment; its rows."""
    need_two_cpus()
    before = os.sched_getaffinity(0)
    lab.stack.callback(os.sched_setaffinity, 0, before)
    os.sched_setaffinity(0, {WIRE_CPU})
    lab.notes += NOTES
    with ExitStack() as stack:
        lab.say(f"consolidation: a vifd and {ECHO} guests")
        consolidation = Consolidation(lab, stack)
        rounds = 3 if lab.quick else 9
        alone = interleave(rounds, list(EARLIER), consolidation.alone, lambda text: lab.say(f"one guest, {text}"))
        together = {case: consolidation.together(case, rounds, lambda text, case=case: lab.say(f"{case}, {text}")) for case in CASES}
    lab.notes.append("The wire's CPU, which must have time left, was busy: " + "; ".join(
        f"{case} " + ", ".join(f"{config} {statistics.median(one.wire_busy for one in samples[config]):.0%}" for config in MERGING)
        for case, samples in together.items()) + ".")
    lab.bars += bars_of(together)
    return rows_of(alone, together)
