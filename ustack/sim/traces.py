# SPDX-License-Identifier: MIT
"""Recorded rates of a link, from a file of one of two kinds.

    a number each line      when a packet of 1,500 bytes could leave, in milliseconds, ascending: the format of
                            Mahimahi and of the traces that come with it
    two numbers each line   from when on, in seconds, ascending; the rate then, in Mb/s. A comma may be between them

Lines that begin with # say nothing. Files are bounded in bytes and in steps; what is repeated has at most a step for
each 10 us of it.

Above: ways. Below: scenario.
"""

from __future__ import annotations

import math
from pathlib import Path

from ustack.sim.scenario import MILLISECOND, SECOND, Trace

STEP_NS = 100 * MILLISECOND  # what a Mahimahi trace is averaged over
BYTES_MOST = 1 << 25
STEPS_MOST = 1_000_000
PACKET_BITS = 1500 * 8
REPEATED_STEP_NS = 10_000  # on average, at least: a simulation's work is bounded by its time
MBPS_MOST = 17e6  # what a link takes (ways)
SECONDS_MOST = 1e6


def read(path: Path, *, step_ns: int = STEP_NS, repeats: bool = True) -> Trace:
    """step_ns: of what is averaged. repeats: it begins again at its end. Raises ValueError with the file and line."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(BYTES_MOST + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from None
    if len(raw) > BYTES_MOST:
        raise ValueError(f"{path}: larger than {BYTES_MOST >> 20} MiB")
    return parse(raw.decode("ascii", "replace"), str(path), step_ns=step_ns, repeats=repeats)


def parse(text: str, name: str, *, step_ns: int = STEP_NS, repeats: bool = True) -> Trace:
    """The same from text. name: what errors call it."""
    rows = [(number, line.replace(",", " ").split()) for number, line in enumerate(text.splitlines(), 1)]
    rows = [(number, words) for number, words in rows if words and not words[0].startswith("#")]
    if not rows:
        raise ValueError(f"{name}: no line with a number")
    if len(rows[0][1]) == 1:
        return _departures(rows, name, step_ns, repeats)
    return _rates(rows, name, repeats)


def _departures(rows: list[tuple[int, list[str]]], name: str, step_ns: int, repeats: bool) -> Trace:
    counts: list[int] = []
    before = end_ns = 0
    for number, words in rows:
        if len(words) != 1 or not words[0].isascii() or not words[0].isdigit() or len(words[0]) > 12:
            raise ValueError(f"{name}:{number}: {' '.join(words)[:40]!r}: a whole number of milliseconds is needed")
        at_ms = int(words[0])
        if at_ms < before:
            raise ValueError(f"{name}:{number}: {at_ms} is before the line above it")
        before = at_ms
        end_ns = at_ms * MILLISECOND
        place = max(0, end_ns - 1) // step_ns  # what leaves at the end of a step belongs to it
        if place >= STEPS_MOST:
            raise ValueError(f"{name}:{number}: more than {STEPS_MOST:,} steps of {step_ns / SECOND} s")
        counts.extend([0] * (place + 1 - len(counts)))
        counts[place] += 1
    if end_ns == 0:
        raise ValueError(f"{name}: it ends at 0 ms")
    steps = []
    for place, count in enumerate(counts):
        length_ns = min(step_ns, end_ns - place * step_ns)
        rate_bps = count * PACKET_BITS * SECOND // length_ns
        if rate_bps > MBPS_MOST * 1e6:
            raise ValueError(f"{name}: {count:,} packets in {length_ns} ns are more than {MBPS_MOST:,.0f} Mb/s")
        steps.append((place * step_ns, rate_bps))
    return _made(name, steps, end_ns, repeats)


def _rates(rows: list[tuple[int, list[str]]], name: str, repeats: bool) -> Trace:
    steps: list[tuple[int, int]] = []
    if len(rows) > STEPS_MOST:
        raise ValueError(f"{name}: more than {STEPS_MOST:,} lines")
    for number, words in rows:
        try:
            seconds, mbps = (float(word) for word in words)
        except ValueError:
            raise ValueError(
                f"{name}:{number}: {' '.join(words)[:40]!r}: two numbers are needed, seconds and Mb/s"
            ) from None
        if not (math.isfinite(seconds) and 0 <= seconds <= SECONDS_MOST):
            raise ValueError(f"{name}:{number}: {words[0][:40]} s is not from 0 to {SECONDS_MOST:,.0f}")
        if not (math.isfinite(mbps) and 0 <= mbps <= MBPS_MOST):
            raise ValueError(f"{name}:{number}: {words[1][:40]} Mb/s is not from 0 to {MBPS_MOST:,.0f}")
        at_ns = round(seconds * SECOND)
        if steps and at_ns <= steps[-1][0]:
            raise ValueError(f"{name}:{number}: {words[0][:40]} s is not after the line above it")
        steps.append((at_ns, round(mbps * 1e6)))
    if steps[0][0] != 0:
        raise ValueError(f"{name}:{rows[0][0]}: the first line is of 0 s")
    if not any(rate for _, rate in steps):
        raise ValueError(f"{name}: no rate is more than 0")
    # The last rate lasts as long as the one before it.
    end_ns = 2 * steps[-1][0] - steps[-2][0] if len(steps) > 1 else 0
    return _made(name, steps, end_ns, repeats)


def _made(name: str, steps: list[tuple[int, int]], end_ns: int, repeats: bool) -> Trace:
    kept = _merged(steps)
    if repeats and 0 < end_ns < len(kept) * REPEATED_STEP_NS:
        raise ValueError(f"{name}: {len(kept):,} rates in {end_ns:,} ns, again and again: more than one for each 10 us")
    return Trace(kept, end_ns if repeats else 0)


def _merged(steps: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Without steps of the rate before them."""
    kept = [step for number, step in enumerate(steps) if number == 0 or steps[number - 1][1] != step[1]]
    return tuple(kept)
