# SPDX-License-Identifier: MIT
"""The cells of `bench_loss`: which paths, what is measured on each, and what the runs of two servers say together.

Plain numbers in, plain numbers out; nothing is run here (`bench_loss`), and no figure is judged beyond its cell's wish:
at least the kernel's goodput, at most its completion times. Comparisons are by pairs, as in `compare`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ustack.tools.compare import Measurement, Summary, summarize

LOSSES_PERCENT = (0.0, 0.1, 1.0, 5.0)
RTTS_MS = (1, 20, 60, 200)
REORDER_RTT_MS = 66
LATE = ("1%:5ms", "5%:20ms")
QUEUE_LEAST_BYTES = 65_536  # at 1 ms a product of rate and delay is a few packets, less than any sender's burst
SHORT_BYTES = 16_384
LONG_BYTES = 2047 << 20  # more than a run takes: between two, a server may wait for its ACKs
SHORT, LONG = "/short.bin", "/long.bin"
BODIES = {SHORT: SHORT_BYTES, LONG: LONG_BYTES}
FAST_MBIT = 1000
FAST_RTTS_MS = (20, 100)
KINDS = ("bulk", "reorder", "short", "queue", "fast")
BESIDE_A_RUN_S = 5.0  # a wire that starts and ends, and connections that have their grace
MS_BETWEEN_RESPONSES = 5  # so many connections at once that one ends about this often, whatever the round trip


@dataclass(frozen=True)
class Cell:
    """One path and one load.

    late: of `ustack wire --reorder`. loaded: a download fills the queue meanwhile. rate_mbit: 0 is the rate of all.
    """

    kind: str
    rtt_ms: int
    loss_percent: float = 0.0
    late: str = ""
    loaded: bool = False
    rate_mbit: int = 0

    @property
    def name(self) -> str:
        """What a reader of the table sees."""
        path = f"{self.rtt_ms} ms, loss {self.loss_percent:g} %"
        if self.late:
            part, _, later = self.late.partition(":")
            path = f"{self.rtt_ms} ms, {part} late by {later}"
        if self.kind == "queue":
            path = f"{self.rtt_ms} ms, {'a full' if self.loaded else 'an empty'} queue"
        if self.rate_mbit:
            path = f"{self.rtt_ms} ms, {self.rate_mbit} Mb/s"
        return path

    @property
    def is_short(self) -> bool:
        """Completion times of short responses, not goodput."""
        return self.kind in ("short", "queue")

    @property
    def columns(self) -> list[str]:
        """What a run of it gives a value for: its name with the unit."""
        return [f"{self.name}, p50 ms", f"{self.name}, p99 ms"] if self.is_short else [f"{self.name}, Mb/s"]

    @property
    def at_once(self) -> int:
        """Connections of short responses at the same time."""
        return max(1, self.rtt_ms // MS_BETWEEN_RESPONSES)

    def settings(self, rate_mbit: int, products: float, seed: int) -> list[str]:
        """The arguments of `ustack wire`: both directions alike. products: of rate and delay, in the queue."""
        rate_mbit = self.rate_mbit or rate_mbit
        queue_bytes = max(QUEUE_LEAST_BYTES, round(products * rate_mbit * 1e6 / 8 * self.rtt_ms / 1e3))
        words = ["--rate", f"{rate_mbit}mbit", "--delay", f"{self.rtt_ms * 500}us", "--queue", f"{queue_bytes}B"]
        if self.loss_percent:
            words += ["--loss", f"{self.loss_percent:g}%"]
        if self.late:
            words += ["--reorder", self.late]
        return [*words, "--seed", str(seed)]


def cells(kinds: Sequence[str], *, quick: bool, named: Sequence[str] = ()) -> list[Cell]:
    """The cells of these kinds, in the order of the table. quick: some of each. named: only those whose "kind, name"
    begins with one of these."""
    losses: Sequence[float] = (0.0, 1.0) if quick else LOSSES_PERCENT
    rtts: Sequence[int] = (20, 60) if quick else RTTS_MS
    found = []
    if "bulk" in kinds:
        found += [Cell("bulk", rtt, loss) for rtt in rtts for loss in losses]
    if "reorder" in kinds:
        found += [Cell("reorder", REORDER_RTT_MS, late=late) for late in (LATE[:1] if quick else LATE)]
    if "short" in kinds:
        grid = [(60, 1.0)] if quick else [(rtt, loss) for rtt in rtts for loss in losses]
        found += [Cell("short", rtt, loss) for rtt, loss in grid]
    if "queue" in kinds:
        found += [Cell("queue", 20, loaded=loaded) for loaded in (False, True)]
    if "fast" in kinds:
        found += [Cell("fast", rtt, rate_mbit=FAST_MBIT) for rtt in (FAST_RTTS_MS[:1] if quick else FAST_RTTS_MS)]
    if named:
        found = [cell for cell in found if f"{cell.kind}, {cell.name}".startswith(tuple(named))]
    return found


def longest_s(chosen: Sequence[Cell], rounds: int, servers: int, seconds: float) -> float:
    """What all runs take at most: a cell with a load has half as long again to fill the queue first."""
    each = sum(seconds * (1.5 if cell.loaded else 1) + cell.rtt_ms / 1e3 + BESIDE_A_RUN_S for cell in chosen)
    return rounds * servers * each


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank: a value that was measured. values: not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(frozen=True)
class Row:
    """One line of the table: a cell's column, what the two found, and the median of their ratios by rounds."""

    cell: Cell
    column: str
    found: tuple[Summary, ...]
    ratio: float | None
    met: bool | None


def rows(chosen: Sequence[Cell], measurements: Sequence[Measurement], names: Sequence[str]) -> list[Row]:
    """Every column of every cell. A cell without a good pair of runs has no ratio and meets nothing."""
    made = []
    for cell in chosen:
        for column in cell.columns:
            key = f"{cell.kind}: {column}"
            found = tuple(summarize(measurements, key, name, names) for name in names)
            ratio = found[0].ratios.get(names[1]) if len(names) == 2 else None
            made.append(Row(cell, column, found, ratio, is_met(cell, ratio)))
    return made


def is_met(cell: Cell, ratio: float | None) -> bool | None:
    """By the two digits that are shown: half a percent is the clock's, not a stack's."""
    if ratio is None:
        return None
    return round(ratio, 2) <= 1 if cell.is_short else round(ratio, 2) >= 1
