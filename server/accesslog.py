# SPDX-License-Identifier: MIT
"""The access log's text and its file: combined format, as Apache httpd and nginx write it.

    198.18.0.1 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 512 "referer" "user agent"

What a client sent is escaped so that it can neither end a line nor a quotation. logring.pyx puts the lines together
from the two texts that `log_text` makes, once for each head it remembers; this file never runs for a remembered one.

Above: decide.pyx, http.pyx. Below: nothing.
"""

import os
import re

_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
MAX_TEXT_BYTES = 1024


def escape(value: bytes) -> bytes:
    """Replace everything but printable ASCII, and quotes and backslashes, by \\xNN, as nginx does."""
    return _UNSAFE.sub(lambda match: b"\\x%02X" % match.group()[0], value[:MAX_TEXT_BYTES])


def log_text(line: bytes, referer: bytes | None, agent: bytes | None) -> tuple[bytes, int]:
    """What stands before and behind status and size, and where the first part ends."""
    before = b'"%b" ' % escape(line)
    behind = b' "%b" "%b"\n' % (escape(referer or b"-"), escape(agent or b"-"))
    return before + behind, len(before)


class LogFile:
    """Owner of the descriptor that is written to. Follows a rename, so that a log can be rotated by moving it."""

    def __init__(self, target: str | bytes | os.PathLike[str] | int | None) -> None:
        """target: a path, which is appended to; a descriptor, which stays the caller's; None for no log."""
        self.fd = -1
        self._path: bytes | None = None
        if isinstance(target, int):
            self.fd = target
        elif target is not None:
            self._path = os.path.abspath(os.fsencode(target))
            self._open()

    def _open(self) -> None:
        assert self._path is not None
        # O_NONBLOCK: a FIFO without a reader fails at once instead of holding up the server.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o640)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = fd

    def follow(self) -> None:
        """Open the path again when it names another file, or none. A failure leaves the old file in use."""
        if self._path is None:
            return
        here = os.fstat(self.fd)
        try:
            there = os.stat(self._path)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        try:
            self._open()
        except OSError:
            return

    def close(self) -> None:
        """Close what was opened here. Idempotent."""
        if self._path is not None and self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:
        """Nobody closed it; give it back all the same."""
        self.close()
