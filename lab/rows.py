# SPDX-License-Identifier: BSD-3-Clause
"""Samples to rows, rows to a table and to JSON."""
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


def row(ident, config, metric, unit, paper, values):
    """A line of results. paper is the paper's figure in that unit, None if it gives none; values are ours."""
    ours = {"median": round(statistics.median(values), 4), "min": round(min(values), 4),
            "max": round(max(values), 4), "n": len(values)}
    return {"id": ident, "config": config, "metric": metric, "unit": unit, "paper": paper, "ours": ours}


def write_json(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def print_table(rows, base):
    """The rows for people; each figure also as a multiple of that of configuration base."""
    bases = {row["metric"]: row for row in rows if row["config"] == base}
    lines = [("metric", "config", "unit", "paper", "here: median [min..max] n", f"paper/{base}", f"here/{base}")]
    for line in rows:
        ours, least = line["ours"], bases[line["metric"]]
        lines.append((line["metric"], line["config"], line["unit"], number(line["paper"]),
                      f"{number(ours['median'])} [{number(ours['min'])}..{number(ours['max'])}] {ours['n']}",
                      multiple(line["paper"], least["paper"]),
                      multiple(ours["median"], least["ours"]["median"])))
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def multiple(value, base):
    return f"{value / base:.2f}" if value is not None and base else "-"


def number(value):
    """Three digits, or the whole part."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
