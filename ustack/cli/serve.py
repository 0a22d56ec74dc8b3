# SPDX-License-Identifier: MIT
"""`ustack serve`: a directory over HTTP, from a stack of its own on a link of its own.

Two processes. This one opens the link's descriptors, gives its capabilities up and serves. The keeper (netns.keeper)
made the namespaces and links, holds the privilege to remove them, and does so however this one ends.

    standard output   `ready http://ADDRESS:PORT/`, once; after it, with --json-stats, one JSON object a second
    standard error    one line if something is wrong; on a terminal, a live line
    the end           a stop signal refuses new connections, sends a FIN to idle ones, and waits for what is under way,
                      --linger seconds at most; a second one ends it now
    exit status       0 after SIGINT, SIGTERM or SIGHUP; 1 if the link failed while serving; 2 if it could not start,
                      with nothing left behind

Above: cli. Below: everything.
"""

import ipaddress
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import click

from ustack.cli.live import Complaints, Live, silence_stdout, take
from ustack.netns import Lab, LabError, Plan, keep, privilege

SECOND_NS = 1_000_000_000
LINGER_S = 5.0  # for requests that are under way when the end is asked for
FINISH_SLICE_NS = 20_000_000  # how often the end looks whether everything is done
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Options:
    """The command line of `serve`, as it was given: None where there is a default that depends on the rest."""

    directory: Path
    link: str = "veth"
    netns: str | None = None
    peer_netns: str | None = None
    address: str = "198.18.0.2/24"
    peer_address: str | None = None
    gateway: str | None = None
    port: int = 80
    capture: Path | None = None
    access_log: Path | None = None
    busy_poll: Literal["auto", "always", "never"] = "auto"
    json_stats: bool = False
    linger: float = LINGER_S

    @property
    def url(self) -> str:
        """Where clients find the server."""
        return f"http://{self.address.partition('/')[0]}:{self.port}/"


class Interrupted(BaseException):
    """A stop signal came before there was a stack to stop. Not an error, and not to be caught as one."""


class StopSignals:
    """Turns a stop signal into the end of the stack's run or, before there is a stack, into an exception."""

    def __init__(self) -> None:
        self.received = False
        self.insisted = False  # a second one came
        self.stop: Callable[[], None] | None = None
        self.ending = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, self._before[number])

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.insisted = self.received
        self.received = True
        if self.stop is not None:
            self.stop()
        elif not self.ending:
            self.ending = True
            raise Interrupted


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--link", required=True, metavar="veth|tap|dev:IFNAME", help="What frames travel on.")
@click.option("--netns", metavar="NAME", help="Where our end lives; made if need be.  [default: a private one]")
@click.option("--peer-netns", metavar="NAME", help="Where the other end lives; made if need be.  [default: here]")
@click.option("--address", default="198.18.0.2/24", show_default=True, help="The stack's own address.")
@click.option("--peer-address", help="The kernel's address at the other end.  [default: 198.18.0.1/24]")
@click.option("--gateway", metavar="ADDR", help="Router for everything that is not on the link.")
@click.option("--port", type=click.IntRange(1, 65535), default=80, show_default=True)
@click.option("--capture", metavar="FILE.pcapng", type=click.Path(path_type=Path), help="Write every frame there.")
@click.option("--busy-poll", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option("--json-stats", is_flag=True, help="One JSON object a second on standard output, after `ready`.")
@click.option("--access-log", metavar="FILE", type=click.Path(path_type=Path), help="Append to it in combined format.")
@click.option(
    "--linger",
    type=click.FloatRange(0, 3600),
    default=LINGER_S,
    show_default=True,
    metavar="SECONDS",
    help="How long Ctrl-C or SIGTERM waits for responses under way; a second one ends it now.",
)
def serve(**options: Any) -> int:
    """Serve DIRECTORY over HTTP/1.1 from a TCP stack in this process.

    Prints `ready http://ADDRESS:PORT/` when it serves. Ctrl-C or SIGTERM ends it and removes what it made.
    """
    return run(Options(**options))


def run(options: Options, on_ready: Callable[[Any, Lab], None] | None = None, hint: str = "") -> int:
    """Serve until a stop signal; return the exit status.

    on_ready: called when the stack listens and before that is announced. hint: printed after the announcement.
    """
    plan = check(options)
    with StopSignals() as signals:
        try:
            with keep(plan) as lab, _ending(signals):
                return _serve(options, lab, signals, on_ready, hint)
        except Interrupted:
            return 0


def check(options: Options) -> Plan:
    """Raise LabError for what cannot work, before anything is made. Returns the lab to make."""
    _check_directory(options.directory)
    for what, path in (("capture", options.capture), ("access log", options.access_log)):
        if path is not None and not path.absolute().parent.is_dir():
            raise LabError(f"no directory for the {what} {path}")
    kind, _, ifname = options.link.partition(":")
    if kind not in ("veth", "tap", "dev") or (kind == "dev") != bool(ifname):
        raise LabError(f"bad link {options.link!r}: veth, tap or dev:IFNAME")
    if kind == "dev" and (options.peer_netns or options.peer_address):
        raise LabError("--peer-netns and --peer-address make no sense with dev: the interface exists and has its peer")
    plan = Plan(
        name=f"serve-{os.getpid()}",
        link=kind,
        netns=options.netns,
        peer_netns=options.peer_netns,
        ifname=ifname or None,
        address=options.address,
        peer_address=options.peer_address or "198.18.0.1/24",
    )
    from ustack.netns.lab import check as check_plan

    check_plan(plan)
    if options.gateway is not None:
        _check_gateway(options.gateway, options.address)
    privilege.require("ustack serve")
    return plan


def _check_directory(directory: Path) -> None:
    if not directory.exists():
        raise LabError(f"no directory {directory}")
    if not directory.is_dir():
        raise LabError(f"{directory} is not a directory")
    if not os.access(directory, os.R_OK | os.X_OK):
        raise LabError(f"directory {directory} cannot be read")


def _check_gateway(gateway: str, address: str) -> None:
    interface = ipaddress.IPv4Interface(address)
    try:
        router = ipaddress.IPv4Address(gateway)
    except ValueError:
        raise LabError(f"bad gateway {gateway!r}: an IPv4 address") from None
    if router not in interface.network or router == interface.ip:
        raise LabError(f"gateway {router} is not a neighbour in {interface.network}")


def _serve(
    options: Options,
    lab: Lab,
    signals: StopSignals,
    on_ready: Callable[[Any, Lab], None] | None,
    hint: str,
) -> int:
    """Open, give up privileges, listen, announce, run."""
    complaints = Complaints()
    with ExitStack() as resources:
        stack, server, listener = _plain_errors(lambda: _open(options, lab, resources))
        signals.stop = stack.stop
        if on_ready is not None:
            on_ready(stack, lab)
        if not signals.received:
            _announce(f"ready {options.url}" + (f"\n{hint}" if hint else ""))
        try:
            _loop(stack, server, signals, complaints, json_stats=options.json_stats)
            listener.close()
            _finish(stack, server, signals, options.linger)
        except OSError as error:
            print(f"ustack: the link failed: {error.strerror or error}", file=sys.stderr)
            return 1
    complaints.look(stack.link, server)  # about what was written last
    return 0


def _open(options: Options, lab: Lab, resources: ExitStack) -> tuple[Any, Any, Any]:
    from ustack.server.http import HttpServer
    from ustack.stack import Stack

    link = resources.enter_context(_open_link(options, lab))
    if options.capture is not None:
        from ustack.link.tee import TeeLink

        link = resources.enter_context(TeeLink(link, options.capture))
    # The rings stay usable; a fault in what parses hostile bytes is not root's over the network any more.
    privilege.drop()
    server = resources.enter_context(HttpServer(options.directory, access_log=options.access_log))
    stack = Stack(link, options.address, options.gateway)
    resources.callback(stack.close, linger=0.0)
    listener = stack.listen(options.port, backlog=4096, application=server)
    return stack, server, listener


def _open_link(options: Options, lab: Lab) -> Any:
    with lab.inside():
        if lab.link == "tap":
            from ustack.link.tap import TapLink

            return TapLink(lab.ifname, create=False, busy_poll=options.busy_poll)
        from ustack.link.packet_mmap import PacketMmapLink

        return PacketMmapLink(lab.ifname, busy_poll=options.busy_poll)


def _plain_errors(action: Callable[[], tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    """Whatever a link, the stack or the server refuses to open with becomes one line."""
    try:
        return action()
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        raise LabError(f"cannot serve:{name} {error.strerror or error}") from error
    except (ValueError, MemoryError) as error:
        raise LabError(f"cannot serve: {error or 'out of memory'}") from error


def _announce(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence_stdout()


def _loop(stack: Any, server: Any, signals: StopSignals, complaints: Complaints, *, json_stats: bool) -> None:
    """One second of serving, then a moment for the file table, the log and the figures."""
    with Live(take(stack, server), as_json_lines=json_stats) as live:
        while not signals.received:
            stack.run(SECOND_NS)
            server.housekeeping()
            complaints.look(stack.link, server)
            if live.is_shown:
                live.tick(take(stack, server))


def _finish(stack: Any, server: Any, signals: StopSignals, linger_s: float) -> None:
    """Let requests that are under way have their responses, and FINs their acknowledgements, for linger_s at most."""
    deadline_ns = time.monotonic_ns() + int(linger_s * SECOND_NS)
    server.finish(stack)
    while not (server.finished and stack.closing_connections() == 0):
        if signals.insisted or time.monotonic_ns() >= deadline_ns:
            return
        stack.run(FINISH_SLICE_NS)
        server.housekeeping()


@contextmanager
def _ending(signals: StopSignals) -> Iterator[None]:
    """From here on a stop signal, and a second one, only waits for the end."""
    try:
        yield
    finally:
        signals.stop = None
        signals.ending = True
