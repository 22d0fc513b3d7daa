# SPDX-License-Identifier: BSD-3-Clause
"""What the bench takes from the machine, and gives back.

Everything that outlives a function (a process, a network namespace, hugepages, a folder of sockets) is taken
through a Host, which is an ExitStack: leaving it, for whatever reason, gives everything back in reverse order.
Switches run in namespaces of their own, so that no interface of theirs is ever seen in the machine's.
"""

import contextlib
import itertools
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import time

HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
OUT = pathlib.Path(__file__).resolve().parent / "out"


class BenchError(Exception):
    """A row cannot be measured; the message says why."""


class Host(contextlib.ExitStack):
    """A set of things taken from the machine."""

    serial = itertools.count()

    def __init__(self):
        super().__init__()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="vifd-bench-"))
        self.callback(shutil.rmtree, self.dir, ignore_errors=True)
        (OUT / "log").mkdir(parents=True, exist_ok=True)

    def netns(self, what):
        """A new network namespace, its loopback up and without IPv6's chatter. Returns its name."""
        name = f"vifd-bench-{os.getpid()}-{next(self.serial)}-{what}"
        run("ip", "netns", "add", name)
        self.callback(run, "ip", "netns", "del", name, check=False)
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6", netns=name, check=False)
        return name

    def hugepages(self, mib):
        """Reserve that much memory in 2 MiB pages, on top of what others have."""
        before, count = int(HUGEPAGES.read_text()), mib // 2
        HUGEPAGES.write_text(str(before + count))
        got = int(HUGEPAGES.read_text()) - before
        self.callback(lambda: HUGEPAGES.write_text(str(int(HUGEPAGES.read_text()) - got)))
        if got < count:
            raise BenchError(f"only {got} of {count} hugepages to be had: not enough free memory")

    def spawn(self, log, *argv, netns=None, cpu=None, env=None, **options):
        """Start a process that ends with the Host; its stderr (stdout too, unless asked for) goes to a log."""
        prefix = ["setpriv", "--pdeathsig", "KILL"]
        if cpu is not None:
            prefix += ["taskset", "-c", str(cpu)]
        if netns:
            prefix += ["ip", "netns", "exec", netns]
        with open(OUT / "log" / f"{log}.log", "wb") as file:
            options.setdefault("stdin", subprocess.DEVNULL)
            options.setdefault("stdout", file)
            process = subprocess.Popen(prefix + [str(arg) for arg in argv], stderr=file,
                                       start_new_session=True, env={**os.environ, **(env or {})},
                                       **options)
        process.log = OUT / "log" / f"{log}.log"
        self.callback(stop, process)
        return process


def run(*argv, netns=None, check=True, timeout=30):
    """Run a command to its end and return what it printed."""
    argv = [str(arg) for arg in argv]
    if netns:
        argv = ["ip", "netns", "exec", netns] + argv
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(argv)}: no end after {timeout} s") from error
    if check and done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def stop(process):
    """End a process, patiently first; a paused one too."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def wait_for(what, condition, process=None, seconds=20):
    """Wait until condition() is true; a process whose end makes waiting pointless may be named."""
    end = time.monotonic() + seconds
    while not condition():
        if process and process.poll() is not None:
            raise BenchError(f"{what}: the process ended:\n{log_tail(process)}")
        if time.monotonic() > end:
            raise BenchError(f"{what}: not within {seconds} s" +
                             (f":\n{log_tail(process)}" if process else ""))
        time.sleep(0.02)


def log_tail(process):
    """The last lines that a process logged."""
    return "\n".join("    " + line for line in
                     process.log.read_text(errors="replace").splitlines()[-8:])


def ask(process, question, seconds=20):
    """Send a line to a process that answers every line with one, and return the answer."""
    try:
        process.stdin.write(question + "\n")
        process.stdin.flush()
    except BrokenPipeError as error:
        raise BenchError(f"{process.args[-1]} ended:\n{log_tail(process)}") from error
    return answer(process, seconds)


def answer(process, seconds=20):
    """The next line from such a process."""
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise BenchError(f"no answer within {seconds} s:\n{log_tail(process)}")
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"the process ended:\n{log_tail(process)}")
    return line


def cpu_seconds(pid):
    """User and system time that a process has used so far, all its threads, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's encoding of a process's CPU clock


def thread_times(process):
    """Of each thread of a process: seconds it ran, seconds it wanted to run and had no CPU."""
    times = {}
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        ran, waited, _ = (task / "schedstat").read_text().split()
        times[task.name] = (int(ran) / 1e9, int(waited) / 1e9)
    return times


def waited(before, after):
    """Between two thread_times(): how long the thread that ran the most was kept from running, in seconds."""
    growth = [(times[0] - before[task][0], times[1] - before[task][1])
              for task, times in after.items() if task in before]
    return max(growth)[1]


def pause(process):
    """Stop a process, and return when all its threads stand."""
    process.send_signal(signal.SIGSTOP)
    tasks = pathlib.Path(f"/proc/{process.pid}/task")
    wait_for("pause", lambda: all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
                                  for task in tasks.iterdir()), process)


def resume(process):
    """Let a paused process go on."""
    process.send_signal(signal.SIGCONT)
