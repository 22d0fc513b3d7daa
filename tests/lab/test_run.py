# SPDX-License-Identifier: BSD-3-Clause
"""Which experiments lab/run runs: names of the papers' figures, what is there already, parts of an experiment."""
import json

import pytest

NOW = {"experiment": "menon", "quick": False, "machine": "m", "digest": "d", "commit": "c", "date": "now", "seconds": 0, "only": []}
EXPERIMENTS = ("fig7", "lro", "seth", "tlb", "menon")


@pytest.mark.parametrize("names,wanted", [
    (["fig5"], {"menon": {"M28"}}),
    (["M28"], {"menon": {"M28"}}),
    (["m-FIG5", "fig6"], {"menon": {"M28", "M29"}}),
    (["fig9"], {"seth": {"S20"}, "tlb": {"M32"}}), # two papers have one
    (["M-fig9"], {"tlb": {"M32"}}),
    (["table4"], {"seth": {"S23"}}),
    (["tableIV"], {"lro": {"A8"}}),
    (["fig7"], {"fig7": set()}), # an experiment is called so, too
    (["menon", "fig5"], {"menon": set()}),
    (["fig5", "menon"], {"menon": set()}),
    (EXPERIMENTS, {name: set() for name in EXPERIMENTS}),
])
def test_names(lab, names, wanted):
    assert lab("report").resolve(names, EXPERIMENTS) == wanted


def test_names_in_the_order_of_experiments(lab):
    assert list(lab("report").resolve(["fig5", "table4", "fig7"], EXPERIMENTS)) == ["fig7", "seth", "menon"]


@pytest.mark.parametrize("name", ["fig99", "M", "", "table", "menon "])
def test_unknown_names(lab, name):
    with pytest.raises(ValueError, match=f"^{name}$"):
        lab("report").resolve(["fig7", name], EXPERIMENTS)


def test_every_exhibit_has_a_name_of_its_own(lab):
    exhibits = lab("report").EXHIBITS
    assert len({exhibit.name for exhibit in exhibits}) == len(exhibits)
    assert all(exhibit.name[0] in lab("report").PAPERS for exhibit in exhibits)


@pytest.mark.parametrize("then,wanted,there", [
    ({}, set(), True),
    ({}, {"M28"}, True),
    ({"digest": "other"}, set(), False),
    ({"quick": True}, set(), False),
    ({"machine": "other"}, set(), False),
    ({"commit": "other", "date": "then", "seconds": 9}, set(), True),
    ({"only": ["M28", "M29"]}, {"M28"}, True),
    ({"only": ["M28"]}, {"M28", "M29"}, False),
    ({"only": ["M28"]}, set(), False),
])
def test_what_is_there_already(lab, tmp_path, then, wanted, there):
    path = tmp_path / "menon.json"
    path.write_text(json.dumps({"stamp": {**NOW, **then}}))
    assert lab("stamp").is_there(path, NOW, wanted) is there


@pytest.mark.parametrize("text", [None, "", "{}", '{"stamp": {}}', '{"rows": ['])
def test_what_was_not_finished_is_not_there(lab, tmp_path, text):
    path = tmp_path / "menon.json"
    if text is not None:
        path.write_text(text)
    assert not lab("stamp").is_there(path, NOW, set())


def results(only, idents, value, **stamp):
    return {"rows": [{"id": ident, "ours": value} for ident in idents], "bars": [{"id": idents[0], "ours": value}],
            "notes": ["note"], "why": {idents[0]: value}, "stamp": {**NOW, "only": only, **stamp}}


def test_a_part_joins_what_is_there(lab):
    whole = results([], ["M28", "M29"], 1)
    both = lab("stamp").merge(results(["M28"], ["M28"], 2), whole)
    assert [(row["id"], row["ours"]) for row in both["rows"]] == [("M29", 1), ("M28", 2)]
    assert both["bars"] == [{"id": "M28", "ours": 2}] and both["why"] == {"M28": 2} and both["notes"] == ["note"]
    assert both["stamp"]["only"] == [] # all is there
    part = lab("stamp").merge(results(["M28"], ["M28"], 2), results(["M29"], ["M29"], 1))
    assert part["stamp"]["only"] == ["M28", "M29"] and len(part["rows"]) == 2


@pytest.mark.parametrize("earlier", [None, results([], ["M29"], 1, digest="other"), results([], ["M29"], 1, quick=True)])
def test_a_part_joins_nothing_else(lab, earlier):
    part = lab("stamp").merge(results(["M28"], ["M28"], 2), earlier)
    assert [row["id"] for row in part["rows"]] == ["M28"] and part["stamp"]["only"] == ["M28"]


def test_what_an_experiment_is_asked_for(lab_run, tmp_path):
    run = lab_run.Run(tmp_path, None, True, {"M28"})
    assert run.wants("M28", "M29") and not run.left_out
    assert not run.wants("M29") and run.left_out
    assert lab_run.Run(tmp_path, None, True).wants("M29")


def test_resume_leaves_out_what_is_there(lab_run, monkeypatch, tmp_path):
    monkeypatch.setattr(lab_run, "OUT", tmp_path)
    monkeypatch.setattr(lab_run.stamp, "make", lambda *_: NOW)
    (tmp_path / "tlb.json").write_text(json.dumps({"stamp": NOW}))
    asked = {"lro": set(), "tlb": set()}
    assert lab_run.plan(asked, False, True) == [("lro", set())]
    assert lab_run.plan(asked, False, False) == [("lro", set()), ("tlb", set())]


def test_one_that_fails_does_not_stop_the_others(lab_run, monkeypatch):
    ran = []

    def run(name, *_):
        ran.append(name)
        if name == "lro":
            raise OSError("no")
        return True
    monkeypatch.setattr(lab_run, "run", run)
    assert not lab_run.run_all([("lro", set()), ("tlb", set())], True)
    assert ran == ["lro", "tlb"] and lab_run.run_all([("tlb", set())], True)


def test_stamp_is_of_this_checkout(lab, monkeypatch):
    stamp = lab("stamp")
    monkeypatch.setenv("VIFD_ACCEL", "tcg")
    assert stamp.digest() == stamp.digest() and "CPUs" in stamp.machine()
    one = stamp.make("lro", True, 1.23, {"A9", "A8"})
    assert one["only"] == ["A8", "A9"] and one["seconds"] == 1.2 and stamp.agree(one, stamp.make("tlb", True, 9))


@pytest.mark.parametrize("passes,why,quick,well", [(True, None, False, True), (False, None, False, False),
                                                   (False, "why", False, True), (False, None, True, True)])
def test_a_missed_bar_fails_unless_it_is_explained(lab, lab_run, monkeypatch, tmp_path, passes, why, quick, well):
    monkeypatch.setattr(lab_run, "OUT", tmp_path)
    monkeypatch.setattr(lab_run.stamp, "make", lambda *_: dict(NOW))
    rows = lab("rows")

    class Experiment:
        TITLE, BASE, WHY = "Title", "base", {"M1": "a reason"}

        @staticmethod
        def run(run):
            bar = rows.bar("M1", "x", "throughput", [3, 3, 3], least=2 if passes else 4)
            if why:
                run.explain(bar, why)
            run.bars.append(bar)
            run.why["M2"] = "another"
            (run.folder / "vifd.log").write_text("said")
            return [rows.row("M1", "base", "throughput", "Mb/s", 2, [1, 1, 1])]

    monkeypatch.setattr(lab_run.importlib, "import_module", lambda name: Experiment)
    assert lab_run.run("fig7", quick, set()) is well
    written = json.loads((tmp_path / "fig7.json").read_text())
    assert written["why"] == {"M1": "a reason", "M2": "another"} and written["stamp"] == NOW and written["base"] == "base"
    assert (tmp_path / "log" / "fig7" / "vifd.log").read_text() == "said"
