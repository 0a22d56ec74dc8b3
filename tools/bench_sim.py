# SPDX-License-Identifier: MIT
"""How long a simulation takes: 20 MB at 100 Mb/s and 40 ms there and back, with 0, 0.1, 1 and 5 % of frames lost; and
an hour of a connection that asks once per second, where little happens.

Each is run --rounds times, one after the other in turn, in this process; printed are the median of the seconds and
their range, of the run alone (making hosts and links takes half a millisecond). The same seed gives the same events in
all rounds.

    python -m ustack.tools.bench_sim
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.table import Table

from ustack.sim.network import Network
from ustack.sim.world import MILLISECOND, SECOND
from ustack.tcp.cc.registry import names

SIZE_BYTES = 20_000_000
RATE_BPS = 100_000_000
DELAY_NS = 20 * MILLISECOND
QUEUE_BYTES = 1_000_000  # two bandwidth-delay products
LOSSES = (0.0, 0.001, 0.01, 0.05)
HOUR_NS = 3600 * SECOND
QUIET = "quiet"


@dataclass
class Times:
    """Of one scenario: seconds of each round, and what each of them simulated."""

    loss: float | None  # None: the quiet one
    seconds: list[float] = field(default_factory=list)
    virtual_s: float = 0.0
    events: int = 0


def simulate(times: Times, cc: str) -> None:
    """One round."""
    with Network(seed=1) as network:
        network.host("sender")
        network.host("reader")
        there, _ = network.connect(
            "sender", "reader", rate_bps=RATE_BPS, delay_ns=DELAY_NS, queue_bytes=QUEUE_BYTES, queue_frames=1 << 20
        )
        if times.loss is None:
            network.flow("flow", source="sender", sink="reader", cc=cc, pattern="requests", think_ns=SECOND)
        else:
            there.set(loss=times.loss)
            network.flow("flow", source="sender", sink="reader", size=SIZE_BYTES, cc=cc)
        begun = time.perf_counter()
        took_ns = network.run(HOUR_NS, until_ended=True)
        times.seconds.append(time.perf_counter() - begun)
        times.virtual_s = took_ns / SECOND
        times.events = network.events


def table_of(measured: list[Times], cc: str) -> Table:
    """What is printed."""
    rounds = len(measured[0].seconds)
    table = Table(title=f"{SIZE_BYTES // 1_000_000} MB at 100 Mb/s, 40 ms there and back, {cc}; {rounds} rounds")
    for column in ("lost", "seconds", "range", "virtual s", "x real", "events", "ns/event"):
        table.add_column(column, justify="right")
    for times in measured:
        median = statistics.median(times.seconds)
        table.add_row(
            QUIET if times.loss is None else f"{times.loss:.1%}",
            f"{median:.4f}",
            f"{min(times.seconds):.4f}-{max(times.seconds):.4f}",
            f"{times.virtual_s:,.1f}",
            f"{times.virtual_s / median:,.0f}",
            f"{times.events:,}",
            f"{median / times.events * 1e9:.0f}",
        )
    return table


@click.command(help="Measure how long simulations take.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000))
@click.option("--cc", default="cubic", show_default=True, help="The congestion control.")
def main(*, rounds: int, cc: str) -> None:
    """Run and print."""
    if cc not in names():
        raise click.BadParameter(f"{cc}: there are {', '.join(names())}", param_hint="--cc")
    measured = [Times(loss) for loss in (*LOSSES, None)]
    for _ in range(rounds):
        for times in measured:
            simulate(times, cc)
    Console().print(table_of(measured, cc))


if __name__ == "__main__":
    main()
