# SPDX-License-Identifier: MIT
"""SACK generation: RFC 2018 section 4; what has come twice: RFC 2883 section 4."""

from collections.abc import Iterator

import pytest

from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, PEER_PORT, STACK_PORT, SYN_OPTIONS, Scene, established
from ustack.testing.testbed import SECOND

SACK_ONLY = {"mss": 1460, "sack_permitted": True}


def blocks(scene: Scene, ack: int = 1) -> list[tuple[int, int]]:
    """The SACK blocks of the next segment, relative."""
    found = scene.peer.expect("A", ack=ack).options.get("sack", [])
    return [
        ((left - scene.peer.isn) & 0xFFFFFFFF, (right - scene.peer.isn) & 0xFFFFFFFF) for left, right in found
    ]  # fmt: skip


def test_sack_reports_an_island() -> None:
    with established(options=SACK_ONLY) as scene:
        scene.peer.send("A", seq=101, payload=b"x" * 100)
        assert blocks(scene) == [(101, 201)]


def test_sack_reports_the_latest_island_first() -> None:
    with established(options=SACK_ONLY) as scene:
        seen = []
        for seq in (1001, 301, 601):
            scene.peer.send("A", seq=seq, payload=b"x" * 100)
            seen.append(blocks(scene))
        assert seen == [[(1001, 1101)], [(301, 401), (1001, 1101)], [(601, 701), (301, 401), (1001, 1101)]]


@pytest.mark.parametrize(("options", "most"), [(SACK_ONLY, 4), (ALL_OPTIONS, 3)], ids=["plain", "timestamps"])
def test_sack_reports_as_many_blocks_as_fit(options: dict[str, object], most: int) -> None:
    """RFC 2018 section 3: four blocks in forty bytes, three beside timestamps."""
    with established(options=options) as scene:
        for index in range(6):
            scene.peer.send("A", seq=1001 + 300 * index, payload=b"x" * 100)
            found = blocks(scene)
        assert found == [(1001 + 300 * index, 1101 + 300 * index) for index in range(5, 5 - most, -1)]


def test_sack_joins_touching_segments() -> None:
    with established(options=SACK_ONLY) as scene:
        for seq in (101, 301, 201):
            scene.peer.send("A", seq=seq, payload=b"x" * 100)
            found = blocks(scene)
        assert found == [(101, 401)]


def test_sack_of_an_overlapping_segment_is_one_block_behind_what_came_twice() -> None:
    with established(options=SACK_ONLY) as scene:
        scene.peer.send("A", seq=101, payload=b"x" * 100)
        blocks(scene)
        scene.peer.send("A", seq=151, payload=b"x" * 100)
        assert blocks(scene) == [(151, 201), (101, 251)]


def test_sack_reports_a_repeated_island_first() -> None:
    with established(options=SACK_ONLY) as scene:
        for seq in (101, 301):
            scene.peer.send("A", seq=seq, payload=b"x" * 100)
            blocks(scene)
        scene.peer.send("A", seq=101, payload=b"x" * 100)
        assert blocks(scene)[1:] == [(101, 201), (301, 401)]


def test_sack_stops_when_the_hole_is_filled() -> None:
    with established(options=SACK_ONLY) as scene:
        scene.peer.send("A", seq=101, payload=b"x" * 100)
        blocks(scene)
        scene.peer.send("A", seq=1, payload=b"x" * 100)
        scene.peer.expect("A", ack=201, options={"sack": None})


def test_sack_keeps_reporting_islands_beyond_the_filled_hole() -> None:
    with established(options=SACK_ONLY) as scene:
        for seq in (101, 301):
            scene.peer.send("A", seq=seq, payload=b"x" * 100)
            blocks(scene)
        scene.peer.send("A", seq=1, payload=b"x" * 100)
        answer = scene.peer.expect("A", ack=201)
        left, right = answer.options["sack"][0]
        assert ((left - scene.peer.isn) & 0xFFFFFFFF, (right - scene.peer.isn) & 0xFFFFFFFF) == (301, 401)
        assert len(answer.options["sack"]) == 1


def test_what_finds_no_room_is_not_reported() -> None:
    """RFC 2018 section 8 would have the newest segment in the first block all the same. What is named is not sent again
    before a timeout, and this one has to be."""
    with established(options=SACK_ONLY, rcv_buffer_bytes=65535, rx_memory_bytes=20_000) as scene:
        kept = []
        for index in range(12):
            left = 1001 + 1500 * index
            scene.peer.send("A", seq=left, payload=b"x" * 1000)
            found = blocks(scene)
            if "drop_tcp_reassembly_full" not in scene.testbed.dropped():
                kept.append((left, left + 1000))
            assert found == kept[:-5:-1]
        assert 0 < len(kept) < 12
        scene.abort()


def test_sack_is_on_data_segments_as_well() -> None:
    with established(options=SACK_ONLY) as scene:
        scene.peer.send("A", seq=101, payload=b"x" * 100)
        blocks(scene)
        scene.send(b"y" * 2000)
        for segment in scene.peer.drain():
            assert len(segment.payload) + 4 * len(segment.options.get("sack", [])) <= 1460


# ---------------------------------------------------------------- what has come twice


def take(scene: Scene, *pieces: tuple[int, int]) -> None:
    """Segments of data that end where they end, in one burst."""
    for seq, end in pieces:
        scene.peer.send("A", seq=seq, payload=b"x" * (end - seq), pump=False)
    scene.testbed.pump()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """300 bytes have arrived, and are acknowledged."""
    with established(options=SACK_ONLY) as made:
        take(made, (1, 101), (101, 201), (201, 301))
        made.testbed.advance(SECOND)
        made.peer.rcv_nxt = 1
        made.peer.drain()
        yield made


def test_a_segment_that_comes_again_is_reported_once(scene: Scene) -> None:
    take(scene, (101, 201))
    assert blocks(scene, ack=301) == [(101, 201)]
    take(scene, (301, 302))
    scene.testbed.advance(SECOND)
    assert blocks(scene, ack=302) == []


def test_the_part_that_was_known_is_reported_at_once(scene: Scene) -> None:
    take(scene, (250, 350))
    assert blocks(scene, ack=350) == [(250, 301)]


def test_a_duplicate_beyond_a_hole_is_followed_by_its_run(scene: Scene) -> None:
    take(scene, (401, 501))
    take(scene, (501, 601))
    take(scene, (801, 901))
    scene.peer.drain()
    take(scene, (501, 601))
    assert blocks(scene, ack=301) == [(501, 601), (401, 601), (801, 901)]


def test_a_duplicate_below_a_hole_leaves_room_for_what_lies_beyond(scene: Scene) -> None:
    take(scene, (401, 501))
    scene.peer.drain()
    take(scene, (1, 101))
    assert blocks(scene, ack=301) == [(1, 101), (401, 501)]


def test_what_joins_a_run_reports_what_was_in_it(scene: Scene) -> None:
    take(scene, (401, 501))
    scene.peer.drain()
    take(scene, (450, 600))
    assert blocks(scene, ack=301) == [(450, 501), (401, 600)]


def test_pieces_of_one_burst_that_touch_are_one_block(scene: Scene) -> None:
    """An ACK is sent for all of them, and a block is a contiguous sequence (section 3)."""
    take(scene, (201, 301), (1, 101), (101, 201))
    assert blocks(scene, ack=301) == [(1, 201)]
    scene.peer.expect_nothing()


def test_more_blocks_than_fit_are_not_sent(scene: Scene) -> None:
    for index in range(6):
        take(scene, (1001 + 300 * index, 1101 + 300 * index))
    scene.peer.drain()
    take(scene, (1, 101))
    assert len(blocks(scene, ack=301)) == 4


def test_a_peer_without_sack_is_told_nothing() -> None:
    with established(options=SYN_OPTIONS) as scene:
        take(scene, (1, 101), (1, 101))
        scene.peer.expect("A", ack=101, options={"sack": None})


def test_what_cannot_be_the_peers_is_not_reported(scene: Scene) -> None:
    """It would take back a repair that was needed: an ACK that RFC 5961 section 5.2 refuses is somebody else's."""
    scene.peer.send("A", seq=101, payload=b"x" * 100, ack=1 + (1 << 30))
    scene.peer.expect("A", ack=301, options={"sack": None})


def test_data_that_waits_to_be_sent_does_not_swallow_a_report(scene: Scene) -> None:
    scene.peer.send("A", seq=101, payload=b"x" * 100, pump=False)
    scene.conn.send(b"answer")
    scene.testbed.pump()
    answers = scene.peer.drain()
    assert [bool(answer.options.get("sack")) for answer in answers].count(True) == 1
    assert b"".join(answer.payload for answer in answers) == b"answer"


def test_a_connection_that_ends_leaves_no_report_behind() -> None:
    """The next one has its record: there is one."""
    with established(options=SACK_ONLY, max_connections=1) as scene:
        scene.peer.send("A", payload=b"x" * 100, pump=False)
        scene.peer.send("A", seq=1, payload=b"x" * 100, pump=False)
        scene.peer.send("R", seq=101)
        newcomer = ScriptedPeer(scene.testbed, port=PEER_PORT + 1, stack_port=STACK_PORT)
        newcomer.send("S", options=SACK_ONLY)
        newcomer.expect("SA", seq=0, ack=1)
        newcomer.send("A", payload=b"x" * 2920)
        newcomer.expect("A", ack=2921, options={"sack": None})
        newcomer.send("R")


def test_a_flood_of_duplicates_on_many_connections_is_one_ack_each_and_tells_nobody_of_anothers() -> None:
    """There are 16 places for all of them: who finds none says nothing, and nobody says what is not his own."""
    with established(options=SACK_ONLY) as scene:
        peers = [ScriptedPeer(scene.testbed, port=PEER_PORT + 1 + index, stack_port=STACK_PORT) for index in range(200)]
        accepted = []
        assert scene.listener is not None
        for index, peer in enumerate(peers):
            peer.send("S", options=SACK_ONLY)
            peer.expect("SA", seq=0, ack=1)
            peer.send("A", payload=b"x" * (index + 1))
            accepted.append(scene.listener.accept(timeout=0))
            scene.testbed.advance(SECOND)
            peer.drain()
        scene.testbed.mark()
        for _ in range(3):
            for index, peer in enumerate(peers):
                peer.send("A", seq=1, payload=b"x" * (index + 1), pump=False)
            scene.testbed.pump()
        told = 0
        for index, peer in enumerate(peers):
            answers = peer.drain()
            assert len(answers) <= 3
            for answer in answers:
                found = [
                    tuple(edge - peer.isn & 0xFFFFFFFF for edge in pair) for pair in answer.options.get("sack", [])
                ]
                assert found in ([], [(1, index + 2)])
                told += len(found)
        assert told >= 16
        assert scene.testbed.counted()["pure_acks_out"] <= 600
        scene.testbed.advance(SECOND)
        for index, peer in enumerate(peers):  # and what has not been said then is not said later
            peer.send("A", payload=b"y" * 2920)
            peer.expect("A", ack=index + 2922, options={"sack": None})
            peer.send("R")
        accepted.clear()


@pytest.mark.parametrize("state", ["FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"])
def test_what_comes_twice_is_reported_to_the_end_of_a_connection(scene: Scene, state: str) -> None:
    """All but TIME-WAIT, whose record has no room for it. The FIN that comes again is no data."""
    peer = scene.peer
    peer.snd_nxt = 301
    fin = 0
    if state in ("CLOSE-WAIT", "LAST-ACK"):
        peer.send("FA")
        fin = 1
    if state != "CLOSE-WAIT":
        scene.shutdown()
    peer.catch_up()
    if state in ("FIN-WAIT-2", "TIME-WAIT"):
        peer.send("A", ack=2)
    if state in ("CLOSING", "TIME-WAIT"):
        peer.send("FA", ack=1 if state == "CLOSING" else 2)
        fin = 1
    peer.drain()
    assert scene.state == state
    scene.testbed.advance(SECOND // 100)
    peer.drain()
    peer.send("FA" if fin else "A", seq=201, ack=1, payload=b"x" * 100)
    assert blocks(scene, ack=301 + fin) == ([(201, 301)] if state != "TIME-WAIT" else [])
