# SPDX-License-Identifier: MIT
"""Readiness of many connections: what a Poller keeps, costs and refuses. What it reports is in test_poller_epoll."""

import errno
import gc
import math
import select
import socket
import sys
import textwrap
import threading
import tracemalloc
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.children import run_python
from ustack import (
    AlreadyRegistered,
    Connection,
    Listener,
    NotRegistered,
    OwnershipError,
    Poller,
    PollEvents,
    SimNetwork,
    Stack,
)
from ustack.testing.event_recorder import EventRecorder
from ustack.testing.pair import Pair
from ustack.testing.states import established
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, STACK_ADDRESS, Testbed

from .opening import TURN, opened

IN, OUT, ET = PollEvents.EPOLLIN, PollEvents.EPOLLOUT, PollEvents.EPOLLET
RDHUP, HUP, ERR = PollEvents.EPOLLRDHUP, PollEvents.EPOLLHUP, PollEvents.EPOLLERR
ENDED = IN | OUT | RDHUP | HUP
Ends = tuple[Connection, Connection]
MakeStack = Callable[..., Any]


class Word:
    """Data that can be seen to go."""

    def __init__(self, *kept: object, at_end: Callable[[], object] | None = None) -> None:
        self.kept = kept
        self.at_end = at_end

    def __del__(self) -> None:
        if self.at_end is not None:
            self.at_end()


@pytest.fixture
def poller(pair: Pair) -> Iterator[Poller]:
    """Of stack b, whose end of a connection is the first of `ends`."""
    with pair.b.poller() as made:
        yield made


def watches() -> int:
    """Registrations in the whole process."""
    return sum(type(each).__name__ == "Watch" for each in gc.get_objects())


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize("trigger", [PollEvents(0), ET])
def test_a_connect_in_progress_is_not_ready_until_it_is_established(
    pair: Pair, poller: Poller, trigger: PollEvents
) -> None:
    listener = pair.a.listen(80)
    with pair.b.connect(STACK_ADDRESS, 80, wait=False) as connection:
        poller.register(connection, IN | OUT | RDHUP | trigger)
        assert poller.poll(0) == []
        pair.advance(TURN)
        assert poller.poll(0) == [(connection, OUT)]
        assert connection.option("SO_ERROR") == 0
        assert poller.poll(0) == ([] if trigger else [(connection, OUT)])
    listener.close()


@pytest.mark.parametrize("trigger", [PollEvents(0), ET])
def test_a_connect_that_is_refused_says_why(pair: Pair, poller: Poller, trigger: PollEvents) -> None:
    connection = pair.b.connect(STACK_ADDRESS, 80, wait=False)
    poller.register(connection, OUT | trigger)
    assert poller.poll(0) == []
    pair.advance(TURN)
    assert poller.poll(0) == [(connection, OUT | HUP | ERR)]
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert poller.poll(0) == ([] if trigger else [(connection, OUT | HUP | ERR)])
    connection.close()
    assert len(poller) == 0


def test_a_connect_that_nobody_answers_says_so_in_the_end() -> None:
    with Testbed(msl_ns=0) as bed:
        bed.introduce()
        poller = bed.stack.poller()
        connection = bed.stack.connect(PEER_ADDRESS, 80, wait=False)
        poller.register(connection, OUT | ET)
        bed.run_until(lambda: connection.state == "CLOSED", 400 * SECOND)
        assert poller.poll(0) == [(connection, OUT | HUP | ERR)]
        assert connection.error == errno.ETIMEDOUT


def test_an_abort_by_the_stacks_own_bound_is_an_end(pair: Pair, ends: Ends, poller: Poller) -> None:
    """R2: the peer is silent."""
    ours, _ = ends
    ours.set_option("TCP_USER_TIMEOUT", 100)
    poller.register(ours, IN | ET)
    pair.network.impair(loss=1.0)
    ours.send(b"is anybody there?")
    pair.run_until(lambda: ours.state == "CLOSED", 60 * SECOND)
    assert poller.poll(0) == [(ours, IN | HUP | ERR)]
    assert ours.error == errno.ETIMEDOUT


# ---------------------------------------------------------------- marks


def test_room_is_by_the_marks_of_the_send_queue() -> None:
    """Neither more unacknowledged than the low-water mark, nor more unsent than TCP_NOTSENT_LOWAT."""
    with established(wnd=4000) as scene:
        conn, poller = scene.conn, scene.testbed.stack.poller()

        def told() -> list[PollEvents]:
            scene.testbed.pump()
            return [events for _, events in poller.poll(0)]

        poller.register(conn, OUT | ET)
        assert told() == [OUT]
        conn.set_option("TCP_NOTSENT_LOWAT", 1)
        conn.send(bytes(6000))
        assert told() == []
        with pytest.raises(BlockingIOError):
            conn.send(b"no room", timeout=0)
        unsent = conn.unsent_bytes
        assert unsent > 1
        conn.set_option("TCP_NOTSENT_LOWAT", unsent - 1)
        assert told() == []
        conn.set_option("TCP_NOTSENT_LOWAT", unsent)
        assert told() == [OUT]
        assert told() == []
        conn.set_low_water(5999)
        poller.modify(conn, OUT | ET)
        assert told() == []
        conn.set_low_water(6000)
        assert told() == [OUT]
        poller.close()
        scene.abort()


# ---------------------------------------------------------------- what is registered


def test_poll_gives_back_what_was_registered_or_its_data(pair: Pair, ends: Ends, poller: Poller) -> None:
    ours, _ = ends
    other = pair.b.poller()
    poller.register(ours, OUT)
    other.register(ours, OUT, data="name")
    assert poller.poll(0) == [(ours, OUT)]
    assert other.poll(0) == [("name", OUT)]
    other.modify(ours, OUT, data=0)
    assert other.poll(0) == [(0, OUT)]
    other.modify(ours, OUT)
    assert other.poll(0) == [(ours, OUT)]


def test_an_edge_is_told_to_every_poller(pair: Pair, ends: Ends, poller: Poller) -> None:
    ours, theirs = ends
    pollers = [poller, pair.b.poller(), pair.b.poller()]
    for each in pollers:
        each.register(ours, IN | ET)
    pollers[1].unregister(ours)
    theirs.send(b"word")
    pair.pump()
    assert [each.poll(0) for each in pollers] == [[(ours, IN)], [], [(ours, IN)]]
    assert [each.poll(0) for each in pollers] == [[], [], []]


def test_events_are_the_select_modules_too(ends: Ends, poller: Poller) -> None:
    poller.register(ends[0], select.EPOLLOUT | select.EPOLLET)
    ((_, events),) = poller.poll(0)
    assert events == select.EPOLLOUT
    assert isinstance(events, PollEvents)


def test_what_finds_no_place_comes_first_the_next_time(pair: Pair) -> None:
    listener = pair.a.listen(80)
    connections = [opened(pair) for _ in range(5)]
    poller = pair.b.poller()
    for each in connections:
        poller.register(each, OUT)
    said = [[target for target, _ in poller.poll(0, maxevents=2)] for _ in range(5)]
    assert [target for some in said for target in some] == connections * 2
    for each in connections:
        each.abort()
    listener.close()


def test_urgent_data_is_told_before_it_has_come() -> None:
    """By its pointer; Linux waits for the byte."""
    with established() as scene:
        poller = scene.testbed.stack.poller()
        poller.register(scene.conn, PollEvents.EPOLLPRI | IN | ET)
        scene.peer.send("AU", urgent=5)
        assert scene.conn.urgent_bytes == 5
        assert poller.poll(0) == [(scene.conn, PollEvents.EPOLLPRI)]
        scene.peer.send("AU", payload=b"hello", urgent=5)
        assert poller.poll(0) == [(scene.conn, IN | PollEvents.EPOLLPRI)]
        assert scene.conn.recv(10) == b"hello"
        assert poller.poll(0) == []
        poller.close()
        scene.abort()


# ---------------------------------------------------------------- refused


def test_registered_twice_and_never(pair: Pair, ends: Ends, poller: Poller) -> None:
    ours, _ = ends
    poller.register(ours, IN)
    with pytest.raises(AlreadyRegistered, match="is registered already") as twice:
        poller.register(ours, OUT)
    assert isinstance(twice.value, FileExistsError)
    assert twice.value.errno == errno.EEXIST
    poller.unregister(ours)
    for call in (lambda: poller.unregister(ours), lambda: poller.modify(ours, IN)):
        with pytest.raises(NotRegistered, match="is not registered") as never:
            call()
        assert isinstance(never.value, FileNotFoundError)
        assert never.value.errno == errno.ENOENT
    wrongs: list[Any] = [None, 5, [], "ours"]
    for wrong in wrongs:
        with pytest.raises(NotRegistered):
            poller.unregister(wrong)


@pytest.mark.parametrize("wrong", [None, 5, "80", [], object()])
def test_what_is_no_connection_and_no_listener(poller: Poller, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"is no Connection or Listener of a stack"):
        poller.register(wrong, IN)
    assert len(poller) == 0


@pytest.mark.parametrize("events", [0x40, 1 << 28, 1 << 29, 0xFFFFFFFF, -1, 1 << 32, ~IN])
def test_events_that_there_are_not(ends: Ends, poller: Poller, events: int) -> None:
    poller.register(ends[0], IN)
    for call in (poller.register, poller.modify):
        with pytest.raises(ValueError, match=r"events -?[0-9a-fx]+: "):
            call(ends[0], events)
    with pytest.raises(TypeError):
        poller.modify(ends[0], "EPOLLIN")  # type: ignore[arg-type]
    ends[1].send(b"still IN")
    assert len(poller) == 1


def test_what_is_closed_of_another_stack_or_an_applications(pair: Pair, ends: Ends, poller: Poller) -> None:
    ours, theirs = ends
    for target in (theirs, pair.a.listen(81)):
        with pytest.raises(ValueError, match="is not of this poller's stack"):
            poller.register(target, IN)
    ours.close()
    with pytest.raises(ValueError, match="is closed"):
        poller.register(ours, IN)
    listener = pair.b.listen(80)
    listener.close()
    with pytest.raises(ValueError, match="is closed"):
        poller.register(listener, IN)
    taken = pair.b.listen(82, application=EventRecorder())
    with pytest.raises(ValueError, match=r"the Application of .* takes its connections"):
        poller.register(taken, IN)
    assert len(poller) == 0


@pytest.mark.parametrize("timeout", [math.nan, -1, -0.001, -math.inf])
def test_a_timeout_must_be_a_time(poller: Poller, timeout: float) -> None:
    with pytest.raises(ValueError, match=r"timeout .*: must be 0 or more seconds"):
        poller.poll(timeout)
    with pytest.raises((TypeError, ValueError)):
        poller.poll("soon")  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [0, -1, 1 << 70])
def test_maxevents_is_at_least_one(poller: Poller, most: int) -> None:
    with pytest.raises(ValueError, match="maxevents"):
        poller.poll(0, most)


def test_a_closed_poller(ends: Ends, poller: Poller) -> None:
    poller.register(ends[0], OUT)
    poller.close()
    poller.close()
    assert poller.closed
    assert len(poller) == 0
    calls: list[Callable[[], object]] = [
        lambda: poller.poll(0),
        lambda: poller.register(ends[0], IN),
        lambda: poller.modify(ends[0], IN),
        lambda: poller.unregister(ends[0]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the poller is closed"):
            call()


def test_a_closed_stack(pair: Pair, ends: Ends) -> None:
    poller = pair.b.poller()
    poller.register(ends[0], IN)
    pair.b.close()
    for call in (lambda: poller.poll(0), lambda: poller.modify(ends[0], IN), pair.b.poller):
        with pytest.raises(ValueError, match="the stack is closed"):
            call()
    poller.unregister(ends[0])
    poller.close()
    assert watches() == 0


def test_nobody_but_a_stack_makes_one() -> None:
    with pytest.raises(TypeError, match=r"use Stack\.poller\(\)"):
        Poller()
    made = Poller.__new__(Poller)
    assert repr(made) == "<Poller, closed>"
    with pytest.raises(ValueError, match="the poller is closed"):
        made.poll(0)
    made.close()


def test_a_repr_says_how_many(ends: Ends, poller: Poller) -> None:
    poller.register(ends[0], IN)
    assert repr(poller) == "<Poller, 1 registered>"


# ---------------------------------------------------------------- what ends a registration


def test_close_and_abort_end_it(pair: Pair, ends: Ends, poller: Poller) -> None:
    ours, theirs = ends
    other = pair.a.poller()
    other.register(theirs, IN, Word())
    poller.register(ours, IN, Word())
    theirs.close()
    ours.abort()
    assert (len(poller), len(other), watches()) == (0, 0, 0)
    assert poller.poll(0) == other.poll(0) == []


@pytest.mark.parametrize("how", [Connection.close, Connection.abort])
def test_close_and_abort_of_a_connection_that_has_ended(
    pair: Pair, ends: Ends, poller: Poller, how: Callable[[Connection], None]
) -> None:
    ours, theirs = ends
    poller.register(ours, IN)
    theirs.abort()
    pair.pump()
    assert poller.poll(0) == [(ours, IN | HUP | ERR)]
    how(ours)
    assert (poller.poll(0), len(poller)) == ([], 0)
    with pytest.raises(ValueError, match="is closed"):
        poller.register(ours, IN)


def test_an_open_file_keeps_it_registered(pair: Pair, ends: Ends, poller: Poller) -> None:
    """As the descriptor of a socket whose makefile() is open."""
    ours, _ = ends
    file = ours.makefile("rb")
    poller.register(ours, OUT)
    ours.close()
    assert poller.poll(0) == [(ours, OUT)]
    file.close()
    assert (poller.poll(0), len(poller)) == ([], 0)


def test_close_of_a_listener_ends_it(pair: Pair, poller: Poller) -> None:
    listener = pair.b.listen(80)
    poller.register(listener, IN)
    listener.close()
    assert (poller.poll(0), len(poller), watches()) == ([], 0, 0)


def test_data_is_let_go_with_its_registration_and_without_the_collector(pair: Pair, ends: Ends) -> None:
    def use(poller: Poller, how: str) -> None:
        if how == "unregister":
            poller.unregister(ends[0])
        elif how == "modify":
            poller.modify(ends[0], IN)
        elif how == "close":
            poller.close()

    gc.collect()
    gc.disable()
    try:
        for how in ("unregister", "modify", "close", "end of the poller"):
            poller = pair.b.poller()
            word = Word()
            gone = weakref.ref(word)
            poller.register(ends[0], OUT, word)
            poller.poll(0)
            del word
            assert gone() is not None
            use(poller, how)
            del poller
            assert gone() is None, how
        assert watches() == 0
    finally:
        gc.enable()


def test_data_may_use_the_stack_when_it_goes(pair: Pair, ends: Ends) -> None:
    """It goes after the call that let it go has left the stack."""
    ours, theirs = ends
    for name in ("unregister", "modify", "close", "close of the connection"):
        poller = pair.b.poller()
        target = opened(pair, 80) if name == "close of the connection" else ours
        poller.register(target, OUT, Word(at_end=lambda: ours.send(b".")))
        if name == "unregister":
            poller.unregister(target)
        elif name == "modify":
            poller.modify(target, OUT)
        elif name == "close":
            poller.close()
        else:
            target.close()
    pair.pump()
    assert theirs.recv(10) == b"...."


def test_the_end_of_one_may_close_another_of_the_same_poller(pair: Pair, ends: Ends) -> None:
    others = [pair.b.connect(STACK_ADDRESS, 81, wait=False) for _ in range(20)]
    poller = pair.b.poller()
    for number, each in enumerate(others):
        poller.register(each, OUT, Word(at_end=others[(number + 7) % 20].close))
    del poller
    assert watches() == 0
    pair.pump()
    assert [each.state for each in others] == ["CLOSED"] * 20


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_ring_of_poller_connection_and_data_is_collected(pair: Pair) -> None:
    listener = pair.a.listen(80)
    poller: Poller | None = pair.b.poller()
    assert poller is not None
    connections: list[Connection] | None = [opened(pair) for _ in range(3)]
    assert connections is not None
    gone = []
    for each in connections:
        word = Word(poller, each, connections)
        gone.append(weakref.ref(word))
        poller.register(each, IN | OUT, word)
    assert len(poller.poll(0)) == 3
    poller = connections = each = word = None  # type: ignore[assignment]
    gc.collect()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    assert watches() == 0
    pair.advance(SECOND)
    listener.close()


def test_a_poller_keeps_what_is_registered(pair: Pair) -> None:
    listener = pair.a.listen(80)
    poller = pair.b.poller()
    poller.register(opened(pair), OUT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
        ((connection, _),) = poller.poll(0)
    connection.close()
    listener.close()


# ---------------------------------------------------------------- what it costs


def added(stack: Stack, before: dict[str, int]) -> dict[str, int]:
    after = stack.counters()
    return {name: after[name] - before[name] for name in ("hand_overs", "events_handed_over")}


def test_who_is_not_watched_costs_no_hand_over(pair: Pair, ends: Ends, poller: Poller) -> None:
    ours, theirs = ends
    for watched, each in ((False, 0), (True, 1), (False, 0)):
        if watched:
            poller.register(ours, IN)
        elif len(poller):
            poller.unregister(ours)
        for _ in range(3):  # the first pauses the connection, the others are behind it
            before = pair.b.counters()
            theirs.send(b"word")
            pair.advance(TURN)
            assert added(pair.b, before) == {"hand_overs": each, "events_handed_over": each}


def test_what_is_disarmed_costs_no_hand_over(pair: Pair, ends: Ends, poller: Poller) -> None:
    ours, theirs = ends
    poller.register(ours, IN | PollEvents.EPOLLONESHOT)
    theirs.send(b"word")
    pair.pump()
    assert poller.poll(0) == [(ours, IN)]
    before = pair.b.counters()
    theirs.send(b"word")
    pair.pump()
    assert added(pair.b, before) == {"hand_overs": 0, "events_handed_over": 0}


class EchoServer:
    """On stack a, with one poller: what comes goes back. Level-triggered."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.poller = stack.poller()
        self.listener = stack.listen(7, backlog=20_000)
        self.listener.setblocking(False)
        self.poller.register(self.listener, IN)
        self.connections: set[Connection] = set()

    def serve(self) -> int:
        """What is ready now; how much that was."""
        ready = self.poller.poll(0, maxevents=100_000)
        for target, _ in ready:
            if isinstance(target, Listener):
                self.accept()
            else:
                self.echo(target)
        return len(ready)

    def accept(self) -> None:
        while self.listener.pending:
            connection = self.listener.accept()
            connection.setblocking(False)
            self.connections.add(connection)
            self.poller.register(connection, IN)

    def echo(self, connection: Connection) -> None:
        data = connection.recv(65536)
        if data:
            connection.send(data)
        else:
            self.connections.discard(connection)
            connection.close()

    def close(self) -> None:
        self.listener.close()
        for connection in self.connections:
            connection.abort()
        self.poller.close()


def echo_work(pair: Pair, server: EchoServer, clients: list[Connection], which: int) -> dict[str, int]:
    """What one echo among so many costs the server."""
    assert server.serve() == 0  # what accept() has emptied is looked at once more
    before, looks = pair.a.counters(), server.poller.looks
    clients[which].send(b"anybody?")
    pair.pump()
    assert server.serve() == 1
    assert server.serve() == 0
    pair.pump()
    assert clients[which].recv(100) == b"anybody?"
    return added(pair.a, before) | {"looks": server.poller.looks - looks}


def test_one_ready_among_ten_thousand_is_the_work_of_one() -> None:
    with Pair(msl_ns=0) as pair:
        server = EchoServer(pair.a)
        clients: list[Connection] = []
        work = []
        for total in (1, 10_000):
            while len(clients) < total:
                clients += [pair.b.connect(STACK_ADDRESS, 7, wait=False) for _ in range(min(500, total - len(clients)))]
                pair.advance(5 * MILLISECOND)
                server.serve()
            assert len(server.poller) == total + 1
            work += [echo_work(pair, server, clients, total // 2), echo_work(pair, server, clients, total - 1)]
        assert work == [{"hand_overs": 1, "events_handed_over": 1, "looks": 2}] * 4
        for client in clients:
            client.abort()
        server.close()
        pair.advance(SECOND)


def test_a_registration_is_small_and_comes_back(pair: Pair) -> None:
    count = 2000
    listener = pair.a.listen(80, backlog=count)
    connections = [pair.b.connect(STACK_ADDRESS, 80, wait=False) for _ in range(count)]
    pair.advance(TURN)
    poller = pair.b.poller()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for each in connections:
            poller.register(each, IN)
        assert tracemalloc.get_traced_memory()[0] - before < 320 * count
        for each in connections:
            poller.unregister(each)
        poller.close()
        del poller
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 8 * count
    finally:
        tracemalloc.stop()
    for each in connections:
        each.abort()
    listener.close()


# ---------------------------------------------------------------- waiting


@pytest.fixture
def stack(make_stack: MakeStack) -> Stack:
    """On a real clock, and a wire on which nothing comes."""
    made: Stack = make_stack(SimNetwork().a)
    return made


def test_a_manual_clock_does_not_wait(ends: Ends, poller: Poller) -> None:
    poller.register(ends[0], IN)
    for timeout in (None, 5.0):
        with pytest.raises(BlockingIOError, match="nothing is ready; a stack with a manual clock does not wait"):
            poller.poll(timeout)
    assert poller.poll(0) == []
    poller.modify(ends[0], OUT)
    assert poller.poll(None) == poller.poll(5.0) == [(ends[0], OUT)]


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_nothing_within_the_time(stack: Stack, timeout: float) -> None:
    poller = stack.poller()
    poller.register(stack.listen(80), IN)
    turns = stack.turns()["turns"]
    assert poller.poll(timeout) == []
    assert stack.turns()["turns"] > turns


def test_what_is_ready_is_no_reason_not_to_make_a_turn(stack: Stack) -> None:
    """A loop in which something is always ready must not starve the stack, nor other threads' calls."""
    connection = stack.connect(PEER_ADDRESS, 80, wait=False)
    poller = stack.poller()
    connection.shutdown()  # nothing was sent: it ends
    poller.register(connection, OUT)
    assert poller.poll() == [(connection, OUT | HUP | ERR)]
    called: list[str] = []
    turns = stack.turns()["turns"]
    stack.call_soon_threadsafe(called.append, "call")
    assert poller.poll() == [(connection, OUT | HUP | ERR)]
    assert stack.turns()["turns"] > turns
    assert called == ["call"]


def test_another_threads_call_ends_the_wait_by_what_it_does(stack: Stack) -> None:
    connection = stack.connect(PEER_ADDRESS, 80, wait=False)
    poller = stack.poller()
    poller.register(connection, IN)
    thread = threading.Thread(target=lambda: stack.call_soon_threadsafe(connection.shutdown))
    thread.start()
    assert poller.poll(60) == [(connection, IN | HUP | ERR)]
    thread.join(60)
    connection.close()


def test_a_call_may_use_the_poller(stack: Stack) -> None:
    """Poll it, too: what is told there is not told again."""
    connection = stack.connect(PEER_ADDRESS, 80, wait=False)
    connection.shutdown()
    poller = stack.poller()
    told: list[object] = []

    def call() -> None:
        poller.register(connection, IN | ET)
        told.append(poller.poll())

    stack.call_soon_threadsafe(call)
    assert poller.poll(0.001) == []
    assert told == [[(connection, IN | HUP | ERR)]]
    connection.close()


@pytest.mark.parametrize("closes", ["the poller", "the stack"])
def test_what_is_closed_by_a_call_ends_the_wait(stack: Stack, closes: str) -> None:
    poller = stack.poller()
    poller.register(stack.listen(80), IN)
    stack.call_soon_threadsafe(poller.close if closes == "the poller" else stack.close)
    with pytest.raises(ValueError, match=f"{closes} is closed"):
        poller.poll(60)


def test_what_a_call_raises_comes_out_and_no_edge_is_lost(stack: Stack) -> None:
    connection = stack.connect(PEER_ADDRESS, 80, wait=False)
    connection.shutdown()
    poller = stack.poller()
    poller.register(connection, IN | ET)

    def call() -> None:
        raise ZeroDivisionError

    stack.call_soon_threadsafe(call)
    with pytest.raises(ZeroDivisionError):
        poller.poll()
    assert poller.poll(0) == [(connection, IN | HUP | ERR)]
    connection.close()


REGISTERED = """
    import ctypes, signal
    import ustack.blocking.poller as module
    from ustack import PollEvents
    from ustack.testing.pair import Pair
    from ustack.testing.testbed import SECOND, STACK_ADDRESS

    IN, OUT, ET, ONESHOT = PollEvents.EPOLLIN, PollEvents.EPOLLOUT, PollEvents.EPOLLET, PollEvents.EPOLLONESHOT
    pair = Pair()
    listener = pair.a.listen(80)
    connections, accepted = [], []
    for _ in range(6):
        connections.append(pair.b.connect(STACK_ADDRESS, 80))
        pair.advance(SECOND)
        accepted.append(listener.accept(timeout=0))
        accepted[-1].send(b"edge")
        pair.advance(SECOND)
    poller = pair.b.poller()
    # In this order: once, once and armed no more, always; each of EPOLLIN alone, and of EPOLLIN | EPOLLOUT (5).
    wishes = [IN | ET, IN | ONESHOT, IN, IN | OUT | ET, IN | OUT | ONESHOT, IN | OUT]

    def register():
        for connection, wish in zip(connections, wishes):
            poller.register(connection, wish)

    def told():
        return [connections.index(connection) for connection, _ in poller.poll(0)]

    class Interruption(BaseException):
        pass

    def interrupt(*_):
        raise Interruption
"""


@pytest.mark.parametrize(
    "happens",
    [
        # In the middle of the list, where Python code makes the events' name.
        """
        def interrupted(number):
            if number == 5:
                signal.raise_signal(signal.SIGUSR1)
            return PollEvents(number)

        signal.signal(signal.SIGUSR1, interrupt)
        module.PollEvents = interrupted
        """,
        # In C, where nobody looks at it until the list is whole.
        """
        poller.register(connections[0], IN)
        poller.poll(0)
        poller.unregister(connections[0])
        assert signal.SIGTRAP == 5
        signal.signal(signal.SIGTRAP, interrupt)
        module.PollEvents = ctypes.CDLL(None)["raise"]
        """,
    ],
)
def test_no_edge_is_lost_by_what_a_signals_handler_raises(happens: str) -> None:
    """In a process of its own: a number's events are named once in each."""
    script = textwrap.dedent(REGISTERED) + textwrap.dedent(happens)
    script += textwrap.dedent("""
        register()
        try:
            poller.poll(0)
        except Interruption:
            print("interrupted")
        module.PollEvents = PollEvents
        print(told(), told())
    """)
    done = run_python(script)
    assert done.stdout == "interrupted\n[0, 1, 2, 3, 4, 5] [2, 5]\n", done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="without memory CPython from 3.12 on crashes by itself")
def test_no_edge_is_lost_for_want_of_memory() -> None:
    """One allocation of Python's fails, at every moment of a poll()."""
    pytest.importorskip("_testcapi")
    script = textwrap.dedent(REGISTERED) + textwrap.dedent("""
        import _testcapi

        begin, end = _testcapi.set_nomemory, _testcapi.remove_mem_hooks
        failed = 0
        for moment in range(60):
            register()
            first = failure = None
            begin(moment, moment + 1)
            try:
                first = poller.poll(0)
            except MemoryError as error:
                failure = error
            end()
            failed += failure is not None
            found = told() if first is None else [connections.index(connection) for connection, _ in first]
            assert (found, told()) == ([0, 1, 2, 3, 4, 5], [2, 5]), (moment, failure, found)
            for connection in connections:
                poller.unregister(connection)
        print(failed)
    """)
    done = run_python(script, PYTHONHASHSEED="0")
    assert int(done.stdout or 0) >= 2, done.stderr  # the list itself, and when it grows


def test_the_collector_may_run_in_the_middle(pair: Pair) -> None:
    """With finalizers that take other registrations out of the list that is being told."""
    listener = pair.a.listen(80)
    connections = [opened(pair) for _ in range(40)]
    poller = pair.b.poller()
    before = gc.get_threshold()
    refused: list[OwnershipError] = []

    def leave(each: Connection) -> None:
        try:
            poller.unregister(each)
        except OwnershipError as error:
            refused.append(error)

    try:
        for each in connections:
            poller.register(each, OUT, Word())
        for each in connections[::2]:
            ring = Word(at_end=partial(leave, each))
            ring.kept = (ring,)
            del ring
        gc.set_threshold(1)
        assert len(poller.poll(0)) >= 20
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert all(error.reason == "reentered" for error in refused)
    poller.close()
    for each in connections:
        each.abort()
    listener.close()


# ---------------------------------------------------------------- calls that do not wait


def test_a_send_without_room_would_block(pair: Pair, ends: Ends) -> None:
    ours, _ = ends
    ours.set_option("SO_SNDBUF", 4096)
    ours.setblocking(False)
    assert ours.send(bytes(5000)) == 4096
    for call in (lambda: ours.send(b"more"), lambda: ours.send(b"more", timeout=0)):
        with pytest.raises(BlockingIOError, match="there is no room") as raised:
            call()
        assert raised.value.errno == errno.EAGAIN
    with pytest.raises(BlockingIOError, match="0 of 4 bytes queued") as raised:
        ours.sendall(b"more")
    assert raised.value.characters_written == 0
    assert ours.send(b"") == 0
    file = ours.makefile("wb", 0)
    assert file.write(b"more") is None  # type: ignore[attr-defined]
    file.close()  # type: ignore[attr-defined]


def test_a_listeners_own_timeout(pair: Pair) -> None:
    listener = pair.a.listen(80)
    assert listener.gettimeout() is None
    listener.setblocking(False)
    assert listener.gettimeout() == 0
    with pytest.raises(BlockingIOError, match=r"no connection came$"):
        listener.accept()
    listener.settimeout(2)
    assert listener.gettimeout() == 2
    with pytest.raises(BlockingIOError, match="does not wait"):
        listener.accept()
    with pytest.raises(ValueError, match="must be 0 or more seconds"):
        listener.settimeout(-1)
    listener.setblocking(True)
    assert listener.gettimeout() is None
    with opened(pair) as client:
        assert listener.accept().remote == client.local
    listener.close()
