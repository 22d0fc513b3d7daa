# SPDX-License-Identifier: BSD-3-Clause
"""The grammar end to end: start-up file, arguments, control socket and vifctl of a running vifd.

    file ────────┐
    arguments ───┼──> vifd ── control socket ──┬── vifctl
                 │                             └── raw clients, well behaved and not
                 └─ br0: web, db (guests without a front end), wire (TAP in a namespace)
"""
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from lib.guest import ROOT
from lib.vifd import VifdError, program

WEB = "52:54:00:00:00:01"


class Client:
    """A raw client of the control socket."""

    def __init__(self, path, timeout=10):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, line):
        self.send(line.encode() + b"\n")
        return self.answer()

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture
def connect(cleanup):
    """Connect a raw client to a vifd."""
    return lambda vifd: cleanup.enter_context(closing(Client(vifd.socket)))


def refused(vifd, command):
    """What vifd says about a command that it must refuse."""
    with pytest.raises(VifdError) as failure:
        vifd.ctl(command)
    assert failure.value.status == 1
    return str(failure.value).removeprefix("vifctl: ")


# Start-up file and arguments

def test_file_and_arguments(start_vifd, folder):
    path = f"{folder}/vifd.conf"
    Path(path).write_text(f"# a comment\n\nset workers=2 idle-spin=off\n  bridge add br0 ageing=60 fdb-max=100 # small\r\n"
                          f"guest add web vhost-user={folder}/web.sock mac={WEB} spoof=strict bridge=br0")
    vifd = start_vifd("bridge add br1", f"guest add db vhost-user={folder}/db.sock isolated bridge=br1",
                      options=("-c", path))
    br0, br1 = vifd.ctl("show bridges")
    assert (br0["name"], br0["ports"], br0["ageing_seconds"], br0["fdb_size"]) == ("br0", ["web"], 60, 128)
    assert (br1["name"], br1["ports"], br1["ageing_seconds"], br1["fdb_size"]) == ("br1", ["db"], 300, 8192)
    web, db = vifd.ctl("show ports")
    assert (web["mac"], web["spoof"], web["isolated"]) == (WEB, "strict", False)
    assert (db["mac"], db["spoof"], db["isolated"]) == (None, "off", True)
    workers = vifd.ctl("show workers")
    assert [worker["id"] for worker in workers] == [0, 1]
    assert sorted(queue["port"] for worker in workers for queue in worker["queues"]) == ["db", "web"]


@pytest.mark.parametrize("text, says", [
    ("bridge add br0\n\nguest add web brige=br0\n", "{file}:3: guest add: unknown option 'brige' (did you mean 'bridge'?)"),
    ("bridge add br0\nbridge add br0\n", "{file}:2: bridge add: "),
    ("bridge add br0\0\n", "{file}:1: the line contains a zero byte"),
    ("#" + "x" * 3000, "{file}:1: the line is longer than 2047 characters"),
    ("set workers=2\nset cpus=0,0,0", "{file}:2: set: workers=2 needs 2 CPU numbers, cpus= has 3"),
    ("set cpus=4000", "{file}:1: set: vifd may not run on CPU 4000, or there is none of that number"),
])
def test_first_error_in_file_ends_vifd(start_vifd, folder, text, says):
    path = Path(folder) / "vifd.conf"
    path.write_text(text)
    with pytest.raises(VifdError) as failure:
        start_vifd(options=("-c", str(path)))
    assert failure.value.status == 1
    assert says.format(file=path) in str(failure.value)
    assert sorted(name.split(".")[-1] for name in os.listdir(folder)) == ["conf", "log"], "no socket is left behind"


def test_file_that_is_not_there(start_vifd, folder):
    with pytest.raises(VifdError, match="cannot read .*/nowhere.conf: No such file") as failure:
        start_vifd(options=("-c", f"{folder}/nowhere.conf"))
    assert failure.value.status == 1


def test_workers_are_set_before_ports(start_vifd, folder):
    with pytest.raises(VifdError, match="workers= and cpus= are set at start-up, before the first uplink or guest"):
        start_vifd("bridge add br0", f"guest add web vhost-user={folder}/web.sock bridge=br0", "set workers=2")


# Commands

def test_what_is_shown(start_vifd, folder, make_netns):
    wire = make_netns("wire")
    vifd = start_vifd("bridge add br0", f"uplink add wire tap=eth0 netns={wire.netns} bridge=br0",
                      f"guest add web vhost-user={folder}/web.sock queues=2 mac={WEB} bridge=br0")
    port = {port["name"]: port for port in vifd.ctl("show ports")}
    assert set(port) == {"wire", "web"}
    assert (port["web"]["kind"], port["web"]["uplink"], port["web"]["bridge"]) == ("vhost-user", False, "br0")
    assert (port["wire"]["kind"], port["wire"]["uplink"], port["wire"]["bridge"]) == ("tap", True, "br0")
    assert {"sg", "csum", "tso4", "tso6"} <= set(port["wire"]["caps"])
    assert {"mtu", "queues", "mac", "spoof", "isolated"} <= set(port["web"])

    (guest,) = vifd.ctl("show guests")
    assert (guest["name"], guest["path"], guest["role"], guest["connected"]) == \
        ("web", f"{folder}/web.sock", "server", False)
    assert {"features", "pairs", "rings", "memory", "messages", "reconnects", "breaks"} <= set(guest)
    (uplink,) = vifd.ctl("show uplinks")
    assert uplink["name"] == "wire"

    row = vifd.fdb()[WEB]
    assert (row["bridge"], row["port"], row["static"]) == ("br0", "web", True)
    assert "age_seconds" in row
    (bridge,) = vifd.ctl("show bridges")
    assert {"learned", "moved", "evicted", "aged", "refused", "fdb_used", "fdb_size"} <= set(bridge)
    (worker,) = vifd.ctl("show workers")
    assert {"cpu", "spin_usec", "sleeps", "spins_won", "spins_lost", "rounds", "bursts", "packets", "bytes"} <= set(worker)
    assert {row["name"] for row in vifd.ctl("show stats")} == {"web", "wire"}
    assert [row["name"] for row in vifd.ctl("show stats wire")] == ["wire"]
    assert {"usage", "help"} == set(vifd.ctl("help")[0])


def test_profile_and_its_reset(start_vifd, make_netns):
    wire = make_netns("wire")
    vifd = start_vifd("bridge add br0", f"uplink add wire tap=eth0 netns={wire.netns} bridge=br0")
    wire.address("eth0", "10.0.0.1/24")
    wire.run("ip neighbour add 10.0.0.2 lladdr 52:54:00:00:00:99 dev eth0")

    def flood(count):
        before = vifd.stats("wire")["recv_packets"]
        wire.run(f"ping -q -c {count} -i 0.002 -W 0.1 10.0.0.2 || true")
        end = time.monotonic() + 5
        while vifd.stats("wire")["recv_packets"] < before + count and time.monotonic() < end:
            time.sleep(0.02)

    flood(100)
    before = vifd.ctl("profile")
    assert before["packets"] >= 100 and before["bytes"] >= 100 * 98
    assert [stage["stage"] for stage in before["stages"]] == \
        ["channel", "header", "bridge", "offload", "copy", "uplink", "idle"]
    busy = sum(stage["cycles"] for stage in before["stages"] if stage["stage"] != "idle")
    assert busy == before["busy_cycles"] > 0
    assert before["busy_cycles_per_packet"] == pytest.approx(busy / before["packets"])
    assert before["busy_cycles_per_byte"] == pytest.approx(busy / before["bytes"])
    assert sum(stage["share"] for stage in before["stages"]) == pytest.approx(1)
    assert before["tsc_hz"] > 1e8

    assert vifd.ctl("profile reset") is None
    fresh = vifd.ctl("profile")
    assert fresh["packets"] < before["packets"]
    flood(50)
    after = vifd.ctl("profile")
    assert 50 <= after["packets"] - fresh["packets"] < before["packets"]
    assert vifd.stats("wire")["recv_packets"] >= 150, "a reset of the profile is not one of the counters"


def test_guest_set(start_vifd, folder):
    vifd = start_vifd("bridge add br0", f"guest add web vhost-user={folder}/web.sock bridge=br0")
    assert "spoof=strict needs mac=" in refused(vifd, "guest set web spoof=strict isolated")
    (port,) = vifd.ctl("show ports")
    assert (port["spoof"], port["isolated"]) == ("off", False)

    vifd.ctl(f"guest set web spoof=strict isolated mac={WEB}")
    (port,) = vifd.ctl("show ports")
    assert (port["spoof"], port["isolated"], port["mac"]) == ("strict", True, WEB)
    assert set(vifd.fdb()) == {WEB}
    vifd.ctl("guest set web mac=52:54:00:00:00:02 isolated=off")
    (port,) = vifd.ctl("show ports")
    assert (port["spoof"], port["isolated"], port["mac"]) == ("strict", False, "52:54:00:00:00:02")
    assert set(vifd.fdb()) == {"52:54:00:00:00:02"}


def test_pinned_addresses(start_vifd, folder):
    vifd = start_vifd("bridge add br0", "bridge add br1",
                      *(f"guest add {name} vhost-user={folder}/{name}.sock bridge=br0" for name in ("web", "db")))
    vifd.ctl(f"fdb add br0 {WEB} web")
    assert vifd.fdb()[WEB]["port"] == "web" and vifd.fdb()[WEB]["static"]
    assert vifd.fdb("br1") == {}
    assert "pinned to another port" in refused(vifd, f"fdb add br0 {WEB} db")
    assert "pinned to another port" in refused(vifd, f"guest set db mac={WEB}")
    assert vifd.ctl("show ports")[1]["mac"] is None
    assert refused(vifd, f"fdb add br1 {WEB} web") == "fdb add: port 'web' is not on bridge 'br1'"
    vifd.ctl(f"fdb del br0 {WEB.upper()}")
    assert vifd.fdb() == {}
    assert refused(vifd, f"fdb del br0 {WEB}") == f"fdb del: bridge 'br0' does not know {WEB}"


def test_what_fails_leaves_nothing(start_vifd, folder, make_netns):
    wire = make_netns("wire")
    vifd = start_vifd("bridge add br0", f"guest add web vhost-user={folder}/web.sock mac={WEB} bridge=br0")
    before = vifd.ctl("show ports"), vifd.ctl("show bridges"), vifd.ctl("show fdb")
    files = sorted(os.listdir(folder))

    assert refused(vifd, f"guest add db vhost-user={folder}/db.sock bridge=br9") == \
        "guest add: there is no bridge 'br9' (bridge add br9 makes it)"
    assert refused(vifd, f"guest add web vhost-user={folder}/db.sock bridge=br0") == \
        "guest add: there is already a port 'web'"
    assert "spoof=strict needs mac=" in refused(vifd, f"guest add db vhost-user={folder}/db.sock spoof=strict bridge=br0")
    assert "mode= is for a socket" in refused(vifd, f"guest add db vhost-user={folder}/db.sock client mode=0600 bridge=br0")
    refused(vifd, f"guest add db vhost-user={folder}/db.sock mac={WEB} bridge=br0")
    refused(vifd, f"guest add db vhost-user={folder}/web.sock bridge=br0")
    refused(vifd, f"guest add db vhost-user={folder}/no/such/place bridge=br0")
    refused(vifd, f"uplink add up tap=eth0 netns={wire.netns} bridge=br9")
    refused(vifd, f"uplink add web tap=eth0 netns={wire.netns} bridge=br0")
    refused(vifd, "uplink add up tap=eth0 netns=no-such-namespace bridge=br0")
    refused(vifd, f"uplink add up tap=lo netns={wire.netns} bridge=br0")
    refused(vifd, "bridge del br0")
    refused(vifd, "bridge add br0")
    refused(vifd, "uplink del web")

    assert (vifd.ctl("show ports"), vifd.ctl("show bridges"), vifd.ctl("show fdb")) == before
    assert sorted(os.listdir(folder)) == files
    assert "eth0" not in wire.run("ip -brief link")


def test_ports_and_bridges_come_and_go(start_vifd, folder, make_netns):
    wire = make_netns("wire")
    vifd = start_vifd()
    assert vifd.ctl("show ports") == vifd.ctl("show bridges") == []
    for _ in range(3):
        vifd.ctl("bridge add br0")
        vifd.ctl(f"uplink add wire tap=eth0 netns={wire.netns} bridge=br0")
        vifd.ctl(f"guest add web vhost-user={folder}/web.sock mode=0600 mac={WEB} bridge=br0")
        assert stat.S_IMODE(os.stat(f"{folder}/web.sock").st_mode) == 0o600
        assert "eth0" in wire.run("ip -brief link")
        assert refused(vifd, "guest del wire") == "guest del: 'wire' is an uplink, not a guest"
        vifd.ctl("uplink del wire")
        vifd.ctl("guest del web")
        assert vifd.ctl("show ports") == [] and vifd.ctl("show workers")[0]["queues"] == []
        assert not os.path.exists(f"{folder}/web.sock")
        assert "eth0" not in wire.run("ip -brief link")
        assert vifd.ctl("show fdb br0") == []
        vifd.ctl("bridge del br0")
    assert refused(vifd, "guest del web") == "guest del: there is no guest 'web' ('show guests' lists them)"


def test_settings_at_run_time(start_vifd):
    cpu = min(os.sched_getaffinity(0))
    vifd = start_vifd(f"set cpus={cpu},{cpu}")
    assert [worker["cpu"] for worker in vifd.ctl("show workers")] == [cpu, cpu]
    assert "the workers run already" in refused(vifd, "set workers=1")
    for spin in ("off", "20", "auto"):
        vifd.ctl(f"set idle-spin={spin}")


# The control socket

def test_control_socket_file(start_vifd, folder):
    """Its folder is made, its mode is narrow, one that answers is left alone, one that does not is replaced."""
    path = f"{folder}/new/ctl"
    first = start_vifd(options=("-s", path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    with pytest.raises(VifdError, match=f"another vifd is running on {path}") as failure:
        start_vifd(options=("-s", path))
    assert failure.value.status == 1
    first.socket = path
    assert first.ctl("show ports") == []

    first.kill()
    assert os.path.exists(path)
    second = start_vifd(options=("-s", path))
    second.socket = path
    assert second.ctl("show ports") == []
    second.stop()
    assert not os.path.exists(path)

    Path(path).write_text("precious")
    with pytest.raises(VifdError, match="exists and is no socket"):
        start_vifd(options=("-s", path))
    assert Path(path).read_text() == "precious"


def test_lines_in_any_pieces(start_vifd, connect):
    vifd = start_vifd()
    client, other = connect(vifd), connect(vifd)
    client.send(b"bridge add br0\nbridge add br1\n\nshow brid")
    assert [client.answer() for _ in range(3)] == [{"ok": True, "result": None}] * 3
    assert other.ask("bridge add br2")["ok"], "a half line of one client does not keep others waiting"
    client.send(b"ges\n")
    assert [bridge["name"] for bridge in client.answer()["result"]] == ["br0", "br1", "br2"]
    assert client.ask("nonsense") == {"ok": False, "error": "unknown command 'nonsense' ('help' lists the commands)"}
    client.send(b"bridge del br2")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.answer() == {"ok": True, "result": None}
    assert client.answer() is None


@pytest.mark.parametrize("line, says", [
    (b"bridge add br\xff", "the line is not valid UTF-8"),
    (b"bridge add br\0x", "the line contains a zero byte"),
    (b"bridge add \x1b[31m", "the line contains a control character (0x1b)"),
    ("bridge add br\N{SNOWMAN}".encode(), "bridge add: 'br\N{SNOWMAN}': use 1 to 31 letters"),
    (b"guest add x mode=" + "\N{SNOWMAN}".encode() * 600, "guest add: mode="),
    (b"x" * 2047, "unknown command 'x"),
])
def test_odd_lines_are_answered(start_vifd, connect, line, says):
    client = connect(start_vifd())
    client.send(line + b"\n")
    answer = client.answer()
    assert not answer["ok"] and says in answer["error"]
    assert client.ask("show ports") == {"ok": True, "result": []}


def test_line_without_end(start_vifd, connect):
    vifd = start_vifd()
    client = connect(vifd)
    client.send(b"x" * 2048)
    assert client.answer() == {"ok": False, "error": "the line is longer than 2047 characters"}
    assert client.answer() is None
    assert vifd.ctl("show ports") == []


def test_client_that_does_not_read(start_vifd, connect):
    """It gets as far as its socket buffer; vifd neither waits for it nor hoards its answers."""
    vifd = start_vifd()
    deaf = connect(vifd)
    deaf.socket.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += deaf.socket.send(b"help\n" * 100)
    before = resident(vifd.pid)
    assert vifd.ctl("show ports") == []
    assert sent < 4 << 20 and before < 64 << 20
    deaf.socket.settimeout(10)
    assert all(deaf.answer()["ok"] for _ in range(sent // 5))


def resident(pid):
    """Memory of a process in bytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def test_too_many_clients(start_vifd, connect):
    vifd = start_vifd()
    clients = [connect(vifd) for _ in range(64)]
    assert all(client.ask("show ports")["ok"] for client in clients)
    assert connect(vifd).answer() == {"ok": False, "error": "too many control connections"}
    clients[0].socket.shutdown(socket.SHUT_RDWR)
    end = time.monotonic() + 5
    while (answer := connect(vifd).ask("show ports")) is None or not answer["ok"]:
        assert time.monotonic() < end
    assert clients[1].ask("show ports")["ok"]


# vifctl

def test_vifctl_status(start_vifd, folder):
    vifd = start_vifd("bridge add br0")
    done = vifd.vifctl("bridge", "add", "br1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = vifd.vifctl("shwo", "ports")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vifctl: unknown command 'shwo ports' (did you mean 'show ports'?)\n"
    assert vifd.vifctl().returncode == 2
    assert vifd.vifctl("--nonsense").returncode == 2
    assert vifd.vifctl("x" * 3000).returncode == 2
    lost = subprocess.run([program("vifctl"), "-s", f"{folder}/nowhere", "show", "ports"], capture_output=True, text=True)
    assert lost.returncode == 2
    assert lost.stderr == f"vifctl: cannot reach vifd at {folder}/nowhere: No such file or directory " \
        "(is it running? -s names another socket)\n"
    found = subprocess.run([program("vifctl"), "show bridges"], env=dict(os.environ, VIFD_SOCKET=vifd.socket),
                           capture_output=True, text=True)
    assert found.returncode == 0 and "br1" in found.stdout
    for option in ("--help", "--version"):
        done = vifd.vifctl(option)
        assert done.returncode == 0 and "vifctl" in done.stdout


def test_vifctl_keeps_words_together(start_vifd, folder):
    vifd = start_vifd("bridge add br0")
    path = f'{folder}/a "b" #c\\d'
    assert vifd.vifctl("guest", "add", "web", f"vhost-user={path}", "bridge=br0").returncode == 0
    assert vifd.ctl("show guests")[0]["path"] == path


def test_vifctl_tables(start_vifd, folder, make_netns):
    wire = make_netns("wire")
    vifd = start_vifd("bridge add br0", f"uplink add wire tap=eth0 netns={wire.netns} bridge=br0",
                      f"guest add web vhost-user={folder}/web.sock mac={WEB} bridge=br0")
    wire.run("ip link set eth0 up")

    lines = vifd.vifctl("show", "ports").stdout.splitlines()
    assert lines[0].split() == ["PORT", "BRIDGE", "ROLE", "KIND", "MTU", "QUEUES", "MAC", "SPOOF", "ISOLATED", "TAKES"]
    assert [line.split()[:4] for line in lines[1:]] == [["wire", "br0", "uplink", "tap"], ["web", "br0", "guest", "vhost-user"]]
    assert len({line.index(word) for line, word in zip(lines, ("KIND", "tap", "vhost-user"))}) == 1, "columns are aligned"

    few, all_ = vifd.vifctl("show", "stats", "web").stdout, vifd.vifctl("-a", "show", "stats", "web").stdout
    assert few.startswith("web (vhost-user)\n") and "drop_spoofed" not in few
    assert re.search(r"^  drop_spoofed +0  received: ", all_, re.M)
    assert "server at " in vifd.vifctl("show", "guests").stdout
    for command in ("show bridges", "show uplinks", "show fdb", "show workers", "profile", "help"):
        text = vifd.vifctl(command).stdout
        assert text and not text.startswith(("[", "{")), command
    assert vifd.vifctl("-j", "profile", "reset").stdout == "null\n"
    vifd.ctl("guest del web")
    assert vifd.vifctl("show guests").stdout == "no guests\n"


# The manual

def manual(name):
    """A manual page as plain words."""
    text = (ROOT / "docs" / "man" / name).read_text()
    text = re.sub(r"\\f[RBIP]|\\(?=-)", "", text).replace("\\(aq", "'").replace('"', "")
    text = re.sub(r"^\.(RB|BR|BI|IB|B|I|TP) ?", "", text, flags=re.M)
    return text


def test_manual_knows_every_counter():
    counters = re.findall(r'X\((\w+), "([^"]*)"\)', (ROOT / "src/port/port.h").read_text())
    assert len(counters) > 20
    text = manual("vifctl.8")
    for name, meaning in counters:
        assert f"\n{name}\n{meaning[0].upper()}{meaning[1:]}.\n" in text, name


def test_manual_knows_every_command_and_option(start_vifd):
    pages = manual("vifd.conf.5")
    for command in start_vifd().ctl("help"):
        words = " ".join(re.match(r"[a-z ]+(?= [A-Z\[]|$)|[a-z]+ [a-z]+", command["usage"])[0].split())
        assert words in pages, words
        for option in re.findall(r"([a-z-]+)\[?=", command["usage"]):
            assert option in pages, f"{words}: {option}"


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_manual_pages_are_well_formed():
    for page in sorted((ROOT / "docs" / "man").iterdir()):
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, f"{page}: {done.stderr}"
