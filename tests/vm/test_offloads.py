# SPDX-License-Identifier: BSD-3-Clause
"""A guest with each offload off, against a wire and against a guest with every offload on.

    guest NAME (some offloads off) ──┐
                                     ├── br0 ── TAP ── wire
    guest full (every offload on)  ──┘

What one side has not negotiated, vifd must do for it: each case sends hashed TCP both ways, v4 and v6.
"""
import pytest

from lib.guest import NO_OFFLOADS
from lib.traffic import tcp_copy

# name: QEMU's device options, and features that the guest must then not have negotiated
CASES = {
    "all-on": ("", set()),
    "no-csum": ("csum=off", {"csum"}),
    "no-guest-csum": ("guest_csum=off", {"guest_csum"}),
    "no-host-tso": ("host_tso4=off,host_tso6=off", {"host_tso4", "host_tso6"}),
    "no-host-tso4": ("host_tso4=off", {"host_tso4"}),
    "no-guest-tso": ("guest_tso4=off,guest_tso6=off,guest_ecn=off", {"guest_tso4", "guest_tso6"}),
    "no-guest-tso6": ("guest_tso6=off", {"guest_tso6"}),
    "no-mrg-rxbuf": ("mrg_rxbuf=off", {"mrg_rxbuf"}),
    "no-mrg-rxbuf-no-guest-tso": ("mrg_rxbuf=off,guest_tso4=off,guest_tso6=off,guest_ecn=off",
                                  {"mrg_rxbuf", "guest_tso4"}),
    "no-indirect-no-event-idx": ("indirect_desc=off,event_idx=off", {"indirect_desc", "event_idx"}),
    "big-rings": ("rx_queue_size=1024,tx_queue_size=1024", set()),
    "packed-asked-for": ("packed=on", {"ring_packed"}),
    "none": (NO_OFFLOADS, {"csum", "guest_csum", "host_tso4", "host_tso6", "guest_tso4", "guest_tso6"}),
    "none-no-mrg-rxbuf": (NO_OFFLOADS + ",mrg_rxbuf=off,indirect_desc=off,event_idx=off",
                          {"csum", "guest_csum", "host_tso4", "guest_tso4", "mrg_rxbuf", "indirect_desc"}),
    "legacy": ("disable-modern=on,disable-legacy=off", {"version_1"}),
    "legacy-none-no-mrg-rxbuf": ("disable-modern=on,disable-legacy=off,mrg_rxbuf=off," + NO_OFFLOADS,
                                 {"version_1", "mrg_rxbuf", "csum", "guest_csum"}),
}
ALWAYS = {"csum", "guest_csum", "host_tso4", "host_tso6", "guest_tso4", "guest_tso6", "guest_ecn", "host_ecn",
          "mrg_rxbuf", "indirect_desc", "event_idx", "version_1", "status"}


@pytest.fixture(scope="module")
def full(lab):
    return lab.guest("full")


@pytest.mark.parametrize("case", CASES)
def test_offloads(lab, full, case):
    device, absent = CASES[case]
    guest = lab.guest(case, device=device)
    features = guest.features()
    assert not features & absent
    if case == "all-on":
        assert features >= ALWAYS
    try:
        guest.ping(lab.address["wire"])
        guest.ping(lab.address6["wire"])
        guest.ping(lab.address["full"])
        before = {name: lab.vifd.stats(name) for name in ("wire", "full", case)}
        for other in (lab.wire, full):
            tcp_copy(guest, other, lab.address[other.name])
            tcp_copy(other, guest, lab.address[case])
            tcp_copy(guest, other, lab.address6[other.name], megabytes=4)
            tcp_copy(other, guest, lab.address6[case], megabytes=4)
        after = {name: lab.vifd.stats(name) for name in before}
    finally:
        lab.remove_guest(case)
    # What could not pass whole was segmented, and what passed whole was not.
    gso = after[case]["send_gso_packets"] - before[case]["send_gso_packets"]
    if {"guest_tso4", "guest_tso6"} <= absent:
        assert gso == 0
        assert after[case]["segmented_packets"] > before[case]["segmented_packets"]
    elif "guest_tso4" not in absent and "guest_csum" not in absent:
        assert gso > 100
    if "guest_csum" in absent:
        assert after[case]["checksummed_packets"] > before[case]["checksummed_packets"]
    for name in after:
        dropped = {counter: after[name][counter] - before[name][counter] for counter in after[name]
                   if counter.startswith("drop_") and counter not in ("drop_no_buffers", "drop_queue_full")}
        assert not any(dropped.values()), f"{name}: {dropped}"
