# SPDX-License-Identifier: BSD-3-Clause
"""What the report says: of an exhibit, what agrees with the paper and what does not; and tables, none with an empty cell."""
import math

from rows import by_base, number

SAME = math.log(1.05) # ratios within 5 % of 1 have no direction
NEAR = math.log(1.10) # nor does it matter beside a figure that is that near
ALIKE = math.log(1.25) # as strong as in the paper
MOST_NAMED = 6

NO_FIGURE, NO_BASE = "no figure", "no base"
TABLE_HEAD = ("ID", "metric", "configuration", "unit", "paper", "here: median", "min", "max", "n", "paper ÷ base", "here ÷ base")
BAR_HEAD = ("ID", "what", "paper", "wanted", "here: median [min .. max]", "verdict")


class Compared:
    """One of the paper's figures and ours: as multiples of the base's, or (plain) as they are."""

    def __init__(self, name, paper, ours, unit="×"):
        self.name, self.paper, self.ours, self.unit = name, paper, ours, unit
        self.logs = [math.log(max(value, 1e-6)) for value in (paper, ours)]

    @property
    def agrees(self):
        """Whether both are on the same side of 1, or next to each other."""
        paper, ours = self.logs
        return abs(ours - paper) <= NEAR or abs(paper) > SAME and abs(ours) > SAME and (paper > 0) == (ours > 0)

    @property
    def alike(self):
        return abs(self.logs[1] - self.logs[0]) <= ALIKE

    def __str__(self):
        return f"{self.name} {number(self.ours)}{self.unit} (paper {number(self.paper)}{self.unit})"


def compare(rows, base, bases):
    """What can be compared of the rows: [Compared], and those that have only plain figures."""
    found = []
    for row, paper, ours in by_base(rows, base, bases):
        is_base = row["config"] == bases.get(row["id"], base)
        if paper is not None and ours is not None and not is_base:
            found.append((row, paper, ours, "×"))
        elif row["paper"] is not None and row["unit"] in ("times", "share"):
            found.append((row, row["paper"], row["ours"]["median"], "×"))
        elif row["paper"] is not None and not (is_base and paper is not None):
            found.append((row, row["paper"], row["ours"]["median"], f" {row['unit']}"))
    name = namer([row for row, *_ in found])
    compared = [Compared(name(row), *figures) for row, *figures in found]
    return [one for one in compared if one.unit == "×"], [one for one in compared if one.unit != "×"]


def namer(rows):
    """What to call one of the rows: no more than tells it from the others."""
    metrics, configs, idents = ({row[key] for row in rows} for key in ("metric", "config", "id"))

    def name(row):
        parts = ([row["metric"]] if len(metrics) > 1 else []) + ([row["config"]] if len(configs) > 1 or len(metrics) == 1 else [])
        return " ".join(parts) + (f" [{row['id']}]" if len(idents) > 1 else "")

    return name


def sentence(exhibit, results):
    """What agrees, what does not, and why."""
    ratios, plain = compare(exhibit.rows, results["base"], results["bases"])
    agree, differ = ([one for one in ratios if one.agrees is wanted] for wanted in (True, False))
    said = []
    if agree:
        strong = sum(one.alike for one in agree)
        how = "all of them" if strong == len(agree) else "none of them" if not strong else f"{strong} of them"
        said.append(f"of the paper's ratios {len(agree)} of {len(ratios)} agree in direction, {how} within 25 %: {named(agree)}")
    if differ:
        said.append(f"{len(differ)} of {len(ratios)} {'does' if len(differ) == 1 else 'do'} not: {named(differ)}")
    if plain:
        said.append(f"as they are: {named(plain)}")
    text = "; ".join(said) or "the paper's text gives no figure to compare with"
    why = whys(exhibit.rows, results["why"])
    return text[0].upper() + text[1:] + "." + (f" Why: {' '.join(why)}" if why else "")


def named(compared):
    """The first of them by name, those that differ most from the paper first."""
    first = sorted(compared, key=lambda one: -abs(one.logs[1] - one.logs[0]))[:MOST_NAMED]
    more = len(compared) - len(first)
    return ", ".join(map(str, first)) + (f", and {more} more" if more else "")


def whys(rows, why):
    """Explanations for the rows' IDs, with or without the letter behind them, each once."""
    idents = dict.fromkeys(row["id"] for row in rows)
    keys = dict.fromkeys(key for ident in idents for key in (ident, ident.rstrip("abcdefghijklmnopqrstuvwxyz")) if key in why)
    return list(dict.fromkeys(why[key] for key in keys))


def markdown(head, lines):
    """A table; every cell says something."""
    assert all(str(cell).strip() for line in lines for cell in line), lines
    cells = [[str(cell).replace("|", "/") for cell in line] for line in (head, ["---"] * len(head), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def table(rows, results):
    """Rows, the paper's figures and ours, both also as multiples of the same base."""
    lines = []
    for row, paper, ours in by_base(rows, results["base"], results["bases"]):
        summary = row["ours"]
        absolute = NO_FIGURE if row["paper"] is None else number(row["paper"])
        if row["paper"] is None and paper is not None:
            absolute = "a multiple only"
        lines.append((row["id"], row["metric"], row["config"], row["unit"], absolute,
                      *(number(summary[key]) for key in ("median", "min", "max")), summary["n"],
                      times(paper, NO_FIGURE), times(ours, NO_BASE)))
    return markdown(TABLE_HEAD, lines)


def times(value, otherwise):
    return otherwise if value is None else f"{value:.2f}"


def bar_line(bar):
    """A bar's cells."""
    what = f"{bar['metric']}, {bar['config']}" + (f" ÷ {bar['base']}" if bar["base"] else "")
    wanted = f"at least {bar['least']:g}" if bar["least"] is not None else f"at most {bar['most']:g}"
    ours = bar["ours"]
    return (bar["id"], what, NO_FIGURE if bar["paper"] is None else number(bar["paper"]), wanted,
            f"{number(ours['median'])} [{number(ours['min'])} .. {number(ours['max'])}], n {ours['n']}",
            "pass" if bar["pass"] else "**FAIL**")



def explanation(bar):
    """Why a bar is missed, with its profile."""
    text = f"**{bar['id']}, {bar['metric']}, {bar['config']}**: {bar.get('why') or 'the experiment does not explain it.'}\n"
    profile = bar.get("profile")
    if profile:
        parts = list(dict.fromkeys(part for each in profile.values() for part in each))
        lines = [(config, *(number(each[part]) if part in each else "none" for part in parts)) for config, each in profile.items()]
        text += "\n" + markdown(("configuration", *parts), lines)
    return text
