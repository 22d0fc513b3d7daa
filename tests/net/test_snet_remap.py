# SPDX-License-Identifier: BSD-3-Clause
"""channel=remap, the baseline that the lab measures against: slow, but the same bytes; and told to who looks.

    namespace 1 ═ vif-front ═ snet, channel=remap ═ p1  br0  p2 ═ the same, or an AF_XDP uplink ═ namespace 2
"""
import pytest

from lib.vifd import VifdError
from net.test_snet import make_lan, start_front # noqa: F401 (fixtures)
from net.test_tap import MIB, tcp_copy, udp_echo


@pytest.mark.parametrize("far", ["front", "af-xdp"])
def test_carries_unchanged(make_lan, far): # noqa: F811
    vifd, (one, two), _ = make_lan(far, "channel=remap")
    for address in ("10.79.0.{}", "fd79::{}"):
        tcp_copy(one, two, address.format(2), 16 * MIB)
        tcp_copy(two, one, address.format(1), 16 * MIB)
    udp_echo(one, two, "10.79.0.2", [1, 17, 18, 1000, 1472, 1473, 9000, 40000, 65000])
    guests = vifd.ctl("show guests")
    assert all(guest["channel"] == "remap" and guest["breaks"] == 0 for guest in guests)
    assert vifd.log().count("channel=remap is slow, and for measurement only") == len(guests)
    assert vifd.stats("p1")["referenced_packets"] == 0


def test_nobody_gets_it_unasked(folder, start_vifd):
    vifd = start_vifd("bridge add br0", f"guest add p1 snet={folder}/p1.sock bridge=br0")
    assert vifd.ctl("show guests")[0]["channel"] == "zones" and "remap" not in vifd.log()
    for options in (f"snet={folder}/p2.sock trust=shared", f"vhost-user={folder}/p2.sock"):
        with pytest.raises(VifdError):
            vifd.ctl(f"guest add p2 {options} channel=remap bridge=br0")
