# SPDX-License-Identifier: MIT
"""Listeners and connections: what each call does, refuses and raises, in every condition they can be in.

Most tests move two stacks by a manual clock. Those that must wait have a kernel's socket at the other end of a veth.
"""

import gc
import mmap
import os
import socket
import subprocess
import sys
import textwrap
import threading
import weakref
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from ustack import (
    AddressInUse,
    Connection,
    ConnectionAborted,
    ConnectionRefused,
    ConnectionReset,
    ConnectionTimeout,
    Listener,
    PacketMmapLink,
    SimNetwork,
    Stack,
    StackError,
)
from ustack.buf.lent import alive as lent_alive
from ustack.lab import namespace
from ustack.lab.making import Made
from ustack.testing.event_recorder import EventRecorder
from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, STACK_ADDRESS, Testbed

TURN = 50 * MILLISECOND


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(msl_ns=0) as made:
        yield made


@pytest.fixture
def ends(pair: Pair) -> tuple[Connection, Connection]:
    """Both ends of an established connection: the opener's (stack b), the accepter's (stack a)."""
    return pair.connect()


def opened(pair: Pair, port: int = 80) -> Connection:
    connection = pair.b.connect(STACK_ADDRESS, port, wait=False)
    pair.advance(TURN)
    return connection


# ---------------------------------------------------------------- made by the stack alone


@pytest.mark.parametrize("kind", [Listener, Connection])
def test_they_are_not_made_by_hand(kind: Any) -> None:
    with pytest.raises(TypeError, match="Stack"):
        kind()


def test_a_connection_that_nobody_made_is_harmless() -> None:
    connection = Connection.__new__(Connection)
    connection.close()
    connection.abort()
    assert connection.state == "CLOSED"
    for call in (lambda: connection.send(b"x"), connection.receive, connection.info, connection.shutdown):
        with pytest.raises(StackError):
            call()


def test_a_listener_that_nobody_made_is_closed() -> None:
    listener = Listener.__new__(Listener)
    listener.close()
    with pytest.raises(ValueError, match="closed"):
        listener.accept(timeout=0)


# ---------------------------------------------------------------- listeners


def test_accept_gives_connections_in_the_order_they_came(pair: Pair) -> None:
    listener = pair.a.listen(80)
    openers = [opened(pair) for _ in range(3)]
    assert listener.pending == 3
    assert [listener.accept(timeout=0).remote for _ in openers] == [opener.local for opener in openers]
    assert listener.pending == 0


def test_accept_without_a_connection_says_so(pair: Pair) -> None:
    listener = pair.a.listen(80)
    with pytest.raises(BlockingIOError):
        listener.accept(timeout=0)


@pytest.mark.parametrize("timeout", [None, 0.0, 0.5, 3600])
def test_a_manual_clock_does_not_wait_for_a_connection(pair: Pair, timeout: float | None) -> None:
    listener = pair.a.listen(80)
    with pytest.raises(BlockingIOError):
        listener.accept(timeout=timeout)


def test_both_ends_know_their_addresses(ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    assert accepter.local == (STACK_ADDRESS, 80) == opener.remote
    assert opener.local == accepter.remote
    assert opener.local[0] == PEER_ADDRESS
    assert 32768 <= opener.local[1] <= 60999


def test_a_listener_knows_its_port_and_address(pair: Pair) -> None:
    assert (pair.a.listen(80).port, pair.a.listen(81).address) == (80, None)
    assert pair.a.listen(82, address=STACK_ADDRESS).address == STACK_ADDRESS


def test_a_closed_listener_accepts_nothing(pair: Pair) -> None:
    listener = pair.a.listen(80)
    listener.close()
    listener.close()
    with pytest.raises(ValueError, match="closed"):
        listener.accept(timeout=0)
    assert opened(pair).reason == "refused"


def test_closing_a_listener_resets_what_nobody_accepted(pair: Pair) -> None:
    listener = pair.a.listen(80)
    opener = opened(pair)
    listener.close()
    pair.advance(TURN)
    assert (listener.pending, opener.reason) == (0, "reset")


def test_closing_a_listener_leaves_accepted_connections_alone(pair: Pair) -> None:
    listener = pair.a.listen(80)
    opener = opened(pair)
    accepter = listener.accept(timeout=0)
    listener.close()
    accepter.send(b"still here")
    pair.advance(TURN)
    assert opener.receive() == b"still here"


def test_a_port_can_be_listened_on_again(pair: Pair) -> None:
    pair.a.listen(80).close()
    listener = pair.a.listen(80)
    opened(pair)
    assert listener.pending == 1


def test_a_port_is_listened_on_once(pair: Pair) -> None:
    first = pair.a.listen(80)
    with pytest.raises(AddressInUse) as raised:
        pair.a.listen(80)
    assert raised.value.reason == "in_use"
    first.close()


def test_two_listeners_of_one_port_get_what_is_theirs(pair: Pair) -> None:
    """One of any address, one of the very address; or the second is refused. Never do they take from each other."""
    general = pair.a.listen(80)
    try:
        exact = pair.a.listen(80, address=STACK_ADDRESS)
    except AddressInUse:
        opened(pair)
        assert general.pending == 1
        return
    opened(pair)
    assert (general.pending, exact.pending) == (0, 1)
    exact.close()
    opened(pair)
    assert general.pending == 1


def test_listeners_are_context_managers(pair: Pair) -> None:
    with pair.a.listen(80) as listener:
        assert isinstance(listener, Listener)
    with pytest.raises(ValueError, match="closed"):
        listener.accept(timeout=0)


@pytest.mark.parametrize("backlog", [1, 2, 5])
def test_with_a_full_backlog_no_handshake_begins(pair: Pair, backlog: int) -> None:
    listener = pair.a.listen(80, backlog=backlog)
    openers = [opened(pair) for _ in range(backlog + 3)]
    assert listener.pending == backlog
    assert pair.a.counters()["drop_tcp_syn_queue"] == 3
    assert [opener.state for opener in openers[backlog:]] == ["SYN-SENT"] * 3


@pytest.mark.parametrize("backlog", [1, 2, 5])
def test_handshakes_that_end_with_a_full_backlog_wait_for_room(pair: Pair, backlog: int) -> None:
    """Their last ACK is ignored; the SYN-ACK that is sent again asks for another."""
    listener = pair.a.listen(80, backlog=backlog)
    openers = [pair.b.connect(STACK_ADDRESS, 80, wait=False) for _ in range(backlog + 3)]
    pair.advance(TURN)
    assert listener.pending == backlog
    assert pair.a.counters()["accept_queue_overflow"] == 3
    accepted = [listener.accept(timeout=0) for _ in range(backlog)]
    while len(accepted) < len(openers):
        pair.run_until(lambda: listener.pending > 0, 30 * SECOND)
        accepted.append(listener.accept(timeout=0))
    assert {connection.remote for connection in accepted} == {opener.local for opener in openers}


def test_an_accepted_connection_makes_room_in_the_backlog(pair: Pair) -> None:
    listener = pair.a.listen(80, backlog=1)
    kept = []
    for _ in range(5):
        kept.append(opened(pair))
        kept.append(listener.accept(timeout=0))
    assert all(connection.state == "ESTABLISHED" for connection in kept)


def test_a_connection_that_ends_while_it_waits_makes_room_and_is_told(pair: Pair) -> None:
    listener = pair.a.listen(80, backlog=1)
    opened(pair).abort()
    pair.advance(TURN)
    second = opened(pair)
    assert second.state == "ESTABLISHED"
    states = []
    while listener.pending:
        states.append(listener.accept(timeout=0).state)
    assert states[-1] == "ESTABLISHED"


def test_a_dropped_listener_is_closed_with_a_warning(pair: Pair) -> None:
    """Nobody could accept from it any more."""
    listener = pair.a.listen(80)
    with pytest.warns(ResourceWarning, match="unclosed <Listener"):
        del listener
    assert opened(pair).reason == "refused"


def test_a_dropped_listener_resets_what_waited_in_it(pair: Pair) -> None:
    listener = pair.a.listen(80)
    opener = opened(pair)
    with pytest.warns(ResourceWarning, match="1 waiting"):
        del listener
    pair.advance(TURN)
    assert (opener.reason, pair.a.connections()) == ("reset", [])


def test_a_dropped_listener_of_an_application_goes_on_listening(pair: Pair) -> None:
    """The application takes its connections: nobody needs the object."""
    pair.a.listen(80, application=Recorder())
    gc.collect()
    opener = opened(pair)
    assert opener.state == "ESTABLISHED"
    opener.abort()


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
            queued.append(connection.info()["snd_queued_bytes"])
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
        assert (opener.info()["snd_unsent_bytes"] > 1000, opener.send(b"x")) == (True, 0)
        while opener.info()["snd_unsent_bytes"] > 1000:
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


# ---------------------------------------------------------------- receive


@pytest.mark.parametrize("max_bytes", [1, 3, 12, 100, 1 << 40])
def test_receive_gives_at_most_what_was_asked_for(
    pair: Pair, ends: tuple[Connection, Connection], max_bytes: int
) -> None:
    opener, accepter = ends
    opener.send(b"hello, world")
    pair.advance(TURN)
    assert accepter.receive(max_bytes) == b"hello, world"[:max_bytes]


def test_pieces_join_into_one_receive(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    opener.nodelay = True
    for number in range(20):
        opener.send(bytes([number]))
        pair.advance(MILLISECOND)
    assert accepter.receive() == bytes(range(20))
    pair.advance(TURN)


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_receive_of_nothing_is_refused(ends: tuple[Connection, Connection], max_bytes: int) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        ends[0].receive(max_bytes)


@pytest.mark.parametrize("timeout", [0, 0.0, None, 5.0])
def test_a_manual_clock_does_not_wait_for_data(ends: tuple[Connection, Connection], timeout: float | None) -> None:
    with pytest.raises(BlockingIOError):
        ends[0].receive(timeout=timeout)


def test_the_end_is_told_after_the_data_and_stays(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    opener.send(b"last words")
    opener.shutdown()
    pair.advance(TURN)
    assert [accepter.receive() for _ in range(3)] == [b"last words", b"", b""]


def test_what_was_not_read_survives_a_normal_end(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    """The connection is forgotten by the stack, its last bytes are kept for its owner."""
    opener, accepter = ends
    opener.send(b"last words")
    opener.shutdown()
    pair.advance(TURN)
    accepter.shutdown()
    pair.advance(TURN)
    assert accepter.state == "CLOSED"
    assert [accepter.receive(4), accepter.receive(), accepter.receive()] == [b"last", b" words", b""]


def test_what_a_program_holds_unread_after_normal_ends_is_bounded_by_its_connections() -> None:
    """Each keeps at most what its window admitted, whatever its peer has sent, outside of the stack's own memory. There
    is no total: how many there are is the program's choice."""
    with Testbed(msl_ns=0, rcv_buffer_bytes=20_000, rx_memory_bytes=1 << 20) as bed:
        bed.introduce()
        listener = bed.stack.listen(80)
        connections = []
        for number in range(4):
            peer = ScriptedPeer(bed, port=2000 + number)
            peer.send("S", options={"mss": 1000})
            peer.expect("SA")
            peer.send("A")
            connections.append(listener.accept(timeout=0))
            for sent in range(0, 50_000, 1000):
                peer.send("PA", seq=1 + sent, payload=bytes(1000))
            peer.catch_up()
            read = len(connections[-1].receive(5000))  # else the window would be closed to its FIN
            bed.pump()
            peer.catch_up()
            connections[-1].shutdown()
            bed.pump()
            peer.send("FA", seq=1 + 20_000, ack=2)
            assert (read, connections[-1].reason) == (5000, "normal")
        left = bed.stack.leaks()
        assert (left["tcbs"], left["rx_queues"], left["rx_held_bytes"]) == (0, 0, 0)
        assert [len(connection.receive(1 << 20)) for connection in connections] == [15_000] * 4
        assert [connection.receive() for connection in connections] == [b""] * 4


def test_a_reset_is_raised_by_every_call(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    opener.abort()
    pair.advance(TURN)
    for call in (accepter.receive, lambda: accepter.send(b"x"), accepter.shutdown, accepter.info):
        with pytest.raises(ConnectionReset) as raised:
            call()
        assert raised.value.reason == "reset"
    with pytest.raises(ConnectionAborted) as aborted:
        opener.receive()
    assert aborted.value.reason == "aborted"


def test_a_refused_connection_says_so(pair: Pair) -> None:
    opener = opened(pair, 81)
    assert (opener.state, opener.reason, opener.established) == ("CLOSED", "refused", False)
    with pytest.raises(ConnectionRefused):
        opener.receive()


def test_a_connection_without_an_answer_times_out() -> None:
    with Pair(b={"syn_timeout_ns": 3 * SECOND}) as pair:
        # The neighbour answers ARP, so it is there, but no segment reaches it.
        pair.network.filter_ba = lambda frame, index: "drop" if frame[12:14] == b"\x08\x00" else None
        opener = pair.b.connect(STACK_ADDRESS, 80, wait=False)
        pair.advance(10 * SECOND)
        with pytest.raises(ConnectionTimeout) as raised:
            opener.receive()
        assert raised.value.reason == "timeout"


# ---------------------------------------------------------------- shutdown, close, abort


def test_half_close_leaves_the_other_direction_open(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    opener.send(b"question")
    opener.shutdown()
    opener.shutdown()
    pair.advance(TURN)
    assert (opener.state, accepter.state) == ("FIN-WAIT-2", "CLOSE-WAIT")
    assert (accepter.receive(), accepter.receive()) == (b"question", b"")
    accepter.send(b"answer")
    pair.advance(TURN)
    assert opener.receive() == b"answer"
    accepter.close()
    pair.advance(TURN)
    assert opener.receive() == b""


def test_send_after_shutdown_is_refused(ends: tuple[Connection, Connection]) -> None:
    ends[0].shutdown()
    with pytest.raises(StackError) as raised:
        ends[0].send(b"more")
    assert raised.value.reason == "state"


def test_close_delivers_what_is_queued(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    opener.send(b"x" * 100_000)
    opener.close()
    opener.close()
    pair.advance(TURN)
    assert accepter.receive(200_000) == b"x" * 100_000
    assert accepter.receive() == b""


def test_close_with_unread_data_is_a_reset(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    """SHLD-3."""
    opener, accepter = ends
    opener.send(b"unread")
    pair.advance(TURN)
    accepter.close()
    pair.advance(TURN)
    assert (opener.reason, accepter.reason) == ("reset", "aborted")


def test_close_in_syn_sent_ends_it_at_once(pair: Pair) -> None:
    opener = pair.b.connect(STACK_ADDRESS, 80, wait=False)
    opener.close()
    pair.advance(TURN)
    assert opener.state == "CLOSED"


@pytest.mark.parametrize("end", ["close", "abort", "shutdown"])
def test_both_sides_may_end_at_once(pair: Pair, ends: tuple[Connection, Connection], end: str) -> None:
    for connection in ends:
        getattr(connection, end)()
    pair.advance(TURN)
    assert [connection.state for connection in ends] == ["CLOSED", "CLOSED"]
    assert pair.at_rest()


@pytest.mark.parametrize("first", ["close", "abort", "shutdown"])
@pytest.mark.parametrize("second", ["close", "abort", "shutdown"])
def test_ends_may_follow_each_other(pair: Pair, ends: tuple[Connection, Connection], first: str, second: str) -> None:
    opener, accepter = ends
    getattr(opener, first)()
    getattr(opener, second)()
    accepter.close()
    pair.advance(TURN)
    assert opener.state == "CLOSED"
    opener.close()
    opener.abort()


def test_connections_are_context_managers(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    with opener as same:
        assert same is opener
        opener.send(b"bye")
    pair.advance(TURN)
    assert (accepter.receive(), accepter.receive()) == (b"bye", b"")


def test_after_a_normal_end_only_reading_the_end_is_left(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    opener.close()
    pair.advance(TURN)
    accepter.close()
    pair.advance(TURN)
    assert (opener.state, opener.reason, opener.receive()) == ("CLOSED", "normal", b"")
    for call in (
        lambda: opener.send(b"x"),
        opener.info,
        opener.shutdown,
        lambda: opener.nodelay,
        lambda: opener.keepalive,
        lambda: opener.set_low_water(0),
        lambda: opener.set_unsent_low_water(0),
        lambda: opener.set_tos(0),
        lambda: opener.set_ttl(1),
        lambda: opener.set_user_timeout(1),
    ):
        with pytest.raises(StackError) as raised:
            call()
        assert raised.value.reason == "state"


# ---------------------------------------------------------------- settings and what can be seen


def test_settings_of_a_connection(ends: tuple[Connection, Connection]) -> None:
    opener, _ = ends
    assert (opener.nodelay, opener.keepalive, opener.reason, opener.established) == (False, False, None, True)
    opener.nodelay = True
    opener.keepalive = True
    assert (opener.nodelay, opener.keepalive) == (True, True)
    opener.nodelay = False
    opener.keepalive = False
    assert (opener.nodelay, opener.keepalive) == (False, False)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("set_low_water", [0, 1 << 30], [-1, (1 << 30) + 1]),
        ("set_unsent_low_water", [0, 1 << 30], [-1, (1 << 30) + 1]),
        ("set_tos", [0, 255], [-1, 256]),
        ("set_ttl", [1, 255], [0, 256, -1]),
        ("set_user_timeout", [0, 65535], [-1, 65536]),
    ],
)
def test_settings_have_bounds(ends: tuple[Connection, Connection], name: str, good: list[int], bad: list[int]) -> None:
    setter = getattr(ends[0], name)
    for value in good:
        setter(value)
    for value in bad:
        with pytest.raises(ValueError, match="must be from"):
            setter(value)
    for wrong in ("1", None):
        with pytest.raises(TypeError):
            setter(wrong)


def test_tos_and_ttl_are_in_the_next_packet(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, _ = ends
    seen: list[tuple[int, int]] = []
    pair.network.filter_ba = lambda frame, index: seen.append((frame[15], frame[22]))
    opener.set_tos(0xB8)
    opener.set_ttl(7)
    opener.send(b"x")
    pair.advance(TURN)
    assert seen[0] == (0xB8, 7)


def test_info_is_a_snapshot_in_the_words_of_the_rfc(ends: tuple[Connection, Connection]) -> None:
    opener, _ = ends
    info = opener.info()
    assert info["state"] == opener.state == "ESTABLISHED"
    assert info["snd_una"] == info["snd_nxt"]
    opener.abort()
    assert info["state"] == "ESTABLISHED"


def test_nothing_can_be_added_to_a_connection(ends: tuple[Connection, Connection]) -> None:
    for name in ("established", "reason", "local", "remote", "state", "other"):
        with pytest.raises(AttributeError):
            setattr(ends[0], name, 1)


# ---------------------------------------------------------------- after the stack


@pytest.mark.parametrize("collect", [False, True])
def test_a_connection_outlives_its_stack(collect: bool) -> None:
    network = SimNetwork()
    stack = Stack(network.a, now_ns=0)
    connection = stack.connect(PEER_ADDRESS, 80, wait=False)
    stack.close()
    if collect:
        del stack, network
        gc.collect()
    assert (connection.state, connection.reason) == ("CLOSED", "aborted")
    connection.close()
    connection.abort()
    for call in (connection.receive, lambda: connection.send(b"x"), connection.info, lambda: connection.nodelay):
        with pytest.raises(ConnectionAborted):
            call()
    assert connection.local[0] == STACK_ADDRESS


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_connection_keeps_its_stack_usable() -> None:
    """Nothing else refers to the stack; it is not closed under the connection."""
    connection = Stack(SimNetwork().a, now_ns=0).connect(PEER_ADDRESS, 80, wait=False)
    gc.collect()
    assert connection.state == "SYN-SENT"
    assert connection.send(b"hello") == 5
    connection.abort()
    del connection
    gc.collect()


def test_a_listener_of_a_closed_stack_accepts_nothing_and_closes() -> None:
    network = SimNetwork()
    stack = Stack(network.a, now_ns=0)
    listener = stack.listen(80)
    stack.close()
    with pytest.raises(ValueError, match="closed"):
        listener.accept(timeout=0)
    listener.close()
    listener.close()


def test_connections_that_wait_when_their_stack_is_closed_are_aborted() -> None:
    with Pair() as pair:
        listener = pair.a.listen(80)
        opened(pair)
        pair.a.close()
        assert not any(count for name, count in pair.a.leaks().items() if name != "lent")
        with pytest.raises(ValueError, match="the stack is closed"):
            listener.accept(timeout=0)


def test_a_connection_is_released_when_it_has_ended(pair: Pair) -> None:
    connections: list[Any] = list(pair.connect())
    stack_references = [sys.getrefcount(pair.a), sys.getrefcount(pair.b)]
    for connection in connections:
        connection.abort()
    pair.advance(TURN)
    connections.clear()
    del connection
    gc.collect()
    assert [sys.getrefcount(pair.a), sys.getrefcount(pair.b)] < stack_references


def test_a_dropped_connection_is_closed_with_a_warning(pair: Pair) -> None:
    """As a socket is: the peer gets a FIN, and a reset when it goes on sending."""
    listener = pair.a.listen(80)
    opener = opened(pair)
    said = r"unclosed <Connection 198\.18\.0\.2:80 to 198\.18\.0\.1:\d+, ESTABLISHED>"
    with pytest.warns(ResourceWarning, match=said):
        listener.accept(timeout=0)
    pair.advance(TURN)
    assert (opener.state, opener.receive()) == ("CLOSE-WAIT", b"")
    opener.send(b"to nobody")
    pair.advance(TURN)
    assert (opener.reason, pair.a.connections()) == ("reset", [])


def test_a_dropped_connection_with_unread_data_is_reset(pair: Pair) -> None:
    """SHLD-3, as after close()."""
    listener = pair.a.listen(80)
    opener = opened(pair)
    opener.send(b"unread")
    pair.advance(TURN)
    with pytest.warns(ResourceWarning, match="unclosed"):
        listener.accept(timeout=0)
    pair.advance(TURN)
    assert opener.reason == "reset"


def test_a_dropped_connection_in_a_cycle_is_closed_by_the_collector(pair: Pair) -> None:
    opener, accepter = pair.connect()
    box: list[Any] = [accepter]
    box.append(box)
    del box, accepter
    with pytest.warns(ResourceWarning, match="unclosed <Connection"):
        gc.collect()
    pair.advance(TURN)
    assert opener.state == "CLOSE-WAIT"
    opener.close()


def test_a_closed_connection_that_is_dropped_lives_until_its_end(pair: Pair) -> None:
    """Nobody is warned, and what was queued arrives."""
    opener, accepter = pair.connect()
    opener.send(b"last words")
    opener.close()
    del opener
    gc.collect()
    pair.advance(TURN)
    assert (accepter.receive(), accepter.receive()) == (b"last words", b"")
    accepter.close()


def test_a_connection_that_ended_is_dropped_without_a_warning(pair: Pair) -> None:
    opener, accepter = pair.connect()
    accepter.abort()
    pair.advance(TURN)
    assert opener.reason == "reset"
    del opener, accepter
    gc.collect()


# ---------------------------------------------------------------- blocking, with the kernel at the other end


@contextmanager
def peer_thread(lab: Made, body: Callable[[socket.socket], None]) -> Iterator[None]:
    """Run `body` with a socket of the peer's kernel beside the test; what it raises fails the test."""
    failures: list[BaseException] = []
    with namespace.inside(lab.peer_netns):
        peer = socket.socket()
    peer.settimeout(60)

    def run() -> None:
        try:
            body(peer)
        except BaseException as failure:
            failures.append(failure)
        finally:
            peer.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert failures == []


@pytest.fixture
def blocking(make_lab: Callable[..., Made], make_stack: Callable[..., Stack]) -> Iterator[tuple[Stack, Made]]:
    """A stack with the real clock on a veth pair, and the lab around it."""
    lab = make_lab()
    with lab.inside():
        link = PacketMmapLink(lab.ifname)
    with link:
        stack = make_stack(link, STACK_ADDRESS + "/24")
        yield stack, lab
        stack.close()


@pytest.mark.root
def test_accept_waits_for_a_client(blocking: tuple[Stack, Made]) -> None:
    stack, lab = blocking
    listener = stack.listen(80)

    def client(peer: socket.socket) -> None:
        peer.connect((STACK_ADDRESS, 80))
        peer.sendall(b"question")
        peer.shutdown(socket.SHUT_WR)
        assert peer.makefile("rb").read() == b"answer"

    with peer_thread(lab, client):
        with listener.accept(timeout=60) as connection:
            assert connection.remote[0] == PEER_ADDRESS
            assert connection.receive(timeout=60) == b"question"
            assert connection.receive(timeout=60) == b""
            connection.send(b"answer", timeout=60)
        stack.close(linger=60)


@pytest.mark.root
def test_connect_waits_for_the_handshake_and_send_for_room(
    make_lab: Callable[..., Made], make_stack: Callable[..., Stack]
) -> None:
    lab = make_lab()
    data = bytes(range(256)) * 20_000
    received = bytearray()
    ready = threading.Event()

    def server(peer: socket.socket) -> None:
        peer.bind((PEER_ADDRESS, 8080))
        peer.listen()
        ready.set()
        accepted = peer.accept()[0]
        with accepted:
            accepted.settimeout(60)
            while piece := accepted.recv(65536):
                received.extend(piece)
            accepted.sendall(b"done")

    with lab.inside():
        link = PacketMmapLink(lab.ifname)
    with link:
        stack = make_stack(link, STACK_ADDRESS + "/24", snd_queue_bytes=100_000)
        with peer_thread(lab, server):
            assert ready.wait(60)
            with stack.connect(PEER_ADDRESS, 8080, timeout=60) as connection:
                assert connection.established
                assert connection.send(data, timeout=60) == len(data)
                connection.shutdown()
                assert connection.receive(timeout=60) == b"done"
        assert bytes(received) == data
        stack.close()


@pytest.mark.root
def test_waits_end_with_their_timeouts(blocking: tuple[Stack, Made]) -> None:
    stack, lab = blocking
    listener = stack.listen(80)
    with pytest.raises(TimeoutError):
        listener.accept(timeout=0.001)
    connected, done = threading.Event(), threading.Event()

    def client(peer: socket.socket) -> None:
        peer.connect((STACK_ADDRESS, 80))
        connected.set()
        assert done.wait(60)

    with peer_thread(lab, client):
        connection = listener.accept(timeout=60)
        with pytest.raises(TimeoutError):
            connection.receive(timeout=0.001)
        with pytest.raises(BlockingIOError):
            connection.receive(timeout=0)
        assert connected.wait(60)
        connection.abort()
        done.set()


@pytest.mark.root
def test_a_refused_connect_raises(blocking: tuple[Stack, Made]) -> None:
    stack, _ = blocking
    with pytest.raises(ConnectionRefused) as raised:
        stack.connect(PEER_ADDRESS, 9, timeout=60)
    assert raised.value.reason == "refused"
    assert stack.connections() == []


@pytest.mark.root
def test_a_reset_ends_a_wait(blocking: tuple[Stack, Made]) -> None:
    stack, lab = blocking
    listener = stack.listen(80)

    accepted = threading.Event()

    def client(peer: socket.socket) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.connect((STACK_ADDRESS, 80))
        assert accepted.wait(60)

    with peer_thread(lab, client):
        connection = listener.accept(timeout=60)
        accepted.set()
        with pytest.raises(ConnectionReset):
            connection.receive(timeout=60)


@pytest.mark.root
@pytest.mark.parametrize("again", [False, True])
def test_a_hand_over_that_a_turn_leaves_is_made_in_the_next_without_a_sleep(
    blocking: tuple[Stack, Made], again: bool
) -> None:
    """The turn's output ends the connection, after the turn's hand-over: run() goes on at once, and tells."""
    stack, lab = blocking
    recorder = EventRecorder()
    recorder.reset = True
    recorder.ask_again = again
    stack.listen(80, application=recorder)
    seen: list[tuple[str, int, int]] = []

    def told(port: int, names: tuple[str, ...]) -> None:
        seen.append((names[-1], stack.link.counters()["waits"], stack.turns()["turns"]))
        if names[-1] == "closed":
            stack.stop()

    recorder.told = told

    def client(peer: socket.socket) -> None:
        peer.connect((STACK_ADDRESS, 80))
        peer.sendall(b"data")
        with pytest.raises(ConnectionResetError):
            peer.recv(1)

    with peer_thread(lab, client):
        stack.run(60 * SECOND)
    assert [name for name, _, _ in seen][-2:] == ["data", "closed"]
    (_, waits, turns), (_, waits_after, turns_after) = seen[-2:]
    assert (waits_after, turns_after) == (waits, turns + 1)
    assert recorder.errors == []


@pytest.mark.root
def test_a_link_that_goes_away_ends_a_wait(blocking: tuple[Stack, Made]) -> None:
    stack, _ = blocking
    listener = stack.listen(80)
    stack.link.close()
    with pytest.raises(OSError, match="link"):
        listener.accept(timeout=60)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="without memory CPython from 3.12 on crashes by itself")
def test_a_program_without_memory_gets_exceptions_and_keeps_its_records() -> None:
    """One to seven allocations of Python's fail, at every moment of a few connections' lives. In a process of its own:
    what points to an object that could not be made would end it."""
    pytest.importorskip("_testcapi")
    script = """
        import _testcapi, gc
        from ustack.testing.pair import Pair
        from ustack.testing.testbed import MILLISECOND, SECOND, STACK_ADDRESS

        def live(pair, listener):
            first = pair.b.connect(STACK_ADDRESS, 80)
            pair.advance(100 * MILLISECOND)
            taken = listener.accept(timeout=0)
            first.send(bytes(3000))
            pair.advance(100 * MILLISECOND)
            taken.receive(100)
            taken.send(b"r")
            pair.advance(100 * MILLISECOND)
            del taken
            first.close()
            second = pair.b.connect(STACK_ADDRESS, 80)
            pair.advance(100 * MILLISECOND)
            second.abort()
            third = pair.b.connect(STACK_ADDRESS, 80)
            pair.advance(100 * MILLISECOND)
            del third
            pair.advance(100 * MILLISECOND)
            listener.close()

        begin, end = _testcapi.set_nomemory, _testcapi.remove_mem_hooks
        failed = 0
        for moment in range(400):
            pair = Pair()
            listener = pair.a.listen(80)
            outcome = 0
            begin(moment, moment + 1 + moment % 7)
            try:
                live(pair, listener)
            except BaseException:
                outcome = 1
            end()
            failed += outcome
            listener.close()
            pair.advance(5 * SECOND)
            gc.collect()
            pair.a.close()
            pair.b.close()
            assert not any(pair.a.leaks().values()), pair.a.leaks()
            assert not any(pair.b.leaks().values()), pair.b.leaks()
        print(failed)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONHASHSEED": "0"},  # the same allocations each time
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    assert int(done.stdout) > 100
