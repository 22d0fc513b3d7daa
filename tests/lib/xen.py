# SPDX-License-Identifier: BSD-3-Clause
"""A real Xen: hypervisor, dom0 and unprivileged guests, all in one emulated machine.

    with Dom0(folder) as dom0:                      # QEMU; Debian's Xen and kernel
        guest = dom0.create("u1", "pv", "bridge=xenbr0,script=vif-lab")
        guest.run("ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up")
        wire = dom0.netns("wire")
        print(dom0.run("xl list"))

dom0, its namespaces and its guests are ends as of lib.traffic: name, run(), spawn(), ping(), tmp. dom0 has a shell on its
second serial line, and the guests' consoles go through it. The image comes from scripts/xen_image.sh; vifd, vifctl,
vif-front and stream of the build folder are appended to it at each boot. Each virtual CPU is pinned, dom0's to the
first CPU and the guests' to the second one: unpinned, Xen's scheduler makes figures of the emulation's moods.

With counts=True, a plug-in of QEMU counts what each CPU executes: tests/xen/counts.c.
"""
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

from lib.guest import ROOT, Guest, GuestError, with_parent
from lib.vifd import program

IMAGE = ROOT / "build" / "xen"
SCRIPTS = ROOT / "packaging" / "xen"

# With nested paging, so that there are PVH guests, too.
CPU = "qemu64,+npt,+nrip-save"


class NoImage(Exception):
    """What is needed is not there; says what."""


def build_image():
    """Make sure that the image is there and newer than what it is made from. NoImage if it cannot be had here."""
    if not shutil.which("qemu-system-x86_64"):
        raise NoImage("no qemu-system-x86_64")
    done = subprocess.run([ROOT / "scripts" / "xen_image.sh", IMAGE], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode == 77:
        raise NoImage(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f"scripts/xen_image.sh: {done.stderr.strip()}")


def with_libraries(path):
    """A program and the libraries that it needs, as (source, path in the image)."""
    listed = subprocess.run(["ldd", path], check=True, text=True, capture_output=True).stdout
    yield path, f"bin/{Path(path).name}"
    for library in re.findall(r"(/[^ ]+) \(0x", listed):
        yield library, f"lib/{Path(library).name}"


def archive(files, path):
    """Make a cpio archive of (source, path in it)."""
    root = Path(f"{path}.d")
    for source, name in files:
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    with open(path, "wb") as output:
        names = "\n".join(str(found.relative_to(root)) for found in sorted(root.rglob("*")))
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names, text=True, check=True, stdout=output)
    shutil.rmtree(root)


def initramfs(folder):
    """dom0's: the image's, and what is under test."""
    more, path = Path(folder) / "more.cpio", Path(folder) / "dom0.cpio"
    archive(with_libraries(program("tests/xen/stream")), more)
    files = [(IMAGE / "domu.cpio", "domu/image"), (more, "domu/more")]
    for name in ("vifd", "vifctl", "front/vif-front", "tests/xen/stream"):
        files += with_libraries(program(name))
    files += [(script, f"etc/xen/scripts/{script.name}") for script in SCRIPTS.glob("vif-*")]
    files += [(ROOT / "scripts" / "xen_vif_lab", "etc/xen/scripts/vif-lab")]
    archive(files, more)
    with open(path, "wb") as output:
        for part in (IMAGE / "dom0.cpio", more):
            with open(part, "rb") as source:
                shutil.copyfileobj(source, output)
    more.unlink()
    return path


class Dom0(Guest):
    """Xen with a dom0 whose shell answers after wait() or the with statement. Everything in it ends with it.

    xen      more options of the hypervisor
    counts   whether to count instructions, see counts()
    """

    def __init__(self, folder, *, name="dom0", xen="", counts=False):
        build_image()
        self.name, self.tmp, self.folder, self.guests = name, "/tmp", Path(folder), {}
        self._pending, self._serial = b"", itertools.count()
        self._console, self._qmp_path = self.folder / f"{name}.console", self.folder / f"{name}.qmp"
        self._shell, line = socket.socketpair()
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none",
            "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", 2, "-m", "1536M",
            "-serial", f"file:{self._console}", "-chardev", f"socket,id=shell,fd={line.fileno()}",
            "-serial", "chardev:shell", "-qmp", f"unix:{self._qmp_path},server=on,wait=off",
            "-kernel", IMAGE / "xen",
            "-append", f"console=com1 com1=115200 dom0_mem=768M,max:768M dom0_max_vcpus=1 dom0_vcpus_pin noreboot=no {xen}",
            "-initrd", f"{IMAGE}/vmlinux console=hvc0 rdinit=/init panic=-1 quiet,{initramfs(folder)}",
        ]
        if counts:
            self._mark, self._counts = self.folder / f"{name}.mark", self.folder / f"{name}.counts"
            os.mkfifo(self._mark)
            command += ["-plugin", f"{program('tests/xen/libcounts.so')},mark={self._mark},out={self._counts}"]
        self._log = open(self.folder / f"{name}.qemu", "wb")
        with line:
            self.process = subprocess.Popen(with_parent(command), stdin=subprocess.DEVNULL, stdout=self._log,
                                            stderr=subprocess.STDOUT, pass_fds=[line.fileno()])

    def wait(self, timeout=150):
        super().wait(timeout)
        (self.folder / "dom0.cpio").unlink(missing_ok=True)
        return self

    def write(self, path, lines):
        """Make a file of lines; commands are one line themselves."""
        text = "\\n".join(lines) + "\\n"
        self.run(f"printf %b {shlex.quote(text)} >{path}")

    def create(self, name, kind, vif, memory=128, timeout=120):
        """Start a guest, "pv" or "pvh", with a network device as of xl-network-configuration(5) ("": none)."""
        config = [f'name="{name}"', f'type="{kind}"', 'kernel="/domu/vmlinux"', 'ramdisk="/domu/initramfs"', f"memory={memory}",
                  "vcpus=1", 'cpus="1"', 'extra="console=hvc0 rdinit=/init quiet"', f"vif=[{repr(vif) if vif else ''}]"]
        self.write(f"/domu/{name}.cfg", config)
        self.run(f"xl create /domu/{name}.cfg", timeout)
        self.guests[name] = Domain(self, name)
        return self.guests[name]

    def destroy(self, name):
        self.run(f"xl destroy {name}; rm -f /run/domu.{name} /var/log/xen/console/guest-{name}.log", 60)
        del self.guests[name]

    def netns(self, name):
        """Make a network namespace in dom0."""
        self.run(f"ip netns add {name} && ip -n {name} link set lo up")
        return Inside(self, name, f"ip netns exec {name} sh -c")

    def counts(self):
        """What each CPU has executed so far: [{"xen", "kernel", "module", "user": instructions, "cr3", "cr4", "invlpg":
        writes, "syscalls", "hypercalls": {number: times}}]. dom0's CPU is the first; Xen's work for a guest counts
        for the guest's CPU."""
        before = self._counts.stat().st_size if self._counts.exists() else 0
        mark = os.open(self._mark, os.O_RDWR) # does not wait for the other end
        try:
            os.write(mark, b"\n")
            return json.loads(self._next_counts(before))
        finally:
            os.close(mark)

    def _next_counts(self, before):
        end = time.monotonic() + 60
        while True:
            text = self._counts.read_text()[before:] if self._counts.exists() else ""
            if text.endswith("\n"):
                return text
            self._check_alive()
            if time.monotonic() > end:
                raise GuestError("the plug-in does not answer")
            time.sleep(0.01)


class Inside:
    """An end that dom0 reaches by a command: a namespace of it, or a guest."""

    def __init__(self, dom0, name, way):
        self.dom0, self.name, self.way, self.tmp = dom0, name, way, "/tmp"

    def run(self, command, timeout=20, check=True):
        return self.dom0.run(f"{self.way} {shlex.quote(' '.join(command.splitlines()))}", timeout, check)

    def spawn(self, command, log="/dev/null"):
        self.run(f"({command}) >{log} 2>&1 &")

    def address(self, address, interface="eth0"):
        self.run(f"ip addr add {address} dev {interface}; ip link set {interface} up")

    def ping(self, address, timeout=60):
        self.run(f"until ping -c 1 -W 1 {address}; do sleep 0.2; done", timeout)


class Domain(Inside):
    """A guest, reached over its console."""

    def __init__(self, dom0, name):
        super().__init__(dom0, name, None)
        self.tmp = "/tmp"

    def run(self, command, timeout=60, check=True):
        line = f"domu {self.name} {int(timeout)} {shlex.quote(' '.join(command.splitlines()))}"
        return self.dom0.run(line, timeout + 30, check)

    def console(self):
        return self.dom0.run(f"cat /var/log/xen/console/guest-{self.name}.log")
