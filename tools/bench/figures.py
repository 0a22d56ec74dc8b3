# SPDX-License-Identifier: MIT
"""What runs mean together: medians with their spread, ratios by pairs and how sure they are, who limited a run.

A machine that is shared gives half of its time away from one minute to the next. So a ratio is the median of the
ratios within a round, where both ran right after one another. How sure it is comes from the sign test, which supposes
nothing about how the figures are distributed: if both were equally good, each round would be a coin. The interval is
the same test turned round: order statistics of the ratios that hold their median with the coverage that is given with
them. Few rounds cannot say much, and this says so: of five rounds p is 0.0625 at least, and the interval from least to
greatest covers 94 %.

Runs with errors are in no figure; whoever has one at a point is not named best there, because a server that fails when
it is slow would choose its own figures.

It must not: print or run anything. Above: tables, report. Below: records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

from ustack.tools.bench.records import Run

CONFIDENCE = 0.95
FULL = 0.95  # of a core's time


@dataclass(frozen=True)
class Cell:
    """All rounds of one contestant at one point. Figures are None when no run was good. why: of the failed runs."""

    good: int
    failed: int
    median: float | None = None
    least: float | None = None
    most: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    cpu_us_per_request: float | None = None
    limit: str = ""
    why: str = ""
    steals: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ratio:
    """One contestant by another at one point. above: rounds in which it was greater; low, high: of the median;
    failed: runs of either that did not count."""

    median: float
    least: float
    most: float
    low: float
    high: float
    coverage: float
    above: int
    below: int
    rounds: int
    p: float
    failed: int = 0

    @property
    def sure(self) -> bool:
        """Are they different, by the sign test? Nobody knows, where one of them has failed in a round: the rounds that
        are left are not a fair choice."""
        return not self.failed and self.p < 1 - CONFIDENCE


def sign_test(above: int, below: int) -> float:
    """Two-sided p of so many heads and tails of a fair coin; ties are left out by the caller."""
    n, k = above + below, min(above, below)
    return min(1.0, float(2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)) if n else 1.0


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The narrowest pair of order statistics that holds the median with CONFIDENCE, and its coverage; from least to
    greatest where even that covers less. values: not empty."""
    ordered, n = sorted(values), len(values)
    drop = 0
    while drop + 1 <= (n - 1) // 2 and _coverage(n, drop + 1) >= CONFIDENCE:
        drop += 1
    return ordered[drop], ordered[n - 1 - drop], _coverage(n, drop)


def _coverage(n: int, drop: int) -> float:
    """Of the interval that leaves out `drop` values at each end."""
    return float(1 - 2 * sum(comb(n, i) for i in range(drop + 1)) / 2**n)


def pairs(runs: Iterable[Run], experiment: str, point: str, one: str, other: str) -> list[float]:
    """The ratios of the rounds in which both have a good run, by round."""
    values: dict[str, dict[int, float]] = {one: {}, other: {}}
    keys = {(experiment, point, name) for name in values}
    for run in runs:
        if run.value is not None and run.good and run.key in keys:
            values[run.contestant][run.round] = run.value
    both = sorted(values[one].keys() & values[other].keys())
    return [values[one][n] / values[other][n] for n in both if values[other][n] > 0]


def ratio(runs: Iterable[Run], experiment: str, point: str, one: str, other: str) -> Ratio | None:
    """One by the other; None without a round in which both were good."""
    runs = list(runs)
    keys = {(experiment, point, one), (experiment, point, other)}
    return ratio_of(pairs(runs, experiment, point, one, other), sum(run.key in keys and not run.good for run in runs))


def ratio_of(found: Sequence[float], failed: int = 0) -> Ratio | None:
    """The figure of ratios that are there already, beside so many failed runs."""
    if not found:
        return None
    above, below = sum(r > 1 for r in found), sum(r < 1 for r in found)
    low, high, coverage = median_interval(found)
    return Ratio(
        median=median(found),
        least=min(found),
        most=max(found),
        low=low,
        high=high,
        coverage=coverage,
        above=above,
        below=below,
        rounds=len(found),
        p=sign_test(above, below),
        failed=failed,
    )


def limited_by(cores: Sequence[dict[str, float]], client: int, server: int) -> str:
    """Which of the two cores had nothing left, by /proc/stat: "server", "client", "both" or "neither"."""
    used = {int(core["core"]): 1 - core["idle"] for core in cores}
    full = [name for name, core in (("server", server), ("client", client)) if used.get(core, 0.0) >= FULL]
    return "both" if len(full) == 2 else full[0] if full else "neither"


def cell(runs: Sequence[Run], client: int, server: int) -> Cell:
    """Runs of one key, all rounds."""
    good = [run for run in runs if run.good]
    values = [run.value for run in good if run.value is not None]
    why: Counter[str] = Counter()
    for run in runs:
        if not run.good:
            why.update(list(run.errors) or ["no value"])
    limits = Counter(limited_by(run.cores, client, server) for run in good if run.cores)
    return Cell(
        good=len(good),
        failed=len(runs) - len(good),
        median=median(values) if values else None,
        least=min(values, default=None),
        most=max(values, default=None),
        p50_us=_median(run.p50_us for run in good),
        p99_us=_median(run.p99_us for run in good),
        cpu_us_per_request=_median(run.cpu_us_per_request for run in good),
        limit=limits.most_common(1)[0][0] if limits else "",
        why="; ".join(word for word, _ in why.most_common(2)),
        steals=tuple(run.steal for run in runs),
    )


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None


def cells(runs: Iterable[Run], client: int, server: int) -> dict[tuple[str, str, str], Cell]:
    """Every key that has a run."""
    by_key: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        by_key.setdefault(run.key, []).append(run)
    return {key: cell(found, client, server) for key, found in by_key.items()}


def best(
    found: dict[tuple[str, str, str], Cell], experiment: str, point: str, names: Iterable[str], *, lower: bool
) -> str:
    """Who has the best median of these at a point; only who failed in no round can be. "" if nobody."""
    able = {
        name: one.median
        for name in names
        if (one := found.get((experiment, point, name))) is not None and one.median is not None and not one.failed
    }
    if not able:
        return ""
    return (min if lower else max)(able, key=lambda name: able[name])
