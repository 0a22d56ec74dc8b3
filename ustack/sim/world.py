# SPDX-License-Identifier: MIT
"""The clockwork of a simulation: one manual clock moves a wire and the stacks on it, from event to event.

    class Quiet(World):
        def __init__(self):
            super().__init__(SimNetwork(seed=1, now_ns=0), now_ns=0)
            self.stack = Stack(self.network.a, "198.18.0.2/24", seed=1, now_ns=0)

        def stacks(self):
            return (self.stack,)

    Quiet().run_until(lambda: done(), 60 * SECOND)

Time jumps to the next event: a frame that arrives, a timer that is due, what the script asks for with wake_at. Nothing
sleeps and nothing reads a clock; the same seeds and the same script give the same frames at the same times.

It must not know what the stacks or the script are about. Above: the test kit, simulations. Below: blocking, link.sim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ustack.blocking.stack import Stack
from ustack.link.sim import SimNetwork

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
TICK_NS = 1 << 18
"""The resolution of a stack's timers: an event that stays due is looked at again so much later."""
TIME_MAX_NS = (1 << 63) - 1
_PUMP_LIMIT = 100_000


class World:
    """A wire, the stacks on it, and the time. A subclass opens the stacks and says which they are.

    network: the wire.  now_ns: the time at which it was opened, and the stacks are.
    """

    finishes_turns = False
    """Whether pump() also goes on while a stack has put work off to its next turn (its deadline is now). False: that
    waits for the next step, so that a script can look at each turn."""

    def __init__(self, network: SimNetwork, *, now_ns: int) -> None:
        """Nothing moves yet: see pump()."""
        self.network = network
        self.now_ns = now_ns
        self.polls = 0
        """Rounds of polling so far."""

    def stacks(self) -> Sequence[Stack]:
        """The stacks on the wire, in the order in which they are polled."""
        return ()

    def collect(self) -> bool:
        """Take what has arrived where no stack is; True if there was something. A script's own end overrides this."""
        return False

    def pump(self) -> int:
        """Poll every stack at the present time until no frame moves any more; how many frames they took."""
        total = 0
        self._check_time(self.now_ns, "now_ns")
        for _ in range(_PUMP_LIMIT):
            self.network.advance(self.now_ns)
            taken = 0
            for stack in self.stacks():
                taken += stack.poll(self.now_ns)
            self.network.advance(self.now_ns)  # for what a filter of the wire raised
            self.polls += 1
            total += taken
            if not self.collect() and not taken and not self._is_due():
                return total
        raise AssertionError("the stacks do not come to rest")

    def next_event_ns(self) -> int | None:
        """When the wire or a stack next has something to do; None: never."""
        events = (self.network.next_event_ns, *(stack.next_deadline_ns for stack in self.stacks()))
        return min((at for at in events if at is not None), default=None)

    def _is_due(self) -> bool:
        event = self.next_event_ns() if self.finishes_turns else self.network.next_event_ns
        return event is not None and event <= self.now_ns

    def step(self, limit_ns: int) -> None:
        """Move the clock to the next event, at most to limit_ns, and let everything due happen."""
        self._check_time(limit_ns, "limit_ns")
        if limit_ns < self.now_ns:
            raise ValueError(f"limit_ns {limit_ns}: the time is {self.now_ns}, and never goes back")
        event = self.next_event_ns()
        if event is None or event > limit_ns:
            event = limit_ns
        elif event <= self.now_ns:
            event = min(self.now_ns + TICK_NS, limit_ns)
        self.now_ns = event
        self.pump()

    def advance(self, duration_ns: int) -> None:
        """Let duration_ns pass, event by event."""
        until = self._after(duration_ns, "duration_ns")
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
        end = self._after(limit_ns, "limit_ns")
        while not predicate():
            assert self.now_ns < end, f"did not happen within {limit_ns / SECOND} s"
            until = end
            if wake_at is not None and (at := wake_at()) is not None:
                until = min(until, max(at, self.now_ns + 1))
            self.step(until)
            if turn is not None:
                turn()
                while self.pump():
                    turn()
        return self.now_ns - start

    def _after(self, duration_ns: int, name: str) -> int:
        if duration_ns < 0:
            raise ValueError(f"{name} {duration_ns}: must not be negative")
        until = self.now_ns + duration_ns
        self._check_time(until, f"now_ns + {name}")
        return until

    @staticmethod
    def _check_time(at_ns: int, name: str) -> None:
        if not isinstance(at_ns, int):
            raise TypeError(f"{name} {at_ns!r}: must be whole nanoseconds")
        if not 0 <= at_ns <= TIME_MAX_NS:
            raise ValueError(f"{name} {at_ns}: must be 0 to 2**63 - 1 ns (292 years)")
