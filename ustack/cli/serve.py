# SPDX-License-Identifier: MIT
"""`ustack serve`: a directory over HTTP, from a stack of its own on a link of its own.

Two processes. This one opens the link's descriptors, becomes an unprivileged user without any capability, and serves.
The keeper (lab.keeper) made the namespaces and links, holds the privilege to remove them, and does so however this
one ends; it also opens the directory and the access log, now and when they are to be opened again.

    standard output   `ready http://ADDRESS:PORT/`, once; after it, with --json-stats, one JSON object per second. On a
                      terminal a line follows that says as whom it serves. With `--capture -` the capture, and
                      nothing else: `ready` goes to standard error
    standard error    one line if something is wrong; on a terminal, a live line
    the end           a stop signal refuses new connections, sends a FIN to idle ones, and waits for what is under way,
                      --linger seconds at most; a second one ends it now
    SIGUSR1           opens the access log and the directory again
    ignored           SIGUSR2 and timers' signals; SIGHUP and SIGINT where they were at the start (nohup)
    exit status       0 after SIGINT, SIGTERM or SIGHUP; 1 if the link failed while serving; 2 if it could not start,
                      with nothing left behind

With --stack kernel there is no link and no keeper, and serve_kernel does the rest.

Above: cli. Below: everything; serve_options (what is asked), serving (what both stacks' servers do) and signals (what
ends it) among it.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from ustack.cli.amounts import read_settings
from ustack.cli.files import Files
from ustack.cli.live import Complaints, say
from ustack.cli.recording import open_file, open_recording, part_of, trace_options
from ustack.cli.serve_kernel import run_kernel
from ustack.cli.serve_options import (
    DEFAULT_ADDRESS,
    DEFAULT_CC,
    DEFAULT_LISTEN,
    DEFAULT_PROFILE,
    LINGER_S,
    OWN_STACK,
    STANDARD_OUTPUT,
    Options,
    check,
    kernel_strategies,
)
from ustack.cli.serving import Served, announce, become_unprivileged, finish, loop, plain_errors
from ustack.cli.signals import Interrupted, StopSignals, ending
from ustack.engine.profiles import PROFILES
from ustack.lab import LabError, Made, links
from ustack.lab.keeper import DIRECTORY, LOG, PART, Keeper
from ustack.lab.links import End

RING_MAX = 65536
WORKERS_MOST = 1024
SPIN_MOST_US = 100_000


class NamedPath(click.Path):
    """A path that is not empty: an unset variable in a script is no path, and not the current directory."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse the empty string, which pathlib would take for the current directory."""
        if value == "":
            self.fail("it is empty (an unset variable?)", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@click.argument("directory", type=NamedPath())
@click.option(
    "--stack",
    default=OWN_STACK,
    show_default=True,
    metavar="ustack|kernel:STRATEGY",
    help="Whose TCP serves: this project's, over --link; or the kernel's, where STRATEGY is how the server learns which"
    f" sockets are ready: {', '.join(kernel_strategies())}.",
)
@click.option("--link", metavar="veth|tap|dev:IFNAME", help="What frames travel on. Needed, but by --stack kernel.")
@click.option(
    "--listen",
    metavar="ADDR",
    help=f"With --stack kernel: the machine's own address to listen on; 0.0.0.0: all.  [default: {DEFAULT_LISTEN}]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MOST),
    metavar="N",
    help="With --stack kernel:prefork or kernel:reuseport: processes that share the port.  [default: one for each"
    " processor]",
)
@click.option(
    "--spin",
    type=click.IntRange(0, SPIN_MOST_US),
    metavar="MICROSECONDS",
    help="With --stack kernel: ask who is ready for so long at most before sleeping, while sleeps are that short, as"
    " --busy-poll auto does on a link (50).  [default: 0]",
)
@click.option(
    "--cork", is_flag=True, help="With --stack kernel: TCP_CORK around the system calls that send one response."
)
@click.option(
    "--sendfile",
    is_flag=True,
    help="With --stack kernel: bodies of files over 48 KiB by sendfile from their descriptors. Not where a connection"
    " has a thread or process of its own, nor with io_uring.",
)
@click.option(
    "--zerocopy",
    is_flag=True,
    help="With --stack kernel: sends of 16 KiB and more without a copy (MSG_ZEROCOPY). With epoll-lt, epoll-et, poll,"
    " aio, prefork and reuseport; for io_uring there is kernel:io_uring-zc.",
)
@click.option(
    "--netns", metavar="NAME", help="Where our end lives; made if need be; or a path.  [default: a private one]"
)
@click.option(
    "--peer-netns", metavar="NAME", help="Where the other end lives; made if need be; or a path.  [default: here]"
)
@click.option("--address", default=DEFAULT_ADDRESS, show_default=True, help="The stack's own address.")
@click.option("--peer-address", help="The kernel's address at the other end.  [default: another of the same network]")
@click.option("--gateway", metavar="ADDR", help="Router for everything that is not on the link.")
@click.option("--port", type=click.IntRange(1, 65535), default=80, show_default=True)
@click.option("--capture", metavar="FILE.pcapng", type=NamedPath(), help="Write every frame there; -: to a pipe.")
@trace_options(NamedPath())
@click.option("--busy-poll", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option(
    "--ring",
    type=click.IntRange(1, RING_MAX),
    metavar="FRAMES",
    help="Frames of one MTU that may wait to be received (1.6 KB each; drops.link_rx_dropped tells when it was too few)"
    ".  [default: 4096]",
)
@click.option("--json-stats", is_flag=True, help="One JSON object per second on standard output, after `ready`.")
@click.option(
    "--access-log", metavar="FILE", type=NamedPath(), help="Append to it in combined format; SIGUSR1 opens it again."
)
@click.option(
    "--user",
    metavar="NAME[:GROUP]",
    help="Whom to serve as, once everything is open.  [default: DIRECTORY's owner, or nobody if that is root]",
)
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
    help="A setting of the stack, as `ustack info --settings` lists them: rto_min_ns=1s. Again for each.",
)
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
    if options["stack"] == OWN_STACK and options["link"] is None:
        raise click.MissingParameter(param_hint="'--link'", param_type="option")
    asked = Options(**options)
    return run(asked) if asked.stack == OWN_STACK else run_kernel(asked)


def run(options: Options, on_ready: Callable[[Any, Made], None] | None = None, hint: str = "") -> int:
    """Serve until a stop signal; return the exit status.

    on_ready: called when the stack listens and before that is announced. hint: printed after the announcement.
    """
    plan = check(options)
    files = {DIRECTORY: options.directory, **({LOG: options.access_log} if options.access_log else {})}
    if options.trace is not None:
        files[PART] = part_of(options.trace)
    with StopSignals() as signals:
        try:
            with Keeper(plan, files) as keeper, ending(signals):
                return _serve(options, keeper, signals, on_ready, hint)
        except Interrupted:
            return 0


def _serve(
    options: Options,
    keeper: Keeper,
    signals: StopSignals,
    on_ready: Callable[[Any, Made], None] | None,
    hint: str,
) -> int:
    """Open, give up privileges, listen, announce, run."""
    complaints = Complaints()
    not_kept_off = _not_kept_off(keeper.lab)
    with ExitStack() as resources:
        served = plain_errors(lambda: _open(options, keeper, signals, resources))
        stack, server = served.stack, served.server
        signals.stop = stack.stop
        if on_ready is not None:
            on_ready(stack, keeper.lab)
        if not_kept_off:
            say(not_kept_off)
        if not signals.received:
            announce(options, served.user, hint)
        try:
            loop(served, signals, complaints, json_stats=options.json_stats)
            served.listener.close()
            finish(served, signals, options.linger)
        except OSError as error:
            say(f"the link failed: {error.strerror or error}")
            return 1
    complaints.look(stack, server)  # about what was written last
    return 0


def _open(options: Options, keeper: Keeper, signals: StopSignals, resources: ExitStack) -> Served:
    """Everything that takes privilege first; then none is left; then everything that looks at what others send."""
    from ustack.blocking.stack import Stack
    from ustack.server.http import HttpServer

    files = resources.enter_context(Files(keeper, options.directory, options.access_log))
    link = resources.enter_context(_open_link(options, keeper.lab))
    if options.capture is not None:
        link = resources.enter_context(_open_capture(link, options.capture, resources))
    recording = None
    if options.trace is not None:
        recording = open_recording(options.trace, partial(keeper.remove, PART), signals, resources)
    # By its descriptor: the user that this process becomes may not be able to walk to it by name.
    server = resources.enter_context(HttpServer(f"/proc/self/fd/{files.directory}", access_log=files.log))
    stack = Stack(
        link,
        options.address,
        options.gateway,
        sources=None,
        cc=options.cc,
        profile=options.profile,
        **dict(options.settings),
    )
    resources.callback(stack.close, linger=0.0)
    if recording is not None:
        recording.begin(stack, options.trace_connections)
    user = become_unprivileged(options, files.directory)
    listener = stack.listen(options.port, backlog=4096, application=server)
    return Served(stack, server, listener, files, user, recording)


def _open_capture(link: Any, capture: Path, resources: ExitStack) -> Any:
    from ustack.link.tee import TeeLink

    if capture == STANDARD_OUTPUT:
        return TeeLink(link, sys.stdout.fileno())
    try:
        file = open_file(capture, resources)
    except OSError as error:
        raise LabError(f"cannot serve: {capture}: {error.strerror or error}") from None
    return TeeLink(link, file)


def _open_link(options: Options, lab: Made) -> Any:
    with lab.inside():
        if lab.link == "tap":
            from ustack.link.tap import TapLink

            return TapLink(lab.ifname, create=False, busy_poll=options.busy_poll)
        from ustack.link.packet_mmap import PacketMmapLink

        return PacketMmapLink(lab.ifname, rx_small_slots=options.ring, busy_poll=options.busy_poll)


def _not_kept_off(lab: Made) -> str:
    """One line where the kernel sees what is for the stack as well, else ""."""
    if lab.link != "dev" or lab.drop is not None:
        return ""
    address = lab.address.partition("/")[0]
    said = f"no CAP_NET_ADMIN to keep the kernel off {lab.ifname}: "
    if links.forwards(End(lab.netns, lab.ifname)):
        return said + (
            f"and as it forwards (net.ipv4.conf.{lab.ifname}.forwarding=1), it tells clients that {address} is "
            f"unreachable; turn that off"
        )
    return (
        said + f"it sees what is for {address} too, and drops it without an answer, because the address is not its own"
    )
