# SPDX-License-Identifier: MIT
"""A sender without memory for a record of its flight: one frame out at a time, and the timer alone repairs
(ustack/tcp/recovery/transmissions.pxd)."""

import pytest

from ustack.testing.peer import ANY, length
from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND

MSS = 1460
SENT = bytes(range(250)) * 20  # three full segments and one of 620 bytes


def without_flights(**config: object) -> Scene:
    """ESTABLISHED, SENT is queued, the first frame of it is out, and there is no flight to record that in."""
    scene = established(measured=True, flights=0, **config)
    scene.send(SENT)
    return scene


def test_one_frame_is_out_at_a_time_and_everything_arrives() -> None:
    with without_flights() as scene:
        received = b""
        for index in range(4):
            segment = scene.peer.expect(seq=1 + MSS * index, ack=1, payload=ANY)
            scene.peer.expect_nothing()
            received += segment.payload
            scene.testbed.advance(20 * MILLISECOND)
            scene.peer.send("A", ack=1 + len(received))
        assert received == SENT
        assert scene.testbed.counted()["transmissions_refused"] >= 4
        assert scene.testbed.stack.leaks()["flights"] == 0
        scene.testbed.advance(10 * SECOND)  # nothing is out: no timer runs
        scene.peer.expect_nothing()
        assert scene.info()["snd_una"] == scene.info()["snd_nxt"]
        scene.abort()


def test_a_window_that_limits_grows_by_what_is_acknowledged() -> None:
    """RFC 5681 section 3.1, slow start: the control hears of the ACK, as of any other."""
    with without_flights(cc="newreno", initial_window_segments=1) as scene:
        for index in range(3):
            scene.peer.expect(seq=1 + MSS * index, payload=ANY)
            assert scene.info()["cwnd"] == MSS * (1 + index)
            scene.peer.send("A", ack=1 + MSS * (index + 1))
        scene.abort()


@pytest.mark.parametrize("taken", [1, 700, MSS - 1])
def test_what_a_timeout_finds_missing_goes_again_segment_by_segment(taken: int) -> None:
    """RFC 6298 (5.4), (5.5): the earliest segment, with a doubled timer; what a part of it leaves goes at once."""
    with without_flights() as scene:
        first = scene.peer.expect(seq=1, payload=length(MSS))
        assert scene.peer.wait(3 * SECOND) >= 200 * MILLISECOND
        assert scene.peer.expect(seq=1, payload=length(MSS)).payload == first.payload
        scene.peer.send("A", ack=1 + taken)
        rest = scene.peer.expect(seq=1 + taken, payload=ANY)
        assert 0 < len(rest.payload) <= MSS
        assert SENT[taken:].startswith(rest.payload)
        scene.peer.expect_nothing()
        scene.abort()


def test_keep_alive_begins_when_all_is_acknowledged() -> None:
    idle_s = 60
    with without_flights(keepalive_idle_ns=idle_s * SECOND) as scene:
        scene.conn.keepalive = True
        for index in range(4):
            segment = scene.peer.expect(seq=1 + MSS * index, payload=ANY)
            scene.peer.send("A", ack=1 + MSS * index + len(segment.payload))
        scene.testbed.advance((idle_s - 1) * SECOND)
        scene.peer.expect_nothing()
        scene.testbed.advance(2 * SECOND)
        scene.peer.expect("A", seq=len(SENT))  # below SND.NXT (RFC 1122 section 4.2.3.6)
        assert scene.testbed.counted()["keepalive_probes_out"] == 1
        scene.abort()


def test_congestion_avoidance_without_a_record_of_the_control() -> None:
    """RFC 5681 equation (3) by each ACK: what NewReno counts bytes in needs memory as well."""
    with without_flights(cc="newreno", cc_records=0, initial_window_segments=1) as scene:
        scene.peer.expect(seq=1, payload=ANY)
        scene.peer.wait(3 * SECOND)  # ssthresh: two segments
        scene.peer.expect(seq=1, payload=ANY)
        windows = []
        for index in range(3):
            scene.peer.send("A", ack=1 + MSS * (index + 1))
            windows.append(scene.info()["cwnd"])
            scene.peer.expect(seq=1 + MSS * (index + 1), payload=ANY)
        # And no further: one frame is less than half of that, so the window is not what limits.
        assert windows == [2 * MSS, 2 * MSS + MSS // 2, 2 * MSS + MSS // 2]
        scene.abort()


@pytest.mark.parametrize("segments", [1, 3])
def test_keep_alive_begins_when_a_recorded_flight_is_acknowledged(segments: int) -> None:
    """One frame's ACK takes a shorter way than that of several."""
    with established(measured=True, keepalive_idle_ns=60 * SECOND) as scene:
        scene.conn.keepalive = True
        scene.testbed.advance(50 * SECOND)
        scene.send(bytes(MSS * segments))
        assert len(scene.peer.drain()) == segments
        scene.peer.send("A", ack=1 + MSS * segments)
        scene.testbed.advance(59 * SECOND)
        scene.peer.expect_nothing()
        scene.testbed.advance(2 * SECOND)
        scene.peer.expect("A", seq=MSS * segments)
        scene.abort()
