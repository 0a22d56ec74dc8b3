# SPDX-License-Identifier: MIT
"""Listeners and connections: what each call does, refuses and raises, in every condition they can be in.

Two stacks are moved by a manual clock. test_sockets_waiting.py has those that must wait.
"""

import gc
from typing import Any

import pytest

from tests.unit.blocking.opening import TURN, opened
from ustack import (
    AddressInUse,
    Connection,
    ConnectionAborted,
    ConnectionRefused,
    ConnectionReset,
    ConnectionTimeout,
    Listener,
    StackError,
)
from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, STACK_ADDRESS, Testbed

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
    assert (opener.reason, pair.a.connections("connection")) == ("reset", [])


def test_a_dropped_listener_of_an_application_goes_on_listening(pair: Pair) -> None:
    """The application takes its connections: nobody needs the object."""
    pair.a.listen(80, application=Recorder())
    gc.collect()
    opener = opened(pair)
    assert opener.state == "ESTABLISHED"
    opener.abort()


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


def test_info_is_a_snapshot(ends: tuple[Connection, Connection]) -> None:
    opener, _ = ends
    info = opener.info()
    assert info.state == opener.state == "ESTABLISHED"
    assert info.unacked_bytes == 0
    opener.abort()
    assert info.state == "ESTABLISHED"


def test_nothing_can_be_added_to_a_connection(ends: tuple[Connection, Connection]) -> None:
    for name in ("established", "reason", "local", "remote", "state", "other"):
        with pytest.raises(AttributeError):
            setattr(ends[0], name, 1)
