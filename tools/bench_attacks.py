# SPDX-License-Identifier: MIT
"""One honest client beside one hostile one: how much of its request rate it keeps.

Needs root, two cores, wrk, curl and nginx. For each server a pair of namespaces of its own, as in `bench_quick`. The
honest client is wrk with one connection; the hostile one (`attacks`) sends at a fixed rate from the same end of the
same link and the same core. Each round measures the client alone and then beside each attack, server by server; a
figure is the median of the ratios within the rounds.

Sending takes time from the client, and keeps a server that polls from going to sleep, so that it answers sooner. The
row `harmless`, as many frames that every stack throws away at once, shows both; an attack is judged by what it takes
beyond that.

    python -m ustack.tools.bench_attacks --rounds 5 --only islands,junk
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from ustack.tools.attacks import ATTACKS, nobody_beside
from ustack.tools.benchmark import choose, started, two_cores
from ustack.tools.generators import WRK_REPORT, CpuTimes, CpuUse, LoadError, inside, run_wrk
from ustack.tools.servers import SERVERS, WITH_US, Server

ALONE = "alone"
HARMLESS = "harmless"
KEPT_AT_LEAST = 0.8
ATTACKER_EXTRA_S = 30.0


@dataclass(frozen=True)
class Run:
    """One attack on one server in one round. A run with an error is shown and never counted."""

    round: int
    server: str
    attack: str
    requests_per_second: float
    p99_us: float
    hostile_per_second: float
    steal: float
    error: str = ""


def kept(runs: list[Run], server: str, attack: str, beside: str = ALONE) -> list[float]:
    """The honest client's rate under an attack, as a share of its rate alone (or beside another), round by round."""
    rates = {(r.round, r.attack): r.requests_per_second for r in runs if r.server == server and not r.error}
    rounds = sorted({r.round for r in runs})
    return [
        rates[n, attack] / rates[n, beside] for n in rounds if (n, attack) in rates and rates.get((n, beside), 0.0) > 0
    ]


def begin_attack(server: Server, attack: str, *, core: int, rate: int, seconds: float) -> subprocess.Popen[str]:
    """Start the hostile client and wait until its connections are open. Raises LoadError with what it said."""
    command = [
        *WITH_US, *inside(server.client_netns, core), sys.executable, "-m", "ustack.tools.attacks", attack,
        "--ifname", server.client_ifname(), "--target", server.host, "--source", nobody_beside(server.host),
        "--rate", str(rate), "--seconds", str(seconds),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != "ready\n":
        said = process.stderr.read().strip()
        process.kill()
        process.communicate()
        raise LoadError(f"attacks: {said or 'ended without a word'}")
    return process


@contextmanager
def attacked(server: Server, attack: str, *, core: int, rate: int, seconds: float) -> Iterator[dict[str, float]]:
    """The hostile client at work; what it reports is in the dictionary when the block has ended."""
    report: dict[str, float] = {"frames_per_second": 0.0}
    if attack == ALONE:
        yield report
        return
    hostile = begin_attack(server, attack, core=core, rate=rate, seconds=seconds)
    try:
        yield report
        said, complaint = hostile.communicate(timeout=ATTACKER_EXTRA_S)
        if hostile.returncode != 0:
            raise LoadError(f"attacks: exit {hostile.returncode}: {complaint.strip()[-300:]}")
        report.update(json.loads(said))
    finally:
        hostile.kill()
        hostile.communicate()


def measure(server: Server, attack: str, number: int, *, core: int, rate: int, seconds: int, script: Path) -> Run:
    """The honest client's rate while the attack goes on."""
    try:
        with attacked(server, attack, core=core, rate=rate, seconds=seconds + 0.5) as report:
            before = CpuTimes.now()
            url = server.url + "/512.bin"
            load = run_wrk(server.client_netns, url, connections=1, seconds=seconds, core=core, script=script)
            use = CpuUse.between(before, CpuTimes.now())
    except (LoadError, subprocess.TimeoutExpired) as failure:
        return Run(number, server.name, attack, 0.0, 0.0, 0.0, 0.0, server.how_it_is() or str(failure))
    error = ", ".join(f"{count} x {kind}" for kind, count in load.errors.items())
    hostile = report["frames_per_second"]
    return Run(number, server.name, attack, load.requests_per_second, load.p99_us, hostile, use.steal, error)


def table_of(runs: list[Run], servers: list[str], attacks: list[str]) -> Table:
    """One line for each attack; each server's median, spread and share."""
    table = Table(title="an honest client's requests per second beside a hostile one", title_justify="left")
    table.add_column("attack")
    table.add_column("hostile frames/s", justify="right")
    for server in servers:
        table.add_column(server, justify="right")
        table.add_column("kept (min - max)", justify="right")
        table.add_column("of harmless", justify="right")
    for attack in attacks:
        good = [r for r in runs if r.attack == attack and not r.error]
        cells = [f"{median(r.hostile_per_second for r in good):,.0f}" if good else "-"]
        for server in servers:
            rates = [r.requests_per_second for r in good if r.server == server]
            shares = kept(runs, server, attack)
            bad = [r.error for r in runs if r.attack == attack and r.server == server and r.error]
            cells.append(f"{median(rates):,.0f}" if rates else bad[0] if bad else "-")
            cells.append(f"{median(shares):.2f} ({min(shares):.2f} - {max(shares):.2f})" if shares else "-")
            beside = kept(runs, server, attack, HARMLESS)
            cells.append(f"{median(beside):.2f}" if beside and attack != ALONE else "-")
        table.add_row(attack, *cells)
    return table


def run_rounds(
    servers: list[Server], attacks: list[str], rounds: int, say: Callable[[str], None], **how: object
) -> list[Run]:
    """Every round: for each server the client alone, then beside each attack."""
    runs = []
    for number in range(1, rounds + 1):
        for server in servers:
            for attack in attacks:
                say(f"round {number}/{rounds}  {server.name}  {attack}")
                runs.append(measure(server, attack, number, **how))  # type: ignore[arg-type]
    return runs


@click.command(help="One honest client beside one hostile one, on ustack and on the kernel's stack.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000), help="At least 5 to be quoted.")
@click.option("--duration", default=3, show_default=True, type=click.IntRange(1, 60), help="Seconds of a measurement.")
@click.option("--rate", default=10_000, show_default=True, type=click.IntRange(1, 200_000), help="Hostile frames/s.")
@click.option("--only", default=",".join(ATTACKS), show_default=True, help="Attacks.")
@click.option("--servers", "names", default="ustack,nginx", show_default=True, help="Servers to compare.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every run here.")
def main(*, rounds: int, duration: int, rate: int, only: str, names: str, json_file: Path | None) -> None:
    """Run, print, exit 0; exit 2 with one line when it cannot be run."""
    attacks = choose(only, list(ATTACKS), "attack")
    attacks = [ALONE, *attacks]
    chosen = choose(names, list(SERVERS), "server")
    client_core, server_core = two_cores("bench_attacks")
    progress = Console(stderr=True)
    with started("bench_attacks", chosen, server_core) as (work, servers):
        script = work / "report.lua"
        script.write_text(WRK_REPORT)
        runs = run_rounds(
            servers, attacks, rounds, lambda line: progress.print(line, highlight=False),
            core=client_core, rate=rate, seconds=duration, script=script,
        )  # fmt: skip
    console = Console()
    console.print(table_of(runs, chosen, attacks))
    for attack in attacks[1:]:
        shares = kept(runs, "ustack", attack, HARMLESS if HARMLESS in attacks else ALONE)
        if shares:
            verdict = "met" if median(shares) >= KEPT_AT_LEAST else "missed"
            console.print(f"{attack}: at least {KEPT_AT_LEAST:.0%} kept: {verdict}", highlight=False)
    if json_file is not None:
        json_file.write_text("".join(json.dumps(asdict(run)) + "\n" for run in runs), encoding="utf-8")


if __name__ == "__main__":
    main()
