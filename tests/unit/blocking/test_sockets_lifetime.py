# SPDX-License-Identifier: MIT
"""Listeners and connections that outlive their stack, are dropped, or find no memory."""

import gc
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.unit.blocking.opening import TURN, opened
from ustack import (
    ConnectionAborted,
    SimNetwork,
    Stack,
)
from ustack.testing.pair import Pair
from ustack.testing.testbed import PEER_ADDRESS, STACK_ADDRESS

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


@pytest.mark.parametrize("how", ["the link goes away", "a callback closes the stack"])
def test_a_stack_that_lingers_ends_when_there_is_nothing_to_wait_for(how: str) -> None:
    """A closed connection whose FIN is never acknowledged, and a minute of patience that is not needed."""
    network = SimNetwork()
    server = Stack(network.b, PEER_ADDRESS + "/24")
    client = Stack(network.a, STACK_ADDRESS + "/24")
    listener = server.listen(80)
    connection = client.connect(PEER_ADDRESS, 80, wait=False)
    while not listener.pending:
        network.advance(max(network.next_event_ns or 0, network.now_ns))
        client.poll()
        server.poll()
    connection.send(b"never acknowledged", timeout=0)
    connection.close()
    assert client.closing_connections() == 1
    turns = client.turns()["turns"]
    if how == "the link goes away":
        network.a.close()
    else:
        client.call_soon_threadsafe(lambda: client.close(linger=0))
    client.close(linger=60)
    assert client.turns()["turns"] < turns + 100
    assert not any(client.leaks().values())
    server.close(linger=0)


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
    assert (opener.reason, pair.a.connections("connection")) == ("reset", [])


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
