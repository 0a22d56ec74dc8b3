# SPDX-License-Identifier: MIT
"""A peer takes back its window while something is in flight: RFC 9293 section 3.8.6, SHLD-15 to 17, MUST-34 and 35."""

from typing import Any

from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND

MSS = 1460
ROUND_TRIP = 20 * MILLISECOND


def seq_of(index: int) -> int:
    return 1 + MSS * index


def lengths(scene: Scene) -> list[tuple[int, int]]:
    """(index, bytes) of the data that has arrived; takes it."""
    return [
        ((scene.peer.relative(segment)[0] - 1) // MSS, len(segment.payload))
        for segment in scene.peer.drain()
        if segment.payload
    ]


def flying(segments: int, total: int = 0) -> Scene:
    """So many segments of `total` in flight, a round trip measured."""
    scene = established(options={"mss": MSS, "sack_permitted": True}, initial_window_segments=segments + 1)
    scene.send(bytes(MSS))
    scene.testbed.advance(ROUND_TRIP)
    scene.peer.drain()
    scene.peer.send("A", ack=seq_of(1))
    scene.send(bytes((total or segments) * MSS))
    assert len(lengths(scene)) >= segments
    scene.testbed.advance(ROUND_TRIP)
    return scene


def say(scene: Scene, ack: int, *blocks: tuple[int, int], **more: Any) -> None:
    assert scene.peer.iss is not None
    edges = [tuple((scene.peer.iss + seq_of(edge)) & 0xFFFFFFFF for edge in block) for block in blocks]
    scene.peer.send("A", ack=seq_of(ack), options={"sack": edges} if edges else None, **more)


def test_a_closed_window_is_no_place_for_a_tail_probe() -> None:
    """The probe's timer runs; what comes is the window probe of one byte, when the retransmission timer does."""
    with flying(4) as scene:
        say(scene, 1, wnd=0)
        scene.testbed.advance(3 * SECOND)
        assert {length for _, length in lengths(scene)} == {1}
        counted = scene.testbed.counted()
        assert counted.get("tail_probes_out", 0) == 0
        assert counted["window_probes_out"] >= 1
        assert scene.info()["cwnd"] >= 4 * MSS  # no congestion
        scene.abort()


def test_life_after_a_blackout_is_no_reason_to_fill_a_closed_window() -> None:
    with flying(4) as scene:
        for _ in range(4):
            scene.peer.wait(100 * SECOND)
            scene.peer.drain()
        scene.testbed.advance(SECOND)
        scene.peer.drain()
        scene.peer.send("PA", ack=seq_of(1), payload=b"no room", wnd=0)
        assert lengths(scene) == []
        scene.read()
        scene.abort()


def test_what_is_lost_beyond_the_window_does_not_hold_up_what_is_within() -> None:
    """What is beyond was found lost first; the window is what the peer has room for now."""
    with flying(12, total=30) as scene:
        say(scene, 1, (2, 6))
        again = lengths(scene)
        assert again[0][0] == 1
        say(scene, 1, (2, 8))
        newest = lengths(scene)[-1][0]
        assert newest > 12  # new data, behind the retransmission
        scene.testbed.advance(ROUND_TRIP)
        say(scene, 1, (2, 8), (9, 13), wnd=2 * MSS)  # 8 is lost, and the peer has room for 1 and 2
        scene.testbed.advance(ROUND_TRIP // 2)
        assert 8 not in [index for index, _ in lengths(scene)]
        say(scene, 1, (2, 8), (9, newest + 1), wnd=2 * MSS)  # the retransmission of 1 is lost, too
        scene.testbed.advance(ROUND_TRIP)
        assert [index for index, _ in lengths(scene)] == [1]
        counted = scene.testbed.counted()
        assert counted["retransmits_lost"] == 1
        assert counted.get("retransmit_timeouts", 0) == 0
        scene.abort()
