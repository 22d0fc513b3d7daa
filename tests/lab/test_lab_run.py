# SPDX-License-Identifier: BSD-3-Clause
"""One figure from nothing to its report, as `make lab QUICK=1 ONLY=fig5` does it: what is measured must be complete, not fast."""
import json
import subprocess
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[2] / "lab"


@pytest.mark.timeout(200)
def test_fig5(tmp_path):
    done = subprocess.run([LAB / "run", "--quick", "--out", tmp_path, "fig5"], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert "experiment 1 of 1, menon" in done.stdout
    text = (tmp_path / "report.md").read_text()
    assert "### M-fig5" in text and "Guest-high over Guest-none" in text and "![" in text
    assert "<svg" in (tmp_path / "M-fig5.svg").read_text()
    results = json.loads((tmp_path / "menon.json").read_text())
    configs = {row["config"] for row in results["rows"] if row["id"] == "M28"}
    assert configs >= {"none", "sp", "ioc", "high", "high-ioc", "high-ioc-sp"}
    assert results["stamp"]["quick"] and results["stamp"]["only"] == ["M28"]
    again = subprocess.run([LAB / "run", "--quick", "--resume", "--out", tmp_path, "fig5"], text=True, capture_output=True)
    assert again.returncode == 0 and "menon is there already" in again.stdout and "experiment 1" not in again.stdout
