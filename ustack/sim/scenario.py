# SPDX-License-Identifier: MIT
"""What is simulated, as records that do not change: hosts, routers, links, flows, a duration, a seed.

    Scenario(
        hosts=(Host("a"), Host("b")),
        links=(Link("a-b", "a", "b", there=Way({"rate_bps": 10_000_000, "delay_ns": 20_000_000})),),
        flows=(Flow("f0", "a", "b", size=1_000_000, cc="bbr"),),
        duration_ns=10 * SECOND,
    )

Times are whole nanoseconds of virtual time, from the start of the simulation; sizes are bytes, rates bits per second.
Settings of a way are those of a network's hops (network.pyi). All of it can be pickled and sent to other processes.

It must not: judge (reading does), or know of a network. Above: reading, building, running, sweep. Below: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MILLISECOND = 1_000_000
SECOND = 1_000_000_000

Pattern = Literal["bulk", "chunks", "requests"]


@dataclass(frozen=True)
class Host:
    """An end with a stack. cc: the control of what it sends; None: the default. settings: as Stack takes, and mtu."""

    name: str
    cc: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Router:
    """A node that forwards. Its queues belong to the ways that leave it."""

    name: str


@dataclass(frozen=True)
class Change:
    """From at_ns on these settings of a way have these values."""

    at_ns: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Trace:
    """A recorded rate. steps: (from when, bits per second). repeat_ns: begins again after so long; 0: its last rate
    stays."""

    steps: tuple[tuple[int, int], ...]
    repeat_ns: int = 0


@dataclass(frozen=True)
class Way:
    """One direction of a link. lose: the numbers, from 1, of frames that are lost."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    lose: tuple[int, ...] = ()
    trace: Trace | None = None


@dataclass(frozen=True)
class Link:
    """Between the nodes a and b. there: from a to b; back: from b to a."""

    name: str
    a: str
    b: str
    there: Way = field(default_factory=Way)
    back: Way = field(default_factory=Way)


@dataclass(frozen=True)
class Flow:
    """A connection that source opens to sink, and what its application does.

    size: bytes in all; 0: endless.  cc: a control's name, or a class as controls.load takes it; None: the host's.
    """

    name: str
    source: str
    sink: str
    start_ns: int = 0
    stop_ns: int = 0
    size: int = 0
    cc: str | None = None
    pattern: Pattern = "bulk"
    pattern_settings: Mapping[str, int] = field(default_factory=dict)

    @property
    def ends_by_itself(self) -> bool:
        """It has a size, or a number of requests."""
        return self.size > 0 or self.pattern_settings.get("count", 0) > 0


@dataclass(frozen=True)
class Scenario:
    """All of it. sample_ns: between two samples of series.  point: what makes it differ from others of a sweep."""

    hosts: tuple[Host, ...]
    links: tuple[Link, ...]
    flows: tuple[Flow, ...]
    duration_ns: int
    routers: tuple[Router, ...] = ()
    seed: int = 1
    sample_ns: int = 10 * MILLISECOND
    name: str = "scenario"
    about: str = ""
    point: Mapping[str, str] = field(default_factory=dict)

    @property
    def ends_by_itself(self) -> bool:
        """No flow is endless: it is over when all have ended, or at the end of duration_ns."""
        return all(flow.ends_by_itself for flow in self.flows)

    def as_json(self) -> dict[str, Any]:
        """For a file beside the results: what was simulated."""
        return asdict(self)
