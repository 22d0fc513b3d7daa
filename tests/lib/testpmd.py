# SPDX-License-Identifier: BSD-3-Clause
"""dpdk-testpmd with virtio-user ports: a second front end, which has nothing in common with QEMU and Linux.

Runs without huge pages; its memory is then one memfd.
"""
import os
import re
import select
import subprocess
import time

from lib.guest import with_parent


class TestpmdError(Exception):
    pass


class Testpmd:
    """testpmd with one virtio-user port for each text of options, such as "path=/x.sock,queues=2,cq=1"."""

    __test__ = False # pytest: not a test class

    def __init__(self, ports, *options):
        devices = [f"--vdev=net_virtio_user{number},{text}" for number, text in enumerate(ports)]
        # both lcores float over the machine's CPUs
        eal = ["--lcores", "0@(0-{0}),1@(0-{0})".format(os.cpu_count() - 1), "--no-pci", "--no-huge", "-m", "256",
               "--no-telemetry", f"--file-prefix=vifd-{os.getpid()}-{id(self):x}"]
        self.process = subprocess.Popen(
            with_parent(["dpdk-testpmd", *eal, *devices, "--", "-i", "--nb-cores=1", "--total-num-mbufs=8192", *options]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._pending = b""
        try:
            self.greeting = self._prompt(30)
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def run(self, command, timeout=20):
        """A line to testpmd; what it printed up to the next prompt."""
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self._prompt(timeout)

    def bounce(self, seconds, bursts=1):
        """Each port sends so many bursts, and everything received on one port goes out on its neighbour, for some
        seconds. (received, sent) of each port."""
        self.run("clear port stats all")
        self.run(f"start tx_first {bursts}")
        time.sleep(seconds)
        self.run("stop")
        text = self.run("show port stats all")
        return list(zip(map(int, re.findall(r"RX-packets: (\d+)", text)), map(int, re.findall(r"TX-packets: (\d+)", text))))

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _prompt(self, timeout):
        deadline = time.monotonic() + timeout
        while b"testpmd> " not in self._pending:
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                data = os.read(self.process.stdout.fileno(), 65536)
                self._pending += data
                if not data:
                    raise TestpmdError(f"testpmd ended with {self.process.wait()}: {self._pending.decode()[-3000:]}")
            elif time.monotonic() > deadline:
                raise TestpmdError(f"no prompt from testpmd: {self._pending.decode()[-3000:]}")
        text, _, self._pending = self._pending.partition(b"testpmd> ")
        return text.decode(errors="replace")
