# SPDX-License-Identifier: MIT
"""Loss recovery with SACK, rule by rule, against a scripted peer: RFC 8985, 6675, 2883, 7765, 5682, 3522."""

from typing import Any

import pytest

from ustack.testing.states import ALL_OPTIONS, Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND

MSS = 1460
SACK = {"mss": MSS, "sack_permitted": True}
ROUND_TRIP = 20 * MILLISECOND


def seq_of(index: int) -> int:
    """Relative sequence number of the index-th full segment, from 0."""
    return 1 + MSS * index


def sent(scene: Scene) -> list[int]:
    """Indices of the data segments that have arrived, in their order; takes them."""
    return [(scene.peer.relative(segment)[0] - 1) // MSS for segment in scene.peer.drain() if segment.payload]


def sack(scene: Scene, ack: int, *blocks: tuple[int, int], **more: Any) -> None:
    """An ACK of everything before the ack-th segment, with blocks of segments [left, right)."""
    assert scene.peer.iss is not None
    edges = [tuple((scene.peer.iss + seq_of(edge)) & 0xFFFFFFFF for edge in block) for block in blocks]
    scene.peer.send("A", ack=seq_of(ack), options={"sack": edges} if edges else None, **more)


def flying(segments: int, *, total: int = 0, **config: Any) -> Scene:
    """So many segments of `total` in flight, a round trip measured; the clock is one round trip later."""
    scene = established(options=config.pop("options", SACK), initial_window_segments=segments + 1, **config)
    scene.send(bytes(MSS))
    scene.testbed.advance(ROUND_TRIP)
    scene.peer.drain()
    scene.peer.send("A", ack=seq_of(1))
    scene.send(bytes((total or segments) * MSS))
    first = sent(scene)
    assert first[:segments] == list(range(1, segments + 1))
    scene.testbed.advance(ROUND_TRIP)
    return scene


def test_three_segments_sacked_repair_a_loss_at_once() -> None:
    """RFC 8985 section 6.2 step 4: DupThresh segments, and no reordering seen."""
    with flying(8) as scene:
        sack(scene, 1, (2, 5))
        assert sent(scene) == [1]
        counted = scene.testbed.counted()
        assert (counted["fast_retransmits"], counted["retransmitted_fast"]) == (1, 1)
        scene.abort()


def test_one_segment_sacked_waits_for_the_reordering_window() -> None:
    """A quarter of the shortest round trip."""
    with flying(8) as scene:
        sack(scene, 1, (2, 3))
        scene.peer.expect_nothing()
        took = scene.peer.wait(SECOND)
        assert abs(took - ROUND_TRIP // 4) <= MILLISECOND
        assert sent(scene) == [1]
        scene.abort()


def test_a_duplicate_without_news_lets_nothing_go() -> None:
    """RFC 5681 section 3.2 step 1: with SACK limited transmit MUST NOT send for a duplicate that tells nothing new."""
    with flying(8, total=20) as scene:
        for blocks, new in (((), []), (((2, 3),), [10]), (((2, 3),), []), (((2, 4),), [11])):
            sack(scene, 1, *blocks)
            assert sent(scene) == new
        scene.abort()


@pytest.mark.parametrize(("minutes", "waits"), [(0, ROUND_TRIP // 4), (10, ROUND_TRIP)])
def test_the_least_round_trip_is_that_of_the_last_minutes(minutes: int, waits: int) -> None:
    """RFC 8985 section 6.2 step 1: a path that has become four times as long has a reordering window as much longer."""
    with established(options=SACK, initial_window_segments=10) as scene:
        at = 0
        for round_trip in [ROUND_TRIP] + [4 * ROUND_TRIP] * (2 * minutes + 1):
            scene.send(bytes(MSS))
            scene.testbed.advance(round_trip)
            at += 1
            sack(scene, at)
            scene.testbed.advance(30 * SECOND * bool(minutes))
        scene.send(bytes(5 * MSS))
        scene.testbed.advance(4 * ROUND_TRIP)
        scene.peer.drain()
        sack(scene, at, (at + 1, at + 2))
        assert abs(scene.peer.wait(SECOND) - waits) <= MILLISECOND
        assert sent(scene) == [at]
        scene.abort()


def test_what_comes_late_within_the_window_is_not_sent_again() -> None:
    with flying(8) as scene:
        sack(scene, 1, (2, 3))
        scene.testbed.advance(ROUND_TRIP // 8)
        sack(scene, 9)
        scene.testbed.advance(SECOND)
        scene.peer.expect_nothing()
        assert scene.testbed.counted().get("segments_retransmitted", 0) == 0


def test_only_what_is_missing_goes_again() -> None:
    """Six holes of one segment in one window, repaired without a timeout and without a byte that the peer has."""
    with flying(20) as scene:
        sack(scene, 1, (2, 4), (5, 9), (10, 14))
        again = sent(scene)
        for left in (15, 17, 19):
            sack(scene, 1, (left, left + 1), (10, 14), (5, 9))
            again += sent(scene)
        sack(scene, 1, (15, 21), (10, 14), (5, 9), (2, 4))
        again += sent(scene)
        for ack in (4, 9, 14, 21):
            sack(scene, ack)
            again += sent(scene)
        assert sorted(again) == [1, 4, 9, 14, 16, 18]
        assert scene.testbed.counted().get("retransmit_timeouts", 0) == 0


def test_a_lost_retransmission_is_found_without_a_timeout() -> None:
    """Something sent after it has been delivered (RFC 8985 section 3.1)."""
    with flying(8, total=20) as scene:
        sack(scene, 1, (2, 6))
        assert 1 in sent(scene)
        scene.testbed.advance(ROUND_TRIP)
        new = max(sent(scene), default=8)
        sack(scene, 1, (2, 9))
        new = max([new, *sent(scene)])
        scene.testbed.advance(ROUND_TRIP)
        sack(scene, 1, (2, new + 1))
        scene.testbed.advance(ROUND_TRIP // 2)
        assert 1 in sent(scene)
        counted = scene.testbed.counted()
        assert counted["retransmits_lost"] == 1
        assert counted.get("retransmit_timeouts", 0) == 0
        scene.abort()


def test_a_lost_tail_is_probed_after_two_round_trips() -> None:
    """RFC 8985 section 7.2: the last segment again, which is a quarter of the retransmission timeout here."""
    with flying(4) as scene:
        scene.peer.expect_after(ROUND_TRIP, "A", seq=seq_of(4), payload=bytes(MSS))
        counted = scene.testbed.counted()
        assert (counted["tail_probes_out"], counted["retransmitted_probe"]) == (1, 1)
        assert counted.get("retransmit_timeouts", 0) == 0
        scene.abort()


@pytest.mark.parametrize("options", [SACK, ALL_OPTIONS], ids=["SACK", "SACK and timestamps"])
def test_the_sack_of_a_probe_begins_the_repair_of_a_lost_tail(options: dict[str, Any]) -> None:
    """RFC 8985 section 7: RACK infers the loss of what was sent before the probe. Its SACK echoes the timestamp of what
    came before the hole (RFC 7323 section 4.3, case B), which is older than the probe and says nothing of it."""
    with established(options=options, initial_window_segments=10) as scene:
        peer, size = scene.peer, int(scene.info()["smss"])
        scene.send(bytes(size))
        scene.testbed.advance(ROUND_TRIP)
        peer.catch_up()
        peer.send("A")
        scene.send(bytes(4 * size))
        scene.testbed.advance(ROUND_TRIP)
        assert len(peer.drain()) == 4
        stamp = peer.ts_recent
        peer.rcv_nxt = 1 + 3 * size
        peer.send("A")
        assert abs(peer.wait(SECOND) - 2 * ROUND_TRIP) <= MILLISECOND
        peer.expect(seq=1 + 4 * size, payload=bytes(size))
        scene.testbed.advance(ROUND_TRIP)
        peer.ts_recent = stamp
        first = (peer.iss or 0) + 1 + 4 * size & 0xFFFFFFFF
        peer.send("A", options={"sack": [(first, first + size & 0xFFFFFFFF)]})
        peer.expect(seq=1 + 3 * size, payload=bytes(size))
        assert scene.testbed.counted().get("retransmit_timeouts", 0) == 0
        scene.abort()


def test_a_probe_carries_new_data_if_there_is_any() -> None:
    """RFC 8985 section 7.3."""
    with flying(4, total=6) as scene:
        scene.peer.wait(SECOND)
        assert scene.testbed.counted()["tail_probes_out"] == 1
        assert sent(scene)[0] in (5, 6)
        assert scene.testbed.counted().get("segments_retransmitted", 0) == 0
        scene.abort()


def test_a_probe_that_repairs_a_loss_is_told_to_the_control() -> None:
    """RFC 8985 section 7.4.2: nothing says that the original has arrived, so one segment was lost."""
    with flying(4) as scene:
        scene.peer.wait(SECOND)
        scene.peer.drain()
        before = scene.info()["ssthresh"]
        sack(scene, 5)
        scene.send(bytes(MSS))
        scene.peer.drain()
        sack(scene, 6)
        assert scene.testbed.counted()["tail_probe_repairs"] == 1
        assert scene.info()["ssthresh"] < before


def test_a_probe_that_repairs_a_loss_before_what_follows_it_is_told_to_the_control_as_well() -> None:
    """RFC 8985 section 7.4.2, case 3: what went after the probe is acknowledged with it, and nobody found a loss."""
    with flying(4) as scene:
        scene.peer.wait(SECOND)
        scene.send(bytes(MSS))
        scene.peer.drain()
        before = scene.info()["ssthresh"]
        scene.testbed.mark()
        sack(scene, 6)
        counted = scene.testbed.counted()
        assert counted["tail_probe_repairs"] == 1
        assert "fast_retransmits" not in counted
        assert scene.info()["ssthresh"] < before


def test_a_probe_whose_original_had_arrived_is_not() -> None:
    """Case 1: the duplicate SACK says so."""
    with flying(4) as scene:
        scene.peer.wait(SECOND)
        scene.peer.drain()
        sack(scene, 5)
        sack(scene, 5, (4, 5))
        scene.send(bytes(MSS))
        scene.peer.drain()
        sack(scene, 6)
        assert scene.testbed.counted().get("tail_probe_repairs", 0) == 0


def test_duplicate_sacks_undo_a_repair_that_was_none() -> None:
    """RFC 3708: everything that was sent again is reported twice; cwnd and ssthresh are as before."""
    with flying(12) as scene:
        before = scene.info()
        sack(scene, 1, (2, 5))
        assert sent(scene) == [1]
        sack(scene, 8)
        assert scene.info()["ssthresh"] < before["ssthresh"]
        sack(scene, 8, (1, 2))
        assert scene.testbed.counted()["repairs_undone"] == 1
        assert scene.info()["cwnd"] >= before["cwnd"]
        assert scene.info()["ssthresh"] == before["ssthresh"]
        scene.abort()


def test_a_spurious_timeout_is_found_by_timestamps() -> None:
    """Eifel detection (RFC 3522): the first ACK echoes a timestamp from before the retransmission."""
    with established(options=ALL_OPTIONS) as scene:
        segment = MSS - 12
        scene.send(bytes(10 * segment))
        first = scene.peer.drain()
        before = scene.info()
        scene.peer.wait(5 * SECOND)
        scene.peer.drain()
        scene.peer.wait(5 * SECOND)
        scene.peer.drain()
        assert scene.testbed.counted()["retransmit_timeouts"] == 1
        echo = first[0].options["timestamps"][0]
        scene.peer.send("A", ack=1 + segment, options={"nop": 2, "timestamps": (scene.peer.ts_now, echo)})
        assert scene.testbed.counted()["timeouts_undone"] == 1
        assert scene.info()["cwnd"] >= before["cwnd"]
        assert scene.testbed.counted()["segments_retransmitted"] <= 2
        scene.abort()


def test_a_timeout_after_one_that_was_none_is_the_first_of_its_window() -> None:
    """What was undone leaves its back-off until something is measured, but no excuse: the next timeout halves the
    flight (RFC 5681 equation 4), and duplicates in between prove no loss."""
    with established(options=ALL_OPTIONS) as scene:
        segment = MSS - 12
        scene.send(bytes(10 * segment))
        first = scene.peer.drain()
        before = scene.info()
        for _ in range(2):  # a tail loss probe, and the timeout
            scene.peer.wait(5 * SECOND)
            scene.peer.drain()
        echo = first[0].options["timestamps"][0]
        scene.peer.send("A", ack=1 + segment, options={"nop": 2, "timestamps": (scene.peer.ts_now, echo)})
        assert scene.testbed.counted()["timeouts_undone"] == 1
        assert scene.info()["ssthresh"] == before["ssthresh"]
        scene.peer.drain()
        sent_again = scene.testbed.counted()["segments_retransmitted"]
        scene.peer.send("A", ack=1 + segment, options={"nop": 2, "timestamps": (scene.peer.ts_now, echo)})
        assert scene.testbed.counted()["segments_retransmitted"] == sent_again
        for _ in range(4):
            scene.peer.wait(5 * SECOND)
            scene.peer.drain()
            if scene.testbed.counted()["retransmit_timeouts"] == 2:
                break
        assert scene.testbed.counted()["retransmit_timeouts"] == 2
        assert scene.info()["ssthresh"] <= 8 * segment
        scene.abort()


def test_a_spurious_timeout_is_found_by_f_rto() -> None:
    """RFC 5682 section 2.1, without timestamps and SACK: new data after the first ACK, and the second moves on."""
    with established() as scene:
        scene.send(bytes(20 * MSS))
        scene.peer.drain()
        before = scene.info()
        scene.peer.wait(5 * SECOND)
        assert sent(scene) == [0]
        scene.peer.send("A", ack=seq_of(1))
        assert sent(scene) == [10, 11]
        scene.peer.send("A", ack=seq_of(2))
        assert scene.testbed.counted()["timeouts_undone"] == 1
        assert scene.info()["ssthresh"] == before["ssthresh"]
        assert scene.testbed.counted()["segments_retransmitted"] == 1
        scene.abort()


def test_a_window_update_after_a_timeout_decides_nothing() -> None:
    """RFC 5682 section 2.1: what neither acknowledges new data nor is a duplicate is ignored by F-RTO."""
    with established() as scene:
        scene.send(bytes(20 * MSS))
        scene.peer.drain()
        scene.peer.wait(5 * SECOND)
        assert sent(scene) == [0]
        scene.peer.send("A", ack=1, wnd=60_000)
        assert sent(scene) == []
        scene.peer.send("A", ack=seq_of(1))
        assert sent(scene) == [10, 11]
        scene.peer.send("A", ack=seq_of(1), wnd=61_000)
        assert sent(scene) == []
        scene.peer.send("A", ack=seq_of(2))
        assert scene.testbed.counted()["timeouts_undone"] == 1
        scene.abort()


def test_a_receiver_that_drops_what_it_had_sacked_gets_it_again() -> None:
    """RFC 2018 section 8: nothing SACKed is forgotten before it is acknowledged."""
    with flying(8) as scene:
        sack(scene, 1, (3, 9))
        scene.peer.drain()
        sack(scene, 3)  # all that it has kept
        kept = {1, 2}
        for _ in range(40):
            scene.testbed.advance(SECOND)
            kept.update(sent(scene))
            sack(scene, next(index for index in range(1, 10) if index not in kept))
            if len(kept) == 8:
                break
        assert kept == set(range(1, 9))
        assert scene.testbed.counted()["sack_reneged_in"] == 1


@pytest.mark.parametrize("late", [3, 30, 300])
def test_reordering_is_taken_for_a_loss_once(late: int) -> None:
    """A segment comes after so many that were sent later. Three of them are a loss while no reordering has been seen
    (DupThresh). The duplicate SACK tells of the mistake: the window is as it was, and from now on a segment is waited
    for, a quarter of the shortest round trip and, after the duplicate, a second one (RFC 8985 section 6.2 step 4)."""
    wide = {**SACK, "nop": 1, "wscale": 7}
    count = late + 6
    with flying(count, options=wide, pacing=0) as scene:
        before = scene.info()
        for right in range(3, late + 3):
            sack(scene, 1, (2, right))
        assert sent(scene) == [1]
        sack(scene, late + 2)
        sack(scene, late + 2, (1, 2))
        after = scene.info()
        assert (after["cwnd"] >= before["cwnd"], after["ssthresh"]) == (True, before["ssthresh"])
        sack(scene, count + 1)
        for comes in (True, False):
            hole = (int(scene.info()["snd_nxt"]) - (scene.peer.iss or 0) & 0xFFFFFFFF) // MSS
            scene.send(bytes(count * MSS))
            assert sent(scene) == list(range(hole, hole + count))
            scene.testbed.advance(ROUND_TRIP)
            for right in range(hole + 2, hole + late + 2):
                sack(scene, hole, (hole + 1, right))
            if comes:
                scene.testbed.advance(ROUND_TRIP // 4)
                sack(scene, hole + count)
                scene.testbed.advance(SECOND)
                scene.peer.expect_nothing()
            else:
                took = scene.peer.wait(SECOND)
                assert abs(took - ROUND_TRIP // 2) <= MILLISECOND
                assert sent(scene) == [hole]
        assert scene.testbed.counted()["segments_retransmitted"] == 2
        scene.abort()


def test_life_after_a_blackout_ends_the_wait() -> None:
    """The timer has backed off to a minute; a segment of the peer's says that the path is back."""
    with established() as scene:
        scene.send(b"hello")
        for _ in range(7):
            scene.peer.wait(100 * SECOND)
            scene.peer.drain()
        scene.testbed.advance(5 * SECOND)
        scene.peer.expect_nothing()
        scene.peer.send("PA", payload=b"are you there?")
        assert b"hello" in [segment.payload for segment in scene.peer.drain()]
        for _ in range(5):
            scene.peer.send("PA", payload=b"and again")
        assert b"hello" not in [segment.payload for segment in scene.peer.drain()]
        scene.read()
        scene.abort()
