# SPDX-License-Identifier: MIT
"""What a running server shows once a second: a live line on a terminal (standard error), JSON lines on request.

JSON lines go to standard output after the `ready` line, so that a program reads both from one pipe. A reader
that goes away ends them, not the server. Above: serve. Below: obs.snapshot.
"""

import json
import os
import sys
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from ustack.obs.snapshot import Rates, Snapshot, as_json, drops, rates


class Live:
    """Context manager: `tick(snapshot)` shows what happened since the one before."""

    def __init__(self, first: Snapshot, *, as_json_lines: bool) -> None:
        self._before = first
        self._json = as_json_lines
        self._display: Any = None
        self._resources = ExitStack()

    def __enter__(self) -> "Live":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live as Display

            # No thread of its own: the line is drawn by tick, between two stretches of serving.
            self._display = self._resources.enter_context(
                Display(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def is_shown(self) -> bool:
        """False if nobody looks: then there is no need for snapshots."""
        return self._json or self._display is not None

    def tick(self, now: Snapshot) -> None:
        """Show the time since the last tick."""
        if self._json:
            try:
                print(json.dumps(as_json(self._before, now)), flush=True)
            except BrokenPipeError:
                self._json = False
                silence_stdout()
        if self._display is not None:
            self._display.update(line(rates(self._before, now), sum(drops(now).values())), refresh=True)
        self._before = now


def line(now: Rates, dropped: int) -> Any:
    """The live line, as rich shows it: one line, cut at the terminal's edge. `dropped`: since the start."""
    from rich.text import Text

    text = Text.from_markup(
        f"[bold]{now.requests_per_s:,.0f}[/] requests/s  [bold]{now.connections:,}[/] connections  "
        f"[bold]{now.gbit_in_per_s + now.gbit_out_per_s:.2f}[/] Gb/s  "
        f"[bold]{now.frames_in_per_s:,.0f}[/] frames/s in [bold]{now.frames_out_per_s:,.0f}[/] out  "
        f"[bold]{dropped:,}[/] drops  cpu {now.cpu:.0%}",
        overflow="ellipsis",
    )
    text.no_wrap = True
    return text


def take(stack: Any, server: Any) -> Snapshot:
    """Everything there is to see in a stack and its HTTP server."""
    counters = stack.counters()
    return Snapshot(
        now_ns=time.monotonic_ns(),
        stack=counters,
        link=stack.link.counters(),
        application=server.stats(),
        connections=stack.established,
        cpu_ns=time.process_time_ns(),
        capture=capture_status(stack.link),
    )


def capture_status(link: Any) -> dict[str, Any] | None:
    """How the capture on this link is doing; None for a link without one."""
    if not hasattr(link, "recorded"):
        return None
    return {"recorded": link.recorded, "missed": link.missed, "error": link.error}


class Complaints:
    """Says on standard error, once for each reason, that the capture or the access log cannot be written."""

    def __init__(self) -> None:
        self._said: dict[str, str | None] = {}

    def look(self, link: Any, server: Any) -> None:
        """Call it once a second, and once more when both are closed."""
        capture = capture_status(link)
        if capture is not None:
            lost = f"{capture['recorded']:,} frames are in it"
            self._say("capture", capture["error"], f"the capture ended: {capture['error']} ({lost})")
        stats = server.stats()
        error = stats.get("log_error")
        self._say("log", error, f"the access log cannot be written: {error} ({stats['log_lost']:,} lines lost)")

    def _say(self, what: str, error: str | None, sentence: str) -> None:
        if error is not None and self._said.get(what) != error:
            print(f"ustack: {sentence}", file=sys.stderr)
        self._said[what] = error


def silence_stdout() -> None:
    """After its reader has gone: nothing that is flushed at exit may raise again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
