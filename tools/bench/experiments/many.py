# SPDX-License-Identifier: MIT
"""More open connections than a client on the kernel's sockets could hold beside the server: `ustack load` holds them,
so that all that the kernel's slabs grow by is the server's. And ten million in memory, against ourselves alone."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome, too_many
from ustack.tools.bench.experiments.idle import SETTLE_S
from ustack.tools.bench.generators import Shape, UstackLoad
from ustack.tools.bench.processor import memory_bytes, slab_bytes, watched
from ustack.tools.benchmark import prepare_client
from ustack.tools.generators import Load, LoadError, run

TIMEOUT_S = 30
ASKED_PER_SECOND = 20_000


class IdleMany(Experiment):
    """Open them all, then ask each once."""

    name = "idle-many"
    order = 22
    title = "Memory of one of 100,000 connections"
    asks = (
        "How many bytes does a connection take, in the server's processes and in the kernel's slabs, of so many that "
        "are open and have all been answered? The most that was seen of a server that has just been started; what it "
        "had set aside before the first came (nginx: its connections) is not in it."
    )
    unit = "bytes"
    lower_is_better = True
    count = 100_000
    points = ("100,000 connections",)
    open_s = 10.0  # as it is thought to take
    beside_s = open_s + count / ASKED_PER_SECOND + 5.0
    most_rounds = 1

    def unfit(self, contestant: Contestant, point: str) -> str:
        """By the connections that it can hold."""
        return too_many(contestant, self.count)

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """A new server, one load client; whoever leaves one of them without its file has failed."""
        contestant.start_again()
        prepare_client(contestant.client_netns)
        contestant.check_file("/512.bin", bench.hashes["/512.bin"])
        time.sleep(SETTLE_S)
        generator, seconds = UstackLoad(bench.work, bench.client_core), self.count / ASKED_PER_SECOND
        more = ("--rate", str(ASKED_PER_SECOND), "--timeout", f"{TIMEOUT_S}s")
        command = generator.words(contestant, Shape(connections=self.count), seconds, *more)
        process, slabs = memory_bytes(contestant.pids()), slab_bytes()
        with watched(contestant.pids) as most:
            found = generator.ask(command, seconds + 2 * TIMEOUT_S)
        errors = {f"{kind}": count for kind, count in found["all"]["outcomes"].items() if kind != "ok"}
        if found["most_open"] < self.count:
            errors[f"only {found['most_open']:,} were open at once"] = 1
        elif found["good"] < self.count:
            errors[f"only {found['good']:,} were answered"] = 1
        each = {"process": (most.process - process) / self.count, "kernel": (most.kernel - slabs) / self.count}
        details: dict[str, Any] = {
            **{f"{name}_bytes": round(value) for name, value in each.items()},
            "opened_in_s": found.get("opened_in_s"),
            "samples": most.samples,
        }
        load = Load(found["good"], found["seconds"], found["received_bytes"])
        return Outcome(sum(each.values()), load, shlex.join(command), errors, details)


class IdleMillion(IdleMany):
    """Ten times as many."""

    name = "idle-million"
    order = 23
    only_if_named = True
    title = "Memory of one of 1,000,000 connections"
    count = 1_000_000
    points = ("1,000,000 connections",)
    beside_s = 40.0 + count / ASKED_PER_SECOND + 10.0


class IdleMemory(Experiment):
    """The stack alone, with clients that have none."""

    name = "idle-memory"
    order = 24
    title = "Memory of a connection of the stack's, without a device"
    asks = (
        "How many bytes does an established connection take, of so many that clients without a stack have opened in "
        "memory (`bench_turns`, which then closes them all)? The longest turn of each phase is in the details."
    )
    unit = "bytes"
    lower_is_better = True
    only = ("ustack-memory",)
    counts: ClassVar[tuple[int, ...]] = (10_000, 100_000, 1_000_000)
    points: Sequence[str] = tuple(f"{count:,} connections" for count in counts)
    quick_points: Sequence[str] | None = points[:1]
    checks = ()
    beside_s = 4.0
    most_rounds = 1
    timeout_s = 300

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """In a process of its own, on the servers' core."""
        count = point.partition(" ")[0].replace(",", "")
        words = ["-m", "ustack.tools.bench_turns", "--connections", count, "--json"]
        command = ["taskset", "-c", str(bench.server_core), sys.executable, *words]
        (found,) = json.loads(run(command, timeout_s=self.timeout_s))
        value = float(found["bytes_per_connection"])
        if value <= 0:
            raise LoadError(f"{value:.0f} bytes for a connection: something else was given back meanwhile")
        return Outcome(value, command=shlex.join(command), details=found)


class IdleTenMillion(IdleMemory):
    """A thousand times C10K."""

    name = "idle-ten-million"
    order = 25
    only_if_named = True
    title = "Memory of one of 10,000,000 connections of the stack's, without a device"
    counts: ClassVar[tuple[int, ...]] = (10_000_000,)
    points = ("10,000,000 connections",)
    quick_points = None
    beside_s = 120.0
    timeout_s = 900


EXPERIMENTS = [IdleMany(), IdleMillion(), IdleMemory(), IdleTenMillion()]
