# SPDX-License-Identifier: MIT
"""A turn of the engine does a bounded amount of work, whatever peers send: measured in work, never in time."""

import pytest

from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

STAGE_UNITS = 8192
UPCALL_UNITS = 512
MSS = 1000


def handshake(bed: Testbed, port: int) -> ScriptedPeer:
    peer = ScriptedPeer(bed, port=port)
    peer.send("S", options={"mss": MSS})
    peer.expect("SA")
    peer.send("A")
    return peer


def half_close(bed: Testbed, recorder: Recorder, peer: ScriptedPeer) -> None:
    """The application of port 2000 has ended its side, and the peer has acknowledged that."""
    recorder.act(2000, "shutdown")
    bed.pump()
    peer.expect("FA")
    peer.send("A")


def turn(bed: Testbed) -> int:
    """One turn at the present time; the frames taken."""
    bed.network.advance(bed.now_ns)
    taken = bed.stack.poll(bed.now_ns)
    bed.network.advance(bed.now_ns)
    return taken


# ---------------------------------------------------------------- expensive frames


def test_a_burst_of_expensive_frames_is_spread_over_turns(bed: Testbed, recorder: Recorder) -> None:
    """64 frames whose bytes cost an application 30 us each: 64,000 calls into Python, a few dozen in one turn."""
    peers = [handshake(bed, 2000 + i) for i in range(64)]
    recorder.charge = 300
    for peer in peers:
        peer.send("PA", payload=bytes(range(200)) * 5, pump=False)
    bed.pump()
    assert recorder.received == {2000 + i: bytes(range(200)) * 5 for i in range(64)}
    assert bed.stack.turns()["units_max"] <= 2 * (STAGE_UNITS + UPCALL_UNITS)


def test_frames_that_a_turn_cannot_afford_stay_in_the_ring(bed: Testbed, recorder: Recorder) -> None:
    peers = [handshake(bed, 2000 + i) for i in range(64)]
    recorder.charge = 300
    for peer in peers:
        peer.send("PA", payload=b"x" * MSS, pump=False)
    taken = turn(bed)
    assert 0 < taken < 32
    assert bed.network.a.waiting == 64 - taken
    bed.pump()


def test_no_connection_gets_more_than_its_share_before_others_have_had_theirs(bed: Testbed, recorder: Recorder) -> None:
    """The rest of an expensive frame waits for the next turn, behind the other connections' work."""
    peers = [handshake(bed, 2000 + i) for i in range(64)]
    recorder.charge = 300
    for peer in peers:
        peer.send("PA", payload=b"x" * MSS, pump=False)
    bed.pump()
    order = [entry[1] for entry in recorder.log if entry[0] == "data"]
    before_the_last = order[: order.index(2063)]
    # Frames wait in the ring while those before them are worked on: the last is some rounds behind the first.
    assert max(before_the_last.count(port) for port in range(2000, 2063)) <= 8


def test_segments_that_join_hundreds_of_runs_are_spread_over_turns(bed: Testbed, recorder: Recorder) -> None:
    """Each byte between two holes costs a look at a tree; the segment that fills all the holes costs hundreds."""
    peers = [handshake(bed, 2000 + i) for i in range(16)]
    for peer in peers:
        for at in range(500):
            peer.send("A", seq=3 + 2 * at, payload=b"x", pump=at % 50 == 49)
        peer.drain()
    before = bed.stack.counters()["reassembly_steps"]
    for peer in peers:
        peer.send("A", seq=2, payload=b"y" * MSS, pump=False)
    taken = turn(bed)
    assert 0 < taken < 16
    assert bed.stack.counters()["reassembly_steps"] - before <= 2 * 8 * STAGE_UNITS
    bed.pump()
    for peer in peers:
        peer.send("A", seq=1, payload=b"x")
        assert len(recorder.received[peer.port]) == 1 + MSS
        peer.send("R", seq=2 + MSS)


def test_timers_run_between_expensive_frames(bed: Testbed, recorder: Recorder) -> None:
    peers = [handshake(bed, 2000 + i) for i in range(64)]
    waiting = handshake(bed, 1000)
    recorder.act(1000, ("timeout", 5 * MILLISECOND))
    bed.advance(4 * MILLISECOND)
    recorder.charge = 300
    for peer in peers:
        peer.send("PA", payload=b"x" * MSS, pump=False)
    bed.now_ns += 2 * MILLISECOND
    for _ in range(3):
        turn(bed)
    assert "timeout" in recorder.names(1000)
    assert sum(map(len, recorder.received.values())) < 200
    bed.pump()
    waiting.send("R")


def test_work_that_is_left_is_due_now(bed: Testbed, recorder: Recorder) -> None:
    """Nobody sleeps on the link while a turn has left something."""
    peer = handshake(bed, 2000)
    recorder.charge = 300
    peer.send("PA", payload=b"x" * MSS, pump=False)
    turn(bed)
    assert bed.stack.next_deadline_ns == bed.now_ns
    assert turn(bed) == 0
    assert 0 < len(recorder.received[2000]) < MSS
    bed.pump()
    assert len(recorder.received[2000]) == MSS


def test_a_wide_window_is_not_filled_in_one_turn() -> None:
    """What one connection may send at once costs turns like everything else; another's answer goes out between."""
    with Testbed(network={"mtu": 65000}, initial_window_segments=1000, msl_ns=0) as bed:
        bed.introduce()
        recorder = Recorder()
        bed.stack.listen(80, application=recorder)
        big = ScriptedPeer(bed, port=2000)
        big.send("S", options={"mss": 64000, "nop": 1, "wscale": 14})
        big.expect("SA")
        big.send("A")
        other = handshake(bed, 2001)
        recorder.act(2000, ("send", bytes(60_000_000)))
        acknowledged = 1
        turns: list[list[int]] = []
        while max(map(len, turns), default=1) < STAGE_UNITS // 66:  # slow start opens the window
            for _ in range(sum(map(len, turns))):
                acknowledged += 64000
                big.send("A", ack=acknowledged, wnd=65535, pump=False)
            recorder.act(2001, ("send", b"response"))
            turns = []
            while bed.network.a.waiting or not turns or turns[-1]:
                turn(bed)
                turns.append([len(frame) for frame in bed.network.b.receive_all()])
            assert 54 + len(b"response") in turns[0] + turns[1]
            other.send("A", ack=other.rcv_nxt + len(b"response"), pump=False)
            other.rcv_nxt += len(b"response")
        assert len(turns) > 2
        assert max(sum(length > MSS for length in one) for one in turns) <= STAGE_UNITS // 64
        assert bed.stack.turns()["units_max"] <= 2 * (STAGE_UNITS + UPCALL_UNITS)
        big.send("R")
        other.send("R")


# ---------------------------------------------------------------- a great many at once


def open_many(bed: Testbed, count: int) -> list[ScriptedPeer]:
    peers = []
    for port in range(10_000, 10_000 + count):
        peer = ScriptedPeer(bed, port=port)
        peer.send("S", options={"mss": MSS}, pump=False)
        peers.append(peer)
    bed.pump()
    for peer in peers:
        peer.expect("SA")
        peer.send("A", pump=False)
    bed.pump()
    return peers


def test_timeouts_of_one_tick_are_spread_over_turns(bed: Testbed, recorder: Recorder) -> None:
    open_many(bed, 1500)
    for port in recorder.ports:
        recorder.act(port, ("timeout", 10 * MILLISECOND))
    bed.now_ns += 20 * MILLISECOND
    turn(bed)
    told = recorder.names().count("timeout")
    assert 0 < told <= 1024
    assert bed.stack.next_deadline_ns == bed.now_ns
    bed.pump()
    assert recorder.names().count("timeout") == 1500
    assert bed.stack.turns()["timers_max"] == 1024


def test_half_open_connections_that_expire_in_one_tick_are_spread_over_turns(bed: Testbed, recorder: Recorder) -> None:
    """Each sends its SYN-ACK again, and later none is left."""
    for port in range(10_000, 11_500):
        ScriptedPeer(bed, port=port).send("S", options={"mss": MSS}, pump=False)
    bed.pump()
    bed.mark()
    bed.now_ns += SECOND + 10 * MILLISECOND
    turn(bed)
    assert bed.counted()["segments_retransmitted"] == 1024
    bed.pump()
    assert bed.counted()["segments_retransmitted"] == 1500
    for _ in range(10):
        bed.now_ns += 60 * SECOND
        bed.pump()
    assert bed.stack.leaks()["syns"] == 0
    assert bed.stack.turns()["timers_max"] == 1024


# ---------------------------------------------------------------- who sleeps until the next deadline


def sleep_until_nothing_is_due(bed: Testbed) -> tuple[int, int]:
    """A caller that polls at next_deadline_ns and never otherwise, until there is none: turns, and those of them that
    were due at the time of the one before."""
    turns = at_once = 0
    while (at := bed.stack.next_deadline_ns) is not None:
        assert at >= bed.now_ns
        turns, at_once = turns + 1, at_once + (at == bed.now_ns)
        bed.now_ns = at
        turn(bed)
    return turns, at_once


def test_a_sleeper_is_woken_for_reads_that_are_under_way_after_the_end(bed: Testbed, recorder: Recorder) -> None:
    """The connection is in no table any more and has no timer: what is left of it is to be read, a piece in a turn."""
    peer = handshake(bed, 2000)
    half_close(bed, recorder, peer)
    recorder.charge = 300
    sent = bytes(range(250)) * 4
    peer.send("FPA", payload=sent, pump=False)
    turn(bed)
    assert bed.stack.connections("connection") == []
    assert 0 < len(recorder.received[2000]) < len(sent)
    turns, at_once = sleep_until_nothing_is_due(bed)
    assert recorder.received[2000] == sent
    assert recorder.names()[-2:] == ["eof", "closed"]
    assert at_once > 10
    assert turns - at_once <= 2  # a timer that was set before, and the second announcement by ARP


def test_a_sleeper_is_woken_for_orphans_that_a_turn_had_no_budget_for(bed: Testbed, recorder: Recorder) -> None:
    """1,500 FINs in one turn, and their timers in one tick: 1,024 in a turn, the others in the next one."""
    open_many(bed, 1500)
    for port in recorder.ports:
        recorder.act(port, "close")
    turn(bed)
    assert bed.stack.pressure()["orphans"] == 1500
    _, at_once = sleep_until_nothing_is_due(bed)
    assert bed.stack.pressure()["orphans"] == 0
    assert bed.counted()["orphans_timed_out"] == 1500
    assert bed.stack.turns()["timers_max"] == 1024
    assert at_once >= 8  # for each time that they all send the FIN again, and for the end


def test_resets_of_everybody_are_spread_over_turns(bed: Testbed, recorder: Recorder) -> None:
    peers = open_many(bed, 200)
    for peer in peers:
        peer.send("R", pump=False)
    bed.pump()
    assert recorder.names().count("closed") == 200
    assert bed.stack.turns()["connections_max"] <= STAGE_UNITS // 8


def test_the_link_is_served_while_a_stack_ends(bed: Testbed, recorder: Recorder) -> None:
    """Closing answers what comes meanwhile, and lets nobody in."""
    open_many(bed, 1500)
    late = ScriptedPeer(bed, port=2000)
    late.send("S", options={"mss": MSS}, pump=False)
    bed.network.advance(bed.now_ns)
    bed.stack.close()
    bed.network.advance(bed.now_ns)
    bed.collect()
    late.expect("RA")
    assert recorder.names().count("closed") == 1500
    assert bed.stack.turns()["connections_max"] <= STAGE_UNITS // 8


def test_what_was_queued_and_is_given_back_at_once_uses_up_a_turn(bed: Testbed, recorder: Recorder) -> None:
    """Peers that let thousands of small answers pile up and then reset: the frames that free them are spread."""
    peers = open_many(bed, 64)
    for peer in peers:
        for _ in range(1000):
            recorder.act(peer.port, ("send", b"x"))
    bed.pump()
    for peer in peers:
        peer.send("R", pump=False)
    taken = turn(bed)
    assert 0 < taken < 32
    bed.pump()
    assert recorder.names().count("closed") == 64


# ---------------------------------------------------------------- paused readers


def test_a_paused_reader_costs_one_upcall(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 0
    peer = handshake(bed, 2000)
    for _ in range(100):
        peer.send("PA", payload=b"x" * MSS)
    assert recorder.names() == ["accept", "data"]
    assert recorder.receivable(2000) == 100 * MSS


def test_a_resumed_reader_gets_everything_that_came_meanwhile(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 0
    peer = handshake(bed, 2000)
    sent = b"".join(number.to_bytes(2, "big") for number in range(5000))
    for at in range(0, len(sent), MSS):
        peer.send("PA", payload=sent[at : at + MSS])
    recorder.consume = None
    recorder.act(2000, "resume")
    bed.pump()
    assert recorder.received[2000] == sent
    peer.send("PA", payload=b"more")
    assert recorder.received[2000] == sent + b"more"


def test_a_reader_that_takes_a_part_is_paused_until_it_resumes(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 3
    peer = handshake(bed, 2000)
    peer.send("PA", payload=b"hello")
    peer.send("PA", payload=b" world")
    assert recorder.received[2000] == b"hel"
    recorder.act(2000, "resume")
    bed.pump()
    assert recorder.received[2000] == b"hello "
    assert recorder.names() == ["accept", "data", "data"]


def test_reading_from_the_queue_ends_the_pause(bed: Testbed, recorder: Recorder) -> None:
    recorder.consume = 0
    peer = handshake(bed, 2000)
    peer.send("PA", payload=b"hello")
    assert recorder.read(2000, 100) == b"hello"
    recorder.consume = None
    peer.send("PA", payload=b"world")
    assert recorder.received[2000] == b"world"


def test_a_paused_reader_opens_the_window_again_when_it_reads() -> None:
    with Testbed(rcv_buffer_bytes=8 * MSS, msl_ns=0) as bed:
        bed.introduce()
        recorder = Recorder()
        recorder.consume = 0
        bed.stack.listen(80, application=recorder)
        peer = handshake(bed, 2000)
        for _ in range(8):
            peer.send("PA", payload=b"x" * MSS)
        assert peer.drain()[-1].wnd == 0
        assert recorder.read(2000, 8 * MSS) == b"x" * 8 * MSS
        bed.pump()
        assert peer.drain()[-1].wnd == 8 * MSS
        peer.send("PA", payload=b"y" * MSS)
        assert recorder.names() == ["accept", "data", "data"]
        peer.send("R")


def test_a_paused_reader_hears_of_the_end(bed: Testbed, recorder: Recorder) -> None:
    """The FIN waits behind what is held; a reset does not."""
    recorder.consume = 0
    peers = [handshake(bed, port) for port in (2000, 2001)]
    for peer in peers:
        peer.send("PA", payload=b"hello")
    peers[0].send("FA")
    peers[1].send("R")
    assert recorder.names(2000) == ["accept", "data"]
    assert recorder.names(2001) == ["accept", "data", "closed"]
    recorder.consume = None
    recorder.act(2000, "resume")
    bed.pump()
    assert recorder.names(2000) == ["accept", "data", "data", "eof"]


def test_a_reader_whose_share_ends_with_the_last_byte_is_not_paused(bed: Testbed, recorder: Recorder) -> None:
    """Nothing is left that a pause could end with: what a hole has kept back is offered when the hole closes."""
    recorder.consume = 0
    peer = handshake(bed, 2000)
    peer.send("PA", payload=b"x" * UPCALL_UNITS)
    recorder.consume = None
    recorder.charge = 1
    recorder.act(2000, "resume")
    bed.pump()
    assert recorder.received[2000] == b"x" * UPCALL_UNITS
    peer.send("PA", seq=peer.snd_nxt + 3, payload=b"lo")
    peer.send("PA", payload=b"hel")
    assert recorder.received[2000][UPCALL_UNITS:] == b"hello"


def test_a_paused_reader_begins_no_burst(bed: Testbed, recorder: Recorder) -> None:
    """With the peer's FIN behind what is held, too: nothing is called, so no hook for the GIL is either."""
    recorder.consume = 0
    peer = handshake(bed, 2000)
    peer.send("PA", payload=b"hello")
    peer.send("FA")
    recorder.clear()
    peer.send("A")
    peer.send("FA", seq=peer.snd_nxt - 1)
    assert recorder.log == []


# ---------------------------------------------------------------- ends of streams that are read in several turns


@pytest.mark.parametrize("fin", ["with the text", "behind it"])
@pytest.mark.parametrize("ours", ["before", "in on_data"])
def test_a_stream_that_is_read_in_turns_ends_behind_its_last_byte(
    bed: Testbed, recorder: Recorder, fin: str, ours: str
) -> None:
    """We are done sending, so the peer's FIN ends the connection; what it has acknowledged is read to its end."""
    peer = handshake(bed, 2000)
    if ours == "before":
        half_close(bed, recorder, peer)
    else:
        recorder.on("data", "shutdown")
    recorder.charge = 300
    sent = bytes(range(250)) * 4
    if fin == "with the text":
        peer.send("FPA", payload=sent)
    else:
        peer.send("PA", payload=sent, pump=False)
        peer.send("FA")
    peer.catch_up()
    peer.send("A")
    bed.pump()
    assert recorder.received[2000] == sent
    assert recorder.names()[-2:] == ["eof", "closed"]


def test_a_chunk_that_waits_for_the_next_turn_is_read_before_the_end(bed: Testbed, recorder: Recorder) -> None:
    """The engine itself stops between chunks; the last ACK of a close ends the connection meanwhile."""
    recorder.consume = 0
    peer = handshake(bed, 2000)
    sent = b"".join(number.to_bytes(2, "big") for number in range(20_000))
    for at in range(0, len(sent), MSS):
        peer.send("PA", payload=sent[at : at + MSS])
    peer.send("FA")
    peer.catch_up()
    recorder.consume = None
    recorder.charge = 1
    recorder.act(2000, "shutdown")
    recorder.act(2000, "resume")
    turn(bed)
    peer.send("A", ack=2, pump=False)
    turn(bed)
    assert len(recorder.received[2000]) < len(sent)
    assert bed.stack.connections("connection") == []
    bed.pump()
    assert recorder.received[2000] == sent
    assert recorder.names()[-2:] == ["eof", "closed"]


def test_a_stack_that_ends_waits_for_no_reader(bed: Testbed, recorder: Recorder) -> None:
    peer = handshake(bed, 2000)
    half_close(bed, recorder, peer)
    recorder.on("data", "resume")
    recorder.consume = 0
    peer.send("FPA", payload=b"hello", pump=False)
    turn(bed)
    turn(bed)
    assert "closed" not in recorder.names()
    bed.stack.close()
    assert recorder.names()[-1] == "closed"
