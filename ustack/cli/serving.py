# SPDX-License-Identifier: MIT
"""What `ustack serve` does whatever carries its bytes: become an ordinary user, announce, serve, look around once per
second, end.

It must not: know a stack. Above: serve, serve_kernel. Below: files, live, signals, serve_options.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ustack.cli.files import Files
from ustack.cli.live import Complaints, Live, say, silence_stdout, take
from ustack.cli.recording import SLICE_NS, Recording
from ustack.cli.serve_options import STANDARD_OUTPUT, Options
from ustack.cli.signals import StopSignals
from ustack.lab import LabError, privilege
from ustack.lab.privilege import User

SECOND_NS = 1_000_000_000
FINISH_SLICE_NS = 20_000_000  # how often the end looks whether everything is done


@dataclass(frozen=True)
class Served:
    """What is open while it serves."""

    stack: Any
    server: Any
    listener: Any
    files: Files
    user: User
    recording: Recording | None = None


def become_unprivileged(options: Options, directory: int) -> User:
    """A fault in what parses hostile bytes is not root's over the network any more; files are served as with nginx."""
    status = os.fstat(directory)
    user = privilege.choose_user(options.user, status)
    # From here on, nothing can be imported where the modules lie below a directory that only root may enter.
    import traceback  # noqa: F401

    privilege.give_up(user)
    if not os.access(".", os.X_OK, dir_fd=directory, effective_ids=True):
        raise LabError(
            f"cannot serve: {user.name} may not enter {options.directory} (mode {status.st_mode & 0o7777:04o}, owner "
            f"{status.st_uid}): change its mode, or choose a --user who may"
        )
    return user


def plain_errors(action: Callable[[], Served]) -> Served:
    """Whatever a link, the stack or the server refuses to open with becomes one line."""
    try:
        return action()
    except OSError as error:
        name = f" {os.fsdecode(error.filename)}:" if error.filename else ""
        raise LabError(f"cannot serve:{name} {error.strerror or error}") from error
    except (ValueError, MemoryError) as error:
        raise LabError(f"cannot serve: {error or 'out of memory'}") from error


def announce(options: Options, user: User, hint: str) -> None:
    """`ready URL`, and for people as whom it serves and what to do next. A reader that is gone is no reason to end."""
    stream = sys.stderr if options.capture == STANDARD_OUTPUT else sys.stdout
    text = f"ready {options.url}"
    if hint or stream.isatty():
        text += f"\n    serving as {user.name}, without capabilities"
    if hint:
        text += f"\n{hint}"
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        if stream is sys.stdout:
            silence_stdout()
        if not isinstance(error, BrokenPipeError):
            say(f"standard output: {error.strerror or error}")


def run(served: Served, until_ns: int) -> None:
    """Serve until then, or a stop signal; what is traced is written on the way."""
    slice_ns = SECOND_NS if served.recording is None else SLICE_NS
    served.stack.run(min(slice_ns, max(0, until_ns - time.monotonic_ns())))
    if served.recording is not None:
        served.recording.drain()


def loop(served: Served, signals: StopSignals, complaints: Complaints, *, json_stats: bool) -> None:
    """One second of serving, then a moment for the file table, the log and the figures."""
    stack, server = served.stack, served.server
    tick_ns = time.monotonic_ns() + SECOND_NS
    with Live(take(stack, server), as_json_lines=json_stats) as live:
        while not signals.received:
            run(served, tick_ns)
            if signals.reopen:
                # What was answered before the signal belongs into the log that is now closed.
                signals.reopen = False
                server.housekeeping()
                served.files.reopen()
                server.housekeeping()
            if time.monotonic_ns() < tick_ns:
                continue
            tick_ns = time.monotonic_ns() + SECOND_NS
            served.files.follow()
            server.housekeeping()
            complaints.look(stack, server)
            if live.is_shown:
                live.tick(take(stack, server))


def finish(served: Served, signals: StopSignals, linger_s: float) -> None:
    """Let requests that are under way have their responses, and FINs their acknowledgements, for linger_s at most."""
    stack, server = served.stack, served.server
    deadline_ns = time.monotonic_ns() + int(linger_s * SECOND_NS)
    server.finish(stack)
    while not (server.finished and stack.closing_connections() == 0):
        if signals.insisted or time.monotonic_ns() >= deadline_ns:
            return
        run(served, time.monotonic_ns() + FINISH_SLICE_NS)
        server.housekeeping()
