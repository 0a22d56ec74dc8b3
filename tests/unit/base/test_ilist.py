# SPDX-License-Identifier: MIT
"""Intrusive lists: order, ends, records that move, the work of each step, and what debug builds catch."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.children import assert_aborts
from ustack.buf.slab import Slab
from ustack.testing.parts.lists import Lists


def assert_holds(lists: Lists, which: int, expected: list[int]) -> None:
    assert lists.forwards(which) == expected
    assert lists.backwards(which) == expected[::-1]


def filled(*indices: int) -> Lists:
    lists = Lists(8)
    for index in indices:
        lists.append(0, index)
    return lists


def test_a_list_of_zeroes_is_empty() -> None:
    assert_holds(Lists(3), 0, [])


def test_append_puts_at_the_end() -> None:
    assert_holds(filled(5, 1, 3), 0, [5, 1, 3])


def test_prepend_puts_at_the_beginning() -> None:
    lists = Lists(3)
    for index in (1, 2, 3):
        lists.prepend(0, index)
    assert_holds(lists, 0, [3, 2, 1])


@pytest.mark.parametrize(
    ("successor", "expected"),
    [(1, [4, 1, 2, 3]), (2, [1, 4, 2, 3]), (3, [1, 2, 4, 3]), (0, [1, 2, 3, 4])],
)
def test_insert_puts_in_front_of_the_successor(successor: int, expected: list[int]) -> None:
    lists = filled(1, 2, 3)
    lists.insert(0, 4, successor)
    assert_holds(lists, 0, expected)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_remove_closes_the_gap(index: int) -> None:
    lists = filled(1, 2, 3)
    lists.remove(0, index)
    assert_holds(lists, 0, [i for i in (1, 2, 3) if i != index])


def test_the_last_record_leaves_an_empty_list_that_can_be_filled_again() -> None:
    lists = filled(2)
    lists.remove(0, 2)
    assert_holds(lists, 0, [])
    lists.append(0, 2)
    assert_holds(lists, 0, [2])


def test_records_may_move() -> None:
    lists = filled(1, 2, 3)
    lists.move(100)
    lists.append(0, 100)
    lists.remove(0, 2)
    assert_holds(lists, 0, [1, 3, 100])


@pytest.mark.parametrize("length", [3, 1000])
def test_no_step_walks_the_list(length: int) -> None:
    lists = Lists(length + 1)
    for index in range(1, length + 1):
        lists.append(0, index)
    looks = [lists.looks]
    lists.prepend(0, length + 1)
    looks.append(lists.looks)
    lists.remove(0, length // 2 + 1)
    looks.append(lists.looks)
    lists.insert(0, length // 2 + 1, length)
    looks.append(lists.looks)
    assert all(after - before <= 5 for before, after in itertools.pairwise(looks))


STEPS = st.tuples(st.sampled_from(["append", "prepend", "insert", "remove", "move"]), st.integers(0, 1), st.integers(0))


@given(steps=st.lists(STEPS, max_size=60))
@settings(max_examples=200, deadline=None)
def test_two_lists_of_one_table_agree_with_python(steps: list[tuple[str, int, int]]) -> None:
    count = 8
    lists = Lists(count)
    model: list[list[int]] = [[], []]
    for verb, which, choice in steps:
        spare = [i for i in range(1, count + 1) if i not in model[0] + model[1]]
        if verb == "move":
            count += 1
            lists.move(count)
        elif verb == "remove":
            if not model[which]:
                continue
            index = model[which].pop(choice % len(model[which]))
            lists.remove(which, index)
        elif spare:
            index = spare[choice % len(spare)]
            place = {"append": len(model[which]), "prepend": 0}.get(verb, choice % (len(model[which]) + 1))
            if verb == "insert":
                lists.insert(which, index, model[which][place] if place < len(model[which]) else 0)
            else:
                getattr(lists, verb)(which, index)
            model[which].insert(place, index)
        for i in (0, 1):
            assert_holds(lists, i, model[i])
    assert lists.numbers() == list(range(count + 1))


MISUSES = {
    "removed twice, from the end": "s.remove(0, 3); s.remove(0, 3)",
    "removed twice, from the middle": "s.remove(0, 2); s.remove(0, 2)",
    "removed from another list": "s.remove(1, 1)",
}


@pytest.mark.skipif(not Slab(64, 1).is_debug, reason="only debug builds check their callers")
@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
def test_debug_builds_abort_on_a_record_that_is_not_in_the_list(misuse: str) -> None:
    code = (
        "from ustack.testing.parts.lists import Lists\n"
        f"s = Lists(9)\nfor i in (1, 2, 3): s.append(0, i)\nfor i in (4, 5, 6): s.append(1, i)\n{misuse}"
    )
    assert_aborts(code)
