# SPDX-License-Identifier: MIT
"""`ustack sim`: scenarios in virtual time, from a file of TOML: run, swept, drawn.

    standard output   a table of flows and of links, or of a sweep's points; with --json one JSON object for each run
    standard error    one line if something is wrong; on a terminal, a progress bar
    --out DIR         outcome.json, series/*.csv, pcapng, qlog, drawings, report.html; of a sweep outcomes.jsonl;
                      what is not whole, or not yet, has .part in its name
    exit status       0; 1 if a run failed; 2 if it could not start or write; 130, 143 if Ctrl-C or SIGTERM has ended it

It needs no privilege and touches no network. A scenario that names a control in Python runs that file.
Above: cli. Below: sim.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ustack.cli.live import silence_stdout
from ustack.cli.tables import print_rows
from ustack.lab import LabError

if TYPE_CHECKING:
    from ustack.sim.document import Document
    from ustack.sim.running import Outcome
    from ustack.sim.scenario import Scenario
    from ustack.sim.sweep import Given
    from ustack.sim.tables import Summary

FILE = click.Path(path_type=Path, dir_okay=False)
SLICES = 100  # of a run, between which the bar moves
RUNS_MOST = 10_000_000


@contextmanager
def _refusals() -> Iterator[None]:
    """What a scenario cannot be, or what is not installed, as one line."""
    try:
        from ustack.sim.document import ScenarioError
        from ustack.sim.plots import NoLibraries
    except ImportError as error:
        if error.name != "tomli":
            raise
        raise LabError("ustack sim needs the package tomli before Python 3.11: pip install 'ustack[sim]'") from None
    try:
        yield
    except (ScenarioError, NoLibraries) as error:
        raise LabError(str(error)) from None


@click.group("sim", short_help="Simulate networks of stacks in virtual time.")
def sim() -> None:
    """Simulate networks of stacks in virtual time: links, queues, losses, flows, as a file of TOML tells."""


@sim.command("check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
def check(files: tuple[Path, ...]) -> int:
    """Read scenario files, and say what is wrong with each of them.

    A control that a file names in Python is loaded, which runs that file.
    """
    with _refusals():
        from ustack.sim.document import ScenarioError
        from ustack.sim.reading import read

    status = 0
    for file in files:
        try:
            made = read(file)
        except (ScenarioError, OSError) as error:
            words = f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)
            click.echo(f"ustack: {words}", err=True)
            status = 2
            continue
        click.echo(
            f"{file}: {len(made.hosts)} hosts, {len(made.routers)} routers, {len(made.links)} links,"
            f" {len(made.flows)} flows, {made.duration_ns / 1e9:g} s"
        )
    return status


@sim.command("run")
@click.argument("file", metavar="FILE", type=FILE)
@click.option(
    "--seeds", type=click.IntRange(1, RUNS_MOST), default=1, show_default=True, help="So many, from the file's."
)
@click.option(
    "--set",
    "words",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="In place of the file's: links.a-b.loss=0.01. Several values, a range (10..100/10 ms) or a star"
    " (flows.*.cc=cubic,bbr): every combination. Again for each key.",
)
@click.option("--jobs", "-j", type=click.IntRange(1, 1024), help="Processes of a sweep.  [default: one per core]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where results go.")
@click.option("--plot", is_flag=True, help="Draw it as PNG, SVG and one page of HTML.  [default DIR: NAME.out]")
@click.option("--pcap", multiple=True, metavar="LINK", help="Record a link, or one way of it (a->b), in DIR.")
@click.option(
    "--trace", multiple=True, metavar="HOST", help="Trace its connections into DIR/HOST.qlog (docs/trace.md)."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each run, in place of the table.")
def run(
    *,
    file: Path,
    seeds: int,
    words: tuple[str, ...],
    jobs: int | None,
    out: Path | None,
    plot: bool,
    pcap: tuple[str, ...],
    trace: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run the scenario of FILE; with several seeds or values, a sweep of them all."""
    with _refusals():
        from ustack.sim import html
        from ustack.sim.document import Document
        from ustack.sim.sweep import count, given, points

        document = Document.load(file)
        sets = [given(word) for word in words]
        number = count(sets, seeds)
        if number > RUNS_MOST:
            raise LabError(f"{number:,} runs: at most {RUNS_MOST:,}")
        first = next(points(document, sets))
        if plot:
            html.check_libraries()
        folder = out or (Path(f"{first.name}.out") if plot or pcap or trace else None)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with _signals():
                if number == 1:
                    return _run_one(first, folder, plot, pcap, trace, as_json)
                if pcap or trace:
                    raise LabError(f"{'--pcap' if pcap else '--trace'} is about one run, not a sweep")
                return _run_many(document, sets, seeds, number, jobs, first, folder, plot, as_json)
        except BrokenPipeError:
            silence_stdout()
            return 1


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does: with the terminal as it was, and no worker left."""
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt  # which goes through a control in Python unharmed

    ends = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {each: signal.getsignal(each) for each in ends}
    try:
        for each, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(each, end)
        yield
    except KeyboardInterrupt:
        if received:
            raise SystemExit(128 + received[0]) from None
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """The name of a file while it is written."""
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    yield part
    part.replace(path)


def _put(path: Path, data: bytes | str) -> None:
    try:
        with _whole(path) as part:
            part.write_bytes(data if isinstance(data, bytes) else data.encode())
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


# ---------------------------------------------------------------- one


def _run_one(
    scenario: Scenario,
    folder: Path | None,
    plot: bool,
    pcap: tuple[str, ...],
    trace: tuple[str, ...],
    as_json: bool,
) -> int:
    from ustack.sim import tables
    from ustack.sim.running import run as run_scenario

    captures, traces = _captures(scenario, pcap, folder), _traces(scenario, trace, folder)
    with _bar(scenario.name, SLICES) as advance, ExitStack() as files:
        try:
            outcome = run_scenario(
                scenario,
                series=folder is not None,
                captures={name: files.enter_context(_whole(path)) for name, path in captures.items()},
                traces={name: files.enter_context(_whole(path)) for name, path in traces.items()},
                slices=SLICES,
                progress=advance,
            )
        except (ValueError, RuntimeError) as error:
            raise LabError(f"{scenario.name}: {error}") from None
        except OSError as error:
            error.filename = error.filename or str(folder)
            raise
    if folder is not None:
        _write(scenario, outcome, folder, plot)
    if as_json:
        print(json.dumps(outcome.as_json()), flush=True)
    else:
        print_rows(tables.FLOW_COLUMNS, tables.flow_rows(outcome), sparse=True)
        print_rows(tables.HOP_COLUMNS, tables.hop_rows(outcome), sparse=True)
    return 0


def _captures(scenario: Scenario, pcap: tuple[str, ...], folder: Path | None) -> dict[str, Path]:
    """Of hops: by a link's name both of its ways, by `a->b` one."""
    by_name = {link.name: (f"{link.a}->{link.b}", f"{link.b}->{link.a}") for link in scenario.links}
    ways = {way for pair in by_name.values() for way in pair}
    found = {}
    for word in pcap:
        if word not in by_name and word not in ways:
            from ustack.sim.values import nearest

            raise LabError(
                f"--pcap {word}: no link is called so{nearest(word, by_name)}: {', '.join(list(by_name)[:8])}"
            )
        for way in by_name.get(word, (word,)):
            assert folder is not None
            found[way] = folder / f"{way.replace('->', '-to-')}.pcapng"
    return found


def _traces(scenario: Scenario, names: tuple[str, ...], folder: Path | None) -> dict[str, Path]:
    from ustack.sim.values import nearest

    hosts = [host.name for host in scenario.hosts]
    found = {}
    for name in names:
        if name not in hosts:
            raise LabError(f"--trace {name}: no host is called so{nearest(name, hosts)}: {', '.join(hosts[:8])}")
        assert folder is not None
        found[name] = folder / f"{name}.qlog"
    return found


def _write(scenario: Scenario, outcome: Outcome, folder: Path, plot: bool) -> None:
    told = {"scenario": scenario.as_json(), "outcome": outcome.as_json()}
    _put(folder / "outcome.json", json.dumps(told, indent=1) + "\n")
    series = outcome.series
    assert series is not None
    (folder / "series").mkdir(exist_ok=True)
    for kind in ("flows", "hops"):
        for name, columns in series[kind].items():
            path = folder / "series" / f"{kind[:-1]}-{name.replace('->', '-to-')}.csv"
            text = io.StringIO(newline="")
            writer = csv.writer(text)
            writer.writerow(("time_ns", *columns))
            writer.writerows(zip(series["times_ns"], *columns.values(), strict=True))
            _put(path, text.getvalue())
    if plot:
        from ustack.sim import html, plots

        for name, data in plots.drawn(outcome):
            _put(folder / name, data)
        _put(folder / "report.html", html.page_of(scenario, outcome))
    click.echo(f"{folder}/", err=True)


# ---------------------------------------------------------------- many


def _run_many(
    document: Document,
    sets: list[Given],
    seeds: int,
    number: int,
    jobs: int | None,
    first: Scenario,
    folder: Path | None,
    plot: bool,
    as_json: bool,
) -> int:
    from ustack.sim.sweep import points, sweep
    from ustack.sim.tables import Summary

    summary = Summary()
    workers = min(jobs or len(os.sched_getaffinity(0)), number)
    # Workers begin as processes of their own: this one has threads, of the bar.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ustack.sim.running"])
    others = multiprocessing.active_children()
    executor = ProcessPoolExecutor(workers, context, initializer=_follow_parent)
    try:
        with ExitStack() as opened:
            stream = None
            if folder is not None:
                part = opened.enter_context(_whole(folder / "outcomes.jsonl"))
                stream = opened.enter_context(part.open("w", encoding="utf-8"))
            advance = opened.enter_context(_bar(first.name, number))
            for outcome in sweep(points(document, sets, seeds=seeds), executor):
                summary.add(outcome)
                line = json.dumps(outcome.as_json()) if stream is not None or as_json else ""
                if stream is not None:
                    stream.write(f"{line}\n")
                if as_json:
                    print(line)
                advance(1)
    except BaseException as error:
        for worker in multiprocessing.active_children():
            if worker not in others:
                worker.terminate()  # its run may take hours
        told = f"after {summary.outcomes:,} of {number:,} runs: {str(error) or type(error).__name__}"
        if isinstance(error, BrokenExecutor):
            raise LabError(f"a process of the sweep has ended by itself {told}") from None
        if isinstance(error, (RuntimeError, CancelledError)):  # such as no thread for an executor
            raise LabError(f"the sweep has ended {told}") from None
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    return _report(summary, first, folder, plot, as_json)


def _follow_parent() -> None:
    """A worker ends with its parent, or when that says so. Ctrl-C, which all of a terminal get, is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _report(summary: Summary, first: Scenario, folder: Path | None, plot: bool, as_json: bool) -> int:
    if not as_json:
        print_rows(summary.columns(), summary.rows())
    if folder is not None:
        if plot:
            from ustack.sim import html

            page = html.page_of_summary(first.name, first.about, summary)
            _put(folder / "report.html", page)
        click.echo(f"{folder}/", err=True)
    for words in summary.failed[:5]:
        click.echo(f"ustack: {' '.join(words.split())}", err=True)
    return 1 if summary.failed else 0


@contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """On a terminal, a bar; what is yielded moves it on."""
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: Iterable[Any] = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda steps: progress.advance(task, steps)
