# SPDX-License-Identifier: MIT
"""Reassembly: every order of arrival gives the same stream, and memory is bounded whatever a peer sends."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.testing.states import established
from ustack.testing.testbed import SECOND, read_available

DATA = bytes(index * 7 % 251 for index in range(3000))


@settings(deadline=None, max_examples=60)
@given(
    cuts=st.lists(st.integers(1, len(DATA) - 1), min_size=0, max_size=25),
    overlap=st.integers(0, 200),
    seed=st.integers(0, 1 << 30),
    fin=st.booleans(),
)
def test_any_order_with_any_overlap_gives_the_stream(cuts: list[int], overlap: int, seed: int, fin: bool) -> None:
    edges = [0, *sorted(set(cuts)), len(DATA)]
    pieces = [(max(0, left - overlap), min(len(DATA), right + overlap)) for left, right in itertools.pairwise(edges)]
    generator = random.Random(seed)
    generator.shuffle(pieces)
    with established() as scene:
        got = b""
        for left, right in pieces:
            last = fin and right == len(DATA)
            scene.peer.send(
                "FA" if last else "A", seq=1 + left, payload=DATA[left:right], pump=generator.random() < 0.8
            )
            if generator.random() < 0.3:
                got += read_available(scene.conn)[0]
        scene.testbed.pump()
        rest, eof = read_available(scene.conn)
        assert got + rest == DATA
        assert eof == fin
        scene.testbed.advance(SECOND)
        assert scene.peer.relative(scene.peer.drain()[-1])[1] == 1 + len(DATA) + fin


@pytest.mark.parametrize(
    ("segments", "stream"),
    [
        pytest.param([(1, b"abc"), (1, b"XXXdef")], b"abcdef", id="received in order"),
        pytest.param([(4, b"def"), (4, b"XXXghi"), (1, b"abc")], b"abcdefghi", id="held, and again out of order"),
        pytest.param([(4, b"def"), (1, b"abcXXXghi")], b"abcXXXghi", id="held, and again in order"),
        pytest.param([(4, b"def"), (1, b"abcX")], b"abcXef", id="held, and a part again in order"),
    ],
)
def test_conflicting_overlap_keeps_what_came_first(segments: list[tuple[int, bytes]], stream: bytes) -> None:
    """Two segments say different bytes for the same sequence numbers: an honest peer never does that.

    RFC 9293 section 3.10: "we reconstruct the segment to contain just the new data", so that what came first stays. So
    it does here, with one exception: a segment that arrives in order is delivered whole, and what was held of it is
    thrown away. Nothing that the application could read changes: it never sees what is held behind a hole.
    """
    with established() as scene:
        for seq, payload in segments:
            scene.peer.send("A", seq=seq, payload=payload)
        assert scene.read() == stream
        assert scene.testbed.stack.leaks()["rx_chunks"] == 0


def test_tiny_islands_are_bounded() -> None:
    """One byte in each segment, each with a hole before it: 256 runs are kept, and their memory counts as well."""
    with established(rcv_buffer_bytes=16384) as scene:
        for index in range(8000):
            scene.peer.send("A", seq=3 + 2 * index, payload=b"x", pump=index % 32 == 31)
        scene.testbed.pump()
        scene.peer.drain()
        assert scene.testbed.dropped() == {"drop_tcp_reassembly_full": 8000 - 256}
        assert scene.testbed.stack.leaks()["rx_held_bytes"] <= 2 * 16384 + 2048
        scene.peer.send("A", seq=1, payload=b"ab")
        assert scene.read() == b"abx"


def test_all_connections_together_are_bounded() -> None:
    """rx_memory_bytes: a peer with many connections cannot take more than one bound.

    Seven segments of 40 fit. The others are counted as reassembly_full, which is what an out-of-order segment without
    memory is; drop_no_memory is for one in order.
    """
    with established(rcv_buffer_bytes=65535, rx_memory_bytes=20_000) as scene:
        for index in range(40):
            scene.peer.send("A", seq=1001 + 1000 * index, payload=b"x" * 1000)
        scene.peer.drain()
        assert scene.testbed.dropped() == {"drop_tcp_reassembly_full": 33}
        assert scene.testbed.stack.leaks()["rx_held_bytes"] <= 20_000
        scene.peer.send("A", seq=1, payload=b"x" * 1000)
        assert scene.read() == b"x" * 8000


def test_a_gap_that_is_never_filled_is_freed_with_the_connection() -> None:
    with established() as scene:
        for index in range(20):
            scene.peer.send("A", seq=101 + 200 * index, payload=b"x" * 100)
        scene.peer.drain()
        assert scene.testbed.stack.leaks()["rx_chunks"] > 0
        scene.peer.send("R")
        assert scene.state == "CLOSED"
        scene.connection = None
        scene.testbed.pump()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_fin_beyond_a_hole_is_only_taken_in_order(order: tuple[int, ...]) -> None:
    segments = [(1, b"aaa", "A"), (4, b"bbb", "A"), (7, b"", "FA")]
    with established() as scene:
        for index in order:
            seq, payload, flags = segments[index]
            scene.peer.send(flags, seq=seq, payload=payload)
        assert read_available(scene.conn) == (b"aaabbb", True)
        assert scene.state == "CLOSE-WAIT"


@pytest.mark.parametrize("held", [False, True])
def test_data_that_fills_a_hole_ends_where_the_fin_behind_it_was(held: bool) -> None:
    """Nothing follows a FIN (RFC 9293 section 3.10.7.4, eighth): what contradicts one that has come is cut off."""
    with established() as scene:
        scene.peer.send("FA", seq=6)
        if held:
            scene.peer.send("A", seq=1, payload=b"a")
            scene.peer.send("A", seq=2, payload=b"bcde and more")
        else:
            scene.peer.send("A", seq=1, payload=b"abcde and more")
        assert read_available(scene.conn) == (b"abcde", True)
        assert scene.state == "CLOSE-WAIT"


def test_data_after_an_out_of_order_fin_is_not_taken() -> None:
    with established() as scene:
        scene.peer.send("FA", seq=4)
        scene.peer.send("A", seq=4, payload=b"after")
        scene.peer.send("A", seq=1, payload=b"abc")
        assert read_available(scene.conn) == (b"abc", True)
