# SPDX-License-Identifier: MIT
"""How long the longest turn of the engine is while a great many connections open and end, in memory, on one core.

A turn is one engine_poll; its processor time (the thread's CPU clock) is what a packet that arrives meanwhile waits at
most. Counted: everything that the engine does. Not counted: the clients (no stack, see connection_storm), any system
call or device. The phases are the storms that a server can meet:

    open     every client opens a connection: records, timers and the flow table grow
    idle     the idle timeouts of all of them are due in one tick, and the server closes every connection
    forget   the TIME-WAIT records that this has left expire in one tick
    leave    opened again, every client closes
    end      opened again, Stack.close(): every connection is reset

The time between two turns in which this thread does not run is not in the figure, but on a machine shared with others
what they leave of its caches is: run it several times, the least longest turn is the engine's.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ustack.blocking.stack import Stack
from ustack.tools.connection_storm import ConnectionStorm, IdleServer

SECOND = 1_000_000_000
IDLE_S = 1000
TIME_WAIT_S = 60


@dataclass(frozen=True)
class Phase:
    """The turns of one phase. work: the most that any turn of the run so far has done (Stack.turns)."""

    name: str
    turns: int
    median_us: float
    p99_us: float
    longest_us: float
    total_s: float
    work: dict[str, int]


@dataclass(frozen=True)
class Result:
    """One run. bytes_per_connection: resident memory that opening has added."""

    connections: int
    bytes_per_connection: float
    phases: list[Phase]

    @property
    def longest_us(self) -> float:
        """Of all phases."""
        return max(phase.longest_us for phase in self.phases)


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def phase_of(name: str, turns: memoryview, stack: Stack) -> Phase:
    """What the turns of a phase took."""
    took = sorted(turns)
    return Phase(
        name,
        len(took),
        took[len(took) // 2] / 1e3,
        took[len(took) * 99 // 100] / 1e3,
        took[-1] / 1e3,
        sum(took) / 1e9,
        stack.turns(),
    )


def measure(connections: int) -> Result:
    """One run with its phases in order."""
    storm = ConnectionStorm(connections)
    server = IdleServer(IDLE_S * SECOND)
    phases: list[Phase] = []
    with Stack(
        storm,
        "198.18.0.2/24",
        "198.18.0.1",
        seed=1,
        now_ns=storm.now_ns,
        max_connections=connections,
        time_wait_limit=connections,
    ) as stack:
        stack.listen(80, application=server, backlog=1024)
        before = resident_bytes()
        phases.append(phase_of("open", storm.open(stack), stack))
        grown = resident_bytes() - before
        phases.append(phase_of("idle", storm.idle(stack, (IDLE_S + 1) * SECOND), stack))
        phases.append(phase_of("forget", storm.forget(stack, (TIME_WAIT_S + 1) * SECOND), stack))
        storm.open(stack)
        phases.append(phase_of("leave", storm.leave(stack), stack))
        storm.open(stack)
        phases.append(phase_of("end", storm.end(stack), stack))
    return Result(connections, grown / connections, phases)


def show(console: Console, result: Result) -> None:
    """One line a phase."""
    table = Table(
        title=f"{result.connections:,} connections, {result.bytes_per_connection:.0f} bytes each; "
        f"longest turn {result.longest_us / 1e3:.2f} ms of processor time",
        title_justify="left",
    )
    table.add_column("phase")
    for heading in ("turns", "median us", "99 % us", "longest us", "total s"):
        table.add_column(heading, justify="right")
    for phase in result.phases:
        table.add_row(
            phase.name,
            f"{phase.turns:,}",
            f"{phase.median_us:.1f}",
            f"{phase.p99_us:.1f}",
            f"{phase.longest_us:.0f}",
            f"{phase.total_s:.2f}",
        )
    console.print(table)


def least(results: Sequence[Result]) -> Result:
    """The run whose longest turn is the shortest."""
    return min(results, key=lambda result: result.longest_us)


@click.command(help="The longest turn of the engine while a great many connections open and end, in memory.")
@click.option("--connections", default=1_000_000, show_default=True, type=click.IntRange(1, 1 << 24))
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1, 100), help="The best one is shown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table, every run.")
def main(*, connections: int, runs: int, as_json: bool) -> None:
    """Measure on one core and print."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = [measure(connections) for _ in range(runs)]
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=1))
    else:
        show(Console(width=None if sys.stdout.isatty() else 120), least(results))


if __name__ == "__main__":
    main()
