# SPDX-License-Identifier: BSD-3-Clause
"""What the lab measures against besides channel=remap and channel=flip (test_snet_remap.py): receive buffers that are a page
each and zeroed (M34), and 4 KiB pages everywhere (M28). The same bytes, nobody has it who has not asked for it by name, and
whoever asks is warned.

    namespace 1 ═ vif-front ═ snet ═ p1  br0  p2 ═ AF_XDP uplink ═ namespace 2
"""
import pytest

from lib.vifd import VifdError
from net.test_af_xdp import make_lan as make_wires # noqa: F401 (fixture)
from net.test_snet import make_lan, start_front # noqa: F401 (fixtures)
from net.test_tap import MIB, tcp_copy, udp_echo

LARGE, SMALL = 4096, 2048


def uplink(vifd, name):
    return next(row for row in vifd.ctl("show uplinks") if row["name"] == name)


def test_page_sized_buffers(make_wires): # noqa: F811
    vifd, _, (one, two) = make_wires("buffers=page lro=off")
    before = uplink(vifd, "p2")["buffers"], vifd.stats("p2")["recv_packets"]
    assert before[0]["bytes"] == LARGE
    tcp_copy(two, one, "10.78.0.1", 16 * MIB)
    udp_echo(two, one, "10.78.0.1", [1, 17, 18, 1000, 1472])
    received = vifd.stats("p2")["recv_packets"] - before[1]
    zeroed = uplink(vifd, "p2")["buffers"]["zeroed"] - before[0]["zeroed"]
    assert received > 1000 and received - 10 <= zeroed <= received + 10, "one for each packet, but for those on their way"
    assert vifd.log().count("buffers=page is slow, and for measurement only") == 2


def test_buffers_of_a_packet_unless_told(make_wires, folder): # noqa: F811
    vifd, _, (one, two) = make_wires()
    tcp_copy(two, one, "10.78.0.1", MIB)
    assert uplink(vifd, "p2")["buffers"] == {"bytes": SMALL, "zeroed": 0} and "measurement" not in vifd.log()
    with pytest.raises(VifdError, match="buffers= is for af-xdp= only"):
        vifd.ctl("uplink add p3 tap=baselines0 buffers=page bridge=br0")


@pytest.mark.parametrize("pages", ["best", "4k"])
def test_pages(make_lan, pages): # noqa: F811
    vifd, (one, two), _ = make_lan("af-xdp", before=[f"set pages={pages}"])
    tcp_copy(one, two, "10.79.0.2", 16 * MIB)
    tcp_copy(two, one, "10.79.0.1", 16 * MIB)
    rows = vifd.ctl("show memory")
    assert {row["owner"] for row in rows} >= {"p1", "p2", "worker 0"}
    on = {row["pages"] for row in rows}
    if pages == "4k":
        assert on == {"4k"} and not any(row["superpages"] for row in rows)
    assert vifd.log().count("pages=4k is slow, and for measurement only") == (pages == "4k")
    with pytest.raises(VifdError, match="memory is in use already"):
        vifd.ctl(f"set pages={pages}")
