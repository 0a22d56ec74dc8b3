# SPDX-License-Identifier: MIT
"""Who is served while more frames wait than the engine can soon take: measured in frames and answers, never in time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP

from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import SECOND, Testbed

MARK = 128  # frames that wait: behind; until half of them do
BURST = 64  # the most that a turn takes
OTHERS = 16  # for each of which one SYN is let in
OFF, RESETS = 0, 2  # admission: 1 drops


@pytest.fixture
def made() -> Iterator[tuple[Testbed, Recorder]]:
    """A server that is behind when 128 frames wait."""
    yield from opened()


def opened(**config: Any) -> Iterator[tuple[Testbed, Recorder]]:
    config = {"admission_frames": MARK, **config}
    with Testbed(network={"rx_slots": 4096}, msl_ns=0, **config) as bed:
        bed.introduce()
        recorder = Recorder()
        bed.stack.listen(80, application=recorder)
        yield bed, recorder
        assert recorder.errors == []


def turn(bed: Testbed) -> int:
    """One turn at the present time; the frames taken. What was sent is sorted to the peers."""
    bed.network.advance(bed.now_ns)
    taken = bed.stack.poll(bed.now_ns)
    bed.network.advance(bed.now_ns)
    bed.collect()
    return taken


def syns(bed: Testbed, count: int, first: int = 10_000) -> list[ScriptedPeer]:
    """SYNs of so many new peers, on the wire and not yet taken."""
    peers = [ScriptedPeer(bed, port=first + i) for i in range(count)]
    for peer in peers:
        peer.send("S", options={"mss": 1000}, pump=False)
    return peers


def echo_request(peer: ScriptedPeer) -> bytes:
    """A frame of the peer's."""
    frame = peer.frame(peer.segment("A", seq=0))
    ours, theirs = IP(frame[14:]).dst, IP(frame[14:]).src
    return frame[:14] + bytes(IP(src=theirs, dst=ours) / ICMP(id=1, seq=1) / b"still there?")


def handshake(bed: Testbed, port: int) -> ScriptedPeer:
    peer = ScriptedPeer(bed, port=port)
    peer.send("S", options={"mss": 1000})
    peer.expect("SA")
    peer.send("A")
    return peer


def answered(peers: list[ScriptedPeer], flags: str = "SA") -> list[int]:
    """Places of those to whom such a segment has come."""
    return [i for i, peer in enumerate(peers) if any(segment.flags == flags for segment in peer.queue)]


def behind(bed: Testbed) -> bool:
    return bool(bed.stack.pressure()["backlog"])


# ---------------------------------------------------------------- the mark


def test_whoever_comes_is_let_in_while_fewer_frames_wait_than_the_mark(made: tuple[Testbed, Recorder]) -> None:
    bed, _ = made
    peers = syns(bed, BURST + MARK - 1)
    while turn(bed):
        assert not behind(bed)
    assert len(answered(peers)) == len(peers)
    assert "backlogs" not in bed.counted()
    assert bed.dropped() == {}


def test_from_the_mark_on_syns_are_dropped_until_half_as_many_frames_wait(made: tuple[Testbed, Recorder]) -> None:
    """The first burst finds out. 256 wait, then 192, 128, 64: with fewer than 65 the next are let in again."""
    bed, _ = made
    peers = syns(bed, 5 * BURST)
    assert [turn(bed) and behind(bed) for _ in range(5)] == [True, True, True, True, False]
    assert answered(peers) == list(range(BURST))
    assert bed.dropped() == {"drop_tcp_backlog": 4 * BURST}
    assert bed.counted()["backlogs"] == 1
    later = syns(bed, 10, first=20_000)
    turn(bed)
    assert len(answered(later)) == 10


def test_a_syn_that_is_dropped_leaves_nothing_behind_and_is_taken_when_it_comes_again(
    made: tuple[Testbed, Recorder],
) -> None:
    bed, recorder = made
    peers = syns(bed, 5 * BURST)
    while turn(bed):
        pass
    assert bed.stack.leaks()["syns"] == BURST == len(answered(peers))
    bed.advance(SECOND)
    for peer in peers[BURST : 2 * BURST]:
        peer.send("S", seq=0, options={"mss": 1000}, pump=False)
    bed.pump()
    assert set(range(BURST, 2 * BURST)) <= set(answered(peers))
    again = peers[BURST]
    again.expect("SA")
    again.send("A")
    again.send("PA", payload=b"late")
    assert recorder.received[again.port] == b"late"


@pytest.mark.parametrize("config", [{"admission": OFF}, {"admission_frames": 0}])
def test_everybody_is_let_in_without_it_and_on_a_link_in_memory_without_a_mark(config: dict[str, int]) -> None:
    for bed, _ in opened(**config):
        peers = syns(bed, 10 * BURST)
        while turn(bed):
            assert not behind(bed)
        assert len(answered(peers)) == 10 * BURST


# ---------------------------------------------------------------- who is served


def test_what_waits_behind_a_crowd_of_syns_is_served_without_an_answer_to_any_of_them(
    made: tuple[Testbed, Recorder],
) -> None:
    """100 established clients ask; 1,000 newcomers stand before them. Each SYN answered would be a frame sent."""
    bed, recorder = made
    clients = [handshake(bed, 2000 + i) for i in range(100)]
    newcomers = syns(bed, 1000)
    for client in clients:
        client.send("PA", payload=b"request", pump=False)
    while turn(bed):
        pass
    assert all(recorder.received[client.port] == b"request" for client in clients)
    let_in = answered(newcomers)
    # The first burst, before anybody looks, and those that came when half of the mark was reached.
    assert len(let_in) <= BURST + MARK // 2
    assert bed.dropped() == {"drop_tcp_backlog": 1000 - len(let_in)}


def test_the_third_segment_of_a_handshake_is_no_newcomer(made: tuple[Testbed, Recorder]) -> None:
    bed, recorder = made
    begun = [ScriptedPeer(bed, port=3000 + i) for i in range(50)]
    for peer in begun:
        peer.send("S", options={"mss": 1000})
        peer.expect("SA")
    syns(bed, 4 * BURST)
    for peer in begun:
        peer.send("PA", payload=b"request", pump=False)
    while turn(bed):
        pass
    assert all(recorder.received[peer.port] == b"request" for peer in begun)


def keep_newcomers_waiting(bed: Testbed, send_other: Callable[[int], object]) -> None:
    """256 frames wait, turn after turn, and one SYN is among every 32: all that have had their turn were let in."""
    peers: list[ScriptedPeer] = []

    def fill(frames: int) -> None:
        for i in range(frames):
            if i % 32 == 31:
                peers.extend(syns(bed, 1, first=10_000 + len(peers)))
            else:
                send_other(i)

    fill(4 * BURST)
    for _ in range(20):
        turn(bed)
        assert behind(bed)
        fill(BURST)
    assert len(answered(peers)) >= 20 * BURST // 32 - 2  # fewer than one for 16 others
    while turn(bed):
        pass


def test_frames_of_others_that_never_grow_fewer_do_not_keep_newcomers_out_for_good(
    made: tuple[Testbed, Recorder],
) -> None:
    """Established clients' ACKs."""
    bed, _ = made
    clients = [handshake(bed, 2000 + i) for i in range(8)]
    keep_newcomers_waiting(bed, lambda i: clients[i % 8].send("A", pump=False))


def test_frames_that_are_no_segments_do_not_keep_newcomers_out_for_good(made: tuple[Testbed, Recorder]) -> None:
    """Echo requests cost an answer each, whether SYNs are refused or not."""
    bed, _ = made
    sender = ScriptedPeer(bed, port=2000)
    echo = echo_request(sender)
    keep_newcomers_waiting(bed, lambda i: bed.inject(echo, pump=False))
    assert bed.counted()["icmp_echoes_answered"] > 18 * BURST


def test_of_many_newcomers_beside_others_one_for_sixteen_of_those_gets_in(made: tuple[Testbed, Recorder]) -> None:
    bed, _ = made
    clients = [handshake(bed, 2000 + i) for i in range(8)]
    peers = syns(bed, 2 * MARK)  # behind from the first look on
    turn(bed)
    bed.mark()
    before = len(answered(peers))
    for i in range(320):
        clients[i % 8].send("A", pump=False)
        peers += syns(bed, 1, first=20_000 + i)
    taken = 0
    while behind(bed):
        taken += turn(bed)
    others = min(320, (taken - (2 * MARK - BURST)) // 2)
    assert others > 200
    assert abs(len(answered(peers)) - before - others // OTHERS) <= 1
    while turn(bed):
        pass


def test_credit_for_others_does_not_pile_up(made: tuple[Testbed, Recorder]) -> None:
    """However many frames of others have passed, the next SYN is let in and the one after it is not."""
    bed, _ = made
    client = handshake(bed, 2000)
    for _ in range(3 * MARK):
        client.send("A", pump=False)
    peers = syns(bed, 4)
    for _ in range(MARK):
        client.send("A", pump=False)
    while turn(bed):
        pass
    assert answered(peers) == [0]


@pytest.mark.parametrize(
    ("admission", "let_in_most"), [(1, BURST + MARK // 2), (RESETS, BURST + MARK // 2 + 2000 // (OTHERS + 1))]
)
def test_a_flood_whose_syn_acks_nobody_answers_is_let_in_by_number_alone(admission: int, let_in_most: int) -> None:
    """Nobody knows yet whose SYN is honest. SYNs that are dropped let nobody in; those that get a RST cost what other
    segments cost, and one in seventeen is let in. What they can have is bounded: a SYN-ACK each, and the records of
    syn_queue; whoever is served is served."""
    for bed, recorder in opened(admission=admission, syn_queue=32):
        clients = [handshake(bed, 2000 + i) for i in range(8)]
        flood = syns(bed, 2000)
        for client in clients:
            client.send("PA", payload=b"request", pump=False)
        while turn(bed):
            assert bed.stack.leaks()["syns"] <= 32
        assert 0 < len(answered(flood)) <= let_in_most
        assert all(recorder.received[client.port] == b"request" for client in clients)
        assert bed.dropped()["drop_tcp_backlog"] == 2000 - len(answered(flood))


def test_a_mark_beyond_the_links_slots_is_three_quarters_of_them() -> None:
    """Or it would never be reached, and the ring would drop from everybody instead."""
    with Testbed(network={"rx_slots": 256}, msl_ns=0, admission_frames=1 << 20) as bed:
        bed.introduce()
        bed.stack.listen(80, application=Recorder())
        peers = syns(bed, 256)
        turn(bed)
        assert behind(bed)  # 192 are left
        while turn(bed):
            pass
        assert answered(peers) == list(range(BURST)) + list(range(3 * BURST, 256))
        assert bed.dropped() == {"drop_tcp_backlog": 2 * BURST}


# ---------------------------------------------------------------- a RST instead


def test_with_the_setting_a_newcomer_gets_a_rst_for_its_syn() -> None:
    """As where nobody listens: RFC 9293 section 3.10.7.1."""
    for bed, _ in opened(admission=RESETS):
        peers = syns(bed, 5 * BURST)
        while turn(bed):
            pass
        # A refusal costs what other segments cost: for sixteen of them, one is let in.
        let_in = [*range(BURST), *range(BURST + OTHERS, 5 * BURST, OTHERS + 1)]
        refused = [i for i in range(5 * BURST) if i not in let_in]
        assert answered(peers) == let_in
        assert answered(peers, "RA") == refused
        assert {peers[i].queue[0].ack for i in refused} == {(peers[0].isn + 1) & 0xFFFFFFFF}
        assert {peers[i].queue[0].seq for i in refused} == {0}
        assert bed.dropped() == {"drop_tcp_backlog": len(refused)}
        assert bed.stack.leaks()["syns"] == len(let_in)


def test_nobody_gets_a_rst_whose_connection_is_there_or_coming() -> None:
    """A SYN for an established connection is challenged (RFC 5961 section 4); one that comes again is answered."""
    for bed, _ in opened(admission=RESETS):
        there = handshake(bed, 2000)
        coming = ScriptedPeer(bed, port=2001)
        coming.send("S", options={"mss": 1000})
        coming.expect("SA")
        syns(bed, 3 * BURST)
        there.send("S", seq=500, pump=False)
        coming.send("S", seq=0, options={"mss": 1000}, pump=False)
        syns(bed, 2 * BURST, first=20_000)
        while turn(bed):
            pass
        there.expect("A")
        coming.expect("SA")
        there.expect_nothing()
        coming.expect_nothing()


# ---------------------------------------------------------------- what is hostile


@pytest.mark.parametrize("cut", [0, 1, 13, 14, 19])
def test_a_segment_cut_within_its_header_is_no_newcomer(made: tuple[Testbed, Recorder], cut: int) -> None:
    bed, _ = made
    syns(bed, 3 * BURST)
    for i in range(50):
        peer = ScriptedPeer(bed, port=30_000 + i)
        frame = peer.frame(peer.segment("S", seq=0))
        header = bytearray(frame[14:34])
        header[2:4] = (20 + cut).to_bytes(2, "big")
        header[10:12] = b"\0\0"
        total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        header[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
        bed.inject(frame[:14] + bytes(header) + frame[34 : 34 + cut], pump=False)
    while turn(bed):
        pass
    assert bed.dropped()["drop_tcp_truncated"] == 50
