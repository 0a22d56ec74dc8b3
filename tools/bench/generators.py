# SPDX-License-Identifier: MIT
"""Who asks: the load generator of the experiments, behind one face, so that another can take its place.

A generator is given a server and a `Shape` and returns a Load; what it says is checked here against what must have
come: a server that promises a length and sends another, or none, is found out by the bytes that arrived.

It must not: know an experiment. Above: experiments. Below: tools.generators.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ustack.tools.generators import WRK_PATHS, WRK_REPORT, Load, LoadError, inside, parse_wrk, run
from ustack.tools.servers import Server

HEAD_MOST_BYTES = 2048  # of a response
WAIT_S = 30.0  # beyond the load's own time

# wrk makes its one request in init(); so many of them at once are one request of its own, and it counts the answers.
PIPELINED = """
function init(args)
    local one = wrk.format
    wrk.format = function(...) return string.rep(one(...), {depth}) end
end
"""


@dataclass(frozen=True)
class Shape:
    """A closed loop: so many connections, each with `depth` requests under way. close: a connection for each request.

    paths: a script of tools.generators that makes requests which differ, "" for `path` alone.
    """

    path: str = "/512.bin"
    body_bytes: int = 512
    connections: int = 64
    close: bool = False
    depth: int = 1
    paths: str = ""


class Generator(Protocol):
    """Makes a load from the client's namespace on the client's core."""

    name: str

    def command(self, server: Server, shape: Shape, seconds: int) -> list[str]:
        """What is run, for the record."""

    def run(self, server: Server, shape: Shape, seconds: int) -> Load:
        """Run it. Raises LoadError when it cannot be run at all."""


class Wrk:
    """wrk with one thread."""

    name = "wrk"

    def __init__(self, work: Path, core: int) -> None:
        """work: where its scripts are written."""
        self.work = work
        self.core = core

    def command(self, server: Server, shape: Shape, seconds: int) -> list[str]:
        """Its command line; writes the script if it is not there yet."""
        words = [*inside(server.client_netns, self.core), "wrk", "-t1", f"-c{shape.connections}", f"-d{seconds}s"]
        words += ["--latency", "-s", str(self.script(shape))]
        if shape.close:
            words += ["-H", "Connection: close"]
        return [*words, server.url + shape.path]

    def run(self, server: Server, shape: Shape, seconds: int) -> Load:
        """One run."""
        return parse_wrk(run(self.command(server, shape, seconds), timeout_s=seconds + WAIT_S))

    def script(self, shape: Shape) -> Path:
        """The Lua of a shape."""
        path = self.work / f"wrk-{shape.paths or 'one'}-{shape.depth}.lua"
        if not path.exists():
            text = WRK_PATHS[shape.paths] if shape.paths else WRK_REPORT
            path.write_text((PIPELINED.format(depth=shape.depth) if shape.depth > 1 else "") + text, encoding="ascii")
        return path


def wrong_lengths(load: Load, shape: Shape) -> dict[str, int]:
    """An error if so many responses cannot have been so many bytes: too few for the bodies, or too many for all that
    can have been under way at the end."""
    least = load.requests * shape.body_bytes
    started = load.requests + shape.connections * shape.depth
    most = started * (shape.body_bytes + HEAD_MOST_BYTES)
    if least <= load.bytes <= most:
        return {}
    each = load.bytes / load.requests if load.requests else 0.0
    return {f"length: {each:.0f} bytes per response, of which {shape.body_bytes} should be the body": 1}


def ask(generator: Generator, server: Server, shape: Shape, seconds: int) -> tuple[Load, str]:
    """A checked load, and its command. Errors are in the Load."""
    command = shlex.join(generator.command(server, shape, seconds))
    try:
        load = generator.run(server, shape, seconds)
    except LoadError as error:
        return Load(errors={str(error): 1}), command
    errors = {**load.errors, **(wrong_lengths(load, shape) if load.requests else {})}
    return Load(load.requests, load.seconds, load.bytes, load.p50_us, load.p99_us, load.max_us, errors), command
