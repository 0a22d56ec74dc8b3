# SPDX-License-Identifier: MIT
"""The main plot of a bench, as one small SVG for a README: a panel for each experiment's first points.

It must not: compute a figure. Above: keep. Below: summary, obs.drawing (the look).
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ustack.obs import drawing
from ustack.obs.drawing import INK, PAPER
from ustack.tools.bench import tables
from ustack.tools.bench.html import NoLibraries
from ustack.tools.bench.records import Results
from ustack.tools.bench.summary import Row, rows

INSTALL = "pip install 'ustack[bench]'"
COLUMNS = 2
BARS_MOST = 8  # of a panel: ours, and the best of the others
WIDTH_INCHES = 9.5
# Readable on both papers.
BAR = {
    "ustack": "#d9480f",
    "stack": "#c2a000",
    "strategy": "#4c8ed9",
    "server": "#3d9a5f",
    "application": "#a06cc8",
    "reference": "#8a949e",
}
# Experiments that get panels, and the points of each, as many as it has of these.
PANELS = (
    ("files512", ("64 at once", "1,000 at once")),
    ("keepalive", ("64 connections", "1,000 connections")),
    ("bulk", ("64 KiB", "1 MiB")),
    ("pipelining", ("depth 16",)),
    ("latency1", ("1 connection",)),
    ("bigdir", ("100,000 files",)),
    ("overload", ("4 x",)),
)


def chosen(results: Results) -> list[Row]:
    """The rows that get a panel, in the order of PANELS; of a bench of other experiments, its first eight."""
    made = {(row.experiment, row.point): row for row in rows(results) if able(row, results)}
    wanted = [made[name, point] for name, points in PANELS for point in points if (name, point) in made]
    return wanted or list(made.values())[: 2 * COLUMNS * 2]


def able(row: Row, results: Results) -> list[str]:
    """Who has a bar: ours, and the best of the others, best first."""
    there = [(cell.median, name) for name, cell in row.cells.items() if cell.median is not None]
    ordered = [name for _, name in sorted(there, reverse=not row.lower_is_better)]
    ours = [name for name in ordered if kind_of(results, name) == "ustack"]
    others = [name for name in ordered if name not in ours][: BARS_MOST - len(ours)]
    return [name for name in ordered if name in ours or name in others]


def kind_of(results: Results, name: str) -> str:
    """Of a contestant."""
    return str(results.contestants.get(name, {}).get("kind", "reference"))


def svg(results: Results) -> str:
    """The whole file. Raises NoLibraries, ValueError if no run was good."""
    if find_spec("matplotlib") is None:
        raise NoLibraries(f"matplotlib is not installed: {INSTALL}")
    panels = chosen(results)
    if not panels:
        raise ValueError("no run of this file was good: there is nothing to draw")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(drawing.settings()):
        lines = math.ceil(len(panels) / COLUMNS)
        heights = [
            max(len(able(row, results)) for row in panels[line * COLUMNS : (line + 1) * COLUMNS])
            for line in range(lines)
        ]
        figure = Figure(
            figsize=(WIDTH_INCHES, sum(0.2 * bars + 0.55 for bars in heights)), facecolor=PAPER, layout="constrained"
        )
        grid = figure.add_gridspec(lines, COLUMNS, height_ratios=[0.2 * bars + 0.55 for bars in heights])
        for number, row in enumerate(panels):
            panel(figure.add_subplot(grid[number // COLUMNS, number % COLUMNS]), row, results)
        began = str(results.bench.get("began", ""))[:10]
        return drawing.svg_of(figure, f"ustack bench, {began}: medians, least to greatest run")


def panel(axes: Any, row: Row, results: Results) -> None:
    """Bars of medians, whiskers from the least run to the greatest."""
    names = able(row, results)
    cells = [row.cells[name] for name in names]
    values = [cell.median or 0.0 for cell in cells]
    spread = [
        [value - (cell.least or 0.0) for value, cell in zip(values, cells, strict=True)],
        [(cell.most or 0.0) - value for value, cell in zip(values, cells, strict=True)],
    ]
    at = range(len(names))
    axes.set_facecolor("none")
    colours = [BAR.get(kind_of(results, name), BAR["reference"]) for name in names]
    axes.barh(at, values, height=0.68, color=colours, xerr=spread, error_kw={"ecolor": INK, "elinewidth": 0.8})
    axes.set_yticks(at, [str(results.contestants.get(name, {}).get("title") or name) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.22 * max(cell.most or 0.0 for cell in cells) or 1)
    for line, (value, cell) in enumerate(zip(values, cells, strict=True)):
        figure = tables.number(value, row.unit) + (f" ({cell.failed} failed)" if cell.failed else "")
        axes.annotate(
            figure, (cell.most or value, line), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    lower = ", lower is better" if row.lower_is_better else ""
    axes.set_title(f"{row.title}: {row.unit}{lower}", fontsize=9, loc="left")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def write(results: Results, path: Path) -> Path:
    """The file of these results. Raises NoLibraries, ValueError, OSError."""
    path.write_text(svg(results), encoding="utf-8")
    return path
