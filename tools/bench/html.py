# SPDX-License-Identifier: MIT
"""One self-contained page of a bench: plots that one can hover, tables, the machine, every command.

Everything is in it, plotly's script as well, and its Content-Security-Policy forbids the browser to fetch anything.
The page is `report.html.j2`; its figures travel as JSON in a script element of type application/json.

It must not: compute a figure beyond what figures says. Above: command. Below: figures, tables, records.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ustack.tools.bench import figures, tables
from ustack.tools.bench.figures import Cell, Ratio
from ustack.tools.bench.records import Results

TEMPLATE = "report.html.j2"
INSTALL = "pip install 'ustack[bench]'"
OURS = ("ustack-veth", "ustack-tap")
COLOURS = {
    "ustack": ("#c0392b", "#e67e22"),
    "stack": ("#7d6608", "#b7950b", "#d4ac0d"),
    "strategy": ("#1b4f72", "#21618c", "#2874a6", "#2e86c1", "#3498db", "#5dade2", "#85c1e9", "#aed6f1"),
    "server": ("#145a32", "#1e8449", "#28b463", "#58d68d", "#82e0aa", "#abebc6", "#7d8a2e", "#556b2f"),
    "application": ("#6c3483", "#8e44ad", "#bb8fce", "#d2b4de"),
    "reference": ("#616a6b", "#99a3a4"),
}


class NoLibraries(Exception):
    """What the report is made with is not installed."""


def libraries() -> tuple[Any, str]:
    """jinja2, and plotly's script. Raises NoLibraries."""
    try:
        import jinja2
    except ImportError:
        raise NoLibraries(f"jinja2 is not installed: {INSTALL}") from None
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise NoLibraries(f"plotly is not installed: {INSTALL}")
    # The package is slow to import, and only this file of it is used.
    script = Path(found.origin).with_name("package_data") / "plotly.min.js"
    if not script.exists():
        raise NoLibraries(f"plotly has no {script.name}")
    return jinja2, script.read_text(encoding="utf-8")


def write(results: Results, path: Path) -> Path:
    """The page of these results. Raises NoLibraries, OSError."""
    path.write_text(page(results), encoding="utf-8")
    return path


def page(results: Results) -> str:
    """Its text."""
    jinja2, script = libraries()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True)
    environment.filters["figure"] = tables.number
    template = environment.from_string((Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8"))
    made = sections(results)
    text: str = template.render(
        bench=results.bench,
        machine=results.bench.get("machine", {}),
        rounds=tables.rounds_of(results),
        sections=made,
        contestants=results.contestants,
        commands=commands(results),
        failures=tables.failures(results, most=1000),
        notes=tables.explanation(results),
        plots=embedded({section["name"]: section["plot"] for section in made}),
        # A script ends at this, wherever it stands.
        plotly=script.replace("</script", "<\\/script"),
    )
    return text


def embedded(value: object) -> str:
    """JSON that cannot end the element in which it stands."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def sections(results: Results) -> list[dict[str, Any]]:
    """What the page shows of each experiment."""
    found = tables.all_cells(results)
    names = [name for name in results.experiments if tables.points_of(results, name)]
    return [section(results, name, found, colours(results)) for name in names]


def colours(results: Results) -> dict[str, str]:
    """One for each contestant, of its kind's."""
    taken: dict[str, int] = {}
    chosen = {}
    for name, about in results.contestants.items():
        palette = COLOURS.get(about.get("kind", ""), COLOURS["reference"])
        chosen[name] = palette[taken.get(about["kind"], 0) % len(palette)]
        taken[about["kind"]] = taken.get(about["kind"], 0) + 1
    return chosen


def section(
    results: Results, name: str, found: dict[tuple[str, str, str], Cell], colour: dict[str, str]
) -> dict[str, Any]:
    """One experiment: rows for the table, traces for the plot, ratios of ours to everybody."""
    about = results.experiments[name]
    points, names = tables.points_of(results, name), tables.contestants_of(results, name)
    lower = bool(about["lower_is_better"])
    best = {point: figures.best(found, name, point, names, lower=lower) for point in points}
    rows = []
    for one in names:
        row = [{"cell": found.get((name, point, one)), "best": best[point] == one} for point in points]
        rows.append({"name": one, "cells": row})
    return {
        **about,
        "points": points,
        "rows": rows,
        "plot": plot(results, name, points, names, found, colour),
        "ratios": ratios(results, name, points, names, lower=lower),
    }


def plot(
    results: Results,
    name: str,
    points: list[str],
    names: list[str],
    found: dict[tuple[str, str, str], Cell],
    colour: dict[str, str],
) -> dict[str, Any]:
    """Bars of medians, whiskers from least to greatest; a point of the experiment is a group of them."""
    traces = []
    for one in names:
        there = [(point, found.get((name, point, one))) for point in points]
        able = [(point, cell) for point, cell in there if cell is not None and cell.median is not None]
        if not able:
            continue
        medians = [cell.median or 0.0 for _, cell in able]
        traces.append(
            {
                "type": "bar",
                "name": one,
                "x": [point for point, _ in able],
                "y": medians,
                "marker": {"color": colour[one]},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [(cell.most or 0.0) - at for (_, cell), at in zip(able, medians, strict=True)],
                    "arrayminus": [at - (cell.least or 0.0) for (_, cell), at in zip(able, medians, strict=True)],
                    "thickness": 1,
                    "width": 2,
                },
                "text": [hover(cell) for _, cell in able],
                "textposition": "none",
                "hovertemplate": f"%{{fullData.name}}<br>%{{x}}: %{{y:,.4~g}} {results.experiments[name]['unit']}"
                "<br>%{text}<extra></extra>",
            }
        )
    return {"data": traces, "unit": results.experiments[name]["unit"]}


def hover(cell: Cell) -> str:
    """What a bar says beyond its height."""
    words = [f"{cell.good} runs, {cell.failed} failed" if cell.failed else f"{cell.good} runs"]
    if cell.p99_us is not None:
        words.append(f"p50 {cell.p50_us:,.0f} µs, p99 {cell.p99_us:,.0f} µs" if cell.p50_us else "")
    if cell.cpu_us_per_request is not None:
        words.append(f"{cell.cpu_us_per_request:,.2f} µs of all cores per request")
    if cell.limit:
        words.append(f"full core: {cell.limit}")
    return "<br>".join(word for word in words if word)


def ratios(results: Results, name: str, points: list[str], names: list[str], *, lower: bool) -> list[dict[str, Any]]:
    """Each of ours by everybody else, point by point, with how sure that is."""
    made = []
    for ours in (one for one in OURS if one in names):
        for point in points:
            for other in names:
                compared = figures.ratio(results.runs, name, point, ours, other) if other != ours else None
                if compared is not None:
                    verdict = said(compared, lower=lower)
                    made.append({"one": ours, "other": other, "point": point, "ratio": compared, "said": verdict})
    return made


def said(compared: Ratio, *, lower: bool) -> str:
    """Better, worse, or neither for sure."""
    if not compared.sure:
        return "not sure"
    return "better" if (compared.median < 1) == lower else "worse"


def commands(results: Results) -> list[dict[str, str]]:
    """The load's command of each contestant at each point, as it was run first."""
    seen: dict[tuple[str, str, str], str] = {}
    for run in results.runs:
        if run.command:
            seen.setdefault(run.key, run.command)
    return [
        {"experiment": experiment, "point": point, "contestant": contestant, "command": command}
        for (experiment, point, contestant), command in seen.items()
    ]
