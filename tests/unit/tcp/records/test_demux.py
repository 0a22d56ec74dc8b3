# SPDX-License-Identifier: MIT
"""The flow table against a dict, on tables small enough to collide; listeners by address; initial sequence numbers."""

import itertools
import random
from collections import Counter
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from ustack.testing.parts.tcp import FlowTable

Flow: TypeAlias = tuple[int, int, int, int]

LOCAL = 0xC6120002
PEER = 0xC6120001
CONNECTION, SYN_RECEIVED, TIME_WAIT = 1, 2, 3
KINDS = st.sampled_from([CONNECTION, SYN_RECEIVED, TIME_WAIT])


def flow(number: int) -> Flow:
    """A flow of its own for each number below 2^32."""
    return (LOCAL, 80, PEER + (number >> 16), number & 0xFFFF)


def check(table: FlowTable) -> None:
    """What linear probing needs: every entry can be reached from its home without crossing an empty slot."""
    slots, old = table.slots, table.old_slots
    assert sum(target != 0 for _, target in slots + old) == table.used
    assert table.used * 4 <= len(slots) * 3
    for at, (tag, target) in enumerate(slots):
        probe = tag % len(slots)
        while target and probe != at:
            assert slots[probe][1] != 0, f"slot {at} cannot be reached from its home"
            probe = (probe + 1) % len(slots)
    # A table that is being emptied: what is done is empty, what is left has its home in what is left.
    start, done = table.moved
    if old:
        assert done < len(old)
        assert old[-1][1] == 0
        assert not any(target for _, target in old[:done])
    for at, (tag, target) in enumerate(old):
        probe = (tag - start) % len(old)
        assert not target or done <= probe <= at
        assert not target or all(old[between][1] for between in range(probe, at))


class Model(RuleBasedStateMachine):
    """Insert, find, retarget and remove in any order; a dict says what must be there."""

    inserted = Bundle("inserted")

    def __init__(self) -> None:
        super().__init__()
        self.table = FlowTable(seed=5, slots=4)
        self.model: dict[Flow, tuple[int, int]] = {}

    @rule()
    def turn(self) -> None:
        self.table.turn()

    @rule(target=inserted, first=st.integers(0, 400), count=st.integers(1, 150), kind=KINDS)
    def insert_many(self, first: int, count: int, kind: int) -> Flow:
        for number in range(first, first + count):
            self.insert(number, kind)
        return flow(first)

    @rule(first=st.integers(0, 400), count=st.integers(1, 300))
    def remove_many(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.remove(flow(number))

    @rule(target=inserted, number=st.integers(0, 60), kind=KINDS)
    def insert(self, number: int, kind: int) -> Flow:
        key = flow(number)
        if key not in self.model:
            self.model[key] = (kind, self.table.insert(key, kind))
        return key

    @rule(key=inserted)
    def remove(self, key: Flow) -> None:
        self.table.remove(key)
        self.model.pop(key, None)

    @rule(key=inserted, kind=KINDS)
    def retarget(self, key: Flow, kind: int) -> None:
        if key in self.model and self.model[key][0] != kind:
            self.model[key] = (kind, self.table.retarget(key, kind))

    @rule(number=st.integers(0, 80))
    def find(self, number: int) -> None:
        assert self.table.find(flow(number)) == self.model.get(flow(number))

    @precondition(lambda self: self.model)
    @invariant()
    def everything_is_found(self) -> None:
        assert {key: self.table.find(key) for key in self.model} == self.model

    @invariant()
    def the_table_is_sound(self) -> None:
        assert self.table.used == len(self.model)
        check(self.table)


TestModel = Model.TestCase
TestModel.settings = settings(deadline=None, max_examples=40, stateful_step_count=60)


def colliding(table: FlowTable, home: int, count: int) -> list[Flow]:
    """Flows whose home is that slot of the table as it is now."""
    found: list[Flow] = []
    number = 0
    while len(found) < count:
        if table.hash(flow(number)) % table.size == home:
            found.append(flow(number))
        number += 1
    return found


def test_an_empty_table_finds_nothing() -> None:
    assert FlowTable().find(flow(0)) is None


def test_each_kind_of_record_is_found_as_what_it_is() -> None:
    table = FlowTable()
    wanted = {flow(kind): (kind, table.insert(flow(kind), kind)) for kind in (CONNECTION, SYN_RECEIVED, TIME_WAIT)}
    assert {key: table.find(key) for key in wanted} == wanted


@pytest.mark.parametrize("part", range(4))
def test_a_flow_differs_when_any_part_of_it_differs(part: int) -> None:
    table = FlowTable()
    key = (LOCAL, 80, PEER, 40000)
    table.insert(key, CONNECTION)
    other = tuple(value + (index == part) for index, value in enumerate(key))
    assert table.find(other) is None  # type: ignore[arg-type]


def test_both_directions_of_a_flow_are_two_flows() -> None:
    table = FlowTable()
    table.insert((LOCAL, 80, PEER, 40000), CONNECTION)
    assert table.find((PEER, 40000, LOCAL, 80)) is None


def test_a_handshake_moves_one_entry_through_all_kinds() -> None:
    table = FlowTable()
    table.insert(flow(1), SYN_RECEIVED)
    connection = table.retarget(flow(1), CONNECTION)
    assert table.find(flow(1)) == (CONNECTION, connection)
    last = table.retarget(flow(1), TIME_WAIT)
    assert table.find(flow(1)) == (TIME_WAIT, last)
    assert table.used == 1


def test_removing_what_is_not_there_changes_nothing() -> None:
    table = FlowTable()
    table.insert(flow(1), CONNECTION)
    table.remove(flow(2))
    assert table.used == 1


@pytest.mark.parametrize("home", [0, 7, 14, 15])
@pytest.mark.parametrize("removed", range(5))
def test_flows_with_one_home_survive_the_removal_of_any(home: int, removed: int) -> None:
    """Also around the end of the table, where the run of slots goes on at its beginning."""
    table = FlowTable(slots=16)
    keys = colliding(table, home, 5)
    for key in keys:
        table.insert(key, CONNECTION)
    table.remove(keys.pop(removed))
    assert all(table.find(key) for key in keys)
    check(table)


@given(st.permutations(range(11)), st.integers(0, 15))
@settings(deadline=None, max_examples=60)
def test_removal_in_any_order_shifts_back_runs_of_several_homes(order: list[int], home: int) -> None:
    table = FlowTable(slots=16)
    keys = [*colliding(table, home, 4), *colliding(table, (home + 1) % 16, 4), *colliding(table, (home + 3) % 16, 3)]
    for key in keys:
        table.insert(key, CONNECTION)
    left = set(keys)
    for index in order:
        table.remove(keys[index])
        left.discard(keys[index])
        check(table)
        assert {key for key in keys if table.find(key)} == left


def test_ten_doublings_lose_nothing() -> None:
    table = FlowTable(slots=8)
    wanted = {}
    for number in range(6000):
        wanted[flow(number)] = (CONNECTION, table.insert(flow(number), CONNECTION))
    assert table.size == 8192
    check(table)
    assert {key: table.find(key) for key in wanted} == wanted


def test_no_insertion_pays_for_a_larger_table() -> None:
    """Growing from 4,096 to 65,536 slots: never more than a few slots and the end of a run at once."""
    table = FlowTable(slots=4096)
    dearest = 0
    for number in range(48_000):
        before = table.moves
        table.insert(flow(number), CONNECTION)
        dearest = max(dearest, table.moves - before)
    assert table.size == 65_536
    assert table.moves > 4096 + 8192 + 16_384
    assert dearest < 512
    for number in range(0, 48_000, 7):
        assert table.find(flow(number)) is not None


def test_growing_ends_long_before_the_next_growing() -> None:
    table = FlowTable(slots=1024)
    number = 0
    while table.size == 1024:
        table.insert(flow(number), CONNECTION)
        number += 1
    assert table.old_slots
    began = number
    while table.old_slots:
        table.insert(flow(number), CONNECTION)
        number += 1
    assert number - began <= 1024 // 8


def test_growing_ends_without_another_connection() -> None:
    table = FlowTable(slots=4096)
    for number in range(3073):
        table.insert(flow(number), CONNECTION)
    assert table.old_slots
    turns = 0
    while table.old_slots:
        before = table.moves
        table.turn()
        turns += 1
        assert table.moves - before < 1024
    assert turns <= 4096 // 256
    check(table)


def test_what_is_found_while_a_table_grows_is_found_in_either() -> None:
    table = FlowTable(slots=4096)
    wanted = {flow(number): (TIME_WAIT, table.insert(flow(number), TIME_WAIT)) for number in range(3073)}
    table.turn()
    _, done = table.moved
    assert 0 < done < 4096
    assert any(target for _, target in table.slots)
    assert any(target for _, target in table.old_slots)
    assert {key: table.find(key) for key in wanted} == wanted
    assert all(table.find(flow(number)) is None for number in range(5000, 6000))
    for number in range(0, 3073, 2):
        table.remove(flow(number))
        del wanted[flow(number)]
    check(table)
    assert {key: table.find(key) for key in wanted} == wanted


def test_a_table_shrinks_when_most_of_it_has_gone() -> None:
    table = FlowTable(slots=1024)
    for number in range(50_000):
        table.insert(flow(number), CONNECTION)
    assert table.size == 131_072
    dearest = 0
    for number in range(49_900):
        before = table.moves
        table.remove(flow(number))
        dearest = max(dearest, table.moves - before)
    for _ in range(1000):
        table.turn()
    assert table.size == 1024
    assert not table.old_slots
    assert table.retired_bytes == 0
    assert dearest < 512
    assert all(table.find(flow(number)) is not None for number in range(49_900, 50_000))
    check(table)


def test_a_table_does_not_change_its_size_to_and_fro() -> None:
    """A connection that comes and goes at the edge costs no second move."""
    table = FlowTable(slots=1024)
    for number in range(769):
        table.insert(flow(number), CONNECTION)
    for _ in range(100):
        table.turn()
    moved = table.moves
    for _ in range(2000):
        table.remove(flow(0))
        table.insert(flow(0), CONNECTION)
    assert (table.size, table.moves) == (2048, moved)


def test_an_emptied_table_is_given_back_in_pieces() -> None:
    table = FlowTable(slots=262_144)
    for number in range(196_609):
        table.insert(flow(number), CONNECTION)
    while not table.retired_bytes:
        table.turn()
    sizes = [table.retired_bytes]
    while sizes[-1]:
        table.turn()
        sizes.append(table.retired_bytes)
    assert len(sizes) > 2
    assert max(before - after for before, after in itertools.pairwise(sizes)) <= 256 * 1024


def test_runs_stay_short_at_the_fullest() -> None:
    """At 3/4 of 65,536 slots no lookup looks at more than a few hundred."""
    table = FlowTable(slots=65_536)
    for number in range(49_152):
        table.insert(flow(number), CONNECTION)
    assert table.size == 65_536
    longest = run = 0
    for _, target in table.slots * 2:
        run = run + 1 if target else 0
        longest = max(longest, run)
    assert longest < 512


def test_a_full_life_leaves_the_table_empty() -> None:
    table = FlowTable(slots=8)
    numbers = list(range(3000))
    for number in numbers:
        table.insert(flow(number), SYN_RECEIVED)
    random.Random(3).shuffle(numbers)
    for number in numbers:
        table.remove(flow(number))
    assert table.used == 0
    assert not any(target for _, target in table.slots + table.old_slots)


def test_tables_of_other_seeds_hash_otherwise() -> None:
    """A peer that knows the source cannot choose ports that collide."""
    one, other = FlowTable(1), FlowTable(2)
    assert sum(one.hash(flow(number)) == other.hash(flow(number)) for number in range(200)) <= 1


def test_ports_of_one_peer_spread_over_the_table() -> None:
    table = FlowTable()
    homes = Counter(table.hash((LOCAL, 80, PEER, port)) % 256 for port in range(32768, 60999))
    assert len(homes) == 256
    assert max(homes.values()) < 2 * 28231 / 256


# ---------------------------------------------------------------- listeners


def test_a_listener_of_the_very_address_comes_before_one_of_any() -> None:
    table = FlowTable()
    table.listen(0, None, 80, 1)
    table.listen(1, LOCAL, 80, 2)
    assert (table.listener(LOCAL, 80), table.listener(LOCAL + 1, 80)) == (2, 1)


def test_the_order_of_listening_does_not_matter() -> None:
    table = FlowTable()
    table.listen(5, LOCAL, 80, 2)
    table.listen(63, None, 80, 1)
    assert (table.listener(LOCAL, 80), table.listener(LOCAL + 1, 80)) == (2, 1)


def test_nobody_listens_on_another_port_or_address() -> None:
    table = FlowTable()
    table.listen(0, LOCAL, 80, 1)
    assert (table.listener(LOCAL, 81), table.listener(LOCAL + 1, 80)) == (0, 0)


def test_an_exact_search_does_not_find_the_listener_of_any() -> None:
    table = FlowTable()
    table.listen(0, None, 80, 1)
    assert table.listener(LOCAL, 80, exact=True) == 0


# ---------------------------------------------------------------- initial sequence numbers (RFC 6528)

SECOND = 1_000_000_000
WRAP = 1 << 32


def test_the_clock_of_isns_ticks_every_four_microseconds() -> None:
    """MUST-8."""
    table = FlowTable()
    assert (table.isn(flow(1), 4096 * 1001) - table.isn(flow(1), 4096 * 1000)) % WRAP == 1
    assert table.isn(flow(1), 4096 * 1000 + 4095) == table.isn(flow(1), 4096 * 1000)


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 31))
@settings(deadline=None, max_examples=100)
def test_a_connection_opened_later_begins_later(start_ns: int, ticks: int) -> None:
    """One flow's numbers move forward with the clock, and nothing else moves them."""
    table = FlowTable()
    assert (table.isn(flow(1), start_ns + ticks * 4096) - table.isn(flow(1), start_ns)) % WRAP == ticks


def test_isns_go_once_around_in_less_than_five_hours() -> None:
    table = FlowTable()
    assert table.isn(flow(1), 0) == table.isn(flow(1), 4096 << 32)
    assert 5 * 3600 * SECOND > 4096 << 32


@pytest.mark.parametrize("part", range(4))
def test_another_flow_has_another_offset(part: int) -> None:
    table = FlowTable()
    key = (LOCAL, 80, PEER, 40000)
    other = tuple(value + (index == part) for index, value in enumerate(key))
    assert table.isn(key, SECOND) != table.isn(other, SECOND)  # type: ignore[arg-type]


def test_the_offsets_of_neighbouring_ports_tell_nothing_of_each_other() -> None:
    """An outsider who sees the ISNs of his own ports learns none of another's: no difference repeats."""
    table = FlowTable()
    numbers = [table.isn((LOCAL, 80, PEER, port), 0) for port in range(1000, 2000)]
    differences = {(b - a) % WRAP for a, b in itertools.pairwise(numbers)}
    assert len(set(numbers)) == 1000
    assert len(differences) == 999
    assert all(400 < sum(number >> bit & 1 for number in numbers) < 600 for bit in range(32))


def test_the_secret_comes_from_the_seed() -> None:
    assert FlowTable(7).isn(flow(1), SECOND) == FlowTable(7).isn(flow(1), SECOND)
    assert FlowTable(7).isn(flow(1), SECOND) != FlowTable(8).isn(flow(1), SECOND)
