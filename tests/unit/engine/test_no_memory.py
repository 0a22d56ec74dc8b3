# SPDX-License-Identifier: MIT
"""Memory that runs out, at each place where it is asked for: while things are made, and while connections live.

What is refused must be refused whole: nothing leaks, nothing that was there before is lost, and once there is memory
again everything works.
"""

import contextlib
import errno
import itertools
from collections.abc import Callable

import pytest

from ustack import Listener, SimNetwork, Stack
from ustack.buf import lent
from ustack.errors import StackError
from ustack.link.memory import MemoryLink
from ustack.testing.parts.failing import Failing
from ustack.testing.peer import ScriptedPeer
from ustack.testing.testbed import SECOND, Testbed

OPTIONS = {"mss": 1460, "sack_permitted": True, "nop": 1}


def refused_at_each_place(module: str, function: str, make: Callable[[], None]) -> int:
    """Make it with the first, the second, ... call failing, until none fails. How many places there were."""
    for place in itertools.count():
        before = lent.alive()
        with Failing(module, function, errno.ENOMEM, after=place) as calls:
            try:
                make()
            except (MemoryError, OSError):
                assert calls is not None
        if calls.failed == 0:
            return place
        assert lent.alive() == before
        assert place < 50
    raise AssertionError


def make_stack() -> None:
    network = SimNetwork(1, now_ns=0)
    try:
        stack = Stack(network.a, "198.18.0.2/24", seed=1, now_ns=0)
        stack.poll(0)
        stack.close()
    finally:
        network.close()


def make_memory_link() -> None:
    MemoryLink(rx_slots=4, tx_slots=4).close()


@pytest.mark.parametrize(
    ("module", "function", "make", "least"),
    [
        ("ustack.tcp.records.demux", "mmap", make_stack, 1),
        ("ustack.ip.neighbour", "calloc", make_stack, 3),
        ("ustack.base.wheel", "mmap", make_stack, 1),
        ("ustack.buf.slab", "mmap", make_stack, 8),
        ("ustack.link.simwire", "calloc", make_stack, 1),
        ("ustack.link.simwire", "malloc", make_stack, 1),
        ("ustack.link.memory_ring", "malloc", make_memory_link, 2),
        ("ustack.link.memory_ring", "calloc", make_memory_link, 2),
    ],
)
def test_what_cannot_be_made_whole_is_not_made(
    module: str, function: str, make: Callable[[], None], least: int
) -> None:
    assert refused_at_each_place(module, function, make) >= least
    make()


# ---------------------------------------------------------------- while connections live


def live(bed: Testbed, listener: Listener, first_port: int) -> None:
    """Connections that are opened both ways, receive in and out of order, send, and are reset or half closed."""
    peers = [ScriptedPeer(bed, port=first_port + number) for number in range(6)]
    for peer in peers:
        peer.send("S", options=OPTIONS)
        if peer.queue and "R" not in peer.queue[0].flags:
            peer.expect("SA")
        peer.send("A")
    taken = []
    while listener.pending:
        try:
            taken.append(listener.accept(timeout=0))
        except (StackError, MemoryError):
            break
    for peer in peers:
        for seq in (3001, 9001, 6001, 12001):
            peer.send("A", seq=seq, payload=b"x" * 1000)
        peer.send("A", seq=1, payload=b"y" * 3000)
        peer.send("FA", seq=13001)
    for connection in taken:
        try:
            connection.send(b"response" * 1000)
            connection.receive(100, timeout=0)
        except (OSError, MemoryError):
            continue
    with contextlib.suppress(OSError, MemoryError):
        taken.append(bed.stack.connect("198.18.0.77", 4000, wait=False))
    bed.advance(SECOND)
    for peer in peers:
        peer.drain()
        peer.send("R", seq=peer.snd_nxt)
        peer.send("R", seq=4001)
        peer.send("R", seq=13002)
    for connection in taken:
        connection.abort()


@pytest.mark.parametrize("times", [1, None], ids=["once", "from then on"])
@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("ustack.buf.slab", "mprotect"),
        ("ustack.buf.chunks", "mmap"),
        ("ustack.buf.chunks", "realloc"),
        ("ustack.buf.chunks", "malloc"),
        ("ustack.blocking.events", "calloc"),
        ("ustack.ip.neighbour", "malloc"),
        ("ustack.buf.lent", "malloc"),
    ],
)
def test_connections_without_memory_end_or_go_on_and_nothing_leaks(
    module: str, function: str, times: int | None
) -> None:
    """Leaving the testbed compares what is held with what was held before anything was opened."""
    failed = 0
    for place in range(30):
        with Testbed(msl_ns=0) as bed:
            bed.introduce()
            listener = bed.stack.listen(80)
            with Failing(module, function, errno.ENOMEM, after=place, times=times) as calls:
                live(bed, listener, 1000)
            failed += calls.failed > 0
            peer = ScriptedPeer(bed, port=3000)
            peer.send("S", options=OPTIONS)
            peer.expect("SA")
            peer.send("A")
            while (connection := listener.accept(timeout=0)).getpeername() != (peer.address, peer.port):
                connection.abort()
            peer.send("A", payload=b"as before")
            assert connection.receive(100, timeout=0) == b"as before"
            connection.abort()
            listener.close()
        if not calls.failed:
            break
    assert failed


def test_unread_bytes_of_a_connection_that_ends_find_no_memory() -> None:
    """They are lost, and the application is told why: an end like any other would hide it."""
    with Testbed(msl_ns=0) as bed:
        bed.introduce()
        listener = bed.stack.listen(80)
        peer = ScriptedPeer(bed, port=2000)
        peer.send("S", options=OPTIONS)
        peer.expect("SA")
        peer.send("A")
        connection = listener.accept(timeout=0)
        peer.send("PA", payload=b"the last words")
        connection.shutdown()
        bed.pump()
        peer.expect("FA")
        with Failing("ustack.blocking.events", "malloc", errno.ENOMEM) as calls:
            peer.send("FA", ack=2)
        assert calls.failed == 1
        with pytest.raises(StackError) as raised:
            connection.receive(100, timeout=0)
        assert raised.value.reason == "no_memory"
        listener.close()


def test_a_flow_table_that_cannot_grow_serves_on() -> None:
    """A little slower, and when it is nearly full nobody new is taken; who is there is found, in either direction."""
    with Testbed(msl_ns=0, syn_queue=4096) as bed:
        bed.introduce()
        listener = bed.stack.listen(80, backlog=4096)
        peers: list[ScriptedPeer] = []
        with Failing("ustack.tcp.records.demux", "mmap", errno.ENOMEM) as calls:
            while "drop_no_memory" not in bed.counted():
                peers.append(ScriptedPeer(bed, port=1000 + len(peers)))
                peers[-1].send("S", options=OPTIONS)
                assert len(peers) < 4000
            late = peers.pop()
            with pytest.raises(StackError) as raised:
                bed.stack.connect(late.address, 4000, wait=False)
            assert raised.value.reason == "no_memory"
            for peer in peers:
                peer.expect("SA")
                peer.send("A")
        assert calls.failed > 0
        assert bed.counted()["drop_no_memory"] == 1
        late.expect_nothing()
        assert listener.pending == len(peers)
        late.send("S", seq=0, options=OPTIONS)
        late.expect("SA")
        for peer in (*peers, late):
            peer.send("R", seq=1)
        listener.close()
