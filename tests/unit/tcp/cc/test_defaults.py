# SPDX-License-Identifier: MIT
"""The bodies that a control gets where it names none, with plain numbers: RFC 5681, RFC 3168, RFC 4015."""

import pytest

from ustack.testing.parts.controls import Control, register

SMSS = 1000
IW = 10 * SMSS
ARBITRARILY_HIGH = 0x7FFFFFFF


@pytest.fixture(autouse=True)
def registered() -> None:
    register()


def bare(cwnd: int = IW, ssthresh: int = ARBITRARILY_HIGH) -> Control:
    made = Control("bare", SMSS, IW)
    made.window = cwnd, ssthresh
    return made


def test_it_begins_with_the_window_that_it_is_given() -> None:
    assert Control("bare", SMSS, 14_600).window == (14_600, ARBITRARILY_HIGH)


def test_nothing_that_arrives_or_is_sent_moves_the_window() -> None:
    made = bare()
    made.on_sent(SMSS, SMSS)
    made.on_ack(10 * SMSS, 10 * SMSS)
    made.release()
    assert made.window == (IW, ARBITRARILY_HIGH)


@pytest.mark.parametrize("event", ["on_loss", "on_ecn"])
@pytest.mark.parametrize(("flight", "window"), [(20 * SMSS, 10 * SMSS), (4 * SMSS, 2 * SMSS), (1, 2 * SMSS)])
def test_a_loss_or_a_mark_halves_what_is_in_flight(event: str, flight: int, window: int) -> None:
    """RFC 5681 equation (4); RFC 3168 section 6.1.2: a mark counts as a loss."""
    made = bare(cwnd=100 * SMSS)
    getattr(made, event)(flight)
    assert made.window == (window, window)


def test_a_mark_is_a_loss_to_a_control_that_names_only_that() -> None:
    made = Control("fixed", SMSS, IW)
    fixed = made.window
    made.on_ecn(100 * SMSS)
    assert made.window == fixed


def test_a_timeout_leaves_one_segment() -> None:
    made = bare()
    made.on_rto(20 * SMSS)
    assert made.window == (SMSS, 10 * SMSS)


def test_the_same_segment_timing_out_again_keeps_ssthresh() -> None:
    made = bare()
    made.on_rto(20 * SMSS)
    made.on_rto(SMSS, first=False)
    assert made.window == (SMSS, 10 * SMSS)


def test_a_loss_that_was_none_is_taken_back() -> None:
    """RFC 4015 section 4."""
    made = bare(cwnd=30 * SMSS)
    made.on_loss(30 * SMSS)
    made.on_spurious(30 * SMSS, ARBITRARILY_HIGH)
    assert made.window == (30 * SMSS, ARBITRARILY_HIGH)


def test_a_window_that_has_grown_since_a_spurious_loss_is_kept() -> None:
    made = bare(cwnd=50 * SMSS, ssthresh=40 * SMSS)
    made.on_spurious(30 * SMSS, 20 * SMSS)
    assert made.window == (50 * SMSS, 40 * SMSS)


@pytest.mark.parametrize(("cwnd", "after"), [(30 * SMSS, IW), (IW, IW), (3 * SMSS, 3 * SMSS)])
def test_after_a_pause_the_window_is_the_restart_window_at_most(cwnd: int, after: int) -> None:
    made = bare(cwnd=cwnd)
    made.on_idle(IW)
    assert made.window == (after, ARBITRARILY_HIGH)


@pytest.mark.parametrize(("smss", "cwnd"), [(500, 5_000), (999, 9_990), (1000, IW), (9000, IW), (20_000, 20_000)])
def test_smaller_segments_are_as_many_and_larger_ones_no_more_bytes(smss: int, cwnd: int) -> None:
    made = bare(ssthresh=7_000)
    made.on_mtu(smss)
    assert made.window == (cwnd, 7_000)
