# SPDX-License-Identifier: MIT
"""What the measurements of alternating runs mean: medians, spreads, ratios by pairs, targets.

Plain numbers in, plain numbers out; nothing is run or printed here (`load` runs, `report` prints).

The hypervisor takes between none and half of a shared machine's time from one run to the next, so two figures may be
compared only when they were measured right after one another: the ratio of two servers is the median of the ratios
within each round, never the ratio of two medians. A run in which the load generator met errors is shown and never
counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Column:
    """One kind of load. `connections` 0: one download by curl. `paths`: what wrk asks for, "" for `path` alone, else a
    name in load.WRK_PATHS; then only servers that read files by name are asked."""

    name: str
    title: str
    unit: str
    path: str
    connections: int
    close: bool = False
    lower_is_better: bool = False
    paths: str = ""


COLUMNS = (
    Column("keepalive", "keep-alive, 64 connections, 512 B", "requests/s", "/512.bin", 64),
    Column("connect", "connection per request, 64 at once, 512 B", "requests/s", "/512.bin", 64, close=True),
    Column("bodies", "1 MiB bodies, 8 connections", "Gb/s", "/1m.bin", 8),
    Column("latency", "one connection, p50, 512 B", "µs", "/512.bin", 1, lower_is_better=True),
    Column("distinct", "keep-alive, 64 connections, 100,000 files in turn", "requests/s", "/", 64, paths="distinct"),
    Column("missing", "keep-alive, 64 connections, 404s that all differ", "requests/s", "/", 64, paths="missing"),
    Column("download", "100 MB by curl", "Gb/s", "/100m.bin", 0),
)
# The files of the load `distinct`: far more than a server keeps open. In DISTINCT_FOLDERS folders, of 512 bytes each.
DISTINCT_FILES = 100_000
DISTINCT_FOLDERS = 100
# What `serve` gives to every server: name, bytes.
SITE = {"/512.bin": 512, "/1m.bin": 1 << 20, "/100m.bin": 100_000_000}


@dataclass(frozen=True)
class Measurement:
    """One server under one load in one round."""

    round: int
    column: str
    server: str
    value: float
    p99_us: float
    errors: dict[str, int]
    busy: float
    steal: float
    cpu_us_per_request: float


@dataclass(frozen=True)
class Summary:
    """All rounds of one server under one load. Values are None when no run was good."""

    column: str
    server: str
    median: float | None
    least: float | None
    most: float | None
    p99_us: float | None
    ratios: dict[str, float | None]
    busy: float
    steals: tuple[float, ...]
    cpu_us_per_request: float | None
    erroneous_runs: int
    errors: dict[str, int]


@dataclass(frozen=True)
class Target:
    """A figure to reach. `met` is None when it could not be measured."""

    name: str
    wanted: str
    found: float | None
    met: bool | None


def good_runs(measurements: Iterable[Measurement], column: str, server: str) -> dict[int, Measurement]:
    """Runs without errors, by round."""
    return {m.round: m for m in measurements if m.column == column and m.server == server and not m.errors}


def ratio_by_pairs(measurements: Sequence[Measurement], column: str, server: str, reference: str) -> float | None:
    """Median over the rounds of server's value by reference's value; None when no round has a good run of both."""
    ours, theirs = good_runs(measurements, column, server), good_runs(measurements, column, reference)
    ratios = [ours[r].value / theirs[r].value for r in ours if r in theirs and theirs[r].value > 0]
    return median(ratios) if ratios else None


def summarize(measurements: Sequence[Measurement], column: str, server: str, references: Sequence[str]) -> Summary:
    """Medians, spread and ratios of one server under one load."""
    runs = [m for m in measurements if m.column == column and m.server == server]
    good = list(good_runs(runs, column, server).values())
    values = [m.value for m in good]
    errors: dict[str, int] = {}
    for m in runs:
        for kind, count in m.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    return Summary(
        column=column,
        server=server,
        median=median(values) if values else None,
        least=min(values, default=None),
        most=max(values, default=None),
        p99_us=median(m.p99_us for m in good) if good else None,
        ratios={
            reference: ratio_by_pairs(measurements, column, server, reference)
            for reference in references
            if reference != server
        },
        busy=median(m.busy for m in runs) if runs else 0.0,
        steals=tuple(m.steal for m in runs),
        cpu_us_per_request=median(m.cpu_us_per_request for m in good) if good else None,
        erroneous_runs=len(runs) - len(good),
        errors=errors,
    )


# (column, what is wanted, least or greatest ratio to nginx)
RATIO_TARGETS = (
    ("keepalive", "keep-alive >= 1.3 x nginx", 1.3, False),
    ("connect", "connection per request >= 1.5 x nginx", 1.5, False),
    ("bodies", "1 MiB bodies >= 0.8 x nginx", 0.8, False),
    ("latency", "one connection's p50 <= nginx's", 1.0, True),
    ("distinct", "100,000 files in turn >= 0.9 x nginx", 0.9, False),
    ("missing", "404s that all differ >= 1.0 x nginx", 1.0, False),
)
CONNECTION_BYTES = 256


def judge(measurements: Sequence[Measurement], info: dict[str, object]) -> list[Target]:
    """The targets of the project that this run can judge. `info` is what `ustack info` printed, or empty."""
    measured = {m.column for m in measurements}
    targets = []
    for column, wanted, limit, at_most in RATIO_TARGETS:
        if column not in measured:
            continue
        ratio = ratio_by_pairs(measurements, column, "ustack", "nginx")
        met = None if ratio is None else (ratio <= limit if at_most else ratio >= limit)
        targets.append(Target(column, wanted, ratio, met))
    wanted = f"tcb_bytes + birth_bytes + flow_bytes <= {CONNECTION_BYTES}"
    parts = [info.get("tcb_bytes"), info.get("birth_bytes", 0), info.get("flow_bytes")]
    sizes = [size for size in parts if isinstance(size, (int, float))]
    if len(sizes) == len(parts):
        targets.append(Target("memory", wanted, sum(sizes), sum(sizes) <= CONNECTION_BYTES))
    else:
        targets.append(Target("memory", wanted, None, None))
    return targets
