# SPDX-License-Identifier: MIT
"""CUBIC with plain numbers: RFC 9438 section 4, and its response function (section 5.1)."""

from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.testing.parts.controls import Control, cube_root_of

SMSS = 1000
MS = 1_000_000
SECOND = 1_000_000_000
C, BETA = 0.4, 0.7


def control(cwnd_segs: float, ssthresh_segs: float | None = None) -> Control:
    """In congestion avoidance unless ssthresh says otherwise."""
    made = Control("cubic", SMSS, 10 * SMSS)
    made.window = int(cwnd_segs * SMSS), int((cwnd_segs if ssthresh_segs is None else ssthresh_segs) * SMSS)
    made.now_ns = SECOND
    return made


def one_round(made: Control, rtt_ns: int) -> None:
    """A window of segments is acknowledged, evenly over a round trip."""
    segments = max(made.window[0] // SMSS, 1)
    for _ in range(segments):
        made.now_ns += rtt_ns // segments
        made.on_ack(SMSS, flight=made.window[0], rtt_us=rtt_ns // 1000)


def test_a_loss_leaves_seven_tenths_of_what_is_in_flight() -> None:
    """Section 4.6: FlightSize, not cwnd."""
    made = control(100)
    made.on_loss(flight=80 * SMSS)
    assert made.window == (56 * SMSS, 56 * SMSS)


@pytest.mark.parametrize("flight", [0, 1, 2 * SMSS, 2857])
def test_ssthresh_is_never_below_two_segments(flight: int) -> None:
    made = control(10)
    made.on_loss(flight)
    assert made.window == (2 * SMSS, 2 * SMSS)


def test_after_a_loss_it_is_back_after_k_and_rests_there() -> None:
    """Equations (1) and (2): K = cbrt(W_max * (1 - beta) / C)."""
    made = control(1000)
    made.on_loss(flight=1000 * SMSS)
    k_s = (1000 * (1 - BETA) / C) ** (1 / 3)
    begin_ns = made.now_ns
    while made.window[0] < 990 * SMSS:
        one_round(made, 100 * MS)
    # the target looks a round trip ahead, and (10 / C) ** (1 / 3) s before K ten segments are missing
    assert (made.now_ns - begin_ns) / SECOND == pytest.approx(k_s - (10 / C) ** (1 / 3), abs=0.3)
    while (made.now_ns - begin_ns) / SECOND < k_s + 1:
        one_round(made, 100 * MS)
    assert made.window[0] == pytest.approx(1000 * SMSS, rel=0.002)


def test_beyond_w_max_it_looks_for_more() -> None:
    """The convex part: C * (t - K)^3 above W_max."""
    made = control(1000)
    made.on_loss(flight=1000 * SMSS)
    k_s = (1000 * (1 - BETA) / C) ** (1 / 3)
    begin_ns = made.now_ns
    while (made.now_ns - begin_ns) / SECOND < k_s + 10:
        one_round(made, 100 * MS)
    assert made.window[0] / SMSS == pytest.approx(1000 + C * 10**3, rel=0.05)


def test_a_target_is_at_most_half_a_window_more() -> None:
    """Section 4.2."""
    made = control(10)
    made.on_loss(flight=10 * SMSS)
    one_round(made, 100 * MS)
    made.now_ns += 3600 * SECOND  # an hour in which nothing was acknowledged, and no pause of the application
    before = made.window[0]
    one_round(made, 100 * MS)
    assert made.window[0] <= before * 3 // 2


def test_on_a_short_path_it_is_as_fast_as_reno() -> None:
    """Section 4.3: alpha of 9/17 a round until the window before the loss is reached, then 1."""
    made = control(20)
    made.on_loss(flight=20 * SMSS)
    windows = []
    for _ in range(30):
        one_round(made, 1 * MS)
        windows.append(made.window[0] / SMSS)
    slope = (windows[9] - windows[1]) / 8
    assert slope == pytest.approx(9 / 17, rel=0.1)
    assert windows[29] - windows[28] == pytest.approx(1.0, rel=0.1)


def test_a_second_loss_below_w_max_leaves_room_for_newcomers() -> None:
    """Section 4.7, fast convergence: W_max is (1 + beta) / 2 of the window then."""
    made = control(1000)
    made.on_loss(flight=1000 * SMSS)
    made.on_loss(flight=700 * SMSS)  # cwnd is 700, below W_max
    k_s = ((700 * (1 + BETA) / 2 - 490) / C) ** (1 / 3)
    begin_ns = made.now_ns
    while (made.now_ns - begin_ns) / SECOND < k_s + 0.5:
        one_round(made, 100 * MS)
    assert made.window[0] / SMSS == pytest.approx(700 * (1 + BETA) / 2, rel=0.01)


def test_a_timeout_begins_with_one_segment_and_a_new_w_max() -> None:
    """Section 4.8: the first congestion avoidance after it has K = 0 and W_max = cwnd."""
    made = control(100)
    made.on_rto(flight=100 * SMSS)
    assert made.window == (SMSS, 70 * SMSS)
    while made.window[0] < 70 * SMSS:
        one_round(made, 100 * MS)
    begin_ns = made.now_ns
    while (made.now_ns - begin_ns) / SECOND < 5:
        one_round(made, 100 * MS)
    assert made.window[0] / SMSS == pytest.approx(70 + C * 5**3, rel=0.05)


def test_the_same_segment_timing_out_again_keeps_ssthresh() -> None:
    made = control(100)
    made.on_rto(flight=100 * SMSS)
    made.on_rto(flight=SMSS, first=False)
    assert made.window == (SMSS, 70 * SMSS)


def test_a_pause_of_the_application_is_no_time_of_growth() -> None:
    """Section 5.8."""
    steady, paused = control(100), control(100)
    for made in (steady, paused):
        made.on_loss(flight=100 * SMSS)
        one_round(made, 100 * MS)
    for _ in range(600):
        paused.now_ns += 100 * MS
        paused.on_ack(SMSS, flight=SMSS, cwnd_limited=False)
    assert paused.window == steady.window
    for made in (steady, paused):
        for _ in range(5):
            one_round(made, 100 * MS)
    assert paused.window[0] == pytest.approx(steady.window[0], rel=0.01)


@pytest.mark.parametrize("event", ["loss", "timeout", "ecn"])
def test_what_was_no_loss_is_taken_back_with_the_curve(event: str) -> None:
    """Section 4.9: cwnd, ssthresh, W_max, K, W_est and the epoch are as if nothing had happened."""
    disturbed, undisturbed = control(100), control(100)
    for made in (disturbed, undisturbed):
        made.on_loss(flight=100 * SMSS)
        for _ in range(10):
            one_round(made, 100 * MS)
    window = disturbed.window
    if event == "loss":
        disturbed.on_loss(flight=window[0])
    elif event == "timeout":
        disturbed.on_rto(flight=window[0])
        disturbed.on_rto(flight=window[0], first=False)
    else:
        disturbed.on_ecn(flight=window[0])
    assert disturbed.window[0] < window[0]
    disturbed.on_spurious(*window)
    assert disturbed.window == window
    for _ in range(60):
        for made in (disturbed, undisturbed):
            one_round(made, 100 * MS)
        assert disturbed.window == undisturbed.window


def test_what_was_no_loss_changes_nothing_when_the_window_is_larger_by_now() -> None:
    """Section 4.9.2: "continue to use the current and the most recent values"."""
    made = control(100, 90)
    made.on_loss(flight=100 * SMSS)
    made.window = (120 * SMSS, 70 * SMSS)
    made.on_spurious(100 * SMSS, 90 * SMSS)
    assert made.window == (120 * SMSS, 70 * SMSS)


@pytest.mark.parametrize(
    ("flight_segs", "window_segs"), [(100, (85, 85)), (3, (2.55, 2.55)), (2, (1.7, 2)), (1, (1, 2)), (0, (1, 2))]
)
def test_a_mark_takes_less_than_a_loss(flight_segs: int, window_segs: tuple[float, float]) -> None:
    """RFC 8511 section 3.1: beta_ecn = 0.85; RFC 9438 section 4.6: the window goes down to one segment."""
    made = control(100)
    made.on_ecn(flight=flight_segs * SMSS)
    assert made.window == tuple(int(segments * SMSS) for segments in window_segs)


def test_a_slow_start_that_ends_without_a_loss_ends_at_the_flat_part() -> None:
    """Section 4.10: K is 0 and W_max is the window then."""
    made = control(100, 100)
    begin_ns = made.now_ns
    one_round(made, 100 * MS)
    while (made.now_ns - begin_ns) / SECOND < 10:
        one_round(made, 100 * MS)
    assert made.window[0] / SMSS == pytest.approx(100 + C * 10**3, rel=0.03)


def test_segments_of_another_size_keep_the_curve() -> None:
    """Smaller ones: as many of them as before. Larger ones: as many bytes, W_max included."""
    smaller, larger = control(1000), control(1000)
    for made in (smaller, larger):
        made.on_loss(flight=1000 * SMSS)
        one_round(made, 100 * MS)
    smaller.on_mtu(SMSS // 2)
    assert smaller.window[0] // (SMSS // 2) == pytest.approx(700, rel=0.02)
    larger.on_mtu(2 * SMSS)
    assert larger.window[0] // (2 * SMSS) == pytest.approx(350, rel=0.02)
    k_s = (150 / C) ** (1 / 3)  # from 350 back to 500 of them
    begin_ns = larger.now_ns
    while (larger.now_ns - begin_ns) / SECOND < k_s:
        segments = larger.window[0] // (2 * SMSS)
        for _ in range(segments):
            larger.now_ns += 100 * MS // segments
            larger.on_ack(2 * SMSS, flight=larger.window[0], rtt_us=100_000)
    assert larger.window[0] / (2 * SMSS) == pytest.approx(500, rel=0.01)


def test_an_idle_time_leaves_w_max() -> None:
    """All that is kept of its record: K and the curve follow from it and the window."""
    rested, awake = control(1000), control(1000)
    for made in (rested, awake):
        made.on_loss(flight=1000 * SMSS)
        one_round(made, 100 * MS)
    rested.rest_and_wake()
    for made in (rested, awake):
        made.on_idle(10 * SMSS)
        begin_ns = made.now_ns
        while (made.now_ns - begin_ns) / SECOND < 15:
            one_round(made, 100 * MS)
    assert rested.window[0] == pytest.approx(awake.window[0], rel=0.01)
    assert rested.window[0] > 950 * SMSS


def test_what_has_had_no_loss_rests_and_wakes_too() -> None:
    made = control(100)
    assert made.rest_and_wake() != 0
    one_round(made, 100 * MS)
    assert made.window[0] == pytest.approx(101 * SMSS, rel=0.01)


@given(st.integers(0, (1 << 64) - 1))
def test_the_cube_root_is_the_whole_part_of_it(value: int) -> None:
    root = cube_root_of(value)
    assert root**3 <= value < (root + 1) ** 3


@pytest.mark.parametrize("value", [0, 1, 7, 8, 26, 27, 2642245**3 - 1, 2642245**3, (1 << 64) - 1])
def test_the_cube_root_at_its_edges(value: int) -> None:
    root = cube_root_of(value)
    assert root**3 <= value < (root + 1) ** 3


@pytest.mark.parametrize(("rtt_ms", "loss_every"), [(100, 10_000), (50, 100_000), (200, 100_000)])
def test_the_mean_window_is_that_of_the_response_function(rtt_ms: int, loss_every: int) -> None:
    """Section 5.1: AVG_W = (C * (3 + beta) / (4 * (1 - beta)))^(1/4) * RTT^(3/4) / p^(3/4), where it is not Reno's."""
    made = control(100)
    windows: list[int] = []
    sent = losses = 0
    while losses < 30:
        segments = max(made.window[0] // SMSS, 1)
        one_round(made, rtt_ms * MS)
        sent += segments
        if losses >= 10:
            windows.append(made.window[0])
        if sent >= loss_every:
            sent = 0
            losses += 1
            made.on_loss(flight=made.window[0])
    expected = (C * (3 + BETA) / (4 * (1 - BETA))) ** 0.25 * (rtt_ms / 1000) ** 0.75 * loss_every**0.75
    assert mean(windows) / SMSS == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("loss_every", [100, 400, 3000])
@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_on_a_short_path_the_mean_window_is_renos(name: str, loss_every: int) -> None:
    """Losses every 1/p segments. Reno: AVG_W = sqrt(3 / (2 * p)) (section 5.1, equation 5 with alpha = 1 and beta =
    0.5). CUBIC, where that is more than its own function, has as much by alpha_cubic of 9/17 (section 4.3)."""
    made = Control(name, SMSS, 10 * SMSS)
    made.window, made.now_ns = (30 * SMSS, 30 * SMSS), SECOND
    rounds: list[int] = []
    sent = losses = 0
    while losses < 60:
        segments = max(made.window[0] // SMSS, 1)
        for _ in range(segments):
            made.now_ns += MS // segments
            sent += 1
            if sent % loss_every:
                made.on_ack(SMSS, flight=made.window[0], rtt_us=1000)
            else:
                losses += 1
                made.on_loss(flight=made.window[0])
                break
        if losses >= 10:
            rounds.append(made.window[0])
    assert mean(rounds) / SMSS == pytest.approx((1.5 * loss_every) ** 0.5, rel=0.1)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("ack"), st.integers(1, 1 << 31), st.integers(0, 1 << 31), st.booleans()),
        st.tuples(st.just("loss"), st.integers(0, 1 << 31)),
        st.tuples(st.just("ecn"), st.integers(0, 1 << 31)),
        st.tuples(st.just("rto"), st.integers(0, 1 << 31), st.booleans()),
        st.tuples(st.just("idle"), st.integers(SMSS, 14 * SMSS)),
        st.tuples(st.just("mtu"), st.integers(1, 65495)),
        st.tuples(st.just("time"), st.integers(0, 400 * 86400 * SECOND)),
        st.tuples(st.just("spurious"), st.integers(1, 1 << 30), st.integers(1, 1 << 30)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_no_order_of_events_breaks_the_window(events: list[tuple[Any, ...]]) -> None:
    """Never more than the largest window of TCP, and no arithmetic that is not defined."""
    made = Control("cubic", SMSS, 10 * SMSS)
    for kind, *values in events:
        if kind == "ack":
            acked, flight, limited = values
            made.on_ack(acked, flight, cwnd_limited=limited, rtt_us=flight % 100_000)
        elif kind == "loss":
            made.on_loss(*values)
        elif kind == "rto":
            made.on_rto(*values)
        elif kind == "idle":
            made.on_idle(*values)
        elif kind == "mtu":
            made.on_mtu(*values)
        elif kind == "ecn":
            made.on_ecn(*values)
        elif kind == "spurious":
            made.on_spurious(*values)
        else:
            made.now_ns += values[0]
        assert 0 < made.window[0] <= 0xFFFFFFFF
