# SPDX-License-Identifier: MIT
"""Two stacks on one simulated wire, driven by one manual clock.

    with Pair(seed=7, network={"loss": 0.05, "delay_ns": MILLISECOND}) as pair:
        client, server = pair.connect()
        ...
        pair.run_until(lambda: done(), 60 * SECOND)

Time jumps from event to event (sim.world); nothing sleeps, and the same seeds give the same frames.

Above: test suites. Below: sim.world, stack, link.sim, leaks.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ustack import Connection, Listener, Stack
from ustack.buf.lent import alive as lent_alive
from ustack.link.sim import SimNetwork
from ustack.sim.world import SECOND, World
from ustack.testing.leaks import LeakChecked, assert_no_leaks, holds_nothing
from ustack.testing.testbed import PEER_ADDRESS, STACK_ADDRESS, START_NS


class Pair(LeakChecked, World):
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
        super().__init__(SimNetwork(seed, now_ns=now_ns, **(network or {})), now_ns=now_ns)
        self.a = Stack(self.network.a, STACK_ADDRESS + "/24", seed=seed * 2, now_ns=now_ns, **config, **(a or {}))
        self.b = Stack(self.network.b, PEER_ADDRESS + "/24", seed=seed * 2 + 1, now_ns=now_ns, **config, **(b or {}))
        self._lent_before = lent_alive()
        self.pump()

    def stacks(self) -> tuple[Stack, ...]:
        """Both, `a` first."""
        return (self.a, self.b)

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
