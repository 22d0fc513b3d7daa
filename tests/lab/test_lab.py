# SPDX-License-Identifier: BSD-3-Clause
"""What the lab makes of samples: rows, bars, table and JSON. Nothing is run or timed."""
import collections
import json

import pytest

ROW = {"id", "config", "metric", "unit", "paper", "ours"}


def streams(lro):
    """Two rounds of every configuration: off is 100, the others are better by their place."""
    samples = {}
    for place, config in enumerate(lro.CONFIGS):
        figures = {"throughput": 100 if config == lro.BASE else 100 * place, "cycles/byte total": 9 if config == lro.BASE else 5}
        if config not in lro.NATIVE:
            cycles = 1 if config == lro.BASE else 0.44
            figures.update({"cycles/byte driver": cycles * 1.1, "cycles/byte vifd": cycles, "cycles/byte guest": 2, "LRO rate": 19,
                            "added delay": 3})
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
    samples = streams(lro), {"off": [lro.Sample({"TCP_RR": 5})]}, ([10, 10], [9.8, 9.9])
    ours, bars = [], []
    for letter in "ab":
        ours += lro.rows_of(letter, *samples)
        bars += lro.bars_of(letter, *samples, lambda bar, text, profile: bar.update(why=text, profile=profile))
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
    total = next(bar for bar in written["bars"] if bar["id"] == "A9a" and bar["metric"] == "cycles/byte total")
    assert not total["pass"] and total["shape"] == "DA/off" and total["profile"]["DA"]["total"] == 5


def test_percentiles_of_a_histogram(lab):
    lro, histogram = lab("lro"), collections.Counter({64: 50, 80: 49, 200: 1})
    assert [lro.percentile(histogram, share) for share in (0.5, 0.51, 0.99, 1)] == [64, 80, 80, 200]
    assert lro.percentile(collections.Counter(), 0.5) == 0


# What callgrind writes: names in full once, then by number; costs of a call belong to who is called.
CALLGRIND = """version: 1
events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw
fl=(1) ../src/guest/snet_rx.c
fn=(1) snet_rx_put
10 5 0 0 0 0 0 1 2 4
fi=(2) ../src/zone/slab.h
+3 7 0 0 0 0 0 0 8
cfi=(3) ???
cfn=(2) __memcpy_avx_unaligned_erms
calls=3 0
* 9 9 9 9 9 9 900 900 900
fe=(1)
11 1

fl=(3)
fn=(2)
0 4 0 0 0 0 0 16 32 64
fn=(3) main
fl=(4) ../src/bridge/bridge.c
fn=(4) bridge_forward
20 1 0 0 0 0 0 0 0 128
totals: 1
"""


def test_misses_are_of_who_has_them(lab):
    misses = lab("misses")
    assert misses.by_component(CALLGRIND) == {"copy": 112, "back end": 7, "zones": 8, "bridge": 128, "packets, worker": 0, "rest": 0}


def seth_samples(seth, cycles, copied):
    """By configuration, cycles of the driver and bytes copied."""
    samples = {}
    for config in seth.CONFIGS:
        figures = {"throughput": 900, "CPU": 50, "cycles/byte total": 9, "round trip": 100, "cycles/byte program": 1}
        if config != seth.BASE:
            figures.update({"cycles/byte driver": cycles[config], "copied": copied[config], "referenced": 1 - copied[config],
                            "cycles/byte driver, system": 0.1, "cycles/byte front end": 1})
        samples[config] = [seth.Sample(figures, {"copy": 0.25})] * 2
    return samples


@pytest.mark.parametrize("cycles,copied,passes", [(0.5, 0, True), (0.65, 0, False), (0.8, 0, False), (0.5, 0.1, False)])
def test_seth_rows_and_bars(lab, tmp_path, cycles, copied, passes):
    seth, rows = lab("seth"), lab("rows")
    samples = seth_samples(seth, {"VETH": 1, "SETH-isolated": 0.1, "SETH-shared": cycles},
                           {"VETH": 1, "SETH-isolated": 1, "SETH-shared": copied})
    taken = {(letter, what, size): samples for letter in seth.FARS for what in ("send", "receive")
             for size in (*seth.SIZES, 1500)} | {(letter, "ping", seth.PING): samples for letter in seth.FARS}
    fast, slow = ([seth.Sample({"throughput": rate, "ring full": 0})] * 2 for rate in (900, 500))
    taken |= {("g", "packets", size): {"VETH": fast, seth.SHARED: fast, seth.SMALL_RING: slow} for size in seth.SIZES_RING}
    bars = seth.bars_of(taken, lambda bar, text, profile: bar.update(why=text, profile=profile))
    shapes = [bar for bar in bars if bar["shape"]]
    assert [(bar["id"], bar["paper"], bar["pass"]) for bar in shapes] == [("S21w", 0.773, False), ("S23w", 0.797, False)] # totals are equal
    assert shapes[0]["profile"]["VETH"]["driver"] == 1
    assert all(bar["pass"] for bar in bars if not bar["shape"]) is passes
    if cycles == 0.65: # too much of the driver's CPU for 64 KiB, not for 1500 B
        assert {bar["metric"] for bar in bars if not bar["pass"] and not bar["shape"]} == {f"cycles/byte driver, {what} 64 KiB" for what in ("send", "receive")}
    counted = {config: dict.fromkeys(lab("misses").NAMES, [2, 2]) for config in seth.VIFDS}
    rows.write_json(tmp_path / "seth.json", seth.rows_of(taken) + seth.rows_of_misses(counted), bars)
    written = json.loads((tmp_path / "seth.json").read_text())["rows"]
    found = {(row["id"], row["config"], row["metric"]): row for row in written}
    assert len(found) == len(written) and all(ROW <= set(row) for row in written)
    assert found["S19w", "VETH", "round trip, 4 B"]["paper"] == 127.84 and found["S19g", "VETH", "round trip, 4 B"]["paper"] is None
    assert found["S21w", "SETH-shared", "cycles/byte total, send 64 KiB"]["paper"] == 24.17
    assert found["S25g", "VETH", "misses/KiB total"]["ours"]["median"] == 12
    assert found["S24g", "VETH", "cycles/byte driver, receive 1500 B"]["stages"] == {"copy": 0.25}
    assert found["S22g", "small-ring", "a packet a write: 1 KiB"]["ours"]["median"] == 500
    # every figure of the paper is beside one of ours
    assert set(seth.PAPER) == {(row["id"][:-1], row["metric"]) for row in written if row["paper"] and row["id"] != "S25g"}


def test_paths_rows(lab):
    paths = lab("paths")
    figures = {"throughput": 900, "guest": 4, "driver": 2, "total": 6}
    taken = {direction: {config: [paths.Sample(figures)] * 3 for config in paths.CONFIGS} for direction in paths.DIRECTIONS}
    lengths = {direction: {config: [{"instructions/byte": 2 if config == paths.BASE else 8 if "same" in config else 10, "switches/MiB": 5}] * 3
                           for config in paths.CONFIGS} for direction in paths.DIRECTIONS}
    rows = paths.rows_of(taken) + paths.rows_of_length(lengths) + paths.rows_of_parts({"send": [{"copy": 266}] * 3})
    found = {(row["id"], row["config"], row["metric"]): row for row in rows}
    assert len(found) == len(rows)
    multiples = {row["config"]: (paper, ours) for row, paper, ours in lab("rows").by_base(rows, paths.BASE)
                 if row["id"] == "P3" and row["metric"] == "instructions/byte, send"}
    assert multiples == {"native": (1, 1), "same CPU": (None, 4), "separate CPU": (None, 5), "VETH, same CPU": (3.5, 4),
                         "VETH, separate CPU": (3.5, 5)}
    assert found["P4", "native", "switches/MiB, send"]["unit"] == "switches"
    assert paths.why_length(lengths).count("1.25") == 4
