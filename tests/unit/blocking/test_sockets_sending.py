# SPDX-License-Identifier: MIT
"""What send() takes, lends and gives back, and the marks at which a full queue takes more."""

import gc
import mmap
import sys
import weakref
from array import array
from contextlib import suppress
from typing import Any

import pytest

from tests.unit.blocking.opening import TURN
from ustack import (
    Connection,
    SimNetwork,
    Stack,
    StackError,
)
from ustack.buf.lent import alive as lent_alive
from ustack.testing.pair import Pair
from ustack.testing.testbed import PEER_ADDRESS, STACK_ADDRESS

# ---------------------------------------------------------------- send


def buffers() -> list[Any]:
    data = b"hello, world"
    mapped = mmap.mmap(-1, len(data))
    mapped.write(data)
    return [
        data,
        bytearray(data),
        memoryview(data),
        memoryview(b"--" + data)[2:],
        array("B", data),
        array("I", data),
        memoryview(data).cast("B", (3, 4)),
        mapped,
    ]


@pytest.mark.parametrize("data", buffers(), ids=lambda data: type(data).__name__)
def test_any_contiguous_buffer_is_sent(pair: Pair, ends: tuple[Connection, Connection], data: Any) -> None:
    opener, accepter = ends
    assert opener.send(data) == 12
    pair.advance(TURN)
    assert accepter.receive() == b"hello, world"


@pytest.mark.parametrize("data", [b"", bytearray(), memoryview(b""), memoryview(b"x")[1:]], ids=repr)
def test_nothing_is_sent_at_once(pair: Pair, ends: tuple[Connection, Connection], data: Any) -> None:
    opener, _ = ends
    before = pair.b.counters()["segments_out"]
    assert opener.send(data) == 0
    pair.advance(TURN)
    assert pair.b.counters()["segments_out"] == before


@pytest.mark.parametrize("data", ["text", 5, None, [1], 1.5, object()], ids=repr)
def test_what_is_not_a_buffer_is_refused(ends: tuple[Connection, Connection], data: Any) -> None:
    with pytest.raises(TypeError):
        ends[0].send(data)


def test_a_buffer_with_gaps_is_refused(ends: tuple[Connection, Connection]) -> None:
    with pytest.raises(BufferError):
        ends[0].send(memoryview(b"abcdef")[::2])


def test_a_refused_buffer_is_not_kept(ends: tuple[Connection, Connection]) -> None:
    ends[0].shutdown()
    buffer = bytearray(b"x")
    with pytest.raises(StackError):
        ends[0].send(buffer)
    buffer.append(0)


def test_a_buffer_is_lent_until_it_is_acknowledged(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, _ = ends
    buffer = bytearray(b"x" * 5000)
    opener.send(buffer)
    with pytest.raises(BufferError):
        buffer.append(0)
    pair.advance(TURN)
    buffer.append(0)


def test_references_to_a_sent_object_come_back(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, _ = ends
    data = bytes(range(256)) * 100
    before = sys.getrefcount(data)
    for _ in range(10):
        opener.send(data)
    assert sys.getrefcount(data) > before
    pair.advance(TURN)
    assert sys.getrefcount(data) == before


@pytest.mark.parametrize("end", ["abort", "stack"])
def test_references_come_back_when_the_connection_ends_first(end: str) -> None:
    class Data(bytearray):
        """Can be watched."""

    with Pair() as pair:
        before = lent_alive()
        opener, _ = pair.connect()
        data = Data(b"x" * 100_000)
        reference = weakref.ref(data)
        opener.send(data)
        assert lent_alive() == before + 1
        if end == "abort":
            opener.abort()
            pair.advance(TURN)
        else:
            pair.b.close()
        assert lent_alive() == before
        del data
        gc.collect()
        assert reference() is None


def test_a_full_queue_takes_a_part_at_once() -> None:
    with Pair(b={"snd_queue_bytes": 10_000}) as pair:
        opener, accepter = pair.connect()
        data = bytes(range(250)) * 100
        sent = opener.send(data)
        assert sent == 10_000
        assert opener.send(data[sent:]) == 0
        pair.advance(TURN)
        assert opener.send(data[sent:]) == 10_000
        pair.advance(TURN)
        assert accepter.receive() == data[:20_000]


@pytest.mark.parametrize(("low_water", "goes_on_at"), [(0, 50_000), (20_000, 50_000), (70_000, 70_000)])
def test_a_send_that_waits_goes_on_at_half_of_the_queue_or_at_the_mark(low_water: int, goes_on_at: int) -> None:
    """Whichever is more, so that a long path never runs dry while Python wakes. The far end acknowledges at most its
    small window between two turns, and what is queued then is written down."""
    window = 8000
    network = SimNetwork()
    with (
        Stack(network.b, PEER_ADDRESS + "/24", rcv_buffer_bytes=window) as far,
        Stack(network.a, STACK_ADDRESS + "/24", snd_queue_bytes=100_000, snd_low_water_bytes=low_water) as near,
    ):
        listener = far.listen(80)
        connection = near.connect(PEER_ADDRESS, 80, wait=False)
        for _ in range(100):
            near.poll()
            far.poll()
        peer = listener.accept(timeout=0)
        queued: list[int] = []

        def between_turns() -> None:
            queued.append(connection.info().queued_bytes)
            far.poll()
            with suppress(BlockingIOError):
                peer.receive(timeout=0)
            far.poll()
            if len(queued) < 1000:
                near.call_soon_threadsafe(between_turns)

        near.call_soon_threadsafe(between_turns)
        assert connection.send(bytes(200_000), timeout=60) == 200_000
        assert queued.count(100_000) > 1  # it was filled up again
        assert goes_on_at < min(queued) <= goes_on_at + window
        connection.abort()
        peer.abort()


def test_nothing_is_taken_while_more_than_the_mark_was_never_sent() -> None:
    with Pair(a={"rcv_buffer_bytes": 4000}) as pair:
        opener, accepter = pair.connect()
        opener.set_unsent_low_water(1000)
        assert opener.send(bytes(10_000)) == 10_000  # below the mark a send() is taken whole
        assert opener.send(b"x") == 0
        pair.advance(TURN)
        assert (opener.info().notsent_bytes > 1000, opener.send(b"x")) == (True, 0)
        while opener.info().notsent_bytes > 1000:
            accepter.receive()
            pair.advance(TURN)
        assert opener.send(b"x") == 1


def test_a_mark_that_there_is_no_memory_for_is_refused() -> None:
    with Pair(b={"extra_records": 0}) as pair:
        opener, _ = pair.connect()
        for setter in (opener.set_low_water, opener.set_unsent_low_water):
            with pytest.raises(StackError) as raised:
                setter(1)
            assert raised.value.reason == "no_memory"


def test_data_sent_before_the_handshake_goes_with_its_end(pair: Pair) -> None:
    listener = pair.a.listen(80)
    opener = pair.b.connect(STACK_ADDRESS, 80, wait=False)
    assert opener.send(b"early") == 5
    pair.advance(TURN)
    assert listener.accept(timeout=0).receive() == b"early"
