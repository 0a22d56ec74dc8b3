# SPDX-License-Identifier: MIT
"""The Internet checksum against RFC 1071's own example, a sum of 16-bit words in Python, and scapy."""

import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import checksum as scapy_checksum

from ustack.wire import checksum


def native(word: int) -> int:
    """A 16-bit value as the machine sees it when it lies in memory in network order."""
    return int.from_bytes(word.to_bytes(2, "big"), sys.byteorder)


def reference(data: bytes) -> int:
    """RFC 1071 section 4.1, word by word, in network order."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_the_example_of_rfc_1071() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")  # section 3
    assert checksum.fold(checksum.partial(data)) == native(0xDDF2)
    assert checksum.emit(checksum.partial(data)) == native(0xFFFF ^ 0xDDF2)


def test_nothing_sums_to_zero() -> None:
    assert checksum.partial(b"") == 0
    assert checksum.partial(b"", 0x12345678) == 0x12345678


@pytest.mark.parametrize("length", [*range(0, 140), 1460, 1461, 65535, 65536])
def test_all_ones_of_any_length(length: int) -> None:
    data = b"\xff" * length
    assert checksum.fold(checksum.partial(data)) == native(reference(data))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=700), st.integers(0, 9))
def test_agrees_with_python_and_scapy_at_any_alignment(data: bytes, offset: int) -> None:
    shifted = memoryview(bytes(offset) + data)[offset:]
    assert checksum.fold(checksum.partial(shifted)) == native(reference(data))
    assert checksum.emit(checksum.partial(shifted)) == native(scapy_checksum(data))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 150), st.integers(0, 2**32 - 1))
def test_parts_add_up_in_any_order(data: bytes, half: int, start: int) -> None:
    cut = min(2 * half, len(data) & ~1)
    whole = checksum.fold(checksum.partial(data, start))
    assert checksum.fold(checksum.partial(data[cut:], checksum.partial(data[:cut], start))) == whole
    apart = checksum.add(checksum.partial(data[:cut]), checksum.partial(data[cut:], start))
    assert checksum.fold(apart) == whole


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=2, max_size=300))
def test_a_message_with_its_checksum_verifies(data: bytes) -> None:
    field = checksum.emit(checksum.partial(b"\0\0" + data)).to_bytes(2, sys.byteorder)
    assert checksum.fold(checksum.partial(field + data)) == 0xFFFF


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=1, max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_any_changed_octet_is_noticed(data: bytes, where: int, flip: int) -> None:
    field = checksum.emit(checksum.partial(b"\0\0" + data)).to_bytes(2, sys.byteorder)
    message = bytearray(field + data)
    message[where % len(message)] ^= flip
    assert checksum.fold(checksum.partial(message)) != 0xFFFF


@settings(deadline=None, max_examples=300)
@given(st.binary(min_size=20, max_size=60).filter(lambda d: len(d) % 2 == 0), st.integers(0, 9), st.integers(0, 0xFFFF))
def test_incremental_update_equals_the_full_sum(data: bytes, word: int, new: int) -> None:
    changed = bytearray(data)
    before = int.from_bytes(data[2 * word : 2 * word + 2], sys.byteorder)
    changed[2 * word : 2 * word + 2] = new.to_bytes(2, sys.byteorder)
    if not any(changed) or not any(data):
        return  # a message of zeros alone has the other zero as its sum; no header is one (RFC 1624 section 3)
    old = checksum.emit(checksum.partial(data))
    assert checksum.update16(old, before, new) == checksum.emit(checksum.partial(bytes(changed)))


def test_incremental_update_yields_the_zero_that_rfc_1624_asks_for() -> None:
    # Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285. RFC 1141 would give 0xFFFF.
    assert checksum.update16(native(0xDD2F), native(0x5555), native(0x3285)) == 0


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_add_keeps_the_value_modulo_65535(a: int, b: int) -> None:
    total = checksum.add(a, b)
    assert total < 2**32
    assert total % 0xFFFF == (a + b) % 0xFFFF
    assert (total == 0) is (a == b == 0)
