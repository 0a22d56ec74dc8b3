# SPDX-License-Identifier: MIT
"""Sequence arithmetic against plain integers that never wrap."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.wire import seq

TOP = 2**32
anywhere = st.one_of(st.integers(0, TOP - 1), st.integers(TOP - 4, TOP - 1), st.integers(0, 4))
under_half = st.one_of(st.integers(0, 2**31 - 1), st.integers(0, 3), st.integers(2**31 - 3, 2**31 - 1))


@settings(deadline=None, max_examples=300)
@given(anywhere, under_half)
def test_order_follows_the_shorter_way_round(start: int, distance: int) -> None:
    later = (start + distance) % TOP
    forward = seq.relations(start, later)
    assert forward == {
        "seq_lt": distance > 0,
        "seq_le": True,
        "seq_gt": False,
        "seq_ge": distance == 0,
        "seq_diff": -distance,
        "seq_max": later,
        "seq_min": start,
    }
    assert seq.relations(later, start)["seq_diff"] == distance
    assert seq.relations(later, start)["seq_gt"] is (distance > 0)


def test_wrap_by_hand() -> None:
    assert seq.relations(0xFFFFFFFF, 0)["seq_lt"] is True
    assert seq.relations(0xFFFFFFF0, 0x10)["seq_diff"] == -0x20
    assert seq.relations(0xFFFFFFF0, 0x10)["seq_max"] == 0x10


def test_opposite_numbers_have_no_order() -> None:
    for a in (0, 7, 2**31, TOP - 1):
        b = (a + 2**31) % TOP
        assert seq.relations(a, b)["seq_lt"] is True
        assert seq.relations(b, a)["seq_lt"] is True


@settings(deadline=None, max_examples=300)
@given(anywhere, st.integers(0, TOP - 1), st.integers(0, TOP - 1))
def test_between_holds_exactly_in_the_half_open_range(low: int, length: int, offset: int) -> None:
    assert seq.between((low + offset) % TOP, low, (low + length) % TOP) is (offset < length)


def test_between_is_empty_when_the_ends_meet() -> None:
    assert seq.between(5, 5, 5) is False
    assert seq.between(6, 5, 5) is False
