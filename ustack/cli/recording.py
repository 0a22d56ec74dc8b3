# SPDX-License-Identifier: MIT
"""The trace of a server that is running: from the stack's ring to a file, between turns.

What cannot be written is said once, and ends the trace, not the server. The file is opened by a process that may still
have privilege, and written by one that has none. It must not: know a format. Above: serve, serving. Below: live,
obs.tracefile.
"""

import io
from typing import Any, BinaryIO, cast

from ustack.cli.live import say
from ustack.obs.tracefile import Writer, open_writer

RECORDS = 1 << 18  # of the ring: 16 MiB
SLICE_NS = 100_000_000  # how often it is emptied: by then a busy server has written 30,000 records or so


class Whole(io.RawIOBase):
    """A file to which everything is written, or an error is raised: a raw file may take a part and say so."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        """For who asks."""
        return True

    def write(self, data: Any, /) -> int:
        """All of it."""
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            written += self._file.write(view[written:])
        return written


class Recording:
    """Owner of a file and of the trace that goes into it. `close` finishes the file, once the stack is closed."""

    def __init__(self, file: BinaryIO, kind: str) -> None:
        """Begin the file. Raises ValueError, OSError."""
        self._file = file
        self._writer: Writer | None = open_writer(kind, cast(BinaryIO, Whole(file)))
        self._trace: Any = None

    def begin(self, stack: Any, connections: int) -> None:
        """Trace the next `connections` connections of this stack."""
        self._trace = stack.trace(connections=connections, capacity=RECORDS)

    def drain(self) -> None:
        """Write what has been recorded since the last time."""
        if self._writer is None or self._trace is None:
            return
        try:
            self._writer.add(self._trace.take(), self._trace.connections, self._trace.missed)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Write the rest."""
        self.drain()
        if self._writer is None:
            return
        try:
            self._writer.finish()
            self._file.flush()
        except OSError as error:
            self._give_up(error)
        self._writer = None
        if self._trace is not None and self._trace.missed:
            say(f"the trace lacks {self._trace.missed:,} records: they came faster than they were written")

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        if self._trace is not None:
            self._trace.stop()
        say(f"the trace ended: it cannot be written: {error.strerror or error}")
