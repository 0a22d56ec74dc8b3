# SPDX-License-Identifier: MIT
"""ICMP messages against scapy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP

from ustack.base.counters import counter_t
from ustack.wire import icmpv4

OCTET = st.integers(0, 255)
REST = st.binary(min_size=4, max_size=4)


@settings(deadline=None, max_examples=80)
@given(OCTET, OCTET, REST, st.binary(max_size=100))
def test_what_is_emitted_is_parsed(kind: int, code: int, rest: bytes, data: bytes) -> None:
    fields = {"type": kind, "code": code, "rest": rest, "next_hop_mtu": int.from_bytes(rest[2:], "big")}
    assert icmpv4.parse(icmpv4.emit(kind, code, rest, data)) == fields


@settings(deadline=None, max_examples=80)
@given(st.sampled_from([0, 8]), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=101))
def test_scapy_emits_what_we_emit(kind: int, identifier: int, sequence: int, data: bytes) -> None:
    oracle = bytes(ICMP(type=kind, id=identifier, seq=sequence) / data)
    rest = identifier.to_bytes(2, "big") + sequence.to_bytes(2, "big")
    assert icmpv4.emit(kind, 0, rest, data) == oracle


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 0xFFFF), st.binary(min_size=28, max_size=60))
def test_the_next_hop_mtu_is_scapys(mtu: int, quoted: bytes) -> None:
    fields = icmpv4.parse(bytes(ICMP(type=3, code=4, nexthopmtu=mtu) / quoted))
    assert isinstance(fields, dict)
    assert fields["next_hop_mtu"] == mtu


@pytest.mark.parametrize("length", range(8))
def test_less_than_a_header_is_truncated(length: int) -> None:
    assert icmpv4.parse(icmpv4.emit(8, 0, bytes(4), b"")[:length]) == counter_t.DROP_ICMP_TRUNCATED


@pytest.mark.parametrize("bit", range(88))
def test_every_flipped_bit_breaks_the_checksum(bit: int) -> None:
    message = bytearray(icmpv4.emit(8, 0, b"\x12\x34\x00\x01", b"odd"))
    message[bit // 8] ^= 1 << bit % 8
    assert icmpv4.parse(bytes(message)) == counter_t.DROP_ICMP_CHECKSUM
