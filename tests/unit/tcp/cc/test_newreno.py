# SPDX-License-Identifier: MIT
"""NewReno with plain numbers: RFC 5681 section 3, RFC 6582 section 3.2, RFC 3465 (L = 2)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.testing.parts.controls import Control
from ustack.testing.parts.tcp import NewReno

SMSS = 1000
IW = 10 * SMSS
ARBITRARILY_HIGH = 0x7FFFFFFF


def control(cwnd: int = IW, ssthresh: int = ARBITRARILY_HIGH, flight: int = 0) -> NewReno:
    made = NewReno(SMSS, IW)
    made.cwnd, made.ssthresh, made.flight = cwnd, ssthresh, flight
    return made


def test_it_says_its_name() -> None:
    assert NewReno(SMSS, IW).name == "newreno"


def test_it_begins_with_the_initial_window_in_slow_start() -> None:
    made = NewReno(SMSS, 14_600)
    assert (made.cwnd, made.ssthresh) == (14_600, ARBITRARILY_HIGH)


# ---------------------------------------------------------------- slow start


def test_slow_start_adds_what_was_acknowledged() -> None:
    made = control()
    made.on_ack(SMSS)
    assert made.cwnd == IW + SMSS


def test_slow_start_doubles_the_window_in_one_round() -> None:
    made = control()
    for _ in range(10):
        made.on_ack(SMSS)
    assert made.cwnd == 2 * IW


def test_small_acknowledgments_open_the_window_by_no_more_than_they_acknowledge() -> None:
    """Ack division (Savage et al. 1999) gains nothing: bytes are counted, not ACKs."""
    made = control()
    for _ in range(100):
        made.on_ack(10)
    assert made.cwnd == IW + SMSS


def test_one_acknowledgment_of_forty_segments_counts_whole_in_the_first_slow_start() -> None:
    """A receiver of super-frames sends one ACK where it would have sent twenty."""
    made = control(cwnd=40 * SMSS)
    made.on_ack(40 * SMSS)
    assert made.cwnd == 80 * SMSS


@pytest.mark.parametrize("acked", [1, 2])
def test_after_a_loss_slow_start_counts_up_to_two_segments_an_acknowledgment(acked: int) -> None:
    """RFC 3465 section 2.2."""
    made = control(cwnd=SMSS, ssthresh=20 * SMSS)
    made.on_ack(acked * SMSS)
    assert made.cwnd == (1 + acked) * SMSS


def test_after_a_loss_an_acknowledgment_of_much_is_counted_as_two_segments() -> None:
    """RFC 3465 section 2.3: it may cover what arrived long ago."""
    made = control(cwnd=SMSS, ssthresh=20 * SMSS)
    made.on_ack(15 * SMSS)
    assert made.cwnd == 3 * SMSS


def test_slow_start_ends_at_ssthresh_exactly() -> None:
    made = control(cwnd=9_500, ssthresh=10_000)
    made.on_ack(2 * SMSS)
    assert made.cwnd == 10_000


def test_a_sender_that_did_not_use_its_window_does_not_open_it() -> None:
    """RFC 7661: the window says nothing about a path that was not filled."""
    made = control()
    made.on_ack(SMSS, cwnd_limited=False)
    assert made.cwnd == IW


# ---------------------------------------------------------------- congestion avoidance


def test_congestion_avoidance_adds_one_segment_a_window() -> None:
    made = control(cwnd=10 * SMSS, ssthresh=10 * SMSS)
    for _ in range(9):
        made.on_ack(SMSS)
    assert made.cwnd == 10 * SMSS
    made.on_ack(SMSS)
    assert made.cwnd == 11 * SMSS


def test_congestion_avoidance_grows_linearly_over_many_rounds() -> None:
    made = control(cwnd=10 * SMSS, ssthresh=10 * SMSS)
    for _ in range(20):
        for _ in range(made.cwnd // SMSS):
            made.on_ack(SMSS)
    assert made.cwnd == 30 * SMSS


def test_octets_left_over_count_in_the_next_round() -> None:
    made = control(cwnd=10 * SMSS, ssthresh=10 * SMSS)
    made.on_ack(10 * SMSS + 400)
    made.on_ack(11 * SMSS - 400)
    assert made.cwnd == 12 * SMSS


def test_one_acknowledgment_adds_at_most_one_segment_in_congestion_avoidance() -> None:
    """RFC 5681 section 3.1: at most SMSS a round trip."""
    made = control(cwnd=10 * SMSS, ssthresh=10 * SMSS)
    made.on_ack(30 * SMSS)
    assert made.cwnd == 11 * SMSS


def test_the_window_stops_growing_long_before_it_could_wrap() -> None:
    made = control(cwnd=0x40000000)
    made.on_ack(0x40000000)
    assert made.cwnd == 0x40000000


# ---------------------------------------------------------------- fast retransmit and fast recovery


def test_a_loss_halves_what_is_in_flight() -> None:
    """RFC 5681 equation (4): FlightSize, not cwnd."""
    made = control(cwnd=100 * SMSS, flight=20 * SMSS)
    made.on_loss()
    assert made.ssthresh == 10 * SMSS


@pytest.mark.parametrize("flight", [1, SMSS, 3 * SMSS, 4 * SMSS])
def test_ssthresh_is_never_below_two_segments(flight: int) -> None:
    made = control(flight=flight)
    made.on_loss()
    assert made.ssthresh == 2 * SMSS


@pytest.mark.parametrize(("smss", "window"), [(500, 5_000), (552, 5_520), (999, 9_990), (1000, IW), (9000, IW)])
def test_smaller_segments_are_as_many_and_larger_ones_no_more_bytes(smss: int, window: int) -> None:
    made = control(ssthresh=7_000)
    made.on_mtu(smss)
    assert (made.cwnd, made.ssthresh) == (window, 7_000)


def test_larger_segments_leave_a_window_of_one() -> None:
    made = control(cwnd=SMSS)
    made.on_mtu(9000)
    assert made.cwnd == 9000


def test_what_is_acknowledged_in_recovery_is_no_reason_to_grow() -> None:
    made = control(cwnd=10 * SMSS, ssthresh=10 * SMSS)
    for _ in range(30):
        made.on_ack(SMSS, in_recovery=True)
    made.on_ack(9 * SMSS)
    assert made.cwnd == 10 * SMSS


def test_a_mark_takes_less_than_a_loss() -> None:
    """RFC 8511 section 3.1: beta_ecn = 0.8; never less than two segments."""
    made = Control("newreno", SMSS, IW)
    made.on_ecn(20 * SMSS)
    assert made.window == (16 * SMSS, 16 * SMSS)
    made.on_ecn(2 * SMSS)
    assert made.window == (2 * SMSS, 2 * SMSS)


# ---------------------------------------------------------------- timeout


def test_a_timeout_leaves_one_segment() -> None:
    made = control(cwnd=20 * SMSS, flight=20 * SMSS)
    made.on_rto()
    assert (made.cwnd, made.ssthresh) == (SMSS, 10 * SMSS)


def test_the_same_segment_timing_out_again_keeps_ssthresh() -> None:
    """RFC 5681 section 3.1, equation (4): only for a segment that was not yet retransmitted."""
    made = control(cwnd=20 * SMSS, flight=20 * SMSS)
    made.on_rto()
    made.flight = SMSS
    made.on_rto(first=False)
    assert (made.cwnd, made.ssthresh) == (SMSS, 10 * SMSS)


@pytest.mark.parametrize("event", ["on_loss", "on_rto"])
def test_credit_toward_the_next_increase_is_lost_with_the_loss(event: str) -> None:
    made = control(cwnd=10 * SMSS, ssthresh=10 * SMSS, flight=20 * SMSS)
    made.on_ack(9 * SMSS)
    getattr(made, event)()
    made.cwnd = made.ssthresh
    made.on_ack(SMSS)
    assert made.cwnd == 10 * SMSS


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 65535),
    st.lists(
        st.tuples(
            st.sampled_from(["on_ack", "on_loss", "on_rto"]),
            st.integers(0, 0x40000000),
        ),
        max_size=50,
    ),
)
def test_no_sequence_of_events_leaves_less_than_a_segment_or_wraps(smss: int, events: list[tuple[str, int]]) -> None:
    made = NewReno(smss, min(10 * smss, 0x10000))
    for name, amount in events:
        made.flight = min(amount, made.cwnd)
        if name == "on_ack":
            made.on_ack(amount)
        else:
            getattr(made, name)()
        assert min(smss, 0x10000) <= made.cwnd <= 0x80000000 + smss
        assert made.ssthresh >= 2 * smss
