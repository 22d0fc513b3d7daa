# SPDX-License-Identifier: BSD-3-Clause
"""What the specification allows: every ring size, feature combination and layout, with every byte checked (legal.c)."""
import subprocess

import pytest

import lib.vifd
from lib.guest import ROOT, with_parent
from lib.vifd import BUILD

LEGAL = BUILD / "tests" / "hostile" / "legal"
GROUPS = ["small-rings", "medium-rings", "large-rings", "receive-chains", "regions", "no-offloads", "queue-pairs"]
# What an honest pair of guests may never see counted.
DROPS = "drop_"


@pytest.mark.parametrize("build", ["build", "build-asan"])
@pytest.mark.parametrize("group", GROUPS)
def test_legal(start_vifd, folder, monkeypatch, group, build):
    monkeypatch.setattr(lib.vifd, "BUILD", BUILD if build == "build" else ROOT / build)
    vifd = start_vifd("bridge add br0", *(f"guest add {name} vhost-user={folder}/{name}.sock queues=4 bridge=br0"
                                          for name in "ab"))
    done = subprocess.run(with_parent([LEGAL, f"{folder}/a.sock", f"{folder}/b.sock", group]), timeout=150, text=True,
                          capture_output=True)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    for name in "ab":
        stats = vifd.stats(name)
        assert stats["recv_packets"] > 0
        assert not {key: value for key, value in stats.items() if key.startswith(DROPS) and value}
