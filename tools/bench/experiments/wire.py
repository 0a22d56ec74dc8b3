# SPDX-License-Identifier: MIT
"""Paths with delay and loss: `bench_loss`, the cells of its quick run that tell goodput. The whole grid is its own."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Console

from ustack.tools import bench_loss
from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome
from ustack.tools.loss_cells import Cell, cells

RATE_MBIT = 100
SECONDS = 4.0


class Loss(Experiment):
    """Goodput of one download over `ustack wire`."""

    name = "loss"
    order = 31
    title = f"One download over a wire of {RATE_MBIT} Mb/s, Mb/s"
    asks = (
        "What is left on a path with delay and loss, with the same congestion control? Both contestants of a round "
        "meet the same losses, packet by packet. `make bench-loss` measures the whole grid."
    )
    unit = "Mb/s"
    only = ("ustack-wire", "kernel-wire")
    cells_of: ClassVar[dict[str, Cell]] = {cell.name: cell for cell in cells(["bulk", "reorder"], quick=True)}
    points = tuple(cells_of)
    checks = ()
    beside_s = SECONDS + 1.0
    most_rounds = 2

    def __init__(self) -> None:
        """The seed of a run is how often its contestant has been at its point."""
        self.asked: dict[tuple[str, str], int] = {}

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """A wire, a download, the wire's own figures."""
        server = contestant.server  # type: ignore[attr-defined]
        seed = self.asked[point, contestant.name] = self.asked.get((point, contestant.name), 0) + 1
        runner = bench_loss.Bench([server], [], 1, SECONDS, RATE_MBIT, 1.0, bench.client_core, Console(stderr=True))
        cell = self.cells_of[point]
        figures: dict[str, object] = {}
        values, errors, more = runner.measure(cell, server, seed, figures)
        more.pop("bytes_each_100_ms", None)
        command = "ustack wire " + " ".join(cell.settings(RATE_MBIT, 1.0, seed))
        return Outcome(values[0] if values else None, command=command, errors=errors, details={**more, "wire": figures})


EXPERIMENTS = [Loss()]
