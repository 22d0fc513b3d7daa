# SPDX-License-Identifier: BSD-3-Clause
"""Who runs where, and how busy it was.

The papers saturate one CPU, which runs guest, driver domain and hypervisor, and talk to clients that have CPUs of their own. So
here one CPU is the host, with guests and vifd on it, and another one is the wire, at whatever end of it we play.
"""
import os
import shlex
from pathlib import Path

from lib.vifd import Netns

HOST_CPU, WIRE_CPU = 0, 1


class PinnedNetns(Netns):
    """A namespace whose commands stay on a CPU."""

    def __init__(self, folder, name, cpu):
        super().__init__(folder, name)
        self.cpu = cpu

    def _command(self, command):
        return super()._command(f"exec taskset -c {self.cpu} sh -c {shlex.quote(command)}")

    def receive_on_cpu(self, interface):
        """Have the kernel's receive path run on this CPU, too, not inside the write() of who sent the packet."""
        self.run(f"echo {1 << self.cpu:x} >/sys/class/net/{interface}/queues/rx-0/rps_cpus")


def need_two_cpus():
    if os.cpu_count() < 2:
        raise OSError("the host's CPU and the wire's make two, and there is one")


def cpu_ticks(cpu):
    """Ticks that a CPU has been busy and idle."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, ticks[:8])
            return user + nice + system + irq + softirq + steal, idle + iowait
    raise OSError(f"no CPU {cpu}")
