# SPDX-License-Identifier: BSD-3-Clause
"""A vifd of one's own, and network namespaces for its uplinks.

    with Vifd(folder, "bridge add br0", "guest add web vhost-user=/run/x/web.sock bridge=br0") as vifd:
        print(vifd.ctl("show fdb"))             # as vifctl -j: a list of dictionaries
        print(vifd.stats("web")["recv_packets"])

    with Netns(folder, "wire") as wire:
        vifd.ctl(f"uplink add wire tap=eth0 netns={wire.netns} bridge=br0")
        wire.address("eth0", "10.0.0.9/24")
        wire.ping("10.0.0.1")

The programs come from the build folder named by VIFD_BUILD, or build/ of this checkout. Standard library only: demo and
bench use this file as well. Everything here ends with its with statement, and by the kernel's hand if we are killed;
only a namespace of a killed process stays (`ip netns del`).
"""
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from lib.guest import ROOT, with_parent
from lib.traffic import Wire, cpu_seconds

BUILD = Path(os.environ.get("VIFD_BUILD", ROOT / "build"))
CLONE_NEWNET = 0x40000000
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer")


def program(name):
    """Path of a built program, wherever in the build folder meson puts it."""
    for path in (BUILD / name, BUILD / "src" / name):
        if path.exists():
            return path
    raise FileNotFoundError(f"no {name} in {BUILD}: build it first, or name the folder in VIFD_BUILD")


class VifdError(Exception):
    """vifd did not start or did not end as it should, or refused a command; status is vifctl's or vifd's."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


class Vifd:
    """One running vifd. Its control socket and its log, NAME.log, are in folder.

    commands  what it runs at the start, one argument each
    options   more arguments in front of the commands, such as ("--socket-path=...",)
    affinity  CPUs that it may use, None: all
    file      descriptors that it inherits (for --fd=N)
    wrapper   a program that runs it, with arguments
    """

    def __init__(self, folder, *commands, name="vifd", options=(), affinity=None, file=(), wrapper=()):
        self.socket = f"{folder}/{name}.ctl"
        self.log_path = Path(folder) / f"{name}.log"
        self.commands, self.options, self.affinity, self.files = list(commands), list(options), affinity, file
        self.wrapper = list(wrapper)
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        if kind: # the test has failed already: say what vifd said, and hide nothing behind its exit status
            self.kill()
            print(f"--- {self.log_path}\n{self.log()}")
        else:
            self.stop()

    def start(self, timeout=10):
        """Start it and wait until it serves."""
        command = [*self.wrapper, program("vifd"), "-s", self.socket, *self.options, *self.commands]
        if self.affinity:
            command = ["taskset", "-c", ",".join(map(str, self.affinity)), *command]
        with open(self.log_path, "ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(with_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            pass_fds=self.files)
        end = time.monotonic() + timeout
        while "vifd: ready" not in self.log()[begin:]:
            status = self.process.poll()
            if status is not None or time.monotonic() > end:
                self.kill()
                raise VifdError(f"vifd {'ended' if status is not None else 'is not ready'}: {self.log()[begin:]}",
                                status)
            time.sleep(0.01)

    def stop(self, timeout=10):
        """SIGTERM, which must end it promptly and cleanly."""
        if not self.process:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise VifdError(f"vifd does not end: {self.log()}") from None
        self.process = None
        if status != 0 or SANITIZER.search(self.log()):
            raise VifdError(f"vifd ended with {status}: {self.log()}", status)

    def kill(self):
        """kill -9, as a crash would be."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def cpu_seconds(self):
        """CPU time that all its threads have used."""
        return cpu_seconds(self.pid)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def vifctl(self, *words, timeout=20):
        """Run vifctl with these words; the completed process."""
        return subprocess.run([program("vifctl"), "-s", self.socket, *words], timeout=timeout, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True)

    def ctl(self, command):
        """Run a command, as one would type it; its JSON, None if it prints none. VifdError if vifd refuses."""
        done = self.vifctl("-j", *command.split())
        if done.returncode:
            raise VifdError(done.stderr.strip(), done.returncode)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def stats(self, port):
        """The counters of a port by name."""
        return self.ctl(f"show stats {port}")[0]

    def port_counters(self, port):
        """Packets and bytes taken in from a port."""
        stats = self.stats(port)
        return stats["recv_packets"], stats["recv_bytes"]

    def fdb(self, bridge="br0"):
        """Address -> row of a bridge's table."""
        return {row["mac"]: row for row in self.ctl(f"show fdb {bridge}")}


class Netns(Wire):
    """A network namespace, made here and deleted at the end with everything that runs in it."""

    def __init__(self, folder, name="wire"):
        super().__init__(f"vifd-{os.getpid()}-{name}", folder, name)

    def __enter__(self):
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        try:
            # Nobody may speak unless a test makes them: no router solicitations, no duplicate address detection.
            for key in ("accept_dad=0", "dad_transmits=0", "router_solicitations=0"):
                for which in ("all", "default"):
                    self.run(f"sysctl -q net.ipv6.conf.{which}.{key}")
            self.run("ip link set lo up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure):
        self.stop()
        subprocess.run(["ip", "netns", "del", self.netns], check=True)

    @contextlib.contextmanager
    def entered(self):
        """Let the calling thread be in the namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as back, open(f"/run/netns/{self.netns}") as there:
            if libc.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                libc.setns(back.fileno(), CLONE_NEWNET)

    def socket(self, *kind, timeout=20):
        """A socket of our own that lives in the namespace; arguments as for socket.socket()."""
        with self.entered():
            ours = socket.socket(*kind)
        ours.settimeout(timeout)
        return ours

    def address(self, interface, *addresses):
        """Give an interface addresses (with prefix length), and bring it up."""
        for address in addresses:
            self.run(f"ip address add {address} dev {interface}")
        self.run(f"ip link set {interface} up")

    def mac(self, interface):
        return self.run(f"cat /sys/class/net/{interface}/address").strip()

    def counter(self, interface, name):
        """One of the kernel's counters of an interface, as rx_packets."""
        return int(self.run(f"cat /sys/class/net/{interface}/statistics/{name}"))
