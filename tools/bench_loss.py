# SPDX-License-Identifier: MIT
"""The stack against the kernel's over paths with delay, loss, reordering and queues: `ustack wire` between both ends.

The client is the kernel in one namespace; in another the server is ustack, or the kernel's TCP under a bare epoll
server, with the same congestion control on both. Runs alternate; the two of one round have one seed, and so meet the
same fates packet by packet as far as they send the same. A run that fails says why, and counts for neither.

    python -m ustack.tools.bench_loss --quick                      # some cells, within some minutes
    python -m ustack.tools.bench_loss --only bulk --rate 1000 --cc cubic --json figures.jsonl
    python -m ustack.tools.bench_loss --cell "reorder, 66 ms, 1%"   # one cell; --list names them all

Needs root and two cores: the server has one, client and wire share the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.table import Table

from ustack.lab import LabError
from ustack.tools import report
from ustack.tools.benchmark import choose, two_cores
from ustack.tools.compare import Measurement, Summary
from ustack.tools.generators import CpuTimes, CpuUse, LoadError
from ustack.tools.loss_cells import (
    BODIES,
    KINDS,
    LONG,
    SHORT,
    SHORT_BYTES,
    Cell,
    Row,
    cells,
    longest_s,
    percentile,
    rows,
)
from ustack.tools.loss_client import download, responses
from ustack.tools.wired import CONTESTANTS, KERNEL, contestants

WAYS = ("forward", "backward")
OWN_LOSSES = ("ring_dropped", "no_room", "too_long")  # of a wire that came too late: no path that was asked for
SETTLE_S = 0.05  # beyond a round trip: the client's last RST arrives before the wire goes


@dataclass
class Bench:
    """The servers that run, and what has been measured on them."""

    servers: list[Any]
    chosen: list[Cell]
    rounds: int
    seconds: float
    rate_mbit: int
    products: float
    core: int
    console: Console
    out: IO[str] | None = None
    measurements: list[Measurement] = field(default_factory=list)

    def run(self) -> None:
        """Every round of every cell; servers take turns, and who begins changes from round to round."""
        for round_number in range(1, self.rounds + 1):
            for cell in self.chosen:
                for server in self.servers if round_number % 2 else reversed(self.servers):
                    self.console.print(
                        f"round {round_number}/{self.rounds}  {cell.kind}  {cell.name}  {server.name}", highlight=False
                    )
                    self.record(cell, server, round_number)

    def record(self, cell: Cell, server: Any, round_number: int) -> None:
        """One run, its values and its line of JSON."""
        before, figures = CpuTimes.now(), dict[str, Any]()
        values, errors, more = self.measure(cell, server, round_number, figures)
        if lost := sum(figures[way][name] for way in WAYS for name in OWN_LOSSES if figures):
            errors["packets that the wire lost by itself"] = lost
        use = CpuUse.between(before, CpuTimes.now())
        for column, value in zip(cell.columns, values or [0.0] * len(cell.columns), strict=True):
            self.measurements.append(
                Measurement(
                    round=round_number,
                    column=f"{cell.kind}: {column}",
                    server=server.name,
                    value=value,
                    p99_us=0.0,
                    errors=errors,
                    busy=use.busy,
                    steal=use.steal,
                    cpu_us_per_request=0.0,
                )
            )
        line = {"round": round_number, "server": server.name, **asdict(cell), "errors": errors}
        line |= {"values": dict(zip(cell.columns, values, strict=True)) if values else {}, "busy": use.busy}
        self.write({**line, "steal": use.steal, **more, "wire": figures})

    def measure(
        self, cell: Cell, server: Any, seed: int, figures: dict[str, Any]
    ) -> tuple[list[float], dict[str, int], dict[str, Any]]:
        """Values in the order of the cell's columns (none if it failed), why it failed, and what else was seen."""
        try:
            with server.pair_of_wire.wire(cell.settings(self.rate_mbit, self.products, seed), self.core, figures):
                try:
                    if cell.is_short:
                        return self.short(cell, server)
                    return self.bulk(server)
                finally:
                    time.sleep(cell.rtt_ms / 1e3 + SETTLE_S)
        except (LoadError, OSError) as error:
            return [], {server.how_it_is() or str(error): 1}, {}

    def bulk(self, server: Any) -> tuple[list[float], dict[str, int], dict[str, Any]]:
        """One long download."""
        found = download(server.client_netns, server.address, LONG, self.seconds)
        errors = {server.how_it_is() or found.failure: 1} if found.failure else {}
        values = [] if errors else [found.megabits_per_second]
        return values, errors, {"bytes": found.bytes, "seconds": found.seconds, "bytes_each_100_ms": found.series}

    def short(self, cell: Cell, server: Any) -> tuple[list[float], dict[str, int], dict[str, Any]]:
        """Many short ones."""
        found = responses(
            server.client_netns,
            server.address,
            SHORT,
            SHORT_BYTES,
            at_once=cell.at_once,
            seconds=self.seconds,
            load=(KERNEL, LONG) if cell.loaded else None,
        )
        errors = dict(found.failures)
        if not errors and not found.times_ms:
            errors["no response"] = 1
        values = [] if errors else [percentile(found.times_ms, 50), percentile(found.times_ms, 99)]
        return values, errors, {"responses": len(found.times_ms), "load_bytes": found.load_bytes}

    def write(self, line: dict[str, Any]) -> None:
        """One line of JSON, if somebody wants it."""
        if self.out is not None:
            self.out.write(json.dumps(line) + "\n")
            self.out.flush()


@click.command(help="Compare ustack with the kernel's TCP over a wire with delay, loss, reordering and queues.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000), help="At least 5 to be quoted.")
@click.option("--duration", default=4.0, show_default=True, type=click.FloatRange(1, 600), help="Seconds of a run.")
@click.option("--rate", default=100, show_default=True, type=click.IntRange(1, 10000), help="Of the wire, in Mb/s.")
@click.option("--queue", "products", default=1.0, show_default=True, type=click.FloatRange(0.1, 100), help="In BDPs.")
@click.option("--only", default=",".join(KINDS), show_default=True, help="Kinds of cells.")
@click.option("--cell", "named", multiple=True, help="Only cells that --list shows so, or beginning so. Repeatable.")
@click.option("--list", "listing", is_flag=True, help="Name the cells, run nothing.")
@click.option("--servers", "names", default=",".join(CONTESTANTS), show_default=True, help="Servers to compare.")
@click.option("--cc", default="cubic", show_default=True, help="The congestion control of both.")
@click.option("--quick", is_flag=True, help="Some cells, three rounds.")
@click.option(
    "--json", "json_file", metavar="FILE", help="Write a line of JSON for each run there; -: standard output."
)
def main(
    *,
    rounds: int,
    duration: float,
    rate: int,
    products: float,
    only: str,
    named: tuple[str, ...],
    listing: bool,
    names: str,
    cc: str,
    quick: bool,
    json_file: str | None,
) -> None:
    """Run, print, exit 0; exit 2 with one line when it cannot be run."""
    chosen = cells(choose(only, list(KINDS), "kind"), quick=quick, named=named)
    if not chosen:
        raise click.BadParameter(f"{', '.join(named)}: no cell is called that", param_hint="--cell")
    if listing:
        for cell in chosen:
            click.echo(f"{cell.kind}, {cell.name}")
        return
    contesting = choose(names, list(CONTESTANTS), "server")
    client_core, server_core = two_cores("bench_loss")
    if quick:
        rounds = min(rounds, 3)
    os.sched_setaffinity(0, {client_core})
    with ExitStack() as stack:
        out = stack.enter_context(_lines(json_file))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ustack-bench-")))
        work.chmod(0o755)  # the server is nobody by the time that it looks into it
        try:
            servers = stack.enter_context(contestants(contesting, BODIES, cc, work, server_core))
        except (LoadError, LabError) as error:
            click.echo(f"bench_loss: {error}", err=True)
            sys.exit(2)
        bench = Bench(servers, chosen, rounds, duration, rate, products, client_core, Console(stderr=True), out)
        settings = {"rate_mbit": rate, "queue_bdp": products, "cc": cc, "rounds": rounds, "seconds": duration}
        runs = rounds * len(chosen) * len(servers)
        at_most_min = longest_s(chosen, rounds, len(servers), duration) / 60
        bench.console.print(f"{runs} runs, {at_most_min:.0f} minutes at most", highlight=False)
        bench.write({"settings": settings, "machine": report.machine()})
        bench.run()
        made = rows(chosen, bench.measurements, contesting)
        for row in made:
            bench.write({"summary": asdict(row)})
    width = None if sys.stdout.isatty() else 150
    show(Console(width=width, stderr=json_file == "-"), made, contesting, settings)


@contextlib.contextmanager
def _lines(json_file: str | None) -> Iterator[IO[str] | None]:
    if json_file is None or json_file == "-":
        yield sys.stdout if json_file else None
        return
    with Path(json_file).open("w", encoding="utf-8") as out:
        yield out


def show(console: Console, made: Sequence[Row], names: Sequence[str], settings: dict[str, Any]) -> None:
    """A table for people; below it why runs were not counted."""
    title = (
        f"{settings['rate_mbit']} Mb/s, a queue of {settings['queue_bdp']:g} BDP, {settings['cc']}; medians (least - "
        f"most) of {settings['rounds']} alternating rounds of {settings['seconds']:g} s; ratios by rounds"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("kind", "path"):
        table.add_column(heading)
    for heading in (*names, "ratio", "wanted", "bad runs"):
        table.add_column(heading, justify="right")
    before = ""
    for row in made:
        if before and row.cell.kind != before:
            table.add_section()
        bad = " ".join(str(found.erroneous_runs) for found in row.found)
        wanted = ("<= 1" if row.cell.is_short else ">= 1") + {True: " met", False: " missed", None: ""}[row.met]
        cells_of = [spread(found) for found in row.found]
        table.add_row(
            row.cell.kind if row.cell.kind != before else "",
            row.column,
            *cells_of,
            report.ratio(row.ratio),
            wanted if len(names) == 2 else "",
            bad if bad.strip("0 ") else "-",
        )
        before = row.cell.kind
    console.print(table)
    said = set()
    for row in made:
        for found in row.found:
            for kind, count in found.errors.items():
                line = f"not counted: {found.server}, {row.cell.kind}, {row.cell.name}: {count} x {kind}"
                if line not in said:
                    console.print(line, highlight=False, markup=False)
                said.add(line)


def spread(found: Summary) -> str:
    """The median with least and most; a dash where no run was good."""
    if found.median is None or found.least is None or found.most is None:
        return "-"
    digits = 0 if found.median >= 100 else 1 if found.median >= 10 else 2
    return f"{found.median:.{digits}f} ({found.least:.{digits}f} - {found.most:.{digits}f})"


if __name__ == "__main__":
    main()
