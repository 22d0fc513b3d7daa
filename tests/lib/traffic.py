# SPDX-License-Identifier: BSD-3-Clause
"""Traffic between two ends, each a guest (lib.guest.Guest) or a network namespace (Wire here).

An end has a name, run(command), spawn(command) and tmp, a folder of its own for files. Standard library only:
demo and bench use this file as well.
"""
import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from lib.guest import with_parent

_port = itertools.count(7000)


class EndError(Exception):
    pass


class Wire:
    """A network namespace that plays the far end of an uplink. It is the caller's; this only runs commands in it."""

    def __init__(self, netns, folder, name="wire"):
        self.netns, self.tmp, self.name = netns, str(folder), name
        self.children = []

    def _command(self, command):
        return with_parent(["ip", "netns", "exec", self.netns, "sh", "-c", command])

    def run(self, command, timeout=20, check=True):
        done = subprocess.run(self._command(command), timeout=timeout, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode and check:
            raise EndError(f"{self.name}: '{command}' ended with {done.returncode}: {done.stdout.strip()[-2000:]}")
        return done.stdout

    def spawn(self, command, log="/dev/null"):
        with open(log, "wb") as output:
            self.children.append(subprocess.Popen(self._command(command), stdin=subprocess.DEVNULL, stdout=output,
                                                  stderr=subprocess.STDOUT, start_new_session=True))

    def ping(self, address, timeout=15):
        self.run(f"until ping -c 1 -W 1 {address}; do sleep 0.2; done", timeout)

    def stop(self):
        for child in self.children:
            try:
                os.killpg(child.pid, signal.SIGKILL) # with what it started
            except ProcessLookupError:
                pass
            child.wait()
        self.children.clear()


def tcp_copy(source, sink, address, megabytes=8, timeout=120):
    """Send random bytes over TCP to address, which is sink's; AssertionError unless the hashes agree."""
    port = next(_port)
    name = f"{port}-{source.name}-{sink.name}"
    sent, got = f"{source.tmp}/{name}.sent", f"{sink.tmp}/{name}.got"
    # nc ends when either side has nothing more to say: a fifo keeps the sink's standard input open
    sink.run(f"rm -f {got}*; mkfifo {got}.in")
    sink.spawn(f"busybox nc -l -p {port} <>{got}.in | sha1sum >{got}.new; mv {got}.new {got}")
    source.run(f"dd if=/dev/urandom of={sent} bs=1M count={megabytes}")
    # nc gives up at once while nobody listens yet
    source.run(f"for try in 1 2 3 4 5 6 7 8 9; do busybox nc -w 5 {address} {port} <{sent} && exit 0; sleep 0.2; done;"
               f" exit 1", timeout)
    want = source.run(f"sha1sum <{sent}; rm {sent}").split()[0]
    have = sink.run(f"until [ -e {got} ]; do sleep 0.1; done; cat {got}; rm {got}*", timeout).split()[0]
    assert want == have, f"{source.name} sent {want}, {sink.name} received {have}"


def serve(sink):
    """Start the iperf3 server that iperf() talks to, unless it runs; it stays until the end stops."""
    listens = "grep -q ':1451 .* 0A ' /proc/net/tcp /proc/net/tcp6" # port 5201, TCP_LISTEN
    if "no" in sink.run(f"{listens} || echo no"):
        sink.spawn("iperf3 -s")
    sink.run(f"until {listens}; do sleep 0.1; done")


def iperf(source, address, seconds, options=""):
    """iperf3 from source to the server at address; its JSON."""
    command = f"iperf3 -J -c {address} -t {seconds} {options}"
    for _ in range(10): # the server may not listen yet, or still be busy with its last client
        text = source.run(command, seconds + 20, check=False)
        try:
            result = json.loads(text[text.index("{"):])
        except ValueError:
            raise EndError(f"{source.name}: '{command}' printed {text[-2000:]!r}") from None
        if "error" not in result:
            return result
        time.sleep(0.3)
    raise EndError(f"{source.name}: '{command}' says: {result['error']}")


def cpu_seconds(pid):
    """CPU time that a process has used, all its threads together."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            continue # a thread that ended while we looked
    return total / 1e9


def measure(source, sink, address, switch, seconds=4, options=""):
    """Carry a TCP stream from source to sink through switch, and tell what it cost there. options are iperf3's.

    switch has pid, and port_counters(end's name): packets and bytes that it has taken in from that end. The result
    is one member of "paths" in demo/out/results.json.
    """
    cpu, (packets, octets) = cpu_seconds(switch.pid), switch.port_counters(source.name)
    received = iperf(source, address, seconds, options)["end"]["sum_received"]
    cpu, (more_packets, more_octets) = cpu_seconds(switch.pid) - cpu, switch.port_counters(source.name)
    return {"from": source.name, "to": sink.name, "gbps": received["bits_per_second"] / 1e9,
            "vifd_ns_per_byte": cpu * 1e9 / received["bytes"],
            "mean_packet_bytes": (more_octets - octets) / max(1, more_packets - packets)}
