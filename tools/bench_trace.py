# SPDX-License-Identifier: MIT
"""What a trace that is written while it serves costs a keep-alive load. Needs root, two cores and wrk.

Two servers of this stack, each with namespaces and a link of its own; one of them traces every connection (`--trace`).
wrk asks one after the other, from the other core: A B A B. The ratio is of the two runs of a round. What it costs when
nobody is traced, and in instructions, is bench_request's to say.

    python -m ustack.tools.bench_trace --rounds 40
    python -m ustack.tools.bench_trace --rounds 9 --duration 5 --suffix .qlog
"""

from __future__ import annotations

import os
from pathlib import Path
from statistics import quantiles

import click
from rich.console import Console
from rich.table import Table

from ustack.obs.spool import contents
from ustack.tools.benchmark import started, two_cores
from ustack.tools.generators import WRK_REPORT, Load, run_wrk
from ustack.tools.servers import Ustack

PATH = "/512.bin"
COLUMNS = ("median", "lower quartile", "upper quartile", "least", "most")
TRACED_MOST = 1 << 20  # connections: all


class Plain(Ustack):
    """Nobody is traced."""

    name = "plain"

    def prepare(self) -> None:
        """Each has its own namespaces."""
        super().prepare()
        self.netns, self.client_netns = (f"bench-{self.name}-{os.getpid()}-{end}" for end in "sc")


class Traced(Plain):
    """Every connection is."""

    name = "traced"
    suffix = ".parquet"

    @property
    def file(self) -> Path:
        """Of the trace."""
        return self.work / f"trace{self.suffix}"

    def command(self) -> list[str]:
        """With a trace."""
        return [*super().command(), "--trace", str(self.file), "--trace-connections", str(TRACED_MOST)]


def spread(values: list[float], digits: int) -> list[str]:
    """As COLUMNS has it."""
    middle = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return [f"{value:,.{digits}f}" for value in (middle[1], middle[0], middle[2], min(values), max(values))]


def report(found: dict[str, list[Load]], recorded: int, missed: int) -> None:
    """Print what the rounds came to."""
    table = Table(title=f"{len(found['plain'])} rounds of {found['plain'][0].seconds:.1f} s")
    table.add_column()
    for column in COLUMNS:
        table.add_column(column, justify="right")
    rates = {name: [load.requests_per_second for load in loads] for name, loads in found.items()}
    for name, values in rates.items():
        table.add_row(f"{name}, requests/s", *spread(values, 0))
    ratios = [traced / plain for traced, plain in zip(rates["traced"], rates["plain"], strict=True)]
    table.add_row("traced / plain", *spread(ratios, 3))
    console = Console()
    console.print(table)
    console.print(f"{recorded:,} records were written, {missed:,} are missing", highlight=False)
    errors = {name: [load.errors for load in loads if load.errors] for name, loads in found.items()}
    if any(errors.values()):
        console.print(f"errors: {errors}")


@click.command(help="Measure what a trace costs that is written while it serves.")
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(1, 1000), help="At least 7 to be quoted.")
@click.option("--duration", default=1, show_default=True, type=click.IntRange(1, 600), help="Seconds of a run.")
@click.option("--connections", default=64, show_default=True, type=click.IntRange(1, 10000))
@click.option("--suffix", default=".parquet", show_default=True, type=click.Choice([".parquet", ".qlog"]))
def main(*, rounds: int, duration: int, connections: int, suffix: str) -> None:
    """Run and print."""
    Traced.suffix = suffix
    client_core, server_core = two_cores("bench_trace")
    found: dict[str, list[Load]] = {"plain": [], "traced": []}
    with started("bench_trace", [Plain, Traced], server_core) as (work, servers):
        script = work / "report.lua"
        script.write_text(WRK_REPORT)
        for _ in range(rounds):
            for server in servers:
                load = run_wrk(
                    server.client_netns,
                    server.url + PATH,
                    connections=connections,
                    seconds=duration,
                    core=client_core,
                    script=script,
                )
                found[server.name].append(load)
        assert isinstance(servers[1], Traced)
        with servers[1].file.with_name(servers[1].file.name + ".part").open("rb") as part:
            written = contents(part)
    report(found, written.records, written.missed)


if __name__ == "__main__":
    main()
