# SPDX-License-Identifier: BSD-3-Clause
"""What the lab makes of samples: rows, bars, table and JSON. Nothing is run or timed."""
import importlib
import json
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[2] / "lab"
ROW = {"id", "config", "metric", "unit", "paper", "ours"}


@pytest.fixture
def lab(monkeypatch):
    """Import a module of lab/, which has them beside each other."""
    monkeypatch.syspath_prepend(str(LAB))
    yield importlib.import_module
    for name in [name for name, module in sys.modules.items() if str(LAB) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def streams(lro):
    """Two rounds of every configuration: off is 100, the others are better by their place."""
    samples = {}
    for place, config in enumerate(lro.CONFIGS):
        figures = {"throughput": 100 if config == lro.BASE else 100 * place}
        if config not in lro.NATIVE:
            cycles = 1 if config == lro.BASE else 0.44
            figures.update({"cycles/byte driver": cycles * 1.1, "cycles/byte vifd": cycles, "cycles/byte guest": 2, "LRO rate": 19})
        samples[config] = [lro.Sample(figures, 0.5, dict.fromkeys(lro.STAGES, 0.25)) for _ in range(2)]
    return samples


def test_interleave_turns_back(lab):
    order = []
    samples = lab("rows").interleave(3, ["a", "b"], lambda config: order.append(config) or len(order), lambda text: None)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert samples == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_row_has_the_median(lab):
    row = lab("rows").row("A8a", "off", "throughput", "Mb/s", 535.9, [3, 1, 2, 10], stages={"copy": 1})
    assert set(row) == ROW | {"stages"}
    assert row["ours"] == {"median": 2.5, "min": 1, "max": 10, "n": 4}


def test_bar_with_a_base_is_of_each_round(lab):
    bar = lab("rows").bar("A8a", "auto", "throughput", [20, 300, 40], 1.4, ("off", [10, 100, 40]), least=2)
    assert bar["ours"] == {"median": 2, "min": 1, "max": 3, "n": 3}
    assert bar["base"] == "off" and bar["pass"]


@pytest.mark.parametrize("limit,passes", [({"least": 5}, True), ({"least": 5.1}, False), ({"most": 5}, True),
                                          ({"most": 4.9}, False)])
def test_bar_is_a_limit(lab, limit, passes):
    assert lab("rows").bar("A10a", "auto", "LRO rate", [4, 5, 6], **limit)["pass"] is passes


def test_tables_need_no_base(lab, capsys):
    rows = lab("rows")
    rows.print_table([rows.row("A8a", "off", "throughput", "Mb/s", 200, [100]), rows.row("A8a", "x", "throughput", "Mb/s", None, [250]),
                      rows.row("A8b", "x", "throughput", "Mb/s", 400, [300])], "off")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[-2:] for line in lines] == [["1.00", "1.00"], ["-", "2.50"], ["-", "-"]]
    rows.print_bars([rows.bar("A8a", "auto", "throughput", [1], least=2)])
    assert capsys.readouterr().out.splitlines()[1].split()[-3:] == [">=", "2", "FAIL"]


def test_lro_rows_and_bars(lab, tmp_path):
    lro, rows = lab("lro"), lab("rows")
    samples = streams(lro), {"off": [lro.Sample({"TCP_RR": 5})]}, {"DA": [lro.Sample({"added delay": 3})]}, ([10, 10], [9.8, 9.9])
    ours, bars = [], []
    for letter in "ab":
        ours += lro.rows_of(letter, *samples)
        bars += lro.bars_of(letter, *samples)
    rows.write_json(tmp_path / "lro.json", ours, bars)
    written = json.loads((tmp_path / "lro.json").read_text())
    assert all(ROW <= set(row) for row in written["rows"])
    found = {(row["id"], row["config"], row["metric"]): row for row in written["rows"]}
    assert len(found) == len(written["rows"])
    assert found["A8b", "off", "throughput"]["paper"] == 535.9
    assert found["A9a", "DA", "cycles/byte driver"]["stages"]["copy"] == 0.25
    assert found["A12a", "DA", "added delay"]["ours"]["median"] == 3
    passed = {(bar["id"], bar["metric"]): bar["pass"] for bar in written["bars"]}
    assert passed["A8a", "throughput"] and passed["A11b", "TCP_RR"] and passed["A13a", "cycles/byte guest"]
    assert passed["A9a", "cycles/byte driver"] and passed["A9b", "cycles/byte vifd"] and not passed["A10a", "LRO rate"]
