# SPDX-License-Identifier: MIT
"""The HTTP application on a real stack: a client's stack and the server's on one simulated wire and manual clock."""

import gc
import gzip
import http.client
import io
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ustack.buf import lent
from ustack.server import request as requests
from ustack.server.http import HttpServer
from ustack.server.response import Refusal
from ustack.testing.memory_transport import MemoryTransport
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND, STACK_ADDRESS

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

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.transport = MemoryTransport(send_queue_bytes=1 << 30, low_water_bytes=131072)
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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    fill(root)
    return root


@pytest.fixture
def make_site(root: Path) -> Iterator[Callable[..., Site]]:
    alive = lent.alive()
    made: list[Site] = []

    def make(*, memory: bool = False, **options: Any) -> Site:
        made.append(MemorySite(root, **options) if memory else Site(root, **options))
        return made[-1]

    yield make
    for site in made:
        site.close()
    assert lent.alive() == alive


@pytest.fixture(params=["engine", "memory"])
def site(request: pytest.FixtureRequest, make_site: Callable[..., Site]) -> Site:
    """For what a server does whatever carries its bytes."""
    return make_site(memory=request.param == "memory")


@pytest.fixture
def tcp_site(make_site: Callable[..., Site]) -> Site:
    """For what can be seen in TCP alone."""
    return make_site()


# ---------------------------------------------------------------- what is answered


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", b"home"),
        ("/index.html", "text/html; charset=utf-8", b"home"),
        ("/text.txt?query", "text/plain; charset=utf-8", b"text"),
        ("/sub/", "text/html; charset=utf-8", b"sub"),
        ("/empty", "application/octet-stream", b""),
        ("/middle", "application/octet-stream", MIDDLE),
        ("/big", "application/octet-stream", BIG),
    ],
)
def test_get_and_head(site: Site, path: str, kind: str, body: bytes) -> None:
    status, fields, got = site.ask(get(path))
    assert (status, got) == (200, body)
    assert fields["Content-Type"] == kind
    assert fields["Content-Length"] == str(len(body))
    assert fields["Accept-Ranges"] == "bytes"
    assert fields["Date"].startswith(DATE.decode())
    head_status, head_fields, nothing = site.ask(get(path, method="HEAD"))
    assert (head_status, nothing) == (200, b"")
    assert {**head_fields, "Date": ""} == {**fields, "Date": ""}


@pytest.mark.parametrize("path", ["/text.txt", "/big"])
def test_conditions_and_ranges(site: Site, path: str) -> None:
    body = (site.root / path[1:]).read_bytes()
    _, fields, _ = site.ask(get(path))
    for condition in (f"If-None-Match: {fields['ETag']}", f"If-Modified-Since: {fields['Last-Modified']}"):
        status, found, got = site.ask(get(path, condition))
        assert (status, got, found["ETag"]) == (304, b"", fields["ETag"])
        assert "Content-Length" not in found
    status, found, got = site.ask(get(path, "Range: bytes=1-2"))
    assert (status, got, found["Content-Range"]) == (206, body[1:3], f"bytes 1-2/{len(body)}")
    status, found, got = site.ask(get(path, "Range: bytes=-3", f"If-Range: {fields['ETag']}"))
    assert (status, got) == (206, body[-3:])
    status, found, _ = site.ask(get(path, f"Range: bytes={len(body)}-"))
    assert (status, found["Content-Range"]) == (416, f"bytes */{len(body)}")
    assert site.ask(get(path, 'If-Match: "other"'))[0] == 412


def test_precompressed(site: Site) -> None:
    status, fields, packed = site.ask(get("/packed.css", "Accept-Encoding: gzip"))
    assert (status, fields["Content-Encoding"], fields["Vary"]) == (200, "gzip", "Accept-Encoding")
    assert gzip.decompress(packed) == (site.root / "packed.css").read_bytes()
    _, fields, plain = site.ask(get("/packed.css"))
    assert "Content-Encoding" not in fields
    assert (fields["Vary"], plain) == ("Accept-Encoding", gzip.decompress(packed))


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (get("/missing"), 404),
        (get("/../etc/passwd"), 404),
        (get("/", method="OPTIONS"), 204),
        (get("*", method="OPTIONS"), 204),
        (get("/%2e%2e/etc/passwd"), 404),
        (get("/a%2fb"), 404),
        (get("/a%00b"), 400),
        (get("/bare/"), 403),
        (get("/", method="POST"), 405),
        (get("/", "Expect: miracle"), 417),
    ],
)
def test_errors_that_leave_the_connection_open(site: Site, octets: bytes, status: int) -> None:
    client = site.client()
    client.send(octets)
    client.send(GET)
    assert [response[0] for response in client.responses()] == [status, 200]
    assert client.ended == ""
    if status == 405:
        assert client.responses()[0][1]["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"\x16\x03\x01\x00", 400),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\n\n", 400),
        (b"\rX", 400),
        (get("/", method="BREW"), 501),
        (get("/", "Transfer-Encoding: gzip"), 501),
        (get("/", version="2.0"), 505),
        (get("/", "Content-Length: 100000"), 413),
        (get("/", "Transfer-Encoding: chunked") + b"5\r\nhelloX", 400),
        (get("/", "Transfer-Encoding: chunked") + b"20000\r\n" + b"a" * 0x20000, 413),
        (b"GET /" + b"a" * 9000, 414),
        (get("/", method="A" * 100_000), 501),
        (b"A" * 33, 501),
        (get("/" + "a" * 9000), 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 17000, 431),
        (get("/", "A: " + "a" * 17000), 431),
        (get("/", *["A: b"] * 100), 431),
        (get("/missing", "Connection: " + "a," * 2000), 431),
        (get("http://h/missing", "Connection: " + "a," * 600), 431),
        (get("/", "Connection: " + "a," * 600, method="PUT"), 431),
        (get("/missing", "Expect: 100-continue", "Content-Length: 5"), 404),
    ],
)
def test_errors_that_end_the_connection(site: Site, octets: bytes, status: int) -> None:
    client = site.client()
    client.send(octets)
    client.send(GET)
    [(got, fields, _)] = client.responses()
    assert (got, fields["Connection"]) == (status, "close")
    assert client.ended == "eof"  # not a reset, although there was more to read


def test_redirect_to_the_directory(site: Site) -> None:
    status, fields, _ = site.ask(get("/sub?a=b"))
    assert (status, fields["Location"]) == (301, "/sub/?a=b")


# ---------------------------------------------------------------- connections


@pytest.mark.parametrize(
    ("octets", "field", "ended"),
    [
        (get("/"), None, ""),
        (get("/", "Connection: close"), "close", "eof"),
        (get("/", version="1.0"), "close", "eof"),
        (get("/", "Connection: keep-alive", version="1.0"), "keep-alive", ""),
        (get("/big", "Connection: close"), "close", "eof"),
        (get("/big", "Connection: keep-alive", version="1.0"), "keep-alive", ""),
    ],
)
def test_persistence(site: Site, octets: bytes, field: str | None, ended: str) -> None:
    client = site.client()
    client.send(octets)
    client.read_until(1 << 30 if ended else len(BIG) if b"big" in octets else 1)
    [(status, fields, _)] = client.responses()
    assert (status, fields.get("Connection"), client.ended) == (200, field, ended)


def test_idle_connection_holds_nothing_here(site: Site) -> None:
    clients = [site.client() for _ in range(5)]
    for path in ("/", "/big", "/missing"):
        for client in clients:
            client.send(get(path))
            client.read_until(len(BIG) if path == "/big" else 1)
    site.pass_time(3 * SECOND)
    assert site.stats()["connections_open"] == 5
    assert site.stats()["connections_busy"] == 0


def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    client = site.client()
    client.send(get("/text.txt") + b"\r\n" + get("/missing") + get("/big") + get("/sub/") + get("/", method="POST"))
    client.read_until(len(BIG) + 1000)
    assert [(status, body) for status, _, body in client.responses() if status == 200] == [
        (200, b"text"),
        (200, BIG),
        (200, b"sub"),
    ]
    assert [status for status, _, _ in client.responses()] == [200, 404, 200, 200, 405]


def test_nothing_is_answered_after_close(site: Site) -> None:
    client = site.client()
    client.send(get("/", "Connection: close") + GET + GET)
    assert len(client.responses()) == 1
    assert client.ended == "eof"


def test_flood_of_pipelined_requests_is_held_back(make_site: Callable[..., Site]) -> None:
    site = make_site(max_queued_bytes=100_000)
    client = site.client()
    for _ in range(40):
        client.connection.send(get("/middle") * 10)
        site.settle()
    answered = site.stats()["requests"]
    assert answered < 400  # the client has read nothing
    client.read_until(400 * len(MIDDLE))
    assert [body for _, _, body in client.responses()] == [MIDDLE] * 400


def test_half_closed_client_gets_its_response(site: Site) -> None:
    client = site.client()
    client.connection.send(get("/big"))
    client.connection.shutdown()
    client.read_until(1 << 30)
    assert client.responses()[0][2] == BIG
    assert client.ended == "eof"


@pytest.mark.parametrize("cut", [0, 3, 20])
def test_client_that_leaves_within_a_head(site: Site, cut: int) -> None:
    client = site.client()
    client.send(GET[:cut] if cut else GET)
    client.connection.shutdown()
    site.settle()
    assert site.stats()["connections_open"] == 0


# ---------------------------------------------------------------- one client against the others


def pipelined(kind: str, count: int) -> bytes:
    if kind == "missing":
        return b"".join(get(f"/missing/{number}") for number in range(count))
    if kind == "file":
        return b"".join(get(f"/?{number}") for number in range(count))
    if kind == "not remembered":
        return get("/", "If-Range: x", "Range: bytes=0-1", "Content-Length: 0") * count
    return get("/", method="PUT") * count


@pytest.mark.parametrize("kind", ["missing", "file", "not remembered", "refused"])
def test_pipelined_requests_take_a_bounded_part_of_a_turn(make_site: Callable[..., Site], kind: str) -> None:
    """A burst of 16 frames that each carry a thousand requests is many turns, and somebody else's request comes in
    one of the first."""
    site = make_site(pair={"network": {"mtu": 60_000}})
    flooding = [site.client() for _ in range(16)]
    other = site.client()
    site.pair.a.turns()
    for client in flooding:
        client.connection.send(pipelined(kind, 800))
    other.connection.send(GET)
    before = site.stats()["requests"]
    turns = served = 0
    while not other.received:
        site.pair.network.advance(site.pair.now_ns)
        site.pair.a.poll(site.pair.now_ns)
        site.pair.network.advance(site.pair.now_ns)
        site.pair.b.poll(site.pair.now_ns)
        served = site.stats()["requests"] - before
        other.read()  # once it has come, everything else happens, too
        turns += 1
        assert turns < 40
    if kind != "refused":
        assert served < 16 * 800
        assert site.stats()["put_off"] > 0
    site.settle()
    for _ in range(2000):
        for client in flooding:
            client.read()
        if all(client.received.count(b"HTTP/1.1 ") == 800 for client in flooding):
            break
        site.pass_time(MILLISECOND)
    assert [len(client.responses()) for client in flooding] == [800] * 16
    # Two stages, and what the last request of each may cost beyond its share.
    assert site.pair.a.turns()["units_max"] < 2 * (8192 + 1024)


# ---------------------------------------------------------------- the end of a connection


def small_window(make_site: Callable[..., Site], **options: Any) -> Site:
    """Clients take 8 KB at a time, so that most of a response waits in the server's queue until it is read."""
    return make_site(pair={"b": {"rcv_buffer_bytes": 8192}}, **options)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("late", [b"\r\n", get("/text.txt"), b"x" * 3000])
@pytest.mark.parametrize("path", ["/small", "/middle"])
def test_bytes_that_come_after_the_last_request_cost_nothing_of_its_response(
    make_site: Callable[..., Site], path: str, late: bytes, version: str
) -> None:
    """RFC 9112 section 9.6: what the client sends after `Connection: close` is read and discarded, not reset."""
    site = small_window(make_site)
    (site.root / "small").write_bytes(b"s" * 20_000)
    client = site.client()
    client.connection.send(get(path, "Connection: close", version=version))
    site.settle()
    client.connection.send(late)
    site.settle()
    client.read_until(1 << 30)
    [(status, _, body)] = client.responses()
    assert (status, body, client.ended) == (200, (site.root / path[1:]).read_bytes(), "eof")
    assert site.pair.a.counters()["resets_out"] == 0


@pytest.mark.parametrize("fields", [(), ("Connection: close",)])
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_client_that_reads_slowly_gets_the_whole_response(
    make_site: Callable[..., Site], fields: tuple[str, ...], half_closed: bool
) -> None:
    """The send timeout runs from the last byte acknowledged, not from the end of the response or of the request."""
    site = small_window(make_site)
    client = site.client()
    client.connection.send(get("/middle", *fields))
    if half_closed:
        client.connection.shutdown()
    site.settle()
    while len(client.received) < len(MIDDLE) and not client.ended:
        site.pass_time(20 * SECOND)  # in all several times send_timeout_s
        client.received += client.connection.receive(4096, timeout=0)
    client.read_until(1 << 30 if fields or half_closed else 1)
    assert client.responses()[0][2] == MIDDLE
    assert client.ended == ("eof" if fields or half_closed else "")
    assert site.stats()["stalled_aborted"] == 0


def test_a_client_that_stops_reading_after_close_is_given_up(make_site: Callable[..., Site]) -> None:
    site = small_window(make_site)
    client = site.client()
    client.connection.send(get("/middle", "Connection: close"))
    site.pass_time(50 * SECOND)
    assert site.stats()["connections_open"] == 1
    site.pass_time(20 * SECOND)
    assert (site.stats()["connections_open"], site.stats()["stalled_aborted"]) == (0, 1)


def test_what_follows_a_delivered_response_is_read_for_a_bounded_time_and_size(tcp_site: Site) -> None:
    chatty, silent = tcp_site.client(), tcp_site.client()
    for client in (chatty, silent):
        client.send(get("/", "Connection: close"))
        assert client.ended == "eof"
    tcp_site.pass_time(MILLISECOND)
    for _ in range(100):
        if chatty.connection.state != "CLOSE-WAIT":
            break
        chatty.connection.send(b"x" * 4096)
        tcp_site.settle()
    assert chatty.connection.state == "CLOSED"  # after 256 KiB
    assert silent.connection.state == "CLOSE-WAIT"
    assert tcp_site.stats()["connections_busy"] == 1
    tcp_site.pass_time(5 * SECOND)
    assert tcp_site.stats()["connections_busy"] == 0


def test_no_record_for_a_linger_still_ends_the_connection(make_site: Callable[..., Site]) -> None:
    site = make_site(max_busy=1)
    holder, client = site.client(), site.client()
    holder.send(b"GET / HT")
    client.send(get("/", "Connection: close"))
    assert (len(client.responses()), client.ended) == (1, "eof")
    assert site.stats()["busy_refused"] == 1


# ---------------------------------------------------------------- the end of the server


def test_finish_sends_idle_connections_a_fin_and_takes_no_more(tcp_site: Site) -> None:
    idle = [tcp_site.client() for _ in range(3)]
    idle[0].send(GET)
    tcp_site.server.finish(tcp_site.pair.a)
    tcp_site.settle()
    for client in idle:
        client.read()
    assert [client.ended for client in idle] == ["eof"] * 3
    assert tcp_site.pair.a.counters()["resets_out"] == 0
    with pytest.raises(ConnectionResetError):
        tcp_site.client()
    for client in idle:
        client.connection.close()
    tcp_site.settle()
    assert tcp_site.server.finished
    assert tcp_site.stats()["connections_open"] == 0


def test_finish_lets_what_is_under_way_end(make_site: Callable[..., Site]) -> None:
    site = small_window(make_site)
    asking, waiting, reading = (site.client() for _ in range(3))
    asking.send(GET[:10])
    reading.connection.send(get("/middle"))
    site.settle()
    site.server.finish(site.pair.a)
    site.server.finish(site.pair.a)
    site.settle()
    asking.send(GET[10:])
    reading.read_until(1 << 30)
    waiting.read()
    assert [client.ended for client in (asking, waiting, reading)] == ["eof"] * 3
    [(status, fields, _)] = asking.responses()
    assert (status, fields["Connection"]) == (200, "close")
    assert reading.responses()[0][2] == MIDDLE
    assert not site.server.finished
    site.pass_time(5 * SECOND)
    assert site.server.finished
    assert site.pair.a.counters()["resets_out"] == 0


def test_a_request_that_crosses_the_fin_is_not_reset(tcp_site: Site) -> None:
    client = tcp_site.client()
    tcp_site.server.finish(tcp_site.pair.a)
    client.send(GET)
    client.read()
    assert (client.received, client.ended) == (b"", "eof")
    assert tcp_site.pair.a.counters()["resets_out"] == 0


# ---------------------------------------------------------------- the first line


BAD_LINES = [
    (b"GET /\r\n", 400),
    (b"GET / HTTP/1.1 \r\n", 400),
    (b"GET  / HTTP/1.1\r\n", 400),
    (b"GET / RTSP/1.0\r\n", 400),
    (b"GET / HTTP/2.0\r\n", 505),
    (b"GET /\x7f HTTP/1.1\r\n", 400),
    (b"G\x01T", 400),
    (b"G@T", 400),
    (b"A" * 33, 501),
    (b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n", 414),
]


@pytest.mark.parametrize("dripped", [False, True])
@pytest.mark.parametrize(("line", "status"), BAD_LINES)
def test_a_bad_first_line_is_refused_when_it_has_come(site: Site, line: bytes, status: int, dripped: bool) -> None:
    """Not after the 20 s that a head may take."""
    client = site.client()
    for piece in [line[:-1], line[-1:]] if dripped else [line]:
        client.send(piece)
    assert [found for found, _, _ in client.responses()] == [status]
    assert client.ended == "eof"


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.binary(max_size=40),
        st.lists(
            st.sampled_from([b"GET", b"X", b" ", b"/", b"/a", b"HTTP/1.1", b"HTTP/", b"1.1", b"2", b"\t", b"\r", b"@"]),
            max_size=8,
        ).map(b"".join),
    )
)
def test_a_first_line_is_judged_like_a_whole_head(root: Path, line: bytes) -> None:
    """The oracle is the parser of whole heads: what the line alone is refused with, the head would be too."""
    stream = line.replace(b"\n", b"") + b"\r\n"
    site = Site(root)
    client = site.client()
    client.send(stream)
    early = [status for status, _, _ in client.responses()]
    if early:
        with pytest.raises(Refusal) as caught:
            requests.parse(stream + b"Host: h\r\n\r\n", requests.Limits())
        assert early == [caught.value.status]
    elif stream != b"\r\n":
        assert requests._REQUEST_LINE.match(stream)
    site.close()


# ---------------------------------------------------------------- memory that clients can take


def test_unfinished_heads_are_bounded_in_bytes_and_the_oldest_makes_room(make_site: Callable[..., Site]) -> None:
    site = make_site(max_request_bytes=100_000)
    holders = [site.client() for _ in range(40)]
    for holder in holders:
        holder.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 12_000)
        assert site.stats()["request_bytes"] <= 100_000
    assert site.stats()["requests_displaced"] >= 30
    for holder in holders:
        holder.read()
    told = [status for holder in holders for status, _, _ in holder.responses()]
    assert told == [503] * site.stats()["requests_displaced"]
    honest = site.client()
    honest.send(GET[:20])
    honest.send(GET[20:])
    assert [status for status, _, _ in honest.responses()] == [200]
    for holder in holders:
        holder.connection.abort()
    site.settle()
    assert site.stats()["request_bytes"] == 0


def test_heads_that_wait_for_their_bodies_are_bounded_in_bytes(make_site: Callable[..., Site]) -> None:
    site = make_site(max_request_bytes=100_000)
    holders = [site.client() for _ in range(40)]
    for holder in holders:
        holder.send(get("/", "X: " + "a" * 12_000, "Content-Length: 5") + b"1")
        assert site.stats()["request_bytes"] <= 100_000
    holders[-1].send(b"2345")
    assert [status for status, _, _ in holders[-1].responses()] == [200]
    assert site.stats()["requests_displaced"] >= 30


def test_a_request_whose_100_is_half_sent_is_displaced_by_a_reset(make_site: Callable[..., Site]) -> None:
    """What a connection holds is given back with it in whatever phase it is."""
    site = make_site(max_request_bytes=40_000, pair={"a": {"snd_queue_bytes": 4096}, "b": {"rcv_buffer_bytes": 2048}})
    stuck = site.client()
    (site.root / "filler").write_bytes(b"f" * 4000)
    # The queue holds 4,096 bytes, of which the client has taken 2,048: there is room for a part of the 100 only.
    stuck.connection.send(
        get("/filler", method="GET") + get("/", "X: " + "a" * 9000, "Expect: 100-continue", "Content-Length: 5")
    )
    site.settle()
    for _ in range(40):
        site.client().send(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 12_000)
        assert site.stats()["request_bytes"] <= 40_000
    assert site.stats()["internal_errors"] == 0


def test_one_head_takes_no_more_than_its_limit(site: Site) -> None:
    client = site.client()
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: ")
    for _ in range(160):
        client.send(b"a" * 100)
        assert 0 < site.stats()["request_bytes"] <= 16_385


def test_responses_in_flight_are_bounded_in_bytes(make_site: Callable[..., Site]) -> None:
    """Clients that ask for ever other responses and read none. Refusals and files are shared, and go on."""
    site = make_site(max_response_bytes=1 << 20, max_heads=8, pair={"b": {"rcv_buffer_bytes": 8192}})
    (site.root / "s48").write_bytes(b"s" * 49_000)
    site.ask(get("/text.txt"))
    number = 0
    for _ in range(12):
        client = site.client()
        for _ in range(40):
            number += 1
            client.connection.send(get("/s48", f"Range: bytes={number}-{number + 4000}"))
        site.settle()
        assert site.stats()["response_bytes"] <= 1 << 20
    assert site.stats()["responses_refused"] > 0
    assert site.ask(get("/text.txt"))[0] == 200
    assert site.ask(get("/missing"))[0] == 404


def test_what_is_only_remembered_makes_room_for_responses(make_site: Callable[..., Site]) -> None:
    """Heads seen before and files asked for before keep copies; nobody is refused because of them."""
    site = make_site(max_response_bytes=1 << 20)
    (site.root / "s48").write_bytes(b"s" * 49_000)
    for number in range(300):
        assert site.ask(get("/s48", f"Range: bytes={number}-{number + 4000}"))[0] == 206
        assert site.stats()["response_bytes"] <= 1 << 20
    for number in range(300):
        (site.root / f"f{number}").write_bytes(b"f" * 4000)
        assert site.ask(get(f"/f{number}"))[2] == b"f" * 4000
        assert site.stats()["response_bytes"] <= 1 << 20
    assert site.ask(get("/s48", "Range: bytes=0-0"))[0] == 206
    assert site.stats()["responses_refused"] == 0


def test_a_file_is_served_while_ranges_fill_the_memory_for_responses(make_site: Callable[..., Site]) -> None:
    """Also one that nobody has asked for before."""
    site = make_site(max_response_bytes=1 << 20, pair={"b": {"rcv_buffer_bytes": 8192}})
    (site.root / "s48").write_bytes(b"s" * 49_000)
    for number in range(400):
        if number % 40 == 0:
            client = site.client()
        client.connection.send(get("/s48", f"Range: bytes={number}-{number + 4000}"))
        site.settle()
    assert site.stats()["responses_refused"] > 0
    for number in range(40):
        (site.root / f"f{number}").write_bytes(b"f" * 4000)
        assert site.ask(get(f"/f{number}"))[2] == b"f" * 4000


def test_bodies_that_are_copies_are_bounded_in_bytes(make_site: Callable[..., Site]) -> None:
    site = make_site(max_copied_bytes=100_000)
    for number in range(20):
        (site.root / f"f{number}").write_bytes(b"f" * 20_000)
        assert len(site.ask(get(f"/f{number}"))[2]) == 20_000
        assert 0 < site.stats()["copied_bytes"] <= 100_000
    assert site.stats()["files_open"] == 5


# ---------------------------------------------------------------- request bodies


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("Content-Length: 5", b"hello"),
        ("Content-Length: 0", b""),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"0\r\nTrailer: GET / HTTP/1.1\r\n\r\n"),
    ],
)
def test_request_bodies_are_discarded(site: Site, method: str, field: str, body: bytes) -> None:
    client = site.client()
    stream = get("/", field, method=method) + body + GET
    for octet in stream:
        client.send(bytes([octet]))
    assert [status for status, _, _ in client.responses()] == [200 if method == "GET" else 405, 200]


def test_continue_is_sent_before_the_body_is_waited_for(site: Site) -> None:
    client = site.client()
    client.send(get("/", "Expect: 100-continue", "Content-Length: 5"))
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello" + GET)
    assert [status for status, _, _ in parse_responses(client.received[25:])] == [200, 200]


# ---------------------------------------------------------------- time limits


def test_idle_connection_is_closed_silently(site: Site) -> None:
    client, fresh = site.client(), site.client()
    client.send(GET)
    before = len(client.received)
    site.pass_time(76 * SECOND)
    client.read()
    fresh.read()
    assert (client.ended, fresh.ended, len(client.received) - before, fresh.received) == ("eof", "eof", 0, b"")
    assert site.stats()["idle_closed"] == 2


@pytest.mark.parametrize("octets", [b"GET / HT", b"\r", get("/", "Content-Length: 5") + b"123"])
def test_slow_request_gets_408(site: Site, octets: bytes) -> None:
    client = site.client()
    client.send(octets)
    site.pass_time(21 * SECOND)
    client.read()
    assert [status for status, _, _ in client.responses()] == [408]
    assert client.ended == "eof"
    assert site.stats()["head_timeouts"] == 1


def test_dripping_octets_buy_no_time(site: Site) -> None:
    client = site.client()
    for octet in get("/", "A: " + "b" * 60):
        client.send(bytes([octet]))
        site.pass_time(SECOND)
        if client.received:
            break
    assert [status for status, _, _ in client.responses()] == [408]


def test_reader_that_stopped_is_aborted(site: Site) -> None:
    client = site.client()
    client.connection.send(get("/big") * 4)
    site.pass_time(300 * SECOND)
    assert site.stats()["connections_open"] == 0
    assert site.stats()["stalled_aborted"] == 1


def test_reader_that_is_slow_is_served(site: Site) -> None:
    client = site.client()
    client.connection.send(get("/big") * 2)
    while len(client.received) < 2 * len(BIG) and not client.ended:
        site.pass_time(20 * SECOND)
        client.received += client.connection.receive(100_000, timeout=0)
    site.pass_time(SECOND)
    assert [body for _, _, body in client.responses()] == [BIG, BIG]
    assert site.stats()["stalled_aborted"] == 0


# ---------------------------------------------------------------- remembered heads


def test_repeated_head_is_remembered(site: Site) -> None:
    for path in ("/text.txt", "/big", "/text.txt", "/big", "/text.txt", "/text.txt"):
        site.ask(get(path))
    assert (site.stats()["head_misses"], site.stats()["head_hits"]) == (2, 4)


REFUSED = [
    (get("/", method="PUT"), 405),
    (get("*", method="OPTIONS"), 204),
    (get("/a%2fb"), 404),
    (get("/%zz"), 400),
    (get("/", "Expect: miracle"), 417),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GARBAGE\r\n\r\n", 400),
    (get("/", method="BREW"), 501),
    (get("/", version="2.0"), 505),
    (get("/", "Content-Length: 100000"), 413),
    (get("/", *["A: b"] * 110), 431),
    (get("/missing"), 404),
    (get("/missing/"), 404),
    (get("/text.txt/x"), 404),
    (get("/" + "x" * 300), 404),
]


@pytest.mark.parametrize(("octets", "status"), REFUSED)
def test_refusals_are_remembered(site: Site, octets: bytes, status: int) -> None:
    responses = [site.ask(octets) for _ in range(3)]
    assert [found for found, _, _ in responses] == [status] * 3
    assert responses[0] == responses[2]
    assert (site.stats()["head_misses"], site.stats()["head_hits"]) == (1, 2)


def test_requests_with_bodies_are_not_remembered(site: Site) -> None:
    for octets in (get("/", "Content-Length: 1") + b"x", get("/missing", "Content-Length: 1") + b"x"):
        site.ask(octets)
    assert site.stats()["heads_remembered"] == 0


@pytest.mark.parametrize("path", ["/new.txt", "/new/", "/new/a"])
@pytest.mark.parametrize("checks", [1000, 0])
def test_a_remembered_404_ends_when_the_file_comes(make_site: Callable[..., Site], path: str, checks: int) -> None:
    """At once on a quiet server, within revalidate_s on one that has no checks left."""
    site = make_site(checks_per_second=checks)
    assert site.ask(get(path))[0] == site.ask(get(path))[0] == 404
    assert site.stats()["head_hits"] == 1
    file = site.root / (path[1:] + ("index.html" if path.endswith("/") else ""))
    file.parent.mkdir(exist_ok=True)
    file.write_text("here")
    if not checks:
        assert site.ask(get(path))[0] == 404
        site.pass_time(1001 * MILLISECOND)
    assert site.ask(get(path))[0] == 200


def test_a_link_that_leads_out_is_looked_at_each_time(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (site.root / "out").symlink_to("../secret")
    assert [site.ask(get("/out"))[0] for _ in range(2)] == [404, 404]
    assert site.stats()["heads_remembered"] == 0


def test_head_table_is_bounded_in_bytes(make_site: Callable[..., Site]) -> None:
    """Partial responses are remembered without the bytes of the file."""
    site = make_site(max_heads_bytes=100_000)
    (site.root / "s48").write_bytes(b"s" * 49_000)
    for number in range(500):
        status, _, body = site.ask(get("/s48", f"Range: bytes=0-{48_999 - number}"))
        assert (status, len(body)) == (206, 49_000 - number)
        assert 0 < site.stats()["heads_bytes"] <= 100_000
    assert site.stats()["heads_remembered"] > 100
    assert site.stats()["response_bytes"] < 100_000
    assert site.stats()["copied_bytes"] < 60_000


def test_head_table_is_bounded_and_keeps_what_is_used(make_site: Callable[..., Site]) -> None:
    site = make_site(max_heads=8)
    site.ask(get("/text.txt"))
    site.ask(get("/sub/"))
    for number in range(100):
        site.ask(get("/text.txt"))
        site.ask(get(f"/?{number}"))
    assert site.stats()["heads_remembered"] == 8
    assert site.stats()["head_hits"] == 100


def test_date_moves_with_the_clock_in_ready_made_responses(site: Site) -> None:
    dates = []
    for _ in range(3):
        dates.append(site.ask(get("/"))[1]["Date"])
        site.pass_time(2 * SECOND)
    assert dates == sorted(set(dates))


def test_response_in_flight_keeps_its_octets_when_it_is_dated_again(make_site: Callable[..., Site]) -> None:
    site = make_site(pair={"network": {"delay_ns": 1500 * MILLISECOND}})
    clients = [site.client() for _ in range(3)]
    site.pass_time(30 * SECOND)
    for client in clients:
        client.connection.send(get("/text.txt"))
        site.pass_time(SECOND)
    site.pass_time(10 * SECOND)
    for client in clients:
        client.read()
    dates = [client.responses()[0][1]["Date"] for client in clients]
    assert len(set(dates)) == 3


# ---------------------------------------------------------------- files that change


@pytest.mark.parametrize("name", ["text.txt", "big"])
def test_changed_file_is_served_anew(site: Site, name: str) -> None:
    path = site.root / name
    before = site.ask(get(f"/{name}"))
    new = path.with_suffix(".new")
    new.write_bytes(b"changed" * (1 if name == "text.txt" else 20_000))
    new.rename(path)
    site.pass_time(1100 * MILLISECOND)
    after = site.ask(get(f"/{name}"))
    assert after[2] == path.read_bytes()
    assert after[1]["ETag"] != before[1]["ETag"]
    path.unlink()
    site.pass_time(1100 * MILLISECOND)
    assert site.ask(get(f"/{name}"))[0] == 404


def test_quiet_server_sees_a_change_at_once(site: Site) -> None:
    for number in range(5):
        (site.root / "text.txt").write_text(f"version {number}" + "." * number)
        assert site.ask(get("/text.txt"))[2] == (site.root / "text.txt").read_bytes()


def test_busy_server_looks_at_the_disk_within_its_budget(make_site: Callable[..., Site]) -> None:
    site = make_site(checks_per_second=0)
    assert site.ask(get("/text.txt"))[2] == b"text"
    (site.root / "text.txt").write_text("changed")
    assert site.ask(get("/text.txt"))[2] == b"text"
    site.pass_time(SECOND)
    assert site.ask(get("/text.txt"))[2] == b"changed"


def test_new_precompressed_file_is_noticed(site: Site) -> None:
    assert "Vary" not in site.ask(get("/text.txt", "Accept-Encoding: gzip"))[1]
    (site.root / "text.txt.gz").write_bytes(gzip.compress(b"text"))
    site.pass_time(1100 * MILLISECOND)
    assert site.ask(get("/text.txt", "Accept-Encoding: gzip"))[1]["Content-Encoding"] == "gzip"


def test_housekeeping_lets_go_of_deleted_files(site: Site) -> None:
    site.ask(get("/big"))
    assert len(BIG) < site.stats()["held_bytes"] < len(BIG) + 1000
    (site.root / "big").unlink()
    site.server.housekeeping()
    assert (site.stats()["files_open"], site.stats()["held_bytes"]) == (0, 0)


def test_replaced_root_is_followed(site: Site) -> None:
    site.ask(get("/text.txt"))
    site.root.rename(site.root.parent / "old")
    site.root.mkdir()
    (site.root / "text.txt").write_text("new root")
    site.server.housekeeping()
    assert site.ask(get("/text.txt"))[2] == b"new root"


@pytest.mark.parametrize("fields", [(), ("Connection: close",)])
@pytest.mark.parametrize("left", [0, 4096, 100_000, len(BIG) - 1])
def test_file_cut_under_a_response_never_looks_complete(site: Site, fields: tuple[str, ...], left: int) -> None:
    client = site.client()
    client.connection.send(get("/big", *fields))
    site.settle()
    os.truncate(site.root / "big", left)
    site.pass_time(1100 * MILLISECOND)
    client.read_until(len(BIG))
    site.pass_time(200 * SECOND)
    client.read()
    assert client.ended == "ConnectionReset"
    assert len(site.ask(get("/big"))[2]) == left  # and the server lives on


def test_table_of_files_is_bounded(make_site: Callable[..., Site]) -> None:
    site = make_site(max_files=4)
    for number in range(20):
        (site.root / f"f{number}").write_text(str(number))
    for _ in range(2):
        for number in range(20):
            assert site.ask(get(f"/f{number}"))[2] == str(number).encode()
    assert site.stats()["files_open"] == 4


def test_held_bytes_are_bounded(make_site: Callable[..., Site]) -> None:
    site = make_site(max_held_bytes=len(BIG) + 1000)
    for _ in range(3):
        for path in ("/big", "/middle", "/text.txt"):
            assert site.ask(get(path))[0] == 200
            assert site.stats()["held_bytes"] <= len(BIG) + 2000


# ---------------------------------------------------------------- errors of our own


def test_unexpected_error_is_a_500_and_is_counted(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(requests, "decide", broken)
        status, fields, _ = site.ask(GET)
    assert (status, fields["Connection"]) == (500, "close")
    assert site.stats()["internal_errors"] == 1
    assert "ZeroDivisionError" in caplog.text
    site.expected_errors = 1
    assert site.ask(GET)[0] == 200


def test_interrupt_within_an_upcall_is_not_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised from poll() once the turn is over, and the client gets its answer all the same."""
    decide, calls = requests.decide, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return decide(*arguments)

    client = site.client()
    with monkeypatch.context() as patch:
        patch.setattr(requests, "decide", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.send(GET)
    site.settle()
    client.read()
    assert [status for status, _, _ in client.responses()] == [200]
    assert site.stats()["internal_errors"] == 0


class Deadline(Exception):
    """What the handler below raises: a program's own exception."""


def test_what_a_signal_handler_raises_within_an_upcall_is_not_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it is an ordinary exception: the handler's frame is in its traceback. No client gets a 500 for it."""
    decide, calls = requests.decide, 0

    def handler(number: int, frame: object) -> None:
        raise Deadline

    def signalled(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            signal.raise_signal(signal.SIGUSR2)
        return decide(*arguments)

    client = site.client()
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(requests, "decide", signalled)
            with pytest.raises(Deadline):
                client.send(GET)
    finally:
        signal.signal(signal.SIGUSR2, before)
    site.settle()
    client.read()
    assert [status for status, _, _ in client.responses()] == [200]
    assert site.stats()["internal_errors"] == 0


def test_a_client_whose_decision_is_interrupted_again_and_again_is_reset(
    tcp_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise SystemExit

    client = tcp_site.client()
    with monkeypatch.context() as patch:
        patch.setattr(requests, "decide", interrupted)
        with pytest.raises(SystemExit):
            client.send(GET)
    tcp_site.settle()
    assert client.connection.reason == "reset"
    assert tcp_site.ask(GET)[0] == 200


def test_closed_server_lets_go_of_its_connections(root: Path) -> None:
    site = Site(root)
    client = site.client()
    site.server.close()
    site.server.close()
    client.send(GET)
    assert (client.received, client.ended) == (b"", "ConnectionReset")
    with pytest.raises(ConnectionResetError):
        site.client()
    site.pair.close()


# ---------------------------------------------------------------- access log

LINE = re.compile(rb'198\.18\.0\.1 - - \[14/Nov/2023:22:13:\d\d \+0000\] "(.*?)" (\d+) (\d+) "(.*?)" "(.*?)"\n')


def test_access_log_in_combined_format(make_site: Callable[..., Site], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    site = make_site(access_log=path)
    site.ask(get("/", "Referer: http://x/", 'User-Agent: a"b'))
    site.ask(get("/big"))
    site.ask(get("/", method="HEAD"))
    site.ask(b"\x16\x03\n")
    site.ask(get("/missing"))
    assert path.read_bytes() == b""  # nothing is written on the data path
    site.server.housekeeping()
    assert LINE.findall(path.read_bytes()) == [
        (b"GET / HTTP/1.1", b"200", b"4", b"http://x/", b"a\\x22b"),
        (b"GET /big HTTP/1.1", b"200", b"%d" % len(BIG), b"-", b"-"),
        (b"HEAD / HTTP/1.1", b"200", b"0", b"-", b"-"),
        (b"\\x16\\x03\\x0A", b"400", b"72", b"-", b"-"),
        (b"GET /missing HTTP/1.1", b"404", b"68", b"-", b"-"),
    ]
    assert site.stats()["log_lines"] == 5


def test_log_ring_overflow_is_counted(make_site: Callable[..., Site]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    site = make_site(access_log=writer, log_lines=4)
    for _ in range(10):
        assert site.ask(GET)[0] == 200  # a reader that stands still holds nobody up
    site.server.housekeeping()
    assert (site.stats()["log_lines"], site.stats()["log_lost"]) == (0, 6)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("limit_bytes", [700, 717, 745])
def test_a_full_disk_leaves_whole_lines_in_the_log(
    make_site: Callable[..., Site], tmp_path: Path, limit_bytes: int
) -> None:
    """No line is joined to the rest of another when there is room again."""
    path = tmp_path / "access.log"
    site = make_site(access_log=path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(20):
        site.ask(GET)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        site.server.housekeeping()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = len(path.read_bytes().splitlines())
    assert 0 < kept < 20
    assert site.stats()["log_error"] == "File too large"
    assert (site.stats()["log_lines"], site.stats()["log_lost"]) == (kept, 20 - kept)
    site.ask(GET)
    site.server.housekeeping()
    lines = path.read_bytes().splitlines(keepends=True)
    assert [bool(LINE.fullmatch(line)) for line in lines] == [True] * (kept + 1)
    assert site.stats()["log_error"] is None


# ---------------------------------------------------------------- streams

REQUESTS = [
    GET,
    get("/text.txt"),
    get("/middle"),
    get("/middle", "Range: bytes=100-70000"),
    get("/missing"),
    b"\r\n" + get("/sub"),
    get("/packed.css", "Accept-Encoding: gzip"),
    get("/", "Content-Length: 4") + b"\r\n\r\n",
    get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n\r\n",
]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6), data=st.data())
def test_splits_of_a_stream_change_nothing(tmp_path_factory: pytest.TempPathFactory, chosen: Any, data: Any) -> None:
    stream = b"".join([*chosen, get("/text.txt", "Connection: close")])
    root = tmp_path_factory.mktemp("site")
    fill(root)
    outputs = []
    for cuts in ([], sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=10)))):
        site = Site(root, small_file_bytes=data.draw(st.sampled_from([0, 49152])))
        client = site.client()
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            client.send(stream[start:end])
        client.read_until(1 << 30)
        assert client.ended == "eof"
        outputs.append(re.sub(rb"Date: [^\r]*", b"Date", client.received))
        site.close()
    assert outputs[0] == outputs[1]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(noise=st.binary(min_size=1, max_size=200), at=st.integers(0, 200), remove=st.integers(0, 20))
def test_hostile_octets_end_in_an_error_or_a_close(root: Path, noise: bytes, at: int, remove: int) -> None:
    stream = (
        get("/text.txt", "Range: bytes=0-1") + get("/", "Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\n\r\n" + GET
    )
    site = Site(root)
    client = site.client()
    client.send(stream[:at] + noise + stream[at + remove :])
    site.pass_time(100 * SECOND)
    client.read()
    assert client.ended == "eof"
    assert all(
        status in (200, 206, 301, 400, 404, 405, 408, 413, 414, 431, 501, 505) for status, _, _ in client.responses()
    )
    site.close()


# ---------------------------------------------------------------- opening


def test_what_cannot_be_opened_is_said_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        HttpServer(tmp_path / "missing")
    with pytest.raises(NotADirectoryError):
        HttpServer(root / "index.html")
    with pytest.raises(FileNotFoundError):
        HttpServer(root, access_log=tmp_path / "missing" / "log")
    for options in ({"idle_timeout_s": 0}, {"max_files": 0}, {"log_lines": 3}, {"hash_key": b"short"}):
        with pytest.raises(ValueError, match=r"."):
            HttpServer(root, **options)
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_heads", 2**31 - 1), ("max_heads", 2**32 - 1), ("max_files", 2**32 - 1), ("small_file_bytes", 2**64 - 1)],
)
def test_a_limit_whose_table_no_memory_holds_is_refused(tmp_path: Path, name: str, value: int) -> None:
    """Sizes are counted in bytes: they must not overflow."""
    with pytest.raises(ValueError, match="out of its range"):
        HttpServer(tmp_path, **{name: value})


def test_a_server_that_nobody_initialised_serves_nobody() -> None:
    with Pair() as pair:
        server = HttpServer.__new__(HttpServer)
        pair.a.listen(80, application=server)
        client = pair.b.connect(STACK_ADDRESS, 80)
        pair.advance(SECOND)
        assert client.reason == "reset"
        server.housekeeping()
        with pytest.raises(ValueError, match="closed"):
            server.decide(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.close()
