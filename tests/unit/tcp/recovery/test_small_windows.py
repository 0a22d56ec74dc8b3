# SPDX-License-Identifier: MIT
"""Peers whose receive window is about one segment: RFC 9293 section 3.8.6.2 (silly windows), 3.8.6.1 (probes).

The peer takes what comes and offers the same window again with each ACK, at once or after a delayed ACK's time. What
must hold: nothing beyond the window, no silly segment, no deadlock, and of what is lost one segment sent again.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from ustack.testing.peer import length
from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND

MSS = 1448
ROUND_TRIP = 20 * MILLISECOND
PEERS: dict[str, dict[str, Any]] = {
    "neither": {"mss": MSS},
    "SACK": {"mss": MSS, "sack_permitted": True},
    "timestamps": {"mss": MSS + 12, "timestamps": (0xFFFFFF00, 0), "nop": 2},
    "both": {"mss": MSS + 12, "sack_permitted": True, "timestamps": (0xFFFFFF00, 0), "nop": 2},
}
WINDOWS = {
    "one byte": 1,
    "half": MSS // 2,
    "less": 1000,
    "less by one": MSS - 1,
    "one segment": MSS,
    "a byte more": MSS + 1,
    "two less one": 2 * MSS - 1,
}
each_peer = pytest.mark.parametrize("peer", list(PEERS))
each_window = pytest.mark.parametrize("window", list(WINDOWS.values()), ids=list(WINDOWS))


@dataclass
class Reader:
    """A peer with a buffer of `window` bytes whose application reads at once.

    It acknowledges a round trip after the arrival, of one segment that nothing follows delayed_ns later. lose: of the
    data segments, counted from 0, those that never arrive.
    """

    scene: Scene
    window: int
    delayed_ns: int = 0
    lose: frozenset[int] = frozenset()
    got: list[tuple[int, int]] = field(default_factory=list)
    """(relative sequence number, bytes) of every data segment that the stack has sent."""
    taken: int = 1
    acked: int = 1
    due_ns: int = 0
    unacked: int = 0

    def read(self, total: int, limit_ns: int) -> int:
        """Until so many bytes have been taken and acknowledged; how long it took."""
        bed = self.scene.testbed
        began_ns = bed.now_ns
        while self.acked < 1 + total:
            assert bed.now_ns - began_ns < limit_ns, f"deadlock after {self.got[-5:]}, {self.acked} acknowledged"
            self.arrivals()
            if self.unacked and bed.now_ns >= self.due_ns:
                self.acknowledge()
            else:
                bed.advance(MILLISECOND)
        return bed.now_ns - began_ns

    def arrivals(self) -> None:
        """Take what has arrived in order; all of it lies in the window."""
        for segment in self.scene.peer.drain():
            if not segment.payload:
                continue
            seq = self.scene.peer.relative(segment)[0]
            size = len(segment.payload)
            assert seq + size <= self.acked + self.window, f"{size} bytes at {seq} are beyond the window"
            self.got.append((seq, size))
            if len(self.got) - 1 in self.lose:
                continue
            now_ns = self.scene.testbed.now_ns
            self.unacked += 1
            self.due_ns = now_ns + ROUND_TRIP + (self.delayed_ns if self.unacked == 1 else 0)
            if seq <= self.taken < seq + size:
                self.taken = seq + size
            else:
                self.due_ns = now_ns + ROUND_TRIP

    def acknowledge(self) -> None:
        """All of it, with the whole window again."""
        self.acked = self.taken
        self.unacked = 0
        self.scene.peer.snd_nxt = 1
        self.scene.peer.send("A", ack=self.acked, wnd=self.window)

    def again(self) -> int:
        """Segments that began before one that had been sent already."""
        highest, count = 0, 0
        for seq, size in self.got:
            count += seq + size <= highest
            highest = max(highest, seq + size)
        return count


def sizes(reader: Reader, total: int) -> set[int]:
    """Of all segments but the one that ends the data."""
    return {size for seq, size in reader.got if seq + size < 1 + total}


def reading(peer: str, window: int, **config: Any) -> Scene:
    """ESTABLISHED with a peer that has offered no larger window."""
    return established(options=PEERS[peer], wnd=window, **config)


@each_peer
@each_window
@pytest.mark.parametrize("delayed_ms", [0, 40, 200])
def test_a_stream_goes_through(window: int, delayed_ms: int, peer: str) -> None:
    """Rules (1) and (3) of section 3.8.6.2.1: a full segment, or, as no larger window was ever offered than one that is
    smaller than a segment, what the window holds. Of a window of a segment and a byte the byte stays empty. Each waits
    for the ACK of the one before, and no timer fires meanwhile: a delayed ACK's time is in the round trip."""
    total = 12 if window == 1 else 12 * MSS + 7
    with reading(peer, window) as scene:
        scene.send(bytes(total))
        reader = Reader(scene, window, delayed_ms * MILLISECOND)
        segment = min(window, MSS)
        rounds = -(-total // segment)
        took_ns = reader.read(total, 2 * rounds * (ROUND_TRIP + (delayed_ms + 2) * MILLISECOND))
        assert took_ns <= rounds * (ROUND_TRIP + (delayed_ms + 2) * MILLISECOND)
        assert sizes(reader, total) == {segment}
        assert reader.again() == 0
        counted = scene.testbed.counted()
        assert counted.get("window_overrides", 0) + counted.get("window_probes_out", 0) == 0
        assert counted.get("retransmit_timeouts", 0) + counted.get("tail_probes_out", 0) == 0


@each_peer
@each_window
@pytest.mark.parametrize("lost", [0, 3, 5], ids=["first", "fourth", "sixth"])
def test_a_segment_of_it_is_lost(window: int, lost: int, peer: str) -> None:
    """Nothing follows it, so a timer finds it: with SACK as a tail loss probe (RFC 8985 section 7.2: the lesser of PTO
    and RTO), else as a timeout (RFC 6298 section 5). It goes again once, in one piece, and the stream goes on."""
    total = 8 if window == 1 else 8 * MSS
    with reading(peer, window) as scene:
        scene.send(bytes(total))
        reader = Reader(scene, window, lose=frozenset([lost]))
        segment = min(window, MSS)
        rounds = -(-total // segment)
        wait_ns = 1_100 * MILLISECOND if lost == 0 else 300 * MILLISECOND
        took_ns = reader.read(total, rounds * 2 * ROUND_TRIP + 10 * SECOND)
        assert took_ns <= rounds * (ROUND_TRIP + 2 * MILLISECOND) + wait_ns
        assert sizes(reader, total) == {segment}
        assert reader.again() == 1
        counted = scene.testbed.counted()
        assert counted["segments_retransmitted"] == 1
        by_probe, by_timeout = counted.get("tail_probes_out", 0), counted.get("retransmit_timeouts", 0)
        assert (by_probe, by_timeout) == ((1, 0) if "sack_permitted" in PEERS[peer] else (0, 1))


@each_peer
@each_window
def test_what_goes_again_is_lost_too(window: int, peer: str) -> None:
    """The probe or the first timeout's segment is lost, and the next timeout's as well. (After one more it would be
    taken for a black hole, RFC 4821 section 7.7.)"""
    total = 8 if window == 1 else 8 * MSS
    with reading(peer, window) as scene:
        scene.send(bytes(total))
        reader = Reader(scene, window, lose=frozenset([2, 3, 4]))
        reader.read(total, 60 * SECOND)
        assert sizes(reader, total) == {min(window, MSS)}
        assert reader.again() == 3
        assert scene.testbed.counted()["segments_retransmitted"] == 3


@each_peer
@each_window
def test_the_ack_that_opens_the_window_is_lost(window: int, peer: str) -> None:
    """The window has closed, and what says that it is open again is lost: the stack asks, after an RTO (section
    3.8.6.1, SHLD-29), with a byte that the peer takes (MUST-36). What follows fits the window and is as long as before.
    """
    total = 6 if window == 1 else 6 * MSS
    with reading(peer, window) as scene:
        scene.send(bytes(total))
        reader = Reader(scene, window)
        reader.arrivals()
        scene.testbed.advance(ROUND_TRIP)
        scene.peer.send("A", ack=reader.taken, wnd=0)
        reader.acked, reader.unacked = reader.taken, 0
        scene.peer.expect_nothing()
        took_ns = scene.peer.wait(5 * SECOND)
        assert 199 * MILLISECOND <= took_ns <= 201 * MILLISECOND
        probe = scene.peer.queue[0]
        assert (scene.peer.relative(probe)[0], len(probe.payload)) == (reader.taken, 1)
        assert scene.testbed.counted()["window_probes_out"] == 1
        reader.read(total, 20 * SECOND)
        later = [size for seq, size in reader.got[2:] if seq + size < 1 + total]
        assert set(later) <= {min(window, MSS)}
        assert reader.again() == 0
        assert scene.testbed.counted()["window_probes_out"] == 1


@each_peer
@each_window
def test_a_window_that_has_become_so_small(window: int, peer: str) -> None:
    """Of a peer that had a large one. Less than a segment is less than half of that: the override timer sends what it
    holds, 0.2 s after the ACK each time (rule (4)), and no deadlock; a full segment goes at once (rule (1))."""
    total = 6 if window == 1 else 6 * MSS
    with established(options=PEERS[peer]) as scene:
        scene.peer.send("A", wnd=window)
        scene.send(bytes(total + 1000))
        reader = Reader(scene, window)
        rounds = -(-total // min(window, MSS))
        override_ms = 0 if window >= MSS else 200
        took_ns = reader.read(total, rounds * (ROUND_TRIP + (override_ms + 10) * MILLISECOND) + SECOND)
        assert took_ns <= rounds * (ROUND_TRIP + (override_ms + 3) * MILLISECOND)
        assert sizes(reader, total) == {min(window, MSS)}
        assert reader.again() == 0
        assert (scene.testbed.counted().get("window_overrides", 0) > 0) == (window < MSS)
        scene.abort()


@each_peer
def test_a_delayed_ack_that_the_handshake_did_not_know_of(peer: str) -> None:
    """The handshake took 20 ms, so the first RTO is 200 ms (RFC 6298 (2.2), (2.4) as rto_min has it), and the peer
    delays its first ACK beyond it. One segment goes again, with SACK as a probe that costs no window. Without it is a
    timeout: an ACK of everything undoes none, as all ACKs may have been lost (RFC 3522 section 3.2 step (5))."""
    with established(options=PEERS[peer], measured=True) as scene:
        scene.send(bytes(100))
        stamped = scene.peer.ts_recent
        scene.peer.expect(seq=1, payload=length(100))
        scene.testbed.advance(240 * MILLISECOND)
        scene.peer.expect(seq=1, payload=length(100))
        if "timestamps" in PEERS[peer]:
            scene.peer.ts_recent = stamped
        scene.peer.send("A")
        assert scene.testbed.counted()["segments_retransmitted"] == 1
        selective = "sack_permitted" in PEERS[peer]
        assert scene.testbed.counted().get("retransmit_timeouts", 0) == (0 if selective else 1)
        assert scene.info()["cwnd"] == (10 * MSS if selective else MSS + 100)
        scene.testbed.advance(2 * SECOND)
        scene.peer.expect_nothing()
