# SPDX-License-Identifier: MIT
"""Urgent data of a Connection: MSG_OOB, on_urgent, urgent_bytes, and reads that end where it does."""

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ustack import Connection, Stack, StackError
from ustack.link.sim import SimNetwork
from ustack.testing.event_recorder import EventRecorder
from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND, STACK_ADDRESS, Testbed


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as made:
        yield made


@pytest.fixture
def ends(pair: Pair) -> Iterator[tuple[Connection, Connection]]:
    opener, accepter = pair.connect()
    yield opener, accepter
    opener.close()
    accepter.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Of "urgent plain" the first seven bytes are urgent."""
    with established() as made:
        made.peer.send("UPA", payload=b"urgent plain", urgent=7)
        yield made


def test_what_is_sent_as_urgent_is_told_and_read_in_line(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    told: list[tuple[int, int]] = []
    accepter.on_urgent = lambda connection: told.append((connection.urgent_bytes, connection.receivable_bytes))
    opener.send(b"before ")
    assert opener.send(b"stop!", flags=socket.MSG_OOB) == 5
    opener.sendall(b"after", 0)
    pair.advance(MILLISECOND)
    assert told == [(12, 17)]
    assert accepter.recv(100) == b"before stop!"
    assert accepter.urgent_bytes == 0
    assert accepter.recv(100) == b"after"


def test_sendall_has_the_flag_as_well(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    opener.sendall(b"stop!", socket.MSG_OOB)
    pair.advance(MILLISECOND)
    assert (accepter.urgent_bytes, accepter.info().urgent_bytes) == (5, 5)
    assert accepter.recv(100) == b"stop!"


def test_a_send_in_parts_moves_the_pointer_with_them() -> None:
    """MUST-31: of more than the queue holds each part is urgent."""
    with Pair(snd_queue_bytes=4096) as pair:
        opener, accepter = pair.connect()
        told: list[int] = []
        accepter.on_urgent = lambda connection: told.append(connection.urgent_bytes)
        data, sent, got = bytes(10_000), 0, 0
        while got < len(data):
            if sent < len(data):
                sent += opener.send(data[sent:], timeout=0, flags=socket.MSG_OOB)
            pair.advance(MILLISECOND)
            while accepter.receivable_bytes:
                assert accepter.urgent_bytes >= accepter.receivable_bytes
                got += len(accepter.receive(timeout=0))
        assert len(told) >= 3
        assert accepter.urgent_bytes == 0
        opener.close()
        accepter.close()


def test_a_read_ends_at_the_mark(scene: Scene) -> None:
    """Section 3.9.1.3: what follows "cannot be delivered to the user in the same buffer"."""
    assert scene.conn.receive(3, timeout=0) == b"urg"
    assert scene.conn.urgent_bytes == 4
    assert scene.conn.receive(100, timeout=0) == b"ent "
    assert scene.conn.urgent_bytes == 0
    assert scene.conn.receive(100, timeout=0) == b"plain"


def test_recv_into_ends_at_the_mark(scene: Scene) -> None:
    room = bytearray(100)
    assert scene.conn.recv_into(room) == 7
    assert scene.conn.recv_into(room) == 5
    assert bytes(room[:7]) == b"plaint "


def test_waitall_ends_at_the_mark(scene: Scene) -> None:
    """As Linux's does; behind it, it waits again."""
    assert scene.conn.recv(12, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"urgent "
    assert scene.conn.recv(5, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"plain"


def test_what_is_peeked_is_unread(scene: Scene) -> None:
    assert scene.conn.recv(4, socket.MSG_PEEK) == b"urge"
    assert scene.conn.urgent_bytes == 7
    assert scene.conn.recv(100, socket.MSG_PEEK) == b"urgent "
    assert scene.conn.urgent_bytes == 7
    assert scene.conn.recv(2) == b"ur"
    assert scene.conn.urgent_bytes == 5
    assert scene.conn.recv(100) == b"gent "
    assert scene.conn.urgent_bytes == 0
    assert scene.conn.recv(100, socket.MSG_PEEK) == b"plain"
    assert scene.conn.recv(100) == b"plain"


def test_what_is_peeked_before_more_is_urgent_is_urgent_with_it(scene: Scene) -> None:
    assert scene.read() == b"urgent plain"
    scene.peer.send("PA", payload=b"abc")
    assert scene.conn.recv(100, socket.MSG_PEEK) == b"abc"
    scene.peer.send("UPA", payload=b"de", urgent=1)
    assert scene.conn.urgent_bytes == 4
    assert scene.conn.recv(2) == b"ab"
    assert scene.conn.urgent_bytes == 2
    assert scene.conn.recv(100) == b"cd"
    assert scene.conn.urgent_bytes == 0
    assert scene.conn.recv(100) == b"e"


def test_a_pointer_to_the_end_of_what_was_peeked_is_told() -> None:
    """A peek reads nothing: bytes that were looked at can still become urgent."""
    with established() as scene:
        told: list[int] = []
        scene.conn.on_urgent = lambda connection: told.append(connection.urgent_bytes)
        scene.peer.send("PA", payload=b"abc")
        assert scene.conn.recv(100, socket.MSG_PEEK) == b"abc"
        scene.peer.send("UPA", payload=b"de", urgent=0)
        assert (told, scene.conn.urgent_bytes) == ([3], 3)
        assert scene.conn.recv(100, socket.MSG_PEEK) == b"abc"
        assert scene.conn.recv(100) == b"abc"
        assert scene.conn.urgent_bytes == 0
        assert scene.read() == b"de"


@pytest.mark.parametrize("peeked", [0, 4])
def test_what_is_left_after_the_end_has_its_mark(scene: Scene, peeked: int) -> None:
    if peeked:
        assert scene.conn.recv(peeked, socket.MSG_PEEK) == b"urge"
    scene.conn.shutdown()
    scene.testbed.pump()
    scene.peer.drain()
    scene.peer.send("FA", ack=2)
    assert scene.conn.state == "CLOSED"
    assert scene.conn.urgent_bytes == 7
    assert scene.conn.recv(100) == b"urgent "
    assert scene.conn.urgent_bytes == 0
    assert scene.conn.recv(100) == b"plain"
    assert scene.conn.recv(100) == b""


def test_a_reset_ends_urgent_data_as_it_ends_all(scene: Scene) -> None:
    assert scene.conn.recv(3, socket.MSG_PEEK) == b"urg"
    scene.peer.send("R")
    assert scene.conn.urgent_bytes == 0


def test_recv_has_no_channel_for_it(scene: Scene) -> None:
    """What a socket with SO_OOBINLINE answers."""
    for call in (lambda: scene.conn.recv(1, socket.MSG_OOB), lambda: scene.conn.recv_into(bytearray(1), 1, 1)):
        with pytest.raises(StackError, match="received in line") as raised:
            call()
        assert raised.value.errno == errno.EINVAL
    assert scene.read() == b"urgent plain"


def test_in_line_is_the_only_way() -> None:
    with established() as scene:
        scene.conn.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        assert scene.conn.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE) == 1
        with pytest.raises(ValueError, match="SO_OOBINLINE=0: must be from 1 to 1"):
            scene.conn.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
        scene.abort()


def test_without_room_for_a_record_the_program_hears_of_it() -> None:
    with established(extra_records=0) as scene:
        with pytest.raises(StackError, match="queued, but not as urgent") as raised:
            scene.conn.send(b"stop!", flags=socket.MSG_OOB)
        assert raised.value.errno == errno.ENOBUFS
        scene.testbed.pump()
        scene.peer.expect("A", payload=b"stop!", urgent=0)
        scene.peer.send("A")


# ---------------------------------------------------------------- on_urgent


def test_on_urgent_is_called_for_each_news() -> None:
    with established() as scene:
        told: list[int] = []
        scene.conn.on_urgent = lambda connection: told.append(connection.urgent_bytes)
        scene.peer.send("UPA", payload=b"abc", urgent=3)
        scene.peer.send("UPA", payload=b"def", urgent=2)
        scene.peer.send("UPA", seq=1, payload=b"abcdef", urgent=5)
        assert told == [3, 5]
        scene.conn.on_urgent = None
        assert scene.conn.on_urgent is None
        scene.peer.send("UPA", payload=b"ghi", urgent=3)
        assert told == [3, 5]
        assert scene.read() == b"abcdefghi"


def test_on_urgent_may_use_the_stack() -> None:
    """What urgent data is for: what comes before its end is read and thrown away."""
    with established() as scene:
        thrown: list[bytes] = []

        def interrupt(connection: Connection) -> None:
            while connection.urgent_bytes:
                thrown.append(connection.receive(timeout=0))
            connection.send(b"interrupted")

        scene.conn.on_urgent = interrupt
        scene.peer.send("A", payload=b"work and ")
        scene.peer.send("UPA", payload=b"stop! new work", urgent=5)
        assert b"".join(thrown) == b"work and stop!"
        assert scene.read() == b" new work"
        scene.testbed.pump()
        scene.peer.expect("A", payload=b"interrupted")
        scene.peer.send("A")


def test_what_on_urgent_raises_ends_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: raised.append(args.exc_value))

    def fail(connection: Connection) -> None:
        raise ValueError(f"no use for {connection.urgent_bytes}")

    scene.conn.on_urgent = fail
    scene.peer.send("UPA", payload=b"!", urgent=1)
    assert [str(error) for error in raised] == ["no use for 13"]
    assert scene.state == "ESTABLISHED"


def interrupted(pair: Pair, count: int, interrupt: Callable[[Connection], None]) -> list[Connection]:
    """Openers and accepters in turn: each of these has urgent data, and the first one's handler has interrupted."""
    connections: list[Connection] = []
    for _ in range(count):
        connections += pair.connect()
    for opener, accepter in zip(connections[::2], connections[1::2], strict=True):
        accepter.on_urgent = interrupt
        opener.send(b"!", flags=socket.MSG_OOB)
    with pytest.raises(KeyboardInterrupt):
        pair.advance(MILLISECOND)
    return connections


def test_what_interrupts_on_urgent_comes_out_of_the_call_and_the_others_are_called(pair: Pair) -> None:
    """Ctrl-C must end a program whose handler is running, as it ends one in a blocking call."""
    told: list[Connection] = []

    def interrupt(connection: Connection) -> None:
        told.append(connection)
        if len(told) == 1:
            raise KeyboardInterrupt

    connections = interrupted(pair, 3, interrupt)
    assert len(told) == 1
    pair.advance(MILLISECOND)
    assert sorted(map(id, told)) == sorted(map(id, connections[1::2]))
    for connection in connections:
        connection.abort()


@pytest.mark.parametrize("taking", ["receive", "recv_into", "accept"])
def test_what_a_call_takes_is_not_lost_by_anothers_interruption(pair: Pair, taking: str) -> None:
    """The second handler is due when the first one has ended the call: the next call must not take first."""

    def interrupt(connection: Connection) -> None:
        raise KeyboardInterrupt

    listener = pair.a.listen(81)
    waits = pair.b.connect(STACK_ADDRESS, 81, wait=False)
    connections = interrupted(pair, 2, interrupt)
    room = bytearray(8)
    calls: dict[str, Callable[[], Any]] = {
        "receive": lambda: connections[1].receive(timeout=0),
        "recv_into": lambda: connections[1].recv_into(room),
        "accept": lambda: listener.accept(timeout=0),
    }
    assert listener.pending == 1
    with pytest.raises(KeyboardInterrupt):
        calls[taking]()
    taken = calls[taking]()
    if taking == "accept":
        assert taken.remote == waits.local
        taken.abort()
    else:
        assert taken == (b"!" if taking == "receive" else 1)
    for connection in (*connections, waits):
        connection.abort()
    listener.close()


def test_who_takes_on_urgent_away_is_not_called(pair: Pair) -> None:
    """Also where the news has come already: a handler that is called before it ends the others' wish."""
    accepters: list[Connection] = []
    told: list[Connection] = []
    openers = []

    def stop(connection: Connection) -> None:
        told.append(connection)
        for accepter in accepters:
            accepter.on_urgent = None

    for _ in range(2):
        opener, accepter = pair.connect()
        accepter.on_urgent = stop
        openers.append(opener)
        accepters.append(accepter)
    for opener in openers:
        opener.send(b"!", flags=socket.MSG_OOB)
    pair.advance(MILLISECOND)
    assert [accepter.urgent_bytes for accepter in accepters] == [1, 1]
    assert len(told) == 1
    for connection in (*openers, *accepters):
        connection.abort()


def test_on_urgent_is_a_callable_or_none(scene: Scene) -> None:
    with pytest.raises(TypeError, match="callable or None"):
        scene.conn.on_urgent = 1  # type: ignore[assignment]
    assert scene.conn.on_urgent is None


def test_a_handler_that_is_set_late_is_not_told_of_the_past(scene: Scene) -> None:
    """There is urgent_bytes to ask."""
    told: list[Connection] = []
    scene.conn.on_urgent = told.append
    scene.testbed.pump()
    assert told == []
    assert scene.conn.urgent_bytes == 7


def test_a_hand_over_tells_urgent_before_data() -> None:
    """Of one turn at most once, whatever a peer sends."""
    with Testbed() as bed:
        bed.introduce()
        application = EventRecorder()
        bed.stack.listen(80, application=application)
        peer = ScriptedPeer(bed, port=40_000)
        peer.send("S")
        peer.expect("SA")
        peer.send("A")
        peer.send("UPA", payload=b"abc", urgent=3, pump=False)
        peer.send("UPA", payload=b"def", urgent=3, pump=False)
        bed.pump()
        assert application.names() == [("accepted",), ("urgent", "data")]
        peer.send("R")
        assert application.errors == []


def test_a_blocking_call_makes_the_call_while_it_waits() -> None:
    """With a real clock: receive() makes the turn that brings it, and on_urgent is called before it takes the bytes."""
    network = SimNetwork(1)
    with Stack(network.a, "198.18.0.1/24") as one, Stack(network.b, "198.18.0.2/24") as other:
        listener = other.listen(80)
        opener = one.connect("198.18.0.2", 80, wait=False)
        told: list[int] = []

        def pump() -> None:
            one.poll()
            other.poll()

        while not opener.established:
            pump()
        accepter = listener.accept(timeout=5)
        accepter.on_urgent = lambda connection: told.append(connection.urgent_bytes)
        opener.send(b"stop!", flags=socket.MSG_OOB)
        assert accepter.receive(timeout=5) == b"stop!"
        assert told == [5]
        for connection in (opener, accepter):
            connection.abort()
        listener.close()
    network.a.close()
    network.b.close()
