# SPDX-License-Identifier: BSD-3-Clause
"""The protocol of snet's rings, searched through by spin: no wake-up is lost, nothing is taken or given back twice.

The search is exhaustive (a second or so). That it would find something is shown by taking out one of the three things
that the protocol rests on.
"""
import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).resolve().parent / "snet.pml"

pytestmark = pytest.mark.skipif(not shutil.which("spin"), reason="needs spin")


def search(tmp_path, *defines):
    """What spin's verifier says of the model."""
    subprocess.run(["spin", "-a", *[f"-D{define}" for define in defines], MODEL], cwd=tmp_path, check=True)
    subprocess.run(["gcc", "-O2", "-w", "-DSAFETY", "-o", "pan", "pan.c"], cwd=tmp_path, check=True)
    text = subprocess.run(["./pan", "-m100000"], cwd=tmp_path, check=True, text=True, capture_output=True, timeout=120).stdout
    assert "search depth too small" not in text, text
    return text


def errors(text):
    return int(re.search(r"errors: (\d+)", text)[1])


def test_no_wake_up_is_lost(tmp_path):
    text = search(tmp_path)
    assert errors(text) == 0, text
    assert int(re.search(r"(\d+) states, stored", text)[1]) > 100000, text
    for proctype in ("producer", "consumer"):
        assert re.search(rf"unreached in proctype {proctype}\n\t\(0 of", text), text


@pytest.mark.parametrize("without", ["NO_FENCE", "NO_PRODUCER_FENCE", "NO_SECOND_LOOK"])
def test_the_search_finds_what_is_missing(tmp_path, without):
    text = search(tmp_path, without)
    assert errors(text) == 1 and "invalid end state" in text, text
