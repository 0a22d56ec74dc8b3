# SPDX-License-Identifier: MIT
"""HyStart++ with plain numbers, through CUBIC's first slow start: RFC 9406 section 4."""

import pytest

from ustack.testing.parts.controls import Control

SMSS = 1000
IW = 10 * SMSS
ARBITRARILY_HIGH = 0x7FFFFFFF
MS = 1000


def control() -> Control:
    return Control("cubic", SMSS, IW)


def one_round(made: Control, rtt_us: int) -> int:
    """Everything that is in flight is acknowledged, segment by segment, while as much again is sent. The growth."""
    before = made.window[0]
    for _ in range(before // SMSS):
        made.on_ack(SMSS, flight=made.window[0], rtt_us=rtt_us)
    return made.window[0] - before


def test_with_an_even_round_trip_it_is_slow_start() -> None:
    made = control()
    for number in range(1, 8):
        one_round(made, 20 * MS)
        assert made.window == (IW * 2**number, ARBITRARILY_HIGH)


def test_without_measurements_it_is_slow_start() -> None:
    made = control()
    for _ in range(7):
        one_round(made, 0)
    assert made.window == (IW * 2**7, ARBITRARILY_HIGH)


@pytest.mark.parametrize(
    ("rtt_ms", "longer_ms", "conservative"),
    [(8, 11, False), (8, 12, True), (80, 89, False), (80, 90, True), (400, 415, False), (400, 416, True)],
)
def test_an_eighth_more_within_4_and_16_ms_is_conservative(rtt_ms: int, longer_ms: int, conservative: bool) -> None:
    made = control()
    one_round(made, rtt_ms * MS)
    one_round(made, rtt_ms * MS)
    one_round(made, longer_ms * MS)  # judged from its eighth sample on
    window = made.window[0]
    grown = one_round(made, longer_ms * MS)
    assert (grown < window // 2) == conservative  # the round began a few segments before ours


def test_conservative_growth_is_a_quarter() -> None:
    """Section 4.3: CSS_GROWTH_DIVISOR is 4, and MUST be 2 at least."""
    made = control()
    for rtt_ms in (20, 20, 40, 40):
        one_round(made, rtt_ms * MS)  # the round that finds out begins a few segments before ours
    for _ in range(3):
        window = made.window[0]
        assert one_round(made, 40 * MS) == pytest.approx(window / 4, abs=SMSS)


def test_five_conservative_rounds_end_slow_start() -> None:
    made = control()
    one_round(made, 20 * MS)
    one_round(made, 20 * MS)
    rounds = 0
    while made.window[1] == ARBITRARILY_HIGH:
        one_round(made, 40 * MS)
        rounds += 1
        assert rounds <= 8
    assert rounds >= 5
    assert made.window[0] >= made.window[1]


def even_rounds(made: Control, rtts_ms: list[int]) -> None:
    """Rounds of twenty ACKs, each of one segment; the first ACK of all is the round that nothing was sent before."""
    made.on_ack(SMSS, flight=21 * SMSS, rtt_us=rtts_ms[0] * MS)
    for rtt_ms in rtts_ms:
        for _ in range(20):
            made.on_ack(SMSS, flight=21 * SMSS, rtt_us=rtt_ms * MS)


def test_the_round_in_which_growth_turns_conservative_counts() -> None:
    """Section 4.2: the rest of it is the first of five."""
    made = control()
    even_rounds(made, [20, 40, 40, 40, 40])
    assert made.window[1] == ARBITRARILY_HIGH
    for _ in range(19):
        made.on_ack(SMSS, flight=21 * SMSS, rtt_us=40 * MS)
    assert made.window[1] == ARBITRARILY_HIGH
    made.on_ack(SMSS, flight=21 * SMSS, rtt_us=40 * MS)
    assert made.window[0] == made.window[1]


@pytest.mark.parametrize(("event", "left"), [("on_loss", 70), ("on_ecn", 85)])
@pytest.mark.parametrize("rtt_ms", [20, 40])
def test_a_loss_or_a_mark_ends_either_phase(event: str, left: int, rtt_ms: int) -> None:
    """Section 4.2: ssthresh is the window then, and congestion avoidance begins."""
    made = control()
    even_rounds(made, [20, rtt_ms])
    window = made.window[0]
    getattr(made, event)(flight=window)
    assert made.window == (window * left // 100, window * left // 100)
    even_rounds(made, [40])
    assert made.window[0] <= window * left // 100 + 2 * SMSS


def test_a_round_below_the_baseline_was_jitter() -> None:
    made = control()
    one_round(made, 20 * MS)
    one_round(made, 20 * MS)
    for _ in range(2):
        one_round(made, 40 * MS)
    for _ in range(2):
        one_round(made, 30 * MS)  # below what conservative slow start began with
    window = made.window[0]
    assert one_round(made, 30 * MS) == window // SMSS * SMSS
    assert made.window[1] == ARBITRARILY_HIGH


def test_seven_samples_of_a_round_say_nothing() -> None:
    made = control()
    one_round(made, 20 * MS)
    one_round(made, 20 * MS)
    window = made.window[0]
    for number in range(window // SMSS):
        made.on_ack(SMSS, flight=made.window[0], rtt_us=60 * MS if number < 7 else 0)
    assert made.window[0] == 2 * window


def test_after_a_loss_slow_start_is_without_it() -> None:
    made = control()
    made.on_rto(flight=40 * SMSS)
    assert made.window == (SMSS, 28 * SMSS)
    for rtt_ms in (20, 20, 200, 400):
        one_round(made, rtt_ms * MS)
    assert made.window[0] == 16 * SMSS


@pytest.mark.parametrize(
    ("paced", "segments", "counted"), [(False, 8, 8), (False, 9, 8), (False, 44, 8), (True, 44, 44)]
)
def test_one_ack_counts_for_eight_segments_where_nothing_paces(paced: bool, segments: int, counted: int) -> None:
    """Section 4.3: L = 8, or no limit."""
    made = control()
    made.window = (100 * SMSS, ARBITRARILY_HIGH)
    made.pacing_rate = 1_000_000 if paced else 0
    made.on_ack(segments * SMSS, flight=100 * SMSS)
    assert made.window[0] == (100 + counted) * SMSS


def test_a_window_that_is_not_used_does_not_grow_but_rounds_go_on() -> None:
    made = control()
    for _ in range(4):
        for _ in range(10):
            made.on_ack(SMSS, flight=10 * SMSS, rtt_us=20 * MS, cwnd_limited=False)
    assert made.window == (IW, ARBITRARILY_HIGH)
    one_round(made, 30 * MS)
    window = made.window[0]
    assert one_round(made, 30 * MS) < window // 2  # conservative: the round before was of 20 ms


class Queue:
    """A path of plain numbers: a link that takes one segment every `tick`, a queue before it, a delay. Nothing is
    paced: an ACK lets out what the window has room for."""

    def __init__(self, rate_segs: int, rtt_ms: int, queue_segs: int) -> None:
        self.tick_us = 1_000_000 // rate_segs
        self.delay_us = rtt_ms * 1000
        self.limit = queue_segs
        self.free_us = 0
        self.most = self.lost = 0

    def send(self, now_us: int) -> int | None:
        """When the ACK comes."""
        queued = max(self.free_us - now_us, 0) // self.tick_us
        self.most = max(self.most, queued)
        if queued >= self.limit:
            self.lost += 1
            return None
        self.free_us = max(self.free_us, now_us) + self.tick_us
        return self.free_us + self.delay_us


def slow_start_over(queue: Queue, name: str) -> int:
    """Until slow start has ended, or a loss has come to light, a round trip after it. The window then, in segments."""
    made = Control(name, SMSS, IW)
    acks = [(queue.send(0), 0) for _ in range(IW // SMSS)]
    while made.window[1] == ARBITRARILY_HIGH:
        due, sent_us = acks.pop(0)
        if due is None:
            break
        made.now_ns = due * 1000
        made.on_ack(SMSS, flight=(len(acks) + 1) * SMSS, rtt_us=due - sent_us)
        while len(acks) < made.window[0] // SMSS:
            acks.append((queue.send(due), due))
    return made.window[0] // SMSS


PATHS = [(8_600, 20), (8_600, 60), (80_000, 20), (2_000, 100)]


@pytest.mark.parametrize(("rate_segs", "rtt_ms"), PATHS)
def test_slow_start_ends_before_a_deep_queue_overflows(rate_segs: int, rtt_ms: int) -> None:
    """The segments that begin a round show the queue that the round before has left, one round trip later: by then
    two to four BDP are in flight. Five rounds follow in which the window grows by a quarter each, up to 4 * 1.25^5 =
    12.2 of them. Plain slow start fills any queue."""
    bdp = rate_segs * rtt_ms // 1000
    queue, plain = Queue(rate_segs, rtt_ms, 12 * bdp), Queue(rate_segs, rtt_ms, 12 * bdp)
    window = slow_start_over(queue, "cubic")
    assert (queue.lost, 2 * bdp < window < 13 * bdp) == (0, True)
    slow_start_over(plain, "newreno")
    assert plain.lost > 11 * bdp


@pytest.mark.parametrize("queue_bdp", [1.5, 2, 3, 4, 5])
@pytest.mark.parametrize(("rate_segs", "rtt_ms"), PATHS)
def test_and_loses_less_in_one_that_is_not(rate_segs: int, rtt_ms: int, queue_bdp: float) -> None:
    limit = int(rate_segs * rtt_ms / 1000 * queue_bdp)
    queue, plain = Queue(rate_segs, rtt_ms, limit), Queue(rate_segs, rtt_ms, limit)
    slow_start_over(queue, "cubic")
    slow_start_over(plain, "newreno")
    assert 0 < queue.lost < 0.75 * plain.lost
