# SPDX-License-Identifier: MIT
"""The path MTU of one connection: RFC 1191, and what RFC 5927 section 7 asks before a router is believed."""

import itertools
from typing import Any

import pytest

from ustack.testing.states import ALL_OPTIONS, Scene, established, syn_sent
from ustack.testing.testbed import MILLISECOND, SECOND

MSS = 1460
EXPIRES = 600 * SECOND


def flying(segments: int = 3, **parameters: Any) -> Scene:
    """`segments` full segments in flight, none has ever been acknowledged."""
    scene = established(**parameters)
    scene.send(bytes(MSS * segments))
    assert sizes(scene) == [MSS] * segments
    return scene


def proven(segments: int = 3) -> Scene:
    """As flying, but a full segment was acknowledged before."""
    scene = established()
    scene.send(bytes(MSS))
    scene.peer.catch_up()
    scene.peer.send("A")
    scene.send(bytes(MSS * segments))
    assert sizes(scene) == [MSS] * segments
    return scene


def sizes(scene: Scene) -> list[int]:
    """Payloads of the segments that have arrived; takes them."""
    return [len(segment.payload) for segment in scene.peer.drain()]


def claim(scene: Scene, mtu: int, seq: int = 1, octets: int = MSS) -> None:
    """A router says that the datagram at seq was too big."""
    scene.peer.send_icmp_error(3, 4, scene.peer.from_stack(seq=seq, payload=bytes(octets)), mtu=mtu)


def finish(scene: Scene) -> None:
    """Acknowledge until everything that was sent has arrived."""
    while scene.info()["snd_queued_bytes"]:
        if not scene.peer.queue:
            scene.peer.wait(100 * SECOND)
        scene.peer.catch_up()
        scene.peer.send("A")


# ---------------------------------------------------------------- what is sent again, and when


@pytest.mark.parametrize("seq", [1, 1 + MSS, 1 + 2 * MSS, 700])
def test_a_claim_about_any_byte_in_flight_is_acted_on_at_once(seq: int) -> None:
    """RFC 1191 section 6.4: without waiting for the retransmission timer."""
    with flying() as scene:
        claim(scene, 1000, seq)
        assert scene.info()["smss"] == 960
        again = scene.peer.drain()
        assert max(len(segment.payload) for segment in again) == 960
        assert scene.peer.relative(again[0])[0] == 1  # the frame that was too big, whole
        scene.peer.rcv_nxt = 1
        scene.abort()


def test_what_was_sent_in_smaller_segments_before_is_not_sent_again() -> None:
    with established() as scene:
        scene.conn.nodelay = True
        for octets in (200, MSS, MSS):
            scene.send(bytes(octets))
        assert sizes(scene) == [200, MSS, MSS]
        claim(scene, 1400, 201)
        first = scene.peer.queue[0]
        assert scene.peer.relative(first)[0] == 201
        assert sum(sizes(scene)) == 2 * MSS
        scene.abort()


def test_ten_complaints_about_one_flight_send_it_again_once() -> None:
    """RFC 1191 section 6.4: one MUST NOT retransmit in response to every message."""
    with flying(10) as scene:
        for index in range(10):
            claim(scene, 1000, 1 + MSS * index)
        assert sum(sizes(scene)) == 10 * 960  # the window, in segments
        assert scene.testbed.counted()["path_mtu_reduced"] == 1
        assert scene.testbed.dropped() == {"drop_icmp_path_mtu": 9}
        scene.abort()


def test_it_is_no_sign_of_congestion() -> None:
    """Ten segments stay ten, ssthresh stays, and duplicates of what had arrived start no fast recovery."""
    with flying(10) as scene:
        before = scene.info()
        claim(scene, 1000)
        after = scene.info()
        assert (before["cwnd"], after["cwnd"]) == (10 * MSS, 10 * 960)
        assert after["ssthresh"] == before["ssthresh"]
        for _ in range(5):
            scene.peer.send("A", ack=1)
        assert scene.info()["cwnd"] == 10 * 960
        counted = scene.testbed.counted()
        assert counted.get("fast_retransmits", 0) == 0
        assert counted.get("retransmit_timeouts", 0) == 0
        scene.abort()


def test_it_ends_a_fast_recovery_without_its_inflation() -> None:
    with flying(20, initial_window_segments=20) as scene:
        for _ in range(12):
            scene.peer.send("A", ack=1)
        scene.peer.drain()
        ssthresh = scene.info()["ssthresh"]
        claim(scene, 1000)
        assert scene.info()["ssthresh"] == ssthresh
        assert scene.info()["cwnd"] == ssthresh * 960 // MSS
        scene.abort()


def test_everything_arrives_over_the_smaller_path() -> None:
    with flying(10) as scene:
        claim(scene, 1000)
        finish(scene)
        assert scene.peer.rcv_nxt == 1 + 10 * MSS
        assert scene.testbed.counted().get("retransmit_timeouts", 0) == 0


def test_two_narrow_links_one_after_the_other() -> None:
    with flying() as scene:
        claim(scene, 1400)
        assert set(sizes(scene)) == {1360, MSS * 3 - 3 * 1360}
        claim(scene, 1200, octets=1360)
        assert scene.info()["smss"] == 1160
        assert max(sizes(scene)) == 1160
        scene.abort()


def test_timestamps_are_taken_off() -> None:
    with established(options=ALL_OPTIONS) as scene:
        scene.send(bytes(3000))
        scene.peer.drain()
        claim(scene, 1000)
        assert scene.info()["smss"] == 948
        scene.abort()


# ---------------------------------------------------------------- what a claim cannot do


@pytest.mark.parametrize("mtu", [68, 100, 296, 551])
def test_below_the_floor_segments_keep_their_size_and_routers_may_fragment(mtu: int) -> None:
    """They stay at 512 bytes and go without DF, with which they would never arrive.

    Smaller ones (down to 28 bytes) are what somebody wants who forges such messages.
    """
    with flying() as scene:
        claim(scene, mtu)
        assert scene.info()["smss"] == 512
        again = scene.peer.drain()
        assert {len(segment.payload) for segment in again} == {512, MSS * 3 % 512}
        assert not any(segment.dont_fragment for segment in again)
        numbers = [segment.identification for segment in again]
        assert len(set(numbers)) == len(numbers)
        scene.abort()


def test_at_the_floor_df_stays() -> None:
    with flying() as scene:
        claim(scene, 552)
        again = scene.peer.drain()
        assert scene.info()["smss"] == 512
        assert all(segment.dont_fragment and segment.identification == 0 for segment in again)
        scene.abort()


def test_a_peer_with_small_segments_on_a_narrower_path() -> None:
    """The size is small already: only DF goes, and what was lost is sent again."""
    with established(options={"mss": 400}) as scene:
        scene.send(bytes(1200))
        assert sizes(scene) == [400] * 3
        claim(scene, 296, octets=400)
        again = scene.peer.drain()
        assert [(len(segment.payload), segment.dont_fragment) for segment in again] == [(400, False)] * 3
        claim(scene, 296, octets=400)
        scene.peer.expect_nothing()
        scene.abort()


def test_identifications_without_df_do_not_come_again_and_cannot_be_foreseen() -> None:
    with flying(snd_queue_bytes=1 << 26) as scene:
        claim(scene, 100)
        scene.send(bytes(3 << 20))
        numbers = []
        while scene.info()["snd_queued_bytes"]:
            numbers += [segment.identification for segment in scene.peer.queue if segment.payload]
            scene.peer.catch_up()
            scene.peer.send("A")
        assert len(numbers) > 6000
        assert len(set(numbers)) == len(numbers)
        steps = {(b - a) & 0xFFFF for a, b in itertools.pairwise(numbers)}
        assert len(steps) > len(numbers) // 2


def test_an_old_router_gives_no_mtu() -> None:
    """RFC 1191 section 5: the next plateau below the length of the quoted datagram. So ten complaints are one step."""
    with flying(10) as scene:
        for index in range(10):
            claim(scene, 0, 1 + MSS * index)
        assert scene.info()["smss"] == 1492 - 40
        scene.peer.drain()
        claim(scene, 0, octets=1452)
        assert scene.info()["smss"] == 1006 - 40
        scene.abort()


@pytest.mark.parametrize("mtu", [1500, 1501, 9000, 65535])
def test_what_is_not_smaller_is_refused(mtu: int) -> None:
    with flying() as scene:
        claim(scene, mtu)
        assert scene.testbed.dropped() == {"drop_icmp_path_mtu": 1}
        scene.peer.expect_nothing()
        assert scene.testbed.stack.leaks()["extras"] == 0
        scene.abort()


def test_claims_of_ever_less_send_the_window_again_a_few_times_only() -> None:
    """Else each ICMP message of 56 bytes would have a window of data sent again, without an ACK in between."""
    with flying(10) as scene:
        total = 0
        for mtu in range(1499, 1399, -1):
            claim(scene, mtu)
            total += len(sizes(scene))
        assert total == 4 * 10  # four times the window, in segments
        counted = scene.testbed.counted()
        assert (counted["path_mtu_reduced"], counted["path_mtu_deferred"]) == (4, 96)
        scene.peer.wait(5 * SECOND)  # the last claim counts now
        assert scene.info()["smss"] == 1400 - 40
        scene.abort()


def test_a_syn_is_never_too_big() -> None:
    with syn_sent() as scene:
        scene.peer.send_icmp_error(3, 4, scene.peer.from_stack("S", seq=0), mtu=68)
        assert scene.state == "SYN-SENT"
        assert scene.testbed.dropped() == {"drop_icmp_path_mtu": 1}


# ---------------------------------------------------------------- progress is proof (RFC 5927 section 7.2)


def test_after_a_full_segment_was_acknowledged_a_claim_waits_and_progress_refutes_it() -> None:
    with proven() as scene:
        claim(scene, 600, 1 + MSS)
        scene.peer.expect_nothing()
        assert scene.info()["smss"] == MSS
        assert scene.testbed.counted()["path_mtu_deferred"] == 1
        assert scene.testbed.stack.leaks()["extras"] == 1
        scene.peer.send("A", ack=1 + 4 * MSS)
        assert scene.testbed.stack.leaks()["extras"] == 0
        scene.send(bytes(MSS))
        scene.peer.drain()
        scene.peer.wait(5 * SECOND)  # a loss later on has nothing to do with it
        assert scene.info()["smss"] == MSS
        scene.abort()


def test_after_a_full_segment_was_acknowledged_a_claim_counts_at_the_retransmission_timeout() -> None:
    """The path has changed: one timeout, then it is believed."""
    with proven() as scene:
        claim(scene, 1000, 1 + MSS)
        scene.peer.expect_nothing()
        scene.peer.wait(5 * SECOND)
        scene.peer.expect("A", seq=1 + MSS, payload=lambda payload: len(payload) == 960)
        assert scene.testbed.counted()["path_mtu_reduced"] == 1
        scene.peer.send("A")
        finish(scene)


def test_only_a_claim_about_what_is_still_missing_counts_at_the_timeout() -> None:
    with proven() as scene:
        claim(scene, 1000, 1 + MSS)
        scene.peer.send("A", ack=1 + 2 * MSS)
        scene.peer.wait(5 * SECOND)
        assert scene.info()["smss"] == MSS
        scene.abort()


def test_small_segments_prove_nothing() -> None:
    with established() as scene:
        scene.conn.nodelay = True
        for _ in range(5):
            scene.send(bytes(100))
            scene.peer.catch_up()
            scene.peer.send("A")
        scene.send(bytes(MSS))
        scene.peer.drain()
        claim(scene, 1000, 501)
        assert scene.info()["smss"] == 960
        scene.abort()


def test_a_segment_sent_again_proves_nothing() -> None:
    """Its ACK may be for smaller pieces of it. Only a segment that was sent once proves that its size fits."""
    with flying(1) as scene:
        scene.peer.wait(5 * SECOND)
        scene.peer.drain()
        scene.peer.send("A", ack=1 + MSS)
        scene.send(bytes(MSS))
        scene.peer.drain()
        claim(scene, 1000, 1 + MSS)
        assert scene.info()["smss"] == 960
        scene.abort()


# ---------------------------------------------------------------- forgetting (RFC 1191 section 6.3)


@pytest.mark.parametrize("mtu", [1000, 68])
def test_after_ten_minutes_segments_are_as_before(mtu: int) -> None:
    with flying() as scene:
        claim(scene, mtu)
        finish(scene)
        scene.testbed.advance(EXPIRES - 100 * MILLISECOND)
        scene.send(bytes(MSS))
        assert max(sizes(scene)) < MSS
        scene.peer.rcv_nxt += MSS
        scene.peer.send("A")
        scene.testbed.advance(SECOND)
        scene.send(bytes(MSS))
        segment = scene.peer.queue[0]
        assert (len(segment.payload), segment.dont_fragment) == (MSS, True)
        assert scene.testbed.counted()["path_mtu_raised"] == 1
        assert scene.is_plain()
        claim(scene, 1000, 1 + 4 * MSS)  # still too big: believed at once
        assert scene.info()["smss"] == 960
        scene.abort()


def test_the_time_counts_from_the_last_reduction_and_can_be_set() -> None:
    """After 350 s the size is back: what is sent next is measured by it, here a retransmission.

    RFC 1191 section 6.3 leaves open when, after the time, the sender tries the larger size. Nobody answers for the last
    150 s, which RFC 4821 section 7.7 would take for a black hole.
    """
    with flying(path_mtu_expires_ns=300 * SECOND, mtu_probing=0) as scene:
        claim(scene, 1200)
        finish(scene)
        scene.testbed.advance(200 * SECOND)
        scene.send(bytes(1160))
        claim(scene, 1000, 1 + 3 * MSS, octets=1160)
        scene.peer.wait(5 * SECOND)
        finish(scene)
        assert scene.info()["smss"] == 960
        scene.testbed.advance(200 * SECOND)
        scene.send(bytes(2000))
        assert max(sizes(scene)) == 960
        scene.testbed.advance(150 * SECOND)
        assert scene.info()["smss"] == MSS
        assert sizes(scene)[-1] == MSS
        assert scene.testbed.counted()["path_mtu_raised"] == 1
        scene.abort()


def test_a_raise_does_not_make_the_window_larger() -> None:
    with flying(10) as scene:
        claim(scene, 1000)
        finish(scene)
        before = scene.info()["cwnd"]
        scene.testbed.advance(EXPIRES + SECOND)
        scene.send(bytes(100))
        assert scene.info()["smss"] == MSS
        # Not what it was in segments, but the restart window, as after any idle time (RFC 5681 section 4.1).
        assert scene.info()["cwnd"] == 10 * MSS < before
        scene.abort()


def test_the_record_goes_with_the_connection() -> None:
    with flying() as scene:
        claim(scene, 1000)
        assert scene.testbed.stack.leaks()["extras"] == 1
        scene.peer.send("R")
        assert scene.state == "CLOSED"
        assert scene.testbed.stack.leaks()["extras"] == 0


def test_without_memory_for_a_path_a_claim_changes_nothing() -> None:
    with flying(extra_records=0) as scene:
        claim(scene, 1000)
        assert scene.info()["smss"] == MSS
        assert scene.testbed.counted().get("path_mtu_reduced", 0) == 0
        scene.peer.expect_nothing()
        scene.abort()
