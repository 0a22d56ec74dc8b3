# SPDX-License-Identifier: MIT
"""What a request head costs that was not seen before: parsed, decided, prepared and forgotten, in memory, on one core.

Counted: everything between a complete head and its decision (HttpServer.decide), which is the part of the server that
is Python; with it the system calls of the cases that look for a file. Not counted: TCP, sending. Every head differs
from all before it. The cases alternate from run to run; medians with the smallest and the largest of all runs.

    python -m ustack.tools.bench_heads --runs 9
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from ustack.server.http import HttpServer

BROWSER = (
    "Host: www.example.com\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n"
    "Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\n\r\n"
)
# What the heads are, and the status that each of them must get.
CASES: dict[str, tuple[Callable[[int], str], int]] = {
    "404, another path each time": (lambda n: f"GET /missing/{n} HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "404, a browser's fields": (lambda n: f"GET /missing/{n} HTTP/1.1\r\n{BROWSER}", 404),
    "404, another field each time": (lambda n: f"GET /missing HTTP/1.1\r\nHost: h\r\nX: {n}\r\n\r\n", 404),
    "a known file, another query": (lambda n: f"GET /known.html?{n} HTTP/1.1\r\nHost: h\r\n\r\n", 200),
    "a range of it": (lambda n: f"GET /known.html?{n} HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9\r\n\r\n", 206),
    "405": (lambda n: f"PUT /{n} HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    "400": (lambda n: f"GET /{n} HTTP/1.1\r\nHost: ..\r\n\r\n", 400),
    "501": (lambda n: f"BREW /{n} HTTP/1.1\r\nHost: h\r\n\r\n", 501),
}


def measure(server: HttpServer, case: str, first: int, heads: int) -> float:
    """Microseconds of processor time for each of `heads` heads, numbered from `first`."""
    make, status = CASES[case]
    made = [make(number).encode("ascii") for number in range(first, first + heads)]
    start = time.process_time_ns()
    for head in made:
        found = server.decide(head)
        if found != status:
            raise RuntimeError(f"{head!r} got {found}, not {status}")
    return (time.process_time_ns() - start) / heads / 1000


@click.command(help="Measure what a request head costs that was not seen before.")
@click.option("--runs", default=7, show_default=True, type=click.IntRange(1, 1000), help="At least 5 to be quoted.")
@click.option("--heads", default=5000, show_default=True, type=click.IntRange(1, 10**6), help="In one run of a case.")
def main(*, runs: int, heads: int) -> None:
    """Run and print."""
    found: dict[str, list[float]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="ustack-bench-") as name:
        (Path(name) / "known.html").write_bytes(b"x" * 512)
        with HttpServer(name) as server:
            for run in range(runs):
                for case in CASES:
                    found[case].append(measure(server, case, run * heads, heads))
    table = Table(title=f"µs for one unseen head, {runs} runs of {heads}")
    for column in ("head", "median", "least", "most"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for case, costs in found.items():
        table.add_row(case, f"{median(costs):.2f}", f"{min(costs):.2f}", f"{max(costs):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
