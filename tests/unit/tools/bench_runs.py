# SPDX-License-Identifier: MIT
"""Runs that nobody made, for tests of what is made of runs. No figure here was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ustack.tools.bench.records import Results, Run, parse

IDLE_CORES = [{"core": 0.0, "idle": 0.0}, {"core": 1.0, "idle": 0.5}]


def run(contestant: str, round: int, value: float | None, **more: Any) -> Run:
    """One run of `made` at `a point`, good unless it has errors."""
    about = {"experiment": "made", "point": "a point", "cores": IDLE_CORES, **more}
    return Run(round=round, contestant=contestant, value=value, **about)


def runs(**values: Sequence[float | None]) -> list[Run]:
    """Rounds of each contestant (underscores become dashes); None: a run that failed."""
    return [
        run(name.replace("_", "-"), number, value, errors={} if value is not None else {"made to fail": 1})
        for name, found in values.items()
        for number, value in enumerate(found, 1)
    ]


def results(made: Sequence[Run], *, lower: bool = False, **contestants: dict[str, Any]) -> Results:
    """A whole file with these runs, through its text."""
    lines = [
        {
            "type": "bench",
            "format": 1,
            "began": "2000-01-01T00:00:00+00:00",
            "command": "ustack bench made",
            "machine": {"cpu": "none", "cores": 2, "kernel": "0.0", "wrk": "0", "mitigations": {"a": "b"}},
            "pinning": "nowhere",
            "client_core": 0,
            "server_core": 1,
            "congestion_control": "cubic",
            "generator": "nothing",
            "seconds": 1,
            "reference": "nginx",
        },
        {
            "type": "experiment",
            "name": "made",
            "title": "Made up",
            "asks": "What is shown of it?",
            "unit": "requests/s",
            "lower_is_better": lower,
            "points": ["a point"],
        },
    ]
    for name in dict.fromkeys(run.contestant for run in made):
        about = {"title": name, "kind": "server", "version": "0", "command": "true", "configuration": "", "absent": ""}
        lines.append({"type": "contestant", "name": name, **about, **contestants.get(name.replace("-", "_"), {})})
    lines += [{"type": "run", **vars(one)} for one in made]
    return parse([json.dumps(line) + "\n" for line in lines], "made")
