# SPDX-License-Identifier: MIT
"""Loads that do not wait for the server: more than it can do, and many that are slow. The load is `ustack load`, whose
schedule is fixed before the run, so that a server which stalls is not spared."""

from __future__ import annotations

import shlex
import time
from typing import Any, ClassVar

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome, too_many
from ustack.tools.bench.generators import Shape, UstackLoad
from ustack.tools.bench.processor import memory_bytes, slab_bytes, watched
from ustack.tools.generators import Load, LoadError

EXPECTED = ("unsent", "unanswered", "timeout", "open timeout", "refused", "reset", "closed", "cut", "no port")
TIMEOUT_S = 2.0
SLOWEST_US = 0.9e6  # of a capacity run: what takes longer has waited for a lost SYN or a stall, not in a queue
SILENCE_S = 4.0  # of a slow reader; the client waits for so long at the end, too
SEGMENT_BYTES = 1448  # of an Ethernet's, with timestamps


def unexpected(errors: dict[str, int]) -> dict[str, int]:
    """Those of an overload that are no overload: wrong answers."""
    return {kind: count for kind, count in errors.items() if kind not in EXPECTED}


def no_capacity(load: Load) -> dict[str, int]:
    """Why a closed loop says nothing about what a server can do. Whoever stood still for a second was asked for less
    than the others afterwards."""
    wrong = dict(load.errors)
    if not load.requests and not wrong:
        wrong["no good response in time"] = 1
    if load.max_us > SLOWEST_US:
        wrong[f"a response took {load.max_us / 1e6:.2f} s"] = 1
    return wrong


class Overload(Experiment):
    """Goodput as a share of what the same server did in a closed loop just before."""

    name = "overload"
    order = 8
    title = "Overload: goodput in percent of capacity, a connection for each request"
    asks = (
        "What is left of a server's rate when more is asked than it can do? Capacity is what it did in a closed loop "
        "just before; requests come by Poisson's schedule, up to 4,000 at once. What is refused, reset or late is "
        "no goodput; a wrong answer is an error of the run."
    )
    unit = "% of capacity"
    factors: ClassVar[dict[str, float]] = {"1 x": 1.0, "4 x": 4.0}
    points = tuple(factors)
    quick_points = ("4 x",)
    seconds = 3  # a second is soon over when the queue is longer than that
    beside_s = seconds + 2 * TIMEOUT_S + 2.5
    most_rounds = 1
    at_once = 4000
    closed = Shape(connections=256, close=True)

    def unfit(self, contestant: Contestant, point: str) -> str:
        """By the connections that it can hold."""
        return too_many(contestant, self.at_once)

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """A closed loop, then the open one."""
        generator = UstackLoad(bench.work, bench.client_core)
        capacity = generator.run(contestant, self.closed, bench.seconds)
        if wrong := no_capacity(capacity):
            return Outcome(None, capacity, errors={f"capacity: {kind}": n for kind, n in wrong.items()})
        rate = capacity.requests_per_second * self.factors[point]
        shape = Shape(connections=self.at_once, close=True)
        more = ("--rate", f"{rate:.0f}", "--poisson", "--timeout", f"{TIMEOUT_S:g}s")
        seconds = max(self.seconds, bench.seconds)
        command = generator.words(contestant, shape, seconds, *more)
        found = generator.ask(command, seconds + TIMEOUT_S)
        load = generator.load_of(found)
        errors = unexpected({kind: count for kind, count in load.errors.items() if kind != "no response"})
        details = {
            "capacity_per_second": round(capacity.requests_per_second),
            "asked_per_second": round(rate),
            "outcomes": {**found["errors"], "good": found["good"]},
            "client_idle": found.get("client_idle"),
        }
        share = 100 * load.requests_per_second / capacity.requests_per_second
        return Outcome(share, load, shlex.join(command), errors, details)


class Modems(Experiment):
    """Many slow readers of a large file."""

    name = "modems"
    order = 9
    title = "Slow readers at 28.8 kbit/s each: total rate in percent of what they can take"
    asks = (
        "Kegel's second test: many clients on modems download large files. Is each served at its rate, with how "
        "much memory?"
    )
    unit = "% of the readers' rate"
    readers: ClassVar[dict[str, int]] = {"1,000 readers": 1000, "10,000 readers": 10_000}
    points = tuple(readers)
    rate_bps = 28_800
    step_bytes = 0  # as `ustack load` has it
    seconds: float = 5
    ramp_s = 5
    beside_s = seconds + ramp_s + SILENCE_S + 3.0
    most_rounds = 1
    files = ("/1m.bin",)

    def unfit(self, contestant: Contestant, point: str) -> str:
        """By the connections that it can hold."""
        return too_many(contestant, self.readers[point])

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """Nobody is through within the run: what counts is the bytes that came, and that nobody failed."""
        generator, readers = UstackLoad(bench.work, bench.client_core), self.readers[point]
        shape = Shape("/1m.bin", 1 << 20, readers)
        step = ("--read-step", str(self.step_bytes)) if self.step_bytes else ()
        more = ("--read-rate", "28.8k", *step, "--ramp", f"{self.ramp_s}s", "--timeout", f"{SILENCE_S:g}s")
        command = generator.words(contestant, shape, self.seconds, *more)
        before, slabs, began = memory_bytes(contestant.pids()), slab_bytes(), time.monotonic()
        with watched(contestant.pids) as most:
            found = generator.ask(command, self.seconds + self.ramp_s + SILENCE_S)
        if not found["seconds"]:
            raise LoadError("no time was measured")
        share = 100 * found["received_bytes"] * 8 / found["seconds"] / (readers * self.rate_bps)
        details: dict[str, Any] = {
            "most_open": found.get("most_open"),
            "readers": found.get("readers"),
            "client_idle": found.get("client_idle"),
            "process_bytes_of_reader": round((most.process - before) / readers),
            "kernel_bytes_of_reader": round((most.kernel - slabs) / readers),
            "wall_s": round(time.monotonic() - began, 1),
        }
        errors = dict(found["errors"])
        if found.get("most_open", readers) < readers:
            errors[f"only {found['most_open']} of {readers} were connected"] = 1
        load = Load(0, found["seconds"], found["received_bytes"])
        return Outcome(share, load, shlex.join(command), errors, details)


class ModemsMany(Modems):
    """Ten times as many, who read 16 kB every 4.4 s from a buffer of twice that: a window that opens by a segment every
    0.4 s costs a frame each way for the segment, one for its ACK, and a probe with its answer in between (a closed
    window is probed after 200 ms), 1.2 million frames per second for 100,000 readers. In whole segments: what is less
    than one goes 200 ms later, by itself (RFC 9293 section 3.8.6.2.1)."""

    name = "modems-many"
    order = 14
    only_if_named = True
    readers: ClassVar[dict[str, int]] = {"100,000 readers": 100_000}
    points = tuple(readers)
    step_bytes = 11 * SEGMENT_BYTES
    seconds = 5 * step_bytes / (Modems.rate_bps / 8)  # of whole steps, so that each reader has five, whenever it began
    ramp_s = 20
    beside_s = seconds + ramp_s + SILENCE_S + 8.0


class KeepAliveOpen(Experiment):
    """Latency where requests come when they come."""

    name = "keepalive-open"
    order = 13
    title = "Open loop, keep-alive: 99th percentile of the time since a request was due, in µs"
    asks = (
        "How long does a request take, from when it was due, when so many per second come by Poisson's schedule on 256 "
        "connections, whatever the server does? Of who cannot do as many, it is how long the queue has become."
    )
    unit = "µs"
    lower_is_better = True
    rates: ClassVar[dict[str, int]] = {"20,000/s": 20_000, "50,000/s": 50_000}
    points = tuple(rates)
    quick_points = ("20,000/s",)
    alone = True  # who wakes on the servers' core, once per second, is in the longest of many waits
    connections = 256
    seconds = 2
    beside_s = seconds + 2.0
    most_rounds = 5

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """What was not answered in time is in the percentiles with what it has waited, and no error of the run."""
        generator = UstackLoad(bench.work, bench.client_core)
        shape = Shape(connections=self.connections)
        more = ("--rate", str(self.rates[point]), "--poisson", "--timeout", f"{TIMEOUT_S:g}s")
        seconds = max(self.seconds, bench.seconds)
        command = generator.words(contestant, shape, seconds, *more)
        found = generator.ask(command, seconds + TIMEOUT_S)
        load = generator.load_of(found)
        details = {
            "asked_per_second": self.rates[point],
            "good_per_second": round(load.requests_per_second),
            "outcomes": {**found["errors"], "good": found["good"]},
            "client_idle": found.get("client_idle"),
            "p99.9_us": found["latency_us"].get("p99.9"),
            "p99.99_us": found["latency_us"].get("p99.99"),
        }
        return Outcome(load.p99_us, load, shlex.join(command), unexpected(load.errors), details)


EXPERIMENTS = [Overload(), Modems(), ModemsMany(), KeepAliveOpen()]
