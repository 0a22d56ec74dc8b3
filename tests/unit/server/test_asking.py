# SPDX-License-Identifier: MIT
"""Heads that Python has to decide: a turn's at once, in order, bounded; nobody holds the GIL while a link sends."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ustack.buf import lent
from ustack.server import accesslog
from ustack.server import request as requests
from ustack.server.http import HttpServer
from ustack.testing.gil_watch import GilWatch
from ustack.testing.memory_transport import MemoryTransport
from ustack.testing.pair import Pair
from ustack.testing.testbed import STACK_ADDRESS

ROOT = Path(__file__).resolve().parents[3]
CLIENTS = 32
HAND_OVER_MAX_HEADS = 4096 // 80  # asking.pyx: what a hand-over may cost, and the least that a head costs


def unseen(number: int, *fields: str) -> bytes:
    """A head that is neither remembered nor plain: its path has an escape."""
    return "\r\n".join([f"GET /%74ext.txt?{number} HTTP/1.1", "Host: h", *fields, "", ""]).encode()


class World:
    """One server and clients over the engine's TCP: a turn at a time."""

    name = "engine"

    def __init__(self, root: Path, **options: Any) -> None:
        self.pair = Pair(network={"mtu": 60_000})
        self.server = HttpServer(root, **options)
        self.pair.a.listen(80, application=self.server)

    def open(self) -> Any:
        client = self.pair.b.connect(STACK_ADDRESS, 80, wait=False)
        self.pair.pump()
        client.nodelay = True
        return client

    def arrive(self) -> None:
        """What clients have sent is in the link's ring, or with the transport."""
        for _ in range(10):
            self.pair.b.poll(self.pair.now_ns)
        self.pair.network.advance(self.pair.now_ns)

    def turn(self) -> None:
        """One of the server's."""
        self.pair.a.poll(self.pair.now_ns)

    def settle(self) -> None:
        self.pair.pump()

    def received(self, client: Any) -> bytes:
        found = b""
        try:
            while part := client.receive(1 << 20, timeout=0):
                found += part
                self.pair.pump()
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        self.pair.advance(100_000_000_000)
        self.server.close()
        self.pair.close()


class MemoryWorld(World):
    """The same with no TCP behind."""

    name = "memory"

    def __init__(self, root: Path, **options: Any) -> None:
        self.transport = MemoryTransport()
        self.server = HttpServer(root, **options)
        self.transport.listen(80, self.server)

    def open(self) -> Any:
        client = self.transport.open(80)
        self.transport.settle()
        return client

    def arrive(self) -> None:
        pass

    def turn(self) -> None:
        self.transport.poll()

    def settle(self) -> None:
        self.transport.settle()

    def received(self, client: Any) -> bytes:
        found = b""
        try:
            while part := client.receive(1 << 20):
                found += part
                self.settle()
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        self.transport.advance(100_000_000_000)
        self.server.close()
        self.transport.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "text.txt").write_text("text")
    (tmp_path / "site" / "index.html").write_text("home")
    return tmp_path / "site"


@pytest.fixture(params=[World, MemoryWorld], ids=["engine", "memory"])
def make(request: pytest.FixtureRequest, root: Path) -> Iterator[Any]:
    alive = lent.alive()
    made: list[World] = []

    def world(**options: Any) -> World:
        made.append(request.param(root, **options))
        return made[-1]

    yield world
    for each in made:
        counts = each.server.stats()
        each.close()
        assert (counts["internal_errors"], each.server.stats()["connections_open"]) == (0, 0)
        assert (each.server.stats()["request_bytes"], each.server.stats()["connections_busy"]) == (0, 0)
    assert lent.alive() == alive


def added(world: World, before: dict[str, Any]) -> dict[str, int]:
    """What has been counted since."""
    return {
        name: value - before[name]
        for name, value in world.server.stats().items()
        if isinstance(value, int) and value != before[name]
    }


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", received)]


def test_unseen_heads_of_many_connections_take_the_gil_once(make: Any) -> None:
    world = make()
    clients = [world.open() for _ in range(CLIENTS)]
    clients[0].send(unseen(-1))  # the first burst reads the wall clock, too
    world.settle()
    before = world.server.stats()
    for number, client in enumerate(clients):
        client.send(unseen(number))
    world.arrive()
    world.turn()
    counts = added(world, before)
    assert (counts["hand_overs"], counts["heads_asked"], counts["head_misses"]) == (1, CLIENTS, CLIENTS)
    assert counts["responses_2xx"] == CLIENTS
    if world.name == "engine":  # a turn in memory is Python's own and has the GIL
        assert counts["gil_taken"] == 1
        assert world.pair.a.counters()["hand_overs_at_return"] == 0
    world.settle()
    assert [statuses(world.received(client)) for client in clients[1:]] == [[200]] * (CLIENTS - 1)


def test_known_plain_and_broken_heads_take_no_gil(make: Any) -> None:
    world = make()
    known = b"GET /text.txt HTTP/1.1\r\nHost: h\r\n\r\n"
    for path in (b"text.txt", b"text.txt?1", b"text.txt?2", b"text.txt"):
        world.open().send(known.replace(b"text.txt", path))
        world.settle()
    before = world.server.stats()
    clients = [world.open() for _ in range(3)]
    for client, head in zip(clients, (known, known.replace(b"text.txt", b"text.txt?3"), b"\x16\x03\n"), strict=True):
        client.send(head)
    world.arrive()
    world.turn()
    world.settle()
    counts = added(world, before)
    assert not {"hand_overs", "heads_asked", "gil_taken"} & counts.keys()
    assert (counts["head_hits"], counts["heads_plain"], counts["responses_4xx"]) == (1, 1, 1)


def test_only_the_hand_over_and_the_wall_clock_take_the_gil() -> None:
    """What decides in Python is called with the GIL: the compiler refuses that where none is held. These take it."""
    found = [
        (path.name, name)
        for path in sorted((ROOT / "server").glob("*.p[yx][xd]"))
        for name in re.findall(r"^cdef [^\n]* \**(\w+)\((?:(?!^cdef|^def).)*?with gil", path.read_text(), re.M | re.S)
    ]
    assert found == [("upcalls.pyx", "on_hand_over"), ("wallclock.pyx", "set_wall_clock")]
    text = "".join(path.read_text() for path in (ROOT / "server").glob("*.p[yx][xd]"))
    assert text.count("with gil") == len(found)


def test_nobody_holds_the_gil_while_the_answers_are_sent(root: Path) -> None:
    world = World(root)
    clients = [world.open() for _ in range(CLIENTS)]
    with GilWatch(world.pair.a.link) as watch:
        for number, client in enumerate(clients):
            client.send(unseen(number))
        world.arrive()
        world.turn()
        assert (watch.holding, watch.without) == (0, 1)
    assert world.pair.a.counters()["events_handed_over"] == CLIENTS
    world.close()


def test_the_same_head_on_many_connections_is_decided_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    parse = requests.parse

    def noted(head: bytes, limits: Any) -> Any:
        parsed.append(head)
        return parse(head, limits)

    monkeypatch.setattr(requests, "parse", noted)
    world = make()
    clients = [world.open() for _ in range(CLIENTS)]
    before = world.server.stats()
    for client in clients:
        client.send(unseen(0))
    world.arrive()
    world.turn()
    counts = added(world, before)
    assert (counts["head_misses"], counts["head_hits"], len(parsed)) == (1, CLIENTS - 1, 1)
    world.settle()
    assert {bytes(world.received(client))[-4:] for client in clients} == {b"text"}


def test_a_section_that_comes_with_many_connections_at_once_is_learned_in_their_hand_over(make: Any) -> None:
    world = make()
    clients = [world.open() for _ in range(4)]
    before = world.server.stats()
    for number, client in enumerate(clients):
        client.send(b"GET /text.txt?%d HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n" % number)
    world.arrive()
    world.turn()
    counts = added(world, before)
    assert (counts["heads_asked"], counts["head_misses"], counts["heads_plain"]) == (4, 4, 3)
    world.settle()
    assert [statuses(world.received(client)) for client in clients] == [[200]] * 4


def test_pipelined_requests_wait_for_the_unseen_one_before_them(make: Any) -> None:
    world = make()
    client = world.open()
    known = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    client.send(known)
    world.settle()
    world.received(client)
    before = world.server.stats()
    bad = b"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n"
    client.send(known + unseen(1) + known + bad + unseen(2) + b"POST / HTTP/1.1\r\nHost: h\r\n\r\n" + known)
    world.settle()
    assert statuses(world.received(client)) == [200, 200, 200, 400, 200, 405, 200]
    counts = added(world, before)
    assert (counts["heads_asked"], counts["put_off"]) == (4, 4)


def test_one_hand_over_does_a_bounded_amount_of_python(make: Any) -> None:
    """However many wait: the rest is for the next turns, first come, first served, and known heads do not wait."""
    world = make()
    clients = [world.open() for _ in range(4 * HAND_OVER_MAX_HEADS)]
    knowing = world.open()
    knowing.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    world.settle()
    world.received(knowing)
    for number, client in enumerate(clients):
        client.send(unseen(number))
    knowing.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    turns = 0
    while world.server.stats()["requests"] < len(clients) + 2:
        before = world.server.stats()
        world.arrive()
        world.turn()
        turns += 1
        counts = added(world, before)
        assert counts["hand_overs"] <= 2  # one in the turn, one when the call returns
        assert counts["head_misses"] <= 2 * HAND_OVER_MAX_HEADS
        assert counts.get("gil_taken", 0) <= 1
        assert turns < 20
    assert turns > 1
    world.settle()
    assert [statuses(world.received(client)) for client in [*clients, knowing]] == [[200]] * (len(clients) + 1)


def waiting(world: World) -> list[Any]:
    """Clients with heads so long that a turn takes more of them than its hand-overs decide."""
    clients = [world.open() for _ in range(60)]
    for number, client in enumerate(clients):
        client.send(unseen(number, "X: " + "x" * 8000))
    world.arrive()
    world.turn()
    counts = world.server.stats()
    assert 0 < counts["requests"] < counts["heads_asked"]
    assert counts["request_bytes"] >= 8000 * (counts["heads_asked"] - counts["requests"])
    return clients


def test_heads_that_wait_are_bounded_in_bytes(make: Any) -> None:
    """A quarter of max_request_bytes is theirs. One more is turned away, and counted."""
    world = make(max_request_bytes=80_000, max_head_bytes=4096, max_request_line_bytes=1024)
    clients = [world.open() for _ in range(60)]
    most = 0
    for number, client in enumerate(clients):
        client.send(unseen(number, "X: " + "x" * 1000))
    for _ in range(20):
        world.arrive()
        world.turn()
        most = max(most, world.server.stats()["request_bytes"])
    world.settle()
    counts = world.server.stats()
    found = [statuses(world.received(client)) for client in clients]
    assert most <= 20_000
    assert counts["heads_turned_away"] == found.count([503]) > 0
    assert found.count([200]) == counts["heads_asked"] == 60 - found.count([503])


def test_a_burst_of_unseen_heads_is_answered_when_every_record_is_taken(make: Any) -> None:
    world = make(max_busy=1)
    world.open().send(b"GET / HT")
    world.settle()
    clients = [world.open() for _ in range(CLIENTS)]
    for number, client in enumerate(clients):
        client.send(unseen(number))
    world.settle()
    assert [statuses(world.received(client)) for client in clients] == [[200]] * CLIENTS
    assert world.server.stats()["busy_refused"] == 0


def test_a_client_that_half_closes_while_its_head_waits_gets_its_response(make: Any) -> None:
    world = make()
    clients = [world.open() for _ in range(3 * HAND_OVER_MAX_HEADS)]
    for number, client in enumerate(clients):
        client.send(unseen(number))
        client.shutdown()
    world.settle()
    assert [statuses(world.received(client)) for client in clients] == [[200]] * len(clients)
    world.settle()
    assert world.server.stats()["connections_open"] == 0


def test_a_client_that_half_closes_and_wants_no_more_gets_its_response_as_well(make: Any) -> None:
    """The response ends the connection, and so does its client's FIN, which came first."""
    world = make()
    clients = [world.open() for _ in range(3 * HAND_OVER_MAX_HEADS)]
    for number, client in enumerate(clients):
        client.send(unseen(number, "Connection: close"))
        client.shutdown()
    world.settle()
    found = [world.received(client) for client in clients]
    assert [statuses(each) for each in found] == [[200]] * len(clients)
    assert {each[-4:] for each in found} == {b"text"}
    world.settle()
    assert (world.server.stats()["connections_ending"], world.server.stats()["stalled_aborted"]) == (0, 0)


def test_the_log_is_written_as_heads_that_waited_fill_it(make: Any, tmp_path: Path) -> None:
    """They are answered in turns in which nothing else happens: no burst ends, which would write it."""
    world = make(access_log=tmp_path / "log", log_lines=32)
    clients = waiting(world)
    world.settle()
    counts = world.server.stats()
    assert [statuses(world.received(client)) for client in clients] == [[200]] * len(clients)
    assert (counts["log_lost"], counts["requests"]) == (0, len(clients))
    world.server.housekeeping()
    assert (tmp_path / "log").read_bytes().count(b"\n") == len(clients)


def test_a_client_that_resets_while_its_head_waits_leaves_nothing(make: Any) -> None:
    world = make()
    clients = waiting(world)
    for client in clients:
        client.abort()
    world.settle()
    counts = world.server.stats()
    assert (counts["request_bytes"], counts["connections_busy"], counts["connections_open"]) == (0, 0, 0)


def test_a_server_that_closes_lets_go_of_heads_that_wait(make: Any) -> None:
    world = make()
    clients = waiting(world)
    answered = world.server.stats()["requests"]
    world.server.close()
    world.settle()
    assert world.server.stats()["connections_open"] < len(clients)
    assert world.server.stats()["requests"] == answered
    for client in clients:
        client.abort()
    world.settle()


def test_a_transport_that_closes_lets_go_of_heads_that_wait(root: Path) -> None:
    alive = lent.alive()
    transport = MemoryTransport()
    server = HttpServer(root)
    transport.listen(80, server)
    clients = [transport.open(80) for _ in range(6 * HAND_OVER_MAX_HEADS)]
    transport.settle()
    for number, client in enumerate(clients):
        client.send(unseen(number))
    transport.poll()
    assert server.stats()["request_bytes"] > 0
    transport.close()
    counts = server.stats()
    assert (counts["request_bytes"], counts["connections_busy"], counts["connections_open"]) == (0, 0, 0)
    server.close()
    assert lent.alive() == alive


def test_heads_that_wait_are_answered_when_the_server_finishes(make: Any) -> None:
    world = make()
    clients = waiting(world)
    before = world.server.stats()["requests"]
    world.server.finish(world.transport if world.name == "memory" else world.pair.a)
    world.settle()
    found = [world.received(client) for client in clients]
    assert [statuses(each) for each in found] == [[200]] * len(clients)
    assert sum(b"Connection: close" in each for each in found) == len(clients) - before
    for client in clients:
        client.close()
    world.settle()
    assert world.server.finished


@given(line=st.binary(min_size=1, max_size=1100))
@example(line=b'"\\\x7f\xff\x00 a')
@example(line=b"a\rb\r")
@example(line=b"\x80" * 1100)
def test_what_is_no_head_is_logged_as_accesslog_has_it(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    """Refusals without Python escape a line as accesslog.py does."""
    directory = tmp_path_factory.mktemp("log")
    transport = MemoryTransport()
    server = HttpServer(directory, access_log=directory / "log")
    transport.listen(80, server)
    client = transport.open(80)
    client.send(b"\x01" + line + b"\n")
    transport.settle()
    server.housekeeping()
    before, split = accesslog.log_text((b"\x01" + line + b"\n")[:1024].partition(b"\r\n")[0], None, None)
    logged = (directory / "log").read_bytes()
    assert server.stats()["gil_taken"] == server.stats()["hand_overs"] == 0
    assert re.fullmatch(rb".*?\] " + re.escape(before[:split]) + rb"\d+ \d+" + re.escape(before[split:]), logged, re.S)
    transport.close()
    server.close()
