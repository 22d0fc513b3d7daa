# SPDX-License-Identifier: BSD-3-Clause
"""The report, of canned results: complete, with something missing, with a bar that is missed. Nothing is run or timed."""
import json
import re
import shutil

import pytest

STAMP = {"quick": True, "machine": "a machine", "digest": "d", "commit": "c", "date": "2026-01-02 03:04", "seconds": 5, "only": []}


def metric_of(exhibit):
    """A metric that the exhibit plots: its pattern's first alternatives, and a size for whatever it may be."""
    if not exhibit.plots:
        return "throughput"
    pattern = re.sub(r"\(\?:([^|)]*)[^)]*\)", r"\1", exhibit.plots[0].metrics)
    metric = re.sub(r"\.\*", "4 KiB", pattern).replace("(", "").replace(")", "")
    assert re.fullmatch(exhibit.plots[0].metrics, metric)
    return metric


@pytest.fixture
def results(lab):
    """Of every experiment, what the papers' tables and figures need: 100 and, of the base, 50; the paper has 300 and 200."""
    report, rows = lab("report"), lab("rows")
    found = {}
    for exhibit in report.EXHIBITS:
        one = found.setdefault(exhibit.experiment, {
            "title": f"Title of {exhibit.experiment}", "base": "base", "bases": {}, "why": {}, "stands": {}, "notes": ["a note"],
            "rows": [], "bars": [], "stamp": {**STAMP, "experiment": exhibit.experiment}})
        for ident in exhibit.idents:
            one["rows"] += [rows.row(ident, config, metric_of(exhibit), "Mb/s", paper, [ours] * 3)
                            for config, paper, ours in (("base", 200, 50), ("x", 300, 100), ("y", None, 40))]
    found["menon"]["bars"] = [rows.bar("M28", "x", "throughput", [100] * 3, 1.5, ("base", [50] * 3), least=1.5, shape=name)
                              for name in report.SHAPES]
    return found


@pytest.fixture
def written(lab, results, tmp_path):
    """Write results, make the report, and return its text; and what is lacking."""
    def write():
        report = lab("report")
        for name, one in results.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(one))
        report.write(tmp_path, tmp_path / "report.md", tmp_path)
        there = report.read(tmp_path)
        return (tmp_path / "report.md").read_text(), report.problems(report.filled(there), there, report.everything())
    return write


def cells(text):
    return [cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line.strip("|").split("|")]


def test_complete(lab, written, tmp_path):
    text, lacking = written()
    assert lacking == []
    assert all(cells(text)) and "no figure" in cells(text)
    for exhibit in lab("report").EXHIBITS:
        assert f"### {exhibit.name}: {exhibit.title}" in text
        assert not exhibit.plots or f"({exhibit.name}.svg)" in text and "<svg" in (tmp_path / f"{exhibit.name}.svg").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| M28 | throughput4 KiB | x |"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == \
        ["M28", "throughput4 KiB", "x", "Mb/s", "300", "100", "100", "100", "3", "1.50", "2.00"]
    assert "Of the paper's ratios 1 of 1 agree in direction, none of them within 25 %: x 2× (paper 1.5×)." in text
    assert "**FAIL**" not in text and "What is missed" not in text


def test_a_figure_without_rows_is_named(written, results):
    results["seth"]["rows"] = [row for row in results["seth"]["rows"] if row["id"] != "S21"]
    text, lacking = written()
    assert len(lacking) == 1 and lacking[0].startswith("S-table3 ") and "seth has no rows S21" in lacking[0]
    assert "### S-table3" not in text and "### S-table4" in text


def test_an_experiment_that_is_not_there_is_named(lab, written, results):
    del results["tlb"]
    _, lacking = written()
    assert [line.split()[0] for line in lacking] == [one.name for one in lab("report").EXHIBITS if one.experiment == "tlb"]


def test_what_no_paper_has_is_shown_too(lab, written, results):
    own = [lab("rows").row("X1", "base", "throughput", "Mb/s", None, [7] * 3)]
    results["own"] = {**results["fig7"], "title": "Of our own", "rows": own}
    text, lacking = written()
    assert lacking == [] and "| X1 | throughput | base |" in text[text.index("Experiment own: Of our own"):]


def test_too_few_samples_are_named(written, results):
    results["fig7"]["rows"][1]["ours"]["n"] = 2
    assert written()[1] == ["spread: M-fig7 has less than 3 samples in 1 rows, as of throughput4 KiB, x"]


def test_a_shape_without_a_bar_is_named(written, results):
    results["menon"]["bars"] = results["menon"]["bars"][1:]
    assert written()[1] == ["shape high/none: no bar"]


def test_only_what_was_asked_for_is_due(lab, results):
    report = lab("report")
    del results["seth"], results["menon"]["rows"][:]
    exhibits = report.filled(results)
    assert report.problems(exhibits, results, {"fig7": set(), "tlb": set()}) == []
    assert len(report.problems(exhibits, results, {"menon": {"M28"}})) == 1


@pytest.mark.parametrize("why", ["because of that", None])
def test_a_missed_bar_is_explained(lab, lab_run, written, results, why):
    bar = lab("rows").bar("M28", "x", "throughput", [60] * 3, 3.7, ("base", [50] * 3), least=2.5, shape="high/none")
    if why:
        lab_run.Run.explain(bar, why, {"base": {"guest": 3, "vifd": 1}, "x": {"guest": 2}})
    results["menon"]["bars"][0] = bar
    text, lacking = written()
    assert lacking == []
    line = next(line for line in text.splitlines() if line.startswith("| Menon, figure 5: Guest-high over"))
    assert "**FAIL**" in line and "at least 2.5" in line and "1.2 [1.2 .. 1.2], n 3" in line
    missed = text[text.index("### What is missed"):]
    assert (why or "does not explain it") in missed
    assert ("| x | 2 | none |" in missed) is bool(why)


def test_sentence(lab, results):
    report, words = lab("report"), lab("report_words")
    results["menon"]["why"] = {"M28": "A reason.", "M29": "Of another."}
    fig5 = next(exhibit for exhibit in report.filled(results) if exhibit.name == "M-fig5")
    row = lab("rows").row
    fig5.rows[:] = [row("M28", "base", "throughput", "Mb/s", 100, [10]), row("M28", "up", "throughput", "Mb/s", 200, [19]),
                    row("M28", "down", "throughput", "Mb/s", 200, [8]), row("M28", "same", "throughput", "Mb/s", 102, [10.4]),
                    row("M28", "told", "throughput", "Mb/s", None, [30], paper_ratio=2.0),
                    row("M28", "ours", "throughput", "Mb/s", None, [5])]
    assert words.sentence(fig5, results["menon"]) == (
        "Of the paper's ratios 3 of 4 agree in direction, 2 of them within 25 %: told 3× (paper 2×), up 1.9× (paper 2×), "
        "same 1.04× (paper 1.02×); 1 of 4 does not: down 0.8× (paper 2×). Why: A reason.")


def test_sentence_without_a_base(lab):
    words, report, row = lab("report_words"), lab("report"), lab("rows").row
    exhibit = report.EXHIBITS[0]._replace(rows=[row("A10a", "DA", "LRO rate", "segments", 4.71, [28]),
                                                row("A10b", "DA", "LRO rate", "segments", None, [27])])
    plain = {"base": "off", "bases": {}, "why": {"A10": "Bursts."}}
    assert words.sentence(exhibit, plain) == "As they are: DA 28 segments (paper 4.71 segments). Why: Bursts."
    exhibit.rows[:] = exhibit.rows[1:]
    assert words.sentence(exhibit, {**plain, "why": {}}) == "The paper's text gives no figure to compare with."


def test_sentence_of_a_base_without_a_figure(lab):
    """Of figure 10 the paper tells the best alone."""
    words, report, row = lab("report_words"), lab("report"), lab("rows").row
    exhibit = report.EXHIBITS[0]._replace(rows=[row("M33", "none", "throughput", "Mb/s", None, [700]),
                                                row("M33", "all", "throughput", "Mb/s", 1848, [1500])])
    assert words.sentence(exhibit, {"base": "none", "bases": {}, "why": {}}) == "As they are: all 1500 Mb/s (paper 1848 Mb/s)."


def test_whats_the_base_of_each_row(lab):
    rows = lab("rows")
    two = [rows.row(ident, config, "throughput", "Mb/s", paper, [ours]) for ident in ("M25", "M26")
           for config, paper, ours in (("Linux", 100, 10), ("guest", 50, 2))]
    found = [(paper, ours) for _, paper, ours in rows.by_base(two, "Linux", {"M26": "guest"})]
    assert found == [(1, 1), (0.5, 0.2), (2, 5), (1, 1)]


def test_gnuplot_gets_what_it_takes(lab, results, tmp_path):
    """Quotes and the like in names, no figure of the paper's, a whisker that leaves the panel."""
    assert shutil.which("gnuplot"), "scripts/install-deps.sh test installs it"
    report, plot, row = lab("report"), lab("report_plot"), lab("rows").row
    exhibit = next(one for one in report.filled(results) if one.name == "M-fig5")._replace(rows=[
        row("M28", "base", "throughput", "Mb/s", None, [1, 2, 900]), row("M28", 'a "b" \\ {c}_d', "throughput", "Mb/s", None, [3])])
    assert plot.draw(exhibit, results["menon"], tmp_path / "x.svg")
    assert not plot.draw(exhibit._replace(rows=[]), results["menon"], tmp_path / "y.svg")
