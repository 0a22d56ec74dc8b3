# SPDX-License-Identifier: MIT
"""How the window grows by ACKs that come several at a time, or for many segments at once: super-frames, batches."""

from collections.abc import Callable

import pytest

from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND

MSS = 1460
WINDOW = 65535
BOTH = pytest.mark.parametrize("cc", ["newreno", "cubic"])


def arrived(scene: Scene) -> list[int]:
    """Relative ends of the data segments that have come; takes them."""
    return [scene.peer.relative(one)[0] + len(one.payload) for one in scene.peer.drain() if one.payload]


def started(**config: object) -> Scene:
    """A long transfer; the initial window is in flight."""
    scene = established(wnd=WINDOW, options={"mss": MSS}, **config)
    scene.send(bytes(600 * MSS))
    return scene


def lose(scene: Scene) -> None:
    """The first segment of what is in flight has not arrived: a fast recovery, from beginning to end."""
    ends = arrived(scene)
    for _ in range(3):
        scene.peer.send("A", ack=ends[0] - MSS)
    assert ends[0] in arrived(scene)
    scene.testbed.advance(20 * MILLISECOND)
    scene.peer.send("A", ack=ends[-1])


def windows(scene: Scene, acknowledge: Callable[[Scene, list[int]], None], rounds: int) -> list[int]:
    """cwnd after each round trip of 20 ms, a loss before the third."""
    found = []
    for number in range(rounds):
        if number == 2:
            lose(scene)
        scene.testbed.advance(20 * MILLISECOND)
        acknowledge(scene, arrived(scene))
        found.append(scene.info()["cwnd"])
    return found


def apart(scene: Scene, ends: list[int]) -> None:
    for end in ends:
        scene.peer.send("A", ack=end)


def in_one_turn(scene: Scene, ends: list[int]) -> None:
    for end in ends:
        scene.peer.send("A", ack=end, pump=end == ends[-1])


@BOTH
def test_acks_of_one_turn_count_as_ones_that_come_apart(cc: str) -> None:
    """A turn takes them all before it sends: what is in flight while it does is no measure of how well the window was
    used (RFC 9293 section 3.8.2, RFC 7661 section 4.3). In slow start, and, after a loss, in congestion avoidance."""
    found = []
    for acknowledge in (apart, in_one_turn):
        with started(cc=cc, pacing=0) as scene:
            found.append(windows(scene, acknowledge, 16))
            scene.abort()
    assert found[0][:2] == [20 * MSS, 40 * MSS]
    assert len(set(found[0])) > 8
    assert all(abs(one - other) <= MSS for one, other in zip(*found, strict=True))


def test_a_slow_start_that_bursts_is_paced_and_doubles() -> None:
    """RFC 9406 section 4.3: L = 8 for who does not pace, no limit for who does."""
    with started(cc="cubic") as scene:
        for segments in (10, 20):
            ends = arrived(scene)
            assert len(ends) == segments
            scene.testbed.advance(100 * MILLISECOND)
            scene.peer.send("A", ack=ends[-1])
            assert scene.info()["cwnd"] == 2 * segments * MSS
            assert len(scene.peer.queue) <= 4
            scene.testbed.advance(99 * MILLISECOND)
        scene.abort()


def test_on_a_path_too_short_to_pace_eight_segments_are_counted() -> None:
    with started(cc="cubic") as scene:
        scene.testbed.advance(MILLISECOND // 2)
        scene.peer.send("A", ack=arrived(scene)[-1])
        assert scene.info()["cwnd"] == 18 * MSS
        assert len(arrived(scene)) == 18
        scene.abort()


@pytest.mark.parametrize(("pacing", "counted"), [(0, 8), (2, 10)])
def test_the_setting_decides(pacing: int, counted: int) -> None:
    with started(cc="cubic", pacing=pacing) as scene:
        scene.testbed.advance(100 * MILLISECOND)
        scene.peer.send("A", ack=arrived(scene)[-1])
        assert scene.info()["cwnd"] == (10 + counted) * MSS
        assert (len(arrived(scene)) == 18) is (pacing == 0)
        scene.abort()


@BOTH
def test_with_slow_start_pacing_ends(cc: str) -> None:
    """What ACKs pace needs no other."""
    with started(cc=cc) as scene:
        ends = arrived(scene)
        scene.testbed.advance(100 * MILLISECOND)
        scene.peer.send("A", ack=ends[-1])
        scene.testbed.advance(99 * MILLISECOND)
        lose(scene)
        for _ in range(9):
            scene.testbed.advance(100 * MILLISECOND)
            scene.peer.send("A", ack=arrived(scene)[-1])
        window = scene.info()["cwnd"]
        assert scene.info()["ssthresh"] <= window
        assert len(arrived(scene)) == window // MSS
        scene.abort()


@pytest.mark.parametrize("waiting", [0, 20])
def test_a_closing_window_of_the_peer_is_no_flight(waiting: int) -> None:
    """Its application does not read: nothing is sent for many turns, and 34 segments have left the network. A loss then
    is answered by what is in flight (RFC 5681 equation (4)), not by what was when something was last sent."""
    with established(options={"mss": MSS, "sack_permitted": True}, initial_window_segments=40, wnd=60_000) as scene:
        edge = 1 + 40 * MSS
        scene.send(bytes((40 + waiting) * MSS))
        assert len(arrived(scene)) == 40
        una = 1
        for _ in range(34):
            scene.testbed.advance(5 * MILLISECOND)
            una += MSS
            scene.peer.send("A", ack=una, wnd=edge - una)
        assert arrived(scene) == []
        window, iss = scene.info()["cwnd"], scene.peer.iss or 0
        hole = tuple((iss + at) & 0xFFFFFFFF for at in (una + MSS, una + 5 * MSS))
        scene.peer.send("A", ack=una, wnd=edge - una, options={"nop": 2, "sack": [hole]})
        assert scene.info()["ssthresh"] <= 5 * MSS < window
        scene.abort()
