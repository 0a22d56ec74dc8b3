# SPDX-License-Identifier: MIT
"""What an experiment is: a question, points at which it is asked, and a measurement of one contestant at one point.

It must not: decide who is asked when (runner), or what the figures mean (figures).
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ustack.tools.bench.contestants.base import USERSPACE, Contestant
from ustack.tools.bench.generators import Generator
from ustack.tools.generators import Load


@dataclass
class Bench:
    """What all measurements share. hashes: SHA-256 of the site's files by name. seconds: of a run."""

    work: Path
    site: Path
    generator: Generator
    seconds: int
    client_core: int
    server_core: int
    hashes: dict[str, str] = field(default_factory=dict)
    contestants: dict[str, Contestant] = field(default_factory=dict)
    quick: bool = False


@dataclass
class Outcome:
    """What one measurement found. errors: then the value does not count."""

    value: float | None
    load: Load = field(default_factory=Load)
    command: str = ""
    errors: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


BESIDE_CONNECTIONS = 64  # descriptors that a server has open for other things


def too_many(contestant: Contestant, connections: int) -> str:
    """Why a contestant cannot hold so many connections; "" if it can. A socket of the kernel's takes a descriptor."""
    if contestant.at_most is not None and contestant.at_most < connections:
        return f"at most {contestant.at_most} connections: {contestant.why_at_most}"
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if contestant.kind not in USERSPACE and connections + BESIDE_CONNECTIONS > most:
        return f"at most {most - BESIDE_CONNECTIONS} connections: here a process may have {most} descriptors"
    return ""


class Experiment:
    """One question. Attributes are what the report says about it; a subclass measures.

    everybody: all contestants take part, not only the main ones. checks: files that a contestant is asked for after
    each run, when nobody presses. files: all that it asks for, if those are more: they are checked at the start.
    beside_s: what a run takes beyond its seconds. alone: the other contestants are stopped meanwhile.
    """

    name = ""
    title = ""
    asks = ""
    unit = ""
    lower_is_better = False
    everybody = False
    alone = False
    order = 100
    points: Sequence[str] = ()
    quick_points: Sequence[str] | None = None
    beside_s = 0.1
    checks: Sequence[str] = ("/512.bin",)
    files: Sequence[str] = ()
    only_if_named = False  # takes too long for a bench of everything
    only: Sequence[str] | None = None  # the contestants that it is about, if it is about some
    most_rounds = 1000  # more say nothing new, or take too long

    def prepare(self, bench: Bench) -> None:
        """Write what is to be served, before any contestant starts."""

    def unfit(self, contestant: Contestant, point: str) -> str:
        """Why a contestant cannot be asked at this point; "" if it can."""
        return ""

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """Ask one at one point. May raise LoadError."""
        raise NotImplementedError

    def finish(self) -> None:
        """Give back what prepare() took."""

    def points_of(self, *, quick: bool) -> Sequence[str]:
        """Where it is asked: the first point alone in a quick bench, if it names none for that."""
        return (self.quick_points or self.points[:1]) if quick else self.points

    def describe(self) -> dict[str, Any]:
        """For the record and the report."""
        return {
            "name": self.name,
            "title": self.title,
            "asks": self.asks,
            "unit": self.unit,
            "lower_is_better": self.lower_is_better,
            "points": list(self.points),
        }
