# SPDX-License-Identifier: BSD-3-Clause
"""channel=remap and channel=flip, the baselines that the lab measures against: slow, but the same bytes; and told to
who looks.

    namespace 1 ═ vif-front ═ snet, channel=... ═ p1  br0  p2 ═ the same, or an AF_XDP uplink ═ namespace 2
"""
import time

import pytest

from lib.vifd import VifdError
from net.test_snet import make_lan, start_front # noqa: F401 (fixtures)
from net.test_tap import MIB, eventually, tcp_copy, udp_echo


@pytest.mark.parametrize("far", ["front", "af-xdp"])
@pytest.mark.parametrize("channel", ["remap", "flip"])
def test_carries_unchanged(make_lan, channel, far): # noqa: F811
    vifd, (one, two), _ = make_lan(far, f"channel={channel}")
    for address in ("10.79.0.{}", "fd79::{}"):
        tcp_copy(one, two, address.format(2), 16 * MIB)
        tcp_copy(two, one, address.format(1), 16 * MIB)
    udp_echo(one, two, "10.79.0.2", [1, 17, 18, 1000, 1472, 1473, 9000, 40000, 65000])
    guests = vifd.ctl("show guests")
    assert all(guest["channel"] == channel and guest["breaks"] == 0 for guest in guests)
    assert vifd.log().count(f"channel={channel} is slow, and for measurement only") == len(guests)
    assert vifd.stats("p1")["referenced_packets"] == 0


def changes(vifd, what):
    """What what() adds to p1's counters of remaps and of packets."""
    def look():
        return {**vifd.ctl("show guests")[0]["remap"], **vifd.stats("p1")}

    def at_rest():
        looks = [look()]

        def again():
            time.sleep(0.2)
            looks.append(look())
            return looks[-1] == looks[-2]
        assert eventually(again), "it does not come to rest"
        return looks[-1]

    before = at_rest()
    what()
    after = at_rest()
    return {name: count - before[name] for name, count in after.items() if isinstance(count, int)}


def test_flip_counts(make_lan): # noqa: F811
    """M10: each packet that the guest gets takes three changes of mappings, a page got and one given back, zeroed; each that it
    sends one more to map it and one to unmap it."""
    vifd, (one, two), _ = make_lan("af-xdp", "channel=flip")
    count = 200
    done = changes(vifd, lambda: udp_echo(two, one, "10.79.0.1", [1000] * count))
    assert done["send_packets"] >= count and done["recv_packets"] >= count
    assert done["handed_over"] == done["send_packets"] and done["zeroed"] == done["taken_back"]
    # what the guest has given back is taken with the next packet, before as well as at the end
    late = done["handed_over"] - done["taken_back"]
    assert -32 <= late <= 32
    # the driver domain's page and the guest's; what was sent lies on one page or two
    sent = done["mapped"] - 2 * done["send_packets"]
    assert done["recv_packets"] <= sent <= 2 * done["recv_packets"]
    assert done["unmapped"] == done["mapped"] - late and done["cycles"] > 0


def test_remap_counts(make_lan): # noqa: F811
    """Each packet is mapped and unmapped for its copy, and no page changes hands."""
    vifd, (one, two), _ = make_lan("af-xdp", "channel=remap")
    done = changes(vifd, lambda: udp_echo(two, one, "10.79.0.1", [1000] * 100))
    packets = done["send_packets"] + done["recv_packets"]
    assert packets <= done["mapped"] == done["unmapped"] <= 2 * packets
    assert done["handed_over"] == done["zeroed"] == 0


def test_nobody_gets_it_unasked(folder, start_vifd):
    vifd = start_vifd("bridge add br0", f"guest add p1 snet={folder}/p1.sock bridge=br0")
    guest = vifd.ctl("show guests")[0]
    assert guest["channel"] == "zones" and "remap" not in guest and "measurement" not in vifd.log()
    for options in (f"snet={folder}/p2.sock trust=shared", f"vhost-user={folder}/p2.sock"):
        for channel in ("remap", "flip"):
            with pytest.raises(VifdError):
                vifd.ctl(f"guest add p2 {options} channel={channel} bridge=br0")
