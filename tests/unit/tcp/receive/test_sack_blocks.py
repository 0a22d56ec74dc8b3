# SPDX-License-Identifier: MIT
"""SACK generation: RFC 2018 section 4."""

import pytest

from ustack.testing.states import ALL_OPTIONS, Scene, established

SACK_ONLY = {"mss": 1460, "sack_permitted": True}


def blocks(scene: Scene) -> list[tuple[int, int]]:
    """The SACK blocks of the next segment, relative."""
    found = scene.peer.expect("A", ack=1).options.get("sack", [])
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


def test_sack_of_an_overlapping_segment_is_one_block() -> None:
    with established(options=SACK_ONLY) as scene:
        scene.peer.send("A", seq=101, payload=b"x" * 100)
        blocks(scene)
        scene.peer.send("A", seq=151, payload=b"x" * 100)
        assert blocks(scene) == [(101, 251)]


def test_sack_reports_a_repeated_island_first() -> None:
    with established(options=SACK_ONLY) as scene:
        for seq in (101, 301):
            scene.peer.send("A", seq=seq, payload=b"x" * 100)
            blocks(scene)
        scene.peer.send("A", seq=101, payload=b"x" * 100)
        assert blocks(scene)[0] == (101, 201)


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


def test_sack_is_on_data_segments_as_well() -> None:
    with established(options=SACK_ONLY) as scene:
        scene.peer.send("A", seq=101, payload=b"x" * 100)
        blocks(scene)
        scene.send(b"y" * 2000)
        for segment in scene.peer.drain():
            assert len(segment.payload) + 4 * len(segment.options.get("sack", [])) <= 1460
