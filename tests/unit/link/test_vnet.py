# SPDX-License-Identifier: MIT
"""The virtio_net header: what it says about a received frame, and what is written for one that is sent."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.link.vnet import emitted, parsed

# virtio 1.2 section 5.1.6
NEEDS_CSUM, DATA_VALID = 1, 2
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_ECN = 0, 1, 4, 0x80


def header(flags: int = 0, gso_type: int = GSO_NONE, hdr_len: int = 0, gso_size: int = 0, *csum: int) -> bytes:
    return struct.pack("=BBHHHH", flags, gso_type, hdr_len, gso_size, *(csum or (0, 0)))


@pytest.mark.parametrize(
    ("flags", "status"),
    [(0, "unknown"), (NEEDS_CSUM, "partial"), (DATA_VALID, "verified"), (NEEDS_CSUM | DATA_VALID, "partial"),
     (0xFC, "unknown")],
)  # fmt: skip
def test_the_flags_say_how_far_the_checksum_is(flags: int, status: str) -> None:
    assert parsed(header(flags)) == (status, 0)


@pytest.mark.parametrize(
    ("gso_type", "size"),
    [(GSO_NONE, 0), (GSO_TCPV4, 1460), (GSO_TCPV6, 1460), (GSO_TCPV4 | GSO_ECN, 1460), (0x7F, 1460)],
)
def test_a_segment_size_counts_for_a_super_frame_alone(gso_type: int, size: int) -> None:
    assert parsed(header(gso_type=gso_type, gso_size=1460)) == ("unknown", size)


@given(st.binary(min_size=10, max_size=10))
def test_any_header_means_something(octets: bytes) -> None:
    status, gso_size = parsed(octets)
    assert status in ("unknown", "partial", "verified")
    assert gso_size in (0, int.from_bytes(octets[4:6], "little"), int.from_bytes(octets[4:6], "big"))


def test_a_complete_frame_asks_for_nothing() -> None:
    assert emitted(0) == header()
    assert emitted(60) == header(hdr_len=60)


def test_a_checksum_to_fill_in_says_where() -> None:
    assert emitted(60, csum_start=34, csum_offset=16) == header(NEEDS_CSUM, GSO_NONE, 60, 0, 34, 16)


@pytest.mark.parametrize(("family", "gso_type"), [(4, GSO_TCPV4), (6, GSO_TCPV6)])
def test_a_super_frame_says_its_family_and_segment_size(family: int, gso_type: int) -> None:
    made = emitted(54, csum_start=34, csum_offset=16, gso_size=1460, gso_family=family)
    assert made == header(NEEDS_CSUM, gso_type, 54, 1460, 34, 16)
    assert parsed(made) == ("partial", 1460)


@pytest.mark.parametrize(
    ("linear_bytes", "csum_start", "shortened"),
    [(60_000, 34, 94), (2048, 34, 2048), (2049, 34, 94), (60_000, 0, 60_000)],
)
def test_a_long_frame_is_asked_for_in_pieces_where_its_headers_are_known(
    linear_bytes: int, csum_start: int, shortened: int
) -> None:
    made = emitted(linear_bytes, csum_start=csum_start, csum_offset=16, shortened_to=2048)
    assert int.from_bytes(made[2:4], "little") == shortened
