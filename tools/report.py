# SPDX-License-Identifier: MIT
"""How the figures of a benchmark are shown: tables for people, a JSON object for programs. Nothing is measured here."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ustack.tools.compare import COLUMNS, Column, Measurement, Summary, Target


def machine() -> dict[str, str | int]:
    """What the figures depend on and a reader cannot see."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    try:
        wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    except OSError:
        wrk = ""
    return {
        "kernel": platform.release(),
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "wrk": wrk.removeprefix("wrk ").partition(" ")[0],
        "python": platform.python_version(),
    }


def number(value: float | None, unit: str) -> str:
    """A figure with as many digits as it deserves."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if unit == "requests/s" else f"{value:.2f}" if unit == "Gb/s" else f"{value:.0f}"


def ratio(value: float | None) -> str:
    """A ratio, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def results_table(summaries: Sequence[Summary], references: Sequence[str], settings: dict[str, object]) -> Table:
    """One line for each load and server."""
    runs = f"{settings['rounds']} alternating rounds of {settings['seconds']} s, link {settings['link']}"
    title = f"medians of {runs}; ratios are medians of the ratios within a round"
    table = Table(title=title, title_justify="left")
    for heading in ("load", "server"):
        table.add_column(heading)
    ratios = [f"/ {name}" for name in references]
    for heading in ("median", "min - max", *ratios, "CPU µs/request", "busy", "steal % by run", "bad runs"):
        table.add_column(heading, justify="right")
    for column in COLUMNS:
        rows = [s for s in summaries if s.column == column.name]
        for index, summary in enumerate(rows):
            table.add_row(
                f"{column.title} ({column.unit})" if index == 0 else "",
                *row(column, summary, references),
                end_section=index == len(rows) - 1,
            )
    return table


def row(column: Column, summary: Summary, references: Sequence[str]) -> list[str]:
    """The cells of one server under one load, after the load's name."""
    spread = " - ".join(number(value, column.unit) for value in (summary.least, summary.most))
    found = number(summary.median, column.unit)
    if column.lower_is_better and summary.p99_us is not None:
        found += f" (p99 {summary.p99_us:.0f})"
    bad = "-"
    if summary.erroneous_runs:
        bad = str(summary.erroneous_runs)
    return [
        summary.server,
        found,
        spread,
        *(ratio(summary.ratios.get(reference)) for reference in references),
        "-" if summary.cpu_us_per_request is None else f"{summary.cpu_us_per_request:.1f}",
        f"{summary.busy:.0%}",
        " ".join(f"{steal * 100:.0f}" for steal in summary.steals),
        bad,
    ]


def targets_table(targets: Sequence[Target]) -> Table:
    """What is to be reached, and whether it was."""
    table = Table(title="targets", title_justify="left")
    table.add_column("wanted")
    table.add_column("found", justify="right")
    table.add_column("verdict")
    for target in targets:
        found = f"{target.found:.0f}" if target.name == "memory" and target.found is not None else ratio(target.found)
        verdict = "not measured" if target.met is None else "met" if target.met else "missed"
        table.add_row(target.wanted, found, verdict)
    return table


def show(
    console: Console,
    report: dict[str, object],
    summaries: Sequence[Summary],
    targets: Sequence[Target],
    references: Sequence[str],
) -> None:
    """Print everything. `report` is what as_json() returned."""
    console.print(results_table(summaries, references, _facts(report["settings"])))
    for summary in summaries:
        for kind, count in summary.errors.items():
            line = f"not counted: {summary.server}, {summary.column}: {count} x {kind}"
            console.print(line, highlight=False, markup=False)
    facts = {**_facts(report["machine"]), **{f"{k} version": v for k, v in _facts(report["versions"]).items() if v}}
    console.print("machine: " + ", ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)
    idle = report["ustack_idle_percent"]
    if isinstance(idle, float):
        console.print(f"ustack while others were measured: {idle:.2f} % of a core", highlight=False)
    cost = report["request_cost"]
    if isinstance(cost, dict):
        console.print(
            f"in memory, one core: {cost['ns_per_request']:.0f} ns for one small request through stack and "
            f"server ({cost['least_ns']:.0f} - {cost['most_ns']:.0f}, {cost['runs']} runs)",
            highlight=False,
        )
    if targets:
        console.print(targets_table(targets))


def _facts(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}


def as_json(
    *,
    settings: dict[str, object],
    versions: dict[str, str],
    info: dict[str, object],
    measurements: Sequence[Measurement],
    summaries: Sequence[Summary],
    targets: Sequence[Target],
    ustack_idle_percent: float | None,
    request_cost: dict[str, float | int] | None,
) -> dict[str, object]:
    """Everything that was measured, and what it was measured on."""
    return {
        "machine": machine(),
        "versions": versions,
        "settings": settings,
        "ustack_info": info,
        "ustack_idle_percent": ustack_idle_percent,
        "request_cost": request_cost,
        "measurements": [asdict(m) for m in measurements],
        "summary": [asdict(s) for s in summaries],
        "targets": [asdict(t) for t in targets],
    }
