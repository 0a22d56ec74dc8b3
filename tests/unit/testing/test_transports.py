# SPDX-License-Identifier: MIT
"""What application.pxd promises, asked of every transport with the same words: the engine's TCP between two stacks,
the one in memory, and the kernel's sockets with each strategy."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ustack import Connection
from ustack.buf import lent
from ustack.kernel import strategies
from ustack.testing.loopback import Loopback
from ustack.testing.memory_transport import MemoryTransport
from ustack.testing.pair import Pair
from ustack.testing.parts.bare_transport import BareTransport
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, SECOND, STACK_ADDRESS

QUEUE_BYTES = 65536
LOW_WATER_BYTES = 16384
WINDOW_BYTES = 8192
BUFFER_BYTES = 2048  # which the kernel doubles
CALL_STATE = -4


class Client:
    """A client's end: what it has received so far, and how its connection ended ("": it has not)."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.received = b""
        self.ended = ""

    def push(self, segment: bytes) -> None:
        raise NotImplementedError

    def pull(self) -> bytes:
        raise NotImplementedError

    def shutdown(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def send(self, *segments: bytes) -> None:
        for segment in segments:
            self.push(segment)
            self.world.settle()

    def read(self) -> bytes:
        """Take everything that comes without time passing."""
        try:
            while not self.ended:
                found = self.pull()
                self.received += found
                if not found:
                    self.ended = "eof"
                self.world.settle()
        except BlockingIOError:
            pass
        except OSError as error:
            self.ended = type(error).__name__
        return self.received


class World:
    """A transport with a Recorder at port 80."""

    recorder: Recorder
    clients: list[Client]

    def open(self) -> Client:
        raise NotImplementedError

    def settle(self) -> None:
        raise NotImplementedError

    def advance(self, duration_ns: int) -> None:
        raise NotImplementedError

    def is_due(self) -> bool:
        """Has the transport something to do in a turn at this time?"""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class EngineClient(Client):
    def __init__(self, world: "EngineWorld") -> None:
        super().__init__(world)
        self.connection: Connection = world.pair.b.connect(STACK_ADDRESS, 80, wait=False)
        self.connection.nodelay = True

    def push(self, segment: bytes) -> None:
        self.connection.send(segment)

    def pull(self) -> bytes:
        return self.connection.receive(1 << 20, timeout=0)

    def shutdown(self) -> None:
        self.connection.shutdown()

    def abort(self) -> None:
        self.connection.abort()


class EngineWorld(World):
    def __init__(self) -> None:
        self.recorder = Recorder()
        self.clients = []  # one that is dropped is closed
        self.pair = Pair(
            a={"snd_queue_bytes": QUEUE_BYTES, "snd_low_water_bytes": LOW_WATER_BYTES},
            b={"rcv_buffer_bytes": WINDOW_BYTES},
        )
        self.pair.a.listen(80, application=self.recorder)

    def open(self) -> EngineClient:
        client = EngineClient(self)
        self.clients.append(client)
        self.settle()
        return client

    def settle(self) -> None:
        self.pair.pump()
        while (at := self.pair.a.next_deadline_ns) is not None and at <= self.pair.now_ns:
            self.pair.pump()  # what waits for the next turn

    def advance(self, duration_ns: int) -> None:
        self.pair.advance(duration_ns)

    def is_due(self) -> bool:
        at = self.pair.a.next_deadline_ns
        return at is not None and at <= self.pair.now_ns

    def close(self) -> None:
        self.pair.close()


class MemoryEnd(Client):
    def __init__(self, world: "MemoryWorld") -> None:
        super().__init__(world)
        self.end = world.transport.open(80, window_bytes=WINDOW_BYTES)

    def push(self, segment: bytes) -> None:
        self.end.send(segment)

    def pull(self) -> bytes:
        return self.end.receive(1 << 20)

    def shutdown(self) -> None:
        self.end.shutdown()

    def abort(self) -> None:
        self.end.abort()


class MemoryWorld(World):
    def __init__(self) -> None:
        self.recorder = Recorder()
        self.clients = []  # one that is dropped is closed
        self.transport = MemoryTransport(send_queue_bytes=QUEUE_BYTES, low_water_bytes=LOW_WATER_BYTES)
        self.transport.listen(80, self.recorder)

    def open(self) -> MemoryEnd:
        client = MemoryEnd(self)
        self.clients.append(client)
        self.settle()
        return client

    def settle(self) -> None:
        self.transport.settle()

    def advance(self, duration_ns: int) -> None:
        self.transport.advance(duration_ns)

    def is_due(self) -> bool:
        return self.transport.poll() != 0

    def close(self) -> None:
        self.transport.close()


class KernelEnd(Client):
    def __init__(self, world: "KernelWorld") -> None:
        super().__init__(world)
        self.end = world.loopback.open(BUFFER_BYTES)

    def push(self, segment: bytes) -> None:
        self.end.send(segment)

    def pull(self) -> bytes:
        return self.end.receive(1 << 20)

    def shutdown(self) -> None:
        self.end.shutdown()

    def abort(self) -> None:
        self.end.abort()


class KernelWorld(World):
    """With buffers so small that bytes stay with who has sent them, as the other worlds' windows make them."""

    def __init__(self, strategy: str) -> None:
        self.recorder = Recorder()
        self.clients = []
        self.loopback = Loopback(
            self.recorder,
            strategy,
            send_queue_bytes=QUEUE_BYTES,
            low_water_bytes=LOW_WATER_BYTES,
            sndbuf_bytes=BUFFER_BYTES,
        )

    def open(self) -> KernelEnd:
        client = KernelEnd(self)
        self.clients.append(client)
        self.settle()
        return client

    def settle(self) -> None:
        self.loopback.settle()

    def advance(self, duration_ns: int) -> None:
        self.loopback.advance(duration_ns)

    def is_due(self) -> bool:
        return self.loopback.poll() != 0

    def close(self) -> None:
        self.loopback.close()
        assert set(self.loopback.transport.leaks().values()) == {0}


WORLDS: dict[str, Callable[[], World]] = {
    "engine": EngineWorld,
    "memory": MemoryWorld,
    **{f"kernel-{strategy}": partial(KernelWorld, strategy) for strategy in strategies.in_one_process()},
}


@pytest.fixture(params=list(WORLDS.values()), ids=list(WORLDS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    alive = lent.alive()
    make: Callable[[], World] = request.param
    made = make()
    yield made
    made.close()
    assert made.recorder.errors == []
    assert lent.alive() == alive


def events(world: World) -> list[tuple[Any, ...]]:
    """What was recorded, without ports and bursts."""
    return [(entry[0], *entry[2:]) for entry in world.recorder.log if not entry[0].startswith("burst")]


def port_of(world: World) -> int:
    [port] = world.recorder.ports
    return port


def test_a_transport_whose_table_has_holes_is_refused() -> None:
    """An application would call through them."""
    with pytest.raises(NotImplementedError, match=r"BareTransport has no budget, send, .*, connect, taken"):
        BareTransport().register_with(Recorder())
    with pytest.raises(NotImplementedError, match=r"BareTransport has no budget, send \(transport_t\)"):
        BareTransport(holes=2).register_with(Recorder())
    BareTransport(holes=0).register_with(Recorder())


def test_each_segment_is_an_upcall(world: World) -> None:
    client = world.open()
    client.send(b"ab", b"cde")
    assert events(world) == [("accept",), ("data", b"ab"), ("data", b"cde")]


def test_upcalls_come_within_a_burst(world: World) -> None:
    world.open().send(b"ab")
    names = [entry[0] for entry in world.recorder.log]
    assert names == ["burst_begin", "accept", "burst_end", "burst_begin", "data", "burst_end"]


def test_what_on_data_leaves_waits_until_it_is_asked_for(world: World) -> None:
    client = world.open()
    world.recorder.consume = 1
    client.send(b"abc", b"de")
    assert world.recorder.names() == ["accept", "data"]
    assert world.recorder.receivable(port_of(world)) == 4
    world.recorder.consume = None
    world.recorder.act(port_of(world), "resume")
    world.settle()
    assert b"".join(entry[1] for entry in events(world)[2:]) == b"bcde"
    assert world.recorder.receivable(port_of(world)) == 0


def test_receive_takes_from_the_queue_and_ends_the_pause(world: World) -> None:
    client = world.open()
    world.recorder.consume = 0
    client.send(b"abc")
    assert world.recorder.read(port_of(world), 2) == b"ab"
    world.recorder.clear()
    world.recorder.consume = None
    client.send(b"d")
    assert b"".join(entry[1] for entry in events(world)) == b"cd"


def test_nothing_can_be_received_inside_on_data(world: World) -> None:
    client = world.open()
    found: list[bytes] = []
    world.recorder.on("data", lambda port: found.append(world.recorder.read(port, 9)))
    client.send(b"abc")
    assert found == [b""]
    assert world.recorder.received[port_of(world)] == b"abc"


def test_peek_shows_what_waits_and_takes_nothing(world: World) -> None:
    client = world.open()
    world.recorder.consume = 0
    client.send(b"abc")
    port = port_of(world)
    assert [world.recorder.peek(port) for _ in range(2)] == [b"abc", b"abc"]
    assert [world.recorder.peek(port, skip) for skip in (1, 2, 3, 9)] == [b"bc", b"c", b"", b""]
    assert world.recorder.receivable(port) == 3
    assert (world.recorder.read(port, 2), world.recorder.peek(port), world.recorder.peek(port, 1)) == (b"ab", b"c", b"")
    assert (world.recorder.read(port, 1), world.recorder.peek(port)) == (b"c", b"")


def test_nothing_can_be_seen_inside_on_data(world: World) -> None:
    client = world.open()
    found: list[bytes] = []
    world.recorder.on("data", lambda port: found.append(world.recorder.peek(port)))
    client.send(b"abc")
    assert found == [b""]


@pytest.mark.parametrize(("option", "value"), [(1, 1), (2, 1), (3, 65535), (4, 0xB8), (5, 1)])
def test_each_connection_has_options_of_its_own(world: World, option: int, value: int) -> None:
    """NODELAY, KEEPALIVE, USER_TIMEOUT_MS, TOS and TTL, by their numbers in conn_option_t."""
    world.open()
    world.open()
    one, other = world.recorder.ports
    before = world.recorder.option(other, option)
    assert before != value
    assert world.recorder.act(one, ("option", (option, value))) == 0
    assert (world.recorder.option(one, option), world.recorder.option(other, option)) == (value, before)


def test_an_option_that_there_is_not_is_refused(world: World) -> None:
    world.open()
    port = port_of(world)
    assert world.recorder.act(port, ("option", (99, 1))) < 0
    assert world.recorder.option(port, 99) == 0


def test_an_answer_arrives(world: World) -> None:
    client = world.open()
    world.recorder.on("data", ("send", b"answer"), "close")
    client.send(b"question")
    assert (client.read(), client.ended) == (b"answer", "eof")
    client.shutdown()
    world.settle()
    assert events(world) == [("accept",), ("data", b"question"), ("closed", "normal")]


def test_the_send_queue_is_bounded_and_on_writable_comes_at_the_low_water_mark(world: World) -> None:
    client = world.open()
    port = port_of(world)
    assert world.recorder.act(port, ("send", b"x" * 2 * QUEUE_BYTES)) == QUEUE_BYTES
    assert world.recorder.act(port, ("send", b"y")) == 0
    world.recorder.act(port, "want_writable")
    world.settle()
    assert "writable" not in world.recorder.names()
    assert QUEUE_BYTES - 2 * WINDOW_BYTES <= world.recorder.queued(port) < QUEUE_BYTES
    queued: list[int] = []
    world.recorder.on("writable", lambda port: queued.append(world.recorder.queued(port)))
    while len(client.read()) < QUEUE_BYTES:
        world.advance(MILLISECOND)
    world.advance(SECOND)
    assert world.recorder.names().count("writable") == 1
    assert queued[0] <= LOW_WATER_BYTES
    assert world.recorder.queued(port) == 0


def drain(world: World, client: Client, wanted: int) -> None:
    """The client reads until it has `wanted` bytes."""
    while len(client.read()) < wanted:
        world.advance(MILLISECOND)
    world.advance(SECOND)


@pytest.mark.parametrize("mark", [0, 1, 4096])
def test_unsent_bytes_have_a_mark_of_their_own_which_bounds_the_queue(world: World, mark: int) -> None:
    client = world.open()
    port = port_of(world)
    assert world.recorder.act(port, ("unsent_low_water", mark)) == 0
    assert world.recorder.act(port, ("low_water", QUEUE_BYTES - 1)) == 0
    assert world.recorder.act(port, ("send", b"x" * (QUEUE_BYTES // 2))) == QUEUE_BYTES // 2
    world.recorder.act(port, "want_writable")
    world.settle()
    assert world.recorder.unsent(port) > mark
    assert (world.recorder.room(port), world.recorder.act(port, ("send", b"y"))) == (0, 0)
    told: list[tuple[int, int]] = []
    world.recorder.on("writable", lambda port: told.append((world.recorder.unsent(port), world.recorder.room(port))))
    drain(world, client, QUEUE_BYTES // 2)
    [(unsent, room)] = told
    assert unsent <= mark
    assert room >= QUEUE_BYTES // 2


@pytest.mark.parametrize("mark", ["low_water", "unsent_low_water"])
def test_each_connection_has_marks_of_its_own(world: World, mark: str) -> None:
    clients = [world.open(), world.open()]
    one, other = world.recorder.ports
    before = world.recorder.marks(other)
    world.recorder.act(one, (mark, 0))
    for port in (one, other):
        world.recorder.act(port, ("send", b"x" * LOW_WATER_BYTES))
        world.recorder.act(port, "want_writable")
    world.settle()
    assert (world.recorder.names(one), world.recorder.names(other)) == (["accept"], ["accept", "writable"])
    assert (world.recorder.marks(one) == before, world.recorder.marks(other) == before) == (False, True)
    for client in clients:
        drain(world, client, LOW_WATER_BYTES)
    assert (world.recorder.names(one), world.recorder.names(other)) == (["accept", "writable"],) * 2


@pytest.mark.parametrize("mark", ["low_water", "unsent_low_water"])
def test_a_mark_that_is_moved_moves_the_wish(world: World, mark: str) -> None:
    world.open()
    port = port_of(world)
    world.recorder.act(port, ("send", b"x" * (QUEUE_BYTES // 2)))
    world.recorder.act(port, ("low_water", QUEUE_BYTES - 1))
    world.recorder.act(port, "want_writable")
    world.recorder.act(port, (mark, 1000))  # it was due, and has not been told
    world.settle()
    assert world.recorder.names() == ["accept"]
    world.recorder.act(port, (mark, QUEUE_BYTES - 1))
    assert world.recorder.names() == ["accept"]  # not from inside a downcall
    assert world.is_due()
    world.settle()
    assert world.recorder.names() == ["accept", "writable"]


def test_marks_beyond_the_queue_do_not_call_a_full_one_writable(world: World) -> None:
    client = world.open()
    port = port_of(world)
    for mark in ("low_water", "unsent_low_water"):
        assert world.recorder.act(port, (mark, 0xFFFFFFFF)) == 0
    assert world.recorder.marks(port) == (QUEUE_BYTES // 2, QUEUE_BYTES)
    assert world.recorder.act(port, ("send", b"x" * QUEUE_BYTES)) == QUEUE_BYTES
    world.recorder.act(port, "want_writable")
    world.settle()
    assert world.recorder.names() == ["accept"]
    drain(world, client, QUEUE_BYTES)
    assert world.recorder.names() == ["accept", "writable"]


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_no_mark_is_told_after_close_or_abort(world: World, ending: str) -> None:
    client = world.open()
    port = port_of(world)
    world.recorder.act(port, ("unsent_low_water", 1000))
    world.recorder.act(port, ("send", b"x" * LOW_WATER_BYTES))
    world.recorder.act(port, "want_writable")
    world.recorder.act(port, ending)
    world.settle()
    client.read()
    world.advance(SECOND)
    client.read()
    assert "writable" not in world.recorder.names()


def test_a_mark_is_refused_in_on_closed(world: World) -> None:
    client = world.open()
    answers: list[int] = []
    world.recorder.on(
        "closed",
        lambda port: answers.append(world.recorder.act(port, ("low_water", 1))),
        lambda port: answers.append(world.recorder.act(port, ("unsent_low_water", 1))),
    )
    client.abort()
    world.settle()
    assert answers == [CALL_STATE, CALL_STATE]


def test_want_writable_with_room_comes_at_once(world: World) -> None:
    world.open()
    world.recorder.act(port_of(world), "want_writable")
    world.settle()
    assert world.recorder.names() == ["accept", "writable"]


def test_the_end_is_told_once_and_behind_the_data(world: World) -> None:
    client = world.open()
    world.recorder.consume = 0
    client.send(b"ab")
    client.shutdown()
    world.settle()
    assert world.recorder.names() == ["accept", "data"]
    world.recorder.consume = None
    world.recorder.act(port_of(world), "resume")
    world.advance(SECOND)
    assert events(world)[2:] == [("data", b"ab"), ("eof",)]
    world.recorder.act(port_of(world), "close")
    world.settle()
    assert events(world)[4:] == [("closed", "normal")]
    client.read()
    assert client.ended == "eof"


def test_a_half_closed_client_still_receives(world: World) -> None:
    client = world.open()
    client.shutdown()
    world.settle()
    world.recorder.act(port_of(world), ("send", b"late"))
    world.recorder.act(port_of(world), "shutdown")
    world.settle()
    assert (client.read(), client.ended) == (b"late", "eof")
    assert events(world) == [("accept",), ("eof",), ("closed", "normal")]


def test_abort_resets_the_client(world: World) -> None:
    client = world.open()
    world.recorder.act(port_of(world), ("send", b"x"))
    world.recorder.act(port_of(world), "abort")
    world.settle()
    client.read()
    assert client.ended == "ConnectionReset"
    assert events(world) == [("accept",), ("closed", "aborted")]


def test_a_reset_is_told(world: World) -> None:
    client = world.open()
    client.abort()
    world.settle()
    assert events(world) == [("accept",), ("closed", "reset")]
    assert world.recorder.ports == []


def test_close_with_unread_bytes_is_a_reset(world: World) -> None:
    client = world.open()
    world.recorder.consume = 0
    client.send(b"unread")
    world.recorder.act(port_of(world), "close")
    world.settle()
    client.read()
    assert client.ended == "ConnectionReset"
    assert events(world)[2:] == [("closed", "aborted")]


@pytest.mark.parametrize("ended", ["close", "abort"])
def test_who_has_ended_it_does_not_hear_of_the_end_behind_the_data(world: World, ended: str) -> None:
    client = world.open()
    world.recorder.on("data", ended)
    client.push(b"ab")
    client.shutdown()
    world.settle()
    assert world.recorder.names() == ["accept", "data", "closed"]


def test_bytes_that_come_after_close_are_answered_with_a_reset(world: World) -> None:
    client = world.open()
    world.recorder.act(port_of(world), "close")
    world.settle()
    client.read()
    assert client.ended == "eof"
    client.send(b"late")
    assert events(world) == [("accept",), ("closed", "aborted")]


def test_send_after_shutdown_is_refused(world: World) -> None:
    world.open()
    port = port_of(world)
    world.recorder.act(port, "shutdown")
    assert world.recorder.act(port, ("send", b"x")) == -4


def test_a_timeout_comes_once_and_not_before_its_time(world: World) -> None:
    world.recorder.on("accept", ("timeout", 50 * MILLISECOND))
    world.open()
    world.advance(49 * MILLISECOND)
    assert world.recorder.names() == ["accept"]
    world.advance(10 * MILLISECOND)
    assert world.recorder.names() == ["accept", "timeout"]
    world.advance(SECOND)
    assert world.recorder.names() == ["accept", "timeout"]


def test_a_timeout_can_be_moved_and_turned_off(world: World) -> None:
    world.recorder.on("accept", ("timeout", 50 * MILLISECOND))
    world.open()
    world.recorder.act(port_of(world), ("timeout", 0))
    world.advance(SECOND)
    assert world.recorder.names() == ["accept"]


def test_a_timeout_after_close_ends_the_connection(world: World) -> None:
    """A client that takes nothing must not keep what is queued for ever; nobody is left to be told but of the end."""
    world.recorder.on("data", ("send", b"x" * QUEUE_BYTES), "close", ("timeout", SECOND))
    client = world.open()
    client.send(b"go")
    world.advance(SECOND // 2)
    assert world.recorder.names() == ["accept", "data"]
    world.advance(SECOND)
    assert world.recorder.names() == ["accept", "data", "closed"]
    assert events(world)[-1] == ("closed", "timeout")


def test_on_closed_can_ask_for_nothing_any_more(world: World) -> None:
    """Every downcall is allowed there, and none of them leaves anything behind."""
    answers: list[int] = []
    calls = ["close", "abort", "shutdown", "resume", "take", "want_writable", ("timeout", SECOND)]
    world.recorder.on("closed", *calls, lambda port: answers.append(world.recorder.act(port, ("send", b"late"))))
    for end in (Client.abort, Client.shutdown):
        client = world.open()
        client.send(b"data")
        world.recorder.on("eof", "close")
        getattr(client, end.__name__)()
        world.settle()
        client.read()
        world.advance(SECOND)
    assert answers == [CALL_STATE, CALL_STATE]
    assert world.recorder.names()[-1] == "closed"
    assert world.recorder.errors == []


def test_a_refused_connection_is_reset_without_another_upcall(world: World) -> None:
    world.recorder.on("accept", "refuse")
    client = world.open()
    client.read()
    assert client.ended == "ConnectionReset"
    assert world.recorder.names() == ["accept"]


def test_a_turn_has_an_end(world: World) -> None:
    """Bytes that cost more than the share of one upcall come in several, each in a turn of its own."""
    client = world.open()
    world.recorder.charge = 300
    client.send(b"x" * 40)
    assert world.recorder.received[port_of(world)] == b"x" * 40
    offered = [len(entry[1]) for entry in events(world)[1:]]
    assert offered[0] == 40
    assert len(offered) >= 20


def test_connections_are_told_apart(world: World) -> None:
    one, other = world.open(), world.open()
    other.send(b"other")
    one.send(b"one")
    assert sorted(world.recorder.received.values()) == [b"one", b"other"]
    assert len(world.recorder.ports) == 2


def test_a_paused_reader_makes_no_upcall_in_a_thousand_turns(world: World) -> None:
    """What turns of others cost with it beside them: test_marks asks that of the engine's."""
    paused, busy = world.open(), world.open()
    world.recorder.consume = 0
    paused.send(b"x" * 1000)
    world.recorder.consume = None
    [held] = [port for port in world.recorder.ports if world.recorder.receivable(port)]
    before = world.recorder.names(held)
    for _ in range(1000):
        busy.send(b"y")
    assert world.recorder.names(held) == before == ["accept", "data"]
    assert not world.is_due()
    assert world.recorder.names().count("data") == 1001
    assert world.recorder.receivable(held) == 1000


def test_a_paused_reader_costs_nothing(world: World) -> None:
    """No upcall and no burst, however long it lasts and whatever the client does meanwhile; and nothing is due."""
    client = world.open()
    world.recorder.consume = 0
    client.send(b"x" * 1000)
    world.advance(SECOND)
    before = len(world.recorder.log)
    for _ in range(50):
        client.send(b"y" * 100)
        world.advance(100 * MILLISECOND)
        assert not world.is_due()
    assert len(world.recorder.log) == before
    assert world.recorder.receivable(port_of(world)) == 6000
    world.recorder.consume = None
    world.recorder.act(port_of(world), "resume")
    world.settle()
    assert world.recorder.received[port_of(world)] == b"x" * 1000 + b"y" * 5000
