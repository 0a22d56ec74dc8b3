# SPDX-License-Identifier: MIT
"""An ASGI application that serves a folder, under uvicorn: asgi_files.py DIRECTORY ADDRESS PORT.

Files are read once and kept, up to KEPT_BYTES each and KEPT_FILES of them; larger ones are sent in pieces.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import uvicorn

KEPT_BYTES = 1 << 20
KEPT_FILES = 4096
PIECE_BYTES = 1 << 18
ROOT = Path(sys.argv[1]).resolve()

Message = MutableMapping[str, Any]


@lru_cache(KEPT_FILES)
def small(path: str) -> bytes | None:
    """The bytes of a small file; None for one that is large. Raises OSError."""
    file = (ROOT / path.lstrip("/")).resolve()
    if not file.is_relative_to(ROOT) or not file.is_file():
        raise FileNotFoundError(path)
    return file.read_bytes() if file.stat().st_size <= KEPT_BYTES else None


async def application(
    scope: Message, _receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    try:
        body = small(scope["path"])
    except OSError:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    size = len(body) if body is not None else (ROOT / scope["path"].lstrip("/")).stat().st_size
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(size).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if body is not None:
        await send({"type": "http.response.body", "body": body})
        return
    with (ROOT / scope["path"].lstrip("/")).open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(
        application,
        host=sys.argv[2],
        port=int(sys.argv[3]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="error",
        backlog=4096,
        timeout_keep_alive=600,
        server_header=False,
    )
