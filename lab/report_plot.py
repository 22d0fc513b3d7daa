# SPDX-License-Identifier: BSD-3-Clause
"""Plots of the report, by gnuplot: an SVG of each exhibit, with a panel for each metric.

The paper's figures and ours stand side by side: as multiples of the base (bars), or as they are (metrics, sizes). Whiskers are
our least and most.
"""
import re
import subprocess
import textwrap

from rows import by_base, number

PANEL_WIDTH, PANEL_HEIGHT, COLUMNS, MOST_PANELS = 580, 380, 2, 6
MARGINS, LEAST_WIDTH, LETTER_WIDTH = 90, 95, 7 # pixels: beside the axis, of a name below it
PAPER, HERE = "#a8a8a8", "#2a6fb0"
LINES = ("#444444", "#d1495b", "#2a6fb0", "#3c8d40", "#b8860b", "#7b4fa3", "#00868b")
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
MISSING, LINE_END = "NaN", r"\n"

HEAD = """set terminal svg size {width},{height} font "DejaVu Sans,11" noenhanced background "white"
set output "{path}"
set encoding utf8
set multiplot layout {rows},{columns}
"""
BARS = """$data << EOD
{data}
EOD
set title "{title}" font ",11"
set ylabel "{label}"
set key outside top center horizontal samplen 1
unset logscale
unset xlabel
set grid y lc rgb "#dddddd"
set boxwidth 0.36
set style fill solid 1 noborder
set xrange [-0.6:{last}]
set yrange [0:{top}]
set xtics ({tics}) scale 0
set bmargin {bottom}
plot {papers} $data using ($0+{place}):2 with boxes lc rgb "{here}" title "{whose}", \\
  "" using ($0+{place}):3:(0):($4-$3) with vectors heads size graph 0.008,90 lc rgb "black" notitle, \\
  "" using ($0+($4<{inside}?{place}:0.42)):($4<{inside}?$4:{inside}):6 with labels offset 0,0.6 font ",9" notitle
"""
PAPERS = """$data using ($0-0.19):1 with boxes lc rgb "{paper}" title "paper", \\
  "" using ($0-0.19):1:5 with labels offset 0,0.6 font ",9" notitle, \\
  "" using ($0-0.19):(0):7 with labels rotate left offset 0,0.5 font ",8" tc rgb "#777777" notitle, \\
 """
SIZES = """{blocks}
set title "{title}" font ",11"
set xlabel "size of a write()"
set ylabel "{label}"
set key inside bottom right reverse Left samplen 2
set logscale x 2
set logscale y 10
set grid x y lc rgb "#dddddd"
set xrange [{least}/1.5:{most}*1.5]
set yrange [*:*]
set xtics ({tics}) scale 1
set bmargin 4
plot {curves}
"""


def draw(exhibit, results, path):
    """The exhibit's plot, from its experiment's results and those rows of them that are its own; whether there is one."""
    panels = [panel for plot in exhibit.plots for panel in panels_of(plot, exhibit.rows, results)][:MOST_PANELS]
    if not panels:
        return False
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    width = columns * max(width for width, _ in panels)
    script = HEAD.format(width=width, height=PANEL_HEIGHT * lines, path=path, rows=lines, columns=columns)
    subprocess.run(["gnuplot"], input=script + "".join(panel for _, panel in panels), text=True, check=True, timeout=60)
    return True


def panels_of(plot, rows, results):
    """Each panel of a plot: its least width, and gnuplot's commands."""
    rows = [row for row in rows if re.fullmatch(plot.metrics, row["metric"])]
    if plot.kind == "sizes":
        own = [[row for row in rows if row["id"] == ident] for ident in unique(row["id"] for row in rows)]
        return [sizes(plot, one) if len({size_of(row["metric"]) for row in one}) > 1 else figures(plot, one) for one in own]
    known = [row for row in rows if has_paper(row)]
    if plot.kind == "metrics":
        return [figures(plot, known or rows)] if rows else []
    wanted = unique((row["id"], row["metric"]) for row in known or rows)
    panels = [multiples(plot, [row for row in rows if (row["id"], row["metric"]) == one], results) for one in wanted]
    return [panel for panel in panels if panel]


def has_paper(row):
    return row["paper"] is not None or "paper_ratio" in row


def unique(values):
    return list(dict.fromkeys(values))


def multiples(plot, rows, results):
    """A panel of one metric, each configuration by the base; None if there is no base."""
    base = results["bases"].get(rows[0]["id"], results["base"])
    one = next((row for row in rows if row["config"] == base), None)
    if not one or not one["ours"]["median"]:
        return None
    data = [(row["config"], paper, *(row["ours"][key] / one["ours"]["median"] for key in ("median", "min", "max")))
            for row, paper, _ in by_base(rows, results["base"], results["bases"])]
    paper = f"paper {number(one['paper'])}, " if one["paper"] is not None else ""
    title = f"{one['id']}: {one['metric']}. {base} = 1: {paper}here {number(one['ours']['median'])} {one['unit']}"
    return bars(title, f"{plot.label} by that of {base}", data)


def figures(plot, rows):
    """A panel of metrics, as they are."""
    metrics = unique(row["metric"] for row in rows)
    idents = unique(row["id"] for row in rows)
    configs = unique(row["config"] for row in rows)

    def name(row):
        parts = [short(row["metric"], plot.metrics)] if len(metrics) > 1 else []
        parts += [row["config"]] if len(configs) > 1 or not parts else []
        parts += [row["id"]] if len(idents) > 1 else []
        return ", ".join(parts)

    data = [(name(row), row["paper"], row["ours"]["median"], row["ours"]["min"], row["ours"]["max"]) for row in rows]
    title = f"{', '.join(idents)}: {metrics[0] if len(metrics) == 1 else plot.label}, {rows[0]['unit']}"
    return bars(title, plot.label, data)


def short(metric, pattern):
    """Of a metric what the pattern's groups take, if it has any."""
    groups = [group for group in re.fullmatch(pattern, metric).groups() if group]
    return ", ".join(groups) or metric


def bars(title, label, data):
    """A panel of the paper's bars and ours, of [(name, paper's, ours, least, most)]. A whisker may leave it."""
    tallest = max(value for _, paper, ours, _, _ in data for value in (paper, ours) if value is not None) or 1
    top = min(1.2 * max(tallest, *(most for *_, most in data)), 1.8 * tallest)
    lines = [" ".join([*map(coordinate, (paper, ours, least, most)),
                       *map(quoted, (worth(paper), worth(ours), "no figure" if paper is None else ""))])
             for _, paper, ours, least, most in data]
    width = max(PANEL_WIDTH, MARGINS + LEAST_WIDTH * len(data))
    letters = (width - MARGINS) // len(data) // LETTER_WIDTH
    names = [textwrap.wrap(name, letters, break_long_words=False) for name, *_ in data]
    known = any(paper is not None for _, paper, *_ in data)
    return width, BARS.format(
        data="\n".join(lines), title=escaped(title), label=escaped(label), last=f"{len(data) - 0.4:.1f}",
        top=f"{top:.6g}", inside=f"{0.93 * top:.6g}", bottom=max(map(len, names)) + 1, place=0.19 if known else 0, here=HERE,
        papers=PAPERS.format(paper=PAPER) if known else "", whose="here" if known else "here (no figure in the paper)",
        tics=", ".join(f'"{LINE_END.join(map(escaped, name))}" {place}' for place, name in enumerate(names)))


def sizes(plot, rows):
    """A panel with a curve for each configuration over sizes, and the paper's points of it where there are some."""
    blocks, curves, tics = [], [], {}
    for index, config in enumerate(unique(row["config"] for row in rows)):
        points, papers = [], []
        for row in rows:
            if row["config"] == config:
                size, text = size_of(row["metric"])
                tics[size] = text
                points.append(f"{size} " + " ".join(coordinate(row["ours"][key]) for key in ("median", "min", "max")))
                if row["paper"] is not None:
                    papers.append(f"{size} {coordinate(row['paper'])}")
        colour = LINES[index % len(LINES)]
        blocks.append(block(f"here{index}", points))
        curves.append(f'$here{index} using 1:2:3:4 with yerrorlines lc rgb "{colour}" lw 1.5 pt 7 ps 0.5 '
                      f'title "here, {escaped(config)}"')
        if papers:
            blocks.append(block(f"paper{index}", papers))
            curves.append(f'$paper{index} using 1:2 with points lc rgb "{colour}" pt 4 ps 1.2 title "paper, {escaped(config)}"')
    return PANEL_WIDTH, SIZES.format(
        blocks="\n".join(blocks), title=escaped(f"{rows[0]['id']}: {plot.label}"), label=escaped(plot.label),
        tics=", ".join(f'"{text}" {size}' for size, text in sorted(tics.items())), least=min(tics), most=max(tics),
        curves=", ".join(curves))


def size_of(metric):
    """A size in a metric's name: bytes, and in words."""
    count, unit = re.search(r"(\d+) (B|KiB|MiB)", metric).groups()
    return int(count) * UNITS[unit], f"{count} {unit}"


def block(name, lines):
    return f"${name} << EOD\n" + "\n".join(lines) + "\nEOD"


def coordinate(value):
    return MISSING if value is None else f"{value:.6g}"


def worth(value):
    return "" if value is None else f"{value:.2f}" if 0.01 <= value < 10 else number(value)


def quoted(text):
    return f'"{escaped(text)}"'


def escaped(text):
    """For gnuplot's double quotes."""
    return str(text).replace("\\", "/").replace('"', "'")
