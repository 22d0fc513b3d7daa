# SPDX-License-Identifier: BSD-3-Clause
"""P3: the length of the path, in instructions by byte, the kernel's included: counted in an emulated machine (machine.py).

    native     a ══ veth ══ wire
    vifd       a ── vif-front ══ snet ── vifd ── TAP ── wire

    CPU 0: a and its vif-front; in `same CPU` vifd, too     CPU 1: in `separate CPU` vifd     CPU 2: wire, and who asks

Guest a sends to the wire (send), or receives from it, by iperf3; the sender's kernel makes frames of 1500 bytes. A CPU is a domain:
the receive path of a's interface is steered to CPU 0, the wire's to CPU 2. What iperf3 takes for next to nothing,
starting and ending, is taken off (the median of some); the clock's ticks are not.
"""
import statistics

from machine import Machine
from rows import interleave, number

DIRECTIONS = {"send": "", "receive": "-R"}
GUEST_CPU, DRIVER_CPU, WIRE_CPU = range(3)
DOMAINS = (GUEST_CPU, DRIVER_CPU)
KINDS = ("kernel", "module", "user")


class Counted(dict):
    """Figures by metric; printed as such."""

    def __str__(self):
        return ", ".join(f"{metric} {number(value)}" for metric, value in self.items())


class Counter:
    """A booted machine with all configurations in it. configs: {name: what `guest add` is told and vifd's CPU, or None}"""

    def __init__(self, lab, configs):
        self.megabytes = 8 if lab.quick else 16
        self.machine = lab.stack.enter_context(Machine(lab.folder, 3))
        self.places = {config: index for index, config in enumerate(configs)}
        for config, option in configs.items():
            self.connect(self.places[config], option)
        self.program = {direction: self.median_cost(direction) for direction in DIRECTIONS}

    def connect(self, index, option):
        a, wire, net, socket = f"a{index}", f"wire{index}", f"10.0.{index}", f"/tmp/{index}.sock"
        self.machine.netns(a)
        self.machine.netns(wire)
        if option:
            channel, cpu = option
            self.machine.start(f"vifd{index}", cpu, "vifd", "-s", f"/tmp/{index}.ctl",
                               "set workers=1 idle-spin=off", "bridge add br0", f"uplink add wire tap=wire0 netns={wire} bridge=br0",
                               f"guest add a snet={socket} {channel} bridge=br0")
            self.machine.start(f"front{index}", GUEST_CPU, "vif-front", "--connect", socket, "--netns", a, "--ip", f"{net}.1/24")
        else:
            self.machine.run(f"/bin/ip -n {a} link add eth0 type veth peer name wire0 netns {wire};"
                             f" /bin/ip -n {a} address add {net}.1/24 dev eth0; /bin/ip -n {a} link set eth0 up")
        self.machine.run(f"/bin/ip -n {wire} address add {net}.2/24 dev wire0; /bin/ip -n {wire} link set wire0 up")
        for name, interface, cpu in ((a, "eth0", GUEST_CPU), (wire, "wire0", WIRE_CPU)):
            self.inside(name, f"ethtool -K {interface} tso off gso off;"
                              f" echo {1 << cpu:x} >/sys/class/net/{interface}/queues/rx-0/rps_cpus")
        self.inside(wire, "iperf3 -s -D")
        self.inside(a, f"until ping -c 1 -W 1 {net}.2; do sleep 0.2; done")

    def median_cost(self, direction):
        """Of the program, by itself; it is in memory by then."""
        costs = [self.cost("native", direction, "1K") for _ in range(4)][1:]
        return [{kind: statistics.median(cost[cpu][kind] for cost in costs) for kind in costs[0][cpu]} for cpu in DOMAINS]

    def inside(self, name, command):
        self.machine.run(f"/bin/ip netns exec {name} sh -c '{command}'", 60)

    def cost(self, config, direction, size):
        """What each domain's CPU executes for so much: [{kind: instructions, "cr3": writes}]."""
        index = self.places[config]
        before = self.machine.counts()
        self.inside(f"a{index}", f"taskset -c {GUEST_CPU} iperf3 -n {size} -c 10.0.{index}.2 {DIRECTIONS[direction]}")
        after = self.machine.counts()
        return [{kind: after[cpu][kind] - before[cpu][kind] for kind in (*KINDS, "cr3")} for cpu in DOMAINS]

    def sample(self, config, direction):
        """Instructions by byte and switches by MiB of a configuration."""
        octets = self.megabytes << 20
        spent = self.cost(config, direction, f"{self.megabytes}M")
        for cpu in DOMAINS:
            for kind in spent[cpu]:
                spent[cpu][kind] -= self.program[direction][cpu][kind]

        def each(kinds, cpus=DOMAINS):
            return sum(spent[cpu][kind] for cpu in cpus for kind in kinds) / octets

        figures = {"instructions/byte": each(KINDS), "instructions/byte in user mode": each(["user"]),
                   "instructions/byte guest's CPU": each(KINDS, [GUEST_CPU])}
        if "separate" in config:
            figures["instructions/byte driver's CPU"] = each(KINDS, [DRIVER_CPU])
        figures["switches/MiB"] = max(0, each(["cr3"])) * (1 << 20)
        return Counted(figures)


def measure(lab, configs):
    """All samples: {direction: {configuration: [Counted]}}."""
    lab.say("paths: booting the machine that counts")
    counter = Counter(lab, configs)
    return {direction: interleave(3 if lab.quick else 5, list(configs), lambda config: counter.sample(config, direction),
                                  lambda text: lab.say(f"paths: counted, {direction}, {text}"))
            for direction in DIRECTIONS}


def ratio(samples, metric, config, base):
    """Of medians."""
    return statistics.median(one[metric] for one in samples[config]) / statistics.median(one[metric] for one in samples[base])
