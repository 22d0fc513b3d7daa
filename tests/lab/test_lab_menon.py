# SPDX-License-Identifier: BSD-3-Clause
"""What menon makes of its samples. Nothing is run or timed."""
from types import SimpleNamespace

import pytest

IDS = {"M3", "M5", "M25", "M26", "M28", "M29", "M31", "M33", "M34", "M37"}


class Run:
    """As lab/run has it. wanted: IDs, none: all"""

    def __init__(self, *wanted):
        self.wanted, self.bars = wanted, []

    def wants(self, *idents):
        return not self.wanted or bool(set(self.wanted) & set(idents))

    @staticmethod
    def explain(bar, text, profile=None):
        bar.update(why=text, profile=profile)


def samples(menon, run, figure=lambda config: 100):
    """Three of each configuration that is wanted."""
    def one(config):
        cycles = 1000 / figure(config)
        parts = {"cycles/byte guest": 0.5 * cycles, "cycles/byte driver": 0.3 * cycles, "cycles/byte VMM": 0.2 * cycles}
        return menon.Sample({"throughput": figure(config), "cycles/byte total": cycles, **parts}, 1,
                            {stage: 0.1 for stage in menon.STAGES}, {"mapped": 3})

    return {direction: {config: [one(config) for _ in range(3)] for config in configs}
            for direction, configs in menon.wanted(run).items()}


@pytest.fixture
def menon(lab):
    return lab("menon")


def test_all_rows_and_shapes(menon, lab):
    run = Run()
    figures = {"high": 300, "high-ioc": 360, "high-ioc-sp": 370, "copy": 118}
    taken = samples(menon, run, lambda config: figures.get(config, 100))
    rows = menon.rows_of(taken)
    assert {row["id"] for row in rows} == IDS
    assert all(row["ours"]["n"] == 3 for row in rows)
    menon.add_bars(run, taken)
    assert all(bar["pass"] and bar["why"] and bar["profile"] for bar in run.bars)
    shapes = {bar["shape"] for bar in run.bars} - {None}
    assert shapes == {"high/none", "high-ioc/high", "all/none", "remap/copy"} <= set(lab("report").SHAPES)


def test_the_papers_figures(menon):
    by = {(row["id"], row["config"], row["metric"]): row for row in menon.rows_of(samples(menon, Run()))}
    paper = {key: row["paper"] for key, row in by.items()}
    assert [paper["M28", config, "throughput"] for config in menon.GUESTS] == [750, 766, 806, 2794, 3230, 3310]
    assert [paper["M34", config, "throughput"] for config in ("driver-none", "driver-MTU", "driver-MTU-SP", "Linux")] == [
        1738, 2033, 2301, 2508]
    assert (paper["M3", "guest", "throughput, receive"], paper["M3", "guest", "throughput, send"]) == (820, 750)
    assert by["M31", "high-ioc", "cycles/byte VMM"]["paper_ratio"] == 0.62
    assert by["M29", "high", "cycles/byte guest"]["paper_ratio"] == 0.25
    assert by["M5", "flip", "driver and VMM, receive"]["paper"] == 0.7
    assert by["M5", "flip", "driver and VMM, receive"]["ours"]["median"] == 0.5


@pytest.mark.parametrize("ident, directions", [("M33", {"write"}), ("M37", {"receive"}), ("M31", {"send"}),
                                               ("M3", {"send", "receive"})])
def test_only_what_is_wanted(menon, ident, directions):
    run = Run(ident)
    taken = samples(menon, run)
    assert set(taken) == directions
    assert ident in {row["id"] for row in menon.rows_of(taken)}
    menon.add_bars(run, taken)
    assert {bar["id"] for bar in run.bars} <= {ident}


def test_what_is_missed_fails(menon):
    run = Run()
    menon.add_bars(run, samples(menon, run))
    assert not any(bar["pass"] for bar in run.bars)


def test_cycles_by_domain(menon):
    """VMM is taken out of the two others, and nothing is lost; what vifd tells is of twice the time."""
    spent = {"bytes": 1000, "clock": 2, "idle": 0.5, "program": 0.2, "front": 0.3, "vifd": 0.4, "front switches": 3,
             "vifd switches": 2}
    told = {"clock": 4, "remap cycles": 100, **{f"stage {stage}": 10 for stage in menon.STAGES}}
    figures = menon.Menon.figures(SimpleNamespace(hz=1000, wake=10, stages=menon.Menon.stages), spent, told)
    assert figures["throughput"] == pytest.approx(1000 * 8 / 2 / 1e6)
    assert figures["cycles/byte total"] == pytest.approx(1.5)
    assert figures["cycles/byte guest"] == pytest.approx(0.5 - 0.03)
    assert figures["cycles/byte driver"] == pytest.approx(0.4 - 0.05 - 0.02)
    assert figures["cycles/byte VMM"] == pytest.approx(0.05 + 0.05)
    assert sum(figures.stages.values()) == pytest.approx(0.4) and figures.busy == 0.75
