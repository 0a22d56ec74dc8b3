# SPDX-License-Identifier: MIT
"""How often unacceptable segments are answered: RFC 5961 section 7, and loops of ACKs between two ends out of step.

Honest probes (RFC 9293 sections 3.8.4 and 3.8.6.1) are answered whatever others send.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer
from ustack.testing.segment import Segment, build_frame
from ustack.testing.states import (
    ALL_OPTIONS,
    SYN_OPTIONS,
    Scene,
    established,
    listen,
    syn_received,
    syn_sent,
    time_wait,
)
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, Testbed

BEYOND = 0x30000000


def open_peer(testbed: Testbed, port: int, address: str = PEER_ADDRESS) -> ScriptedPeer:
    """A peer with an established connection to port 80."""
    peer = ScriptedPeer(testbed, port=port, address=address)
    peer.send("S", options=SYN_OPTIONS)
    peer.expect("SA")
    peer.send("A")
    return peer


def probe(peer: ScriptedPeer, octets: int = 0) -> bool:
    """Send a keep-alive probe of the peer's; True if it was answered."""
    peer.drain()
    peer.send("A", seq=peer.snd_nxt - 1, payload=b"\0" * octets)
    return [segment.flags for segment in peer.drain()] == ["A"]


# ---------------------------------------------------------------- honest probes


@pytest.mark.parametrize("octets", [0, 1])
def test_keepalive_probes_of_many_connections_in_one_second_are_all_answered(octets: int) -> None:
    """They are more than the limit of challenge ACKs in a second, which does not count them."""
    with listen() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=3000)
        peers = [open_peer(scene.testbed, 1024 + index) for index in range(3000)]
        assert all(probe(peer, octets) for peer in peers)
        for peer in peers:
            peer.send("R")


def test_a_keepalive_probe_is_answered_whatever_another_connection_sends() -> None:
    with listen() as scene:
        honest, hostile = open_peer(scene.testbed, 5000), open_peer(scene.testbed, 5001)
        for _ in range(2000):
            hostile.send("A", seq=hostile.snd_nxt - 1)
            hostile.send("R", seq=hostile.snd_nxt + 10)
        assert probe(honest)
        honest.send("R")
        hostile.send("R")


def test_a_keepalive_probe_is_answered_each_time() -> None:
    """75 s apart, for a day."""
    with established() as scene:
        for _ in range(1152):
            scene.testbed.advance(75 * SECOND)
            assert probe(scene.peer)


def test_a_keepalive_probe_is_answered_whatever_blind_segments_came_just_before() -> None:
    """An attacker who knows only addresses and ports sends SYNs: the answer to the peer's probe is not used up."""
    with established() as scene:
        for _ in range(9):
            scene.testbed.advance(SECOND)
            scene.peer.send("S", seq=BEYOND)
            assert len(scene.peer.drain()) == 1
            assert probe(scene.peer)
        scene.abort()


def test_data_beyond_a_closed_window_is_answered_each_time() -> None:
    """A window probe carries a byte (section 3.8.6.1), so it is no ACK, and its answer cannot begin a loop of ACKs."""
    with established(rcv_buffer_bytes=2920) as scene:
        scene.peer.send("A", payload=b"x" * 1460)
        scene.peer.send("A", payload=b"x" * 1460)
        scene.testbed.advance(SECOND)
        scene.peer.drain()
        for _ in range(20):
            scene.peer.send("A", seq=scene.peer.snd_nxt, payload=b"y")
            scene.peer.expect("A", wnd=0)
        assert len(scene.read()) == 2920


def test_a_window_probe_without_data_is_answered() -> None:
    """Linux probes with an empty segment at SND.UNA - 1. Its intervals double, and are 0.5 s, 1 s, ... at the least."""
    with established(rcv_buffer_bytes=2920) as scene:
        scene.peer.send("A", payload=b"x" * 2920)
        scene.testbed.advance(SECOND)
        for wait_ms in (600, 1200, 2400, 4800):
            scene.testbed.advance(wait_ms * MILLISECOND)
            assert probe(scene.peer)
        assert len(scene.read()) == 2920


# ---------------------------------------------------------------- one connection's junk

Junk = dict[str, Any]
JUNK: dict[str, Callable[[ScriptedPeer], Junk]] = {
    "ACK out of window": lambda peer: {"flags": "A", "seq": BEYOND},
    "ACK left of window": lambda peer: {"flags": "A", "seq": peer.snd_nxt - 2},
    "SYN out of window": lambda peer: {"flags": "S", "seq": BEYOND},
    "SYN in window": lambda peer: {"flags": "S", "seq": peer.snd_nxt + 5},
    "RST in window": lambda peer: {"flags": "R", "seq": peer.snd_nxt + 5},
    "ACK of what was never sent": lambda peer: {"flags": "A", "ack": peer.rcv_nxt + 5},
    "data with an ACK of what was never sent": lambda peer: {"flags": "A", "ack": peer.rcv_nxt + 5, "payload": b"x",
                                                            "seq": peer.snd_nxt},
    "ACK of long ago": lambda peer: {"flags": "A", "ack": peer.rcv_nxt - 10_000_000},
    "ACK with an old timestamp": lambda peer: {
        "flags": "A", "options": {"nop": 2, "timestamps": ((peer.ts_now - 100_000) & 0xFFFFFFFF, 0)}},
    "SYN with an old timestamp": lambda peer: {
        "flags": "S", "options": {"nop": 2, "timestamps": ((peer.ts_now - 100_000) & 0xFFFFFFFF, 0)},
        "seq": peer.snd_nxt},
}  # fmt: skip


def send_often(scene: Scene, kind: str, times: int = 100) -> int:
    """Send the same junk many times at one instant; the number of answers."""
    for _ in range(times):
        junk = JUNK[kind](scene.peer)
        scene.peer.send(junk.pop("flags"), **junk)
    return len([segment for segment in scene.peer.drain() if segment.flags == "A"])


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_answered_once_in_half_a_second(kind: str) -> None:
    with established(options=ALL_OPTIONS) as scene:
        assert send_often(scene, kind) == 1
        assert scene.testbed.counted()["corrective_acks_limited"] == 99
        scene.testbed.advance(400 * MILLISECOND)
        assert send_often(scene, kind) == 0
        scene.testbed.advance(200 * MILLISECOND)
        assert send_often(scene, kind) == 1
        assert scene.state == "ESTABLISHED"


@pytest.mark.parametrize("kind", [kind for kind in JUNK if "of" not in kind or "window" in kind])
def test_junk_for_a_time_wait_record_is_answered_once_in_half_a_second(kind: str) -> None:
    with time_wait(options=ALL_OPTIONS) as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = None
        scene.testbed.advance(10 * MILLISECOND)
        assert send_often(scene, kind) == 1
        scene.testbed.advance(500 * MILLISECOND)
        assert send_often(scene, kind) == 0
        scene.testbed.advance(310 * MILLISECOND)  # the record's clock ticks four times in a second
        assert send_often(scene, kind) == 1
        assert scene.state == "TIME-WAIT"


def test_repeated_fins_for_a_time_wait_record_are_all_acknowledged() -> None:
    with time_wait() as scene:
        for _ in range(5):
            scene.peer.send("FA", seq=1)
            scene.peer.expect("A", seq=2, ack=2)


@pytest.mark.parametrize(
    "kind", ["ACK out of window", "ACK left of window", "SYN out of window", "SYN in window", "RST in window"]
)
def test_junk_for_a_half_open_record_is_answered_twice_between_two_syn_acks(kind: str) -> None:
    with syn_received() as scene:
        assert send_often(scene, kind) == 2
        scene.peer.wait(2 * SECOND)
        scene.peer.expect("SA")
        assert send_often(scene, kind) == 2
        assert scene.state == "SYN-RECEIVED"


def test_repeated_syns_for_a_half_open_record_are_answered_twice_between_two_syn_acks() -> None:
    with syn_received() as scene:
        for _ in range(100):
            scene.peer.send("S", seq=0, options=SYN_OPTIONS)
        assert [segment.flags for segment in scene.peer.drain()] == ["SA", "SA"]
        scene.peer.send("A")
        assert scene.state == "ESTABLISHED"


# ---------------------------------------------------------------- the total


def challenged(testbed: Testbed, peers: list[ScriptedPeer]) -> int:
    """All peers send a SYN in the window at one instant; how many of them are challenged."""
    for peer in peers:
        peer.drain()
        peer.send("S", seq=peer.snd_nxt)
    return sum(bool(peer.queue) for peer in peers)


def test_challenges_of_all_connections_together_are_limited_by_a_number_that_changes() -> None:
    """RFC 5961 section 7; CVE-2016-5696: an attacker who counts his own challenges must not learn of other people's."""
    with listen() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=2000)
        peers = [open_peer(scene.testbed, 1024 + index, f"198.18.0.{10 + index % 100}") for index in range(1600)]
        totals = []
        for _ in range(4):
            scene.testbed.advance(2 * SECOND)
            totals.append(challenged(scene.testbed, peers))
        assert all(500 <= total < 1500 for total in totals)
        assert len(set(totals)) > 1
        assert scene.testbed.counted()["challenge_acks_limited"] == 4 * 1600 - sum(totals)
        for peer in peers:
            peer.send("R")


def test_one_peer_cannot_use_up_what_is_due_to_others() -> None:
    """An eighth of what is drawn for a second, 63 to 188 of 1,000, however many connections it has."""
    with listen() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=2000)
        greedy = [open_peer(scene.testbed, 1024 + index) for index in range(1000)]
        others = [open_peer(scene.testbed, 1024, f"198.18.0.{10 + index}") for index in range(20)]
        for _ in range(3):
            scene.testbed.advance(2 * SECOND)
            scene.testbed.mark()
            got = challenged(scene.testbed, greedy)
            assert 63 <= got <= 188
            assert scene.testbed.counted()["challenge_acks_peer_limited"] == 1000 - got
            assert challenged(scene.testbed, others) >= 19  # one may have the greedy one's place in this second
        for peer in greedy + others:
            peer.send("R")


@pytest.mark.parametrize("rate", [1, 10, 10_000])
def test_the_total_is_a_setting(rate: int) -> None:
    with listen(challenge_acks_per_second=rate) as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=2000)
        peers = [open_peer(scene.testbed, 1024 + index, f"198.18.0.{10 + index}") for index in range(100)]
        scene.testbed.advance(2 * SECOND)
        assert rate // 2 <= challenged(scene.testbed, peers) <= rate + rate // 2 or rate > 200
        assert ("challenge_acks_limited" in scene.testbed.counted()) == (rate < 200)
        for peer in peers:
            peer.send("R")


@pytest.mark.parametrize("kind", ["SYN in window", "RST in window"])
def test_challenges_of_half_open_records_are_in_the_total(kind: str) -> None:
    """Of one a second, on the average, none is left for this one."""
    with syn_received(challenge_acks_per_second=1) as scene:
        assert send_often(scene, kind) == 0
        assert scene.testbed.counted()["challenge_acks_limited"] == 100
        assert scene.state == "SYN-RECEIVED"


@pytest.mark.parametrize(
    ("kind", "counter"),
    [
        ("SYN out of window", "challenge_acks_limited"),
        ("RST in window", "challenge_acks_limited"),
        ("ACK out of window", "corrective_acks_limited"),
    ],
)
def test_answers_of_time_wait_records_are_in_the_total(kind: str, counter: str) -> None:
    """The next one may be answered at once: what was refused for the others' sake counts for no half second."""
    with time_wait(challenge_acks_per_second=1) as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = None
        scene.testbed.advance(10 * MILLISECOND)
        assert send_often(scene, kind) == 0
        assert scene.testbed.counted()[counter] == 100
        assert scene.state == "TIME-WAIT"


def test_corrective_acks_are_limited_per_peer_and_leave_what_is_due_to_it() -> None:
    """3,200 connections of one peer, each with an ACK out of the window and then a keep-alive, at one instant."""
    with listen() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=4000)
        peers = [open_peer(scene.testbed, 1024 + index) for index in range(3200)]
        scene.testbed.advance(2 * SECOND)
        for peer in peers:
            peer.send("A", seq=BEYOND)
        corrected = sum(bool(peer.drain()) for peer in peers)
        assert 1000 <= corrected <= 3001  # an eighth of 16 times as much as there are challenges
        assert scene.testbed.counted()["corrective_acks_limited"] == 3200 - corrected
        assert all(probe(peer) for peer in peers)
        for peer in peers:
            peer.send("R")


def test_a_syn_ack_that_comes_again_is_acknowledged_whatever_other_connections_send() -> None:
    """Our ACK of it was lost and we have no data to send that would repeat it: unanswered, the peer would give up."""
    with syn_sent() as scene:
        scene.listener = scene.testbed.stack.listen(80, backlog=2000)
        peers = [open_peer(scene.testbed, 1024 + index, f"198.18.0.{10 + index % 100}") for index in range(1600)]
        scene.peer.send("SA", options=SYN_OPTIONS)
        scene.peer.expect("A", seq=1, ack=1)
        for wait in (1, 2, 4):
            scene.testbed.advance(wait * SECOND)
            assert challenged(scene.testbed, peers) < 1600
            scene.peer.send("SA", seq=0, options=SYN_OPTIONS)
            scene.peer.expect("A", seq=1, ack=1)
            scene.peer.send("SA", seq=0, options=SYN_OPTIONS)
            scene.peer.expect_nothing()
        scene.abort()
        for peer in peers:
            peer.send("R")


# ---------------------------------------------------------------- two stacks out of step


def forge(pair: Pair, to_a: bool, **fields: Any) -> None:
    """A segment that looks like the other stack's next one, and is not."""
    stack, mac, end = (
        (pair.a, pair.network.a.mac, pair.network.b) if to_a else (pair.b, pair.network.b.mac, pair.network.a)
    )
    (row,) = stack.connections("connection")
    segment = Segment(
        src=row["remote"][0], dst=row["local"][0], sport=row["remote"][1], dport=row["local"][1],
        seq=row["rcv_nxt"], ack=row["snd_nxt"], flags="A", wnd=65535,
    )  # fmt: skip
    other = pair.network.b.mac if to_a else pair.network.a.mac
    end.inject(build_frame(replace(segment, **fields), src_mac=other, dst_mac=mac))


@pytest.mark.parametrize("timestamps", [0, 1])
@pytest.mark.parametrize("octets", [1, 2, 1000])
def test_two_stacks_out_of_step_do_not_answer_each_other_for_ever(timestamps: int, octets: int) -> None:
    """One forged byte for each: both have now acknowledged what the other never sent, and correct each other."""
    with Pair(network={"delay_ns": MILLISECOND}, timestamps=timestamps) as pair:
        opener, accepter = pair.connect()
        pair.advance(SECOND)
        before = [stack.counters()["segments_out"] for stack in (pair.a, pair.b)]
        for to_a in (True, False):
            forge(pair, to_a, payload=b"x" * octets, flags="PA")
        pair.advance(100 * SECOND)
        sent = [stack.counters()["segments_out"] - count for stack, count in zip((pair.a, pair.b), before, strict=True)]
        assert max(sent) <= 220
        opener.abort()
        accepter.abort()
        pair.advance(SECOND)
