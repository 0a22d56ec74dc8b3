# SPDX-License-Identifier: MIT
"""The first round trip of a passive open: from our SYN-ACK to its ACK (RFC 6298 (2.2), RFC 7323 section 4)."""

from collections.abc import Mapping
from typing import Any

import pytest

from ustack.testing.peer import ScriptedPeer, length
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, established, listen
from ustack.testing.testbed import MICROSECOND, MILLISECOND, SECOND, TICK_NS

DAY = 24 * 3600 * SECOND
MSS = 1460
ALWAYS = 2
COOKIE_TICKS_MS = 64
"""In a cookie's timestamp the low six bits are no clock."""
both_options = pytest.mark.parametrize("options", [SYN_OPTIONS, ALL_OPTIONS], ids=["plain", "timestamps"])


def opened(round_trip_ns: int, *, options: Mapping[str, Any] = SYN_OPTIONS, after_ns: int = 0, **config: Any) -> Scene:
    """ESTABLISHED by a handshake of so long a round trip, which begins after_ns from the stack's start."""
    scene = listen(**config)
    scene.testbed.advance(after_ns)
    scene.peer.send("S", options=options)
    scene.peer.expect("SA", seq=0, ack=1)
    scene.testbed.advance(round_trip_ns)
    scene.peer.timestamps = "timestamps" in options
    scene.peer.send("A")
    scene.accept()
    return scene


def times_us(scene: Scene) -> tuple[int, int]:
    """SRTT and RTTVAR."""
    info = scene.info()
    return info["srtt_us"], info["rttvar_us"]


@both_options
@pytest.mark.parametrize("round_trip_us", [0, 1, 50, 262, 263, 4_000, 40_000, 300_000, 999_000])
@pytest.mark.parametrize("after_us", [0, 1, 131, 260])
def test_both_variables_are_set(round_trip_us: int, after_us: int, options: Mapping[str, Any]) -> None:
    """SRTT <- R, RTTVAR <- R/2 (2.2); R is rounded up to the timer's tick, which is G."""
    with opened(round_trip_us * MICROSECOND, after_ns=after_us * MICROSECOND, options=options) as scene:
        srtt_us, rttvar_us = times_us(scene)
        assert max(round_trip_us, 1) <= srtt_us <= round_trip_us + TICK_NS / 1000
        assert rttvar_us == srtt_us // 2
        assert scene.info()["rto_ns"] == max(200 * MILLISECOND, 1000 * (srtt_us + 4 * rttvar_us))


def test_two_weeks_of_ticks_make_no_difference() -> None:
    """Ticks have 32 bits, which come round after 13 days."""
    with opened(40 * MILLISECOND, after_ns=14 * DAY) as scene:
        assert 40_000 <= times_us(scene)[0] <= 40_263


@pytest.mark.parametrize(("round_trip_ms", "rto_ms"), [(20, 200), (100, 300), (400, 1200)])
def test_the_first_flight_is_sent_again_after_three_round_trips(round_trip_ms: int, rto_ms: int) -> None:
    """SRTT + 4 * RTTVAR are three times the first R; 200 ms at least. Without tail loss probes, which come before."""
    with opened(round_trip_ms * MILLISECOND, tail_probe_min_ns=100 * SECOND) as scene:
        scene.send(b"hello")
        scene.peer.expect("A", payload=b"hello")
        scene.peer.expect_after(rto_ms * MILLISECOND, "A", seq=1, payload=b"hello")


def test_the_tail_of_the_first_flight_is_probed_after_two_round_trips() -> None:
    """RFC 8985 section 7.2: PTO is 2 * SRTT where there is an SRTT, and a second where there is none."""
    with opened(20 * MILLISECOND, options={**SYN_OPTIONS, "sack_permitted": True}) as scene:
        scene.send(bytes(3 * MSS))
        for _ in range(3):
            scene.peer.expect(payload=length(MSS))
        scene.peer.expect_after(40 * MILLISECOND, seq=1 + 2 * MSS, payload=length(MSS))


def test_a_black_hole_behind_the_handshake_is_found_in_seconds() -> None:
    """Three retransmissions and the timeout after them (RFC 4821 section 7.7) are 15 times the first RTO."""
    with opened(40 * MILLISECOND) as scene:
        began_ns = scene.testbed.now_ns
        scene.send(bytes(3 * MSS))
        scene.testbed.run_until(lambda: scene.testbed.counted().get("black_holes") == 1, 20 * SECOND)
        assert scene.testbed.now_ns - began_ns < 3.2 * SECOND


def test_the_next_sample_is_smoothed_into_it() -> None:
    """(2.3)."""
    with opened(80 * MILLISECOND) as scene:
        first_us, variance_us = times_us(scene)
        scene.send(b"hello")
        scene.testbed.advance(40 * MILLISECOND)
        scene.peer.expect("A", payload=b"hello")
        scene.peer.send("A")
        srtt_us, rttvar_us = times_us(scene)
        assert abs(srtt_us - (first_us * 7 + 40_000) / 8) <= 2
        assert abs(rttvar_us - (variance_us * 3 + first_us - 40_000) / 4) <= 2


# ---------------------------------------------------------------- what must not be measured


@both_options
def test_a_syn_ack_that_the_timer_has_repeated(options: Mapping[str, Any]) -> None:
    """Karn's rule (MUST-18), and the first RTO of data is three seconds (5.7), unless a timestamp says which it was."""
    with listen() as scene:
        scene.peer.send("S", options=options)
        scene.peer.expect("SA", seq=0, ack=1)
        scene.peer.expect_after(SECOND, "SA", seq=0, ack=1)
        scene.testbed.advance(30 * MILLISECOND)
        scene.peer.timestamps = "timestamps" in options
        scene.peer.send("A")
        scene.accept()
        if scene.peer.timestamps:
            assert 30_000 <= times_us(scene)[0] <= 31_000
            assert scene.info()["rto_ns"] == 200 * MILLISECOND
        else:
            assert times_us(scene)[0] == 0
            assert scene.info()["rto_ns"] == 3 * SECOND
        scene.abort()


@pytest.mark.parametrize("echo", ["first", "none", "of what was never sent"])
def test_an_echo_that_does_not_measure(echo: str) -> None:
    """Of the first of two SYN-ACKs: then the path is as slow as those are that (5.7) has three seconds for."""
    with listen() as scene:
        scene.peer.send("S", options=ALL_OPTIONS)
        scene.peer.expect("SA", seq=0, ack=1)
        echoes = {"first": scene.peer.ts_recent, "none": 0}
        scene.peer.expect_after(SECOND, "SA", seq=0, ack=1)
        echoed = echoes.get(echo, scene.peer.ts_recent + 5000)
        scene.peer.send("A", options={"nop": 2, "timestamps": (scene.peer.ts_now, echoed)})
        scene.accept()
        assert scene.info()["srtt_us"] == 0
        assert scene.info()["rto_ns"] == 3 * SECOND
        scene.abort()


@both_options
def test_a_syn_ack_that_a_repeated_syn_has_asked_for(options: Mapping[str, Any]) -> None:
    """Karn's rule: which of the two does the ACK answer? Without timestamps the RTO stays what (2.1) says."""
    with listen() as scene:
        for _ in range(2):
            scene.peer.send("S", seq=0, options=options)
            scene.peer.expect("SA", seq=0, ack=1)
            scene.testbed.advance(300 * MILLISECOND)
        scene.peer.snd_nxt = 1
        scene.peer.timestamps = "timestamps" in options
        scene.peer.send("A")
        scene.accept()
        if scene.peer.timestamps:
            assert 300_000 <= times_us(scene)[0] <= 301_000
        else:
            assert times_us(scene)[0] == 0
            assert scene.info()["rto_ns"] == SECOND
        scene.abort()


def test_a_lost_third_segment_makes_it_too_long_and_the_repeated_syn_ack_ends_that() -> None:
    """The peer's first data completes the handshake, whenever it comes: an upper bound of less than the initial RTO."""
    with listen() as scene:
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA", seq=0, ack=1)
        scene.testbed.advance(950 * MILLISECOND)
        scene.peer.send("A", payload=b"GET")
        scene.accept()
        assert 950_000 <= times_us(scene)[0] <= 950_263
        assert scene.info()["rto_ns"] < 3 * SECOND
        scene.abort()


def test_an_active_open_measures_its_own_syn_and_nothing_twice() -> None:
    with established(role="active") as scene:
        assert times_us(scene) == (1, 0)
        scene.abort()


def test_a_connection_after_time_wait_is_measured_too() -> None:
    """Its ISS lies beyond the old connection's and says nothing of the clock (RFC 6191)."""
    with listen() as scene:
        for _ in range(2):
            peer = ScriptedPeer(scene.testbed, port=3000)
            peer.send("S", options={**ALL_OPTIONS, "timestamps": (peer.ts_now, 0)})
            peer.expect("SA")
            scene.testbed.advance(40 * MILLISECOND)
            peer.timestamps = True
            peer.send("A")
            connection = scene.accept()
            assert 40_000 <= connection.info().rtt_us <= 40_263
            connection.close()
            scene.testbed.pump()
            peer.expect("FA", seq=1)
            peer.send("FA")
            peer.expect("A", seq=2)
            scene.testbed.advance(MILLISECOND)
        assert scene.testbed.counted()["time_wait_reused"] == 1


# ---------------------------------------------------------------- cookies


@pytest.mark.parametrize("round_trip_ms", [0, 1, 40, 63, 64, 300, 900])
@pytest.mark.parametrize("after_ms", [0, 1, 17, 63])
def test_a_cookie_measures_by_the_bits_of_its_timestamp_that_are_a_clock(round_trip_ms: int, after_ms: int) -> None:
    """RFC 7323 section 4. The low six bits say what was agreed on: never too short, and 64 ms too long at most."""
    with opened(
        round_trip_ms * MILLISECOND, after_ns=after_ms * MILLISECOND, options=ALL_OPTIONS, syn_cookies=ALWAYS
    ) as scene:
        assert scene.testbed.counted()["syn_cookies_accepted"] == 1
        srtt_us, rttvar_us = times_us(scene)
        assert round_trip_ms * 1000 <= srtt_us <= (round_trip_ms + COOKIE_TICKS_MS) * 1000
        assert rttvar_us == srtt_us // 2


def test_a_cookie_without_timestamps_measures_nothing() -> None:
    """Its slot is 17 seconds long."""
    with opened(40 * MILLISECOND, options=SYN_OPTIONS, syn_cookies=ALWAYS) as scene:
        assert scene.testbed.counted()["syn_cookies_accepted"] == 1
        assert times_us(scene) == (0, 0)


def test_a_cookie_that_comes_back_after_the_initial_rto_measures_nothing() -> None:
    """Nobody has sent the SYN-ACK again: the peer's first answer was lost, as far as one can tell, and this is data."""
    with opened(5 * SECOND, options=ALL_OPTIONS, syn_cookies=ALWAYS) as scene:
        assert scene.testbed.counted()["syn_cookies_accepted"] == 1
        assert times_us(scene) == (0, 0)
        assert scene.info()["rto_ns"] == SECOND


def test_what_one_cookie_measured_is_not_the_next_ones() -> None:
    """A peer with timestamps, then one without."""
    with opened(40 * MILLISECOND, options=ALL_OPTIONS, syn_cookies=ALWAYS) as scene:
        assert times_us(scene)[0] >= 40_000
        other = ScriptedPeer(scene.testbed, port=50_000)
        other.send("S", options=SYN_OPTIONS)
        other.expect("SA", seq=0, ack=1)
        other.send("A")
        assert scene.listener is not None
        connection = scene.listener.accept(timeout=0)
        assert connection.info().rtt_us == 0
        connection.abort()
        scene.abort()
