# SPDX-License-Identifier: MIT
"""A plain asyncio Protocol that serves a folder under uvloop: protocol_files.py DIRECTORY ADDRESS PORT.

It answers GET with whole files from memory, pipelined requests in order, and closes where it is asked to. It is what
an event loop in C can do for Python at best, with as little HTTP as a benchmark needs.
"""

from __future__ import annotations

import asyncio
import sys
from functools import lru_cache
from pathlib import Path
from typing import cast

import uvloop

KEPT_FILES = 4096
HEAD_MOST_BYTES = 8192
ROOT = Path(sys.argv[1]).resolve()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n%s\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n%s\r\n"
CLOSE = b"Connection: close\r\n"
BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@lru_cache(KEPT_FILES)
def response(path: bytes, last: bool) -> bytes:
    """A whole response. last: it says that the connection ends with it."""
    ending = CLOSE if last else b""
    file = (ROOT / path.decode("latin-1").lstrip("/")).resolve()
    if not file.is_relative_to(ROOT) or not file.is_file():
        return NOT_FOUND % ending
    body = file.read_bytes()
    return HEAD % (len(body), ending) + body


class Files(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass of it
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """Answer every whole head."""
        *heads, self.rest = (self.rest + data).split(b"\r\n\r\n")
        if len(self.rest) > HEAD_MOST_BYTES:
            heads.append(b"")
        answers, last = [], False
        for head in heads:
            words = head.partition(b"\r\n")[0].split()
            if len(words) != 3 or words[0] != b"GET":
                answers.append(BAD)
                last = True
                break
            last = b"connection: close" in head.lower()
            answers.append(response(words[1], last))
            if last:
                break
        if answers:
            self.transport.write(b"".join(answers))
        if last:
            self.transport.close()


async def serve() -> None:
    """Until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Files, sys.argv[2], int(sys.argv[3]), backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve())
