# SPDX-License-Identifier: MIT
"""File objects on a connection: what socket.makefile() gives, for ustack's Connection.

Above: sockets. Below: nothing but the connection's recv_into() and send().
"""

from __future__ import annotations

import io
from typing import Any


class ConnectionIO(io.RawIOBase):
    """Raw I/O on a connection. The connection is not closed before its files are (Connection.close)."""

    def __init__(self, connection: Any, mode: str) -> None:
        """mode: "r", "w" or "rw"."""
        super().__init__()
        self._connection = connection
        self._mode = mode
        self._timed_out = False
        connection._file_opened()

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        self._check_open()
        return "r" in self._mode

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        self._check_open()
        return "w" in self._mode

    def readinto(self, buffer: Any) -> int | None:
        """Receive into `buffer`; 0 at the end, None if nothing is there and the connection does not wait.

        After a TimeoutError what was read before it is lost to the caller, so that the file refuses to be read on, as a
        socket's does.
        """
        self._check_open()
        if "r" not in self._mode:
            raise io.UnsupportedOperation("read(): the file was opened for writing")
        if self._timed_out:
            raise OSError("cannot read from a file on a connection after a timeout")
        try:
            return int(self._connection.recv_into(buffer))
        except BlockingIOError:
            return None
        except TimeoutError:
            self._timed_out = True
            raise

    def write(self, data: Any) -> int | None:
        """Send a copy of `data`: the caller may change its buffer at once, and io.BufferedWriter does."""
        self._check_open()
        if "w" not in self._mode:
            raise io.UnsupportedOperation("write(): the file was opened for reading")
        octets = bytes(data)
        try:
            taken = int(self._connection.send(octets))
        except BlockingIOError:
            return None
        return taken if taken or not octets else None

    def fileno(self) -> int:
        """Raise io.UnsupportedOperation, as the connection does."""
        self._check_open()
        return int(self._connection.fileno())

    @property
    def name(self) -> str:
        """Who is at the other end."""
        return repr(self._connection)

    @property
    def mode(self) -> str:
        """In the words of open(): "rb", "wb" or "rwb"."""
        return self._mode + "b"

    def close(self) -> None:
        """Close the file; the connection too if close() was called on it and no other file is open."""
        if not self.closed:
            super().close()
            connection, self._connection = self._connection, None
            connection._file_closed()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")


def open_stream(
    connection: Any,
    mode: str,
    buffering: int | None,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> Any:
    """socket.socket.makefile() in its own words, for a Connection."""
    if not set(mode) <= {"r", "w", "b"}:
        raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
    writing = "w" in mode
    reading = "r" in mode or not writing
    binary = "b" in mode
    if buffering is None or buffering < 0:
        buffering = io.DEFAULT_BUFFER_SIZE
    if buffering == 0 and not binary:
        raise ValueError("unbuffered streams must be binary")
    raw = ConnectionIO(connection, ("r" if reading else "") + ("w" if writing else ""))
    if buffering == 0:
        return raw
    buffered: Any
    if reading and writing:
        buffered = io.BufferedRWPair(raw, raw, buffering)
    elif reading:
        buffered = io.BufferedReader(raw, buffering)
    else:
        buffered = io.BufferedWriter(raw, buffering)
    if binary:
        return buffered
    return io.TextIOWrapper(buffered, encoding, errors, newline)
