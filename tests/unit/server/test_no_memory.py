# SPDX-License-Identifier: MIT
"""A server for which each allocation fails in turn: while it is made, and while it answers.

What cannot be made is not made; a request that finds no memory gets a 5xx or a reset; nothing leaks, and the next one
is answered as if nothing had been.
"""

import errno
import gzip
import itertools
import logging
from pathlib import Path

import pytest

from ustack.buf import lent
from ustack.server.http import HttpServer
from ustack.testing.memory_transport import MemoryTransport
from ustack.testing.parts.failing import Failing

SECOND = 1_000_000_000
SECTION = "Host: h\r\nUser-Agent: test\r\n\r\n"
REQUESTS = [
    f"{line}\r\n{fields}{SECTION}{body}".encode()
    for line, fields, body in (
        ("GET / HTTP/1.1", "", ""),
        ("GET /?again HTTP/1.1", "", ""),
        ("GET /text.txt HTTP/1.1", "", ""),
        ("GET /text.txt HTTP/1.1", "Range: bytes=1-2\r\n", ""),
        ("GET /text.txt HTTP/1.1", "If-None-Match: *\r\n", ""),
        ("GET /packed.css HTTP/1.1", "Accept-Encoding: gzip\r\n", ""),
        ("GET /missing HTTP/1.1", "", ""),
        ("GET /missing?again HTTP/1.1", "", ""),
        ("GET /sub HTTP/1.1", "", ""),
        ("GET /large HTTP/1.1", "", ""),
        ("GET / HTTP/1.1", "Content-Length: 2\r\n", "ab"),
        ("BAD", "", ""),
    )
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "sub").mkdir(parents=True)
    (root / "index.html").write_text("home")
    (root / "text.txt").write_text("text")
    (root / "packed.css").write_text("a {}")
    (root / "packed.css.gz").write_bytes(gzip.compress(b"a {}"))
    (root / "large").write_bytes(bytes(100_000))
    return root


def answered(transport: MemoryTransport, request: bytes) -> bytes:
    client = transport.open(80, window_bytes=1 << 20)
    client.send(request)
    transport.settle()
    received = bytes(client.received)
    client.abort()
    transport.settle()
    return received


@pytest.mark.parametrize("log", [False, True], ids=["no log", "log"])
@pytest.mark.parametrize("times", [1, None], ids=["once", "from then on"])
@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("ustack.server.decide", "calloc"),
        ("ustack.server.decide", "malloc"),
        ("ustack.server.decide", "strdup"),
        ("ustack.server.plainheads", "calloc"),
        ("ustack.server.plainheads", "strdup"),
        ("ustack.server.loading", "strdup"),
        ("ustack.server.filetable", "calloc"),
        ("ustack.server.filetable", "malloc"),
        ("ustack.server.filetable", "strdup"),
        ("ustack.server.headtable", "malloc"),
        ("ustack.server.headtable", "calloc"),
        ("ustack.server.logring", "calloc"),
        ("ustack.server.logring", "malloc"),
        ("ustack.server.ready", "calloc"),
        ("ustack.server.receiving", "malloc"),
        ("ustack.buf.lent", "malloc"),
        ("ustack.buf.slab", "mprotect"),
        ("ustack.buf.slab", "mmap"),
    ],
)
def test_each_allocation_may_fail(
    root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    module: str,
    function: str,
    times: int | None,
    log: bool,
) -> None:
    caplog.set_level(logging.CRITICAL)
    alive = lent.alive()
    failed = 0
    for place in itertools.count():
        transport = MemoryTransport(send_queue_bytes=1 << 20)
        server = None
        with Failing(module, function, errno.ENOMEM, after=place, times=times) as calls:
            try:
                server = HttpServer(root, hash_key=bytes(16), access_log=tmp_path / "log" if log else None)
                transport.listen(80, server)
            except MemoryError:
                assert server is None
            else:
                for request in REQUESTS:
                    answered(transport, request)
        failed += calls.failed > 0
        if server is not None:
            for request in REQUESTS[::3]:
                assert answered(transport, request)[9:12] in (b"200", b"206", b"404", b"412", b"304")
            assert server.stats()["connections_open"] == 0
            server.housekeeping()
            server.close()
        del server
        transport.close()
        assert lent.alive() == alive
        if calls.failed == 0:
            break
        assert place < 100
    assert failed
