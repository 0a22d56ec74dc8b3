# SPDX-License-Identifier: MIT
"""Congestion window validation (RFC 7661): by plain numbers, and an application that writes little for minutes."""

from collections.abc import Callable

import pytest

from ustack.testing.parts.controls import Control
from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND

SMSS = 1000
RTT_MS = 100
IW = 10 * SMSS
MINUTE = 60 * SECOND
HIGH = 0x7FFFFFFF
BOTH = pytest.mark.parametrize("cc", ["newreno", "cubic"])


def control(cc: str, cwnd: int, ssthresh: int) -> Control:
    """After a first slow start, at a time that is not 0."""
    made = Control(cc, SMSS, IW, now_ns=SECOND, srtt_us=RTT_MS * 1000)
    made.window = cwnd, ssthresh
    return made


def rounds(
    made: Control, volume: int, duration_ns: int, every_ns: int = RTT_MS * MILLISECOND, rtt_ms: int = RTT_MS
) -> None:
    """`volume` bytes are sent and acknowledged in a round trip, again and again; the application is the limit."""
    end_ns = made.now_ns + duration_ns
    while made.now_ns < end_ns:
        made.now_ns += every_ns
        made.on_sample(
            acked=volume, delivered=volume, rtt_us=rtt_ms * 1000, flight=volume, prior_in_flight=volume,
            is_app_limited=True, rate_delivered=volume, rate_interval_us=rtt_ms * 1000,
        )  # fmt: skip


# ---------------------------------------------------------------- the phases


@BOTH
def test_half_a_window_validates_it_forever(cc: str) -> None:
    """Section 4.3: validated is what has pipeACK >= cwnd / 2. It does not grow: nothing was limited by it."""
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 50 * SMSS, 20 * MINUTE, SECOND // 2)
    assert made.window == (100 * SMSS, 50 * SMSS)


@BOTH
def test_less_keeps_it_for_five_minutes_and_then_halves_it(cc: str) -> None:
    """Section 4.4.3: ssthresh <- max(ssthresh, 3 * cwnd / 4), cwnd <- max(cwnd / 2, IW), for each five minutes."""
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 50 * SMSS, 2 * SECOND)
    rounds(made, 5 * SMSS, 5 * MINUTE - SECOND, SECOND)
    assert made.window == (100 * SMSS, 50 * SMSS)
    rounds(made, 5 * SMSS, 5 * SECOND, SECOND)
    assert made.window == (50 * SMSS, 75 * SMSS)
    rounds(made, 5 * SMSS, 5 * MINUTE, SECOND)
    assert made.window == (25 * SMSS, 75 * SMSS)


@BOTH
def test_it_never_goes_below_the_initial_window(cc: str) -> None:
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, SMSS, 60 * MINUTE, SECOND)
    assert made.window == (IW, 75 * SMSS)


@BOTH
def test_one_round_trip_that_uses_half_of_it_begins_the_five_minutes_anew(cc: str) -> None:
    made = control(cc, 100 * SMSS, 50 * SMSS)
    for _ in range(5):
        rounds(made, 5 * SMSS, 4 * MINUTE, SECOND)
        rounds(made, 50 * SMSS, RTT_MS * MILLISECOND)
    assert made.window == (100 * SMSS, 50 * SMSS)


@pytest.mark.parametrize("rtt_ms", [10, 100, 1000])
def test_a_sample_is_remembered_for_half_a_sampling_period_and_not_for_longer_than_one(rtt_ms: int) -> None:
    """Section 4.2: max(3 * RTT, 1 s). Told by the answer to a loss, which is by what pipeACK is then."""
    period_ns = max(3 * rtt_ms, 1000) * MILLISECOND

    def ssthresh_after(pause_ns: int) -> int:
        made = Control("newreno", SMSS, IW, now_ns=SECOND, srtt_us=rtt_ms * 1000)
        made.window = 100 * SMSS, 50 * SMSS
        rounds(made, 40 * SMSS, rtt_ms * MILLISECOND, rtt_ms * MILLISECOND, rtt_ms)
        made.now_ns += pause_ns
        made.on_loss(flight=2 * SMSS)
        return made.window[1]

    assert ssthresh_after(period_ns // 2 - 10 * MILLISECOND) == 20 * SMSS
    assert ssthresh_after(period_ns + period_ns // 2) == 2 * SMSS  # of FlightSize: two segments at least


def test_a_slow_answer_is_no_more_than_what_a_round_trip_of_it_brings() -> None:
    """Section 4.2: the volume, divided by the time that it took, times the RTT."""
    made = control("newreno", 100 * SMSS, 50 * SMSS)
    made.now_ns += SECOND
    made.on_sample(
        acked=40 * SMSS, delivered=40 * SMSS, rtt_us=RTT_MS * 1000, flight=40 * SMSS, prior_in_flight=40 * SMSS,
        rate_delivered=40 * SMSS, rate_interval_us=4 * RTT_MS * 1000,
    )  # fmt: skip
    made.now_ns += 2 * RTT_MS * MILLISECOND
    made.on_loss(flight=SMSS)
    assert made.window == (5 * SMSS, 5 * SMSS)


@BOTH
@pytest.mark.parametrize(("cwnd", "after_ms"), [(100 * SMSS, RTT_MS // 2), (IW, 3 * RTT_MS)])
def test_the_first_round_trip_and_the_initial_window_need_no_proof(cc: str, cwnd: int, after_ms: int) -> None:
    """A sample is of a whole round trip (section 4.2); and no connection's first window has been validated."""
    made = control(cc, cwnd, 5 * SMSS)
    rounds(made, SMSS, RTT_MS * MILLISECOND)
    made.now_ns += after_ms * MILLISECOND
    made.on_loss(flight=cwnd)
    assert made.window[1] == (cwnd // 2 if cc == "newreno" else cwnd * 7 // 10)


# ---------------------------------------------------------------- congestion


def lose(made: Control, flight: int, again: int) -> None:
    """A loss with so much in flight; so much is sent again, and the repair is complete."""
    made.on_loss(flight)
    made.now_ns += RTT_MS * MILLISECOND
    made.on_sample(acked=0, delivered=SMSS, flight=flight, prior_in_flight=flight, in_recovery=True, newly_lost=again)
    made.now_ns += RTT_MS * MILLISECOND
    made.on_sample(acked=SMSS, delivered=SMSS, rtt_us=RTT_MS * 1000, flight=SMSS, prior_in_flight=SMSS)


@BOTH
def test_a_loss_then_counts_what_was_used_less_what_was_sent_again(cc: str) -> None:
    """Section 4.4.1: (max(pipeACK, LossFlightSize) - R) / 2 at the end; half without R while it lasts."""
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 30 * SMSS, SECOND)
    made.on_loss(10 * SMSS)
    assert made.window == (15 * SMSS, 15 * SMSS)
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 30 * SMSS, SECOND)
    lose(made, 10 * SMSS, 6 * SMSS)
    assert made.window == (12 * SMSS, 12 * SMSS)


@pytest.mark.parametrize("event", ["on_loss", "on_ecn"])
def test_what_was_used_is_what_cubic_grows_back_to(event: str) -> None:
    """RFC 9438 section 4.7: W_max is the window of the congestion event, and that has been no more."""
    made = control("cubic", 100 * SMSS, 50 * SMSS)
    rounds(made, 30 * SMSS, SECOND)
    getattr(made, event)(10 * SMSS)
    assert made.window == (15 * SMSS, 15 * SMSS)
    for _ in range(25):  # as Reno would, by 9/17 of a segment in each
        made.now_ns += RTT_MS * MILLISECOND
        made.on_sample(acked=made.window[0], delivered=made.window[0], rtt_us=RTT_MS * 1000, flight=made.window[0],
                       prior_in_flight=made.window[0])  # fmt: skip
    assert 27 * SMSS < made.window[0] < 30 * SMSS


@BOTH
def test_more_in_flight_than_of_late_counts(cc: str) -> None:
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 10 * SMSS, 3 * SECOND)
    lose(made, 40 * SMSS, 8 * SMSS)
    assert made.window == (16 * SMSS, 16 * SMSS)


@BOTH
def test_what_arrives_during_the_repair_proves_nothing(cc: str) -> None:
    """Section 4.2: pipeACK MUST NOT be updated during fast recovery."""
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 30 * SMSS, SECOND)
    made.on_loss(10 * SMSS)
    for _ in range(3):
        made.now_ns += RTT_MS * MILLISECOND
        made.on_sample(
            acked=90 * SMSS, delivered=90 * SMSS, rtt_us=RTT_MS * 1000, flight=90 * SMSS, prior_in_flight=90 * SMSS,
            in_recovery=True, rate_delivered=90 * SMSS, rate_interval_us=RTT_MS * 1000,
        )  # fmt: skip
    made.now_ns += RTT_MS * MILLISECOND
    made.on_sample(acked=SMSS, delivered=SMSS, rtt_us=RTT_MS * 1000, flight=SMSS, prior_in_flight=SMSS)
    assert made.window[1] == 15 * SMSS


@BOTH
@pytest.mark.parametrize("again", [29, 30, 31, 90])
def test_at_least_a_segment_is_left(cc: str, again: int) -> None:
    """Section 4.4.1: MUST NOT be less, however much was sent again."""
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 30 * SMSS, SECOND)
    lose(made, 10 * SMSS, again * SMSS)
    assert SMSS <= made.window[0] <= 2 * SMSS


@pytest.mark.parametrize(("cc", "window"), [("newreno", 50 * SMSS), ("cubic", 70 * SMSS)])
def test_a_loss_of_a_validated_window_is_answered_as_ever(cc: str, window: int) -> None:
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 60 * SMSS, SECOND)
    made.on_loss(100 * SMSS)
    assert made.window == (window, window)


@BOTH
def test_after_that_repair_nothing_is_known(cc: str) -> None:
    """Section 4.4.1: pipeACK is undefined, which is the validated phase: the next loss is answered as ever."""
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 30 * SMSS, SECOND)
    lose(made, 10 * SMSS, 0)
    window = made.window[0]
    made.on_loss(window)
    assert made.window[0] == (window // 2 if cc == "newreno" else window * 7 // 10)


@BOTH
@pytest.mark.parametrize("event", ["timeout", "spurious", "idle"])
def test_nor_after_other_ends(cc: str, event: str) -> None:
    """At the timeout "the standard TCP RTO mechanism" (section 4.4)."""
    made = control(cc, 100 * SMSS, 50 * SMSS)
    rounds(made, 10 * SMSS, SECOND)
    ends: dict[str, Callable[[], None]] = {
        "timeout": lambda: made.on_rto(20 * SMSS),
        "spurious": lambda: made.on_spurious(100 * SMSS, 50 * SMSS),
        "idle": lambda: made.on_idle(100 * SMSS),
    }
    ends[event]()
    made.window = 100 * SMSS, 50 * SMSS
    made.on_loss(100 * SMSS)
    assert made.window[1] == (50 * SMSS if cc == "newreno" else 70 * SMSS)


def test_without_a_record_newreno_grows_by_equation_3_and_validates_nothing() -> None:
    """RFC 5681 section 3.1: SMSS * SMSS / cwnd for an ACK."""
    with established(cc="newreno", cc_records=0, initial_window_segments=10) as scene:
        for _ in range(3):
            scene.send(bytes(20_000))
            scene.peer.catch_up()
            scene.peer.send("A")
        assert scene.testbed.stack.leaks()["cc_records"] == 0
        assert scene.info()["cwnd"] > IW
        assert scene.testbed.counted()["controls_replaced"] == 1
        scene.abort()


# ---------------------------------------------------------------- on the wire


def exchange(scene: Scene, length: int) -> None:
    """A response, acknowledged after a round trip."""
    scene.send(bytes(length))
    scene.testbed.advance(50 * MILLISECOND)
    scene.peer.catch_up()
    scene.peer.send("A")


@BOTH
def test_an_application_that_writes_little_for_minutes_bursts_into_half_its_window(cc: str) -> None:
    """Not idle: less than an RTO between two responses, so that the restart window is no answer (RFC 5681 4.1)."""
    with established(cc=cc, wnd=65535, pacing=0) as scene:
        while scene.info()["cwnd"] < 40_000:
            exchange(scene, scene.info()["cwnd"])
        window = scene.info()["cwnd"]
        begin_ns = scene.testbed.now_ns
        for after_s in (180, 330):  # each exchange takes 150 ms; five minutes lie between
            while scene.testbed.now_ns - begin_ns < after_s * SECOND:
                exchange(scene, 500)
                scene.testbed.advance(100 * MILLISECOND)
            assert scene.info()["cwnd"] == (window if after_s == 180 else window // 2)
        scene.send(bytes(60_000))
        burst = sum(len(segment.payload) for segment in scene.peer.queue)
        assert window // 2 - 1460 < burst <= window // 2
        scene.abort()
