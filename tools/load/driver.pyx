# SPDX-License-Identifier: MIT
"""A load client on a stack with a real clock: turns, and the client's pump before each.

    driver = Driver(client, stack)
    while not driver.run(SECOND): ...           # what was counted may be shown between
    driver.finish()

Turns are made as Stack.run() makes them, but a request that is due in less than SPIN_NS is waited for awake, because a
sleep may take longer. How much of the time was idle is kept: a client that is never idle measures itself.

Above: running. Below: client, engine.
"""

from libc.stdint cimport INT64_MAX, uint32_t, uint64_t

from ustack.base.arguments cimport whole
from ustack.base.clock cimport clock_monotonic_ns
from ustack.engine.owner cimport Engine
from ustack.engine.poll cimport engine_next_deadline, engine_poll, engine_wait
from ustack.engine.records cimport engine_t
from ustack.tools.load.client cimport PARTED_AT_ONCE, LoadClient, load_finish, load_is_over, load_part, load_pump
from ustack.tools.load.records cimport load_t

cdef enum:
    SLICE_NS = 100000000                    # between two looks at signals
    LINGER_NS = 1000000000                  # at the end: a server that answers no FIN for so long is gone
    PART_LEAST_NS = 1000000                 # between two parts: RSTs, where bytes wait unread, have no answer
    PART_MOST_NS = 10000000                 # the longest wait for FINs to be answered before more are sent


cdef uint64_t drive(load_t *load, engine_t *engine, uint64_t until_ns, const bint *stop,
                    uint64_t *idle_ns) noexcept nogil:
    cdef uint64_t now_ns = clock_monotonic_ns()
    cdef uint64_t deadline_ns, before_ns, asked
    cdef bint idle
    while not stop[0] and now_ns < until_ns and engine.link_error == 0 and not load_is_over(load):
        asked = load.all.requests + load.opening
        deadline_ns = load_pump(load, now_ns)
        idle = engine_poll(engine, now_ns) == 0 and load.all.requests + load.opening == asked
        before_ns = now_ns
        if idle:
            deadline_ns = min(deadline_ns, engine_next_deadline(engine), until_ns)
            if deadline_ns > now_ns + SPIN_NS:
                engine_wait(engine, deadline_ns - SPIN_NS)
        now_ns = clock_monotonic_ns()
        if idle:
            idle_ns[0] += now_ns - before_ns
    return now_ns


cdef class Driver:
    """Driver(client, stack)
--

    Drives a client that has begun on this stack, which has a real clock."""

    def __init__(self, client: LoadClient, engine: Engine) -> None:
        if client.owner is not engine:
            raise ValueError("the client has not begun on this stack")
        if engine.manual_clock:
            raise ValueError("a stack with a manual clock is driven by its own calls")
        self.client = client
        self.engine = engine

    def run(self, duration_ns: int) -> bool:
        """So long, or until the load is over or stop() is called; whether it is over. Raises OSError when the link is
        gone, and what a signal handler raises."""
        cdef uint64_t now_ns = clock_monotonic_ns()
        cdef uint64_t until_ns = now_ns + <uint64_t>whole("duration_ns", duration_ns, 0, INT64_MAX)
        cdef uint64_t end_ns
        cdef Engine engine = self.engine
        engine.enter("Driver.run()")
        try:
            engine.stop_requested = False
            while (engine.alive and not engine.stop_requested and now_ns < until_ns
                    and not load_is_over(&self.client.load)):
                engine.come_up = engine.stop_requested
                end_ns = min(until_ns, now_ns + <uint64_t>SLICE_NS)
                with nogil:
                    end_ns = drive(&self.client.load, &engine.c, end_ns, &engine.come_up, &self.idle_ns)
                self.driven_ns += end_ns - now_ns
                now_ns = end_ns
                engine.hand_over()
                engine.between_turns()
                engine.raise_link_error()
            return load_is_over(&self.client.load)
        finally:
            engine.leave()

    def finish(self, linger_ns: int = LINGER_NS) -> int:
        """Count what is left, and end the connections, some at a time, so that few FINs are unanswered at once: a link
        drops most of 10,000 frames, and the server would keep those connections, and answer the next client's SYNs
        from their ports with challenges. The last FINs have linger_ns to be answered. Where none has been for so long,
        and too many wait for it, nobody is there: the other connections are left as they are. How many times some were
        ended.
        """
        cdef Engine engine = self.engine
        cdef uint64_t most_ns = <uint64_t>whole("linger_ns", linger_ns, 1, INT64_MAX)
        cdef uint64_t heard_ns, part_ns = 0, now_ns
        cdef uint32_t unanswered = 0
        cdef bint more = True
        parts = 0
        engine.enter("Driver.finish()")
        try:
            now_ns = clock_monotonic_ns()
            heard_ns = now_ns
            load_finish(&self.client.load, now_ns)
            while engine.alive and engine.c.link_error == 0 and (more or engine.c.tcp.orphans > 0):
                unanswered = engine.c.tcp.orphans
                if unanswered < <uint32_t>PARTED_AT_ONCE:
                    heard_ns = now_ns                   # or has not been asked enough to tell
                if now_ns - (heard_ns if more else part_ns) >= most_ns:
                    break
                if more and now_ns >= part_ns + (
                        PART_LEAST_NS if unanswered < <uint32_t>PARTED_AT_ONCE else PART_MOST_NS):
                    more = load_part(&self.client.load)
                    parts += 1
                    part_ns = now_ns
                    unanswered = engine.c.tcp.orphans
                engine.turn(now_ns)
                engine.between_turns()
                now_ns = clock_monotonic_ns()
                if engine.c.tcp.orphans < unanswered:
                    heard_ns = now_ns
        finally:
            engine.leave()
        return parts

    @property
    def idle(self) -> float:
        """The share of the time that was spent in turns without work, or asleep."""
        return <double>self.idle_ns / <double>self.driven_ns if self.driven_ns else 0.0
