# SPDX-License-Identifier: MIT
"""The table of a connection's deadlines, and the one node in the wheel that stands for the earliest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.testing.parts.tcp import Deadlines
from ustack.testing.testbed import MILLISECOND, SECOND, TICK_NS

KINDS = range(Deadlines().stored)
LATE = 1000 * SECOND
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_a_deadline_never_comes_early(kind: int) -> None:
    table = Deadlines(LATE)
    table.set(kind, 40 * MILLISECOND)
    assert table.is_set(kind)
    table.now_ns += 40 * MILLISECOND - 1
    assert table.expired() == []
    table.now_ns += TICK_NS + 1
    assert table.expired() == [kind]


@each_kind
def test_a_cleared_deadline_does_not_come(kind: int) -> None:
    table = Deadlines(LATE)
    table.set(kind, MILLISECOND)
    table.clear(kind)
    table.now_ns += SECOND
    assert not table.is_set(kind)
    assert table.expired() == []


@each_kind
def test_clearing_leaves_the_tick(kind: int) -> None:
    """restart_after_idle asks when the retransmission timer would have come."""
    table = Deadlines(LATE)
    table.set(kind, SECOND)
    before = table.due_in_ticks(kind)
    table.clear(kind)
    assert table.due_in_ticks(kind) == before > 0


@each_kind
def test_moving_a_deadline_later_leaves_the_node(kind: int) -> None:
    table = Deadlines(LATE)
    table.set(kind, MILLISECOND)
    node = table.node_in_ticks
    table.set(kind, 60 * SECOND)
    assert table.node_in_ticks == node


@each_kind
def test_moving_a_deadline_nearer_moves_the_node(kind: int) -> None:
    table = Deadlines(LATE)
    table.set(kind, 60 * SECOND)
    table.set(kind, MILLISECOND)
    assert table.node_in_ticks == table.due_in_ticks(kind)


@each_kind
def test_kinds_do_not_touch_each_other(kind: int) -> None:
    table = Deadlines(LATE)
    for other in KINDS:
        table.set(other, (other + 1) * SECOND)
    due = {other: table.due_in_ticks(other) for other in KINDS}
    table.clear(kind)
    table.set(kind, 99 * SECOND)
    assert {other: table.due_in_ticks(other) for other in KINDS if other != kind} == {
        other: ticks for other, ticks in due.items() if other != kind
    }
    assert all(table.is_set(other) for other in KINDS)


def test_without_a_deadline_there_is_no_node() -> None:
    assert Deadlines(LATE).node_in_ticks is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(KINDS), st.integers(0, 200 * SECOND)),
        st.tuples(st.just("clear"), st.sampled_from(KINDS), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(0, 20 * SECOND)),
    ),
    max_size=40,
)


@given(start=st.sampled_from([0, LATE, (1 << 50) - SECOND]), steps=STEPS)
def test_the_node_never_fires_after_the_earliest_deadline(start: int, steps: list[tuple[str, int, int]]) -> None:
    table = Deadlines(start)
    wanted: dict[int, int] = {}
    for what, kind, ns in steps:
        if what == "set":
            table.set(kind, ns)
            wanted[kind] = table.now_ns + ns
        elif what == "clear":
            table.clear(kind)
            wanted.pop(kind, None)
        else:
            table.now_ns += ns
            while table.fire():
                pass
            wanted = {kind: due for kind, due in wanted.items() if table.is_set(kind)}
            assert all(due > table.now_ns - 2 * TICK_NS for due in wanted.values()), "one was missed"
        assert {kind for kind in KINDS if table.is_set(kind)} == set(wanted)
        node = table.node_in_ticks
        assert not wanted or (node is not None and node <= min(table.due_in_ticks(kind) for kind in wanted))
