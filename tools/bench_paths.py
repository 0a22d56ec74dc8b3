# SPDX-License-Identifier: MIT
"""What a connection brings over a bad path, between two stacks in virtual time: goodput, and what was sent again.

One sender with more to send than fits, a simulated wire (rate, delay, queue, loss, reordering), one reader. No clock
and no other program plays a part: the same seed gives the same figures on every machine. For the same paths between
real stacks, with the kernel beside it: bench_loss.

    python -m ustack.tools.bench_paths --cc newreno --cc cubic
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ustack.tcp.cc.registry import names
from ustack.testing.bulk import pour
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND

MTU = 1500
AHEAD_BYTES = 64 << 20  # more than any window here


@dataclass(frozen=True)
class Path:
    """A path, the same both ways. queue_bdp: what its queue holds, in bandwidth-delay products."""

    name: str
    rate_bps: int = 100_000_000
    round_trip_ms: int = 20
    queue_bdp: float = 4
    loss: float = 0.0
    reorder: float = 0.0
    late_ms: int = 5

    def network(self) -> dict[str, Any]:
        """Arguments of SimNetwork."""
        product = self.rate_bps / 8 * self.round_trip_ms / 1000
        return {
            "rate_bps": self.rate_bps,
            "delay_ns": self.round_trip_ms * MILLISECOND // 2,
            "mtu": MTU,
            "queue_frames": max(10, int(product * self.queue_bdp / MTU)),
            "loss": self.loss,
            "reorder": self.reorder,
            "reorder_ns": self.late_ms * MILLISECOND,
        }


PATHS = (
    Path("queue of one BDP", queue_bdp=1),
    Path("queue of four BDP"),
    Path("loses 0.1 %", loss=0.001),
    Path("loses 1 %", loss=0.01),
    Path("loses 5 %", loss=0.05),
    Path("1 % of frames late", reorder=0.01),
    Path("66 ms, 1 % late by 5 ms", round_trip_ms=66, queue_bdp=1, reorder=0.01),
    Path("66 ms, 5 % late by 20 ms", round_trip_ms=66, queue_bdp=1, reorder=0.05, late_ms=20),
    Path("1 Gb/s, queue of one BDP", rate_bps=1_000_000_000, queue_bdp=1),
)


@dataclass(frozen=True)
class Outcome:
    """What one transfer came to."""

    megabits_per_second: float
    sent_again: int
    timeouts: int


def transfer(path: Path, cc: str, seconds: int, seed: int) -> Outcome:
    """Send for so long in virtual time, both ends with the same congestion control."""
    with Pair(seed=seed, network=path.network(), cc=cc) as pair:
        sender, reader = pair.connect()
        received = pour(pair, sender, reader, seconds, AHEAD_BYTES)
        counters = pair.b.counters()
        sender.abort()
        reader.abort()
        pair.pump()
    return Outcome(received * 8 / seconds / 1e6, counters["segments_retransmitted"], counters["retransmit_timeouts"])


@click.command(help="Measure goodput over bad paths between two stacks, in virtual time.")
@click.option("--cc", "controls", multiple=True, default=("cubic",), show_default=True, help="One or more.")
@click.option("--seconds", default=20, show_default=True, type=click.IntRange(1, 3600), help="Virtual ones, a path.")
@click.option("--seed", default=1, show_default=True, type=int, help="Of what is lost and when.")
@click.option("--only", default="", help="Paths whose names contain this.")
def main(*, controls: tuple[str, ...], seconds: int, seed: int, only: str) -> None:
    """Run and print."""
    paths = [path for path in PATHS if only in path.name]
    unknown = [cc for cc in controls if cc not in names()]
    if unknown:
        raise click.BadParameter(f"{unknown[0]}: there are {', '.join(names())}", param_hint="--cc")
    if not paths:
        raise click.BadParameter(f"{only!r}: no path is called that", param_hint="--only")
    table = Table(title=f"{seconds} s of virtual time, seed {seed}; 100 Mb/s and 20 ms there and back unless said")
    for column in ("path", "control", "Mb/s", "segments sent again", "timeouts"):
        table.add_column(column, justify="left" if column in {"path", "control"} else "right")
    for path in paths:
        for cc in controls:
            outcome = transfer(path, cc, seconds, seed)
            table.add_row(
                path.name, cc, f"{outcome.megabits_per_second:.1f}", str(outcome.sent_again), str(outcome.timeouts)
            )
    Console().print(table)


if __name__ == "__main__":
    main()
