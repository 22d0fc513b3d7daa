# SPDX-License-Identifier: BSD-3-Clause
"""Samples to rows and bars, these to a table and to JSON."""
import json
import statistics


def interleave(rounds, configs, sample, say):
    """Call sample(config) for each config in turn, so often, every other round backwards: whatever drifts, drifts for
    all. Returns {config: [samples]}."""
    samples = {config: [] for config in configs}
    for done in range(rounds):
        for config in configs[::-1] if done % 2 else configs:
            samples[config].append(sample(config))
            say(f"round {done + 1}/{rounds}, {config}: {samples[config][-1]}")
    return samples


def summary(values):
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4),
            "max": round(max(values), 4), "n": len(values)}


def row(ident, config, metric, unit, paper, values, **more):
    """A line of results. paper is the paper's figure in that unit, None if it gives none; values are ours, at least three; more
    goes into the JSON as it is. Of more, the report knows paper_ratio: the paper's figure as a multiple of its base's, where
    the paper tells no more than that."""
    return {"id": ident, "config": config, "metric": metric, "unit": unit, "paper": paper, "ours": summary(values), **more}


def bar(ident, config, metric, values, paper=None, base=None, least=None, most=None, shape=None):
    """What an experiment has to reach: the median of values is at least `least`, or at most `most`. With base, they are
    first divided by those of another configuration, base = (name, its values): round by round, so that what drifts between
    rounds does not count. shape: the bar is that one of report.SHAPES."""
    if base:
        values = [value / other for value, other in zip(values, base[1])]
    ours = summary(values)
    return {"id": ident, "config": config, "metric": metric, "base": base and base[0], "paper": paper, "ours": ours,
            "least": least, "most": most, "shape": shape,
            "pass": (least is None or ours["median"] >= least) and (most is None or ours["median"] <= most)}


def write_json(path, rows, bars=(), **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**more, "rows": rows, "bars": list(bars)}, indent=1) + "\n")


def by_base(rows, base, bases=()):
    """The rows, each with the paper's figure and ours as multiples of the base's, None where there is none. base: the
    configuration that is one, bases: {row's ID: its own}. Where the paper tells no more than a multiple, that is the row's
    paper_ratio."""
    bases = dict(bases)
    ones = {(row["id"], row["metric"]): row for row in rows if row["config"] == bases.get(row["id"], base)}
    for row in rows:
        one = ones.get((row["id"], row["metric"]))
        paper = row.get("paper_ratio", one and ratio(row["paper"], one["paper"]))
        yield row, paper, one and ratio(row["ours"]["median"], one["ours"]["median"])


def ratio(value, base):
    return value / base if value is not None and base else None


def print_table(rows, base, bases=()):
    """The rows for people; each figure also as a multiple of the base's, as by_base() has it."""
    name = "base" if bases else base
    lines = [("id", "metric", "config", "unit", "paper", "here: median [min..max] n", f"paper/{name}", f"here/{name}")]
    lines += [(line["id"], line["metric"], line["config"], line["unit"], number(line["paper"]), spread(line["ours"]),
               multiple(paper), multiple(ours)) for line, paper, ours in by_base(rows, base, bases)]
    print_columns(lines)


def print_bars(bars):
    """What had to be reached, and whether it is."""
    lines = [("id", "bar", "paper", "here: median [min..max] n", "wanted", "")]
    for line in bars:
        what = f"{line['metric']}, {line['config']}" + (f" / {line['base']}" if line["base"] else "")
        wanted = f">= {line['least']:g}" if line["least"] is not None else f"<= {line['most']:g}"
        lines.append((line["id"], what, number(line["paper"]), spread(line["ours"]), wanted, "pass" if line["pass"] else "FAIL"))
    print_columns(lines)


def print_columns(lines):
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def spread(ours):
    return f"{number(ours['median'])} [{number(ours['min'])}..{number(ours['max'])}] {ours['n']}"


def multiple(times):
    return "-" if times is None else f"{times:.2f}"


def number(value):
    """Three digits, or the whole part."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
