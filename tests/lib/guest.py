# SPDX-License-Identifier: BSD-3-Clause
"""A real virtual machine: QEMU with Debian's kernel, its own virtio-net driver, and a vhost-user NIC.

    with Guest("web", "/run/x/web.sock", folder, mac="52:54:00:00:00:01") as guest:
        guest.address("10.0.0.1/24")
        print(guest.run("ping -c 1 10.0.0.2"))

The image comes from scripts/guest_image.sh. Commands go over the guest's second serial line to the loop in
scripts/guest_init, so a guest whose network is broken can still be asked why. The console is kept in
FOLDER/NAME.console. Standard library only: demo and bench use this file as well.
"""
import itertools
import json
import os
import re
import select
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "build" / "guest"

# Device options that take every offload away from the guest's NIC.
NO_OFFLOADS = ("csum=off,guest_csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,"
               "guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off")

# TCG emulates REP MOVSB byte by byte. Without these two flags Linux copies eight at a time, and receives for a third of
# the cycles.
EMULATED_CPU = "max,-erms,-fsrm"

# The driver's names of the bits in /sys/class/net/*/device/features (virtio 1.2, 5.1.3).
FEATURES = {0: "csum", 1: "guest_csum", 3: "mtu", 5: "mac", 7: "guest_tso4", 8: "guest_tso6", 9: "guest_ecn",
            11: "host_tso4", 12: "host_tso6", 13: "host_ecn", 15: "mrg_rxbuf", 16: "status", 17: "ctrl_vq", 22: "mq",
            28: "indirect_desc", 29: "event_idx", 32: "version_1", 34: "ring_packed", 35: "in_order"}


class GuestError(Exception):
    pass


def build_image():
    """Make sure that the guest image is there and newer than what it is made from."""
    subprocess.run([ROOT / "scripts" / "guest_image.sh"], check=True)


def with_parent(command):
    """command, killed by the kernel when this process dies, however it dies."""
    return ["setpriv", "--pdeathsig", "KILL", *map(str, command)]


class Guest:
    """One running guest. Construction starts QEMU, wait() or the with statement wait for its shell.

    path      of the vhost-user socket; QEMU connects to it, or listens there if listen is set
    reconnect seconds after which QEMU connects again when vifd goes away; 0: never
    device    more options of the virtio-net device, such as "guest_tso4=off,mq=on"
    netdev    instead of path: QEMU's own -netdev text with id=n0 (to check the image without vifd)
    memory    MiB; more of it can be plugged in with plug_memory()
    affinity  CPUs that QEMU may use, None: all
    """

    def __init__(self, name, path, folder, *, mac, listen=False, reconnect=1, queues=1, device="", netdev=None,
                 memory=256, cpus=1, affinity=None, accel=None):
        self.name, self.mac, self.tmp = name, mac, "/tmp"
        self.folder = Path(folder)
        self.accel = accel or accelerator()
        self._pending, self._serial = b"", itertools.count()
        self._console, self._qmp_path = self.folder / f"{name}.console", self.folder / f"{name}.qmp"
        self._shell, line = socket.socketpair()
        if netdev is None:
            role = "server=on" if listen else f"reconnect={reconnect}" if reconnect else "server=off"
            netdev = f"vhost-user,id=n0,chardev=c0,queues={queues}"
            chardev = ["-chardev", f"socket,id=c0,path={path},{role}"]
        else:
            chardev = []
        # vectors=0: QEMU 7.2 under TCG crashes with vhost-user and MSI-X
        nic = f"virtio-net-pci,netdev=n0,mac={mac},romfile=,vectors=0" + (f",{device}" if device else "")
        if queues > 1:
            nic += ",mq=on"
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none",
            "-accel", "kvm" if self.accel == "kvm" else "tcg,thread=multi",
            "-cpu", "host" if self.accel == "kvm" else EMULATED_CPU, "-smp", cpus,
            "-m", f"{memory}M,slots=2,maxmem=4G", "-object", f"memory-backend-memfd,id=mem,size={memory}M,share=on",
            "-machine", "pc,memory-backend=mem",
            "-serial", f"file:{self._console}", "-chardev", f"socket,id=shell,fd={line.fileno()}",
            "-serial", "chardev:shell",
            "-qmp", f"unix:{self._qmp_path},server=on,wait=off",
            *chardev, "-netdev", netdev, "-device", nic,
            "-kernel", IMAGE / "vmlinuz", "-initrd", IMAGE / "initramfs.gz",
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check",
        ]
        if affinity is not None:
            command = ["taskset", "-c", ",".join(map(str, affinity)), *command]
        self._log = open(self.folder / f"{name}.qemu", "wb")
        with line:
            self.process = subprocess.Popen(with_parent(command), stdin=subprocess.DEVNULL, stdout=self._log,
                                            stderr=subprocess.STDOUT, pass_fds=[line.fileno()])

    def __enter__(self):
        try:
            return self.wait()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    def wait(self, timeout=60):
        """Until the guest's shell answers."""
        self._answer("ready", time.monotonic() + timeout)
        return self

    def run(self, command, timeout=20, check=True):
        """Run a shell command in the guest, return what it printed. GuestError when it fails (unless check is
        False) or takes longer than timeout seconds."""
        ident = f"r{next(self._serial)}"
        self._shell.sendall(f"{ident} {int(timeout)} {' '.join(command.splitlines())}\n".encode())
        output, status = self._answer(ident, time.monotonic() + timeout + 10)
        if status and check:
            raise GuestError(f"{self.name}: '{command}' ended with {status}: {output.strip()[-2000:]}")
        return output

    def spawn(self, command, log="/dev/null"):
        """Start a shell command in the background of the guest."""
        self.run(f"({command}) >{log} 2>&1 &")

    def address(self, *addresses, interface="eth0", mtu=None):
        """Give the interface its addresses (with prefix length) and bring it up. IPv6 ones are usable at once."""
        if mtu:
            self.run(f"ip link set {interface} mtu {mtu}")
        self.run(f"echo 0 >/proc/sys/net/ipv6/conf/{interface}/accept_dad; ip link set {interface} up")
        for address in addresses:
            self.run(f"ip addr add {address} dev {interface}")
        return self

    def ping(self, address, timeout=15):
        """Until the address answers; GuestError if it does not."""
        six = "6" if ":" in address else ""
        self.run(f"until ping{six} -c 1 -W 1 {address}; do sleep 0.2; done", timeout)

    def features(self):
        """Names of the virtio features that the guest's driver negotiated."""
        bits = self.run("cat /sys/class/net/eth0/device/features").strip()
        return {FEATURES.get(i, f"bit{i}") for i, bit in enumerate(bits) if bit == "1"}

    def qmp(self, command, **arguments):
        """One command to QEMU's monitor; returns its answer."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self._qmp_path))
            lines = monitor.makefile("rw")
            lines.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                lines.write(json.dumps(request) + "\n")
                lines.flush()
                answer = {}
                while "return" not in answer and "error" not in answer: # skips events
                    answer = json.loads(lines.readline())
                if "error" in answer:
                    raise GuestError(f"{self.name}: {command}: {answer['error']['desc']}")
        return answer["return"]

    def plug_memory(self, megabytes):
        """Plug in more memory: the front end then announces a new region."""
        self.qmp("object-add", **{"qom-type": "memory-backend-memfd", "id": "mem1", "size": megabytes << 20,
                                  "share": True})
        self.qmp("device_add", driver="pc-dimm", id="dimm1", memdev="mem1")

    def console(self):
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def stop(self):
        """End the guest at once; nothing in it is worth a shutdown."""
        self._shell.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    def _check_alive(self):
        if self.process.poll() is not None:
            log = Path(self._log.name).read_text(errors="replace")
            raise GuestError(f"{self.name}: QEMU ended with {self.process.returncode}: {log.strip()[-2000:]}\n"
                             f"{self.console()[-2000:]}")

    def _answer(self, ident, deadline):
        """What the shell prints up to the line "@ident STATUS", and STATUS."""
        pattern = re.compile(rb"(?:^|\n)@%s (\d+)\n" % ident.encode())
        while True:
            match = pattern.search(self._pending)
            if match:
                output = self._pending[:match.start()]
                self._pending = self._pending[match.end():]
                return output.decode(errors="replace"), int(match[1])
            if select.select([self._shell], [], [], 0.2)[0]:
                try:
                    data = self._shell.recv(65536)
                except ConnectionResetError:
                    data = b""
                self._pending += data
                if not data:
                    self.process.wait(5)
            self._check_alive()
            if time.monotonic() > deadline:
                raise GuestError(f"{self.name}: no answer from the guest; its console says:\n{self.console()[-2000:]}")


_accelerator = None


def accelerator():
    """"kvm" if a guest really boots with it, else "tcg". VIFD_ACCEL in the environment decides instead.

    On some hosts /dev/kvm opens and yet no guest runs. The verdict is kept beside the image until the next boot.
    """
    global _accelerator
    if _accelerator is None:
        _accelerator = os.environ.get("VIFD_ACCEL") or _probe_kvm()
    return _accelerator


def _probe_kvm():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    verdict = IMAGE / "accel"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if verdict.exists() and verdict.read_text().split()[:1] == [boot]:
        return verdict.read_text().split()[1]
    found = "kvm"
    guest = Guest(f"kvm-probe-{os.getpid()}", None, IMAGE, mac="52:54:00:00:00:01", netdev="user,id=n0", accel="kvm")
    try:
        guest.wait(timeout=8)
    except (GuestError, subprocess.TimeoutExpired):
        found = "tcg"
    finally:
        guest.stop()
    for left in IMAGE.glob(f"{guest.name}.*"):
        left.unlink()
    verdict.write_text(f"{boot} {found}\n")
    return found
