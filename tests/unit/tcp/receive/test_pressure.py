# SPDX-License-Identifier: MIT
"""A full receive memory, through a whole stack: whose data it is full of, and who is served all the same.

Shares and victims with plain numbers are in test_rx_queue.py. Here applications, ACKs and RSTs are real.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from ustack.errors import StackError
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.states import Scene, established
from ustack.testing.testbed import SECOND, Testbed

KB = 1024
MEMORY = 256 * KB
SERVED, HOARDED = 80, 81
OPTIONS = {"mss": 1460, "nop": 1, "wscale": 0}


class Stage:
    """A stack with two applications: one that uses everything at once, one that uses nothing."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.served = Recorder()
        self.hoard = Recorder()
        self.hoard.consume = 0
        bed.introduce()
        bed.stack.listen(SERVED, application=self.served)
        bed.stack.listen(HOARDED, application=self.hoard)
        self.next_port = 40_000

    def open(self, service: int, options: dict[str, Any] | None = None) -> ScriptedPeer:
        peer = ScriptedPeer(self.bed, port=self.next_port, stack_port=service)
        self.next_port += 1
        peer.send("S", options=OPTIONS if options is None else options)
        peer.expect("SA")
        peer.send("A")
        return peer

    def fill(self) -> list[ScriptedPeer]:
        """Hoarders until nothing is free: each sends until something is refused. At last some who send a few bytes."""
        hoarders = []
        while self.held() < MEMORY:
            hoarders.append(self.open(HOARDED))
            self.send_all(hoarders[-1], b"h" * 1024)
            assert len(hoarders) < 100
        while True:
            hoarders.append(self.open(HOARDED))
            self.send_all(hoarders[-1], b"few")
            if self.hoard.receivable(hoarders[-1].port) == 0:
                return hoarders
            assert len(hoarders) < 120

    def send_all(self, peer: ScriptedPeer, piece: bytes) -> None:
        """The piece again and again, until one is not kept whole or the window is full; the peer then knows it."""
        for _ in range(64 if len(piece) > 3 else 1):
            peer.send("A", payload=piece)
            if self.hoard.receivable(peer.port) != peer.snd_nxt - 1:
                break
        peer.snd_nxt = 1 + self.hoard.receivable(peer.port)
        peer.drain()

    @staticmethod
    def acknowledged(peer: ScriptedPeer, ack: int) -> int:
        return (ack - peer.isn) & 0xFFFFFFFF

    def held(self) -> int:
        return self.bed.stack.leaks()["rx_held_bytes"]


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Testbed(rx_memory_bytes=MEMORY, rcv_buffer_bytes=64 * KB - 1) as bed:
        stage = Stage(bed)
        yield stage
        assert stage.served.errors == stage.hoard.errors == []


def test_data_that_is_used_straight_from_the_ring_needs_no_memory(stage: Stage) -> None:
    """A known request on an open connection, and on a new one, while others' unread data fills everything."""
    before = stage.open(SERVED)
    stage.fill()
    assert stage.held() == MEMORY
    stage.bed.mark()
    for peer in (before, stage.open(SERVED)):
        for number in range(20):
            peer.send("PA", payload=b"GET %d" % (number % 10))
        stage.bed.advance(SECOND)
        assert stage.served.received[peer.port] == b"".join(b"GET %d" % (number % 10) for number in range(20))
        assert stage.acknowledged(peer, peer.drain()[-1].ack) == peer.snd_nxt
    assert stage.bed.dropped() == {}
    assert stage.held() == MEMORY


@pytest.mark.parametrize("full", [False, True])
def test_what_closes_a_hole_is_used_straight_from_the_ring(stage: Stage, full: bool) -> None:
    """With room, data beyond the hole is kept, and the application gets it behind the segment, in order.

    When others fill the memory it is the first to go (RFC 2018 section 8: a receiver MAY discard it), and comes again.
    """
    peer = stage.open(SERVED)
    peer.send("A", seq=11, payload=b"beyond the hole")
    if full:
        stage.fill()
    stage.bed.mark()
    peer.send("A", seq=1, payload=b"0123456789")
    if full:
        assert stage.served.received[peer.port] == b"0123456789"
        peer.send("A", seq=11, payload=b"beyond the hole")
    assert stage.served.received[peer.port] == b"0123456789beyond the hole"
    assert stage.bed.dropped() == {}


def test_a_rest_that_finds_no_memory_is_not_acknowledged_and_comes_again(stage: Stage) -> None:
    hoarders = stage.fill()
    peer = stage.open(SERVED)
    stage.served.consume = 3
    stage.bed.mark()
    peer.send("PA", payload=b"abcdef")
    stage.bed.advance(SECOND // 4)
    assert stage.acknowledged(peer, peer.drain()[-1].ack) == 4
    assert stage.bed.dropped() == {"drop_no_memory": 1}
    for hoarder in hoarders:
        hoarder.send("R")
    assert stage.held() == 0
    peer.send("PA", seq=4, payload=b"def")
    assert stage.served.received[peer.port] == b"abcdef"


def test_a_fin_behind_text_that_may_find_no_memory_is_left_to_come_again(stage: Stage) -> None:
    """Text without memory can be given back, a FIN that was taken cannot. The text is used at once all the same."""
    stage.fill()
    peer = stage.open(SERVED)
    peer.send("FPA", payload=b"last words")
    assert stage.served.received[peer.port] == b"last words"
    stage.bed.advance(SECOND // 4)
    assert stage.acknowledged(peer, peer.drain()[-1].ack) == 11
    assert "eof" not in stage.served.names(peer.port)
    peer.send("FA", seq=11)
    assert "eof" in stage.served.names(peer.port)
    assert stage.acknowledged(peer, peer.drain()[-1].ack) == 12


def test_a_fin_beyond_a_hole_is_forgotten_where_the_text_before_it_may_find_no_memory(stage: Stage) -> None:
    """It was never acknowledged. The text is used at once, and the peer sends the FIN again."""
    peer = stage.open(SERVED)
    peer.send("FA", seq=11)
    stage.fill()
    peer.send("A", seq=1, payload=b"last words")
    assert stage.served.received[peer.port] == b"last words"
    stage.bed.advance(SECOND // 4)
    assert stage.acknowledged(peer, peer.drain()[-1].ack) == 11
    assert "eof" not in stage.served.names(peer.port)
    peer.send("FA", seq=11)
    assert "eof" in stage.served.names(peer.port)


def test_what_lies_beyond_a_hole_makes_room_for_what_closes_it(stage: Stage) -> None:
    """A connection whose share has become smaller than what it holds: its own data in order goes first."""
    peer = stage.open(HOARDED)
    for at in range(20_001, 50_001, 5000):
        peer.send("A", seq=at, payload=bytes(5000))
    for hoarder in [stage.open(HOARDED) for _ in range(3)]:
        stage.send_all(hoarder, b"h" * 1024)
    assert MEMORY // 2 < stage.held() < MEMORY
    stage.bed.mark()
    held = stage.held()
    peer.drain()
    peer.send("A", seq=1, payload=bytes(5000))
    stage.bed.advance(SECOND // 4)
    assert stage.bed.counted()["sack_reneged"] == 1
    assert stage.acknowledged(peer, peer.drain()[-1].ack) == 5001
    assert stage.hoard.receivable(peer.port) == 5000
    assert stage.held() < held


def test_a_rest_before_a_fin_that_was_taken_finds_its_memory(stage: Stage) -> None:
    """The segment that closes the hole covers runs whose memory it needs again for what the application leaves: more
    than a share, but no more than the connection held before."""
    peer = stage.open(SERVED)
    text = bytes(range(251)) * 60
    peer.send("A", seq=2001, payload=text[2000:7000])
    peer.send("FA", seq=9001, payload=text[9000:])
    for hoarder in [stage.open(HOARDED) for _ in range(3)]:
        stage.send_all(hoarder, b"h" * 1024)
    assert MEMORY // 2 < stage.held() < MEMORY
    stage.served.consume = 100
    peer.send("A", seq=1, payload=text[:9000])
    stage.served.consume = None
    stage.served.act(peer.port, "resume")
    stage.bed.pump()
    assert stage.served.received[peer.port] == text
    assert stage.served.names(peer.port) == ["accept", "data", "data", "data", "data", "data", "eof"]


def test_who_reads_nothing_for_long_is_reset_when_others_need_memory(stage: Stage) -> None:
    """The largest holder; its peer gets a RST, its application the reason, everybody else goes on."""
    hoarders = stage.fill()
    stage.bed.advance(2 * SECOND)
    for peer in hoarders:
        peer.drain()
    stage.hoard.clear()
    stage.bed.mark()
    reader = stage.open(HOARDED)
    reader.send("PA", payload=b"needs a chunk" * 100)
    assert stage.hoard.receivable(reader.port) == 1300
    assert stage.bed.counted()["connections_memory_aborted"] == 1
    ended = [peer for peer in hoarders if any("R" in segment.flags for segment in peer.drain())]
    assert len(ended) == 1
    assert ("closed", ended[0].port, "no_memory") in stage.hoard.log
    assert stage.hoard.names(reader.port) == ["accept", "data"]
    stage.bed.advance(SECOND // 4)
    assert stage.acknowledged(reader, reader.drain()[-1].ack) == 1301


def test_windows_grow_less_while_memory_is_short(stage: Stage) -> None:
    """No edge moves left, and a reader's window shrinks to two segments, not further.

    Once it is a little less: to move the edge by less than a segment would be a silly window (section 3.8.6.2.2).
    """
    peer = stage.open(SERVED)
    stage.fill()
    edge = (peer.isn + 1 + 60_000) & 0xFFFFFFFF
    windows = []
    for _ in range(80):
        peer.send("PA", payload=b"x" * 1460)
        stage.bed.advance(SECOND // 10)
        for segment in peer.drain():
            announced = (segment.ack + segment.wnd) & 0xFFFFFFFF
            assert (announced - edge) & 0xFFFFFFFF < 1 << 31
            edge = announced
            windows.append(segment.wnd)
    assert windows[-1] == 2 * 1460
    assert [window for window in windows if window < 2 * 1460] == [2755]
    assert stage.served.received[peer.port] == b"x" * 1460 * 80


def test_memory_comes_back_when_its_holders_leave(stage: Stage) -> None:
    for peer in stage.fill():
        peer.send("R")
    leaks = stage.bed.stack.leaks()
    assert (leaks["rx_held_bytes"], leaks["rx_chunks"], leaks["rx_queues"]) == (0, 0, 0)


def test_unread_data_that_is_given_up_is_no_end_of_the_stream() -> None:
    """A FIN came behind it: receive() must not return b"", as if that had been all, not even before the RST is out."""
    with established(rx_memory_bytes=16 * KB, rcv_buffer_bytes=16 * KB) as scene:
        for _ in range(6):
            scene.peer.send("A", payload=b"x" * 1000)
        scene.peer.send("FA")
        bed = scene.testbed
        others = [other_peer(scene, port) for port in range(50_000, 50_003)]
        for peer in others[:2]:
            for _ in range(3):
                peer.send("A", payload=b"y" * 1000)
        bed.advance(2 * SECOND)
        assert bed.counted().get("connections_memory_aborted") is None
        connection = scene.conn
        others[2].send("A", payload=b"z" * 1000)
        assert bed.counted()["connections_memory_aborted"] == 1
        with pytest.raises(StackError) as caught:
            connection.receive(100, timeout=0)
        assert caught.value.reason == "no_memory"
        bed.stack.close()


def other_peer(scene: Scene, port: int) -> ScriptedPeer:
    peer = ScriptedPeer(scene.testbed, port=port, stack_port=scene.peer.stack_port)
    peer.send("S", options=OPTIONS)
    peer.expect("SA")
    peer.send("A")
    return peer


# ---------------------------------------------------------------- the window's edge, and ACKs without a wait


def test_a_buffer_below_two_segments_is_acknowledged_without_a_wait() -> None:
    """A second segment cannot come before the ACK of the first: waiting for it would be 40 ms for nothing."""
    with Testbed(rcv_buffer_bytes=2000) as bed:
        stage = Stage(bed)
        peer = stage.open(SERVED, {"mss": 1460})
        for number in range(5):
            peer.send("A", payload=b"x" * 1000)
            answer = peer.expect("A")
            assert stage.acknowledged(peer, answer.ack) == 1 + 1000 * (number + 1)
            assert answer.wnd == 2000


def test_one_segment_into_a_larger_buffer_is_acknowledged_later() -> None:
    with Testbed(rcv_buffer_bytes=2 * 1460) as bed:
        stage = Stage(bed)
        peer = stage.open(SERVED, {"mss": 1460})
        peer.send("A", payload=b"x" * 1460)
        peer.expect_nothing()
        peer.send("A", payload=b"x" * 1460)
        peer.expect("A")


@pytest.mark.parametrize("buffer", [1 << 20, 16 << 20, 128 << 20])
def test_the_edge_on_the_wire_never_moves_left(buffer: int) -> None:
    """SHLD-14, from the SYN-ACK on, with the scale that each buffer needs, while nobody reads."""
    with Testbed(rcv_buffer_bytes=buffer, rx_memory_bytes=1 << 30) as bed:
        stage = Stage(bed)
        peer = ScriptedPeer(bed, port=30_000, stack_port=HOARDED)
        peer.send("S", options=OPTIONS)
        opening = peer.expect("SA")
        shift = opening.options["wscale"]
        edge = (opening.ack + opening.wnd) & 0xFFFFFFFF
        peer.send("A")
        sizes = [1, 7, 536, 1460, 1460, 999]
        for number in range(600):
            peer.send("A", payload=b"x" * sizes[number % 6], pump=number % 2 == 1)
            for segment in peer.drain():
                announced = (segment.ack + (segment.wnd << shift)) & 0xFFFFFFFF
                assert (announced - edge) & 0xFFFFFFFF < 1 << 31
                edge = announced
        assert stage.hoard.errors == []


def test_an_answer_before_the_handshake_is_complete_moves_no_edge() -> None:
    """An ACK in SYN-RECEIVED says the edge of the SYN-ACK, rounded up to the scale; all below it is accepted."""
    with Testbed() as bed:
        stage = Stage(bed)
        peer = ScriptedPeer(bed, port=30_000, stack_port=SERVED)
        peer.send("S", options=OPTIONS)
        opening = peer.expect("SA")
        peer.send("A", seq=100_000, payload=b"far outside")
        answer = peer.expect("A")
        announced = answer.wnd << opening.options["wscale"]
        assert (opening.wnd, announced) == (65_535, 65_536)
        peer.send("A")
        peer.send("A", seq=announced, payload=b"z")
        peer.send("A", seq=1, payload=b"x" * 1000)
        leaks = bed.stack.leaks()
        assert leaks["rx_queues"] == 1  # the last byte of the window is kept
        assert stage.served.received[peer.port] == b"x" * 1000
