# SPDX-License-Identifier: MIT
"""`ustack bench`: run it, show what files of it say, set two of them side by side.

    standard output   the table; with --quick as well
    standard error    a progress bar with the time that is left (lines where it is no terminal); one line if
                      something is wrong
    files             runs.jsonl and report.html in --out
    exit status       0; 2 if it could not be run; 130 after Ctrl-C, with table and report of what there is. A
                      contestant that fails is no failure of the bench

Above: cli. Below: runner, tables, report, compare.
"""

from __future__ import annotations

import datetime
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ustack import __version__
from ustack.tools.bench import contestants, experiments, machine, records, site, tables
from ustack.tools.bench.contestants.base import CONGESTION_CONTROL, Contestant, congestion_control_allowed
from ustack.tools.bench.experiments.base import Bench, Experiment
from ustack.tools.bench.generators import GENERATORS
from ustack.tools.bench.runner import Runner
from ustack.tools.benchmark import CLIENT_SETTINGS, choose, two_cores

MINUTES = 27.0  # for the rounds; starting everybody, and the report, take some more
REFERENCE = "nginx"
DESCRIPTORS = 1 << 20
MOST_ROUNDS = 1000
INTERRUPTED = 130  # as shells say that SIGINT ended something


class Commands(click.Group):
    """A group whose first word may be left out: then it is `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put it in."""
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Compare stacks and servers on this machine."""


@bench.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--contestants", "wanted", metavar="NAME,...", help="Who takes part, everywhere.  [default: see --list]")
@click.option("--rounds", type=click.IntRange(1, 1000), help="[default: as many as fit into --minutes]")
@click.option("--minutes", default=MINUTES, show_default=True, type=click.FloatRange(0.1, 10000), help="For rounds.")
@click.option("--duration", default=1, show_default=True, type=click.IntRange(1, 600), help="Seconds of a measurement.")
@click.option("--quick", is_flag=True, help="One point of each experiment, two rounds.")
@click.option("--reference", default=REFERENCE, show_default=True, help="Whom the table's ratios are to.")
@click.option(
    "--load",
    "generator",
    default="wrk",
    show_default=True,
    type=click.Choice(list(GENERATORS)),
    help="Who asks in closed loops.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder.  [default: build/bench/TIME]")
@click.option("--list", "listing", is_flag=True, help="Name experiments and contestants, run nothing.")
def run(
    *,
    names: tuple[str, ...],
    wanted: str | None,
    rounds: int | None,
    minutes: float,
    duration: int,
    quick: bool,
    reference: str,
    generator: str,
    out: Path | None,
    listing: bool,
) -> int:
    """Compare stacks and servers on this machine, in alternating rounds, and write a report.

    EXPERIMENT: those alone; if none is named, all but the longest. `ustack bench report FILE.jsonl` shows one again,
    `ustack bench compare A.jsonl B.jsonl` sets two side by side, `ustack bench keep FILE.jsonl` keeps one in
    docs/results, with a plot and a table for the README. Needs root and two cores.
    """
    able, kinds = experiments.known(), contestants.known()
    usual_ones = [name for name, one in able.items() if not one.only_if_named]
    chosen = [able[name] for name in choose(",".join(names or usual_ones), list(able), "experiment")]
    contesting = choose(wanted or ",".join(usual(kinds, chosen)), list(kinds), "contestant")
    if listing:
        click.echo(list_of(able, kinds))
        return 0
    client_core, server_core = two_cores("ustack bench")
    folder = out or Path("build/bench") / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    if quick and rounds is None:
        rounds = 2
    raise_limit()
    status = 0
    with ExitStack() as stack:
        stack.enter_context(congestion_control_allowed())
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ustack-bench-")))
        work.chmod(0o755)  # servers become ordinary users before they look into it
        load = GENERATORS[generator](work, client_core)
        shared = Bench(work, work / "site", load, duration, client_core, server_core, quick=quick)
        file = stack.enter_context((folder / "runs.jsonl").open("w", encoding="utf-8"))
        writer = records.Writer(file)
        runner = Runner(shared, chosen, writer, explicit=wanted is not None)
        stack.callback(runner.stop)
        writer.write("bench", **facts(shared, rounds, minutes, reference))
        try:
            measure(runner, contesting, kinds, rounds, minutes)
        except KeyboardInterrupt:
            status = INTERRUPTED
            click.echo("ustack bench: ended early; this is what there is", err=True)
        finally:
            runner.say = complain  # the bar is gone
    show(writer.results, folder, reference)
    return status


def complain(line: str, _seconds: float = 0.0) -> None:
    """On standard error."""
    click.echo(f"ustack bench: {line}", err=True)


def usual(kinds: dict[str, type[Contestant]], chosen: Sequence[Experiment]) -> list[str]:
    """Who takes part when nobody is named: who has something to do in these experiments."""
    special = {name for experiment in chosen for name in experiment.only or ()}
    others = any(experiment.only is None for experiment in chosen)
    everybody = any(experiment.everybody for experiment in chosen)
    return [
        name
        for name, kind in kinds.items()
        if name in special or (not kind.special and others and kind.unasked and (everybody or kind.main))
    ]


def raise_limit() -> None:
    """As many descriptors as may be had, for servers as well, which inherit it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for wanted in (max(most, DESCRIPTORS), most):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return


def facts(shared: Bench, rounds: int | None, minutes: float, reference: str) -> dict[str, Any]:
    """The first record."""
    return {
        "format": 1,
        "ustack": __version__,
        "began": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["ustack", *sys.argv[1:]]),
        "machine": machine.describe(),
        "pinning": machine.pinning(shared.client_core, shared.server_core),
        "client_core": shared.client_core,
        "server_core": shared.server_core,
        "congestion_control": CONGESTION_CONTROL,
        "client_settings": CLIENT_SETTINGS,
        "generator": shared.generator.name,
        "seconds": shared.seconds,
        "rounds_wanted": rounds,
        "minutes": minutes,
        "quick": shared.quick,
        "reference": reference,
    }


def measure(
    runner: Runner, names: Sequence[str], kinds: dict[str, type[Contestant]], rounds: int | None, minutes: float
) -> None:
    """Make the site, start everybody, run the rounds."""
    shared, console = runner.bench, Console(stderr=True)
    shared.hashes = site.make(shared.site)
    for experiment in runner.experiments:
        experiment.prepare(shared)
        runner.writer.write("experiment", **experiment.describe())
    os.sched_setaffinity(0, {shared.client_core})
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def say(line: str, seconds: float) -> None:
            progress.update(task, description=line, advance=say.pending)  # type: ignore[attr-defined]
            say.pending = seconds  # type: ignore[attr-defined]
            if not console.is_terminal:
                console.print(line, highlight=False)

        say.pending = 0.0  # type: ignore[attr-defined]
        runner.say = say
        runner.start(names, kinds)
        began = time.monotonic()
        if rounds is None:
            runner.until_s = began + minutes * 60
        for number in range(1, (rounds or MOST_ROUNDS) + 1):
            spent_s = time.monotonic() - began
            # One more than fit: it goes as far as there is time.
            last = rounds or last_round(runner, number, spent_s, minutes * 60) + (spent_s < minutes * 60)
            if number > last:
                break
            progress.update(task, total=sum(map(runner.planned_s, range(1, last + 1))))
            runner.run_round(number)


def last_round(runner: Runner, number: int, spent_s: float, limit_s: float) -> int:
    """The last whole one that fits, before round `number`: by the plan, and how much longer it took so far. The first
    is run in any case."""
    planned_s = sum(map(runner.planned_s, range(1, number)))
    slower = spent_s / planned_s if planned_s else 1.0
    last = number - 1
    while last < MOST_ROUNDS:
        more_s = runner.planned_s(last + 1) * slower
        if last > 0 and (not more_s or spent_s + more_s > limit_s):
            break
        spent_s += more_s
        last += 1
    return last


def show(results: records.Results, folder: Path | None, reference: str) -> None:
    """Table and report of what was written down."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    tables.show(console, results, reference)
    if folder is None:
        return
    from ustack.tools.bench import html

    try:
        path = html.write(results, folder / "report.html")
        console.print(f"{folder / 'runs.jsonl'}\n{path}", highlight=False, soft_wrap=True)
    except html.NoLibraries as error:
        click.echo(f"ustack bench: no report.html: {error}", err=True)


def list_of(able: dict[str, Experiment], kinds: dict[str, type[Contestant]]) -> str:
    """Experiments and contestants, a line each."""
    lines = ["experiments:"]
    for experiment in able.values():
        who = "all" if experiment.everybody else ", ".join(experiment.only or ()) or "main contestants"
        named = "; only if named" if experiment.only_if_named else ""
        lines.append(f"  {experiment.name:<16} {experiment.title} ({who}{named})")
    lines.append("contestants (*: main):")
    for name, kind in kinds.items():
        missing = kind(Path(), Path(), 0).missing()
        mark = "*" if kind.main else " "
        lines.append(f"  {name:<20} {mark} {kind.title or name}{': ' + missing if missing else ''}")
    return "\n".join(lines)


def read(path: Path) -> records.Results:
    """A file, or a refusal in one line."""
    try:
        return records.read(path)
    except (records.RecordsError, OSError) as error:
        raise click.ClickException(str(error)) from None


@bench.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--reference", help="Whom the table's ratios are to.  [default: as it was]")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there.")
def report(file: Path, reference: str | None, page: Path | None) -> int:
    """Show the runs of FILE again: a table, and with --html the report."""
    results = read(file)
    tables.show(
        Console(width=None if sys.stdout.isatty() else 160),
        results,
        reference or str(results.bench.get("reference", REFERENCE)),
    )
    if page is not None:
        from ustack.tools.bench import html

        try:
            html.write(results, page)
        except html.NoLibraries as error:
            raise click.ClickException(str(error)) from None
    return 0


@bench.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--name", default="", metavar="NAME", help="Of the kept file, without .jsonl.  [default: machine and day]"
)
@click.option("--note", default="", help="What a reader must know before the figures.")
@click.option(
    "--results",
    "folder",
    default="docs/results",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it is kept.",
)
@click.option(
    "--readme",
    default="README.md",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Which is to show it; '' for none.",
)
def keep(*, file: Path, name: str, note: str, folder: Path, readme: Path) -> int:
    """Keep the runs of FILE in docs/results, with the main plot and table, and have the README show both."""
    from ustack.tools.bench import html
    from ustack.tools.bench import keep as keeping

    try:
        written = keeping.keep(file, folder, None if readme == Path() else readme, name, note)
    except (records.RecordsError, html.NoLibraries, keeping.NoPlace, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    for path in written:
        click.echo(str(path))
    return 0


@bench.command()
@click.argument("one", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("other", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(one: Path, other: Path) -> int:
    """Set two benches side by side: two machines, or two versions."""
    from ustack.tools.bench.compare import table

    console = Console(width=None if sys.stdout.isatty() else 160)
    for made in table(read(one), read(other), str(one), str(other)):
        console.print(made, highlight=False)
    return 0
