# SPDX-License-Identifier: MIT
"""What is sent of a resource: RFC 9110 (conditions, ranges, negotiation)."""

from email.utils import formatdate

import pytest

from tests.unit.server.heads import MODIFIED_S, NOW_S, SIZE, parse, resource
from ustack.server import selection


def decide(*fields: str, method: str = "GET", gzip: bool = False, size: int = SIZE) -> selection.Decision:
    return selection.decide(parse(f"{method} /a HTTP/1.1", *fields), resource(gzip=gzip, size=size), NOW_S)


# ---------------------------------------------------------------- conditions


BEFORE, SAME, AFTER = (formatdate(MODIFIED_S + d, usegmt=True) for d in (-10, 0, 10))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((), 200),
        (('If-None-Match: "tag"',), 304),
        (('If-None-Match: W/"tag"',), 304),
        (('If-None-Match: "x", "tag"',), 304),
        (('If-None-Match: "x"', 'If-None-Match: "tag"'), 304),
        (('If-None-Match: "a,b", "tag"',), 304),
        (("If-None-Match: *",), 304),
        (('If-None-Match: "x"',), 200),
        (("If-None-Match: tag",), 200),
        ((f"If-Modified-Since: {SAME}",), 304),
        ((f"If-Modified-Since: {AFTER}",), 304),
        ((f"If-Modified-Since: {BEFORE}",), 200),
        (("If-Modified-Since: never",), 200),
        (("If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT",), 304),
        (("If-Modified-Since: Tue Nov 14 22:13:20 2023",), 304),
        ((f"If-Modified-Since: {AFTER}", f"If-Modified-Since: {AFTER}"), 200),
        (('If-None-Match: "x"', f"If-Modified-Since: {AFTER}"), 200),
        (('If-Match: "tag"',), 200),
        (("If-Match: *",), 200),
        (('If-Match: W/"tag"',), 412),
        (('If-Match: "x"',), 412),
        ((f"If-Unmodified-Since: {BEFORE}",), 412),
        ((f"If-Unmodified-Since: {SAME}",), 200),
        (('If-Match: "tag"', f"If-Unmodified-Since: {BEFORE}"), 200),
        (('If-Match: "x"', 'If-None-Match: "tag"'), 412),
        (('If-None-Match: "tag"', "Range: bytes=0-1"), 304),
    ],
)
def test_conditions(fields: tuple[str, ...], status: int) -> None:
    assert decide(*fields).status == status
    assert decide(*fields, method="HEAD").status == status


def test_not_modified_carries_the_validators_and_no_length() -> None:
    names = [name for name, _ in decide('If-None-Match: "tag"', gzip=True).fields]
    assert names == [b"ETag", b"Last-Modified", b"Vary"]


def test_a_date_that_is_long_is_none() -> None:
    assert selection.parse_date(SAME.encode() + b" " * 60 + b"x") is None


# ---------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", (206, 0, 1)),
        ("bytes=0-", (206, 0, 1000)),
        ("bytes=999-", (206, 999, 1)),
        ("bytes=10-19", (206, 10, 10)),
        ("bytes=10-99999999999999999999999999", (206, 10, 990)),
        ("bytes=-1", (206, 999, 1)),
        ("bytes=-5000", (206, 0, 1000)),
        ("Bytes= 1-2 ", (206, 1, 2)),
        ("bytes=1000-", (416, 0, 0)),
        ("bytes=99999999999999999999999-", (416, 0, 0)),
        ("bytes=-0", (416, 0, 0)),
        ("bytes=5-2", (200, 0, 1000)),
        ("bytes=0-1,3-4", (200, 0, 1000)),
        ("bytes=", (200, 0, 1000)),
        ("bytes=-", (200, 0, 1000)),
        ("bytes=a-b", (200, 0, 1000)),
        ("lines=0-1", (200, 0, 1000)),
    ],
)
def test_ranges(value: str, expected: tuple[int, int, int]) -> None:
    decision = decide(f"Range: {value}")
    assert (decision.status, decision.offset, decision.length) == expected


def test_range_fields() -> None:
    assert (b"Content-Range", b"bytes 10-19/1000") in decide("Range: bytes=10-19").fields
    assert (b"Content-Length", b"10") in decide("Range: bytes=10-19").fields
    assert (b"Content-Range", b"bytes */1000") in decide("Range: bytes=1000-").fields


def test_range_is_for_get_and_for_one_field_line() -> None:
    assert decide("Range: bytes=0-1", method="HEAD").status == 200
    assert decide("Range: bytes=0-1", "Range: bytes=0-1").status == 200


def test_range_of_an_empty_file() -> None:
    assert decide("Range: bytes=0-", size=0).status == 416
    assert decide("Range: bytes=-5", size=0).status == 200


@pytest.mark.parametrize(
    ("condition", "status"),
    [('"tag"', 206), ('W/"tag"', 200), ('"x"', 200), (SAME, 206), (AFTER, 200), ("nonsense", 200)],
)
def test_if_range(condition: str, status: int) -> None:
    assert decide("Range: bytes=0-1", f"If-Range: {condition}").status == status


def test_if_range_date_is_weak_within_the_second() -> None:
    request = parse("GET /a HTTP/1.1", "Range: bytes=0-1", f"If-Range: {SAME}")
    decision = selection.decide(request, resource(), MODIFIED_S)
    assert (decision.status, decision.lasting) == (200, False)


# ---------------------------------------------------------------- negotiation


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        ("gzip", b"gzip"),
        ("GZIP, deflate", b"gzip"),
        ("x-gzip", b"gzip"),
        ("*", b"gzip"),
        ("gzip;q=0.5", b"gzip"),
        ("gzip ; q=0.001", b"gzip"),
        ("identity;q=0.5, gzip;q=1.0", b"gzip"),
        ("gzip;q=0", b""),
        ("gzip;q=0.000, *", b""),
        ("*;q=0", b""),
        ("identity, gzip;q=0.5", b""),
        ("br, deflate", b""),
        ("gzip;q=2", b""),
        ("gzip;x=1", b""),
        ("", b""),
    ],
)
def test_accept_encoding(value: str, coding: bytes) -> None:
    variant = decide(f"Accept-Encoding: {value}", gzip=True).variant
    assert variant is not None
    assert variant.coding == coding


def test_both_variants_say_what_they_vary_by() -> None:
    plain, packed = decide(gzip=True), decide("Accept-Encoding: gzip", gzip=True)
    assert (b"Vary", b"Accept-Encoding") in plain.fields
    assert (b"Vary", b"Accept-Encoding") in packed.fields
    assert (b"Content-Encoding", b"gzip") in packed.fields
    assert (b"ETag", b'"tag"') in plain.fields
    assert (b"ETag", b'"zip"') in packed.fields
    assert b"Vary" not in dict(decide("Accept-Encoding: gzip").fields)


def test_a_long_list_of_codings_is_taken_for_none() -> None:
    variant = decide("Accept-Encoding: " + "gzip," * 2000, gzip=True).variant
    assert variant is not None
    assert variant.coding == b""
