# SPDX-License-Identifier: BSD-3-Clause
"""Guests of a real Xen with their stock front end, one paravirtual and one PVH.

Behind the kernel's back end, which the figures are compared with:

    pv   10.0.0.2 ── netfront ── xen-netback ──┐
    pvh  10.0.0.3 ── netfront ── xen-netback ──┴── xenbr0, dom0's  10.0.0.1

One boot for all: the tests run in the order of the file. What they print are figures of an emulated machine; no second of
them decides anything.
"""
import pytest

ADDRESS = {"dom0": "10.0.0.1", "pv": "10.0.0.2", "pvh": "10.0.0.3"}
MAC = {"pv": "00:16:3e:00:00:02", "pvh": "00:16:3e:00:00:03"}
STREAM_PORT = 7000


def stream(source, sink, megabytes=64):
    """Bytes over TCP that the sink knows; AssertionError if one is wrong or missing."""
    verdict = f"/tmp/{sink.name}.verdict"
    sink.run(f"rm -f {verdict}")
    sink.spawn(f"stream recv {STREAM_PORT} >{verdict}.new; echo status $? >>{verdict}.new; mv {verdict}.new {verdict}")
    sink.run(f"until grep -q ':{STREAM_PORT:04X} .* 0A ' /proc/net/tcp; do sleep 0.1; done")
    sent = source.run(f"stream send {ADDRESS[sink.name]} {STREAM_PORT} {megabytes << 20}", 120).split()
    got = sink.run(f"until [ -e {verdict} ]; do sleep 0.1; done; cat {verdict}", 60).split()
    assert got == sent + ["status", "0"]


def attach(dom0, guest, vif):
    """Give a guest its network device."""
    dom0.run(f"xl network-attach {guest.name} mac={MAC[guest.name]} {vif}", 60)
    guest.run("until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done")
    guest.address(f"{ADDRESS[guest.name]}/24")


def detach(dom0, guest):
    dom0.run(f"xl network-detach {guest.name} {MAC[guest.name]}", 60)
    guest.run("while [ -e /sys/class/net/eth0 ]; do sleep 0.1; done")


@pytest.fixture(scope="module")
def guests(dom0):
    """The two guests, without a network."""
    return [dom0.create(name, name, "") for name in ("pv", "pvh")]


@pytest.fixture(scope="module")
def netback(dom0, guests):
    """The kernel's back end; it goes when the last test that asks for it has been."""
    dom0.run("modprobe xen-netback; ip link add xenbr0 type bridge; ip addr add 10.0.0.1/24 dev xenbr0; ip link set xenbr0 up")
    for guest in guests:
        attach(dom0, guest, "bridge=xenbr0 script=vif-lab")
    return guests


@pytest.mark.parametrize("kind", [0, 1], ids=["pv", "pvh"])
def test_netback(dom0, netback, kind):
    """What the stock back end does here, so that what vifd does not can be told from what the machine does not."""
    guest = netback[kind]
    guest.ping(ADDRESS["dom0"])
    stream(guest, dom0)
    stream(dom0, guest)
