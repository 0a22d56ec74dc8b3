# SPDX-License-Identifier: MIT
"""Pacing with plain numbers: how much goes when."""

import random

import pytest

from ustack.testing.parts.pacing import Pacer, quantum, rate_of_window

SMSS = 1460
MOST = 44 * SMSS
SECOND = 1_000_000_000
MS = 1_000_000
TICK = 262_144  # of the timing wheel


def test_a_frame_carries_a_millisecond_in_whole_segments() -> None:
    assert quantum(12_500_000, SMSS, MOST) == 8 * SMSS  # 100 Mb/s
    assert quantum(1, SMSS, MOST) == 2 * SMSS
    assert quantum(2_920_000 - 1, SMSS, MOST) == 2 * SMSS
    assert quantum(1_250_000_000, SMSS, MOST) == MOST
    assert quantum(12_500_000, SMSS, SMSS) == SMSS  # the link does not segment


def test_without_a_rate_everything_goes_at_once() -> None:
    made = Pacer(SMSS, MOST)
    for _ in range(10):
        assert (made.allows(SECOND), made.wait_ns(SECOND)) == (MOST, 0)
        made.sent(MOST, SECOND)


def test_after_a_frame_the_next_waits_as_long_as_it_takes_at_the_rate() -> None:
    made = Pacer(SMSS, MOST)
    made.set_rate(1_460_000, SECOND)
    assert made.allows(SECOND) == 2 * SMSS
    made.sent(2 * SMSS, SECOND)
    # It had waited since the beginning of time: one frame of credit, and that one has gone.
    assert made.allows(SECOND) == 2 * SMSS
    made.sent(2 * SMSS, SECOND)
    assert (made.allows(SECOND), made.wait_ns(SECOND)) == (0, 2 * MS)
    assert (made.allows(SECOND + 2 * MS - 1), made.allows(SECOND + 2 * MS)) == (0, 2 * SMSS)


@pytest.mark.parametrize("rate", [100_000, 1_250_000, 12_500_000, 125_000_000, 1_250_000_000])
@pytest.mark.parametrize("late_ns", [0, 2 * TICK, MS])
def test_late_deadlines_are_made_up_for(rate: int, late_ns: int) -> None:
    """Each is served up to so much too late: the rate is kept within one in a hundred, and never a burst beyond what
    the time since the last one and a frame of credit bring."""
    made, generator = Pacer(SMSS, MOST), random.Random(1)
    made.set_rate(rate, SECOND)
    now = last = SECOND
    sent, first = 0, True
    while now < 6 * SECOND:
        burst = 0
        while size := made.allows(now):
            made.sent(size, now)
            burst += size
        if not first:
            assert burst <= (now - last) * rate / SECOND + 2 * quantum(rate, SMSS, MOST)
        sent, last, first = sent + burst, now, False
        now += max(made.wait_ns(now), 1) + generator.randint(0, late_ns)
    longest_ns = quantum(rate, SMSS, MOST) * SECOND // rate
    if late_ns <= longest_ns:
        assert sent == pytest.approx(rate * (now - SECOND) / SECOND, rel=0.01, abs=3 * quantum(rate, SMSS, MOST))
    else:
        assert sent <= rate * (now - SECOND) / SECOND + 3 * quantum(rate, SMSS, MOST)


def test_single_segments_go_at_the_rate_though_a_tick_brings_several() -> None:
    """A link that does not segment, looked after at every tick of the timing wheel: 2.2 frames each at 100 Mb/s."""
    made, now = Pacer(SMSS, SMSS), SECOND
    made.set_rate(12_500_000, SECOND)
    sent = 0
    while now < 2 * SECOND:
        while size := made.allows(now):
            made.sent(size, now)
            sent += size
        now += TICK
    assert sent == pytest.approx(12_500_000, rel=0.01)


def test_a_pause_lets_out_two_frames_and_no_window() -> None:
    made = Pacer(SMSS, MOST)
    made.set_rate(1_460_000, SECOND)
    while size := made.allows(SECOND):
        made.sent(size, SECOND)
    gone, now = 0, 100 * SECOND
    while size := made.allows(now):
        made.sent(size, now)
        gone += size
    assert gone == 2 * 2 * SMSS


def test_a_faster_rate_holds_at_once() -> None:
    """What was sent at a hundredth of it may have asked for seconds."""
    made = Pacer(SMSS, MOST)
    made.set_rate(2_920, SECOND)
    while size := made.allows(SECOND):
        made.sent(size, SECOND)
    assert made.wait_ns(SECOND) == SECOND
    made.set_rate(2_920_000, SECOND)
    assert made.wait_ns(SECOND) == MS
    made.set_rate(0, SECOND)
    assert made.allows(SECOND) == MOST


def test_a_control_without_a_rate_has_the_windows() -> None:
    assert rate_of_window(100_000, 0x7FFFFFFF, 100_000) == 2_000_000
    assert rate_of_window(100_000, 100_000, 100_000) == 1_200_000
    assert rate_of_window(100_000, 100_000, 0) == 0
    assert rate_of_window(1, 1, 0xFFFFFFFF) == 1
    assert rate_of_window(0x40000000, 0x7FFFFFFF, 1) == 0x40000000 * 2_000_000
