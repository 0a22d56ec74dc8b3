# SPDX-License-Identifier: MIT
"""Two stacks on one simulated wire, driven by one manual clock.

    with Pair(seed=7, network={"loss": 0.05, "delay_ns": MILLISECOND}) as pair:
        client, server = pair.connect()
        ...
        pair.run_until(lambda: done(), 60 * SECOND)

Time jumps from event to event (a frame that arrives, a timer that is due, what the script asks for with wake_at);
nothing sleeps, and the same seeds give the same frames.

Above: test suites. Below: stack, link.sim, leaks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ustack import Connection, Listener, Stack
from ustack.buf.lent import alive as lent_alive
from ustack.link.sim import SimNetwork
from ustack.testing.leaks import assert_no_leaks, holds_nothing
from ustack.testing.testbed import PEER_ADDRESS, SECOND, STACK_ADDRESS, START_NS, TICK_NS

_POLL_LIMIT = 100_000


class Pair:
    """Stack `a` at STACK_ADDRESS and stack `b` at PEER_ADDRESS.

    seed: of the wire and both stacks.  network: keyword arguments of SimNetwork.  a, b: configuration of one stack;
    config: of both.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        now_ns: int = START_NS,
        network: dict[str, Any] | None = None,
        a: dict[str, Any] | None = None,
        b: dict[str, Any] | None = None,
        **config: Any,
    ) -> None:
        """Open both stacks."""
        self.now_ns = now_ns
        self.network = SimNetwork(seed, now_ns=now_ns, **(network or {}))
        self.a = Stack(self.network.a, STACK_ADDRESS + "/24", seed=seed * 2, now_ns=now_ns, **config, **(a or {}))
        self.b = Stack(self.network.b, PEER_ADDRESS + "/24", seed=seed * 2 + 1, now_ns=now_ns, **config, **(b or {}))
        self._lent_before = lent_alive()
        self.polls = 0
        self.pump()

    def pump(self) -> int:
        """Poll both stacks at the present time until neither takes a frame; how many they took."""
        total = 0
        for _ in range(_POLL_LIMIT):
            self.network.advance(self.now_ns)
            taken = self.a.poll(self.now_ns)
            taken += self.b.poll(self.now_ns)
            self.polls += 1
            total += taken
            event = self.network.next_event_ns
            if not taken and (event is None or event > self.now_ns):
                return total
        raise AssertionError("the stacks do not come to rest")

    def next_event_ns(self) -> int | None:
        """When the wire or a stack next has something to do; None: never."""
        events = (self.network.next_event_ns, self.a.next_deadline_ns, self.b.next_deadline_ns)
        return min((at for at in events if at is not None), default=None)

    def step(self, limit_ns: int) -> None:
        """Move the clock to the next event, at most to limit_ns, and let everything due happen."""
        event = self.next_event_ns()
        if event is None or event > limit_ns:
            event = limit_ns
        elif event <= self.now_ns:
            event = min(self.now_ns + TICK_NS, limit_ns)
        self.now_ns = event
        self.pump()

    def advance(self, duration_ns: int) -> None:
        """Let duration_ns pass, event by event."""
        until = self.now_ns + duration_ns
        while self.now_ns < until:
            self.step(until)

    def run_until(
        self,
        predicate: Callable[[], bool],
        limit_ns: int,
        *,
        wake_at: Callable[[], int | None] | None = None,
        turn: Callable[[], None] | None = None,
    ) -> int:
        """Let time pass until predicate() holds; how long it took. Fails when limit_ns is not enough.

        turn: the script's own work, whenever something may have happened.  wake_at: when it next wants a turn.
        """
        start = self.now_ns
        while not predicate():
            until = start + limit_ns
            assert self.now_ns < until, f"did not happen within {limit_ns / SECOND} s"
            if wake_at is not None and (at := wake_at()) is not None:
                until = min(until, max(at, self.now_ns + 1))
            self.step(until)
            if turn is not None:
                turn()
                while self.pump():
                    turn()
        return self.now_ns - start

    def connect(self, port: int = 80, limit_ns: int = 300 * SECOND) -> tuple[Connection, Connection]:
        """Open a connection from `b` to `a`: (the opener's end, the accepter's end).

        Again where the network ends an attempt: three lost or garbled ARP answers make a host unreachable.
        """
        listener: Listener = self.a.listen(port)
        attempts = [self.b.connect(STACK_ADDRESS, port, wait=False)]
        while not listener.pending:
            self.run_until(lambda: listener.pending > 0 or attempts[-1].state == "CLOSED", limit_ns)
            if attempts[-1].state == "CLOSED":
                attempts.append(self.b.connect(STACK_ADDRESS, port, wait=False))
        opener = attempts[-1]
        accepter = listener.accept(timeout=0)
        listener.close()
        return opener, accepter

    def at_rest(self) -> bool:
        """Whether neither stack remembers a connection, TIME-WAIT included, and no frame is on the wire."""
        return holds_nothing(self.a) and holds_nothing(self.b) and self.network.next_event_ns is None

    def close(self) -> None:
        """Close both stacks and assert that nothing leaked."""
        self.b.close()  # or what it has lent is still out
        assert_no_leaks(self.a, self._lent_before)
        assert_no_leaks(self.b, self._lent_before)
        self.network.a.close()
        self.network.b.close()

    def __enter__(self) -> Pair:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; after an exception without the leak check, which would hide it."""
        if kind is None:
            self.close()
        else:
            self.a.close()
            self.b.close()


class FrameHash:
    """A running hash of frames, to compare two runs."""

    def __init__(self) -> None:
        """Start with no frames."""
        self._hash = hashlib.sha256()
        self.frames = 0

    def add(self, now_ns: int, frame: bytes) -> None:
        """One more frame."""
        self._hash.update(now_ns.to_bytes(8, "big") + len(frame).to_bytes(4, "big") + frame)
        self.frames += 1

    def hexdigest(self) -> str:
        """The hash of everything added."""
        return self._hash.hexdigest()
