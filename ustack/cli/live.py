# SPDX-License-Identifier: MIT
"""What a running server shows once per second: a live line on a terminal (standard error), JSON lines on request.

JSON lines go to standard output after the `ready` line, so that a program reads both from one pipe. A reader
that goes away ends them, not the server. Above: serve. Below: obs.snapshot.
"""

import json
import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from ustack.obs.snapshot import Rates, Snapshot, as_json, drops, rates


class Live:
    """Context manager: `tick(snapshot)` shows what happened since the one before."""

    def __init__(self, first: Snapshot, *, as_json_lines: bool) -> None:
        self._before = first
        self._json = as_json_lines
        self._display: Line | None = None

    def __enter__(self) -> "Live":
        if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self._display = Line(sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.end()

    @property
    def is_shown(self) -> bool:
        """False if nobody looks: then there is no need for snapshots."""
        return self._json or self._display is not None

    def tick(self, now: Snapshot) -> None:
        """Show the time since the last tick."""
        if self._json:
            try:
                print(json.dumps(as_json(self._before, now)), flush=True)
            except OSError as error:
                self._json = False
                silence_stdout()
                if not isinstance(error, BrokenPipeError):
                    say(f"standard output: {error.strerror or error}")
        if self._display is not None:
            self._display.draw(rates(self._before, now), sum(drops(now).values()))
        self._before = now


class Line:
    """One line on a terminal, drawn over itself; never wider than the terminal is."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._cells = 0  # of what stands there now

    def draw(self, now: Rates, dropped: int) -> None:
        """Replace the line by what these figures say."""
        self.put(parts_of(now, dropped))

    def put(self, parts: list[str]) -> None:
        """Replace the line by these parts, figures in <>."""
        width = self._width()
        shown = fitting(parts, width - 1)  # the last column would make some terminals go on to the next line
        self._write(erase(self._cells, width) + shown.replace("<", BOLD).replace(">", PLAIN))
        self._cells = len(plain(shown))

    def end(self) -> None:
        """Leave the line as it is and go on below it."""
        if self._cells:
            self._write("\n")

    def _width(self) -> int:
        try:
            return max(2, os.get_terminal_size(self._stream.fileno()).columns)
        except OSError:
            return 80

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._cells = 0  # a terminal that has gone away; the server has not


BOLD, PLAIN = "\x1b[1m", "\x1b[22m"


def erase(cells: int, width: int) -> str:
    """Go back to the start of what was drawn, and clear it.

    A terminal that became narrower since has broken the line into as many rows as it takes. (The text console cuts
    lines instead.)
    """
    rows = max(1, -(-cells // width)) if os.environ.get("TERM") != "linux" else 1
    return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "") + "\x1b[J"


def line(now: Rates, dropped: int, width: int) -> str:
    """The server's live line in at most `width` cells. dropped: since the start."""
    return fitting(parts_of(now, dropped), width)


def parts_of(now: Rates, dropped: int) -> list[str]:
    """What a server's line says, what matters most first."""
    return [
        f"<{now.requests_per_s:,.0f}> requests/s",
        f"<{now.connections:,}> connections",
        f"<{now.gbit_in_per_s + now.gbit_out_per_s:.2f}> Gb/s",
        f"<{dropped:,}> drops",
        f"cpu <{now.cpu:.0%}>",
        f"frames/s <{now.frames_in_per_s:,.0f}> in",
        f"<{now.frames_out_per_s:,.0f}> out",
    ]


def fitting(parts: list[str], width: int) -> str:
    """As many of the parts as `width` cells hold, figures in <>: what does not fit is left out whole, from the end."""
    parts = list(parts)
    while len(parts) > 1 and len(plain("  ".join(parts))) > width:
        parts.pop()
    text = "  ".join(parts)
    return text if len(plain(text)) <= width else plain(text)[:width]


def plain(text: str) -> str:
    """A line without the marks around its figures."""
    return text.replace("<", "").replace(">", "")


def take(stack: Any, server: Any) -> Snapshot:
    """Everything there is to see in a stack and its HTTP server."""
    counters = stack.counters()
    link = getattr(stack, "link", None)
    carried = {"rx_bytes": counters.get("bytes_received", 0), "tx_bytes": counters.get("bytes_sent", 0)}
    return Snapshot(
        now_ns=time.monotonic_ns(),
        stack=counters,
        link=carried if link is None else link.counters(),
        application=server.stats(),
        connections=stack.established,
        cpu_ns=time.process_time_ns(),
        capture=capture_status(link),
    )


def capture_status(link: Any) -> dict[str, Any] | None:
    """How the capture on this link is doing; None for a link without one."""
    if not hasattr(link, "recorded"):
        return None
    return {"recorded": link.recorded, "missed": link.missed, "error": link.error}


TOO_LONG = (
    "frames come that no slot of the ring can hold, and are dropped: the other end sends super-frames beyond 64 KB"
    " (there: ip link set IFNAME gso_ipv4_max_size 65536)"
)


FD_SETSIZE = 1024  # of glibc
NO_THREAD = (
    "connections are reset because there is no thread or process for them (pid_max, threads-max, max_map_count, a"
    " cgroup's pids.max, ulimit -u, memory; refused_by_strategy counts them)"
)
FEW_DESCRIPTORS = (
    "connections are reset because no descriptor is left for them (ulimit -n; refused_without_descriptor counts them)"
)


class Complaints:
    """Says on standard error, once for each reason, what cannot be written (capture, access log) or received."""

    def __init__(self) -> None:
        self._said: dict[str, str | None] = {}

    def look(self, stack: Any, server: Any) -> None:
        """Call it once per second, and once more when both are closed."""
        link = getattr(stack, "link", None)
        capture = capture_status(link)
        if capture is not None:
            lost = f"{capture['recorded']:,} frames are in it"
            self._say("capture", capture["error"], f"the capture ended: {capture['error']} ({lost})")
        if link is None:
            self._look_at_sockets(stack.counters(), stack.strategy)
        elif link.counters()["rx_truncated"]:
            self._say("frames", "too long", TOO_LONG)
        stats = server.stats()
        error = stats.get("log_error")
        self._say("log", error, f"the access log cannot be written: {error} ({stats['log_lost']:,} lines lost)")

    def _look_at_sockets(self, counters: dict[str, int], strategy: str) -> None:
        if counters["refused_by_strategy"] and strategy in ("threads", "processes"):
            self._say("strategy", "full", NO_THREAD)
        elif counters["refused_by_strategy"]:
            self._say(
                "strategy",
                "full",
                f"{strategy} cannot watch descriptors of {FD_SETSIZE:,} and above (FD_SETSIZE): connections that get"
                " one are reset (refused_by_strategy)",
            )
        if counters["refused_without_descriptor"] or counters["accepts_failed"]:
            self._say("descriptors", "few", FEW_DESCRIPTORS)

    def _say(self, what: str, error: str | None, sentence: str) -> None:
        if error is not None and self._said.get(what) != error:
            say(sentence, below_line=sys.stderr.isatty())  # the live line stands there
        self._said[what] = error


def say(sentence: str, *, below_line: bool = False) -> None:
    """One line on standard error. Nobody there to read it is no reason to end a server."""
    with suppress(OSError):
        print(("\n" if below_line else "") + f"ustack: {sentence}", file=sys.stderr, flush=True)


def silence_stdout() -> None:
    """After its reader has gone: nothing that is flushed at exit may raise again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
