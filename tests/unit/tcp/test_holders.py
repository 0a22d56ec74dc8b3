# SPDX-License-Identifier: MIT
"""Peers that hold what we have for them, and who gives up first when connections run short (RFC 6429)."""

from typing import Any

import pytest

from ustack import Connection
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import SYN_OPTIONS, Scene, listen
from ustack.testing.testbed import SECOND

LIMIT = 16
INTERVAL_S = 30


def crowded(**config: Any) -> Scene:
    """A listener of a stack that has room for LIMIT connections."""
    scene = listen(max_connections=LIMIT, **config)
    assert scene.listener is not None
    scene.listener.close()
    scene.listener = scene.testbed.stack.listen(80, backlog=100)
    return scene


class Client:
    """A peer, and what our application has of it."""

    def __init__(self, scene: Scene, port: int, *, wnd: int = 65535, answer: int = 100_000) -> None:
        """Open a connection and ask; answer: bytes that our application sends for it."""
        self.scene = scene
        self.peer = ScriptedPeer(scene.testbed, port=port)
        self.peer.wnd = wnd
        self.peer.send("S", options=SYN_OPTIONS)
        self.peer.expect("SA")
        self.peer.send("PA", payload=b"GET")
        assert scene.listener is not None
        self.connection: Connection | None = scene.listener.accept(timeout=0) if scene.listener.pending else None
        if self.connection is not None and answer:
            self.connection.send(bytes(answer))
            scene.testbed.pump()

    @property
    def state(self) -> str:
        """Our end's; none where the connection was refused."""
        return self.connection.state if self.connection is not None else "none"

    def take(self, limit: int, wnd: int) -> None:
        """Acknowledge what has come, up to `limit` bytes more than before, and offer a window."""
        reached = self.peer.rcv_nxt
        for segment in self.peer.drain():
            assert "R" not in segment.flags
            end = self.peer.relative(segment)[0] + segment.length
            reached = max(reached, min(end, self.peer.rcv_nxt + limit))
        self.peer.rcv_nxt = reached
        self.peer.send("A", wnd=wnd)


def leave(scene: Scene, clients: list[Client]) -> None:
    """Everybody goes."""
    for client in clients:
        client.peer.drain()
        if client.connection is not None:
            client.connection.abort()
            client.connection = None
    scene.testbed.pump()


def shut(client: Client, second: int) -> None:
    """The window stays shut; probes are answered."""
    if client.peer.drain():
        client.peer.send("A", ack=1, wnd=0)


def silent(client: Client, second: int) -> None:
    """It acknowledges nothing."""


def tiny(client: Client, second: int) -> None:
    """The window opens by a byte each second."""
    client.take(1, 1)


def slow_ack(client: Client, second: int) -> None:
    """It acknowledges a byte each second, of a window full, and never a whole segment."""
    client.take(1, 65535)


HOLDERS = {
    "shut": ({"wnd": 0}, shut), "silent": ({}, silent), "tiny": ({"wnd": 1}, tiny), "slow ACK": ({}, slow_ack),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOLDERS)
def test_holders_are_ended_when_connections_run_short_and_newcomers_are_served(kind: str) -> None:
    """One newcomer each second. The holders have their time, then each newcomer takes the place of one."""
    how, behave = HOLDERS[kind]
    with crowded() as scene:
        holders = [Client(scene, 2000 + index, **how) for index in range(LIMIT)]
        newcomers = []
        for second in range(2 * INTERVAL_S):
            for client in holders:
                if client.state != "CLOSED":
                    behave(client, second)
            scene.testbed.advance(SECOND)
            newcomers.append(Client(scene, 3000 + second, answer=0))
            assert second >= INTERVAL_S - 1 or newcomers[-1].connection is None
        assert [client.state for client in holders] == ["CLOSED"] * LIMIT
        assert scene.testbed.counted()["holders_ended"] == LIMIT
        assert sum(client.connection is not None for client in newcomers) == LIMIT
        for client in holders:
            assert any("R" in segment.flags for segment in client.peer.drain())
        leave(scene, [*holders, *newcomers])


def test_who_reads_slowly_but_makes_progress_is_no_holder() -> None:
    """A segment of 1,460 bytes every ten seconds: 146 bytes per second."""
    with crowded() as scene:
        readers = [Client(scene, 2000 + index, wnd=1460) for index in range(LIMIT - 1)]
        others = []
        for second in range(10 * INTERVAL_S):
            if second % 10 == 0:
                for reader in readers:
                    reader.take(1460, 1460)
                others.append(Client(scene, 4000 + second, answer=0))
                if others[-1].connection is not None:
                    others[-1].connection.abort()
                    others[-1].connection = None
            scene.testbed.advance(SECOND)
        assert all(reader.state == "ESTABLISHED" for reader in readers)
        assert "holders_ended" not in scene.testbed.counted()
        leave(scene, readers)


def test_an_idle_connection_is_no_holder() -> None:
    """We owe its peer nothing; how long it may be idle is for its application to say."""
    with crowded() as scene:
        idle = [Client(scene, 2000 + index, answer=0) for index in range(LIMIT)]
        for second in range(3):
            scene.testbed.advance(INTERVAL_S * SECOND)
            for index in range(50):
                assert Client(scene, 4000 + 100 * second + index, answer=0).connection is None
        assert all(client.state == "ESTABLISHED" for client in idle)
        assert "holders_ended" not in scene.testbed.counted()
        leave(scene, idle)


@pytest.mark.parametrize("config", [{"holder_bytes_per_second": 0}, {"holder_interval_ns": 3600 * SECOND}])
def test_the_measure_is_a_setting(config: dict[str, int]) -> None:
    with crowded(**config) as scene:
        holders = [Client(scene, 2000 + index, wnd=0) for index in range(LIMIT)]
        for second in range(2 * INTERVAL_S):
            for client in holders:
                shut(client, second)
            scene.testbed.advance(SECOND)
            assert Client(scene, 4000 + second, answer=0).connection is None
        assert all(client.state == "ESTABLISHED" for client in holders)
        leave(scene, holders)


def test_without_pressure_a_shut_window_is_probed_for_as_long_as_the_peer_answers() -> None:
    """MUST-37."""
    with crowded() as scene:
        client = Client(scene, 2000, wnd=0)
        others = []
        for second in range(1000):
            shut(client, second)
            scene.testbed.advance(SECOND)
            if second % 100 == 0:
                others.append(Client(scene, 4000 + second, answer=0))
        assert client.state == "ESTABLISHED"
        leave(scene, [client, *others])


def test_a_look_is_bounded_however_many_connections_there_are() -> None:
    """Units of a turn: a handshake under pressure costs the same with 1,000 connections as with 100."""
    costs = []
    for limit in (100, 1000):
        with listen(max_connections=limit) as scene:
            assert scene.listener is not None
            scene.listener.close()
            scene.listener = scene.testbed.stack.listen(80, backlog=2000)
            clients = [Client(scene, 2000 + index, answer=10, wnd=0) for index in range(limit)]
            before = scene.testbed.stack.turns()["units_max"]
            for index in range(50):
                clients.append(Client(scene, 20_000 + index, answer=0))
            costs.append(scene.testbed.stack.turns()["units_max"] - before)
            leave(scene, clients)
    assert costs == [0, 0]


def test_the_stack_tells_when_it_looks_for_holders() -> None:
    with crowded() as scene:
        clients = [Client(scene, 2000 + index, answer=0) for index in range(LIMIT * 7 // 8 - 1)]
        told = scene.testbed.stack.pressure()
        assert (told["connections"], told["max_connections"], told["holders"]) == (LIMIT * 7 // 8 - 1, LIMIT, False)
        clients.append(Client(scene, 3000, answer=0))
        assert scene.testbed.stack.pressure()["holders"]
        leave(scene, clients)
