# SPDX-License-Identifier: MIT
"""A transmit ring that fills up in the middle of an output: what is sent is what a large ring sends, in more turns.

Every situation is played twice with the same seed: several connections have something to send in the same turn, with
room for all of it, and with room for two frames (of which one may be a question for a neighbour).
"""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from ustack.testing.parts.failing import Failing
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, Testbed

PEERS = 4
OPTIONS = {"mss": 1000}
Sent = dict[int, list[tuple[str, int, int, int, bytes]]]


class Play:
    """Some connections whose application is a Recorder, each with a scripted peer."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.application = Recorder()
        bed.introduce()
        bed.stack.listen(80, application=self.application)
        self.peers: list[ScriptedPeer] = []

    def open(self) -> None:
        for number in range(PEERS):
            peer = ScriptedPeer(self.bed, port=1000 + number)
            peer.send("S", options=OPTIONS)
            peer.expect("SA")
            peer.send("A")
            self.peers.append(peer)

    def all_do(self, *action: Any) -> None:
        """In one call of each application, and then a turn."""
        for peer in self.peers:
            self.application.act(peer.port, action if len(action) > 1 else action[0])
        self.bed.pump()

    def all_send(self, *arguments: Any, **fields: Any) -> None:
        """What arrives in one burst."""
        for peer in self.peers:
            peer.send(*arguments, pump=False, **fields)
        self.bed.pump()

    def catch_up(self) -> None:
        for peer in self.peers:
            peer.drain()


def connect(play: Play) -> None:
    for number in range(PEERS):
        play.peers.append(ScriptedPeer(play.bed, port=2000 + number, stack_port=None))
        play.application.connect(PEER_ADDRESS, 2000 + number)
    play.bed.pump()


def acknowledge(play: Play) -> None:
    play.open()
    play.all_send("A", seq=501, payload=b"beyond a hole")


def acknowledge_three(play: Play) -> None:
    """Three segments beyond a hole in one burst: one duplicate ACK each (RFC 5681 section 4.2)."""
    play.open()
    for peer in play.peers:
        for number in range(3):
            peer.send("A", seq=501 + 100 * number, payload=b"beyond a hole", pump=False)
    play.bed.pump()


def send(play: Play) -> None:
    play.open()
    play.all_do("send", bytes(range(250)) * 14)


def retransmit(play: Play) -> None:
    """Three duplicates of the last ACK (RFC 5681 section 3.2)."""
    play.open()
    play.all_do("send", bytes(range(250)) * 20)
    play.catch_up()
    for peer in play.peers:
        for _ in range(3):
            peer.send("A", seq=1, ack=1, pump=False)
    play.bed.pump()


def time_out(play: Play) -> None:
    play.open()
    play.all_do("send", b"lost")
    play.catch_up()
    play.bed.advance(3 * SECOND)


def probe(play: Play) -> None:
    """A closed window (RFC 9293 section 3.8.6.1)."""
    play.open()
    play.all_send("A", wnd=0)
    play.all_do("send", b"what the window has no room for")
    play.bed.advance(5 * SECOND)


def finish(play: Play) -> None:
    play.open()
    play.all_do("close")


def reset(play: Play) -> None:
    play.open()
    play.all_do("abort")


def played(situation: Callable[[Play], None], tx_slots: int, **config: Any) -> tuple[Sent, dict[str, int]]:
    """What each peer got, in its order, and the counters."""
    with Testbed(seed=7, msl_ns=0, network={"tx_slots": tx_slots}, **config) as bed:
        play = Play(bed)
        taken: Sent = {}
        situation(play)
        bed.pump()
        for peer in play.peers:
            segments = list(peer.queue)
            first = segments[0].seq if peer.iss is None else peer.iss
            taken[peer.port] = [
                ("".join(sorted(each.flags)), (each.seq - first) & 0xFFFFFFFF, each.ack, each.wnd, each.payload)
                for each in segments
            ]
        counted = bed.counted()
        for peer in play.peers:
            if peer.iss is None:
                peer.iss = first
                peer.send("RA", ack=1)
            else:
                peer.send("R", seq=1)
        assert play.application.errors == []
    return taken, counted


@pytest.mark.parametrize(
    "situation",
    [connect, acknowledge, acknowledge_three, send, retransmit, time_out, probe, finish, reset],
    ids=lambda each: each.__name__,
)
def test_a_ring_of_two_frames_sends_what_a_large_one_sends(situation: Callable[[Play], None]) -> None:
    wanted, counted = played(situation, 1000)
    assert "tx_ring_full" not in counted
    assert all(wanted.values())
    taken, counted_full = played(situation, 2)
    assert counted_full["tx_ring_full"] > 0
    assert taken == wanted
    names = ("segments_out", "segments_retransmitted", "pure_acks_out", "window_probes_out", "resets_out")
    assert {name: counted_full.get(name) for name in names} == {name: counted.get(name) for name in names}


def test_a_repetition_without_a_record_waits_for_room_as_any_other() -> None:
    """Without memory for flights (ustack/tcp/recovery/transmissions.pxd) what goes again is in the next turn, too."""
    wanted, _ = played(time_out, 1000, flights=0)
    taken, counted = played(time_out, 2, flights=0)
    assert counted["tx_ring_full"] > 0
    assert counted["transmissions_refused"] > 0
    assert taken == wanted
    assert all(wanted.values())


def tail_probe(play: Play) -> None:
    """New data, beyond the congestion window (RFC 8985 section 7.3)."""
    for number in range(PEERS):
        peer = ScriptedPeer(play.bed, port=1000 + number)
        peer.send("S", options={**OPTIONS, "sack_permitted": True})
        peer.expect("SA")
        play.bed.advance(10 * MILLISECOND)
        peer.send("A")
        play.peers.append(peer)
    play.all_do("send", bytes(range(250)) * 16)
    play.catch_up()
    play.bed.advance(150 * MILLISECOND)


def test_a_tail_probe_of_new_data_waits_for_room() -> None:
    wanted, counted = played(tail_probe, 1000, initial_window_segments=2)
    taken, counted_full = played(tail_probe, 2, initial_window_segments=2)
    assert counted["tail_probes_out"] == counted_full["tail_probes_out"] == PEERS
    assert counted_full["tx_ring_full"] > counted.get("tx_ring_full", 0)
    assert [len(segments) for segments in wanted.values()] == [1] * PEERS
    assert taken == wanted


def path_probe(play: Play) -> None:
    """One segment of another size among others (RFC 4821 section 7.3)."""
    for number in range(PEERS):
        peer = ScriptedPeer(play.bed, port=1000 + number)
        peer.send("S", options={"mss": 1460, "sack_permitted": True})
        peer.expect("SA")
        peer.send("A")
        play.peers.append(peer)
    play.all_do("send", bytes(range(250)) * 80)


@pytest.mark.parametrize("tx_slots", range(2, 10))
def test_a_probe_of_the_path_waits_for_room(tx_slots: int) -> None:
    """Wherever in an output the ring is full: before the probe, at it, behind it."""
    wanted, counted = played(path_probe, 1000, mtu_probing=2)
    taken, counted_full = played(path_probe, tx_slots, mtu_probing=2)
    assert counted["mtu_probes"] == counted_full["mtu_probes"] == PEERS
    assert counted_full["tx_ring_full"] > 0
    assert taken == wanted


def test_a_syn_that_finds_no_memory_to_wait_for_its_neighbour_is_sent_again() -> None:
    """It waits for an ARP reply, or there would be nothing to send; the retransmission timer tries again."""
    with Testbed(msl_ns=0) as bed:
        peer = ScriptedPeer(bed, stack_port=None)
        with Failing("ustack.ip.neighbour", "malloc", errno.ENOMEM) as calls:
            connection = bed.stack.connect(PEER_ADDRESS, peer.port, wait=False)
            bed.pump()
        assert calls.failed > 0
        assert not peer.queue
        bed.advance(1100 * MILLISECOND)
        peer.expect("S")
        connection.abort()


@pytest.mark.parametrize("tx_slots", [1000, 2])
def test_the_unsent_mark_that_is_crossed_where_the_ring_is_full_is_told_once(tx_slots: int) -> None:
    """Two frames of five have no room, the fourth leaves no more than the mark: what was blocked there is told all the
    same, once, and what the application then sends follows in order."""
    first, second = bytes(range(250)) * 20, bytes(reversed(range(250))) * 12
    with Testbed(msl_ns=0, network={"tx_slots": tx_slots}) as bed:
        play = Play(bed)
        told: dict[int, int] = {}

        def writable(port: int) -> None:
            assert port not in told
            told[port] = play.application.unsent(port)

        play.application.on("writable", (writable, None), ("send", second))
        play.open()
        for peer in play.peers:
            assert play.application.act(peer.port, ("unsent_low_water", 1000)) == 0
            assert play.application.act(peer.port, ("send", first)) == len(first)
            play.application.act(peer.port, "want_writable")
        bed.pump()
        assert told.keys() == {peer.port for peer in play.peers}
        assert max(told.values()) <= 1000
        assert ("tx_ring_full" in bed.counted()) == (tx_slots == 2)
        for peer in play.peers:
            assert b"".join(segment.payload for segment in peer.queue) == first + second
            assert play.application.unsent(peer.port) == 0
            peer.catch_up()
            peer.send("R")
        assert play.application.errors == []
