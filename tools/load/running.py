# SPDX-License-Identifier: MIT
"""One run from its beginning to its end, on any link: steps of a second, a word after each, then what it came to.

Above: the command line, benchmarks. Below: client, driver, memory, summary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ustack.blocking.stack import Stack
from ustack.tools.load.client import LoadClient
from ustack.tools.load.driver import Driver
from ustack.tools.load.memory import MemoryWorld
from ustack.tools.load.summary import Summary, summarise

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Load:
    """What a client is told, but for the server and the requests: LoadClient's arguments."""

    connections: int = 1
    keep_alive: bool = True
    rate: float = 0.0
    poisson: bool = False
    duration_ns: int | None = 10 * SECOND_NS
    ramp_ns: int = 0
    timeout_ns: int = 10 * SECOND_NS
    requests_most: int = 0
    read_bytes_per_second: float = 0.0
    read_step_bytes: int = 0
    to_head: bool = False
    status: int = 0
    any_length: bool = False
    bodies: list[tuple[int, int | None]] | None = None
    hash_every: int = 64
    openings: int = 256
    seed: int = 1

    def client(self, server: str, port: int, requests: list[bytes]) -> LoadClient:
        """Raises ValueError for what cannot be."""
        words = {name: value for name, value in vars(self).items() if name != "duration_ns"}
        return LoadClient(server, port, requests, **words)


@dataclass(frozen=True)
class Between:
    """What is to be done between turns, so many nanoseconds after the last time, or somewhat later."""

    slice_ns: int
    action: Callable[[], None]


def run_on_stack(
    stack: Stack,
    client: LoadClient,
    load: Load,
    tick: Callable[[dict[str, Any]], bool],
    between: Between | None = None,
) -> Summary:
    """On a stack with a real clock. tick: called each second; False ends the run, as stop() of the stack does. Raises
    OSError when the link is gone."""
    client.begin(stack, load.duration_ns)
    driver = Driver(client, stack)
    _run(driver.run, client, tick, between)
    driver.finish()
    return _summary(client, load, driver.idle)


def run_in_memory(
    world: MemoryWorld,
    client: LoadClient,
    load: Load,
    tick: Callable[[dict[str, Any]], bool],
    between: Between | None = None,
) -> Summary:
    """The same in memory, on the clock or in virtual time as the world has it."""
    world.begin(client, load.duration_ns)
    _run(partial(world.run, client), client, tick, between)
    world.finish(client)
    return _summary(client, load, None)


def _run(
    run: Callable[[int], bool],
    client: LoadClient,
    tick: Callable[[dict[str, Any]], bool],
    between: Between | None,
) -> None:
    """Until it is over, or a tick says so."""
    while True:
        left_ns = SECOND_NS
        while left_ns > 0:
            slice_ns = left_ns if between is None else min(between.slice_ns, left_ns)
            left_ns -= slice_ns
            over = run(slice_ns)
            if between is not None:
                between.action()
            if over:
                return
        if not tick(client.stats()):
            return


def _summary(client: LoadClient, load: Load, idle: float | None) -> Summary:
    return summarise(
        client.stats(),
        client.latency,
        client.unanswered,
        client.opened,
        rate=load.rate,
        connections=load.connections,
        idle=idle,
    )
