# SPDX-License-Identifier: MIT
"""Experiments in a closed loop: so many connections, each of which asks again when it is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome, too_many
from ustack.tools.bench.generators import GENERATORS, Shape, ask
from ustack.tools.bench.offloads import without_offloads
from ustack.tools.bench.site import FILES
from ustack.tools.generators import Load
from ustack.tools.servers import make_distinct

OWN_CLIENT_S = 2.0  # to start `ustack load`, and to end it
FILLED_LEAST = 0.3  # of the run by requests as long as their median: less is a run that stood still


def requests_per_second(load: Load) -> float:
    """Completed responses."""
    return load.requests_per_second


def gigabits_per_second(load: Load) -> float:
    """Bytes of HTTP received, heads included."""
    return load.gigabits_per_second


def p50_us(load: Load) -> float:
    """Half of the responses came sooner."""
    return load.p50_us


def stalled(load: Load) -> dict[str, int]:
    """Of one connection: an error if its requests, each as long as the median, take far less than the run. The median
    says nothing about the rest of the time."""
    spent = load.requests * load.p50_us / (load.seconds * 1e6) if load.seconds else 0.0
    return {f"requests as long as the median fill {spent:.0%} of the run": 1} if spent < FILLED_LEAST else {}


class ClosedLoop(Experiment):
    """A shape for each point, and what of the load is the value."""

    unit = "requests/s"
    shapes: ClassVar[dict[str, Shape]]
    value: Callable[[Load], float] = staticmethod(requests_per_second)
    by = ""  # whose load it is, by its name in GENERATORS: "": the bench's

    def unfit(self, contestant: Contestant, point: str) -> str:
        """By the connections it can hold, and the files it can read."""
        shape = self.shapes[point]
        if why := too_many(contestant, shape.connections):
            return why
        if shape.paths and not contestant.reads_files:
            return "reads no files by name"
        return ""

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """One run of the load generator."""
        shape = self.shapes[point]
        generator = GENERATORS[self.by](bench.work, bench.client_core) if self.by else bench.generator
        load, command = ask(generator, contestant, shape, bench.seconds)
        return Outcome(type(self).value(load), load, command, dict(load.errors))


def at(connections: int, **more: object) -> Shape:
    """512 bytes on so many connections."""
    return Shape(connections=connections, **more)  # type: ignore[arg-type]


class KeepAlive(ClosedLoop):
    """The same file again and again."""

    name = "keepalive"
    order = 1
    title = "Keep-alive: requests per second, 512 bytes"
    asks = "How many small responses per second, when connections stay open?"
    everybody = True
    shapes: ClassVar[dict[str, Shape]] = {f"{n:,} connections": at(n) for n in (16, 64, 1000)}
    points = tuple(shapes)
    quick_points = ("64 connections",)


class Files512(ClosedLoop):
    """A connection for each request."""

    name = "files512"
    order = 2
    title = "A connection for each 512-byte file: files per second"
    asks = (
        "Kegel's first test, “simple, interesting, and hard”: how many 512-byte files per second, "
        "each over a connection of its own?"
    )
    everybody = True
    unit = "files/s"
    shapes: ClassVar[dict[str, Shape]] = {f"{n:,} at once": at(n, close=True) for n in (64, 1000)}
    points = tuple(shapes)
    quick_points = ("64 at once",)


class OwnClient(ClosedLoop):
    """Asked by `ustack load` instead of wrk."""

    everybody = False
    by = "ustack"
    beside_s = OWN_CLIENT_S
    most_rounds = 5


class KeepAliveLoad(OwnClient, KeepAlive):
    """With a client that has no stack of the kernel's, and as many connections as Kegel's page asks for."""

    name = "keepalive-load"
    order = 10
    title = "Keep-alive, asked by ustack load: requests per second, 512 bytes"
    asks = "How many small responses per second, to a client that costs the kernel nothing? To 10,000 connections."
    shapes: ClassVar[dict[str, Shape]] = {f"{n:,} connections": at(n) for n in (64, 1000, 10_000)}
    points = tuple(shapes)
    quick_points = ("64 connections",)


class Files512Load(OwnClient, Files512):
    """The same of Kegel's first test."""

    name = "files512-load"
    order = 11
    title = "A connection for each 512-byte file, asked by ustack load: files per second"
    asks = "How many connections can be opened, used once and closed, by a client that costs the kernel nothing?"
    shapes: ClassVar[dict[str, Shape]] = {f"{n:,} at once": at(n, close=True) for n in (64, 1000, 10_000)}
    points = tuple(shapes)
    quick_points = ("64 at once",)


class Bulk(ClosedLoop):
    """Bodies that take more than a segment."""

    name = "bulk"
    order = 3
    title = "Bulk: Gb/s by the size of the body"
    asks = "How much data, when bodies are large? Offloads are on, 8 connections (16 with 16 KiB)."
    unit = "Gb/s"
    value = staticmethod(gigabits_per_second)
    shapes: ClassVar[dict[str, Shape]] = {
        "16 KiB": Shape("/16k.bin", FILES["/16k.bin"], 16),
        "64 KiB": Shape("/64k.bin", FILES["/64k.bin"], 8),
        "1 MiB": Shape("/1m.bin", FILES["/1m.bin"], 8),
        "100 MB": Shape("/100m.bin", FILES["/100m.bin"], 1),
    }
    points = tuple(shapes)
    quick_points = ("1 MiB",)
    checks = ("/1m.bin",)
    files = tuple(shape.path for shape in shapes.values())


class BulkPlain(Bulk):
    """Segments of 1,460 bytes, all the way."""

    name = "bulk-plain"
    order = 12
    title = "Bulk without offloads: Gb/s by the size of the body"
    asks = (
        "How much data, when both ends of the link have no offload: no segmentation, no GRO, no checksums of the "
        "device's? The kernel cuts super-frames before the device then, its own stack's and ours alike."
    )
    points = ("64 KiB", "1 MiB")
    quick_points = ("1 MiB",)
    files = tuple(Bulk.shapes[point].path for point in points)
    beside_s = 0.4
    most_rounds = 5

    def unfit(self, contestant: Contestant, point: str) -> str:
        """On TAP nobody cuts what comes from a program."""
        if getattr(contestant, "link", "") == "tap":
            return "a TAP device hands on whole super-frames of a program, whatever its offloads are"
        return super().unfit(contestant, point)

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """With the offloads off meanwhile, at both ends."""
        with without_offloads(contestant.client_netns, contestant.server_netns) as found:
            outcome = super().measure(bench, contestant, point)
        return replace(outcome, details={**outcome.details, "offloads": found})


class Pipelining(ClosedLoop):
    """Sixteen requests in one write."""

    name = "pipelining"
    order = 4
    title = "Pipelining: requests per second, 16 at a time on 64 connections"
    asks = "What does a request cost when the network is asked once for many?"
    shapes: ClassVar[dict[str, Shape]] = {"depth 16": at(64, depth=16)}
    points = tuple(shapes)


class Latency1(ClosedLoop):
    """One connection, one request under way."""

    name = "latency1"
    order = 5
    title = "Latency of one connection: median in µs"
    asks = "How long does a small request take when nothing else is under way?"
    unit = "µs"
    lower_is_better = True
    value = staticmethod(p50_us)
    shapes: ClassVar[dict[str, Shape]] = {"1 connection": at(1)}
    points = tuple(shapes)

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """With an error for a run that stood still for most of its time."""
        outcome = super().measure(bench, contestant, point)
        return replace(outcome, errors={**outcome.errors, **stalled(outcome.load)})


class BigDir(ClosedLoop):
    """More files than anybody keeps open."""

    name = "bigdir"
    order = 6
    title = "100,000 files in turn: requests per second, 64 connections"
    asks = "What does it cost to find a file, when each request asks for another?"
    shapes: ClassVar[dict[str, Shape]] = {"100,000 files": at(64, path="/", paths="distinct")}
    points = tuple(shapes)

    def prepare(self, bench: Bench) -> None:
        """Write them, 100 folders of 1,000."""
        make_distinct(bench.site)


EXPERIMENTS = [
    KeepAlive(),
    Files512(),
    Bulk(),
    Pipelining(),
    Latency1(),
    BigDir(),
    KeepAliveLoad(),
    Files512Load(),
    BulkPlain(),
]
