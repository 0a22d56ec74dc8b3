# SPDX-License-Identifier: MIT
"""Loss recovery and NewReno: RFC 5681, RFC 6582, RFC 6928, with the segments and the clock of a scripted peer."""

from typing import Any

import pytest

from ustack.tcp.cc.scripted import Ack, CongestionControl, Window, register
from ustack.testing.states import SYN_OPTIONS, Scene, established, syn_received, syn_sent
from ustack.testing.testbed import MILLISECOND, SECOND

MSS = 1460
WINDOW = 65535


def sent(scene: Scene) -> list[int]:
    """Relative sequence numbers of the data segments that have arrived, in their order; takes them."""
    return [scene.peer.relative(segment)[0] for segment in scene.peer.drain() if segment.payload]


def seq_of(index: int) -> int:
    """Relative sequence number of the index-th full segment, from 0."""
    return 1 + MSS * index


def started(segments: int, *, total: int = 200, **config: Any) -> Scene:
    """A long transfer whose first `segments` segments are in flight; none is acknowledged."""
    scene = established(initial_window_segments=segments, wnd=WINDOW, cc="newreno", **config)
    scene.send(bytes(total * MSS))
    assert sent(scene) == [seq_of(index) for index in range(segments)]
    return scene


# ---------------------------------------------------------------- the initial window


@pytest.mark.parametrize(("mss", "window"), [(1460, 14600), (536, 5360), (1000, 10000)])
def test_initial_window_is_ten_segments(mss: int, window: int) -> None:
    """RFC 6928: min(10*MSS, max(2*MSS, 14600))."""
    with established(options={"mss": mss}) as scene:
        scene.send(bytes(60_000))
        assert sum(len(segment.payload) for segment in scene.peer.drain()) == window
        scene.abort()


@pytest.mark.parametrize(("repeats", "segments"), [(1, 10), (2, 1), (3, 1)])
def test_initial_window_after_syn_acks_that_were_repeated(repeats: int, segments: int) -> None:
    """RFC 5681 section 3.1 has one segment; RFC 6928 section 2 ten, unless more than one was repeated."""
    with syn_received() as scene:
        for number in range(repeats):
            scene.peer.expect_after(SECOND << number, "SA")
        scene.peer.send("A")
        scene.accept()
        scene.send(bytes(60_000))
        assert sent(scene) == [seq_of(index) for index in range(segments)]
        scene.abort()


@pytest.mark.parametrize(("repeats", "segments"), [(1, 10), (2, 1)])
def test_initial_window_after_syns_that_were_repeated(repeats: int, segments: int) -> None:
    with syn_sent() as scene:
        for number in range(repeats):
            scene.peer.expect_after(SECOND << number, "S", seq=0)
        scene.peer.send("SA", options=SYN_OPTIONS)
        scene.peer.expect("A", seq=1, ack=1)
        scene.send(bytes(60_000))
        assert sent(scene) == [seq_of(index) for index in range(segments)]
        scene.abort()


# ---------------------------------------------------------------- growth


def test_slow_start_doubles_in_a_round_trip() -> None:
    """RFC 5681 (2): every ACK of a segment lets two go."""
    with started(10) as scene:
        for index in range(1, 11):
            scene.peer.send("A", ack=seq_of(index))
        assert len(sent(scene)) == 20
        scene.abort()


def test_slow_start_counts_no_more_than_what_was_acknowledged() -> None:
    """One ACK for ten segments: the window may double, as it would with ten ACKs, not more (RFC 3465)."""
    with started(10) as scene:
        scene.peer.send("A", ack=seq_of(10))
        assert len(sent(scene)) == 20
        scene.abort()


def test_slow_start_after_a_loss_counts_two_segments_an_ack_at_most() -> None:
    """One ACK after a timeout may cover what arrived long ago, so it counts for one segment until all that was
    outstanding is acknowledged, and for L = 2 from then on (RFC 3465 section 2.3; RFC 5681 section 3.1)."""
    with started(20) as scene:
        scene.peer.wait(5 * SECOND)
        scene.peer.drain()
        scene.peer.send("A", ack=seq_of(20))
        assert scene.info()["cwnd"] == (1 + 1) * MSS
        assert len(sent(scene)) == 2
        scene.peer.send("A", ack=seq_of(22))
        assert scene.info()["cwnd"] == (1 + 1 + 2) * MSS
        scene.abort()


def test_ack_division_gains_nothing() -> None:
    """RFC 5681 section 3.1: count bytes, not ACKs."""
    with started(10) as scene:
        before = scene.info()["cwnd"]
        for octets in range(1, MSS + 1, 146):
            scene.peer.send("A", ack=octets + 1)
        assert scene.info()["cwnd"] - before == octets
        scene.abort()


def test_congestion_window_does_not_grow_while_the_application_is_the_limit() -> None:
    """RFC 7661 and RFC 5681 section 4.1: a window that was not used says nothing about the path."""
    with established() as scene:
        before = scene.info()["cwnd"]
        for _ in range(100):
            scene.send(b"tiny")
            scene.peer.catch_up()
            scene.peer.send("A")
        assert scene.info()["cwnd"] == before


def test_congestion_avoidance_adds_one_segment_in_a_round_trip() -> None:
    """RFC 5681 (3), by appropriate byte counting (RFC 3465 section 2.1): exactly one segment."""
    with started(20) as scene:
        for _ in range(3):
            scene.peer.send("A", ack=1)
        scene.peer.drain()
        scene.peer.send("A", ack=seq_of(20))
        scene.peer.send("A", ack=snd_nxt(scene))
        info = scene.info()
        assert info["ssthresh"] == 10 * MSS
        acked = (snd_nxt(scene) - 1) // MSS
        # Slow start up to ssthresh, then one round trip in congestion avoidance.
        for _ in range(200):
            scene.peer.drain()
            if scene.info()["cwnd"] > info["ssthresh"] + MSS:
                break
            acked += 1
            scene.peer.send("A", ack=min(seq_of(acked), snd_nxt(scene)))
        before = scene.info()["cwnd"]
        round_trip = before // MSS
        for _ in range(round_trip):
            acked += 1
            scene.peer.send("A", ack=min(seq_of(acked), snd_nxt(scene)))
        assert scene.info()["cwnd"] - before == MSS
        scene.abort()


def snd_nxt(scene: Scene) -> int:
    """SND.NXT, relative."""
    assert scene.peer.iss is not None
    return int(scene.info()["snd_nxt"] - scene.peer.iss) & 0xFFFFFFFF


# ---------------------------------------------------------------- fast retransmit


def test_two_duplicate_acks_retransmit_nothing() -> None:
    with started(10, total=10) as scene:
        for _ in range(2):
            scene.peer.send("A", ack=1)
        assert sent(scene) == []
        assert scene.testbed.counted()["duplicate_acks_in"] == 2
        scene.abort()


def test_third_duplicate_ack_retransmits() -> None:
    """RFC 5681 section 3.2."""
    with started(10, total=10) as scene:
        for _ in range(3):
            scene.peer.send("A", ack=1)
        assert sent(scene) == [1]
        counted = scene.testbed.counted()
        assert counted["fast_retransmits"] == 1
        assert counted.get("retransmit_timeouts", 0) == 0
        scene.abort()


def test_third_duplicate_ack_halves_the_window() -> None:
    """(4): ssthresh = max(FlightSize/2, 2*SMSS). RFC 9937 section 6.2, where RFC 5681 has ssthresh plus three segments:
    16 are in flight (one is lost, three have arrived), and one is sent."""
    with started(20, total=20) as scene:
        for _ in range(3):
            scene.peer.send("A", ack=1)
        info = scene.info()
        assert info["ssthresh"] == 10 * MSS
        assert info["cwnd"] == (16 + 1) * MSS
        scene.abort()


def test_further_duplicates_let_one_segment_go_for_two_that_have_left() -> None:
    """RFC 9937: from twenty in flight to ssthresh, ten, in proportion to what is delivered."""
    with started(20) as scene:
        for _ in range(3):
            scene.peer.send("A", ack=1)
        scene.peer.drain()
        new = []
        for _ in range(12):
            scene.peer.send("A", ack=1)
            new.append(len(sent(scene)))
        assert 5 <= sum(new) <= 7
        assert max(new) == 1
        scene.abort()


def test_ssthresh_does_not_count_what_limited_transmit_has_sent() -> None:
    """RFC 5681 section 3.2 step 2: that data MUST NOT be included in the calculation."""
    with started(10) as scene:
        for _ in range(2):
            scene.peer.send("A", ack=1)
        assert sent(scene) == [seq_of(10), seq_of(11)]
        scene.peer.send("A", ack=1)
        assert scene.info()["ssthresh"] == 5 * MSS
        scene.abort()


def test_invented_duplicate_acks_do_not_inflate_without_bound() -> None:
    """No more segments can have left the network than were in it, and the window is never above ssthresh (5) but by
    what is in flight (RFC 9937 section 6.2). RFC 5681 section 3.2 step 4 allows to limit what duplicates do so.
    """
    with started(10, total=12) as scene:
        for _ in range(2000):
            scene.peer.send("A", ack=1)
        assert scene.info()["cwnd"] <= 6 * MSS
        scene.abort()


def test_more_duplicate_acks_let_new_data_go() -> None:
    """Each tells that a segment has left the network: two segments by limited transmit (RFC 3042), the lost one, then
    new data as RFC 9937 allows it: of the segments that leave, half are replaced until ssthresh (5) is reached."""
    with started(10) as scene:
        new = []
        for _ in range(12):
            scene.peer.send("A", ack=1)
            new += sent(scene)
        assert new[:3] == [seq_of(10), seq_of(11), 1]
        assert new[3:] == [seq_of(12 + index) for index in range(len(new) - 3)]
        assert 4 <= len(new) - 3 <= 6
        scene.abort()


@pytest.mark.parametrize("what", ["data", "window", "nothing_outstanding", "fin"])
def test_what_is_not_a_duplicate_ack(what: str) -> None:
    """RFC 5681 section 2: outstanding data, no data, no SYN or FIN, the same ACK and the same window."""
    if what == "nothing_outstanding":
        with established() as scene:
            for _ in range(10):
                scene.peer.send("A", ack=1)
            assert scene.testbed.counted().get("fast_retransmits", 0) == 0
        return
    with started(10, total=10) as scene:
        for index in range(6):
            if what == "data":
                scene.peer.send("A", ack=1, payload=b"x")
            elif what == "window":
                scene.peer.send("A", ack=1, wnd=30_000 + index * 2000)
            else:
                scene.peer.send("FA", ack=1, seq=1)
        assert scene.testbed.counted().get("fast_retransmits", 0) == 0
        assert 1 not in sent(scene)
        scene.abort()


# ---------------------------------------------------------------- NewReno (RFC 6582)


def recovering(segments: int = 20, **parameters: Any) -> Scene:
    """In fast recovery for the first segment."""
    scene = started(segments, **parameters)
    for _ in range(3):
        scene.peer.send("A", ack=1)
    assert 1 in sent(scene)
    return scene


def test_partial_ack_retransmits_the_next_hole_at_once() -> None:
    """Section 3.2, step 3."""
    with recovering(total=20) as scene:
        scene.peer.send("A", ack=seq_of(5))
        assert sent(scene)[0] == seq_of(5)
        scene.peer.send("A", ack=seq_of(9))
        assert sent(scene)[0] == seq_of(9)
        counted = scene.testbed.counted()
        assert counted["fast_retransmits"] == 1
        assert counted["segments_retransmitted"] == 3
        scene.abort()


def test_full_ack_ends_recovery_with_the_window_at_ssthresh() -> None:
    """Step 3, option 1: cwnd = min(ssthresh, max(FlightSize, SMSS) + SMSS), so that no burst follows.

    Option 2 is cwnd = ssthresh.
    """
    with recovering(total=20) as scene:
        scene.peer.send("A", ack=seq_of(20))
        info = scene.info()
        assert (info["cwnd"], info["ssthresh"]) == (2 * MSS, 10 * MSS)
        assert sent(scene) == []


def test_duplicate_acks_after_recovery_of_the_same_window_do_not_start_another() -> None:
    """Step 1: the ACK must cover more than `recover`, and this one covers exactly that.

    With one of the heuristics of section 4 a stack may begin a second fast retransmit here.
    """
    with recovering(total=20) as scene:
        scene.peer.send("A", ack=seq_of(20))
        scene.send(bytes(MSS))
        scene.peer.drain()
        for _ in range(4):
            scene.peer.send("A", ack=seq_of(20))
        counted = scene.testbed.counted()
        assert counted["duplicate_acks_in"] == 3 + 4
        assert counted["fast_retransmits"] == 1
        assert sent(scene) == []
        scene.abort()


def test_recovery_of_many_losses_needs_no_timeout() -> None:
    with recovering(20, total=20) as scene:
        for index in range(1, 20):
            scene.peer.send("A", ack=seq_of(index))
            assert seq_of(index) in sent(scene)
        scene.peer.send("A", ack=seq_of(20))
        assert scene.testbed.counted().get("retransmit_timeouts", 0) == 0
        assert scene.testbed.counted()["segments_retransmitted"] == 20


def test_lost_retransmission_is_repaired_by_the_timeout() -> None:
    with recovering(total=20) as scene:
        scene.peer.wait(5 * SECOND)
        assert sent(scene)[0] == 1
        assert scene.testbed.counted()["retransmit_timeouts"] == 1
        scene.abort()


# ---------------------------------------------------------------- timeout


def test_timeout_sends_one_segment() -> None:
    """RFC 5681 section 3.1: the loss window is one full segment, whatever the initial window was."""
    with started(10) as scene:
        scene.peer.wait(5 * SECOND)
        assert sent(scene) == [1]
        assert scene.info()["cwnd"] == MSS
        assert scene.info()["ssthresh"] == 5 * MSS
        scene.abort()


def test_duplicate_acks_after_a_timeout_let_nothing_go_beyond_the_loss_window() -> None:
    """RFC 5681 section 3.1: MUST be one segment. Limited transmit (RFC 3042) is for data that was never sent."""
    with started(10) as scene:
        scene.peer.wait(5 * SECOND)
        assert sent(scene) == [1]
        for _ in range(5):
            scene.peer.send("A", ack=1)
        assert sent(scene) == []
        scene.abort()


def test_timeout_again_leaves_ssthresh() -> None:
    """RFC 5681 section 3.1: a retransmission that is lost says nothing new."""
    with started(10) as scene:
        for _ in range(3):
            scene.peer.wait(50 * SECOND)
            assert sent(scene) == [1]
        assert scene.info()["ssthresh"] == 5 * MSS
        scene.abort()


def test_ssthresh_is_never_below_two_segments() -> None:
    with started(1) as scene:
        scene.peer.wait(5 * SECOND)
        assert scene.info()["ssthresh"] == 2 * MSS
        scene.abort()


def test_slow_start_after_a_timeout_resends_in_order() -> None:
    with started(10, total=10) as scene:
        scene.peer.wait(5 * SECOND)
        order = sent(scene)
        for acked in range(1, 11):
            scene.testbed.advance(10 * MILLISECOND)
            scene.peer.send("A", ack=seq_of(acked))
            order += sent(scene)
        assert order == sorted(order)
        assert order[0] == 1
        assert scene.testbed.stack.leaks()["send_pieces"] == 0


def test_ack_of_everything_after_a_timeout_resends_nothing_more() -> None:
    """The timeout was spurious or only the first segment was lost: what is acknowledged is not sent again."""
    with started(10, total=10) as scene:
        scene.peer.wait(5 * SECOND)
        assert sent(scene) == [1]
        scene.peer.send("A", ack=seq_of(10))
        scene.testbed.advance(100 * SECOND)
        assert sent(scene) == []


def test_ack_above_snd_nxt_after_a_timeout_is_acceptable() -> None:
    """The peer acknowledges what it had received before."""
    with started(10) as scene:
        scene.peer.wait(5 * SECOND)
        scene.peer.drain()
        scene.testbed.mark()
        scene.peer.send("A", ack=seq_of(7))
        assert scene.testbed.dropped() == {}
        # F-RTO, RFC 5682 section 2.1 step 2b: new data first. Its duplicate says that the timeout was right.
        assert sent(scene) == [seq_of(10), seq_of(11)]
        scene.peer.send("A", ack=seq_of(7))
        assert sent(scene)[0] == seq_of(7)
        scene.abort()


class Generous(CongestionControl):
    """Twenty segments, whatever is acknowledged."""

    name = "written"

    def on_ack(self, window: Window, ack: Ack) -> None:
        if ack.acked:
            window.cwnd = 20 * window.smss

    def on_timeout(self, window: Window, flight: int, first: bool) -> None:
        window.cwnd = window.smss


def test_a_timeout_that_was_right_leaves_three_segments_whatever_the_control_has_made_of_the_first_ack() -> None:
    """RFC 5682 section 2.1 step 3a: "set the congestion window to no more than 3 * MSS". Two of new data are out."""
    register(Generous)
    with established(initial_window_segments=10, wnd=WINDOW, cc="written") as scene:
        scene.send(bytes(200 * MSS))
        assert len(sent(scene)) == 10
        scene.peer.wait(5 * SECOND)
        assert sent(scene) == [seq_of(0)]
        scene.peer.send("A", ack=seq_of(7))
        assert sent(scene) == [seq_of(10), seq_of(11)]
        assert scene.info()["cwnd"] == 20 * MSS
        scene.peer.send("A", ack=seq_of(7))
        assert scene.info()["cwnd"] == 3 * MSS
        assert sent(scene) == [seq_of(7), seq_of(8)]  # the duplicate has counted one of the two that were out
        scene.abort()


def test_duplicate_acks_after_a_timeout_do_not_retransmit_twice() -> None:
    """RFC 6582 section 3.2, step 1 (`recover` after a timeout): no second fast retransmit of the same window."""
    with started(10, total=10) as scene:
        scene.peer.wait(5 * SECOND)
        scene.peer.drain()
        scene.testbed.mark()
        for _ in range(5):
            scene.peer.send("A", ack=1)
        assert scene.testbed.counted().get("fast_retransmits", 0) == 0
        scene.abort()


def test_pure_ack_after_a_timeout_has_the_highest_sequence_number() -> None:
    """RFC 9293's SND.NXT never moves back: a peer that has received everything accepts no ACK with an old SEQ."""
    with started(10, total=10) as scene:
        scene.peer.wait(5 * SECOND)
        assert sent(scene) == [1]
        scene.peer.send("A", ack=1, payload=b"x")
        scene.testbed.advance(400 * MILLISECOND)
        acks = [segment for segment in scene.peer.drain() if not segment.payload]
        assert [scene.peer.relative(segment)[0] for segment in acks] == [seq_of(10)]
        scene.read()
        scene.abort()


def test_reset_after_a_timeout_has_the_highest_sequence_number() -> None:
    with started(10, total=10) as scene:
        scene.peer.wait(5 * SECOND)
        scene.peer.drain()
        scene.abort()
        resets = [segment for segment in scene.peer.drain() if "R" in segment.flags]
        assert [scene.peer.relative(segment)[0] for segment in resets] == [seq_of(10)]


def test_idle_connection_restarts_from_the_initial_window() -> None:
    """RFC 5681 section 4.1 (SHOULD): after an idle RTO, cwnd is at most the restart window."""
    with started(10, total=40) as scene:
        for index in range(1, 41):
            scene.peer.send("A", ack=min(seq_of(index), snd_nxt(scene)))
        assert scene.testbed.stack.leaks()["send_pieces"] == 0
        assert scene.info()["cwnd"] > 10 * MSS
        scene.peer.drain()
        scene.peer.rcv_nxt = seq_of(40)
        scene.testbed.advance(60 * SECOND)
        scene.send(bytes(100 * MSS))
        assert len(sent(scene)) == 10
        scene.abort()


DAY = 24 * 3600 * SECOND


@pytest.mark.parametrize("days", [1, 6, 7, 10, 13, 14, 20, 27, 60])
@pytest.mark.parametrize("woken", ["by us", "by the peer"])
def test_idle_connection_restarts_from_the_initial_window_after_days(days: int, woken: str) -> None:
    """The tick counter of the timers wraps after 13 days: a longer silence must not look like a short one."""
    with started(10, total=40) as scene:
        for index in range(1, 41):
            scene.peer.send("A", ack=min(seq_of(index), snd_nxt(scene)))
        assert scene.info()["cwnd"] > 10 * MSS
        scene.peer.drain()
        scene.peer.rcv_nxt = seq_of(40)
        scene.testbed.advance(days * DAY)
        if woken == "by the peer":
            scene.peer.send("PA", payload=b"GET")
        scene.peer.drain()
        scene.send(bytes(100 * MSS))
        assert len(sent(scene)) == 10
        scene.abort()


def test_connection_that_only_receives_for_days_restarts_from_the_initial_window() -> None:
    """It was not idle, but it has sent no data, so its window says nothing about the path any more."""
    with started(10, total=40) as scene:
        for index in range(1, 41):
            scene.peer.send("A", ack=min(seq_of(index), snd_nxt(scene)))
        scene.peer.rcv_nxt = seq_of(40)
        for _ in range(80):
            scene.testbed.advance(DAY // 8)
            scene.peer.send("PA", payload=b"x")
        scene.read()
        scene.testbed.advance(SECOND)
        scene.peer.drain()
        scene.send(bytes(100 * MSS))
        assert len(sent(scene)) == 10
        scene.abort()


def test_window_update_in_recovery_sends_no_extra_retransmission() -> None:
    with recovering(total=20) as scene:
        before = scene.testbed.counted()["segments_retransmitted"]
        scene.peer.send("A", ack=1, wnd=WINDOW - 1)
        assert scene.testbed.counted()["segments_retransmitted"] == before
        scene.abort()
