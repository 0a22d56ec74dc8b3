# SPDX-License-Identifier: MIT
"""The main figures of a bench in a few lines: ours, nginx, and whoever on the kernel's stack was best, point by point.

The ratio that decides is to the best of all others at that point, whoever it is: a rival that is chosen after the fact
makes it the hardest that the run can show. Nobody who failed in a round can be the best (figures).

It must not: compute a figure beyond what figures says. Above: keep, plot. Below: figures, tables, records.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ustack.tools.bench import figures, tables
from ustack.tools.bench.figures import Cell, Ratio
from ustack.tools.bench.records import Results

OURS = ("ustack-veth", "ustack-tap")
ALONE = "ustack-memory"  # in experiments that it is in, there is nobody else
RIVAL = "nginx"
# What is not about one server against another, or whose points are many; the whole report has it.
LEFT_OUT = ("loss", "idlecpu", "coldfiles")


@dataclass(frozen=True)
class Row:
    """One point. best: of those that are not ours, "" if there is none. ratios: of each of ours to that one."""

    experiment: str
    point: str
    unit: str
    lower_is_better: bool
    cells: dict[str, Cell]
    best: str
    ratios: dict[str, Ratio] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Experiment and point."""
        return f"{self.experiment}, {self.point}"


def rows(results: Results) -> list[Row]:
    """Every point of the main experiments that has a run, in their order."""
    found = tables.all_cells(results)
    return [
        row(results, found, name, point)
        for name in results.experiments
        if name not in LEFT_OUT
        for point in tables.points_of(results, name)
    ]


def row(results: Results, found: dict[tuple[str, str, str], Cell], name: str, point: str) -> Row:
    """One of them."""
    about = results.experiments[name]
    names = tables.contestants_of(results, name)
    lower = bool(about["lower_is_better"])
    others = [one for one in names if one not in (*OURS, ALONE)]
    best = figures.best(found, name, point, others, lower=lower)
    ratios = {one: figures.ratio(results.runs, name, point, one, best) for one in OURS if best and one in names}
    return Row(
        name,
        point,
        str(about["unit"]),
        lower,
        {one: found[name, point, one] for one in names if (name, point, one) in found},
        best,
        {one: ratio for one, ratio in ratios.items() if ratio is not None},
    )


def text_of(cell: Cell | None, unit: str) -> str:
    """As in the terminal's table, with `unit` where a reader cannot know it."""
    return tables.cell_text(cell, unit) if cell is not None else ""


def table(results: Results) -> str:
    """Markdown: a line for each point, then what has no rival."""
    made = [row for row in rows(results) if set(row.cells) != {ALONE}]
    ours = [one for one in OURS if any(one in row.cells for row in made)]
    rival = any(RIVAL in row.cells for row in made)
    heads = ["", *ours, *([RIVAL] if rival else []), "best of all others", *(f"{one} / best" for one in ours)]
    lines = [line_of(heads), line_of("---" for _ in heads)]
    for row in made:
        cells = [f"{row.title}, {row.unit}{' (lower is better)' if row.lower_is_better else ''}"]
        cells += [text_of(row.cells.get(one), row.unit) for one in [*ours, *([RIVAL] if rival else [])]]
        best = f"{row.best}: {text_of(row.cells[row.best], row.unit)}" if row.best else ""
        cells += [best, *(tables.ratio(row.ratios.get(one)) for one in ours)]
        lines.append(line_of(cells))
    alone = [
        f"{row.title}: {text_of(row.cells[ALONE], row.unit)} {row.unit}"
        for row in rows(results)
        if set(row.cells) == {ALONE}
    ]
    if alone:
        lines += ["", f"In memory, without a device: {plain('; '.join(alone))}."]
    return "\n".join(lines) + "\n"


def line_of(cells: object) -> str:
    """One line of a Markdown table: what contestants say of themselves cannot end a cell or begin an element."""
    return "| " + " | ".join(plain(str(cell)) for cell in cells) + " |"  # type: ignore[attr-defined]


def plain(text: str) -> str:
    """Without what Markdown or HTML would read as its own."""
    for sign, instead in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "'"), ("[", "&#91;"), ("*", "\\*")):
        text = text.replace(sign, instead)
    return " ".join(text.split())


def machine_line(results: Results) -> str:
    """On what, when, how."""
    bench, machine = results.bench, results.bench.get("machine", {})
    kind = "virtual machine" if machine.get("hypervisor") else "machine"
    steals = [run.steal for run in results.runs if run.cores]
    return plain(
        f"{str(bench.get('began', ''))[:10]}, a {kind} with {machine.get('cores')} cores "
        f"({machine.get('cpu')}, {machine.get('memory_gib', '?')} GiB, Linux {machine.get('kernel')}, "
        f"{machine.get('system', '')}), {bench.get('pinning')}; {tables.rounds_of(results)} alternating rounds of "
        f"{bench.get('seconds')} s, load by {bench.get('generator')}, congestion control "
        f"{bench.get('congestion_control')} where it can be chosen; steal {max(steals, default=0):.1%} in the worst run"
    )
