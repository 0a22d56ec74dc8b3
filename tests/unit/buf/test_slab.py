# SPDX-License-Identifier: MIT
"""Slab pools: indices, zeroed records, the limit, pages, and what debug builds catch."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.children import assert_aborts
from ustack.buf.slab import Slab

SIZES = [4, 8, 16, 32, 64, 128, 192, 256, 4096, 262144, 262208]


def test_index_zero_is_never_handed_out_and_the_limit_holds() -> None:
    slab = Slab(64, 3)
    assert [slab.alloc() for _ in range(5)] == [1, 2, 3, 0, 0]
    assert slab.in_use == 3
    slab.release(2)
    assert slab.alloc() == 2
    assert slab.alloc() == 0


def test_a_limit_of_zero_hands_out_nothing() -> None:
    slab = Slab(64, 0)
    assert slab.alloc() == 0
    assert slab.page_count == 0


def test_last_in_first_out() -> None:
    slab = Slab(64, 10)
    for _ in range(5):
        slab.alloc()
    for index in (2, 5, 3):
        slab.release(index)
    assert [slab.alloc() for _ in range(4)] == [3, 5, 2, 6]


@pytest.mark.parametrize("size", SIZES)
def test_records_are_zeroed_again_after_use(size: int) -> None:
    slab = Slab(size, 2)
    index = slab.alloc()
    assert slab.read(index) == bytes(size)
    slab.fill(index, 0xA5)
    slab.release(index)
    assert slab.alloc() == index
    assert slab.read(index) == bytes(size)


@pytest.mark.parametrize("size", [0, 2, 3, 12, 48, 65, 96, 100])
def test_sizes_that_would_break_alignment_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes"):
        Slab(size, 10)


@pytest.mark.parametrize("size", SIZES)
def test_records_are_aligned_and_do_not_overlap_across_pages(size: int) -> None:
    count = min(3 * Slab(size, 1).records_per_page + 2, 5000)
    slab = Slab(size, count)
    indices = [slab.alloc() for _ in range(count)]
    assert indices == list(range(1, count + 1))
    addresses = sorted(slab.address(index) for index in indices)
    assert all(address % min(size, 64) == 0 for address in addresses)
    assert all(b - a >= size for a, b in itertools.pairwise(addresses))


def test_records_do_not_move_when_pages_are_added() -> None:
    slab = Slab(4096, 2000)
    first = slab.alloc()
    address = slab.address(first)
    slab.fill(first, 0x5A)
    while slab.alloc():
        pass
    assert slab.page_count == 2001 // slab.records_per_page + 1
    assert slab.address(first) == address
    assert slab.read(first) == b"\x5a" * 4096


@pytest.mark.parametrize("size", SIZES)
def test_a_record_is_found_by_a_multiplication(size: int) -> None:
    slab = Slab(size, 3000)
    first = slab.address(slab.alloc())
    for n in range(1, 3000 if size <= 4096 else 5):
        assert slab.address(slab.alloc()) == first + n * size


def test_addresses_are_given_back() -> None:
    for _ in range(300):  # a terabyte each: more than twice what a process has
        assert Slab(4096, 1 << 28).alloc() == 1


def test_pages_come_with_need_and_stay_for_reuse() -> None:
    slab = Slab(4096, 1000)
    held = [slab.alloc() for _ in range(200)]
    pages = slab.page_count
    for index in held:
        slab.release(index)
    assert slab.in_use == 0
    for _ in range(200):
        slab.alloc()
    assert slab.page_count == pages


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-200, 200), max_size=300), st.integers(1, 150))
def test_against_a_model(steps: list[int], limit: int) -> None:
    slab = Slab(128, limit)
    live: dict[int, int] = {}
    for step in steps:
        if step >= 0 or not live:
            index = slab.alloc()
            assert (index == 0) is (len(live) == limit)
            if index:
                assert index not in live
                assert slab.read(index) == bytes(128)
                live[index] = step & 0xFF
                slab.fill(index, live[index])
        else:
            index = sorted(live)[-step % len(live)]
            assert slab.read(index) == bytes([live.pop(index)]) * 128
            slab.release(index)
        assert slab.in_use == len(live)
    for index, octet in live.items():
        assert slab.read(index) == bytes([octet]) * 128


MISUSES = {
    "double release": "s.release(2); s.release(2)",
    "double release with another between": "s.release(2); s.release(3); s.release(2)",
    "release of index 0": "s.release(0)",
    "release of what was never handed out": "s.release(4)",
    "use of index 0": "s.read(0)",
    "use of what was never handed out": "s.read(4)",
}


@pytest.mark.skipif(not Slab(64, 1).is_debug, reason="only debug builds check their callers")
@pytest.mark.parametrize("size", [4, 64])
@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
def test_debug_builds_abort_on_misuse(misuse: str, size: int) -> None:
    code = f"from ustack.buf.slab import Slab\ns = Slab({size}, 9)\nfor _ in range(3): s.alloc()\n{misuse}"
    assert_aborts(code)
