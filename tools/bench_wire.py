# SPDX-License-Identifier: MIT
"""What `ustack wire` carries on one core, between two kernels. Needs root and two cores.

    small    UDP datagrams in frames of 60 bytes, as many as the kernel at one end sends; none is wanted at the other
    tcp      one download over 1 Gb/s and 1 ms, the kernel's TCP at both ends
    open     the same without a rate

    python -m ustack.tools.bench_wire --rounds 5

The wire's core does the receiving kernel's work as well: a veth pair runs it in the sender's system call. Busy is all
that the wire's process was charged with, on that core.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ustack.lab import LabError, inside
from ustack.tools.benchmark import choose, two_cores
from ustack.tools.generators import LoadError
from ustack.tools.loss_cells import BODIES, LONG
from ustack.tools.loss_client import download
from ustack.tools.wired import CLIENT, contestants

LOADS = {
    "small": ["--delay", "1ms"],
    "tcp": ["--rate", "1gbit", "--delay", "500us", "--queue", "1MB"],
    "open": ["--delay", "500us"],
}
SMALL_BYTES = 18  # of data: the shortest frame of Ethernet
BATCH = 64  # datagrams between two looks at the clock
SINK = 9


def send_small(netns: str, seconds: float, core: int) -> None:
    """Send datagrams to the client's end, as fast as the kernel takes them. In a process of its own."""
    os.sched_setaffinity(0, {core})
    with inside(netns):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.connect((CLIENT, SINK))
        until_s = time.monotonic() + seconds
        data = bytes(SMALL_BYTES)
        while time.monotonic() < until_s:
            for _ in range(BATCH):
                sender.send(data)


def measure(load: str, server: Any, seconds: float, cores: tuple[int, int]) -> dict[str, float]:
    """One run: packets per second in and out, goodput, busy, and what was lost on the way in."""
    figures: dict[str, Any] = {}
    pair = server.pair_of_wire
    goodput = 0.0
    with pair.wire(LOADS[load], cores[0], figures):
        began_s = time.monotonic()
        if load == "small":
            with inside(pair.client_netns):
                sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with sink:
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # full at once: what is behind the wire is free
                sink.bind((CLIENT, SINK))
                sender = multiprocessing.Process(target=send_small, args=(pair.server_netns, seconds, cores[1]))
                sender.start()
                sender.join()
        else:
            found = download(pair.client_netns, server.address, LONG, seconds)
            if found.failure:
                raise LoadError(found.failure)
            goodput = found.megabits_per_second
        took_s = time.monotonic() - began_s
    both = (figures["forward"], figures["backward"])
    return {
        "packets/s": sum(one["forwarded"] for one in both) / took_s,
        "Gb/s": sum(one["forwarded_bytes"] for one in both) * 8e-9 / took_s,
        "goodput Mb/s": goodput,
        "busy": figures["cpu_seconds"] / figures["seconds"],
        "not taken in/s": sum(one["ring_dropped"] for one in both) / took_s,
    }


@click.command(help="Measure what `ustack wire` carries on one core.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000))
@click.option("--duration", default=3.0, show_default=True, type=click.FloatRange(1, 600), help="Seconds of a run.")
@click.option("--only", default=",".join(LOADS), show_default=True, help="Loads.")
def main(*, rounds: int, duration: float, only: str) -> None:
    """Run, print, exit 0; exit 2 with one line when it cannot be run."""
    chosen = choose(only, list(LOADS), "load")
    cores = two_cores("bench_wire")
    os.sched_setaffinity(0, {cores[1]})
    found: dict[str, list[dict[str, float]]] = {load: [] for load in chosen}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ustack-bench-")))
        try:
            (server,) = stack.enter_context(contestants(["kernel"], BODIES, "cubic", work, cores[1]))
            for _ in range(rounds):
                for load in chosen:
                    found[load].append(measure(load, server, duration, cores))
        except (LoadError, LabError) as error:
            click.echo(f"bench_wire: {error}", err=True)
            sys.exit(2)
    table = Table(title=f"medians (least - most) of {rounds} rounds of {duration:g} s", title_justify="left")
    table.add_column("load")
    names = list(found[chosen[0]][0])
    for name in names:
        table.add_column(name, justify="right")
    for load, runs in found.items():
        table.add_row(load, *(cell(name, [run[name] for run in runs]) for name in names))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def cell(name: str, values: list[float]) -> str:
    """A median with its least and most value."""
    digits = 2 if name in ("Gb/s", "busy") else 0
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} - {max(values):,.{digits}f})"


if __name__ == "__main__":
    main()
