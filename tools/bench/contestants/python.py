# SPDX-License-Identifier: MIT
"""What Python's asynchronous frameworks do with a file: small files from memory, as their documentation advises."""

from __future__ import annotations

from ustack.tools.bench.contestants.base import Script


class Uvicorn(Script):
    """An ASGI application under uvicorn, with uvloop and httptools."""

    name = "uvicorn"
    title = "uvicorn, uvloop, httptools"
    main = True
    script = "asgi_files.py"
    modules = ("uvicorn", "uvloop", "httptools")


class Aiohttp(Script):
    """aiohttp.web under uvloop."""

    name = "aiohttp"
    title = "aiohttp, uvloop"
    script = "aiohttp_files.py"
    modules = ("aiohttp", "uvloop")


class UvloopProtocol(Script):
    """A plain asyncio Protocol under uvloop, which finds the end of a head and looks at its first line."""

    name = "uvloop-protocol"
    title = "uvloop, plain Protocol"
    script = "protocol_files.py"
    modules = ("uvloop",)


CONTESTANTS = [Uvicorn, Aiohttp, UvloopProtocol]
