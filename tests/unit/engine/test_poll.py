# SPDX-License-Identifier: MIT
"""The map: what one poll does in which order, and which upcalls an application gets."""

import gc
from collections.abc import Callable

import pytest

from ustack.application import Application
from ustack.blocking.stack import Stack
from ustack.link.sim import SimNetwork
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

MSS = 1000
PEER_PORT = 40000


def handshake(bed: Testbed, port: int = PEER_PORT) -> ScriptedPeer:
    peer = ScriptedPeer(bed, port=port)
    peer.send("S", options={"mss": MSS})
    peer.expect("SA")
    peer.send("A")
    return peer


def end(bed: Testbed, recorder: Recorder) -> None:
    """Reset what is left, so that a test's own last line may be its assertion."""
    recorder.on("closed")
    for port in recorder.ports:
        recorder.act(port, "abort")
    bed.pump()


# ---------------------------------------------------------------- the order of one poll


def test_every_frame_of_a_burst_is_taken_before_anything_is_sent(bed: Testbed, recorder: Recorder) -> None:
    """MUST-58, MUST-59: ten segments in one burst are acknowledged once, and the ACK covers them all."""
    peer = handshake(bed)
    for _ in range(10):
        peer.send("A", payload=b"x" * MSS, pump=False)
    bed.pump()
    peer.expect("A", ack=1 + 10 * MSS)
    peer.expect_nothing()


def test_the_answer_and_the_acknowledgment_of_a_burst_are_one_frame(bed: Testbed, recorder: Recorder) -> None:
    recorder.on("data", ("send", b"response"))
    peer = handshake(bed)
    peer.send("PA", payload=b"request")
    peer.expect("A", ack=8, payload=b"response")
    peer.expect_nothing()


def test_requests_of_many_peers_in_one_burst_are_all_heard_before_the_first_answer(
    bed: Testbed, recorder: Recorder
) -> None:
    peers = [handshake(bed, 1000 + i) for i in range(20)]
    recorder.on("data", ("send", b"response"))
    heard: list[int] = []
    bed.network.filter_ab = lambda frame, index: heard.append(recorder.names().count("data"))
    for peer in peers:
        peer.send("PA", payload=b"request", pump=False)
    bed.pump()
    assert heard == [20] * 20


@pytest.mark.parametrize(("frames", "polls"), [(64, [64, 0]), (65, [64, 1, 0]), (200, [64, 64, 64, 8, 0])])
def test_a_poll_takes_at_most_64_frames(bed: Testbed, recorder: Recorder, frames: int, polls: list[int]) -> None:
    peer = handshake(bed)
    for _ in range(frames):
        peer.send("A", payload=b"x", pump=False)
    bed.network.advance(bed.now_ns)
    assert [bed.stack.poll(bed.now_ns) for _ in polls] == polls


def test_each_burst_is_acknowledged_when_it_is_over(bed: Testbed, recorder: Recorder) -> None:
    """The stack does not wait for more than it has been given: one ACK for each burst of 64 frames."""
    peer = handshake(bed)
    for _ in range(128):
        peer.send("A", payload=b"x" * MSS, pump=False)
    bed.pump()
    assert [(segment.ack - peer.isn) % (1 << 32) for segment in peer.drain()] == [1 + 64 * MSS, 1 + 128 * MSS]


def test_all_octets_arrive_in_order_over_bursts(bed: Testbed, recorder: Recorder) -> None:
    peer = handshake(bed)
    for number in range(200):
        peer.send("A", payload=number.to_bytes(2, "big"), pump=False)
    bed.pump()
    assert recorder.received[PEER_PORT] == b"".join(number.to_bytes(2, "big") for number in range(200))


def test_a_poll_with_nothing_to_do_sends_nothing(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed)
    bed.mark()
    assert bed.stack.poll(bed.now_ns) == 0
    assert bed.counted() == {}


# ---------------------------------------------------------------- upcalls and their order


def test_a_whole_life_in_upcalls(bed: Testbed, recorder: Recorder) -> None:
    recorder.on("eof", "close")
    peer = handshake(bed)
    assert recorder.names() == ["accept"]
    peer.send("PA", payload=b"hello")
    peer.send("FA")
    peer.expect("FA", ack=7)
    assert recorder.names() == ["accept", "data", "eof"]
    peer.send("A")
    assert recorder.log[-2] == ("closed", PEER_PORT, "normal")
    assert recorder.received[PEER_PORT] == b"hello"


def test_handshake_data_and_fin_in_one_burst_are_told_in_order(bed: Testbed, recorder: Recorder) -> None:
    recorder.on("eof", "close")
    peer = ScriptedPeer(bed, port=PEER_PORT)
    peer.send("S", options={"mss": MSS})
    peer.expect("SA")
    peer.send("A", pump=False)
    peer.send("PA", payload=b"hello", pump=False)
    peer.send("FA", pump=False)
    bed.pump()
    peer.expect("FA", ack=7)
    assert recorder.names() == ["accept", "data", "eof"]
    peer.send("A")


def test_data_on_the_last_segment_of_the_handshake_follows_accept(bed: Testbed, recorder: Recorder) -> None:
    peer = ScriptedPeer(bed, port=PEER_PORT)
    peer.send("S", options={"mss": MSS})
    peer.expect("SA")
    peer.send("PA", payload=b"hello")
    assert recorder.names() == ["accept", "data"]


def test_eof_waits_until_all_data_is_used(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 2
    peer = handshake(bed)
    peer.send("PA", payload=b"hello", pump=False)
    peer.send("FA", pump=False)
    bed.pump()
    assert recorder.names() == ["accept", "data"]
    recorder.consume = None
    recorder.act(PEER_PORT, "resume")
    bed.pump()
    assert recorder.names() == ["accept", "data", "data", "eof"]
    assert recorder.received[PEER_PORT] == b"hello"


def test_eof_follows_a_timeout_that_read_the_rest(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 0
    recorder.on("timeout", (lambda port: recorder.read(port, 100), None))
    peer = handshake(bed)
    peer.send("FPA", payload=b"hello")
    recorder.act(PEER_PORT, ("timeout", MILLISECOND))
    bed.advance(SECOND)
    assert recorder.names() == ["accept", "data", "timeout", "eof"]


def test_eof_is_told_once(bed: Testbed, recorder: Recorder) -> None:
    peer = handshake(bed)
    peer.send("FA")
    peer.send("FA", seq=peer.snd_nxt - 1)
    bed.advance(SECOND)
    assert recorder.names().count("eof") == 1


def test_a_reset_is_told_with_its_reason(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed).send("R")
    assert recorder.names() == ["accept", "closed"]
    assert recorder.log[-2] == ("closed", PEER_PORT, "reset")


def test_a_handshake_that_is_never_completed_is_not_told(bed: Testbed, recorder: Recorder) -> None:
    peer = ScriptedPeer(bed, port=PEER_PORT)
    peer.send("S")
    peer.expect("SA")
    peer.send("R")
    assert recorder.log == []
    assert bed.stack.established == 0


def test_what_is_still_open_at_the_end_is_told_aborted(recorder: Recorder, bed: Testbed) -> None:
    peer = handshake(bed)
    bed.stack.close()
    assert recorder.log[-2] == ("closed", PEER_PORT, "aborted")
    bed.network.advance(bed.now_ns)
    assert bed.collect()
    peer.expect("RA")


def test_established_counts_the_connections_that_applications_own(bed: Testbed, recorder: Recorder) -> None:
    peers = [handshake(bed, 1000 + i) for i in range(3)]
    assert bed.stack.established == 3
    peers[0].send("R")
    assert bed.stack.established == 2


# ---------------------------------------------------------------- bursts


def test_upcalls_of_a_poll_lie_between_one_begin_and_one_end(bed: Testbed, recorder: Recorder) -> None:
    peers = [handshake(bed, 1000 + i) for i in range(3)]
    recorder.clear()
    for peer in peers:
        peer.send("PA", payload=b"x", pump=False)
    bed.pump()
    assert [entry[0] for entry in recorder.log] == ["burst_begin", "data", "data", "data", "burst_end"]


def test_bursts_carry_the_time_of_their_poll(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed)
    assert recorder.log[0] == ("burst_begin", bed.now_ns)
    assert recorder.log[-1] == ("burst_end", bed.now_ns)


def test_a_poll_without_upcalls_begins_no_burst(bed: Testbed, recorder: Recorder) -> None:
    peer = handshake(bed)
    recorder.clear()
    peer.send("A")
    assert recorder.log == []


def test_each_application_has_bursts_of_its_own(bed: Testbed, recorder: Recorder) -> None:
    other = Recorder()
    bed.stack.listen(81, application=other)
    handshake(bed)
    assert other.log == []


def test_begin_and_end_alternate_over_a_whole_life(bed: Testbed, recorder: Recorder) -> None:
    recorder.on("data", ("send", b"y" * 5000), "want_writable")
    recorder.on("eof", "close")
    peer = handshake(bed)
    peer.send("PA", payload=b"x")
    peer.catch_up()
    peer.send("FA")
    peer.catch_up()
    peer.send("A")
    bed.advance(SECOND)
    bursts = [entry[0] for entry in recorder.log if entry[0].startswith("burst")]
    assert bursts == ["burst_begin", "burst_end"] * (len(bursts) // 2)
    assert recorder.names()[-1] == "closed"


# ---------------------------------------------------------------- data left behind


def test_what_is_not_used_is_kept_and_offered_again(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 0
    peer = handshake(bed)
    peer.send("PA", payload=b"hello")
    assert recorder.receivable(PEER_PORT) == 5
    recorder.consume = None
    recorder.act(PEER_PORT, "resume")
    bed.pump()
    assert recorder.received[PEER_PORT] == b"hello"
    assert recorder.receivable(PEER_PORT) == 0


def test_more_data_joins_what_was_left(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 3
    peer = handshake(bed)
    peer.send("PA", payload=b"hello")
    recorder.consume = None
    peer.send("PA", payload=b" world")
    recorder.act(PEER_PORT, "resume")
    bed.pump()
    assert recorder.received[PEER_PORT] == b"hello world"


def test_one_octet_at_a_time_is_slow_but_whole(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 1
    peer = handshake(bed)
    peer.send("PA", payload=bytes(range(100)))
    for _ in range(100):
        if recorder.receivable(PEER_PORT):
            recorder.act(PEER_PORT, "resume")
            bed.pump()
    assert recorder.received[PEER_PORT] == bytes(range(100))


def test_resume_inside_on_data_without_using_anything_does_not_hold_up_others(bed: Testbed, recorder: Recorder) -> None:
    greedy, other = handshake(bed, 1000), handshake(bed, 1001)
    recorder.consume = 0
    recorder.on("data", lambda port: recorder.act(port, "resume") if port == 1000 else None)
    greedy.send("PA", payload=b"x", pump=False)
    bed.network.advance(bed.now_ns)
    bed.stack.poll(bed.now_ns)
    recorder.act(1000, "resume")
    other.send("PA", payload=b"y", pump=False)
    bed.network.advance(bed.now_ns)
    bed.stack.poll(bed.now_ns)
    assert recorder.names(1001) == ["accept", "data"]
    end(bed, recorder)


def test_resume_with_nothing_left_is_no_upcall(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed)
    recorder.act(PEER_PORT, "resume")
    bed.pump()
    assert recorder.names() == ["accept"]


def test_data_read_between_two_polls_is_not_offered_again(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 0
    peer = handshake(bed)
    peer.send("PA", payload=b"hello")
    assert recorder.read(PEER_PORT, 100) == b"hello"
    recorder.clear()
    recorder.act(PEER_PORT, "resume")
    bed.pump()
    assert recorder.names() == []


def test_an_application_that_uses_nothing_closes_the_window(recorder: Recorder) -> None:
    with Testbed(rcv_buffer_bytes=4096) as bed:
        bed.introduce()
        slow = Recorder()
        slow.consume = 0
        bed.stack.listen(80, application=slow)
        peer = handshake(bed)
        for _ in range(8):
            peer.send("A", payload=b"x" * 512)
        assert peer.drain()[-1].wnd == 0
        assert slow.receivable(PEER_PORT) == 4096
        slow.consume = None
        slow.act(PEER_PORT, "resume")
        bed.pump()
        assert peer.drain()[-1].wnd > 0
        assert slow.errors == []


# ---------------------------------------------------------------- refusing, closing and aborting inside upcalls


def test_a_refused_connection_is_reset_and_not_told(bed: Testbed, recorder: Recorder) -> None:
    recorder.on("accept", "refuse")
    peer = handshake(bed)
    peer.expect("RA")
    assert recorder.names() == ["accept"]
    assert bed.stack.established == 0


def test_data_for_a_refused_connection_goes_nowhere(bed: Testbed, recorder: Recorder) -> None:
    recorder.on("accept", "refuse")
    peer = ScriptedPeer(bed, port=PEER_PORT)
    peer.send("S")
    peer.expect("SA")
    peer.send("A", pump=False)
    peer.send("PA", payload=b"hello", pump=False)
    peer.send("FA", pump=False)
    bed.pump()
    assert recorder.names() == ["accept"]


EVENTS = ["accept", "data", "writable", "eof", "timeout"]


def reach(bed: Testbed, recorder: Recorder, event: str) -> ScriptedPeer:
    """Make the event happen."""
    peer = handshake(bed)
    if event == "data":
        peer.send("PA", payload=b"hello")
    elif event == "writable":
        recorder.act(PEER_PORT, "want_writable")
        bed.pump()
    elif event == "eof":
        peer.send("FA")
    elif event == "timeout":
        recorder.act(PEER_PORT, ("timeout", 5 * MILLISECOND))
        bed.advance(10 * MILLISECOND)
    return peer


@pytest.mark.parametrize("event", EVENTS)
def test_abort_inside_an_upcall(bed: Testbed, recorder: Recorder, event: str) -> None:
    recorder.on(event, "abort")
    peer = reach(bed, recorder, event)
    assert peer.drain()[-1].flags == "RA"
    assert recorder.names()[-2:] == [event, "closed"]
    assert recorder.log[-2] == ("closed", PEER_PORT, "aborted")


@pytest.mark.parametrize("event", EVENTS)
def test_close_inside_an_upcall(bed: Testbed, recorder: Recorder, event: str) -> None:
    recorder.on(event, "close")
    peer = reach(bed, recorder, event)
    peer.catch_up()
    assert recorder.names()[-1] == event
    if event == "eof":
        peer.send("A")
    else:
        peer.send("FA")
    bed.advance(SECOND)
    assert recorder.log[-2] == ("closed", PEER_PORT, "normal")
    assert recorder.names().count("closed") == 1


@pytest.mark.parametrize("event", EVENTS)
def test_close_and_abort_and_close_again_inside_an_upcall(bed: Testbed, recorder: Recorder, event: str) -> None:
    recorder.on(event, "close", "abort", "close", "shutdown", "abort", "resume", "want_writable", ("timeout", 1))
    reach(bed, recorder, event)
    bed.advance(SECOND)
    assert recorder.names().count("closed") == 1
    assert recorder.log[-2] == ("closed", PEER_PORT, "aborted")


@pytest.mark.parametrize("event", EVENTS)
def test_send_inside_an_upcall(bed: Testbed, recorder: Recorder, event: str) -> None:
    recorder.on(event, ("send", b"answer"))
    peer = reach(bed, recorder, event)
    assert peer.catch_up() == b"answer"


@pytest.mark.parametrize("event", EVENTS)
def test_send_then_close_inside_an_upcall_delivers_before_the_fin(bed: Testbed, recorder: Recorder, event: str) -> None:
    recorder.on(event, ("send", b"answer"), "close")
    peer = reach(bed, recorder, event)
    segment = peer.drain()[-1]
    assert (segment.payload, "F" in segment.flags) == (b"answer", True)


@pytest.mark.parametrize("event", EVENTS)
def test_shutdown_inside_an_upcall_leaves_the_way_in_open(bed: Testbed, recorder: Recorder, event: str) -> None:
    recorder.on(event, "shutdown")
    peer = reach(bed, recorder, event)
    peer.catch_up()
    recorder.on(event)
    if event == "eof":
        peer.send("A")
    else:
        peer.send("PA", payload=b"more")
        assert recorder.received[PEER_PORT].endswith(b"more")
        peer.send("FA")
    assert recorder.log[-2] == ("closed", PEER_PORT, "normal")


@pytest.mark.parametrize("action", ["close", "abort", "shutdown", "resume", "want_writable", ("timeout", 1)])
def test_nothing_that_is_asked_for_in_the_last_upcall_happens(
    bed: Testbed, recorder: Recorder, action: str | tuple[str, int]
) -> None:
    recorder.on("closed", action)
    handshake(bed).send("R")
    bed.advance(SECOND)
    assert recorder.names() == ["accept", "closed"]


def test_a_congestion_control_that_there_is_not_is_refused(bed: Testbed, recorder: Recorder) -> None:
    """OPTION_CC by number (6 in conn_option_t), and in the last upcall any."""
    answers: list[int] = []
    recorder.on("closed", lambda port: answers.append(recorder.act(port, ("option", (6, 0)))))
    peer = handshake(bed)
    before = recorder.option(PEER_PORT, 6)
    assert recorder.act(PEER_PORT, ("option", (6, 255))) < 0
    assert recorder.option(PEER_PORT, 6) == before
    assert recorder.act(PEER_PORT, ("option", (6, before))) == 0
    peer.send("R")
    assert [answer < 0 for answer in answers] == [True]


def test_send_in_the_last_upcall_is_refused(bed: Testbed, recorder: Recorder) -> None:
    answers: list[int] = []
    recorder.on("closed", lambda port: answers.append(recorder.act(port, ("send", b"late"))))
    handshake(bed).send("R")
    assert len(answers) == 1
    assert answers[0] < 0


def test_closing_with_half_of_the_data_used_is_a_reset(bed: Testbed, recorder: Recorder) -> None:
    """SHLD-3: the peer learns that its bytes were not read."""
    recorder.consume = 2
    recorder.on("data", "close")
    peer = handshake(bed)
    peer.send("PA", payload=b"hello")
    assert peer.drain()[-1].flags == "RA"
    assert recorder.log[-2] == ("closed", PEER_PORT, "aborted")


def test_closing_with_half_of_a_rest_used_is_a_reset(bed: Testbed, recorder: Recorder) -> None:
    """SHLD-3 for what was kept: it is offered again, and the application closes over it."""
    recorder.consume = 0
    peer = handshake(bed)
    peer.send("PA", payload=b"hello")
    peer.drain()
    recorder.consume = 2
    recorder.on("data", "close")
    recorder.act(PEER_PORT, "resume")
    bed.pump()
    assert peer.drain()[-1].flags == "RA"
    assert recorder.log[-2] == ("closed", PEER_PORT, "aborted")


def test_closing_over_what_lay_behind_a_hole_is_a_reset(bed: Testbed, recorder: Recorder) -> None:
    """SHLD-3: the application uses all that it is shown and closes, before it is shown what the segment has joined."""
    recorder.on("data", "close")
    peer = handshake(bed)
    peer.send("PA", seq=6, payload=b"world")
    peer.drain()
    peer.send("PA", seq=1, payload=b"hello")
    assert peer.drain()[-1].flags == "RA"
    assert recorder.received[PEER_PORT] == b"hello"
    assert recorder.log[-2] == ("closed", PEER_PORT, "aborted")


def test_aborting_one_connection_in_the_upcall_of_another(bed: Testbed, recorder: Recorder) -> None:
    first, second = handshake(bed, 1000), handshake(bed, 1001)
    recorder.on("data", lambda port: recorder.act(1000, "abort") if 1000 in recorder.ports else None)
    second.send("PA", payload=b"x")
    first.expect("RA")
    assert recorder.names(1000) == ["accept", "closed"]
    second.send("PA", payload=b"x")
    assert recorder.names(1001) == ["accept", "data", "data"]


def test_data_of_a_connection_aborted_in_the_same_burst_is_not_offered(bed: Testbed, recorder: Recorder) -> None:
    peer = handshake(bed)
    recorder.on("data", "abort")
    for _ in range(5):
        peer.send("PA", payload=b"x", pump=False)
    bed.pump()
    assert recorder.names() == ["accept", "data", "closed"]


# ---------------------------------------------------------------- writable


def test_writable_comes_when_the_queue_has_drained_to_the_low_water_mark() -> None:
    with Testbed(snd_low_water_bytes=1000) as bed:
        bed.introduce()
        recorder = Recorder()
        bed.stack.listen(80, application=recorder)
        peer = handshake(bed)
        recorder.act(PEER_PORT, ("send", b"x" * 4000))
        recorder.act(PEER_PORT, "want_writable")
        bed.pump()
        peer.catch_up()
        assert recorder.names() == ["accept"]
        peer.send("A", ack=1 + 2999)
        assert recorder.names() == ["accept"]
        peer.send("A", ack=1 + 3000)
        assert recorder.names() == ["accept", "writable"]


def test_a_full_queue_is_never_writable_however_small_it_is() -> None:
    """An application that fills the queue whenever it is writable would otherwise keep the engine busy for ever."""
    with Testbed(snd_queue_bytes=2000) as bed:
        bed.introduce()
        recorder = Recorder()
        bed.stack.listen(80, application=recorder)
        peer = handshake(bed)
        recorder.act(PEER_PORT, ("send", b"x" * 2000))
        recorder.act(PEER_PORT, "want_writable")
        bed.pump()
        peer.catch_up()
        assert recorder.names() == ["accept"]
        peer.send("A", ack=1 + 999)
        assert recorder.names() == ["accept"]
        peer.send("A", ack=1 + 1000)
        assert recorder.names() == ["accept", "writable"]


def test_writable_comes_once_for_each_wish(bed: Testbed, recorder: Recorder) -> None:
    peer = handshake(bed)
    recorder.act(PEER_PORT, "want_writable")
    bed.pump()
    recorder.act(PEER_PORT, ("send", b"x"))
    bed.pump()
    peer.catch_up()
    peer.send("A")
    assert recorder.names() == ["accept", "writable"]


def test_want_writable_inside_writable_does_not_hold_up_others(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed, 1000)
    other = handshake(bed, 1001)
    recorder.on("writable", "want_writable")
    recorder.act(1000, "want_writable")
    other.send("PA", payload=b"y", pump=False)
    bed.network.advance(bed.now_ns)
    bed.stack.poll(bed.now_ns)
    assert "writable" in recorder.names(1000)
    assert recorder.names(1001) == ["accept", "data"]
    end(bed, recorder)


def test_send_takes_what_the_queue_has_room_for() -> None:
    with Testbed(snd_queue_bytes=3000) as bed:
        bed.introduce()
        recorder = Recorder()
        bed.stack.listen(80, application=recorder)
        peer = handshake(bed)
        assert recorder.act(PEER_PORT, ("send", b"x" * 5000)) == 3000
        assert recorder.act(PEER_PORT, ("send", b"x")) == 0
        bed.pump()
        assert peer.catch_up() == b"x" * 3000
        peer.send("A")
        assert recorder.queued(PEER_PORT) == 0


# ---------------------------------------------------------------- timeouts


@pytest.mark.parametrize("after_ns", [1, MILLISECOND, 250 * MILLISECOND, 3600 * SECOND])
def test_a_timeout_comes_not_early_and_at_most_two_ticks_late(bed: Testbed, recorder: Recorder, after_ns: int) -> None:
    handshake(bed)
    recorder.act(PEER_PORT, ("timeout", after_ns))
    took = bed.run_until(lambda: "timeout" in recorder.names(), 2 * 3600 * SECOND)
    assert after_ns <= took <= after_ns + 2 * (1 << 18)


def test_a_timeout_comes_once(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed)
    recorder.act(PEER_PORT, ("timeout", MILLISECOND))
    bed.advance(SECOND)
    assert recorder.names().count("timeout") == 1


def test_a_timeout_set_again_moves(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed)
    recorder.act(PEER_PORT, ("timeout", 10 * MILLISECOND))
    bed.advance(8 * MILLISECOND)
    recorder.act(PEER_PORT, ("timeout", 10 * MILLISECOND))
    bed.advance(8 * MILLISECOND)
    assert recorder.names() == ["accept"]
    bed.advance(4 * MILLISECOND)
    assert recorder.names() == ["accept", "timeout"]


def test_a_timeout_may_move_to_an_earlier_time(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed)
    recorder.act(PEER_PORT, ("timeout", 3600 * SECOND))
    recorder.act(PEER_PORT, ("timeout", MILLISECOND))
    bed.advance(3 * MILLISECOND)
    assert recorder.names() == ["accept", "timeout"]


def test_a_timeout_of_zero_turns_it_off(bed: Testbed, recorder: Recorder) -> None:
    handshake(bed)
    recorder.act(PEER_PORT, ("timeout", MILLISECOND))
    recorder.act(PEER_PORT, ("timeout", 0))
    bed.advance(SECOND)
    assert recorder.names() == ["accept"]


def test_a_timeout_may_set_the_next(bed: Testbed, recorder: Recorder) -> None:
    recorder.on("timeout", ("timeout", 10 * MILLISECOND))
    handshake(bed)
    recorder.act(PEER_PORT, ("timeout", 10 * MILLISECOND))
    bed.advance(105 * MILLISECOND)
    assert recorder.names().count("timeout") == 10  # none is a tick late after 10 ms
    end(bed, recorder)


def test_a_timeout_that_is_set_again_before_it_is_told_is_not_told(bed: Testbed, recorder: Recorder) -> None:
    """So many are due at once that the last are told in a later turn; a request that comes first sets it anew."""
    peers = [ScriptedPeer(bed, port=2000 + number) for number in range(1000)]
    for peer in peers:
        peer.send("S", options={"mss": 1460})
        peer.expect("SA")
        peer.send("A")
        recorder.act(peer.port, ("timeout", 10 * MILLISECOND))
    recorder.on("data", ("timeout", 10 * SECOND))
    bed.now_ns += 11 * MILLISECOND
    bed.stack.poll(bed.now_ns)
    told = {entry[1] for entry in recorder.log if entry[0] == "timeout"}
    late = [peer for peer in peers if peer.port not in told]
    assert told
    assert late
    for peer in late:
        peer.send("PA", payload=b"x", pump=False)
    bed.pump()
    # The frames fill the next turn before all are taken, so the last peers are told of their timeouts first.
    before_their_data = [peer for peer in late if "timeout" in recorder.names(peer.port)]
    in_time = len(late) - len(before_their_data)
    assert 0 < in_time < len(late)
    assert before_their_data == late[in_time:]
    assert [recorder.names(peer.port)[1:] for peer in late] == [["data"]] * in_time + [["timeout", "data"]] * len(
        before_their_data
    )


def test_a_timeout_comes_while_a_connection_is_being_opened(bed: Testbed, recorder: Recorder) -> None:
    peer = ScriptedPeer(bed, port=PEER_PORT)
    recorder.connect(peer.address, PEER_PORT)
    recorder.act(PEER_PORT, ("timeout", 10 * MILLISECOND))
    recorder.on("timeout", "abort")
    bed.advance(9 * MILLISECOND)
    assert recorder.names() == []
    bed.advance(2 * MILLISECOND)
    assert recorder.names() == ["timeout", "closed"]


def test_a_closed_connection_has_no_timeout(bed: Testbed, recorder: Recorder) -> None:
    peer = handshake(bed)
    recorder.act(PEER_PORT, ("timeout", 10 * MILLISECOND))
    peer.send("R")
    bed.advance(SECOND)
    assert recorder.names() == ["accept", "closed"]


# ---------------------------------------------------------------- transmit ring


@pytest.mark.parametrize("tx_slots", [2, 3, 7])
def test_a_small_ring_delays_and_loses_nothing(tx_slots: int) -> None:
    """What the ring has no room for is tried again after the next submit."""
    data = bytes(range(256)) * 200
    with Testbed(network={"tx_slots": tx_slots}) as bed:
        bed.introduce()
        recorder = Recorder()
        recorder.on("data", ("send", data))
        bed.stack.listen(80, application=recorder)
        peers = [handshake(bed, 1000 + i) for i in range(10)]
        got = dict.fromkeys(range(10), b"")
        for peer in peers:
            peer.send("PA", payload=b"request", pump=False)
        bed.pump()
        while any(len(octets) < len(data) for octets in got.values()):
            for index, peer in enumerate(peers):
                got[index] += peer.catch_up()
                peer.send("A", pump=False)
            bed.step(bed.now_ns + SECOND)
        assert set(got.values()) == {data}
        counted = bed.stack.counters()
        assert counted["segments_retransmitted"] == 0
        assert counted["tx_ring_full"] > 0
        assert recorder.errors == []


def test_resets_of_a_burst_through_a_ring_of_one_slot() -> None:
    """Answers without a connection are not queued: a RST may get lost, a connection's data may not."""
    with Testbed(network={"tx_slots": 1}) as bed:
        bed.introduce()
        for port in range(1000, 1010):
            ScriptedPeer(bed, port=port).send("S", pump=False)
        bed.pump()
        assert bed.dropped() == {"drop_tcp_no_listener": 10}


# ---------------------------------------------------------------- applications


def test_an_engine_serves_63_applications(bed: Testbed) -> None:
    kept = [Recorder() for _ in range(63)]
    for number, application in enumerate(kept):
        bed.stack.listen(1000 + number, application=application)
    with pytest.raises(MemoryError, match="63"):
        bed.stack.listen(2000, application=Recorder())
    for port in (1000, 1062):
        peer = ScriptedPeer(bed, stack_port=port, port=port)
        peer.send("S")
        peer.expect("SA")
        peer.send("A")
    assert [index for index, application in enumerate(kept) if application.names()] == [0, 62]


def test_an_application_of_two_ports_is_registered_once(bed: Testbed) -> None:
    recorder = Recorder()
    for port in range(1000, 1060):
        bed.stack.listen(port, application=recorder)
    for _ in range(62):
        bed.stack.listen(2000, application=Recorder()).close()


def test_an_application_without_upcalls_is_refused(bed: Testbed) -> None:
    """The base class has an empty table: calling through it would end the process."""
    with pytest.raises(ValueError, match="has no on_accept, on_data"):
        bed.stack.listen(80, application=Application())


def test_one_application_does_not_serve_two_engines(bed: Testbed, recorder: Recorder) -> None:
    with Testbed() as other, pytest.raises(ValueError, match="serves one stack at a time"):
        other.stack.listen(80, application=recorder)


def test_an_application_lives_as_long_as_its_engine(bed: Testbed) -> None:
    bed.stack.listen(80, application=Recorder())
    gc.collect()
    peer = handshake(bed)
    peer.send("PA", payload=b"hello")
    peer.send("FA")
    peer.expect("A", ack=7)


# ---------------------------------------------------------------- many at once


def test_two_thousand_connections_at_once() -> None:
    with Testbed(msl_ns=0) as bed:
        bed.introduce()
        recorder = Recorder()
        recorder.on("data", ("send", b"response"))
        recorder.on("eof", "close")
        bed.stack.listen(80, application=recorder)
        peers = [ScriptedPeer(bed, port=1000 + i) for i in range(2000)]

        def all_send(flags: str, payload: bytes = b"", batch: int = 500) -> None:
            for start in range(0, len(peers), batch):
                for peer in peers[start : start + batch]:
                    peer.send(flags, payload=payload, pump=False)
                bed.pump()

        all_send("S")
        for peer in peers:
            peer.expect("SA")
        all_send("A")
        assert bed.stack.established == 2000
        all_send("PA", b"request")
        for peer in peers:
            peer.expect("A", payload=b"response")
        all_send("FA")
        for peer in peers:
            peer.expect("FA")
        all_send("A")
        assert bed.stack.established == 0
        assert recorder.names().count("closed") == 2000
        assert {entry[2] for entry in recorder.log if entry[0] == "closed"} == {"normal"}
        assert bed.dropped() == {}
        assert recorder.errors == []
        assert not any(count for name, count in bed.stack.leaks().items() if name != "lent")


def test_the_connection_beyond_the_limit_is_refused_and_room_comes_back() -> None:
    with Testbed(max_connections=2) as bed:
        bed.introduce()
        recorder = Recorder()
        bed.stack.listen(80, application=recorder)
        peers = [handshake(bed, 1000 + i) for i in range(3)]
        assert bed.stack.established == 2
        peers[0].send("R")
        peers[2].drain()
        handshake(bed, 2000)
        assert bed.stack.established == 2


def test_two_engines_share_nothing(make_stack: Callable[..., Stack]) -> None:
    first, second = SimNetwork(1), SimNetwork(2)
    one = make_stack(first.a, seed=1, now_ns=0)
    other = make_stack(second.a, seed=1, now_ns=0)
    one.listen(80, application=Recorder())
    other.listen(80, application=Recorder())
    one.poll(5 * SECOND)
    # An announcement by ARP, and the second one.
    assert (one.counters()["frames_out"], other.counters()["frames_out"]) == (2, 0)


def test_resuming_where_there_is_nothing_but_a_hole_offers_nothing(bed: Testbed, recorder: Recorder) -> None:
    peer = handshake(bed)
    peer.send("A", seq=11, payload=b"beyond the hole")
    peer.drain()
    recorder.act(PEER_PORT, "resume")
    bed.pump()
    assert recorder.names() == ["accept"]
    peer.send("A", seq=1, payload=b"0123456789")
    assert recorder.received[PEER_PORT] == b"0123456789beyond the hole"
