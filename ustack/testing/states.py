# SPDX-License-Identifier: MIT
"""One builder for each state of RFC 9293 section 3.3.2: a connection of the stack in that state, and its scripted peer.

    with established() as scene:
        scene.peer.send("R")
        assert scene.state == "CLOSED"

Both initial sequence numbers lie just under 2^32. The peer chooses its own; the stack's is made of a clock and a keyed
hash (RFC 6528), so the builders choose the manual clock's start such that it falls there.

Above: test suites. Below: testbed, peer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Protocol

from ustack import Connection, Listener
from ustack.testing.peer import ANY, ScriptedPeer, length
from ustack.testing.segment import SEQUENCE_MASK
from ustack.testing.testbed import PEER_ADDRESS, SECOND, START_NS, Testbed, read_available

STACK_PORT = 80
PEER_PORT = 40000
PEER_SERVICE = 7777
"""The port that the stack connects to in an active open."""
ISS_WANTED = 0x1_0000_0000 - 30
_ISS_SLACK = 20

SYN_OPTIONS: Mapping[str, Any] = {"mss": 1460}
ALL_OPTIONS: Mapping[str, Any] = {
    "mss": 1460,
    "sack_permitted": True,
    "timestamps": (0xFFFFFF00, 0),
    "nop": 1,
    "wscale": 7,
}


@dataclass
class Scene:
    """A testbed with one connection in it. Leaving it without an exception asserts that nothing leaks."""

    testbed: Testbed
    peer: ScriptedPeer
    listener: Listener | None = None
    connection: Connection | None = None

    @property
    def conn(self) -> Connection:
        """The connection; fails where the state has none to give to an application (SYN-RECEIVED)."""
        assert self.connection is not None
        return self.connection

    def _rows(self) -> list[dict[str, Any]]:
        remote = (self.peer.address, self.peer.port)
        return [row for row in self.testbed.stack.connections() if row["remote"] == remote]

    @property
    def state(self) -> str:
        """What the stack holds for the peer's address and port; CLOSED if nothing (with a listener: LISTEN)."""
        for row in self._rows():
            return str(row["state"])
        return "CLOSED"

    def info(self) -> dict[str, Any]:
        """The stack's own view of the connection: snd_una, cwnd, ..."""
        return self._rows()[0]

    def is_plain(self) -> bool:
        """Whether no connection has anything that few have, but for what was sent again."""
        held = self.testbed.stack.leaks()
        return held["extras"] == held["histories"]

    def read(self) -> bytes:
        """What the application can read now, without waiting."""
        return read_available(self.conn)[0]

    def at_eof(self) -> bool:
        """Whether the application has read everything up to the peer's FIN."""
        return read_available(self.conn)[1]

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """The application sends, and the stack acts on it."""
        self.conn.send(data)
        self.testbed.pump()

    def shutdown(self) -> None:
        """The application has no more to send (the RFC's CLOSE)."""
        self.conn.shutdown()
        self.testbed.pump()

    def close(self) -> None:
        """The application closes both directions."""
        self.conn.close()
        self.testbed.pump()

    def abort(self) -> None:
        """The application aborts."""
        self.conn.abort()
        self.testbed.pump()

    def accept(self) -> Connection:
        """Take the connection from the listener."""
        assert self.listener is not None
        self.connection = self.listener.accept(timeout=0)
        return self.connection

    def __enter__(self) -> Scene:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop the connection and close the testbed."""
        self.connection = None
        self.listener = None
        self.testbed.__exit__(kind, value, traceback)


# ---------------------------------------------------------------- where the clock starts


def _open(role: str, seed: int, now_ns: int, **config: Any) -> Scene:
    testbed = Testbed(seed=seed, now_ns=now_ns, **config)
    testbed.introduce()
    if role == "passive":
        listener = testbed.stack.listen(STACK_PORT)
        return Scene(testbed, ScriptedPeer(testbed, port=PEER_PORT, stack_port=STACK_PORT), listener)
    peer = ScriptedPeer(testbed, port=PEER_SERVICE, stack_port=None)
    return Scene(testbed, peer)


def _observe_iss(role: str, seed: int, now_ns: int) -> int:
    scene = _open(role, seed, now_ns)
    if role == "passive":
        scene.peer.send("S", options=SYN_OPTIONS)
    else:
        scene.connection = scene.testbed.stack.connect(PEER_ADDRESS, PEER_SERVICE, wait=False)
        scene.testbed.pump()
    iss = scene.peer.expect(ANY).seq
    scene.testbed.stack.close()
    return iss


@cache
def start_for(role: str, seed: int) -> int:
    """A start of the manual clock that puts the stack's ISS just under 2^32. role: "passive" or "active"."""
    now = START_NS
    before = _observe_iss(role, seed, now)
    ticks = (_observe_iss(role, seed, now + SECOND) - before) & SEQUENCE_MASK
    assert ticks, "the ISN does not move with the clock (MUST-8)"
    for _ in range(8):
        missing = (ISS_WANTED - before) & SEQUENCE_MASK
        if missing > SEQUENCE_MASK // 2 and now > 4 * 3600 * SECOND:
            missing -= SEQUENCE_MASK + 1
        if abs(missing) < _ISS_SLACK:
            return now
        now += missing * SECOND // ticks
        before = _observe_iss(role, seed, now)
    raise AssertionError(f"the ISN does not follow a steady clock (ISS {before} at {now} ns)")


# ---------------------------------------------------------------- whose states


class Subject(Protocol):
    """A TCP that the builders bring into a state: they take one as `subject`. Ours is the default."""

    def open(self, role: str, seed: int, **config: Any) -> Scene:
        """A testbed with this TCP, listening on STACK_PORT ("passive") or with a peer to connect to ("active")."""
        ...


class Simulated:
    """This stack, on a simulated wire, with ISNs just under 2^32."""

    def open(self, role: str, seed: int, **config: Any) -> Scene:
        """Whatever is in config is a Testbed's."""
        return _open(role, seed, start_for(role, seed), **config)


SIMULATED = Simulated()


# ---------------------------------------------------------------- the states


def listen(*, seed: int = 1, subject: Subject = SIMULATED, **config: Any) -> Scene:
    """LISTEN on STACK_PORT; the peer has sent nothing yet."""
    return subject.open("passive", seed, **config)


def closed(*, seed: int = 1, **config: Any) -> Scene:
    """No listener and no connection."""
    scene = listen(seed=seed, **config)
    assert scene.listener is not None
    scene.listener.close()
    scene.listener = None
    return scene


def syn_sent(*, seed: int = 1, subject: Subject = SIMULATED, **config: Any) -> Scene:
    """SYN-SENT: the stack has sent its SYN, which the script has expected."""
    scene = subject.open("active", seed, **config)
    scene.connection = scene.testbed.stack.connect(PEER_ADDRESS, PEER_SERVICE, wait=False)
    scene.testbed.pump()
    scene.peer.expect("S", seq=0)
    scene.testbed.mark()
    return scene


def syn_received(
    *,
    role: str = "passive",
    seed: int = 1,
    options: Mapping[str, Any] = SYN_OPTIONS,
    wnd: int = 65535,
    **config: Any,
) -> Scene:
    """SYN-RECEIVED, from LISTEN ("passive") or by a simultaneous open ("active")."""
    scene = listen(seed=seed, **config) if role == "passive" else syn_sent(seed=seed, **config)
    scene.peer.wnd = wnd
    scene.peer.send("S", options=options)
    scene.peer.expect("SA", seq=0, ack=1)
    scene.peer.timestamps = "timestamps" in options
    scene.testbed.mark()
    return scene


def established(
    *,
    role: str = "passive",
    seed: int = 1,
    options: Mapping[str, Any] = SYN_OPTIONS,
    wnd: int = 65535,
    measured: bool = False,
    **config: Any,
) -> Scene:
    """ESTABLISHED; nothing sent, nothing outstanding.

    options: of the peer's SYN; with timestamps it goes on sending them.  wnd: its window field, then and afterwards.
    measured: a passive handshake gives a round trip, of no time; otherwise the peer's SYN comes twice, its ACK echoes
    no timestamp, and by Karn's rule the script's first data gives the first one.
    """
    if role == "passive":
        scene = syn_received(seed=seed, options=options, wnd=wnd, **config)
        if not measured:
            scene.peer.send("S", seq=0, options=options)
            scene.peer.expect("SA", seq=0, ack=1)
        unechoed = {"nop": 2, "timestamps": (scene.peer.ts_now, 0)}
        scene.peer.send("A", options=unechoed if scene.peer.timestamps and not measured else {})
        scene.accept()
    else:
        scene = syn_sent(seed=seed, **config)
        scene.peer.wnd = wnd
        scene.peer.send("SA", options=options)
        scene.peer.expect("A", seq=1, ack=1)
        scene.peer.timestamps = "timestamps" in options
    scene.peer.expect_nothing()
    assert scene.state == "ESTABLISHED", scene.state
    scene.testbed.mark()
    return scene


def fin_wait_1(*, how: str = "shutdown", **parameters: Any) -> Scene:
    """FIN-WAIT-1: our FIN is sent and not acknowledged. how: "shutdown" (still reading) or "close"."""
    scene = established(**parameters)
    scene.shutdown() if how == "shutdown" else scene.close()
    scene.peer.expect("FA", seq=1, ack=1)
    scene.testbed.mark()
    return scene


def fin_wait_2(**parameters: Any) -> Scene:
    """FIN-WAIT-2: our FIN is acknowledged, the peer has not sent its own."""
    scene = fin_wait_1(**parameters)
    scene.peer.send("A")
    scene.peer.expect_nothing()
    scene.testbed.mark()
    return scene


def close_wait(**parameters: Any) -> Scene:
    """CLOSE-WAIT: the peer's FIN has come and is acknowledged; we can still send."""
    scene = established(**parameters)
    scene.peer.send("FA")
    if not scene.peer.queue:  # ours is at once; another subject's may be delayed (RFC 9293 section 3.8.6.3)
        scene.peer.wait(SECOND // 2)
    scene.peer.expect("A", seq=1, ack=2)
    scene.testbed.mark()
    return scene


def closing(**parameters: Any) -> Scene:
    """CLOSING: both FINs have crossed; ours is not acknowledged."""
    scene = fin_wait_1(**parameters)
    scene.peer.send("FA", ack=1)
    scene.peer.expect("A", seq=2, ack=2)
    scene.testbed.mark()
    return scene


def last_ack(**parameters: Any) -> Scene:
    """LAST-ACK: the peer closed first, then we did; our FIN is not acknowledged."""
    scene = close_wait(**parameters)
    scene.close()
    scene.peer.expect("FA", seq=1, ack=2)
    scene.testbed.mark()
    return scene


def time_wait(**parameters: Any) -> Scene:
    """TIME-WAIT: we closed first, both FINs are acknowledged."""
    scene = fin_wait_2(**parameters)
    scene.peer.send("FA")
    scene.peer.expect("A", seq=2, ack=2)
    scene.testbed.mark()
    return scene


def fly(
    scene: Scene, segments: int, *, mss: int, tos: int, round_trip_ns: int, total: int = 0, flags: str = "A"
) -> None:
    """From ESTABLISHED: `segments` full ones of `total` in flight, each with `tos`, and a round trip measured before by
    one that the peer acknowledged with `flags`; the clock is a round trip later. The window must take them."""
    scene.send(bytes(mss))
    scene.testbed.advance(round_trip_ns)
    scene.peer.expect(payload=length(mss))
    scene.peer.send(flags)
    scene.send(bytes((total or segments) * mss))
    for _ in range(segments):
        assert scene.peer.expect(payload=length(mss)).tos == tos
    scene.testbed.advance(round_trip_ns)
