# SPDX-License-Identifier: MIT
"""aiohttp.web serves a folder under uvloop: aiohttp_files.py DIRECTORY ADDRESS PORT.

Files are read once and kept, up to KEPT_BYTES each and KEPT_FILES of them; larger ones are aiohttp's FileResponse.
"""

from __future__ import annotations

import asyncio
import sys
from functools import lru_cache
from pathlib import Path

import uvloop
from aiohttp import web

KEPT_BYTES = 1 << 20
KEPT_FILES = 4096
ROOT = Path(sys.argv[1]).resolve()


@lru_cache(KEPT_FILES)
def small(path: str) -> bytes | None:
    """The bytes of a small file; None for one that is large. Raises OSError."""
    file = (ROOT / path.lstrip("/")).resolve()
    if not file.is_relative_to(ROOT) or not file.is_file():
        raise FileNotFoundError(path)
    return file.read_bytes() if file.stat().st_size <= KEPT_BYTES else None


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    """One request."""
    try:
        body = small(request.path)
    except OSError:
        return web.Response(status=404)
    if body is None:
        return web.FileResponse(ROOT / request.path.lstrip("/"))
    return web.Response(body=body, content_type="application/octet-stream")


async def serve() -> None:
    """Without a router, a log or a limit in time: the server alone."""
    runner = web.ServerRunner(web.Server(answer, access_log=None, keepalive_timeout=600.0))
    await runner.setup()
    await web.TCPSite(runner, sys.argv[2], int(sys.argv[3]), backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve())
