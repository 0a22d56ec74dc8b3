# SPDX-License-Identifier: MIT
"""The HTTP application on a real stack: a client's stack and the server's on one simulated wire and manual clock."""

import gc
import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.server.website import (
    BIG,
    DATE,
    GET,
    MIDDLE,
    Site,
    fill,
    get,
    parse_responses,
)
from ustack.server import request as requests
from ustack.server.http import HttpServer
from ustack.server.response import Refusal
from ustack.testing.pair import Pair
from ustack.testing.testbed import SECOND, STACK_ADDRESS

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
