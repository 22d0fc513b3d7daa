# SPDX-License-Identifier: BSD-3-Clause
"""What the lab's experiment tlb makes of what its programs say. Nothing is traced."""
import pytest


@pytest.fixture
def tlb(lab):
    return lab("tlb")


def samples_of(tlb, superpages):
    """Four packets; every model has walked 8 pages, on superpages so many."""
    models = {tlb.model_name(key): {"accesses": 100, "misses_in": {"guest": 6, "other": 2},
                                    "walks": {"4k": 8, "2m": 0} if key[0] == tlb.BASE else {"4k": 0, "2m": superpages}}
              for key in tlb.all_models()}
    memory = {"guest": {"resident": 4 << 20, "superpages": 2 << 20}}
    return {workload: [tlb.Sample(models, {"packets": 4, "memory": memory})] * 2 for workload in tlb.WORKLOADS}


def test_each_model_has_a_name_of_its_own(tlb):
    assert len({tlb.model_name(key) for key in tlb.all_models()}) == len(list(tlb.all_models())) == 12


def test_rows(tlb):
    rows = {(row["id"], row["config"], row["metric"]): row for row in tlb.rows_of(tlb.MAIN, samples_of(tlb, 2))}
    assert len(rows) == len(tlb.WORKLOADS) * 12 + len(tlb.PAPER)
    assert rows["M32", "4k", "tx 64K, two levels, never"]["ours"]["median"] == 2
    assert rows["M32", "4k", "tx 64K, two levels, never"]["misses_in"] == {"guest": 1.5, "other": 0.5}
    ratio = rows["M36", "superpages", "rx MTU, 64 entries, 8th round: by 4k"]
    assert ratio["ours"]["median"] == 0.25 and ratio["paper"] == 0.14
    assert tlb.memory_rows(samples_of(tlb, 2))[0]["ours"] == {"median": 0.5, "min": 0.5, "max": 0.5, "n": 8}


@pytest.mark.parametrize("superpages,passes", [(1, [True, True]), (2, [True, False]), (3, [False, False])])
def test_bars_are_the_papers(tlb, superpages, passes):
    assert [bar["pass"] for bar in tlb.bars_of(samples_of(tlb, superpages))] == passes


@pytest.mark.parametrize("counters", [True, False])
def test_untraced_rows(tlb, counters):
    samples = {config: [tlb.Untraced({"ns/packet": 100, **({"misses/packet": 4} if counters else {})})]
               for config in tlb.untraced_configs(tlb.WORKLOADS)}
    for workload in tlb.WORKLOADS:
        samples[f"{workload}, superpages"] = [tlb.Untraced({unit: value / 2 for unit, value in sample.items()})
                                              for sample in samples[f"{workload}, superpages"]]
    rows = {(row["id"], row["config"], row["metric"]): row for row in tlb.untraced_rows(tlb.WORKLOADS, samples)}
    assert len(rows) == len(tlb.WORKLOADS) * 3 * (1 + counters)
    assert rows["M34", "superpages", "rx MTU, CPU time: by 4k"]["ours"]["median"] == 0.5
    assert rows["M34", "superpages", "rx MTU, CPU time: by 4k"]["paper"] == 2033 / 2301
    assert rows["M28", "4k", "tx 64K, CPU time"]["ours"]["median"] == 100
    assert (("M36", "superpages", "rx MTU, the CPU's count") in rows) is counters


def test_balloon(tlb):
    def outcome(given_back, after, super_after):
        return {"zones": 16, "given_back": given_back, "before": 64, "super_before": 64, "after": after, "super_after": super_after,
                "pages": 100, "pages_free": 90, "used": 7, "whole": 0}
    good = {0: [outcome(16, 0, 0)], 8: [outcome(8, 32, 32)]}
    rows = {(row["config"], row["metric"]): row["ours"]["median"] for row in tlb.balloon_rows(good)}
    assert rows["superpages", "given back, 8 buffers held"] == 0.5 and rows["4k", "given back, 8 buffers held"] == 0.9
    assert rows["superpages", "whole of the rest, 8 buffers held"] == 1 and rows["4k", "whole of the rest, 8 buffers held"] == 0
    assert [bar["pass"] for bar in tlb.balloon_bars(good)] == [True, True]
    assert [bar["pass"] for bar in tlb.balloon_bars({0: [outcome(15, 4, 2)]})] == [False, False]
