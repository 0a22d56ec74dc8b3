# SPDX-License-Identifier: MIT
"""Super-frames whose data goes to the link from where it lies: what is on the wire is what copying puts there."""

import random
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from ustack.sim.world import MILLISECOND, SECOND
from ustack.testing.pair import FrameHash, Pair
from ustack.testing.parts.gathering import Gathering

NETWORK: dict[str, Any] = {"segmentation_offload": True, "delay_ns": MILLISECOND}
PATHS: dict[str, dict[str, Any]] = {
    "clean": {},
    "lossy": {"loss": 0.02},
    "marking": {"rate_bps": 200_000_000, "mark_bytes": 30_000},
}


def download(pieces: list[bytes], *, how: str, path: str = "clean", **config: Any) -> tuple[str, bytes, dict[str, int]]:
    """`a` sends the pieces to `b`: a hash of every frame and its time, what arrived, counters of `a` and its link."""
    seen = FrameHash()
    with Pair(seed=5, network=NETWORK | PATHS[path], rcv_buffer_bytes=1 << 20, **config) as pair:
        pair.network.filter_ab = lambda frame, _index: seen.add(pair.now_ns, frame)
        pair.network.filter_ba = lambda frame, _index: seen.add(pair.now_ns, frame)
        with Gathering(pair.a.link, refuses=how == "refused") if how != "copied" else nullcontext() as gathering:
            client, server = pair.connect()
            for piece in pieces:
                server.send(piece)
            got = bytearray()

            def arrived() -> bool:
                with suppress(BlockingIOError):
                    while True:
                        got.extend(client.receive(1 << 20, timeout=0))
                return len(got) == sum(map(len, pieces))

            pair.run_until(arrived, 120 * SECOND)
            counted = pair.a.counters()
            if gathering is not None:
                counted |= {"taken": gathering.taken, "refused": gathering.refused}
            client.close()
            server.close()
            pair.run_until(pair.at_rest, 300 * SECOND)
    return seen.hexdigest(), bytes(got), counted


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ecn", [1, 3])
def test_the_frames_are_the_same_whoever_reads_the_bytes(path: str, ecn: int) -> None:
    """Retransmissions and marks included; and a link that refuses changes nothing either: no echo is lost, no byte sent
    twice."""
    body = [random.Random("body").randbytes(1_500_000)]
    copied = download(body, how="copied", path=path, ecn=ecn)
    gathered = download(body, how="gathered", path=path, ecn=ecn)
    refused = download(body, how="refused", path=path, ecn=ecn)
    assert copied[1] == gathered[1] == refused[1] == body[0]
    assert copied[0] == gathered[0] == refused[0]
    assert gathered[2]["segments_gathered"] == gathered[2]["taken"] >= 3
    assert refused[2]["segments_gathered"] == 0
    assert refused[2]["refused"] == gathered[2]["taken"]
    assert copied[2]["segments_gathered"] == 0


@pytest.mark.parametrize(("octets", "gathers"), [(100, False), (1000, False), (6000, True), (70_000, True)])
def test_a_frame_of_few_pieces_is_gathered_and_one_of_many_is_copied(octets: int, gathers: bool) -> None:
    """Sixteen pieces at most; and finding them is no walk, as for a copy (the cursor is moved by both)."""
    pieces = [bytes([index & 0xFF]) * octets for index in range(1_200_000 // octets)]
    _, got, counted = download(pieces, how="gathered")
    assert got == b"".join(pieces)
    assert bool(counted["segments_gathered"]) == gathers
    assert counted["send_pieces_skipped"] <= counted["segments_out"]


def test_what_is_short_is_copied() -> None:
    _, got, counted = download([bytes(16_000)], how="gathered")
    assert got == bytes(16_000)
    assert (counted["segments_gathered"], counted["refused"]) == (0, 0)
