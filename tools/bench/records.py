# SPDX-License-Identifier: MIT
"""What a benchmark writes down: JSON Lines, one object for each run, and what a reader needs to judge them.

    {"type": "bench", ...}        once: when, with which settings, on which machine
    {"type": "experiment", ...}   each: its question, unit, points
    {"type": "contestant", ...}   each: version, command, configuration; or why it does not take part
    {"type": "run", ...}          one contestant at one point in one round

Everything that is shown later, tables and report and comparison, is made from such a file and nothing else. A run that
failed has `errors`, and no value: it can be neither a zero nor a win.

It must not: measure or judge. Above: runner (writes), figures (reads).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]  # of the checkout, whose place is nobody's business


class RecordsError(Exception):
    """A file is not what a benchmark has written."""


@dataclass(frozen=True)
class Run:
    """One contestant at one point of an experiment in one round.

    value: in the experiment's unit; None if the run failed. cores: for each core, its shares of time by /proc/stat.
    details: what else was found, by experiment. started_s: seconds since the epoch.
    """

    round: int
    experiment: str
    point: str
    contestant: str
    value: float | None
    errors: dict[str, int] = field(default_factory=dict)
    p50_us: float | None = None
    p99_us: float | None = None
    requests: int = 0
    seconds: float = 0.0
    cpu_us_per_request: float | None = None
    cores: list[dict[str, float]] = field(default_factory=list)
    steal: float = 0.0
    command: str = ""
    started_s: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Does its value count?"""
        return self.value is not None and not self.errors

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a run of."""
        return self.experiment, self.point, self.contestant


@dataclass
class Results:
    """A whole file."""

    bench: dict[str, Any] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    contestants: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        """Take one object of the file. Raises RecordsError."""
        kind = line.get("type")
        rest = {key: value for key, value in line.items() if key != "type"}
        try:
            if kind == "bench":
                self.bench = {"format": 0, **rest}
            elif kind == "experiment":
                self.experiments[rest["name"]] = rest
            elif kind == "contestant":
                self.contestants[rest["name"]] = rest
            elif kind == "run":
                known = {one.name for one in fields(Run)}
                self.runs.append(Run(**{key: value for key, value in rest.items() if key in known}))
            else:
                raise RecordsError(f"no record of a benchmark: type {kind!r}")
        except (KeyError, TypeError) as error:
            raise RecordsError(f"a {kind} record that is not complete: {error}") from None


class Writer:
    """Writes the file line by line, so that what was measured stays when the rest is interrupted."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out
        self.results = Results()

    def write(self, kind: str, /, **line: Any) -> None:
        """One line; it is kept in `results` too."""
        record = {"type": kind, **line}
        self.out.write(without_folder(json.dumps(record), ROOT) + "\n")
        self.out.flush()
        self.results.add(record)

    def write_run(self, run: Run) -> None:
        """One run."""
        self.write("run", **asdict(run))


def without_folder(text: str, folder: Path) -> str:
    """Text, or JSON, in which paths below a folder begin with a dot instead: `./.venv/bin/ustack`."""
    return re.sub(rf"(?<![\w.-]){re.escape(str(folder))}(?=/)", ".", text) if folder.parent != folder else text


def parse(lines: Iterable[str], name: str) -> Results:
    """Read a file's lines. Raises RecordsError with the number of a line that is none.

    A last line without its end, of a bench that was killed, is left out.
    """
    results = Results()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            if not line.endswith("\n"):
                break
            raise RecordsError(f"{name}, line {number}: not JSON") from None
        if not isinstance(record, dict):
            raise RecordsError(f"{name}, line {number}: not an object")
        try:
            results.add(record)
        except RecordsError as error:
            raise RecordsError(f"{name}, line {number}: {error}") from None
    if not results.bench:
        raise RecordsError(f"{name}: not a file of `ustack bench`: no record of the bench itself")
    return results


def read(path: Path) -> Results:
    """Read a file. Raises RecordsError, OSError."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return parse(file, str(path))
