# SPDX-License-Identifier: BSD-3-Clause
"""What runs in the guests of workloads, and who talks to it.

Nothing here is a service of the system: every program is a child of ours, its data are in a folder in memory, and both are
gone at the end, or by the kernel's hand and the next run's sweep() if we are killed.
"""
import re
import shutil
import subprocess
import threading
import time

import tcp
from cpus import HOST_CPU, WIRE_CPU
from lib.guest import with_parent
from lib.vifd import program

OLTP = "exec sysbench oltp_read_write --db-driver=mysql --mysql-user=root --mysql-db=sbtest --tables=4 --table-size=10000"
OLTP_THREADS = 8
NEEDED = {"mariadbd": "mariadb-server-core", "sysbench": "sysbench", "perf": "linux-perf"}
WEB_PORT = 80
PIECE = 1 << 20
SLOTS = 8 # visitors of a web server at the same time


def need_programs():
    missing = [package for name, package in NEEDED.items() if not shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")]
    if missing:
        raise FileNotFoundError(f"this needs Debian's {', '.join(missing)}: install them, or run `make deps-lab`")


class RayTracing:
    """Two nodes, one in a guest on the host's CPU, the other one on the wire; or (alone) one node in the guest."""

    def __init__(self, host, passes, alone=False):
        self.host, self.passes, self.alone = host, passes, alone

    def run(self):
        """Render a picture; its checksum and the seconds by pass."""
        if self.alone:
            said = self.start(HOST_CPU, "alone", self.passes).communicate(timeout=120)[0]
        else:
            ends = tcp.pair(self.host.end("a"), self.host.end("wire"), self.host.address("wire"))
            nodes = [self.start(cpu, "node", end.fileno(), which, self.passes, inherited=end.fileno())
                     for which, (cpu, end) in enumerate(zip((HOST_CPU, WIRE_CPU), ends))]
            for end in ends:
                end.close()
            said, other = (node.communicate(timeout=120)[0] for node in nodes)
            if said.split()[:1] != other.split()[:1]:
                raise OSError(f"two nodes, two pictures: {said!r}, {other!r}")
        checksum, seconds = said.split()
        return checksum, float(seconds) / self.passes

    @staticmethod
    def start(cpu, *words, inherited=None):
        return subprocess.Popen(with_parent(["taskset", "-c", cpu, program("lab/ray"), *words]), text=True, stdout=subprocess.PIPE,
                                stdin=subprocess.DEVNULL, pass_fds=() if inherited is None else [inherited])


class Database:
    """MariaDB in guest a, and sysbench in guest b."""

    def __init__(self, host, memory):
        self.host = host
        folder = memory / f"{host.name}.mariadb"
        (folder / "sbtest").mkdir(parents=True) # which makes a database of that name
        log, server = host.folder / f"{host.name}-mariadb.log", host.end("a")
        # No accounts, for nobody else is in these namespaces. mysqld's own defaults are what it has otherwise.
        server.spawn(f"exec mariadbd --no-defaults --user=root --skip-grant-tables --skip-name-resolve --datadir={folder} "
                     f"--socket={folder}/socket --pid-file={folder}/pid --bind-address={host.address('a')} "
                     f"--innodb-buffer-pool-size=64M --innodb-log-file-size=32M", log)
        server.run(f"until grep -q 'ready for connections' {log}; do sleep 0.1; done")
        server.run(f"{OLTP} --mysql-socket={folder}/socket prepare", 60)

    def run(self, seconds):
        """Transactions; how many there were, and seconds by each."""
        said = self.host.end("b").run(f"{OLTP} --mysql-host={self.host.address('a')} --threads={OLTP_THREADS} --time={seconds} run",
                                      seconds + 30)
        count = int(re.search(r"transactions: +(\d+)", said)[1])
        return count, float(re.search(r"total time: +([\d.]+)s", said)[1]) / count


class WebServer:
    """busybox httpd in guest c, with a file and a page."""

    SIZES = {"file": 2 << 20, "page": 32 << 10}

    def __init__(self, host, memory):
        self.host, self.end = host, host.end("c")
        folder = memory / f"{host.name}.www"
        folder.mkdir()
        for name, size in self.SIZES.items():
            (folder / name).write_bytes(bytes(size))
        self.end.spawn(f"exec busybox httpd -f -p {WEB_PORT} -h {folder}")
        self.end.run(f"until grep -q ':{WEB_PORT:04X} .* 0A ' /proc/net/tcp*; do sleep 0.1; done")

    def visitors(self, name, rate=None):
        return Visitors(self.host, name, self.SIZES[name], rate)


class Visitors:
    """On the wire: fetch a file from the web server again and again, or (rate) so often a second, as far as it can keep
    up; to the end of the with statement."""

    def __init__(self, host, name, size, rate):
        self.wire, self.address, self.size, self.rate = host.end("wire"), host.address("c"), size, rate
        self.request = f"GET /{name} HTTP/1.0\r\n\r\n".encode()
        self.stopped, self.bytes, self.failure = False, [0] * SLOTS, None
        self.threads = [threading.Thread(target=self._visit, args=(slot,)) for slot in range(SLOTS if rate else 1)]

    def __enter__(self):
        self.start = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopped = True
        for thread in self.threads:
            thread.join()
        if self.failure and not kind:
            raise self.failure

    def bytes_fetched(self):
        return sum(self.bytes)

    def _visit(self, slot):
        buffer, turn = bytearray(PIECE), slot
        try:
            while not self.stopped:
                if self.rate:
                    time.sleep(max(0, self.start + turn / self.rate - time.monotonic()))
                    turn += SLOTS
                self._fetch(slot, buffer)
        except OSError as error:
            self.failure = error

    def _fetch(self, slot, buffer):
        with tcp.connect(self.wire, self.address, WEB_PORT) as conn:
            conn.send(self.request)
            total = 0
            while count := conn.recv_into(buffer):
                total += count
                self.bytes[slot] += count
                if self.stopped:
                    return
        if total < self.size:
            raise ConnectionError(f"the web server at {self.address} sent {total} bytes of {self.size}")
