# SPDX-License-Identifier: MIT
"""Chunks: two sizes, one bound in pages, and memory that goes back to the kernel."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.buf.chunks import ChunkPool
from ustack.obs import info

PAGE = 4096
WARM = 256


def test_eight_small_chunks_share_a_page() -> None:
    pool = ChunkPool(1 << 20)
    handles = [pool.alloc(small=True) for _ in range(8)]
    addresses = sorted(pool.address(handle) for handle in handles)
    assert addresses == list(range(addresses[0], addresses[0] + PAGE, 512))
    assert pool.held_bytes == PAGE
    assert pool.alloc(small=True)
    assert pool.held_bytes == 2 * PAGE


def test_the_bound_is_on_pages_of_either_kind() -> None:
    pool = ChunkPool(3 * PAGE - 1)
    assert all([pool.alloc(), pool.alloc(small=True), pool.alloc()])
    assert pool.alloc() == 0
    assert [bool(pool.alloc(small=True)) for _ in range(8)] == [True] * 7 + [False]
    assert pool.map(1) == 0


def test_adjacent_pages_count_against_the_bound() -> None:
    pool = ChunkPool(4 * PAGE)
    address = pool.map(3)
    assert address
    assert pool.held_bytes == 3 * PAGE
    assert pool.map(2) == 0
    assert pool.alloc()
    assert not pool.alloc()
    pool.unmap(address, 3)
    assert pool.held_bytes == PAGE


def test_a_page_is_free_when_its_last_small_chunk_is() -> None:
    pool = ChunkPool(PAGE)
    handles = [pool.alloc(small=True) for _ in range(8)]
    for handle in handles[:-1]:
        pool.release(handle)
        assert pool.alloc() == 0
    pool.release(handles[-1])
    assert (pool.held_bytes, pool.chunks_in_use) == (0, 0)
    assert pool.alloc()


def test_what_is_free_beyond_a_reserve_goes_back_to_the_kernel() -> None:
    """Measured by the kernel: pages of our mappings that are in memory."""
    pool = ChunkPool(64 << 20)
    handles = [pool.alloc() for _ in range(16384)]
    for handle in handles:
        pool.fill(handle, 1)
    before = resident_bytes()
    random.Random(1).shuffle(handles)
    for handle in handles:
        pool.release(handle)
    assert pool.held_bytes == 0
    assert pool.warm_pages <= WARM
    shadow = (64 << 20) // 8 if info.build_mode() == "asan" else 0  # what the sanitizer writes about freed memory
    assert before - resident_bytes() > (64 << 20) - 2 * WARM * PAGE - shadow


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def test_memory_is_used_again_before_more_is_mapped() -> None:
    pool = ChunkPool(64 << 20)
    for _ in range(5):
        handles = [pool.alloc() for _ in range(2000)]
        mapped = pool.mapped_bytes
        for handle in handles:
            pool.release(handle)
    assert pool.mapped_bytes == mapped < 2200 * PAGE


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1 << 16)), max_size=300))
def test_chunks_are_disjoint_and_keep_what_is_written(steps: list[tuple[int, int]]) -> None:
    pool = ChunkPool(40 * PAGE)
    held: dict[int, int] = {}
    for kind, number in steps:
        if kind == 2 and held:
            handle = sorted(held)[number % len(held)]
            assert set(pool.read(handle)) == {held.pop(handle)}
            pool.release(handle)
        elif kind != 2 and (handle := pool.alloc(small=kind == 1)):
            assert handle not in held
            held[handle] = number % 256
            pool.fill(handle, number % 256)
    for handle, octet in held.items():
        assert set(pool.read(handle)) == {octet}
        pool.release(handle)
    assert (pool.held_bytes, pool.chunks_in_use) == (0, 0)


@pytest.mark.parametrize("limit", [0, 1, PAGE, PAGE + 1])
def test_a_bound_is_rounded_up_to_pages(limit: int) -> None:
    pool = ChunkPool(limit)
    taken = 0
    while pool.alloc():
        taken += 1
    assert taken == -(-limit // PAGE)
