# SPDX-License-Identifier: BSD-3-Clause
"""An emulated machine in which instructions are counted, those of its kernel, too: what no counter of a virtual machine's tells.

    with Machine(folder, cpus=3) as machine:
        machine.netns("a")
        machine.start("vifd", ...)
        before = machine.counts()       # of each CPU: tests/xen/counts.c

It boots the guests' kernel and image (scripts/guest_image.sh) with vifd and vif-front of the build folder. Its processes are
on the last CPU; what runs on the others has been put there, so that a CPU is a domain. Seconds mean nothing in there.
"""
import itertools
import os
import shlex
import socket
import subprocess
from pathlib import Path

from lib.guest import IMAGE, build_image, with_parent
from lib.vifd import program
from lib.xen import Dom0, archive, with_libraries

PROGRAMS = ("vifd", "vifctl", "front/vif-front")
MODULES = ("tun", "veth")
CPU = "max,-erms,-fsrm" # as guests have: one instruction is not to stand for a copy of any length


class Machine(Dom0):
    """Its shell answers after the with statement began. Everything in it ends with it."""

    def __init__(self, folder, cpus, name="machine"):
        build_image()
        self.name, self.tmp, self.folder, self.cpus = name, "/tmp", Path(folder), cpus
        self._pending, self._serial = b"", itertools.count()
        self._console, self._qmp_path = self.folder / f"{name}.console", self.folder / f"{name}.qmp"
        self._mark, self._counts = self.folder / f"{name}.mark", self.folder / f"{name}.counts"
        self._shell, line = socket.socketpair()
        os.mkfifo(self._mark)
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none",
            "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", cpus, "-m", "512M",
            "-serial", f"file:{self._console}", "-chardev", f"socket,id=shell,fd={line.fileno()}",
            "-serial", "chardev:shell", "-qmp", f"unix:{self._qmp_path},server=on,wait=off",
            "-kernel", IMAGE / "vmlinuz", "-initrd", self._initramfs(),
            "-append", f"console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check",
            "-plugin", f"{program('tests/xen/libcounts.so')},mark={self._mark},out={self._counts}"]
        self._log = open(self.folder / f"{name}.qemu", "wb")
        with line:
            self.process = subprocess.Popen(with_parent(command), stdin=subprocess.DEVNULL, stdout=self._log,
                                            stderr=subprocess.STDOUT, pass_fds=[line.fileno()])

    def _initramfs(self):
        """The guests', and in front of it what is measured."""
        modules = {path.stem: path for path in (IMAGE / "kernel").rglob("*.ko")}
        files = [(modules[name], f"lab/{name}.ko") for name in MODULES] + list(with_libraries("/bin/ip"))
        for name in PROGRAMS:
            files += with_libraries(program(name))
        path = self.folder / f"{self.name}.cpio"
        archive(files, path)
        path.write_bytes(path.read_bytes() + (IMAGE / "initramfs.gz").read_bytes())
        return path

    def wait(self, timeout=120):
        super().wait(timeout)
        (self.folder / f"{self.name}.cpio").unlink()
        self.run("mkdir -p /run /var; ln -s ../run /var/run; " + "".join(f"insmod /lab/{name}.ko; " for name in MODULES))
        self.run(f"for process in /proc/[0-9]*; do taskset -p {1 << self.cpus - 1:x} ${{process#/proc/}}; done", check=False)
        return self

    def start(self, what, cpu, *command):
        """Start a program on a CPU and wait until it says that it is ready; its log is /tmp/WHAT.log."""
        line = " ".join(map(shlex.quote, map(str, command)))
        self.run(f"taskset -c {cpu} {line} >/tmp/{what}.log 2>&1 & for i in $(seq 500); do grep -q ': ready' /tmp/{what}.log"
                 f" && exit 0; usleep 20000; done; cat /tmp/{what}.log; exit 1", 60)
