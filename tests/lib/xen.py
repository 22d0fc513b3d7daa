# SPDX-License-Identifier: BSD-3-Clause
"""A real Xen: hypervisor, dom0 and unprivileged guests, all in one emulated machine.

    with Dom0(folder) as dom0:                          # QEMU; Debian's Xen and kernel
        guest = dom0.create("one", "pv", "10.0.0.2")
        wire = dom0.netns("wire")
        vifd = dom0.vifd("bridge add br0", "uplink add wire tap=wire0 netns=wire bridge=br0", "xen bridge=br0")
        wire.address("10.0.0.1/24", interface="wire0")
        guest.attach(VIFD)
        guest.ping("10.0.0.1")

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


# What a guest's network device is served by, in the words of xl.
NETBACK = "bridge=xenbr0 script=vif-lab"
VIFD = "script=vif-user type=vif"


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
        self.name, self.tmp, self.folder = name, "/tmp", Path(folder)
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

    def create(self, name, kind, ip, vif=None, memory=128):
        """Start a guest, "pv" or "pvh". vif: it has a network device from the beginning, of this back end (NETBACK, VIFD)."""
        guest = Domain(self, name, ip)
        device = f"'{','.join([f'mac={guest.mac}', *vif.split()])}'" if vif else ""
        self.write(f"/domu/{name}.cfg", [
            f'name="{name}"', f'type="{kind}"', 'kernel="/domu/vmlinux"', 'ramdisk="/domu/initramfs"', f"memory={memory}",
            "vcpus=1", 'cpus="1"', 'extra="console=hvc0 rdinit=/init quiet"', f"vif=[{device}]"])
        self.run(f"xl create /domu/{name}.cfg", 120)
        if vif:
            guest.use()
        return guest

    def destroy(self, guest):
        """Without asking it, as a crash would be."""
        self.run(f"xl destroy {guest.name}; rm -f /run/domu.{guest.name} /var/log/xen/console/guest-{guest.name}.log", 60)

    def netns(self, name):
        """Make a network namespace in dom0. (The shell has an ip of its own, which knows no namespaces.)"""
        self.run(f"/bin/ip netns add {name} && /bin/ip -n {name} link set lo up")
        return Inside(self, name, f"/bin/ip netns exec {name} sh -c")

    def vifd(self, *commands):
        """Start a vifd in dom0."""
        return Dom0Vifd(self, *commands)

    def start_netback(self, address):
        """Load the kernel's back end, and make it a bridge, on which dom0 has the address."""
        self.run("modprobe xen-netback && ip link add xenbr0 type bridge")
        self.address(address, interface="xenbr0")

    def stop_netback(self):
        """When no guest has a device of it any more."""
        self.run("rmmod xen-netback && ip link set xenbr0 down && brctl delbr xenbr0")

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

    def cost(self, end, command, octets):
        """What dom0's CPU executes while end, in dom0, runs a command that carries so many bytes."""
        before = self.counts()[0]
        output = end.run(command, 240)
        return Cost(before, self.counts()[0], octets, output)

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


class Cost:
    """What carrying bytes has cost dom0.

    insns, where        instructions per byte, and of these {"xen", "kernel", "module", "user"}
    hypercalls, grant   times, all and those about grants
    cr3, cr4, syscalls  times
    mbps                what iperf3 says, on the emulated machine's clock
    """

    GRANT_TABLE_OP = "20" # __HYPERVISOR_grant_table_op

    def __init__(self, before, after, octets, output):
        insns = {where: after[where] - before[where] for where in ("xen", "kernel", "module", "user")}
        calls = {number: times - before["hypercalls"].get(number, 0) for number, times in after["hypercalls"].items()}
        self.insns, self.where = sum(insns.values()) / octets, {where: count / octets for where, count in insns.items()}
        self.hypercalls, self.grant = sum(calls.values()), calls.get(self.GRANT_TABLE_OP, 0)
        self.cr3, self.cr4, self.syscalls = (after[name] - before[name] for name in ("cr3", "cr4", "syscalls"))
        match = re.search(r"([0-9.]+) Mbits/sec +receiver", output)
        self.mbps = float(match[1]) if match else None

    def __str__(self):
        where = ", ".join(f"{where} {share:.2f}" for where, share in self.where.items())
        return (f"insn/byte {self.insns:.2f} ({where}), hypercalls {self.hypercalls} (grants {self.grant}),"
                f" CR3 {self.cr3}, CR4 {self.cr4}, system calls {self.syscalls}, {self.mbps:.0f} Mb/s emulated")


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
    """A guest, reached over its console. ip and mac are its network device's, and its name there is eth0."""

    def __init__(self, dom0, name, ip):
        super().__init__(dom0, name, None)
        self.ip, self.mac = ip, f"00:16:3e:00:00:{int(ip.split('.')[-1]):02x}"

    def run(self, command, timeout=60, check=True):
        line = f"domu {self.name} {int(timeout)} {shlex.quote(' '.join(command.splitlines()))}"
        return self.dom0.run(line, timeout + 30, check)

    def attach(self, vif):
        """Give it its network device, of the back end vif."""
        self.dom0.run(f"xl network-attach {self.name} mac={self.mac} {vif}", 90)
        self.use()

    def use(self):
        """Wait for its network device, and give that its address."""
        self.run("until [ -e /sys/class/net/eth0 ]; do usleep 50000; done")
        self.address(f"{self.ip}/24")

    def detach(self):
        self.dom0.run(f"xl network-detach {self.name} {self.mac}", 90)
        self.run("while [ -e /sys/class/net/eth0 ]; do usleep 50000; done")

    def port(self):
        """vifd's name of its network device."""
        return f"vif{self.dom0.run(f'xl domid {self.name}').strip()}.0"

    def iperf_costs(self, end, address, megabytes):
        """What dom0 executes while end, in dom0 and at the address, sends to the guest and then the guest sends to it."""
        self.run("pidof iperf3 || iperf3 -s -D >/dev/null")
        self.run("until grep -q ':1451 .* 0A ' /proc/net/tcp6; do usleep 50000; done") # port 5201, TCP_LISTEN
        self.ping(address)
        end.run(f"iperf3 -c {self.ip} -n 4M")
        return {way: self.dom0.cost(end, f"iperf3 -f m -n {megabytes}M -c {self.ip} {option}", megabytes << 20)
                for way, option in (("to guest", ""), ("from guest", "-R"))}


class Dom0Vifd:
    """A vifd that runs in dom0, and whose control socket is the default one; see lib.vifd.Vifd."""

    def __init__(self, dom0, *commands):
        self.dom0, self.commands, self.lives = dom0, commands, 0
        self.start()

    def start(self, timeout=60):
        """Start it and wait until it serves."""
        self.lives += 1
        log = f"/tmp/vifd.{self.lives}.log"
        commands = " ".join(map(shlex.quote, self.commands))
        self.dom0.run(f"mkdir -p /run/vifd; vifd {commands} >{log} 2>&1 & echo $! >/run/vifd.pid;"
                      f" until grep -q '^vifd: ready' {log}; do"
                      f" kill -0 $(cat /run/vifd.pid) || {{ cat {log}; exit 1; }}; usleep 20000; done", timeout)

    def kill(self):
        """kill -9, as a crash would be."""
        self.dom0.run("kill -9 $(cat /run/vifd.pid)")

    def stop(self, timeout=30):
        """SIGTERM, which must end it."""
        self.dom0.run("kill $(cat /run/vifd.pid); while kill -0 $(cat /run/vifd.pid) 2>/dev/null; do usleep 20000; done", timeout)

    def log(self):
        return self.dom0.run("cat /tmp/vifd.*.log", check=False)

    def ctl(self, command):
        """Run a command, as one would type it; its JSON, None if it prints none."""
        text = self.dom0.run(f"vifctl -j {command}").strip()
        return json.loads(text) if text else None

    def stats(self, port):
        return next(row for row in self.ctl(f"show stats {port}") if row["name"] == port)
