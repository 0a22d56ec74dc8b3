# SPDX-License-Identifier: MIT
"""What one small request costs in the stack and the server, in memory, on one core.

Counted: engine_poll, that is Ethernet, IP and TCP input, the HTTP server's upcall, output, building the response's
frame, for one keep-alive request of what wrk sends and a file of 512 bytes. Not counted: the clients (no stack, see
canned_clients), any system call or device, a page that a ring would have had to fetch from further away. So this is the
part of a request's cost that is ours to change; the rest is in bench_quick's figures.

The cases alternate from run to run; what the readings of the clock cost, measured with no poll between them, is taken
off; medians of at least 5. For a figure that a busy machine cannot disturb, count instructions and divide by the
requests (and the 128 that open the connections and warm up); callgrind_annotate tells which functions they are in:

    valgrind --tool=callgrind --toggle-collect='*engine_poll' --callgrind-out-file=/tmp/request.callgrind \\
        python -m ustack.tools.bench_request --requests 20000 --runs 1 --case burst
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from ustack.blocking.stack import Stack
from ustack.server.http import HttpServer
from ustack.tools.canned_clients import CannedClients

ADDRESS = "198.18.0.2"
GATEWAY = "198.18.0.1"
FILE_BYTES = 512
CLOCK_READINGS = 1000
REQUEST = f"GET /512.bin HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n".encode()


@dataclass(frozen=True)
class Case:
    """One way to ask. offload False: both sides compute checksums in software. traced: all connections are."""

    name: str
    title: str
    connections: int
    offload: bool = True
    traced: bool = False


CASES = (
    Case("burst", "64 connections, bursts of 64 requests", 64),
    Case("single", "1 connection, one request a poll", 1),
    Case("checksums", "64 connections, checksums in software", 64, offload=False),
    Case("many", "20,000 connections in turn", 20_000),
)
# Only by name: a million connections take 1.2 GB and some seconds to open. Memory is what they cost: compare them with
# a hundred in the same run. Traced ones are for comparing with the burst.
CASES_BY_NAME = (
    Case("hundred", "100 connections in turn", 100),
    Case("million", "1,000,000 connections in turn", 1_000_000),
    Case("traced", "64 connections, bursts of 64 requests, all traced", 64, traced=True),
)


@dataclass(frozen=True)
class Cost:
    """ns for one request over all runs of a case, readings of the clock taken off."""

    case: str
    connections: int
    ns_per_request: float
    least_ns: float
    most_ns: float
    clock_ns_per_request: float
    runs: int
    requests: int


class Bench:
    """One stack with one server and its clients, ready to be measured again and again. close() when done."""

    def __init__(self, case: Case, site: Path) -> None:
        """Open the connections and have every client ask once: heads are remembered, neighbours known, caches warm."""
        self.case = case
        self.results: list[tuple[float, float]] = []
        self.stack = ExitStack()
        try:
            self.link = self.stack.enter_context(CannedClients(case.connections, REQUEST, offload=case.offload))
            server = self.stack.enter_context(HttpServer(site))
            self.engine = self.stack.enter_context(
                Stack(
                    self.link,
                    f"{ADDRESS}/24",
                    GATEWAY,
                    seed=1,
                    now_ns=self.link.now_ns,
                    max_connections=max(65536, 2 * case.connections),
                )
            )
            self.trace = self.engine.trace(connections=case.connections) if case.traced else None
            self.engine.listen(80, application=server, backlog=max(128, case.connections))
            self.link.exchange(self.engine, 2 * case.connections)
            if not FILE_BYTES < self.link.response_bytes < 2 * FILE_BYTES:
                raise RuntimeError(f"a response of {self.link.response_bytes} bytes is not the file's")
        except BaseException:
            self.stack.close()
            raise

    def run(self, requests: int) -> None:
        """One run: ns per request, and how much of it the clock's readings were."""
        before = self.link.responses
        spent_ns, polls = self.link.exchange(self.engine, requests)
        # The least of several: what the machine does to others in between is not the clock's cost.
        clock_ns = polls * min(self.link.clock_ns(CLOCK_READINGS) for _ in range(20)) / CLOCK_READINGS
        answered = self.link.responses - before
        self.results.append(((spent_ns - clock_ns) / answered, clock_ns / answered))

    def cost(self, requests: int) -> Cost:
        """Median and spread of the runs so far."""
        found = [ns for ns, _ in self.results]
        return Cost(
            self.case.name,
            self.case.connections,
            median(found),
            min(found),
            max(found),
            median(clock for _, clock in self.results),
            len(found),
            requests,
        )

    def close(self) -> None:
        """Give everything back, server after stack."""
        self.stack.close()


def measure(cases: Sequence[Case] = CASES, *, runs: int = 7, requests: int = 200_000) -> list[Cost]:
    """Every case `runs` times, in turn."""
    with ExitStack() as stack:
        site = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ustack-bench-")))
        (site / "512.bin").write_bytes(bytes(range(256)) * (FILE_BYTES // 256))
        benches = []
        for case in cases:
            bench = Bench(case, site)
            stack.callback(bench.close)
            benches.append(bench)
        for _ in range(runs):
            for bench in benches:
                bench.run(requests)
        return [bench.cost(requests) for bench in benches]


def measure_cost(*, requests: int = 200_000) -> dict[str, float | int]:
    """The first case alone, for bench_quick."""
    cost = measure(CASES[:1], requests=requests)[0]
    return {
        "ns_per_request": cost.ns_per_request,
        "least_ns": cost.least_ns,
        "most_ns": cost.most_ns,
        "runs": cost.runs,
    }


def show(console: Console, costs: Sequence[Cost]) -> None:
    """One line a case."""
    table = Table(
        title=f"ns for one small request in stack and server, {costs[0].runs} alternating runs of "
        f"{costs[0].requests:,} requests",
        title_justify="left",
    )
    table.add_column("case")
    for heading in ("median", "min - max", "requests/s", "clock, taken off"):
        table.add_column(heading, justify="right")
    titles = {case.name: case.title for case in (*CASES, *CASES_BY_NAME)}
    for cost in costs:
        table.add_row(
            titles[cost.case],
            f"{cost.ns_per_request:.0f}",
            f"{cost.least_ns:.0f} - {cost.most_ns:.0f}",
            f"{1e9 / cost.ns_per_request:,.0f}",
            f"{cost.clock_ns_per_request:.1f}",
        )
    console.print(table)


@click.command(help="Cost of one small request through the stack and the HTTP server, in memory.")
@click.option("--runs", default=7, show_default=True, type=click.IntRange(1, 1000), help="At least 5 to be quoted.")
@click.option("--requests", default=200_000, show_default=True, type=click.IntRange(1, 100_000_000), help="In a run.")
@click.option(
    "--case",
    "names",
    multiple=True,
    type=click.Choice([case.name for case in (*CASES, *CASES_BY_NAME)]),
    help="[default: all but hundred, million and traced]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(*, runs: int, requests: int, names: tuple[str, ...], as_json: bool) -> None:
    """Measure on one core and print."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    wanted = [case for case in (*CASES, *CASES_BY_NAME) if case.name in names] if names else CASES
    costs = measure(wanted, runs=runs, requests=requests)
    if as_json:
        click.echo(json.dumps([asdict(cost) for cost in costs], indent=1))
    else:
        show(Console(width=None if sys.stdout.isatty() else 120), costs)


if __name__ == "__main__":
    main()
