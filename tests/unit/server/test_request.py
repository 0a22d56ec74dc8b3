# SPDX-License-Identifier: MIT
"""Heads that are parsed and refused: RFC 9112 (request line, fields, framing, Host, persistence)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.server.heads import LIMITS, NOW_S, head, parse, resource
from ustack.server import request as requests
from ustack.server.response import CLOSE, PERSIST, PERSIST_ANNOUNCED, Refusal
from ustack.server.selection import decide
from ustack.server.target import locate


def refused(octets: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        requests.parse(octets, LIMITS)
    return caught.value


def outcome(octets: bytes) -> Refusal | None:
    """Through everything that a head goes through; None: it is answered from a resource."""
    try:
        request = requests.parse(octets, LIMITS)
        locate(request)
        requests.check_expectation(request)
        decide(request, resource(), NOW_S)
    except Refusal as refusal:
        return refusal
    return None


# ---------------------------------------------------------------- framing


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"SOURCE / ICE/1.0\r\nHost: h\r\n\r\n", 400),
        (head("GET / HTTP/1.1", "A : b"), 400),
        (head("GET / HTTP/1.1", "A: b", " folded"), 400),
        (head("GET / HTTP/1.1", "A: b\x00"), 400),
        (head("GET / HTTP/1.1", "A: b\rc"), 400),
        (head("GET / HTTP/1.1", "nocolon"), 400),
        (head("GET / HTTP/1.1", "(: x"), 400),
        (head("FOO / HTTP/1.1"), 501),
        (head("get / HTTP/1.1"), 501),
        (head("PROPFIND / HTTP/1.1"), 501),
        (head("GET / HTTP/2.0"), 505),
        (head("PRI * HTTP/2.0"), 505),
        (head("GET / HTTP/0.9"), 505),
        (head("POST / HTTP/1.1", "Transfer-Encoding: gzip"), 501),
        (head("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"), 501),
        (head("POST / HTTP/1.1", "Transfer-Encoding: chunked, gzip"), 400),
        (head("POST / HTTP/1.1", "Transfer-Encoding: chunked, chunked"), 400),
        (head("POST / HTTP/1.1", "Transfer-Encoding: "), 400),
        (head("POST / HTTP/1.0", "Transfer-Encoding: chunked"), 400),
        (head("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 3"), 400),
        (head("POST / HTTP/1.1", "Content-Length: 3", "Content-Length: 3"), 400),
        (head("POST / HTTP/1.1", "Content-Length: 3, 3"), 400),
        (head("POST / HTTP/1.1", "Content-Length: -3"), 400),
        (head("POST / HTTP/1.1", "Content-Length: 99999999999999999999999"), 400),
        (head("POST / HTTP/1.1", "Content-Length: 65537"), 413),
        (head("GET / HTTP/1.1", host=None), 400),
        (head("GET / HTTP/1.1", "Host: second"), 400),
        (head("GET / HTTP/1.0", "Host: second"), 400),
        (head("GET / HTTP/1.1", host="a b"), 400),
        (head("GET / HTTP/1.1", host="user@h"), 400),
        (head("GET / HTTP/1.1", host="h:80x"), 400),
        (head("GET / HTTP/1.1", host="h/x"), 400),
        (head("GET / HTTP/1.1", host=""), 400),
        (head("GET / HTTP/1.0", host=""), 400),
        (head("GET / HTTP/1.1", host=".."), 400),
        (head("GET / HTTP/1.1", host="."), 400),
        (head("GET / HTTP/1.1", host=".h"), 400),
        (head("GET / HTTP/1.1", host="a..b"), 400),
        (head("GET / HTTP/1.1", host=":80"), 400),
        (head("GET / HTTP/1.1", host="[::1"), 400),
        (head("GET / HTTP/1.1", host="[:::]"), 400),
        (head("GET / HTTP/1.1", host="[1.2.3.4]"), 400),
        (head("GET / HTTP/1.1", host="[fe80::1%25eth0]"), 400),
        (head("GET / HTTP/1.1", host="%4"), 400),
        (head("GET http://h/ HTTP/1.1", host=".."), 400),
        (head("GET / RTSP/1.0"), 400),
        (head("DESCRIBE rtsp://h/a RTSP/1.0"), 400),
        (head("GET / HTTPS/1.1"), 400),
        (head("A" * 33 + " / HTTP/1.1"), 501),
        (head("A" * 32 + " / HTTP/1.1"), 501),
        (head("A" * 100_000 + " / HTTP/1.1"), 501),
        (head("A" * 100_000), 501),
        (head("GET /" + "a" * 8200 + " HTTP/1.1"), 414),
        (head("GET / HTTP/1.1", "A: " + "b" * 16400), 431),
        (head("GET / HTTP/1.1", *[f"A{i}: b" for i in range(100)]), 431),
    ],
)
def test_refused_heads_end_the_connection(octets: bytes, status: int) -> None:
    refusal = refused(octets)
    assert (refusal.status, refusal.close) == (status, True)


def test_every_cut_of_a_head_is_refused_or_parsed() -> None:
    whole = head("GET /a HTTP/1.1", "Range: bytes=0-1")
    for cut in range(len(whole)):
        refusal = outcome(whole[:cut] + b"\r\n\r\n")
        assert refusal is None or refusal.close


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=100))
def test_hostile_octets_end_in_a_refusal_or_a_request(first: bytes, second: bytes) -> None:
    for octets in (first + b"\r\n\r\n", b"GET /" + first + b" HTTP/1.1\r\nHost: h\r\nA: " + second + b"\r\n\r\n"):
        refusal = outcome(octets)
        assert refusal is None or 400 <= refusal.status < 600


def test_as_many_fields_as_allowed_are_parsed() -> None:
    assert len(parse("GET / HTTP/1.1", *[f"A{i}: b" for i in range(99)]).fields) == 100


def test_higher_minor_version_is_served_as_1_1() -> None:
    assert parse("GET / HTTP/1.7").connection == PERSIST


def test_upgrade_is_ignored() -> None:
    assert parse("GET / HTTP/1.1", "Upgrade: h2c", "Connection: upgrade").connection == PERSIST


@pytest.mark.parametrize(
    "host",
    [
        "h",
        "h:80",
        "h:",
        "h.",
        "198.18.0.2:8080",
        "[2001:db8::1]:80",
        "[::ffff:1.2.3.4]",
        "[v1.a:b]",
        "a_b.example",
        "%41",
    ],
)
def test_hosts_that_are_well_formed(host: str) -> None:
    assert parse("GET / HTTP/1.1", host=host).fields[b"host"] == [host.encode()]


@pytest.mark.parametrize("line", ["OPTIONS *", "CONNECT h:80", "GET http://h/a"])
def test_an_empty_host_is_right_where_the_target_needs_none(line: str) -> None:
    """RFC 9112 section 3.2: a client sends it empty when the target URI has no authority."""
    assert parse(f"{line} HTTP/1.1", host="").fields[b"host"] == [b""]


def test_http_1_0_needs_no_host() -> None:
    assert parse("GET / HTTP/1.0", host=None).minor == 0


@pytest.mark.parametrize(
    ("line", "fields", "connection"),
    [
        ("GET / HTTP/1.1", (), PERSIST),
        ("GET / HTTP/1.1", ("Connection: close",), CLOSE),
        ("GET / HTTP/1.1", ("Connection: keep-alive, Close",), CLOSE),
        ("GET / HTTP/1.1", ("Connection: x", "Connection: close"), CLOSE),
        ("GET / HTTP/1.0", (), CLOSE),
        ("GET / HTTP/1.0", ("Connection: Keep-Alive",), PERSIST_ANNOUNCED),
        ("CONNECT h:80 HTTP/1.1", (), CLOSE),
    ],
)
def test_persistence(line: str, fields: tuple[str, ...], connection: int) -> None:
    assert parse(line, *fields).connection == connection


def test_expectations() -> None:
    body = "Content-Length: 3"
    assert requests.waits_for_continue(parse("GET / HTTP/1.1", "Expect: 100-Continue", body))
    assert not requests.waits_for_continue(parse("GET / HTTP/1.1", "Expect: 100-continue"))
    assert not requests.waits_for_continue(parse("GET / HTTP/1.0", "Expect: 100-continue", body))
    requests.check_expectation(parse("GET / HTTP/1.1", "Expect: 100-Continue", body))
    with pytest.raises(Refusal) as caught:
        requests.check_expectation(parse("GET / HTTP/1.1", "Expect: miracle"))
    assert caught.value.status == 417


LINES = [
    "Host: h",
    "Host: ",
    "Host: a..b",
    "A: b",
    "A : b",
    " x",
    "Content-Length: 3",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "Upgrade: h2c",
    "A: \x00",
    "nocolon",
    "Connection: upgrade",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=5), st.sampled_from(["GET", "HEAD"]), st.sampled_from("01"))
def test_what_is_remembered_of_fields_is_what_is_parsed(lines: list[str], method: str, minor: str) -> None:
    """A path's fields are remembered by what follows the request line; those of an absolute target never are."""

    def parsed(target: str) -> object:
        try:
            request = requests.parse(head(f"{method} {target} HTTP/1.{minor}", *lines, host=None), LIMITS)
        except Refusal as refusal:
            return refusal.status, refusal.close
        return request.fields, request.content_length, request.chunked, request.connection, request.method

    expected = parsed("http://h/a")
    if isinstance(expected[0], dict) and expected[0].get(b"host") == [b""]:  # type: ignore[index]
        expected = (400, True)  # which only an absolute target allows
    assert parsed("/a") == expected
    assert parsed("/b") == expected


# ---------------------------------------------------------------- work for each byte


@pytest.mark.parametrize(
    "octets",
    [
        head("GET / HTTP/1.1", *["a:"] * 4000),
        head("GET / HTTP/1.1", "Connection: " + "a," * 8000),
        head("GET / HTTP/1.1", "Expect: " + "a," * 8000),
        head("GET / HTTP/1.1", *["Connection: " + "a," * 500] * 16),
    ],
)
def test_what_costs_more_than_its_bytes_is_refused(octets: bytes) -> None:
    def decided() -> None:
        request = requests.parse(octets, LIMITS)
        requests.check_expectation(request)
        assert request.connection == PERSIST

    with pytest.raises(Refusal) as caught:
        decided()
    assert caught.value.status == 431
