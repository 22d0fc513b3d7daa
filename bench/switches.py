# SPDX-License-Identifier: BSD-3-Clause
"""vifd and its peers, each started so that it carries packets between two stations.

A switch of the vhost rows has `sockets`, one vhost-user socket (served by the switch) per guest; a switch of the
TAP rows has `ends`, two network namespaces with an address each. All have a `process` that can be paused and
whose CPU time can be read, unless the kernel itself is the switch.
"""

import json
import os
import pathlib
import subprocess

from host import BenchError, answer, cpu_seconds, pause, resume, run, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / "bench" / "out" / "bin"
OVS_VSWITCHD = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
OVS_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

GENERATOR_CPU, SWITCH_CPU = 0, 1
ADDRESSES = ("10.77.0.1", "10.77.0.2")


class Switch:
    """A running switch."""

    name = None
    process = None
    sockets = ()
    ends = ()

    def pause(self):
        """Take it off the CPU."""
        pause(self.process)

    def resume(self):
        """Let it run again."""
        resume(self.process)

    def cpu_seconds(self):
        """CPU time that it has used; None where that cannot be told."""
        return cpu_seconds(self.process.pid) if self.process else None

    def take_taps(self, host, netns, taps):
        """Move two interfaces from the switch's namespace to an end each, with an address."""
        ends = []
        for tap, address in zip(taps, ADDRESSES):
            wait_for(f"{self.name}: interface {tap}", lambda tap=tap: has_interface(netns, tap),
                     self.process)
            end = host.netns(f"{self.name}-{tap}")
            run("ip", "-n", netns, "link", "set", tap, "netns", end)
            end_up(end, tap, address)
            ends.append((end, address))
        self.ends = ends


def has_interface(netns, name):
    """Is there an interface of that name?"""
    return name in [link["ifname"] for link in json.loads(run("ip", "-n", netns, "-j", "link"))]


def end_up(netns, interface, address):
    """Give a station its address."""
    run("ip", "-n", netns, "addr", "add", f"{address}/24", "dev", interface)
    run("ip", "-n", netns, "link", "set", interface, "up")


class Vifd(Switch):
    """vifd, of the build under test."""

    name = "vifd"
    build = ROOT / "build"

    def __init__(self, host, guests=0, pairs=0, taps=False, cpu=None):
        """`guests` vhost-user sockets; or, with taps, two uplinks in a namespace each."""
        self.control = host.dir / f"{self.name}.sock"
        commands = ["set workers=1" + ("" if cpu is None else f" cpus={cpu}"), "bridge add br0"]
        self.sockets = [host.dir / f"vifd-{i}.sock" for i in range(guests)]
        for i, path in enumerate(self.sockets):
            commands.append(f"guest add g{i} vhost-user={path} bridge=br0")
        if taps:
            self.ends = [(host.netns(f"vifd-{i}"), ADDRESSES[i]) for i in range(2)]
            for i, (netns, _) in enumerate(self.ends):
                commands.append(f"uplink add t{i} tap=tap{i} netns={netns} bridge=br0")
        self.process = host.spawn(self.name, self.build / "src" / "vifd", "-s", self.control, *commands)
        wait_for("vifd", lambda: "vifd: ready" in self.process.log.read_text(), self.process)
        for i, (netns, address) in enumerate(self.ends):
            end_up(netns, f"tap{i}", address)

    def ctl(self, *words):
        """Run a command of the grammar; returns what vifctl prints in JSON."""
        printed = run(self.build / "src" / "vifctl", "-s", self.control, "-j", *words)
        return json.loads(printed) if printed.strip() else None


class Testpmd(Switch):
    """dpdk-testpmd passing bursts between two net_vhost ports: rte_vhost, and no switching at all."""

    name = "testpmd-io"

    def __init__(self, host, guests=2, cpu=SWITCH_CPU):
        self.sockets = [host.dir / f"testpmd-{i}.sock" for i in range(guests)]
        devices = [f"--vdev=net_vhost{i},iface={path},queues=1"
                   for i, path in enumerate(self.sockets)]
        self.process = host.spawn(
            "testpmd", "dpdk-testpmd", "--lcores", f"0@{cpu},1@{cpu}", "--no-pci", "--in-memory",
            "--single-file-segments", "--no-telemetry", "-m", "512", *devices, "--",
            "--forward-mode=io", "--nb-cores=1", "--burst=32", "--no-lsc-interrupt",
            "--disable-link-check", "--total-num-mbufs=16384", stdin=subprocess.PIPE)
        wait_for("testpmd", lambda: all(path.exists() for path in self.sockets), self.process)


class OpenVSwitch(Switch):
    """A private Open vSwitch with one bridge in its userspace datapath, learning (action NORMAL)."""

    def __init__(self, host, name, **other_config):
        self.name = name
        self.netns = host.netns(name)
        self.dir = host.dir / name
        self.dir.mkdir()
        self.env = {key: str(self.dir) for key in
                    ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")}
        database = self.dir / "conf.db"
        run("ovsdb-tool", "create", database, OVS_SCHEMA)
        server = host.spawn(f"{name}-db", "ovsdb-server", "--no-chdir", database,
                            f"--remote=punix:{self.dir}/db.sock", f"--unixctl={self.dir}/db.ctl",
                            env=self.env)
        wait_for("ovsdb-server", (self.dir / "db.sock").exists, server)
        self.vsctl("--no-wait", "init")
        for key, value in other_config.items():
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".",
                       f'other_config:{key.replace("_", "-")}="{value}"')
        self.process = host.spawn(name, OVS_VSWITCHD, "--no-chdir", f"unix:{self.dir}/db.sock",
                                  f"--unixctl={self.dir}/vswitchd.ctl", netns=self.netns,
                                  env=self.env)
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")

    def vsctl(self, *words):
        """Run ovs-vsctl; a vswitchd that cannot do it shows as a time-out with its log."""
        try:
            return run("ovs-vsctl", "--timeout=20", f"--db=unix:{self.dir}/db.sock", *words)
        except BenchError as error:
            log = self.process.log.read_text() if self.process else ""
            raise BenchError(f"{self.name}: {error}\n{log[-1000:]}") from error

    def appctl(self, *words):
        """Ask the running vswitchd."""
        return run("ovs-appctl", "-t", self.dir / "vswitchd.ctl", *words)

    def add_taps(self, host):
        """Two stations on TAPs of Open vSwitch's own (its internal ports)."""
        taps = ("tap0", "tap1")
        for tap in taps:
            self.vsctl("add-port", "br0", tap, "--", "set", "interface", tap, "type=internal")
        self.take_taps(host, self.netns, taps)


# What DPDK inside Open vSwitch needs; it keeps its main thread off the CPU of the polling one.
OVS_DPDK = {"dpdk_init": "true", "dpdk_extra": "--no-pci --in-memory", "dpdk_socket_mem": "512",
            "dpdk_lcore_mask": hex(1 << GENERATOR_CPU)}
OVS_DPDK_MIB = 512
TAP_MIB = 4 # of huge pages, which vifd takes for each TAP to receive into


class OvsDpdk(OpenVSwitch):
    """Open vSwitch-DPDK: vhost-user ports served by a polling thread on a CPU of its own."""

    def __init__(self, host, guests=2, cpu=SWITCH_CPU):
        super().__init__(host, "ovs-dpdk", pmd_cpu_mask=hex(1 << cpu), **OVS_DPDK)
        for i in range(guests):
            self.vsctl("add-port", "br0", f"vhu{i}", "--", "set", "interface", f"vhu{i}",
                       "type=dpdkvhostuser")
        self.sockets = [self.dir / f"vhu{i}" for i in range(guests)]
        wait_for("ovs-dpdk", lambda: all(path.exists() for path in self.sockets), self.process)


class OvsNetdev(OpenVSwitch):
    """Open vSwitch's userspace datapath between two TAPs, as it comes."""

    def __init__(self, host):
        super().__init__(host, "ovs-netdev")
        self.add_taps(host)


class OvsNetdevTso(OpenVSwitch):
    """The same with its userspace TSO, which only the DPDK build can."""

    def __init__(self, host):
        super().__init__(host, "ovs-netdev-tso", userspace_tso_enable="true", **OVS_DPDK)
        self.add_taps(host)


class VdeSwitch(Switch):
    """VDE's switch between two TAPs of its own."""

    name = "vde_switch"

    def __init__(self, host):
        netns = host.netns("vde")
        self.process = host.spawn("vde", "vde_switch", "-s", host.dir / "vde", "-tap", "tap0",
                                  "-tap", "tap1", netns=netns, stdin=subprocess.PIPE)
        self.take_taps(host, netns, ("tap0", "tap1"))


class TapFwd(Switch):
    """A bare loop that copies between two TAPs."""

    name = "tapfwd"

    def __init__(self, host):
        netns = host.netns("tapfwd")
        self.process = host.spawn("tapfwd", TOOLS / "tapfwd", "tap0", "tap1", netns=netns,
                                  stdout=subprocess.PIPE, text=True)
        answer(self.process)
        self.take_taps(host, netns, ("tap0", "tap1"))


class KernelBridge(Switch):
    """The kernel's bridge between two veth pairs."""

    name = "kernel-bridge"

    def __init__(self, host):
        netns = host.netns("bridge")
        run("ip", "-n", netns, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", netns, "link", "set", "br0", "up")
        for tap in ("tap0", "tap1"):
            run("ip", "-n", netns, "link", "add", tap, "type", "veth", "peer", "name", f"port{tap}")
            run("ip", "-n", netns, "link", "set", f"port{tap}", "master", "br0", "up")
        self.take_taps(host, netns, ("tap0", "tap1"))

    def pause(self):
        pass

    def resume(self):
        pass


def build_tools():
    """Compile the bench's own programs, those that are older than their source."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    dpdk = run("pkg-config", "--cflags", "--libs", "libdpdk").split()
    for name, flags in (("gen", ["-O3", "-march=native", *dpdk]),
                        ("placement", ["-O2", "-pthread"]), ("tapfwd", ["-O2"]),
                        ("reflect", ["-O2"])):
        source, tool = ROOT / "bench" / f"{name}.c", TOOLS / name
        if tool.exists() and tool.stat().st_mtime > source.stat().st_mtime:
            continue
        run(os.environ.get("CC", "cc"), "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra",
            "-o", tool, source, *flags, timeout=120)
