# SPDX-License-Identifier: MIT
"""A bench on a terminal: for each experiment a table, for each point a column of medians with ratios.

It must not: compute a figure. Above: command. Below: figures, records.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ustack.tools.bench import figures
from ustack.tools.bench.figures import Cell, Ratio
from ustack.tools.bench.records import Results

WHY_MOST = 44  # of a reason, in a cell


def number(value: float | None, unit: str = "") -> str:
    """A figure with as many digits as it deserves."""
    if value is None:
        return "-"
    if unit == "Gb/s" or abs(value) < 1:
        return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def ratio(found: Ratio | None) -> str:
    """A ratio with its interval; a star where the sign test is sure and no run of either has failed."""
    if found is None:
        return ""
    return f"{found.median:.2f}{'*' if found.sure else ''} ({found.low:.2f}-{found.high:.2f})"


def why(cell: Cell) -> str:
    """What a failed cell says, cut to the width of a column."""
    text = " ".join(cell.why.split())
    return text if len(text) <= WHY_MOST else text[: WHY_MOST - 1] + "…"


def contestants_of(results: Results, experiment: str) -> list[str]:
    """Who has a run of it, in the order in which they were written down."""
    ran = {run.contestant for run in results.runs if run.experiment == experiment}
    return [name for name in results.contestants if name in ran]


def points_of(results: Results, experiment: str) -> list[str]:
    """The points that have a run, in the experiment's order."""
    ran = {run.point for run in results.runs if run.experiment == experiment}
    return [point for point in results.experiments[experiment]["points"] if point in ran]


def all_cells(results: Results) -> dict[tuple[str, str, str], Cell]:
    """Of every run of a file."""
    bench = results.bench
    return figures.cells(results.runs, int(bench.get("client_core", 0)), int(bench.get("server_core", 1)))


def experiment_table(results: Results, name: str, found: dict[tuple[str, str, str], Cell], reference: str) -> Table:
    """One experiment: contestants down, points across."""
    about = results.experiments[name]
    better = "lower is better" if about["lower_is_better"] else "higher is better"
    table = Table(title=f"{name}: {about['title']} ({about['unit']}, {better})", title_justify="left")
    table.add_column("contestant", no_wrap=True)
    points, names = points_of(results, name), contestants_of(results, name)
    for point in points:
        table.add_column(point, justify="right")
        if reference in names:
            table.add_column(f"/ {reference}", justify="right")
    best = {point: figures.best(found, name, point, names, lower=bool(about["lower_is_better"])) for point in points}
    for contestant in names:
        row: list[Text] = []
        for point in points:
            cell = found.get((name, point, contestant))
            row.append(Text(cell_text(cell, about["unit"]), style="bold" if best[point] == contestant else ""))
            if reference in names:
                compared = None
                if contestant != reference:
                    compared = figures.ratio(results.runs, name, point, contestant, reference)
                row.append(Text(ratio(compared)))
        table.add_row(contestant, *row)
    return table


def cell_text(cell: Cell | None, unit: str) -> str:
    """Median with spread and the 99th percentile; or why there is none."""
    if cell is None:
        return ""
    if cell.median is None:
        return why(cell)
    text = f"{number(cell.median, unit)} ({number(cell.least, unit)}-{number(cell.most, unit)})"
    return text + (f", {cell.failed} failed" if cell.failed else "")


def show(console: Console, results: Results, reference: str) -> None:
    """Everything, with what one must know to read it."""
    found = all_cells(results)
    for name in results.experiments:
        if points_of(results, name):
            console.print(experiment_table(results, name, found, reference))
    console.print(explanation(results), highlight=False)
    for name, about in results.contestants.items():
        if about.get("absent"):
            console.print(f"{name} took no part: {about['absent']}", highlight=False, markup=False, soft_wrap=True)
    for line in failures(results):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def rounds_of(results: Results) -> int:
    """The last round's number."""
    return max((run.round for run in results.runs), default=0)


def explanation(results: Results) -> str:
    """Under the tables."""
    bench, machine = results.bench, results.bench.get("machine", {})
    steals = [run.steal for run in results.runs if run.cores]
    return (
        f"medians (least-most) of {rounds_of(results)} rounds of {bench.get('seconds')} s; ratios: median of the "
        "ratios within a round, and its interval by order statistics; *: p < 0.05 by the sign test, and neither "
        "has failed in a round; bold: best median of those that failed in no round\n"
        f"{machine.get('cpu')}, {machine.get('cores')} cores, Linux {machine.get('kernel')}; {bench.get('pinning')}; "
        f"congestion control {bench.get('congestion_control')}; "
        f"steal {max(steals, default=0):.1%} in the worst run"
    )


def failures(results: Results, most: int = 40) -> list[str]:
    """Runs that did not count, each reason once."""
    said: dict[str, int] = {}
    for run in results.runs:
        for text in run.errors:
            line = f"not counted: {run.contestant}, {run.experiment}, {run.point}: {text}"
            said[line] = said.get(line, 0) + 1
    lines = [f"{line}{f' ({count} runs)' if count > 1 else ''}" for line, count in said.items()]
    return lines[:most] + ([f"and {len(lines) - most} more"] if len(lines) > most else [])
