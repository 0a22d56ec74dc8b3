# SPDX-License-Identifier: MIT
"""Round-trip time, retransmission timeout, Karn's rule and back-off: RFC 6298, RFC 9293 section 3.8.1 and 3.8.3."""

import pytest

from ustack.testing.states import ALL_OPTIONS, Scene, established, syn_sent
from ustack.testing.testbed import MILLISECOND, SECOND, TICK_NS

US_PER_MS = 1000


def close_to(value: int, expected: float, slack_us: int = 1500) -> bool:
    """Equal, give or take the granularity of a millisecond clock."""
    return abs(value - expected) <= slack_us


def exchange(scene: Scene, round_trip_ns: int, octets: int = 100) -> None:
    """The application sends; the peer acknowledges after a round trip."""
    scene.send(bytes(octets))
    scene.testbed.advance(round_trip_ns)
    scene.peer.catch_up()
    scene.peer.send("A")


def test_first_rto_of_data_is_one_second() -> None:
    """(2.1) and (2.4)."""
    with established() as scene:
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.expect_after(SECOND, "A", seq=1, payload=b"hello")


def test_backoff_doubles_up_to_the_maximum() -> None:
    """(5.5) and (2.5)."""
    with established() as scene:
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
            scene.peer.expect_after(seconds * SECOND, "A", seq=1, payload=b"hello")


def test_first_sample_sets_both_variables() -> None:
    """(2.2): SRTT = R, RTTVAR = R/2."""
    with established(rto_initial_ns=10 * SECOND) as scene:
        before = scene.info()["srtt_us"]
        exchange(scene, 2 * SECOND)
        info = scene.info()
        if before == 0:
            assert close_to(info["srtt_us"], 2_000_000)
            assert close_to(info["rttvar_us"], 1_000_000)


@pytest.mark.parametrize("options", [{"mss": 1460}, ALL_OPTIONS], ids=["timed", "timestamps"])
def test_later_samples_are_smoothed(options: dict[str, object]) -> None:
    """(2.3): RTTVAR first, with the old SRTT; beta 1/4, alpha 1/8."""
    with established(rto_initial_ns=10 * SECOND, options=options) as scene:
        exchange(scene, 400 * MILLISECOND)
        for round_trip_ms in (400, 100, 900, 300):
            old = scene.info()
            exchange(scene, round_trip_ms * MILLISECOND)
            new = scene.info()
            sample = round_trip_ms * US_PER_MS
            deviation = abs(old["srtt_us"] - sample)
            assert close_to(new["rttvar_us"], old["rttvar_us"] * 3 / 4 + deviation / 4)
            assert close_to(new["srtt_us"], old["srtt_us"] * 7 / 8 + sample / 8)


def test_rto_is_srtt_plus_four_times_the_variance() -> None:
    with established(rto_initial_ns=10 * SECOND) as scene:
        exchange(scene, 2 * SECOND)
        info = scene.info()
        rto_ns = (info["srtt_us"] + 4 * info["rttvar_us"]) * 1000
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.expect_after(rto_ns, "A", payload=b"hello")


def test_rto_is_never_below_the_minimum() -> None:
    """(2.4) says one second (SHOULD); 200 ms by RFC 8961 section 4 (configuration.pyx has the argument)."""
    with established() as scene:
        for _ in range(50):
            exchange(scene, MILLISECOND)
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.expect_after(200 * MILLISECOND, "A", payload=b"hello")


def test_rto_minimum_is_configurable() -> None:
    """One second, as RFC 6298 (2.4) has it."""
    with established(rto_min_ns=SECOND) as scene:
        for _ in range(20):
            exchange(scene, MILLISECOND)
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.expect_after(SECOND, "A", payload=b"hello")


def test_a_variance_of_nothing_is_a_tick() -> None:
    """Section 4: K * RTTVAR is rounded up to G, here the tick of the timing wheel."""
    with established(rto_min_ns=MILLISECOND) as scene:
        for _ in range(150):
            exchange(scene, 64 * MILLISECOND)
        info = scene.info()
        assert 4 * info["rttvar_us"] * 1000 < TICK_NS
        assert info["rto_ns"] == info["srtt_us"] * 1000 + TICK_NS


def test_karn_no_sample_from_a_retransmitted_segment() -> None:
    """Section 3 (MUST-18)."""
    with established() as scene:
        exchange(scene, 50 * MILLISECOND)
        before = scene.info()
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.wait(10 * SECOND)
        scene.peer.expect("A", payload=b"hello")
        scene.testbed.advance(30 * MILLISECOND)
        scene.peer.send("A")
        after = scene.info()
        assert (after["srtt_us"], after["rttvar_us"]) == (before["srtt_us"], before["rttvar_us"])


def test_timestamps_give_a_sample_even_then() -> None:
    """Section 3: with timestamps the ambiguity is gone; the echo tells which one was answered."""
    with established(options=ALL_OPTIONS) as scene:
        exchange(scene, 50 * MILLISECOND)
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.wait(10 * SECOND)
        scene.peer.expect("A", payload=b"hello")
        scene.testbed.advance(50 * MILLISECOND)
        scene.peer.send("A")
        assert scene.info()["srtt_us"] // US_PER_MS == 50


def test_timer_restarts_when_new_data_is_acknowledged() -> None:
    """(5.3). The ACK is the first measurement, too: SRTT 600 ms, RTTVAR 300 ms, RTO 1.8 s."""
    with established() as scene:
        scene.send(bytes(6 * 1460))
        scene.peer.drain()
        scene.testbed.advance(600 * MILLISECOND)
        scene.peer.send("A", ack=1461)
        scene.peer.expect_after(1800 * MILLISECOND, "A", seq=1461, payload=bytes(1460))


def test_with_few_segments_out_the_timer_counts_from_when_they_were_sent() -> None:
    """RFC 7765 section 4: fewer than four, and nothing to follow: RTO - T_earliest = 1.8 - 0.6 s."""
    with established() as scene:
        scene.send(bytes(2 * 1460))
        scene.peer.drain()
        scene.testbed.advance(600 * MILLISECOND)
        scene.peer.send("A", ack=1461)
        scene.peer.expect_after(1200 * MILLISECOND, "A", seq=1461, payload=bytes(1460))


def test_timer_does_not_restart_when_more_is_sent() -> None:
    """(5.1): only if it is not running. Both sends go again in one segment."""
    with established() as scene:
        scene.conn.nodelay = True
        scene.send(b"one")
        scene.peer.expect("A", payload=b"one")
        scene.testbed.advance(600 * MILLISECOND)
        scene.send(b"two")
        scene.peer.expect("A", payload=b"two")
        scene.peer.expect_after(400 * MILLISECOND, "A", seq=1, payload=b"onetwo")


def test_timer_stops_when_everything_is_acknowledged() -> None:
    """(5.2)."""
    with established() as scene:
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.send("A", ack=6)
        scene.testbed.advance(100 * SECOND)
        scene.peer.expect_nothing()


def test_syn_lost_makes_the_first_data_timeout_three_seconds() -> None:
    """(5.7)."""
    with syn_sent() as scene:
        scene.peer.expect_after(SECOND, "S", seq=0)
        scene.peer.send("SA", options={"mss": 1460})
        scene.peer.expect("A", seq=1, ack=1)
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.expect_after(3 * SECOND, "A", seq=1, payload=b"hello")


def test_backoff_ends_with_an_acknowledgment_of_new_data() -> None:
    """Of data that was sent once: only that measures (section 3), and a measurement replaces the RTO (section 5).

    Until then the RTO stays backed off: after the ACK of a retransmission the timer runs for "the current value of
    RTO" (5.3).
    """
    with established(rto_min_ns=SECOND) as scene:
        exchange(scene, 50 * MILLISECOND)
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        for _ in range(3):
            scene.peer.wait(100 * SECOND)
            scene.peer.expect("A", payload=b"hello")
        scene.peer.rcv_nxt += 5
        scene.peer.send("A", ack=106)
        scene.send(b"again")
        scene.peer.expect("A", seq=106, payload=b"again")
        scene.peer.expect_after(8 * SECOND, "A", seq=106, payload=b"again")
        scene.peer.send("A")
        exchange(scene, 50 * MILLISECOND)
        assert (scene.info()["backoff"], scene.info()["rto_ns"]) == (0, SECOND)


def back_off(scene: Scene, timeouts: int) -> None:
    """So many in a row, then an ACK that measures nothing."""
    exchange(scene, 50 * MILLISECOND)
    scene.send(b"hello")
    scene.peer.expect("A", payload=b"hello")
    while scene.info()["backoff"] < timeouts:
        scene.peer.wait(1000 * SECOND)
        scene.peer.expect("A", payload=b"hello")
    scene.peer.rcv_nxt += 5
    scene.peer.send("A", ack=106)


def test_a_backoff_that_outlives_progress_is_bounded() -> None:
    """Eight timeouts, then an ACK that measures nothing: of the backoff, six doublings stay."""
    with established(rto_min_ns=SECOND, rto_max_ns=1000 * SECOND, user_timeout_ns=100_000 * SECOND) as scene:
        back_off(scene, 8)
        assert (scene.info()["backoff"], scene.info()["rto_ns"]) == (6, 64 * SECOND)


def test_a_backoff_outlives_progress_only_as_far_as_a_quarter_of_the_user_timeout() -> None:
    with established(rto_min_ns=SECOND, user_timeout_ns=300 * SECOND) as scene:
        back_off(scene, 7)
        assert scene.info()["backoff"] == 5  # 1 + 2 + 4 + 8 + 16 + 32 s, and no second timeout of 64 s


def test_a_sample_is_bounded() -> None:
    """268 s, what its field holds. Nothing is sent twice before that: it would be no sample."""
    late = {"rto_initial_ns": 500 * SECOND, "rto_max_ns": 500 * SECOND, "tail_probe_min_ns": 500 * SECOND}
    with established(user_timeout_ns=100_000 * SECOND, **late) as scene:
        assert scene.info()["srtt_us"] == 0
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.testbed.advance(400 * SECOND)
        scene.peer.send("A")
        assert scene.info()["srtt_us"] == 1 << 28


def test_user_timeout_is_configurable() -> None:
    """MUST-21. 20 s are over when the timer expires after 1 + 2 + 4 + 8 + 16 s."""
    with established(user_timeout_ns=20 * SECOND) as scene:
        scene.send(b"hello")
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 7200 * SECOND)
        assert took // SECOND == 31


def test_user_timeout_can_be_set_for_one_connection() -> None:
    """MUST-21. After 1 + 2 + 4 s without an answer the last wait is 3 s, not 8: as on Linux."""
    with established() as scene:
        scene.conn.set_user_timeout(10)
        scene.send(b"hello")
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 7200 * SECOND)
        assert took // SECOND == 10


def test_echo_of_the_original_after_a_timeout_is_no_sample() -> None:
    """Its ACK was lost, not the segment: the peer answers the repetition with the first's timestamp (RFC 7323 5.3)."""
    with established(options=ALL_OPTIONS, rto_min_ns=SECOND) as scene:
        exchange(scene, 50 * MILLISECOND)
        before = scene.info()
        scene.send(b"hello")
        original = scene.peer.expect("A", payload=b"hello").options["timestamps"][0]
        for _ in range(3):
            scene.peer.wait(100 * SECOND)
            scene.peer.expect("A", payload=b"hello")
        scene.peer.send("A", ack=106, options={"nop": 2, "timestamps": (scene.peer.ts_now, original)})
        assert scene.info()["srtt_us"] == before["srtt_us"]
        exchange(scene, 50 * MILLISECOND)
        assert scene.info()["rto_ns"] == SECOND
