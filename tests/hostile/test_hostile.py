# SPDX-License-Identifier: BSD-3-Clause
"""Hostile guests: whatever one does, vifd stays up, the others are served, and counters say what happened.

    left  ──┐        ┌── evil    lies, as tests/hostile/hostile.c says; one scenario a test
            ├─ vifd ─┤
    right ──┘        └── mate    an honest neighbour that evil talks to and hears from

left and right are the witness: they exchange numbered packets from the first scenario to the last. Every scenario must
leave behind a vifd without a single descriptor or mapping more than before. All of it runs twice: as built for use with
one worker, and with two under ASan and UBSan, where a stray access is the end of vifd.
"""
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import lib.vifd
from lib.guest import ROOT, with_parent
from lib.vifd import BUILD, Vifd

PROGRAMS = BUILD / "tests" / "hostile"
LONGEST_GAP_MS = 1000
LEFT, RIGHT = "52:54:00:00:01:01", "52:54:00:00:01:02"
STRICT = "52:54:00:00:03:01" # evil's own address

LOOP = "descriptor chain longer than its table"
JUMP = "available index jumped by more than the queue size"
HEAD = "descriptor index out of the table"
ADDRESS = "buffer outside guest memory"
ZERO = "buffer of zero length"
TABLE = "indirect descriptor not negotiated, nested or of a wrong length"
DIRECTION = "buffer of the wrong direction"
CALL = "the call descriptor cannot be written to"


# What must be seen while evil is still connected. Each is a function of the stage and of evil's counters before.

def broken(ring, why):
    def check(stage, before):
        row = stage.guest("evil")["rings"][ring]
        assert row["broken"] and row["why"] == why, row
        assert not row["running"]
    return check


def halted(ring, why):
    def check(stage, before):
        row = stage.guest("evil")["rings"][ring]
        assert not row["running"] and row["why"] == why, row
    return check


def running(stage, before):
    assert [row["why"] for row in stage.guest("evil")["rings"]] == [None, None]


def counted(counter, least, most=None):
    def check(stage, before):
        count = stage.vifd.stats("evil")[counter] - before[counter]
        assert count >= least, f"{counter}: {count} of {least}"
        assert most is None or count <= most, f"{counter}: {count}, at most {most}"
    return check


def shown(key, least, most=None):
    """A counter of `show guests`."""
    def check(stage, before):
        count = stage.guest("evil")[key] - stage.evil_before[key]
        assert count >= least, f"{key}: {count} of {least}"
        assert most is None or count <= most, f"{key}: {count}, at most {most}"
    return check


def learned_fairly(stage, before):
    """The table is evil's, and the witness still is in it."""
    row = stage.vifd.ctl("show bridges")[0]
    fdb = stage.vifd.fdb()
    assert row["evicted"] + row["refused"] > 0, row
    assert fdb[LEFT]["port"] == "left" and fdb[RIGHT]["port"] == "right"


def learned_static(stage, before):
    assert stage.vifd.ctl("show bridges")[0]["refused"] > 0
    assert stage.vifd.fdb()[LEFT]["port"] == "left"


TX, RX = 1, 0

EXPECT = {
    "tx-loop": [broken(TX, LOOP)],
    "tx-loop-to-self": [broken(TX, LOOP)],
    "tx-loop-in-table": [broken(TX, LOOP)],
    "tx-index-jump": [broken(TX, JUMP)],
    "tx-index-back": [broken(TX, JUMP)],
    "tx-bad-head": [broken(TX, HEAD)],
    "tx-bad-head-far": [broken(TX, HEAD)],
    "tx-bad-next": [broken(TX, HEAD)],
    "tx-bad-next-in-table": [broken(TX, HEAD)],
    "tx-address-unmapped": [broken(TX, ADDRESS), counted("drop_bad_descriptor", 1)],
    "tx-address-beyond": [broken(TX, ADDRESS), counted("drop_bad_descriptor", 1)],
    "tx-address-wraps": [broken(TX, ADDRESS)],
    "tx-length-maximal": [broken(TX, ADDRESS)],
    "tx-length-zero": [broken(TX, ZERO)],
    "tx-length-zero-in-chain": [broken(TX, ZERO)],
    "tx-writable": [broken(TX, DIRECTION)],
    "tx-writable-in-chain": [broken(TX, DIRECTION)],
    "tx-nested-table": [broken(TX, TABLE)],
    "tx-nested-table-later": [broken(TX, TABLE)],
    "tx-table-in-chain": [broken(TX, TABLE)],
    "tx-table-after-chain": [running, counted("recv_packets", 1)],
    "tx-table-with-next": [broken(TX, TABLE)],
    "tx-table-not-negotiated": [broken(TX, TABLE)],
    "tx-table-odd-length": [broken(TX, TABLE)],
    "tx-table-empty": [broken(TX, TABLE)],
    "tx-table-huge": [broken(TX, TABLE)],
    "tx-table-maximal": [broken(TX, TABLE)],
    "tx-table-unmapped": [broken(TX, ADDRESS)],
    "tx-table-over-end": [broken(TX, ADDRESS)],
    "tx-table-over-regions": [broken(TX, ADDRESS)],
    "tx-frame-over-regions": [running, counted("recv_packets", 1)],
    "tx-table-write-flag": [running, counted("recv_packets", 1)],
    "tx-transmit-the-ring": [],
    "tx-longest-chains": [counted("drop_too_many_fragments", 100)],
    "tx-not-enabled": [running, counted("recv_packets", 1)],
    "tx-revived": [running, counted("recv_packets", 1), shown("breaks", 1)],
    "rx-readable": [broken(RX, DIRECTION)],
    "rx-readable-in-chain": [broken(RX, DIRECTION)],
    "rx-unmapped": [broken(RX, ADDRESS)],
    "rx-beyond": [broken(RX, ADDRESS)],
    "rx-wraps": [broken(RX, ADDRESS)],
    "rx-zero-length": [broken(RX, ZERO)],
    "rx-maximal-length": [broken(RX, ADDRESS)],
    "rx-one-byte": [running, counted("drop_no_buffers", 40)],
    "rx-too-small": [running, counted("drop_too_big", 40)],
    "rx-index-jump": [broken(RX, JUMP), counted("drop_not_ready", 40)],
    "rx-bad-head": [broken(RX, HEAD)],
    "rx-loop": [broken(RX, LOOP)],
    "rx-nested-table": [broken(RX, TABLE)],
    "rx-never-posted": [running, counted("drop_no_buffers", 400)],
    "rx-never-consumed": [running, counted("drop_no_buffers", 1500), counted("send_packets", 100, 256)],
    "rx-onto-the-rings": [],
    "rx-longest-chains": [counted("drop_too_big", 1)],
    "rx-rest-untouched": [running, counted("send_packets", 1)],
    "rx-over-regions": [running, counted("send_packets", 1)],
    "frame-runts": [running, counted("drop_runt", 42, 42)],
    "frame-shorter-than-header": [running, counted("drop_runt", 12, 12)],
    "frame-oversize": [running, counted("drop_oversize", 18, 18)],
    "frame-length-overflow": [running, counted("drop_oversize", 1, 1)],
    "frame-too-many-fragments": [running, counted("drop_too_many_fragments", 2, 2)],
    "frame-many-fragments": [running, counted("recv_packets", 2), counted("drop_too_many_fragments", 0, 0)],
    "frame-bad-csum": [running, counted("drop_bad_vnet_header", 18, 18)],
    "frame-bad-gso-size": [running, counted("drop_bad_vnet_header", 4, 4)],
    "frame-bad-gso-type": [running, counted("drop_bad_vnet_header", 12, 12)],
    "frame-gso-without-csum": [running, counted("drop_bad_vnet_header", 8, 8)],
    "frame-not-negotiated": [running, counted("drop_bad_vnet_header", 6, 6)],
    "frame-uso-not-negotiated": [running, counted("drop_bad_vnet_header", 2, 2)],
    "frame-headers-beyond-frame": [running, counted("drop_bad_vnet_header", 52, 52)],
    "frame-extreme-gso-sizes": [running, counted("recv_packets", 5)],
    "frame-lies-to-ignore": [running, counted("recv_packets", 7), counted("drop_bad_vnet_header", 0, 0)],
    "frame-bad-sources": [running, counted("drop_bad_source", 50, 50)],
    "frame-reserved-group": [running, counted("drop_reserved_group", 16, 16)],
    "frame-spoofed": [running, counted("recv_packets", 2000), learned_static],
    "frame-strange-stacks": [running, counted("drop_bad_vnet_header", 1)],
    "frame-fuzzed": [running, counted("drop_bad_vnet_header", 10), counted("recv_packets", 10)],
    "race-descriptor": [counted("recv_packets", 100), shown("breaks", 1)],
    "race-chain": [counted("recv_packets", 100), shown("breaks", 1)],
    "race-indirect-table": [counted("recv_packets", 100), shown("breaks", 1)],
    "race-vnet-header": [counted("recv_packets", 100), counted("drop_bad_vnet_header", 1)],
    "race-headers": [counted("recv_packets", 100), counted("drop_bad_vnet_header", 1)],
    "race-available-index": [counted("recv_packets", 100)],
    "race-used-ring": [counted("recv_packets", 100)],
    "race-receive-descriptor": [shown("breaks", 1)],
    "race-fuzzed": [shown("breaks", 10)],
    "storm-kicks": [running],
    "storm-kick-a-frame": [running, counted("recv_packets", 100)],
    "storm-broadcasts": [running, counted("flooded_packets", 1000)],
    "storm-large-broadcasts": [running, counted("flooded_packets", 100)],
    "storm-small-segments": [running],
    "storm-unicasts": [running, counted("recv_packets", 1000)],
    "storm-unicasts-large-ring": [running, counted("recv_packets", 1000)],
    "storm-addresses": [running, counted("recv_packets", 50000), learned_fairly],
    "storm-enables": [shown("throttled", 1)],
    "storm-memory-tables": [running, shown("throttled", 1)],
    "storm-restarts": [running, shown("throttled", 1)],
    "storm-requests": [shown("throttled", 1)],
    "storm-connections": [shown("reconnects", 10)],
    "storm-hang-up": [],
    "message-garbage": [shown("reconnects", 10)],
    "message-partial": [],
    "message-drip": [shown("messages", 1)],
    "message-oversized": [shown("reconnects", 4)],
    "message-wrong-version": [shown("reconnects", 4)],
    "message-every-request": [shown("messages", 100)],
    "message-unknown": [shown("messages", 6)],
    "message-unread-answers": [],
    "message-ask-and-leave": [shown("reconnects", 29)],
    "message-ring-numbers": [shown("messages", 30)],
    "message-ring-sizes": [shown("messages", 10)],
    "message-ring-addresses": [shown("reconnects", 20)],
    "message-random-order": [shown("messages", 100)],
    "message-features": [shown("messages", 3)],
    "message-logs": [shown("messages", 5)],
    "message-leave-in-flight": [shown("reconnects", 19)],
    "message-second-front-end": [running, counted("recv_packets", 100)],
    "fd-wrong-kinds": [counted("recv_packets", 100)],
    "fd-wrong-memory": [running, counted("recv_packets", 100)],
    "fd-too-many": [],
    "fd-a-byte": [],
    "fd-missing": [running, counted("recv_packets", 1)],
    "fd-none": [running, counted("recv_packets", 1)],
    "fd-call-full": [shown("breaks", 1, 1)], # then it is not called any more
    "fd-call-blocks": [broken(TX, CALL)],
    "fd-call-blocks-and-messages": [broken(TX, CALL)],
    "fd-call-blocks-again": [shown("breaks", 1, 1)],
    "fd-call-refilled": [counted("recv_packets", 1)],
    "fd-call-refilled-and-messages": [counted("recv_packets", 1)],
    "fd-kick-full": [running, counted("recv_packets", 1)],
    "fd-call-is-kick": [running, counted("recv_packets", 1)],
    "fd-replaced": [running, shown("messages", 1500)],
    "memory-bad-tables": [running],
    "memory-slots": [running],
    "memory-removed": [halted(TX, "addresses outside memory"), halted(RX, "addresses outside memory")],
    "memory-removed-and-returned": [running, counted("recv_packets", 100)],
    "memory-payload-removed": [broken(TX, ADDRESS), broken(RX, ADDRESS)],
    "memory-truncated": [],
    "memory-payload-truncated": [],
    "memory-truncate-storm": [],
    "memory-holes": [running],
    "memory-read-only": [],
}


class Stage:
    """vifd with the guests, and the witness at work. Survives from test to test, unless vifd does not."""

    def __init__(self, build, workers):
        self.build, self.workers = build, workers
        self.folder = tempfile.mkdtemp(prefix=f"vifd-{os.getpid()}-")
        self.vifd = self.witness = None

    def path(self, guest):
        return f"{self.folder}/{guest}.sock"

    def guests(self):
        """Commands that add those beside the witness."""
        return [f"guest add evil vhost-user={self.path('evil')} bridge=br0",
                f"guest add mate vhost-user={self.path('mate')} bridge=br0",
                f"guest add client vhost-user={self.path('client')} client bridge=br0"]

    def start(self):
        self.vifd = Vifd(self.folder, f"set workers={self.workers}", "bridge add br0",
                         f"guest add left vhost-user={self.path('left')} mac={LEFT} bridge=br0",
                         f"guest add right vhost-user={self.path('right')} bridge=br0", *self.guests())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lib.vifd, "BUILD", self.build)
            self.vifd.start()
        self.witness = subprocess.Popen(with_parent([PROGRAMS / "witness", self.path("left"), self.path("right")]),
                                        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ask_witness()

    def stop(self):
        if self.witness:
            self.witness.communicate(timeout=10)
        if self.vifd:
            self.vifd.stop()
        self.witness = self.vifd = None

    def abandon(self):
        """After a failure the next test begins with a new vifd."""
        if self.witness:
            self.witness.kill()
            self.witness.communicate()
        if self.vifd:
            self.vifd.kill()
        self.witness = self.vifd = None

    def ask_witness(self):
        """What the witness saw since it was asked last."""
        self.witness.stdin.write("\n")
        self.witness.stdin.flush()
        line = self.witness.stdout.readline()
        assert line, "the witness has ended"
        return json.loads(line)

    def renew_evil(self):
        """A guest that made a call block is not called for a while: not what the next scenario needs."""
        self.vifd.ctl("guest del evil")
        self.vifd.ctl(f"guest add evil vhost-user={self.path('evil')} bridge=br0")

    def guest(self, name):
        return next(row for row in self.vifd.ctl("show guests") if row["name"] == name)

    def possessions(self):
        """Descriptors and mappings of guest memory that vifd holds."""
        maps = Path(f"/proc/{self.vifd.pid}/maps").read_text()
        return len(os.listdir(f"/proc/{self.vifd.pid}/fd")), maps.count("memfd:front")


def eventually(check, seconds=5):
    """Counters and disconnects need a moment."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def staged(kind, build):
    """A stage of this kind with the vifd of a build folder, for as long as a module's tests take."""
    folder = BUILD if build == "build" else ROOT / build
    assert (folder / "src" / "vifd").exists(), f"no vifd in {folder}: run `make test`"
    stage = kind(folder, workers=1 if build == "build" else 2)
    yield stage
    try:
        stage.stop()
    finally:
        stage.abandon()
        shutil.rmtree(stage.folder, ignore_errors=True)


@pytest.fixture(scope="module", params=["build", "build-asan"])
def shared_stage(request):
    yield from staged(Stage, request.param)


@pytest.fixture
def stage(shared_stage, request):
    if not shared_stage.vifd:
        shared_stage.start()
    request.node.vifds = [shared_stage.vifd] # conftest shows what it said if the test fails
    return shared_stage


@contextlib.contextmanager
def performing(stage, scenario, *command):
    """Run a scenario. The body gets what the program says when it is at its worst, and looks at what that did; the program ends
    after it. Nobody else must have noticed anything."""
    stage.ask_witness()
    hostile = subprocess.Popen(with_parent([PROGRAMS / command[0], scenario, *command[1:]]), text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        said = hostile.stdout.readline()
        assert stage.vifd.running, "vifd is gone"
        assert said, hostile.communicate()[1]
        yield said
        asked = time.monotonic()
        stage.vifd.ctl("show stats")
        assert time.monotonic() - asked < 2, "the control socket does not answer"
        hostile.communicate(timeout=20)
    finally:
        hostile.kill()
        hostile.wait()
    seen = stage.ask_witness()
    print(f"witness during {scenario}: {seen}")
    assert seen["complaint"] == "" and not seen["corrupt"] and not seen["disorder"], seen
    assert seen["packets"] > 0 and seen["longest_gap_ms"] < LONGEST_GAP_MS, seen
    assert stage.vifd.running, "vifd is gone"


def perform(stage, scenario, evil, checks):
    """Run a scenario, check what it left in the counters while evil is there, and that nothing is left after it."""
    possessions = stage.possessions()
    before, stage.evil_before = stage.vifd.stats("evil"), stage.guest("evil")
    with performing(stage, scenario, "hostile", evil, stage.path("mate")) as said:
        assert said == "done\n"
        for check in checks:
            eventually(lambda: check(stage, before))

    def nothing_left():
        assert not stage.guest("evil")["connected"]
        assert stage.possessions() == possessions
    eventually(nothing_left)


@pytest.mark.parametrize("scenario", EXPECT)
def test_scenario(stage, scenario):
    evil = stage.path("client" if scenario == "storm-hang-up" else "evil")
    try:
        if scenario.startswith("fd-call-"):
            stage.renew_evil()
        perform(stage, scenario, evil, EXPECT[scenario])
    except BaseException:
        stage.abandon()
        raise


def test_spoof_strict(stage):
    """With spoof=strict none of the frames in the witness's name gets in."""
    try:
        stage.vifd.ctl(f"guest set evil mac={STRICT} spoof=strict")
        perform(stage, "frame-spoofed", stage.path("evil"),
                [running, counted("drop_spoofed", 2000, 2000), counted("recv_packets", 0)])
        stage.vifd.ctl("guest set evil spoof=off")
    except BaseException:
        stage.abandon()
        raise


def test_every_scenario_has_an_expectation():
    listed = subprocess.run([PROGRAMS / "hostile", "--list"], text=True, capture_output=True, check=True)
    assert listed.stdout.split() == list(EXPECT)
