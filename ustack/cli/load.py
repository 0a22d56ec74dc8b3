# SPDX-License-Identifier: MIT
"""`ustack load`: ask a server, from a stack of its own on a link of its own, and say what it came to.

    standard output   a table, or with --json one JSON object
    standard error    one line if something is wrong; on a terminal, a live line
    the end           Ctrl-C or SIGTERM ends it early, with what it came to so far
    exit status       0; 1 if no good response came, or the link failed; 2 if it could not start

As `ustack serve` it opens its link, then becomes an ordinary user before it looks at the first byte of the server's;
the keeper removes what was made. Above: cli. Below: load_options, tools.load, lab.
"""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from ustack.cli.amounts import read_settings
from ustack.cli.live import Line, say
from ustack.cli.load_options import MEMORY, Checked, Options, check, seed_of_boot
from ustack.cli.recording import SLICE_NS, Recording, open_recording, part_of, trace_options
from ustack.cli.serve_options import DEFAULT_CC, DEFAULT_PROFILE
from ustack.cli.signals import Interrupted, StopSignals, ending
from ustack.engine.profiles import PROFILES
from ustack.lab import LabError, Made, privilege
from ustack.lab.keeper import PART, Keeper

RING_MAX = 65536
FILE = click.Path(path_type=Path)


@click.command()
@click.argument("url")
@click.option(
    "--link",
    metavar="veth|tap|dev:IFNAME|memory:DIR",
    default="veth",
    show_default=True,
    help="What frames travel on. veth, tap: made, with the URL's address at the kernel's end. memory: DIR is served by"
    " this project's server in the same process.",
)
@click.option("--netns", metavar="NAME", help="Where our end lives; made if need be; or a path.  [default: private]")
@click.option("--peer-netns", metavar="NAME", help="Where the other end, and the server, live.  [default: here]")
@click.option("--address", metavar="ADDR/LENGTH", help="The client's own.  [default: another of the server's /24]")
@click.option("--sources", metavar="A-B,C", help="Addresses that its connections come from.  [default: its own]")
@click.option("--gateway", metavar="ADDR", help="Router for a server that is not on the link.")
@click.option("--connections", "-c", type=click.IntRange(1, 1 << 28), default=1, show_default=True)
@click.option("--close", is_flag=True, help="A connection for each request.")
@click.option(
    "--rate",
    "-R",
    type=click.FloatRange(0, 1e9),
    default=0.0,
    metavar="PER_SECOND",
    help="Open loop: so many requests are due per second, whatever the server does.  [default: closed loop]",
)
@click.option("--poisson", is_flag=True, help="Their gaps vary as with independent users.")
@click.option("--duration", "-d", default="10s", show_default=True, metavar="TIME", help="Of what is measured.")
@click.option("--requests", "-n", type=click.IntRange(0), default=0, help="In all, instead of a duration.")
@click.option("--ramp", default="0", metavar="TIME", help="Grow to all connections, and the whole rate, within it.")
@click.option("--timeout", default="10s", show_default=True, metavar="TIME", help="To connect; for a response.")
@click.option("--method", default="GET", show_default=True)
@click.option("--path-file", type=FILE, metavar="FILE", help="A path each line, asked in turn.")
@click.option("--header", "-H", multiple=True, metavar="NAME:VALUE", help="Again for each.")
@click.option("--body", type=FILE, metavar="FILE", help="Sent with each request.")
@click.option("--read-rate", metavar="RATE", help="Each connection reads no faster: 28.8k, 1mbit.")
@click.option(
    "--read-step",
    metavar="SIZE",
    help="... and so much at once.  [default: of 100 ms, or a segment]",
)
@click.option("--status", type=click.IntRange(0, 599), default=0, help="What responses must have.  [default: 2xx]")
@click.option("--any-length", is_flag=True, help="Lengths that differ from a path's first good response are no error.")
@click.option("--files", type=FILE, metavar="DIR", help="What the paths' bodies must be: compared by length and hash.")
@click.option(
    "--hash-every",
    type=click.IntRange(0, 1 << 31),
    default=64,
    show_default=True,
    metavar="N",
    help="One response in N is hashed, and compared with its file, or the first one; 0: none.",
)
@click.option("--openings", type=click.IntRange(1), default=256, show_default=True, help="Handshakes at once.")
@click.option(
    "--seed",
    type=int,
    help="Makes Poisson's gaps, ports and secrets repeatable.  [default: gaps by chance; secrets by boot and address,"
    " so that timestamps and sequence numbers go on from one run to the next]",
)
@trace_options(FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@click.option("--busy-poll", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option("--ring", type=click.IntRange(1, RING_MAX), metavar="FRAMES", help="As with serve.  [default: 4096]")
@click.option("--user", metavar="NAME[:GROUP]", help="Whom to run as.  [default: who owns this directory, or nobody]")
@click.option("--cc", metavar="NAME", default=DEFAULT_CC, show_default=True, help="The congestion control.")
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default=DEFAULT_PROFILE,
    show_default=True,
    help="Defaults of the settings: what the RFCs say, or what Linux does.",
)
@click.option(
    "--set",
    "settings",
    callback=read_settings,
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the stack, as `ustack info --settings` lists them. Again for each.",
)
def load(**words: Any) -> int:
    """Ask the server at URL (http://ADDRESS[:PORT]/PATH) from a TCP stack in this process.

    Latency counts from when a request was due. Every response is checked; errors are counted by kind, and nothing is
    tried again in silence.
    """
    options = Options(**words)
    try:
        import hdrh  # noqa: F401
    except ImportError:
        raise LabError("ustack load needs the package hdrhistogram: pip install 'ustack[load]'") from None
    checked = check(options)
    with StopSignals() as signals:
        try:
            if options.kind == MEMORY:
                return _in_memory(options, checked, signals)
            assert checked.plan is not None
            files = {} if options.trace is None else {PART: part_of(options.trace)}
            with Keeper(checked.plan, files) as keeper, ending(signals):
                return _on_link(options, checked, keeper, signals)
        except Interrupted:
            return 0


def _on_link(options: Options, checked: Checked, keeper: Keeper, signals: StopSignals) -> int:
    from ustack.blocking.stack import Stack
    from ustack.tools.load.running import run_on_stack

    lab = keeper.lab
    with ExitStack() as resources:
        recording = None
        if options.trace is not None:
            recording = open_recording(options.trace, partial(keeper.remove, PART), signals, resources)
        try:
            client = checked.load.client(checked.target.address, checked.target.port, checked.requests)
            link = resources.enter_context(_open_link(options, lab))
            stack = Stack(
                link,
                lab.address,
                options.gateway,
                sources=options.sources,
                cc=options.cc,
                profile=options.profile,
                seed=seed_of_boot(lab.address) if options.seed is None else options.seed,
                **checked.settings,
            )
            resources.callback(stack.close, linger=0.0)
        except OSError as error:
            raise LabError(f"cannot load: {error.strerror or error}") from error
        except (ValueError, MemoryError) as error:
            raise LabError(f"cannot load: {error or 'out of memory'}") from error
        if recording is not None:
            recording.begin(stack, options.trace_connections)
        import traceback  # noqa: F401  nothing can be imported later

        _prepare_table()
        privilege.give_up(privilege.choose_user(options.user, Path.cwd().stat()))
        signals.stop = stack.stop
        try:
            with _Live() as live:
                summary = run_on_stack(stack, client, checked.load, _ticker(live, signals), _between(recording))
        except OSError as error:
            say(f"the link failed: {error.strerror or error}")
            return 1
    return _report(options, summary)


def _in_memory(options: Options, checked: Checked, signals: StopSignals) -> int:
    from ustack.server.http import HttpServer
    from ustack.tools.load.memory import MemoryWorld
    from ustack.tools.load.running import run_in_memory

    signals.stop = _nothing
    _prepare_table()
    with ExitStack() as resources:
        recording = None
        if options.trace is not None:
            recording = open_recording(options.trace, part_of(options.trace).unlink, signals, resources)
        try:
            client = checked.load.client(checked.target.address, checked.target.port, checked.requests)
            server = resources.enter_context(HttpServer(options.behind_colon))
            seed = checked.load.seed
            world = resources.enter_context(
                MemoryWorld(
                    server, sources=options.sources, seed=seed, profile=options.profile, client=checked.settings
                )
            )
        except OSError as error:
            raise LabError(f"cannot load: {error.strerror or error}") from error
        except (ValueError, MemoryError) as error:
            raise LabError(f"cannot load: {error or 'out of memory'}") from error
        if recording is not None:
            recording.begin(world.client_stack, options.trace_connections)
        with _Live() as live:
            summary = run_in_memory(world, client, checked.load, _ticker(live, signals), _between(recording))
    return _report(options, summary)


def _between(recording: Recording | None) -> Any:
    from ustack.tools.load.running import Between

    return None if recording is None else Between(SLICE_NS, recording.drain)


def _nothing() -> None:
    """A stop signal is looked for after each second."""


def _open_link(options: Options, lab: Made) -> Any:
    with lab.inside():
        if lab.link == "tap":
            from ustack.link.tap import TapLink

            return TapLink(lab.ifname, create=False, busy_poll=options.busy_poll)
        from ustack.link.packet_mmap import PacketMmapLink

        return PacketMmapLink(lab.ifname, rx_small_slots=options.ring, busy_poll=options.busy_poll)


class _Live:
    """A line each second on a terminal."""

    def __init__(self) -> None:
        self._line: Line | None = None
        self._before = 0

    def __enter__(self) -> "_Live":
        if sys.stderr.isatty():
            self._line = Line(sys.stderr)
        return self

    def __exit__(self, *failure: Any) -> None:
        if self._line is not None:
            self._line.end()

    def tick(self, stats: dict[str, Any]) -> None:
        """Show the second that has passed."""
        outcomes = dict(stats["all"]["outcomes"])
        good = outcomes.pop("ok", 0)
        if self._line is not None:
            parts = [
                f"<{good - self._before:,}> good responses/s",
                f"<{stats['open']:,}> connections",
                *(f"<{count:,}> {kind}" for kind, count in outcomes.items()),
            ]
            self._line.put(parts)
        self._before = good


def _ticker(live: _Live, signals: StopSignals) -> Callable[[dict[str, Any]], bool]:
    def tick(stats: dict[str, Any]) -> bool:
        live.tick(stats)
        return not signals.received

    return tick


def _prepare_table() -> None:
    """What the report needs, while it can still be imported."""
    import rich.console
    import rich.table  # noqa: F401


def _report(options: Options, summary: Any) -> int:
    from rich.console import Console

    from ustack.tools.load.summary import show

    try:
        if options.as_json:
            print(json.dumps({"url": options.url, "link": options.link, **summary.as_json()}), flush=True)
        else:
            show(Console(width=None if sys.stdout.isatty() else 100), summary, options.url)
    except BrokenPipeError:
        return 1
    return 0 if summary.good else 1
