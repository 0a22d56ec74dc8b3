# SPDX-License-Identifier: MIT
"""Queues: order, ends, records that move, the work of each step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.testing.parts.lists import Queues


def filled(*indices: int) -> Queues:
    queues = Queues(8)
    for index in indices:
        queues.append(0, index)
    return queues


def test_a_queue_of_zeroes_is_empty() -> None:
    queues = Queues(3)
    assert (queues.records(0), queues.take(0), queues.records(0)) == ([], 0, [])


def test_who_came_first_is_taken_first() -> None:
    queues = filled(5, 1, 3)
    assert [queues.take(0) for _ in range(4)] == [5, 1, 3, 0]
    queues.append(0, 1)
    assert queues.records(0) == [1]


@pytest.mark.parametrize(("before", "index", "left"), [(0, 1, [2, 3]), (1, 2, [1, 3]), (2, 3, [1, 2])])
def test_remove_closes_the_gap(before: int, index: int, left: list[int]) -> None:
    queues = filled(1, 2, 3)
    queues.remove(0, before, index)
    assert queues.records(0) == left
    queues.append(0, 8)
    assert queues.records(0) == [*left, 8]


def test_the_last_record_leaves_an_empty_queue_that_can_be_filled_again() -> None:
    queues = filled(2)
    queues.remove(0, 0, 2)
    assert queues.records(0) == []
    queues.append(0, 2)
    assert queues.records(0) == [2]


@pytest.mark.parametrize("length", [3, 1000])
def test_no_step_walks_the_queue(length: int) -> None:
    queues = Queues(length + 1)
    for index in range(1, length + 1):
        queues.append(0, index)
    before = queues.looks
    queues.append(0, length + 1)
    queues.take(0)
    queues.remove(0, length, length + 1)
    assert queues.looks - before <= 5


STEPS = st.tuples(st.sampled_from(["append", "take", "remove", "move"]), st.integers(0, 1), st.integers(0))


@given(steps=st.lists(STEPS, max_size=60))
@settings(max_examples=200, deadline=None)
def test_two_queues_of_one_table_agree_with_python(steps: list[tuple[str, int, int]]) -> None:
    count = 8
    queues = Queues(count)
    model: list[list[int]] = [[], []]
    for verb, which, choice in steps:
        spare = [i for i in range(1, count + 1) if i not in model[0] + model[1]]
        if verb == "move":
            count += 1
            queues.move(count)
        elif verb == "take":
            assert queues.take(which) == (model[which].pop(0) if model[which] else 0)
        elif verb == "remove":
            if not model[which]:
                continue
            place = choice % len(model[which])
            queues.remove(which, model[which][place - 1] if place else 0, model[which][place])
            del model[which][place]
        elif spare:
            model[which].append(spare[choice % len(spare)])
            queues.append(which, model[which][-1])
        for i in (0, 1):
            assert queues.records(i) == model[i]
    assert queues.numbers() == list(range(count + 1))
