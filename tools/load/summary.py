# SPDX-License-Identifier: MIT
"""What a run came to: percentiles, rates, errors by kind; as JSON, or as a table for people.

The histograms are counted in C and read here with the package hdrhistogram, which merges them, and whose text form
other tools read. Above: running, the command line. Below: histogram.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ustack.tools.load.histogram import HIGHEST_NS, LOWEST_NS, SIGNIFICANT_FIGURES, Histogram

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram
    from rich.console import Console

PERCENTILES = (50.0, 75.0, 90.0, 99.0, 99.9, 99.99)
FULL = 0.05  # idle for less than that: the client's own processor was the limit, or close to it


def as_hdr(histogram: Histogram) -> HdrHistogram:
    """The same counts as an HdrHistogram."""
    from hdrh.histogram import HdrHistogram  # of an extra: `ustack` runs without it

    hdr = HdrHistogram(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_FIGURES)
    octets = histogram.counts()
    if len(octets) != ctypes.sizeof(hdr.counts):
        raise AssertionError("hdrhistogram lays out its counts in another way")
    ctypes.memmove(hdr.counts, octets, len(octets))
    words = memoryview(octets).cast("Q")
    used = [index for index, count in enumerate(words) if count]
    if used:
        hdr.set_internal_tacking_values(used[0], used[-1], histogram.total)
    return hdr


def spread(hdr: HdrHistogram) -> dict[str, float]:
    """Percentiles, mean and extremes, in µs. Empty if nothing was counted."""
    if hdr.get_total_count() == 0:
        return {}
    values = hdr.get_percentile_to_value_dict(list(PERCENTILES))
    return {
        "min": hdr.get_min_value() / 1e3,
        "mean": hdr.get_mean_value() / 1e3,
        **{f"p{percentile:g}": values[percentile] / 1e3 for percentile in PERCENTILES},
        "max": hdr.get_max_value() / 1e3,
    }


@dataclass(frozen=True)
class Summary:
    """Counts are of requests that were due in the measured part, unless they say `all`. Times are µs."""

    seconds: float
    rate: float  # asked for, per second; 0: closed loop
    connections: int
    requests: int
    good: int
    good_in_time: int
    errors: dict[str, int]
    unfinished: int  # under way at the end of a closed loop: no error
    statuses: dict[str, int]
    received_bytes: int
    body_bytes: int
    opened: int
    closed_idle: int
    hashed: int
    latency_us: dict[str, float]
    opening_us: dict[str, float]
    all: dict[str, Any]
    client_idle: float | None
    histogram: str
    most_open: int = 0
    opened_in_s: float | None = None  # all of them, or as many as could be; of kept ones, ramps included
    latency_unanswered: int = 0  # requests in `latency_us` to which no whole response came
    # Of slow readers, in the measured part: step_bytes that each reads at once; due_bytes at its rate; least_bytes and
    # most_bytes that one has read; served: how many have read what was due, but for a step; fairness: Jain's index of
    # what they have read, 1.0 if all the same (steps make it less: with n of them due, 1 / (1 + 1 / 4n^2) at the least)
    readers: dict[str, float] | None = None

    @property
    def requests_per_second(self) -> float:
        """Good responses that came within the measured part, per second of it."""
        return self.good_in_time / self.seconds if self.seconds else 0.0

    @property
    def gigabits_per_second(self) -> float:
        """What came within the measured part."""
        return self.received_bytes * 8e-9 / self.seconds if self.seconds else 0.0

    @property
    def failed(self) -> int:
        """Errors of every kind."""
        return sum(self.errors.values())

    def as_json(self) -> dict[str, Any]:
        """Everything, with the rate."""
        return {**vars(self), "requests_per_second": self.requests_per_second, "failed": self.failed}


def summarise(
    stats: Mapping[str, Any],
    latency: Histogram,
    unanswered: Histogram,
    opened: Histogram,
    *,
    rate: float,
    connections: int,
    idle: float | None,
) -> Summary:
    """In an open loop requests that were never answered are in the distribution, with the time that they had waited
    when they failed or the run ended: what it says of them is a lower bound, and leaving them out would flatter the
    server."""
    distribution = as_hdr(latency)
    if rate and unanswered.total:  # adding nothing would make 0 the least
        distribution.add(as_hdr(unanswered))
    measured = stats["measured"]
    errors = dict(measured["outcomes"])
    good = errors.pop("ok", 0)
    unfinished = 0 if rate else errors.pop("unanswered", 0)
    return Summary(
        seconds=stats["measured_ns"] / 1e9,
        rate=rate,
        connections=connections,
        requests=measured["requests"],
        good=good,
        good_in_time=stats["in_time"],
        errors=errors,
        unfinished=unfinished,
        statuses=measured["statuses"],
        received_bytes=measured["bytes"],
        body_bytes=measured["body_bytes"],
        opened=measured["opened"],
        closed_idle=measured["closed_idle"],
        hashed=stats["hashed"],
        latency_us=spread(distribution),
        opening_us=spread(as_hdr(opened)),
        all=stats["all"],
        client_idle=idle,
        histogram=distribution.encode().decode("ascii"),
        most_open=stats["most_open"],
        opened_in_s=None if stats["opened_in_ns"] is None else stats["opened_in_ns"] / 1e9,
        latency_unanswered=unanswered.total if rate else 0,
        readers=stats["readers"],
    )


def time_text(us: float) -> str:
    """In the unit that leaves three figures or so."""
    if us < 1000:
        return f"{us:.1f} µs"
    return f"{us / 1e3:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def warnings_of(summary: Summary) -> list[str]:
    """What a reader should know before he quotes a figure."""
    said = []
    if summary.client_idle is not None and summary.client_idle < FULL:
        said.append("the client was idle for less than 5 % of the time: its own core may be the limit, not the server")
    late = summary.latency_unanswered
    if late:
        said.append(f"{late:,} requests that were due were never answered: their latency is a lower bound")
    if summary.most_open < summary.connections and summary.opened == 0 and summary.good:
        said.append(f"only {summary.most_open:,} of {summary.connections:,} connections were open at once")
    return said


def show(console: Console, summary: Summary, title: str) -> None:
    """For people."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    loop = f"open loop, {summary.rate:,.0f}/s" if summary.rate else "closed loop"
    table.add_row("connections, loop", f"{summary.connections:,}, {loop}")
    table.add_row("good responses per second", f"{summary.requests_per_second:,.0f}")
    table.add_row("requests, good", f"{summary.requests:,}, {summary.good:,} in {summary.seconds:.2f} s")
    if summary.seconds:
        table.add_row("received, heads included", f"{summary.gigabits_per_second:.3f} Gb/s")
    for name, us in summary.latency_us.items():
        table.add_row(f"latency, {name}", time_text(us))
    if summary.opening_us:
        opening = summary.opening_us
        table.add_row("connections opened, p50, p99", f"{time_text(opening['p50'])}, {time_text(opening['p99'])}")
    if summary.readers:
        table.add_row("slow readers served at their rate", f"{summary.readers['served']:,}")
        table.add_row("fairness among them (Jain)", f"{summary.readers['fairness']:.4f}")
    for kind, count in sorted(summary.errors.items()):
        table.add_row(f"error: {kind}", f"{count:,}")
    if not summary.errors:
        table.add_row("errors", "0")
    if summary.unfinished:
        table.add_row("under way at the end", f"{summary.unfinished:,}")
    if summary.closed_idle:
        table.add_row("closed by the server while idle", f"{summary.closed_idle:,}")
    if summary.client_idle is not None:
        table.add_row("the client's core, busy", f"{1 - summary.client_idle:.0%}")
    console.print(table)
    for sentence in warnings_of(summary):
        console.print(f"note: {sentence}")
