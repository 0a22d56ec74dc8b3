# SPDX-License-Identifier: MIT
"""The stack against the kernel's, in a few minutes. Needs root, two cores, wrk, curl and nginx.

For each server two namespaces and a link of its own; wrk on one core, the server on the other, nothing else running.
The rounds alternate, A B C A B C, for each load. What a figure means and how figures are compared is told in
`compare`; how the servers are set up, in `servers`. Figures are of this machine in these minutes: quote them only
with the table's ratios.

    python -m ustack.tools.bench_quick --rounds 7 --only keepalive,connect --json figures.json
    python -m ustack.tools.bench_quick --servers nginx,epoll          # the references alone
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click
from rich.console import Console

from ustack.tools import report
from ustack.tools.bench_request import measure_cost
from ustack.tools.benchmark import choose, started, two_cores
from ustack.tools.compare import COLUMNS, SITE, Column, Measurement, judge, summarize
from ustack.tools.generators import WRK_PATHS, WRK_REPORT, CpuTimes, CpuUse, Load, LoadError, run_curl, run_wrk
from ustack.tools.servers import SERVERS, Server, Ustack

REFERENCES = ("nginx", "epoll")
LOADS = ", ".join(column.name for column in COLUMNS) + "."
DEFAULT_COLUMNS = "keepalive,connect,bodies,latency"


def measure(
    server: Server, column: Column, round_number: int, *, seconds: int, core: int, scripts: dict[str, Path]
) -> Measurement:
    """One run of one load against one server. A load generator that fails is a run with errors."""
    before = CpuTimes.now()
    try:
        if column.connections:
            load = run_wrk(
                server.client_netns,
                server.url + column.path,
                connections=column.connections,
                seconds=seconds,
                core=core,
                script=scripts[column.paths],
                close=column.close,
            )
        else:
            load = run_curl(server.client_netns, server.url + column.path, core=core, expected_bytes=SITE[column.path])
    except LoadError as error:
        load = Load(errors={server.how_it_is() or str(error): 1})
    use = CpuUse.between(before, CpuTimes.now())
    values = {"requests/s": load.requests_per_second, "Gb/s": load.gigabits_per_second, "µs": load.p50_us}
    cores = os.cpu_count() or 1
    return Measurement(
        round=round_number,
        column=column.name,
        server=server.name,
        value=values[column.unit],
        p99_us=load.p99_us,
        errors=load.errors,
        busy=use.busy,
        steal=use.steal,
        cpu_us_per_request=use.busy * cores * load.seconds * 1e6 / load.requests if load.requests else 0.0,
    )


@dataclass
class Bench:
    """The servers that run, and what has been measured on them."""

    servers: list[Server]
    columns: list[Column]
    rounds: int
    seconds: int
    core: int
    scripts: dict[str, Path]
    console: Console
    request_cost: dict[str, float | int] | None = None
    measurements: list[Measurement] = field(default_factory=list)
    idle_percents: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Every round of every load; servers take turns. ustack's use of its core is read while others are measured."""
        ustack = next((server for server in self.servers if isinstance(server, Ustack)), None)
        for round_number in range(1, self.rounds + 1):
            for column in self.columns:
                for server in self.servers:
                    if column.paths and not server.reads_files:
                        continue
                    progress = f"round {round_number}/{self.rounds}  {column.title}  {server.name}"
                    self.console.print(progress, highlight=False)
                    spent = ustack.cpu_seconds() if ustack else 0.0
                    self.measurements.append(
                        measure(
                            server, column, round_number, seconds=self.seconds, core=self.core, scripts=self.scripts
                        )
                    )
                    if ustack and server is not ustack and column.connections:
                        self.idle_percents.append((ustack.cpu_seconds() - spent) * 100 / self.seconds)


@click.command(help="Compare ustack with servers on the kernel's stack, alternating, on this machine.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000), help="At least 5 to be quoted.")
@click.option("--duration", default=3, show_default=True, type=click.IntRange(1, 600), help="Seconds of a measurement.")
@click.option("--only", default=DEFAULT_COLUMNS, show_default=True, help="Loads: " + LOADS)
@click.option("--servers", "names", default=",".join(SERVERS), show_default=True, help="Servers to compare.")
@click.option("--link", default="veth", show_default=True, type=click.Choice(["veth", "tap"]), help="Link of ustack.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all here as well.")
def main(*, rounds: int, duration: int, only: str, names: str, link: str, json_file: Path | None) -> None:
    """Run, print, exit 0; exit 2 with one line when it cannot be run."""
    columns = [c for c in COLUMNS if c.name in choose(only, [c.name for c in COLUMNS], "load")]
    chosen = choose(names, list(SERVERS), "server")
    client_core, server_core = two_cores("bench_quick")
    Ustack.link = link
    cost = measure_cost() if Ustack.name in chosen else None
    distinct = any(column.paths == "distinct" for column in columns)
    with started("bench_quick", chosen, server_core, distinct=distinct) as (work, servers):
        scripts = {}
        for paths, text in {"": WRK_REPORT, **WRK_PATHS}.items():
            scripts[paths] = work / f"report-{paths}.lua"
            scripts[paths].write_text(text)
        bench = Bench(servers, columns, rounds, duration, client_core, scripts, Console(stderr=True), cost)
        bench.run()
    finish(bench, link, json_file)


def finish(bench: Bench, link: str, json_file: Path | None) -> None:
    """Compare, print, write."""
    ours = next((server for server in bench.servers if isinstance(server, Ustack)), None)
    info = ours.info if ours else {}
    references = [name for name in REFERENCES if any(server.name == name for server in bench.servers)]
    summaries = [
        summarize(bench.measurements, column.name, server.name, references)
        for column in bench.columns
        for server in bench.servers
    ]
    targets = judge(bench.measurements, info) if ours else []
    found = report.as_json(
        settings={
            "rounds": bench.rounds,
            "seconds": bench.seconds,
            "link": link,
            "client_core": bench.core,
            "server_core": bench.servers[0].core,
        },
        versions={server.name: server.version for server in bench.servers},
        info=info,
        measurements=bench.measurements,
        summaries=summaries,
        targets=targets,
        ustack_idle_percent=median(bench.idle_percents) if bench.idle_percents else None,
        request_cost=bench.request_cost,
    )
    width = None if sys.stdout.isatty() else 180
    report.show(Console(width=width), found, summaries, targets, references)
    if json_file:
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
