# SPDX-License-Identifier: MIT
"""The set of runs beyond a hole: the same answers as a sorted list, in a logarithm of the steps, in any order."""

import math
import random
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.tcp.records.runs import Runs

CIRCLE = 1 << 32
BASE = CIRCLE - 5000
"""Runs lie on both sides of the wrap."""


def seq(offset: int) -> int:
    return (BASE + offset) % CIRCLE


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 999)), max_size=300), st.integers(0, 1 << 30))
def test_answers_as_a_sorted_list_does(steps: list[tuple[bool, int]], seed: int) -> None:
    runs = Runs(seed)
    held: list[int] = []  # run n is [10 n, 10 n + 3)
    for add, number in steps:
        if add and number not in held:
            assert runs.add(seq(10 * number), seq(10 * number + 3))[0]
            held.append(number)
            held.sort()
        elif not add and number in held:
            runs.remove(seq(10 * number))
            held.remove(number)
        runs.check()
        at = bisect_right(held, number)
        floor = held[at - 1] if at else None
        above = held[at] if at < len(held) else None
        expected = [None if n is None else (seq(10 * n), seq(10 * n + 3)) for n in (floor, above)]
        assert [runs.floor(seq(10 * number)), runs.above(seq(10 * number))] == expected
    if held:
        ends = runs.ends()
        assert ends is not None
        assert (ends[0][0], ends[1][0]) == (seq(10 * held[0]), seq(10 * held[-1]))
    assert runs.memory_bytes == 0 if not held else runs.memory_bytes >= 16 * len(held)
    runs.clear()
    assert runs.chunks_in_use == 0


def orders(count: int) -> dict[str, list[int]]:
    """Orders of arrival that break one tree or another."""
    ascending = list(range(count))
    shuffled = ascending[:]
    random.Random(7).shuffle(shuffled)
    bits = (count - 1).bit_length()
    return {
        "ascending": ascending,
        "descending": ascending[::-1],
        "random": shuffled,
        "odd then even": ascending[1::2] + ascending[::2],
        "from both ends": [number for pair in zip(ascending, ascending[::-1], strict=True) for number in pair][:count],
        "from the middle": sorted(ascending, key=lambda number: abs(number - count // 2)),
        "bits reversed": sorted(ascending, key=lambda number: int(f"{number:0{bits}b}"[::-1], 2)),
        "far and near": [number // 2 if number % 2 else count - 1 - number // 2 for number in ascending],
    }


COUNT = 16384


@pytest.mark.parametrize("order", orders(4).keys())
def test_every_order_is_a_logarithm_of_steps(order: str) -> None:
    runs = Runs(seed=3)
    # Expected depth of a treap is 2 ln n; four times that is out of reach for priorities nobody chose.
    most = 0
    for number in orders(COUNT)[order]:
        added, steps = runs.add(seq(2 * number), seq(2 * number + 1))
        assert added
        most = max(most, steps)
    assert most <= 8 * math.log(COUNT)
    assert runs.check() <= 8 * math.log(COUNT)
    most = 0
    for number in orders(COUNT)[order]:
        most = max(most, runs.remove(seq(2 * number)))
    assert most <= 8 * math.log(COUNT)
    assert runs.chunks_in_use == 0


def test_the_bound_is_what_an_index_can_say() -> None:
    runs = Runs()
    taken = 0
    while runs.add(seq(2 * taken), seq(2 * taken + 1))[0]:
        taken += 1
    assert taken == 32767
    assert runs.memory_bytes == 1024 * 512 + 4096
    assert runs.chunks_in_use == 1025
    runs.remove(seq(2 * 777))
    assert runs.add(seq(2 * 777), seq(2 * 777 + 1))[0]


def test_without_memory_nothing_changes() -> None:
    runs = Runs(limit_bytes=4096)  # eight chunks: 255 runs, but the fifth needs a table
    taken = 0
    while runs.add(seq(2 * taken), seq(2 * taken + 1))[0]:
        taken += 1
    assert taken == 127
    runs.check()
    for number in range(taken):
        runs.remove(seq(2 * number))
    assert runs.chunks_in_use == 0
