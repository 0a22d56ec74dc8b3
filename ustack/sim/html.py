# SPDX-License-Identifier: MIT
"""One self-contained page of what a scenario, or a sweep, came to: tables, drawings, the scenario itself.

Its drawings are SVG within the page, it has no script, and its Content-Security-Policy forbids the browser to fetch
anything. The page is `report.html.j2`. Above: cli. Below: plots, tables; jinja2 (the extra `sim`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ustack.sim import plots, tables
from ustack.sim.plots import INSTALL, NoLibraries
from ustack.sim.running import Outcome
from ustack.sim.scenario import Scenario

TEMPLATE = "report.html.j2"
WORDS = {
    "window": "Congestion window; of up to three flows also bytes in flight (faint) and slow start threshold (dashed).",
    "rtt": "Smoothed round-trip time.",
    "goodput": "Of what has arrived in order at the receiver's application.",
    "queue": "Bytes that wait for a link; a mark at the bottom where frames were dropped.",
    "sequence": "Bytes acknowledged, and sent (faint); a cross where segments were sent again.",
}
POINTS_MOST = 60  # of a sweep, that have bars


def check_libraries() -> Any:
    """jinja2. Raises NoLibraries: it, or what drawings need, is not installed."""
    plots.check_libraries()
    try:
        import jinja2
    except ImportError:
        raise NoLibraries(f"jinja2 is not installed: {INSTALL}") from None
    return jinja2


def page_of(scenario: Scenario, outcome: Outcome) -> str:
    """The page of one. The outcome has its series. Raises NoLibraries."""
    figures = [
        {"name": kind, "words": words, "svg": plots.svg(outcome, (kind,), scenario.name)}
        for kind, words in WORDS.items()
    ]
    made = [
        {"name": "Flows", "columns": tables.FLOW_COLUMNS, "rows": tables.flow_rows(outcome)},
        {"name": "Links", "columns": tables.HOP_COLUMNS, "rows": tables.hop_rows(outcome)},
    ]
    told = json.dumps(scenario.as_json(), indent=1)
    return _page(title=scenario.name, about=scenario.about, tables=made, figures=figures, scenario=told)


def page_of_summary(name: str, about: str, summary: tables.Summary) -> str:
    """The page of a sweep. Raises NoLibraries."""
    made = [{"name": "Points", "columns": summary.columns(), "rows": summary.rows()}]
    figures = []
    if 1 <= len(summary.goodputs()) <= POINTS_MOST:
        words = "Of all flows together: medians, whiskers from the least to the greatest seed."
        drawn = plots.bars(summary.goodputs(), "goodput, Mb/s", name)
        figures.append({"name": "goodput", "words": words, "svg": drawn})
    return _page(title=name, about=about, tables=made, figures=figures, scenario="")


def _page(**words: Any) -> str:
    jinja2 = check_libraries()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8"))
    text: str = template.render(**words)
    return text
