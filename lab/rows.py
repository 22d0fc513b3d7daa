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
    """A line of results. paper is the paper's figure in that unit, None if it gives none; values are ours; more goes into
    the JSON as it is."""
    return {"id": ident, "config": config, "metric": metric, "unit": unit, "paper": paper, "ours": summary(values), **more}


def bar(ident, config, metric, values, paper=None, base=None, least=None, most=None):
    """What an experiment has to reach: the median of values is at least `least`, or at most `most`. With base, they are
    first divided by those of another configuration, base = (name, its values): round by round, so that what drifts between rounds
    does not count."""
    if base:
        values = [value / other for value, other in zip(values, base[1])]
    ours = summary(values)
    return {"id": ident, "config": config, "metric": metric, "base": base and base[0], "paper": paper, "ours": ours,
            "least": least, "most": most,
            "pass": (least is None or ours["median"] >= least) and (most is None or ours["median"] <= most)}


def write_json(path, rows, bars=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows, "bars": list(bars)}, indent=1) + "\n")


def print_table(rows, base):
    """The rows for people; each figure also as a multiple of that of configuration base."""
    bases = {(row["id"], row["metric"]): row for row in rows if row["config"] == base}
    lines = [("id", "metric", "config", "unit", "paper", "here: median [min..max] n", f"paper/{base}", f"here/{base}")]
    for line in rows:
        least = bases.get((line["id"], line["metric"]))
        lines.append((line["id"], line["metric"], line["config"], line["unit"], number(line["paper"]), spread(line["ours"]),
                      multiple(line["paper"], least and least["paper"]),
                      multiple(line["ours"]["median"], least and least["ours"]["median"])))
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


def multiple(value, base):
    return f"{value / base:.2f}" if value is not None and base else "-"


def number(value):
    """Three digits, or the whole part."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
