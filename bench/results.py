# SPDX-License-Identifier: BSD-3-Clause
"""Samples to figures: medians, ratios, bars, the table and results.json."""

import dataclasses
import json
import statistics

# Where the CPUs were during a sample; the last two kinds count only where there is nothing better.
NEAR, FAR, MIXED, DISTURBED = "near", "far", "mixed", "disturbed"
ENOUGH = 5


@dataclasses.dataclass
class Sample:
    """One figure, and how far the two CPUs were apart while it was taken (None: not looked at)."""
    value: float
    placement: str


@dataclasses.dataclass
class Bar:
    """What a row must reach: a ratio to its peer, or (absolute) a figure of vifd's own."""
    limit: float
    absolute: bool = False


@dataclasses.dataclass
class Row:
    """A line of the table: vifd beside one peer, or (peer "none") alone."""
    name: str
    peer: str
    unit: str
    higher_is_better: bool
    ours: list
    theirs: list = dataclasses.field(default_factory=list)
    bar: Bar = None
    extra: dict = dataclasses.field(default_factory=dict)

    def placement(self):
        """The placement that the row's figure is of: near, or else far, if both sides were seen there often enough;
        or else None, any."""
        for placement in (NEAR, FAR):
            if all(len(of_it) >= min(ENOUGH, len(of_any))
                   for of_it, of_any in zip(self.figures(placement), self.figures(None))):
                return placement
        return None

    def figures(self, placement):
        """Values of ours and theirs in a placement (None: in any)."""
        return tuple([sample.value for sample in side if placement in (None, sample.placement)]
                     for side in (self.ours, self.theirs))

    def to_json(self):
        """The row as results.json has it."""
        ours, theirs = (summary(values) for values in self.figures(self.placement()))
        line = {"row": self.name, "peer": self.peer, "unit": self.unit,
                "higher_is_better": self.higher_is_better, "ours": ours, "theirs": theirs,
                "ratio": ratio(ours, theirs)}
        if any(sample.placement for sample in self.ours):
            line["placement"] = self.placement() or "any"
        if self.bar:
            figure = ours and ours["median"] if self.bar.absolute else line["ratio"]
            line["bar"], line["bar_on"] = self.bar.limit, "ours" if self.bar.absolute else "ratio"
            line["pass"] = figure is not None and (figure >= self.bar.limit if self.higher_is_better
                                                   else figure <= self.bar.limit)
        if self.placement() == NEAR:
            far_ours, far_theirs = (summary(values) for values in self.figures(FAR))
            if far_ours:
                line["far"] = {"ours": far_ours, "theirs": far_theirs,
                               "ratio": ratio(far_ours, far_theirs)}
        return {**line, **self.extra}


def summary(values):
    """Median, least, greatest and count; None of nothing."""
    if not values:
        return None
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4),
            "max": round(max(values), 4), "n": len(values)}


def ratio(ours, theirs):
    """Ours by theirs, by medians."""
    if not ours or not theirs or not theirs["median"]:
        return None
    return round(ours["median"] / theirs["median"], 3)


def write_json(path, rows):
    """Write results.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")


def print_table(rows):
    """The rows for people."""
    header = ("row", "peer", "unit", "vifd median [min..max] n", "peer median [min..max] n",
              "ratio", "bar", "", "far: vifd, peer, ratio")
    lines = [header] + [table_line(row.to_json()) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def table_line(row):
    """One row's cells."""
    bar = verdict = far = ""
    if "bar" in row:
        bar = (">= " if row["higher_is_better"] else "<= ") + f"{row['bar']:g}"
        verdict = ("pass" if row["pass"] else "FAIL") + ("?" if row.get("placement") == "any" else "")
    if "far" in row:
        sides = [number(side["median"]) for side in (row["far"]["ours"], row["far"]["theirs"]) if side]
        far = " ".join(sides + ([f"{row['far']['ratio']:.2f}"] if row["far"]["ratio"] else []))
    unit = row["unit"]
    if row.get("placement", NEAR) != NEAR:
        unit += f" ({row['placement']})"
    return (row["row"], row["peer"], unit, spread(row["ours"]), spread(row["theirs"]),
            f"{row['ratio']:.2f}" if row["ratio"] is not None else "", bar, verdict, far)


def spread(figure):
    """A summary in words."""
    if not figure:
        return "-"
    return f"{number(figure['median'])} [{number(figure['min'])}..{number(figure['max'])}] {figure['n']}"


def number(value):
    """Three digits, or the whole part."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
