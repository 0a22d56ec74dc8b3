# SPDX-License-Identifier: MIT
"""A small site and its server, with clients: over the engine's TCP on a manual clock, over memory, and over the
kernel's sockets."""

import gzip
import http.client
import io
from pathlib import Path
from typing import Any

from ustack.server.http import HttpServer
from ustack.testing.loopback import Loopback
from ustack.testing.memory_transport import MemoryTransport
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND, STACK_ADDRESS

START_NS = SECOND
WALL_S = 1_700_000_000
DATE = b"Tue, 14 Nov 2023 22:13:"
BIG = bytes(range(256)) * 4096  # 1 MiB
MIDDLE = bytes(range(255)) * 300  # larger than a small file

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: h", *fields, "", ""]).encode("latin-1")


class Client:
    """One connection to the server: bytes in, bytes out, and how it ended."""

    def __init__(self, site: "Site") -> None:
        self.site = site
        self.connection: Any = site.connect()
        self.received = b""
        self.ended = ""

    def send(self, octets: bytes) -> None:
        self.connection.send(octets)
        self.site.settle()
        self.read()

    def read(self) -> None:
        try:
            while not self.ended:
                octets = self.connection.receive(1 << 20, timeout=0)
                self.received += octets
                if not octets:
                    self.ended = "eof"
                self.site.settle()
        except BlockingIOError:
            pass
        except OSError as error:
            self.ended = type(error).__name__

    def read_until(self, size: int) -> None:
        for _ in range(10_000):
            self.read()
            if len(self.received) >= size or self.ended:
                return
            self.site.pass_time(MILLISECOND)

    def responses(self) -> list[tuple[int, dict[str, str], bytes]]:
        """What the standard library's client makes of everything received."""
        return parse_responses(self.received)


class Canned(io.BytesIO):
    def makefile(self, _: str) -> io.BytesIO:
        return self

    def close(self) -> None:
        pass


def parse_responses(octets: bytes, method: str = "GET") -> list[tuple[int, dict[str, str], bytes]]:
    found = []
    stream = Canned(octets)
    while stream.tell() < len(octets):
        response = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]
        response.begin()
        assert response.status in (100, 204, 304) or response.getheader("Content-Length") is not None
        found.append((response.status, dict(response.getheaders()), response.read()))
    return found


class Site:
    """A directory, its server on stack `a`, clients on stack `b`."""

    def __init__(self, root: Path, *, pair: dict[str, Any] | None = None, **options: Any) -> None:
        self.root = root
        self.pair = Pair(**(pair or {}))
        options.setdefault("hash_key", b"0123456789abcdef")
        self.wall_start_ns = self.pair.now_ns
        self.server = HttpServer(root, wall_clock=self.wall_ns, **options)
        self.pair.a.listen(80, application=self.server)
        self.clients: list[Client] = []
        self.expected_errors = 0

    @property
    def now_ns(self) -> int:
        return self.pair.now_ns

    def wall_ns(self) -> int:
        return WALL_S * SECOND + self.now_ns - self.wall_start_ns

    def connect(self) -> Any:
        connection = self.pair.b.connect(STACK_ADDRESS, 80, wait=False)
        self.settle()
        connection.nodelay = True
        return connection

    def settle(self) -> None:
        self.pair.pump()

    def pass_time(self, duration_ns: int) -> None:
        self.pair.advance(duration_ns)

    def client(self) -> Client:
        self.clients.append(Client(self))
        return self.clients[-1]

    def ask(self, octets: bytes) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        client = self.client()
        client.send(octets)
        client.read_until(1)
        while True:
            before = len(client.received)
            self.pass_time(MILLISECOND)
            client.read()
            if len(client.received) == before:
                break
        found = parse_responses(client.received, octets.split(b" ")[0].decode("latin-1"))
        client.connection.close()
        self.settle()
        return found[-1]

    def stats(self) -> dict[str, Any]:
        return self.server.stats()

    def close(self) -> None:
        for client in self.clients:
            client.connection.abort()
        self.pass_time(10 * SECOND)
        assert self.stats()["internal_errors"] == self.expected_errors
        assert self.stats()["connections_busy"] == 0
        assert self.stats()["connections_open"] == 0
        self.server.close()
        self.close_transport()

    def close_transport(self) -> None:
        self.pair.close()


class MemorySite(Site):
    """The same with no TCP behind: the server cannot tell."""

    def __init__(self, root: Path, *, reads_files: bool = False, **options: Any) -> None:
        self.root = root
        self.transport = MemoryTransport(send_queue_bytes=1 << 30, low_water_bytes=131072, reads_files=reads_files)
        options.setdefault("hash_key", b"0123456789abcdef")
        self.wall_start_ns = self.now_ns
        self.server = HttpServer(root, wall_clock=self.wall_ns, **options)
        self.transport.listen(80, self.server)
        self.clients: list[Client] = []
        self.expected_errors = 0

    @property
    def now_ns(self) -> int:
        return self.transport.now_ns

    def connect(self) -> Any:
        client = self.transport.open(80, window_bytes=1 << 19)
        client.segment_bytes = 1460
        self.settle()
        return client

    def settle(self) -> None:
        self.transport.settle()

    def pass_time(self, duration_ns: int) -> None:
        self.transport.advance(duration_ns)

    def close_transport(self) -> None:
        self.transport.close()


class KernelSite(Site):
    """The same over the kernel's sockets, with one of the strategies."""

    def __init__(self, root: Path, *, strategy: str, sendfile: bool = False, **options: Any) -> None:
        self.root = root
        options.setdefault("hash_key", b"0123456789abcdef")
        self.wall_start_ns = START_NS
        self.loopback: Loopback | None = None
        self.server = HttpServer(root, wall_clock=self.wall_ns, **options)
        # A large file does not fit into the kernel's buffers: what waits for a client waits in the transport.
        self.loopback = Loopback(self.server, strategy, now_ns=START_NS, sndbuf_bytes=1 << 16, sendfile=sendfile)
        self.clients: list[Client] = []
        self.expected_errors = 0

    @property
    def now_ns(self) -> int:
        return START_NS if self.loopback is None else self.loopback.now_ns

    def connect(self) -> Any:
        assert self.loopback is not None
        end = self.loopback.open(receive_bytes=1 << 17)
        self.settle()
        return end

    def settle(self) -> None:
        assert self.loopback is not None
        self.loopback.settle()

    def pass_time(self, duration_ns: int) -> None:
        assert self.loopback is not None
        self.loopback.advance(duration_ns)

    def close_transport(self) -> None:
        assert self.loopback is not None
        self.loopback.close()
        assert set(self.loopback.transport.leaks().values()) == {0}


def fill(root: Path) -> None:
    (root / "index.html").write_text("home")
    (root / "text.txt").write_text("text")
    (root / "big").write_bytes(BIG)
    (root / "middle").write_bytes(MIDDLE)
    (root / "empty").write_bytes(b"")
    (root / "sub").mkdir()
    (root / "sub" / "index.html").write_text("sub")
    (root / "bare").mkdir()
    (root / "packed.css").write_text("a {}" * 50)
    (root / "packed.css.gz").write_bytes(gzip.compress(b"a {}" * 50))
