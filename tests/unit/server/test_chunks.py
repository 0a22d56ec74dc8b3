# SPDX-License-Identifier: MIT
"""Chunked bodies: where they end, what is refused (RFC 9112 section 7.1), compared with llhttp."""

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.server.chunks import ChunkedBody
from ustack.server.response import Refusal

CHUNKED = b"5\r\nhello\r\n3;x=y\r\n\n\n\n\r\n0\r\nTrailer: x\r\n\r\n"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(CHUNKED)), max_size=8))
def test_chunked_body_ends_at_its_last_octet_however_it_is_split(cuts: list[int]) -> None:
    body = ChunkedBody(1000)
    stream = CHUNKED + b"GET / HTTP/1.1\r\n"
    used = 0
    complete = False
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
        if complete or end <= used:
            continue
        count, complete = body.feed(stream[max(start, used) : end])
        used += count
    assert (used, complete) == (len(CHUNKED), True)


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"x\r\n", 400),
        (b"5\r\nhelloX", 400),
        (b"200\r\n" + b"a" * 512, 413),
        (b"1" * 16, 413),
        (b"\r\n", 400),
        (b"5 \r\n", 400),
        (b" 5\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x5\r\n", 400),
        (b"5\nhello", 400),
        (b"5\rhello", 400),
        (b"5\r\nhello\n", 400),
        (b"5;a\nb\r\n", 400),
        (b"5;\r\n", 400),
        (b"5;a;\r\n", 400),
        (b"5;=b\r\n", 400),
        (b"5;a=\r\n", 400),
        (b'5;a="b"c\r\n', 400),
        (b'5;a="b\r\n', 400),
        (b"5;a b\r\n", 400),
        (b"0\r\n: x\r\n", 400),
        (b"0\r\n x\r\n", 400),
        (b"0\r\na : x\r\n", 400),
        (b"0\r\na: \x00\r\n", 400),
        (b"0\r\n\n", 400),
        (b"0\r\na: " + b"b" * 100, 413),
    ],
)
def test_chunked_body_refused(octets: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        ChunkedBody(100).feed(octets)
    assert (caught.value.status, caught.value.close) == (status, True)


def test_a_chunked_body_may_be_as_long_as_its_limit() -> None:
    octets = b"5\r\nhello\r\n0\r\n\r\n"
    assert ChunkedBody(len(octets)).feed(octets + b"GET") == (len(octets), True)
    with pytest.raises(Refusal):
        ChunkedBody(len(octets) - 1).feed(octets)


@pytest.mark.parametrize("step", [1, 7, 100])
def test_a_chunk_has_no_more_bytes_than_the_body_may_have_left(step: int) -> None:
    """It is refused for its size, before any of it has come; one that fits is read to the last byte, in pieces."""
    with pytest.raises(Refusal) as caught:
        ChunkedBody(100).feed(b"61\r\n")
    assert caught.value.status == 413
    body, octets = ChunkedBody(100), b"60\r\n" + b"x" * 96
    for at in range(0, len(octets), step):
        piece = octets[at : at + step]
        assert body.feed(piece) == (len(piece), False)
    with pytest.raises(Refusal) as caught:
        body.feed(b"\r")
    assert caught.value.status == 413


class Llhttp:
    """The same question put to llhttp, byte for byte: where does the body end, if it is one?"""

    def __init__(self) -> None:
        self.complete = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")

    def on_message_complete(self) -> None:
        self.complete = True

    def end_of(self, octets: bytes) -> int | None:
        """The length of the body; -1: not all of it is here; None: refused."""
        for at in range(len(octets)):
            try:
                self.parser.feed_data(octets[at : at + 1])
            except httptools.HttpParserError:
                return None
            if self.complete:
                return at + 1
        return -1


PIECES = [
    b"0",
    b"1",
    b"2",
    b"a",
    b";",
    b"=",
    b":",
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"0\r\n",
    b"\r\n\r\n",
    b"1\r\nx\r\n",
    b"\x00",
    b'"',
]


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
def test_chunked_bodies_end_where_llhttp_sees_their_end(octets: bytes) -> None:
    """What this reader accepts ends where llhttp says. It may refuse more: that ends the connection."""
    try:
        used, complete = ChunkedBody(10_000).feed(octets)
    except Refusal:
        return
    assert Llhttp().end_of(octets) == (used if complete else -1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([b"", b";a", b";a=b", b';a="b"', b';a="b;\\""', b";a=b;c"]),
    st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: c d\r\n"]),
)
def test_every_well_formed_body_is_accepted(chunks: list[bytes], extension: bytes, trailers: bytes) -> None:
    octets = b"".join(b"%x%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks) + b"0\r\n" + trailers + b"\r\n"
    assert Llhttp().end_of(octets) == len(octets)
    assert ChunkedBody(10_000).feed(octets + b"x") == (len(octets), True)
