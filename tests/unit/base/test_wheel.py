# SPDX-License-Identifier: MIT
"""The timing wheel against a sorted list, on all four levels and across the wrap of the 32-bit tick."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.children import assert_aborts
from ustack.base.wheel import Wheel
from ustack.buf.slab import Slab

SHIFT = 18
TICK = 1 << SHIFT
MAX_TICKS = 2**31 - 1
NEVER = 2**64 - 1
ORIGIN = 5_000_000_000_123

BOUNDARY_TICKS = [0, 1, 2, 255, 256, 257, 65_535, 65_536, 65_537, 2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1]
START_TICKS = [0, 250, 65_530, 2**24 - 3, 2**31 - 2, 2**32 - 70_000, 2**32 - 300, 2**32 - 2, 2**32 - 1]


def drain(wheel: Wheel, now_ns: int, at_a_time: int = 64) -> list[int]:
    owners: list[int] = []
    while True:
        events = wheel.expire(now_ns, at_a_time)
        owners += [owner for _, owner in events]
        if len(events) < at_a_time:
            return owners


class Model:
    """What a wheel should do, with unbounded integers: ticks are counted from 0 and never wrap."""

    def __init__(self, start_tick: int) -> None:
        self.wheel = Wheel(ORIGIN, start_tick)
        self.start = start_tick
        self.tick = start_tick
        self.now = ORIGIN
        self.order = 0
        self.timers: dict[int, tuple[int, int, int, int]] = {}  # owner -> (tick, order, id, deadline)

    def time_of(self, tick: int) -> int:
        return ORIGIN + (tick - self.start) * TICK

    def deadline_tick(self, deadline: int) -> int:
        ticks = -((ORIGIN - deadline) // TICK)
        return min(max(self.start + ticks, self.tick), self.tick + MAX_TICKS)

    def clamped(self, deadline: int) -> int:
        return min(deadline, self.time_of(self.tick + MAX_TICKS))

    def arm(self, deadline: int, kind: int, owner: int) -> None:
        owner = owner << 3 | kind
        if owner in self.timers:
            return
        timer = self.wheel.arm(deadline, kind, owner)
        self.order += 1
        self.timers[owner] = (self.deadline_tick(deadline), self.order, timer, self.clamped(deadline))

    def pick(self, number: int) -> int | None:
        return sorted(self.timers)[number % len(self.timers)] if self.timers else None

    def move(self, number: int, deadline: int) -> None:
        owner = self.pick(number)
        if owner is not None:
            tick, order, timer, _ = self.timers[owner]
            self.wheel.move(timer, deadline)
            if self.deadline_tick(deadline) != tick:
                self.order += 1
                tick, order = self.deadline_tick(deadline), self.order
            self.timers[owner] = (tick, order, timer, self.clamped(deadline))

    def cancel(self, number: int) -> None:
        owner = self.pick(number)
        if owner is not None:
            self.wheel.cancel(self.timers.pop(owner)[2])

    def expire(self, advance: int, max_events: int, calls: int) -> None:
        self.now += advance
        now_tick = self.start + (self.now - ORIGIN) // TICK
        for _ in range(calls):
            due = sorted((t[0], t[1], owner) for owner, t in self.timers.items() if t[0] <= now_tick)
            expected = [(owner & 7, owner) for _, _, owner in due[:max_events]]
            assert self.wheel.expire(self.now, max_events) == expected
            for _, owner in expected:
                assert self.timers.pop(owner)[3] <= self.now  # never early
            if len(expected) < max_events:
                self.tick = now_tick
                break
            self.tick = due[max_events - 1][0]
        assert self.wheel.tick == self.tick % 2**32
        if self.tick == now_tick and not any(t[0] <= now_tick for t in self.timers.values()):
            assert all(t[3] > self.now - TICK for t in self.timers.values())  # at most one tick late

    def check(self) -> None:
        assert self.wheel.armed == len(self.timers)
        if not self.timers:
            assert self.wheel.next_ns == NEVER
            assert self.wheel.occupied_buckets == 0
            return
        first = min(t[0] for t in self.timers.values())
        assert self.wheel.next_ns <= self.time_of(first)
        assert self.wheel.next_ns >= self.time_of(self.tick)
        if first >> 8 == self.tick >> 8:
            assert self.wheel.next_ns == self.time_of(first)


# Distances of every magnitude, from under a tick to beyond the clamp.
distances = st.one_of(
    st.integers(0, 3 * TICK),
    st.integers(0, 600).map(lambda ticks: ticks * TICK),
    st.builds(lambda mantissa, shift: mantissa << shift, st.integers(1, 255), st.integers(0, 44)),
)
steps = st.one_of(
    st.tuples(st.just("arm"), distances, st.integers(0, 7), st.integers(0, 300)),
    st.tuples(st.just("arm"), distances, st.integers(0, 7), st.integers(0, 300)),
    st.tuples(st.just("move"), distances, st.integers(0, 1000)),
    st.tuples(st.just("cancel"), st.integers(0, 1000)),
    st.tuples(st.just("expire"), distances, st.integers(1, 64), st.integers(1, 20)),
    st.tuples(st.just("late"), distances, st.integers(0, 7), st.integers(0, 300)),
)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.sampled_from(START_TICKS), st.integers(0, 2**32 - 1)), st.lists(steps, max_size=80))
def test_against_a_sorted_list(start_tick: int, script: list[tuple[object, ...]]) -> None:
    model = Model(start_tick)
    for name, *args in script:
        match name, args:
            case "arm", [int(distance), int(kind), int(owner)]:
                model.arm(model.now + distance, kind, owner)
            case "late", [int(distance), int(kind), int(owner)]:
                model.arm(max(model.now - distance, 0), kind, owner)
            case "move", [int(distance), int(number)]:
                model.move(number, model.now + distance)
            case "cancel", [int(number)]:
                model.cancel(number)
            case "expire", [int(distance), int(max_events), int(calls)]:
                model.expire(distance, max_events, calls)
        model.check()
    while model.timers:
        model.expire((MAX_TICKS + 1) * TICK, 64, 20)
    model.check()


def drain_in_steps(wheel: Wheel, now_ns: int, max_events: int, max_moves: int) -> list[int]:
    """Everything that is due, with at most so many timers placed again in one call."""
    owners: list[int] = []
    calls = 0
    while True:
        events = wheel.expire(now_ns, max_events, max_moves)
        owners += [owner for _, owner in events]
        if len(events) < max_events and wheel.next_ns > now_ns:
            return owners
        calls += 1
        assert calls < 10_000


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(START_TICKS),
    st.lists(st.tuples(st.lists(distances, max_size=20), distances), min_size=1, max_size=8),
    st.integers(1, 64),
    st.integers(1, 5),
)
def test_placing_timers_again_in_steps_changes_nothing(
    start_tick: int, script: list[tuple[list[int], int]], max_events: int, max_moves: int
) -> None:
    """The same timers at the same calls in the same order, however little one call may do."""
    whole, stepped = Wheel(ORIGIN, start_tick), Wheel(ORIGIN, start_tick)
    now = ORIGIN
    owner = 0
    for arms, advance in script:
        for distance in arms:
            whole.arm(now + distance, 1, owner)
            stepped.arm(now + distance, 1, owner)
            owner += 1
        now += advance
        assert drain_in_steps(stepped, now, max_events, max_moves) == drain(whole, now)
        assert stepped.next_ns == whole.next_ns
        assert stepped.tick == whole.tick


def test_a_bucket_that_is_half_placed_again_can_be_changed() -> None:
    """Cancel, move and arm between two steps of one cascade: nothing is lost, nothing fires early."""
    wheel = Wheel(ORIGIN)
    timers = {owner: wheel.arm(ORIGIN + (300 + owner) * TICK, 1, owner) for owner in range(200)}
    now = ORIGIN + 256 * TICK
    assert wheel.expire(now, 64, 10) == []
    assert wheel.next_ns <= now
    for owner in range(0, 200, 4):
        wheel.cancel(timers.pop(owner))
    for owner in range(1, 200, 4):
        wheel.move(timers[owner], ORIGIN + (1000 + owner) * TICK)
    for owner in range(200, 220):
        timers[owner] = wheel.arm(ORIGIN + (257 + owner) * TICK, 1, owner)

    def due_tick(owner: int) -> int:
        if owner >= 200:
            return 257 + owner
        return 1000 + owner if owner % 4 == 1 else 300 + owner

    fired: list[tuple[int, int]] = []
    for tick in range(256, 1300):
        fired += [(tick, owner) for owner in drain_in_steps(wheel, ORIGIN + tick * TICK, 3, 1)]
    assert sorted(fired) == sorted((due_tick(owner), owner) for owner in timers)
    assert wheel.armed == 0
    assert wheel.occupied_buckets == 0


def test_a_million_ticks_ahead_in_one_bucket_is_placed_again_in_steps() -> None:
    wheel = Wheel(ORIGIN)
    for owner in range(5000):
        wheel.arm(ORIGIN + 100_000 * TICK, 1, owner)
    now = ORIGIN + 100_000 * TICK
    calls = 0
    while not (events := wheel.expire(now, 64, 100)):
        calls += 1
    assert calls >= 5000 // 100
    assert events == [(1, owner) for owner in range(64)]
    assert len(drain_in_steps(wheel, now, 64, 100)) == 5000 - 64


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(START_TICKS), st.lists(st.integers(0, MAX_TICKS * TICK), min_size=1, max_size=50))
@example(2**32 - 1, [255 * TICK, 256 * TICK, 65_536 * TICK, 2**24 * TICK, 2**31 * TICK - TICK])
def test_sleeping_until_next_ns_meets_every_deadline_in_time(start_tick: int, delays: list[int]) -> None:
    wheel = Wheel(ORIGIN, start_tick)
    for owner, delay in enumerate(delays):
        wheel.arm(ORIGIN + delay, 0, owner)
    wakes = 0
    while wheel.armed:
        now = wheel.next_ns
        wakes += 1
        for owner in drain(wheel, now):
            assert 0 <= now - (ORIGIN + delays[owner]) < TICK
    assert wakes <= 4 * len(delays)


@pytest.mark.parametrize("start_tick", START_TICKS)
@pytest.mark.parametrize(
    "ticks", [0, 1, 2, 255, 256, 257, 65_535, 65_536, 65_537, 2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1]
)
def test_neither_early_nor_a_tick_late(start_tick: int, ticks: int) -> None:
    wheel = Wheel(ORIGIN, start_tick)
    wheel.arm(ORIGIN + ticks * TICK, 3, 17)
    if ticks:
        assert wheel.expire(ORIGIN + ticks * TICK - 1) == []
    assert wheel.expire(ORIGIN + ticks * TICK) == [(3, 17)]
    assert wheel.armed == 0
    assert wheel.next_ns == NEVER


@pytest.mark.parametrize("start_tick", START_TICKS)
def test_one_call_for_everything_gives_the_order_of_deadlines(start_tick: int) -> None:
    wheel = Wheel(ORIGIN, start_tick)
    ticks = [5, 4, 300, 299, 70_000, 69_999, 2**24 + 9, 2**24 + 8, 2**31 - 1, 0]
    for tick in ticks:
        wheel.arm(ORIGIN + tick * TICK, 1, tick % 2**29)
    assert drain(wheel, ORIGIN + 2**50, at_a_time=3) == [tick % 2**29 for tick in sorted(ticks)]


def test_timers_of_one_tick_keep_the_order_of_arming() -> None:
    wheel = Wheel(ORIGIN)
    for owner in range(5):
        wheel.arm(ORIGIN + 70_000 * TICK, 0, owner)
    drain(wheel, ORIGIN + 69_900 * TICK)
    for owner in range(5, 10):
        wheel.arm(ORIGIN + 70_000 * TICK - owner, 0, owner)
    assert drain(wheel, ORIGIN + 70_000 * TICK) == list(range(10))


def test_kind_and_owner_come_back_whole() -> None:
    wheel = Wheel(ORIGIN)
    wheel.arm(ORIGIN, 7, 2**29 - 1)
    wheel.arm(ORIGIN, 0, 0)
    assert wheel.expire(ORIGIN) == [(7, 2**29 - 1), (0, 0)]


def test_a_passed_deadline_fires_at_the_next_expire() -> None:
    wheel = Wheel(ORIGIN)
    assert wheel.expire(ORIGIN + 10 * TICK) == []
    wheel.arm(ORIGIN + 3 * TICK, 0, 1)
    wheel.arm(0, 0, 2)
    assert wheel.next_ns <= ORIGIN + 10 * TICK
    assert wheel.expire(ORIGIN + 10 * TICK) == [(0, 1), (0, 2)]


def test_a_full_event_buffer_is_continued() -> None:
    wheel = Wheel(ORIGIN)
    for owner in range(130):
        wheel.arm(ORIGIN + owner % 3 * TICK, 0, owner)
    counts = [len(wheel.expire(ORIGIN + 5 * TICK, 50)) for _ in range(4)]
    assert counts == [50, 50, 30, 0]


def test_what_is_armed_between_two_calls_is_not_lost() -> None:
    wheel = Wheel(ORIGIN)
    for owner in range(4):
        wheel.arm(ORIGIN + (owner + 1) * TICK, 0, owner)
    now = ORIGIN + 1000 * TICK
    assert wheel.expire(now, 2) == [(0, 0), (0, 1)]
    wheel.arm(ORIGIN, 0, 8)  # passed
    wheel.arm(now, 0, 9)
    assert drain(wheel, now) == [8, 2, 3, 9]


def test_cancel_and_move() -> None:
    wheel = Wheel(ORIGIN)
    ids = [wheel.arm(ORIGIN + 10 * TICK, 0, owner) for owner in range(4)]
    assert len(set(ids)) == 4
    assert 0 not in ids
    wheel.cancel(ids[1])
    wheel.move(ids[0], ORIGIN + 100_000 * TICK)
    wheel.move(ids[3], ORIGIN + 5 * TICK)
    assert wheel.armed == 3
    assert drain(wheel, ORIGIN + 10 * TICK) == [3, 2]
    assert drain(wheel, ORIGIN + 99_999 * TICK) == []
    assert drain(wheel, ORIGIN + 100_000 * TICK) == [0]


def test_a_far_deadline_is_clamped() -> None:
    wheel = Wheel(ORIGIN)
    wheel.arm(NEVER, 0, 1)
    assert wheel.expire(ORIGIN + MAX_TICKS * TICK - 1) == []
    assert wheel.expire(ORIGIN + MAX_TICKS * TICK) == [(0, 1)]


@pytest.mark.parametrize("jump_ticks", [2**32 - 1, 2**32, 2**32 + 1, 5 * 2**32 + 77])
def test_a_stopped_process_may_miss_whole_turns(jump_ticks: int) -> None:
    wheel = Wheel(ORIGIN, 2**32 - 5)
    wheel.arm(ORIGIN + 100 * TICK, 0, 1)
    now = ORIGIN + jump_ticks * TICK
    assert drain(wheel, now) == [1]
    assert wheel.tick == (2**32 - 5 + jump_ticks) % 2**32
    wheel.arm(now + 300 * TICK, 0, 2)
    assert drain(wheel, now + 300 * TICK - 1) == []
    assert drain(wheel, now + 300 * TICK) == [2]


@pytest.mark.parametrize("late", [0, 1, 1000, MAX_TICKS, MAX_TICKS + 1, 2**32, 3 * 2**32 + 5])
def test_a_timer_that_is_late_says_how_far_ticks_can_tell(late: int) -> None:
    wheel = Wheel(ORIGIN, 2**32 - 5)
    wheel.arm(ORIGIN + 100 * TICK, 0, 1)
    assert wheel.expire(ORIGIN + (100 + late) * TICK) == [(0, 1)]
    assert wheel.ticks == [(95 + min(late, MAX_TICKS)) % 2**32]


def test_a_clock_that_goes_back_is_no_harm() -> None:
    wheel = Wheel(ORIGIN)
    wheel.expire(ORIGIN + 10 * TICK)
    wheel.arm(ORIGIN + 12 * TICK, 0, 1)
    assert wheel.expire(ORIGIN + 2 * TICK) == []
    assert wheel.tick == 10
    assert wheel.expire(ORIGIN + 12 * TICK) == [(0, 1)]


def test_tick_of_agrees_with_the_wheel_after_the_wrap() -> None:
    wheel = Wheel(ORIGIN, 2**32 - 2)
    for ticks in (0, 1, 2, 3, 2**32 + 5):
        assert wheel.tick_of(ORIGIN + ticks * TICK) == (2**32 - 2 + ticks) % 2**32
        wheel.expire(ORIGIN + ticks * TICK)
        assert wheel.tick == wheel.tick_of(ORIGIN + ticks * TICK)


def test_nodes_grow_and_are_used_again() -> None:
    wheel = Wheel(ORIGIN)
    ids = [wheel.arm(ORIGIN + owner * TICK, 0, owner) for owner in range(50_000)]
    capacity = wheel.capacity
    assert capacity >= 50_000 + 1024
    assert len(set(ids)) == 50_000
    for timer in ids[::2]:
        wheel.cancel(timer)
    for owner in range(0, 50_000, 2):
        wheel.arm(ORIGIN + owner * TICK, 0, owner)
    assert wheel.capacity == capacity
    assert drain(wheel, ORIGIN + 50_000 * TICK) == list(range(50_000))
    assert wheel.armed == 0
    assert wheel.occupied_buckets == 0


@pytest.mark.skipif(not Slab(64, 1).is_debug, reason="only debug builds check their callers")
@pytest.mark.parametrize(
    "misuse", ["w.cancel(t); w.cancel(t)", "w.expire(9); w.cancel(t)", "w.cancel(0)", "w.move(5, 1)"]
)
def test_debug_builds_abort_on_a_timer_that_is_not_armed(misuse: str) -> None:
    assert_aborts(f"from ustack.base.wheel import Wheel\nw = Wheel()\nt = w.arm(0, 0, 1)\n{misuse}")
