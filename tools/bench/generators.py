# SPDX-License-Identifier: MIT
"""Who asks: the load generator of the experiments, behind one face, so that another can take its place.

A generator is given a server and a `Shape` and returns a Load; what it says is checked here against what must have
come: a server that promises a length and sends another, or none, is found out by the bytes that arrived.

It must not: know an experiment. Above: experiments. Below: tools.generators.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ustack.tools.generators import WRK_PATHS, WRK_REPORT, Load, LoadError, inside, parse_wrk, run
from ustack.tools.servers import WITH_US, Server, ustack_command

HEAD_MOST_BYTES = 2048  # of a response
SEED = 1  # of `ustack load`: everybody is asked at the same moments, and timestamps go on from run to run
PORTS = 28_000  # of each source address; a few are left
FIRST_SOURCE, SOURCES_MOST = 100, 150
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


class UstackLoad:
    """`ustack load` on the client's interface, with an address beside the kernel's, whose stack has no part in it.

    It checks lengths and hashes itself, by the site's files where a server serves those. Latency in an open loop
    counts from when a request was due.
    """

    name = "ustack load"

    def __init__(self, work: Path, core: int) -> None:
        """work: not used."""
        self.core = core

    def command(self, server: Server, shape: Shape, seconds: int) -> list[str]:
        """In a closed loop. Raises LoadError for what it cannot do."""
        if shape.paths or shape.depth > 1:
            raise LoadError("ustack load neither pipelines nor makes paths")
        return self.words(server, shape, seconds)

    def words(self, server: Server, shape: Shape, seconds: float, *more: str) -> list[str]:
        """Any options beside the shape's."""
        words = [*WITH_US, "taskset", "-c", str(self.core), *ustack_command(), "load", server.url + shape.path]
        words += ["--link", f"dev:{server.client_ifname()}", "--netns", server.client_netns]
        words += ["--address", f"{beside(server.host)}/24", "-c", str(shape.connections), "-d", f"{seconds:g}s"]
        if sources := sources_of(server.host, shape.connections):
            words += ["--sources", sources]
        words += ["--seed", str(SEED), *(["--files", str(server.site)] if server.reads_files else [])]
        return [*words, "--json", *(["--close"] if shape.close else []), *more]

    def run(self, server: Server, shape: Shape, seconds: int) -> Load:
        """One run."""
        return self.load_of(self.ask(self.command(server, shape, seconds), seconds))

    def ask(self, command: list[str], seconds: float) -> dict[str, Any]:
        """Its JSON. Raises LoadError with what it said; that no good response came is no reason to."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + WAIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LoadError(f"ustack load: {error}") from error
        try:
            found = json.loads(done.stdout)
        except ValueError:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise LoadError(f"ustack load: exit {done.returncode}: {said}") from None
        assert isinstance(found, dict)
        return found

    def load_of(self, found: dict[str, Any]) -> Load:
        """As the other generator says it."""
        latency = found["latency_us"]
        errors = dict(found["errors"])
        if not found["good"]:
            errors["no response"] = 1
        return Load(
            found["good_in_time"],
            found["seconds"],
            found["received_bytes"],
            latency.get("p50", 0.0),
            latency.get("p99", 0.0),
            latency.get("max", 0.0),
            errors,
        )


GENERATORS: dict[str, Callable[[Path, int], Generator]] = {"wrk": Wrk, "ustack": UstackLoad}


def beside(address: str) -> str:
    """An address of the same network that nobody has: the labs use the first ones."""
    return f"{address.rpartition('.')[0]}.77"


def sources_of(address: str, connections: int) -> str:
    """As many addresses beside the client's own as so many connections to one port want; "" if its own is enough."""
    count = -(-connections // PORTS)
    if count == 1:
        return ""
    if count > SOURCES_MOST:
        raise LoadError(f"{connections} connections want {count} addresses, of {SOURCES_MOST}")
    network = address.rpartition(".")[0]
    return f"{network}.{FIRST_SOURCE}-{network}.{FIRST_SOURCE + count - 1}"


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
    command = ""
    try:
        command = shlex.join(generator.command(server, shape, seconds))
        load = generator.run(server, shape, seconds)
    except LoadError as error:
        return Load(errors={str(error): 1}), command
    checks_itself = isinstance(generator, UstackLoad) and server.reads_files
    errors = {**load.errors, **(wrong_lengths(load, shape) if load.requests and not checks_itself else {})}
    return Load(load.requests, load.seconds, load.bytes, load.p50_us, load.p99_us, load.max_us, errors), command
