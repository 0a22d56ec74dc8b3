# SPDX-License-Identifier: MIT
"""The stack alone, in memory: what a request costs when no kernel and no load generator take part."""

from __future__ import annotations

import json
import sys

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome
from ustack.tools.bench_request import CASES
from ustack.tools.generators import run


class StackCost(Experiment):
    """`bench_request`, on the servers' core, in a process of its own."""

    name = "stackcost"
    order = 30
    title = "One small request through stack and server, in memory, in ns"
    asks = "What is our share? Clients are canned frames; the clock's readings are taken off."
    unit = "ns"
    lower_is_better = True
    only = ("ustack-memory",)
    points = tuple(case.title for case in CASES)
    checks = ()
    beside_s = 1.0
    most_rounds = 3

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """One run of one case."""
        name = next(case.name for case in CASES if case.title == point)
        words = ["-m", "ustack.tools.bench_request", "--runs", "3", "--case", name, "--json"]
        command = ["taskset", "-c", str(bench.server_core), sys.executable, *words]
        (found,) = json.loads(run(command, timeout_s=120))
        return Outcome(found["ns_per_request"], command=" ".join(command), details=found)


EXPERIMENTS = [StackCost()]
