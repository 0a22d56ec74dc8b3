# SPDX-License-Identifier: MIT
"""Peers that acknowledge many segments with one ACK: super-frames received, GRO, ACKs thinned by the path.

Bytes are counted, not ACKs (RFC 3465, RFC 9406 section 4.3, RFC 9438 section 4.3), so what a window does in a round
trip does not depend on how many ACKs tell of it, but for what a limit says that is asserted here.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from ustack.testing.peer import ANY
from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND

MSS = 1448
ROUND_TRIP = 40 * MILLISECOND
HYSTART_L = 8
ABC_L = 2
PEERS: dict[str, dict[str, Any]] = {
    "neither": {"mss": MSS, "wscale": 7},
    "SACK": {"mss": MSS, "wscale": 7, "sack_permitted": True},
    "timestamps": {"mss": MSS + 12, "wscale": 7, "timestamps": (0xFFFFFF00, 0), "nop": 1},
    "both": {"mss": MSS + 12, "wscale": 7, "sack_permitted": True, "timestamps": (0xFFFFFF00, 0), "nop": 1},
}
each_peer = pytest.mark.parametrize("peer", list(PEERS))


def opened(peer: str, cc: str, window_segs: int = 10, **config: Any) -> Scene:
    """ESTABLISHED, with so large an initial window."""
    return established(options=PEERS[peer], cc=cc, initial_window_segments=window_segs, **config)


def arrived(scene: Scene) -> int:
    """Segments of new data that have come since the last time; each is full and in order."""
    segments = 0
    while scene.peer.queue:
        segment = scene.peer.expect(seq=scene.peer.rcv_nxt, payload=ANY)
        assert len(segment.payload) == MSS
        segments += 1
    return segments


def strides(total: int, stride: int) -> Iterator[int]:
    """How many segments each ACK acknowledges."""
    while total > 0:
        yield min(stride, total)
        total -= stride


def acknowledge(scene: Scene, segments: int, una: int) -> int:
    """An ACK of so many more segments than una; the next una."""
    scene.peer.send("A", ack=una + segments * MSS)
    return una + segments * MSS


# ---------------------------------------------------------------- slow start


@each_peer
@pytest.mark.parametrize("stretch", [1, 2, 8, 9, 10, 45])
@pytest.mark.parametrize(
    ("cc", "pacing", "limit"),
    [("cubic", 0, HYSTART_L), ("cubic", 2, None), ("newreno", 0, None)],
    ids=["cubic", "cubic paced", "newreno"],
)
def test_one_ack_in_the_first_slow_start(cc: str, pacing: int, limit: int | None, stretch: int, peer: str) -> None:
    """What it acknowledges leaves the network and grows the window by as much: RFC 9406 section 4.3 by L = 8 segments
    at most, where sending is not paced; without a limit where it is. NewReno counts as Linux does."""
    with opened(peer, cc, 45, pacing=pacing) as scene:
        scene.send(bytes(400 * MSS))
        scene.testbed.advance(ROUND_TRIP)
        assert arrived(scene) == 45
        acknowledge(scene, stretch, 1)
        growth = stretch if limit is None else min(stretch, limit)
        assert scene.info()["cwnd"] == (45 + growth) * MSS
        scene.testbed.advance(3 * ROUND_TRIP // 4)
        assert arrived(scene) == stretch + growth
        scene.abort()


@each_peer
@pytest.mark.parametrize(("cc", "pacing"), [("cubic", 2), ("newreno", 0), ("newreno", 2)])
@pytest.mark.parametrize("stride", [1, 2, 10, 10_000], ids=["each", "two", "ten", "per round trip"])
def test_windows_double_however_many_acks_there_are(stride: int, cc: str, pacing: int, peer: str) -> None:
    """RFC 5681 section 3.1 by bytes (RFC 3465 section 2.2), without a limit: 10, 20, 40, 80 segments. Where sending is
    paced ACKs come as the segments went, in half a round trip: in one burst they would find the window not in use."""
    with opened(peer, cc, pacing=pacing) as scene:
        scene.send(bytes(400 * MSS))
        una, window, waited_ns = 1, 10, 0
        for _ in range(3):
            scene.testbed.advance(ROUND_TRIP - waited_ns)
            assert arrived(scene) == window
            waited_ns = ROUND_TRIP // 2 if pacing else 0
            for segments in strides(window, stride):
                una = acknowledge(scene, segments, una)
                scene.testbed.advance(waited_ns * segments // window)
            window *= 2
            assert scene.info()["cwnd"] == window * MSS
        scene.abort()


@each_peer
@pytest.mark.parametrize(
    ("stride", "windows"),
    [(1, [20, 40, 80]), (2, [20, 40, 80]), (8, [20, 40, 80]), (10, [18, 34, 62]), (10_000, [18, 26, 34])],
)
def test_windows_of_cubic_without_pacing(stride: int, windows: list[int], peer: str) -> None:
    """RFC 9406 section 4.3: L = 8 segments per ACK. One ACK per round trip makes of slow start eight segments each."""
    with opened(peer, "cubic", pacing=0) as scene:
        scene.send(bytes(400 * MSS))
        una, window = 1, 10
        for wanted in windows:
            scene.testbed.advance(ROUND_TRIP)
            assert arrived(scene) == window
            for segments in strides(window, stride):
                una = acknowledge(scene, segments, una)
            window = wanted
            assert scene.info()["cwnd"] == window * MSS
        scene.abort()


@each_peer
@pytest.mark.parametrize("stretch", [1, 2, 10])
@pytest.mark.parametrize("cc", ["cubic", "newreno"])
def test_one_ack_in_a_later_slow_start(cc: str, stretch: int, peer: str) -> None:
    """After a timeout: one segment for each ACK until what was out then is acknowledged (RFC 3465 section 2.3: L is 1
    SMSS), and never more than two (section 2.2, L = 2)."""
    with opened(peer, cc, 30) as scene:
        scene.send(bytes(400 * MSS))
        una = 1
        scene.testbed.advance(ROUND_TRIP)
        assert arrived(scene) == 30
        scene.peer.wait(2_000 * MILLISECOND)
        while scene.testbed.counted().get("retransmit_timeouts", 0) == 0:
            scene.testbed.advance(ROUND_TRIP)
        scene.peer.drain()
        assert scene.info()["cwnd"] == MSS
        una = acknowledge(scene, stretch, una)
        assert scene.info()["cwnd"] == 2 * MSS
        scene.abort()


# ---------------------------------------------------------------- congestion avoidance


def avoiding(peer: str, cc: str, window_segs: int, **config: Any) -> tuple[Scene, int]:
    """A window of about so many segments, halved (or less) by a loss that is repaired; all of it is in flight."""
    scene = opened(peer, cc, window_segs, **config)
    scene.send(bytes(2000 * MSS))
    scene.testbed.advance(ROUND_TRIP)
    assert arrived(scene) == window_segs
    una = 1
    sack = "sack_permitted" in PEERS[peer]
    for index in range(1, window_segs):
        options = {}
        if sack:
            first = ((scene.peer.iss or 0) + 1 + MSS) & 0xFFFFFFFF
            options = {"sack": [(first, (first + index * MSS) & 0xFFFFFFFF)]}
        scene.peer.send("A", ack=una, options=options)
    assert scene.testbed.counted()["fast_retransmits"] == 1
    scene.testbed.advance(ROUND_TRIP)
    scene.peer.catch_up()
    una = scene.peer.rcv_nxt
    scene.peer.send("A", ack=una)
    scene.testbed.advance(ROUND_TRIP)
    scene.peer.catch_up()
    while scene.info()["cwnd"] < scene.info()["ssthresh"]:
        for _ in strides((scene.peer.rcv_nxt - una) // MSS, 2):
            una = min(una + 2 * MSS, scene.peer.rcv_nxt)
            scene.peer.send("A", ack=una)
        scene.testbed.advance(ROUND_TRIP)
        scene.peer.catch_up()
    return scene, una


@each_peer
@pytest.mark.parametrize("stride", [1, 2, 10, 10_000], ids=["each", "two", "ten", "per round trip"])
@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_congestion_avoidance_counts_bytes(cc: str, stride: int, peer: str) -> None:
    """RFC 5681 section 3.1: one SMSS per window of bytes acknowledged. CUBIC's window is a function of time, and of
    bytes where it is friendly (RFC 9438 sections 4.2, 4.3): it grows by as much, give or take a segment."""
    scene, una = avoiding(peer, cc, 40)
    with scene:
        before = scene.info()["cwnd"]
        for _ in range(10):
            flying = (scene.peer.rcv_nxt - una) // MSS
            for segments in strides(flying, stride):
                una = acknowledge(scene, segments, una)
            scene.testbed.advance(ROUND_TRIP)
            scene.peer.catch_up()
        grown = (scene.info()["cwnd"] - before) / MSS
        assert (9 <= grown <= 11) if cc == "newreno" else (5 <= grown <= 7), grown
        assert scene.testbed.counted().get("retransmit_timeouts", 0) == 0
        scene.abort()


# ---------------------------------------------------------------- recovery


@pytest.mark.parametrize("peer", ["SACK", "both"])
@pytest.mark.parametrize("stretch", [3, 10, 44])
@pytest.mark.parametrize("cc", ["cubic", "newreno"])
def test_a_loss_that_one_ack_tells_of(cc: str, stretch: int, peer: str) -> None:
    """PRR: what one ACK lets go is bounded by what it says was delivered, and one segment more (RFC 9937 section 6.2,
    SafeACK or not); at the end of the repair the window is ssthresh."""
    with opened(peer, cc, 45) as scene:
        scene.send(bytes(400 * MSS))
        scene.testbed.advance(ROUND_TRIP)
        assert arrived(scene) == 45
        first = ((scene.peer.iss or 0) + 1 + MSS) & 0xFFFFFFFF
        done = 0
        sent = 0
        new = 0
        while done < 44:
            step = min(stretch, 44 - done)
            done += step
            scene.peer.send("A", ack=1, options={"sack": [(first, (first + done * MSS) & 0xFFFFFFFF)]})
            got = [scene.peer.relative(segment)[0] for segment in scene.peer.drain() if segment.payload]
            if sent == 0:
                assert got[0] == 1, "the first thing that goes is what is missing"
            assert len(set(got)) == len(got)
            assert 1 not in got[1:]
            assert len(got) <= step + 1
            sent += len(got)
            new += sum(seq != 1 for seq in got)
        ssthresh = scene.info()["ssthresh"]
        assert sent * MSS <= ssthresh + MSS
        scene.testbed.advance(ROUND_TRIP)
        scene.peer.send("A", ack=1 + (45 + new) * MSS)
        info = scene.info()
        assert info["ssthresh"] == ssthresh
        assert ssthresh <= info["cwnd"] <= ssthresh + ABC_L * MSS
        assert scene.testbed.counted()["segments_retransmitted"] == 1
        scene.abort()


# ---------------------------------------------------------------- round trips


@each_peer
def test_an_ack_of_many_measures_from_the_first_of_them(peer: str) -> None:
    """The time for which an ACK is held back belongs to what the timer must wait for (RFC 7323 section 4.2: so it is
    the earliest segment whose timestamp is echoed)."""
    with opened(peer, "newreno", 10, rto_initial_ns=1000 * MILLISECOND) as scene:
        for _ in range(4):
            scene.send(bytes(MSS))
            scene.testbed.advance(10 * MILLISECOND)
        assert arrived(scene) == 4
        acknowledge(scene, 4, 1)
        info = scene.info()
        assert 39_000 <= info["srtt_us"] <= 41_000
        scene.abort()


@each_peer
@pytest.mark.parametrize("stride", [1, 10, 10_000], ids=["each", "ten", "per round trip"])
def test_srtt_does_not_depend_on_how_many_acks_there_are(stride: int, peer: str) -> None:
    """One sample per round trip, for which the gains are made (RFC 6298 section 3)."""
    with opened(peer, "newreno", 40, pacing=0) as scene:
        scene.send(bytes(400 * MSS))
        una = 1
        for window in (40, 80):
            scene.testbed.advance(ROUND_TRIP)
            assert arrived(scene) == window
            for segments in strides(window, stride):
                una = acknowledge(scene, segments, una)
        info = scene.info()
        assert 39_000 <= info["srtt_us"] <= 41_000
        assert abs(info["rttvar_us"] - 15_000) <= 1_500
        scene.abort()
