# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Readiness of many connections and listeners at once, as epoll has it: level- and edge-triggered.

    poller = stack.poller()
    poller.register(listener, EPOLLIN)
    for ready, events in poller.poll():
        ...

What stands in its ready list, and why, is told in watched.pxd. poll() drives the stack in the caller's thread, as every
call that waits does. It must not: know what makes a connection ready (Watched.events_now), nor the protocol. Above:
stack. Below: watched, connection, listener.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from ustack.application cimport Transport
from ustack.base.arguments cimport timeout_ns, whole
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport (
    EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLPRI, EPOLLRDHUP)
from ustack.blocking.connection cimport Connection
from ustack.blocking.listener cimport Listener
from ustack.blocking.watched cimport Watch, Watched, ready_add, ready_join, ready_remove, ready_t

import errno

from ustack.blocking.readiness import PollEvents
from ustack.errors import AlreadyRegistered, NotRegistered

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef dict FLAGS = {}                        # number -> PollEvents: making one costs more than finding it


cdef class Poller:
    """Watches connections and listeners of one stack, and says which of them are ready. Made by Stack.poller().

    It is epoll for this stack, with its events (PollEvents, or the select module's numbers) and its rules (epoll(7)):

    EPOLLIN     something to read, or the end of the stream, or for a listener a connection to accept()
    EPOLLOUT    established, at most the low-water mark unacknowledged (set_low_water(); half of the queue if that is
                less) and at most TCP_NOTSENT_LOWAT never sent; after shutdown(), and after the end
    EPOLLPRI    urgent data that is still to be read (urgent_bytes)
    EPOLLRDHUP  the peer has closed its side
    EPOLLHUP    both sides have, or the connection has ended
    EPOLLERR    ... with an error: `error`, or SO_ERROR, is its errno

    EPOLLERR and EPOLLHUP need not be asked for. Without EPOLLET what holds is reported by every poll(). With it, once
    for each thing that happens: data that arrives (also behind unread data), room after send() has found none or poll()
    has, the peer's FIN, the end; and once, if something holds already, for register() and modify(). With EPOLLONESHOT
    nothing is reported after the first report until modify().

    A poller keeps what is registered alive until unregister() or its close(), its own close(), or its end. poll(),
    register() and the others are for the thread that uses the stack (OwnershipError). The work of poll() is in
    proportion to what is ready: `looks` counts it.
    """

    def __init__(self):
        raise TypeError("use Stack.poller()")

    def __cinit__(self) -> None:
        self.registered = {}

    cdef void bind(self, Transport stack) noexcept:
        self.stack = stack

    cdef int enter(self, str call) except -1:
        self.ensure_open(call)
        return self.stack.enter(call)

    cdef int ensure_open(self, str call) except -1:
        if self.closed or self.stack is None:
            raise ValueError(f"{call}: the poller is closed")
        return 0

    # ------------------------------------------------------------ what is registered

    def register(self, target: object, events: int, data: object = None) -> None:
        """Watch a Connection or a Listener of this stack for `events`, which may be 0: its end alone.

        events: PollEvents. data: what poll() gives back for it; None: the target itself. Raises AlreadyRegistered (a
        FileExistsError) if it is, TypeError for anything else, ValueError for events that there are not, what is
        closed, of another stack, or a listener whose Application takes the connections.
        """
        cdef Watch watch
        cdef uint32_t wanted = wanted_events("register()", events)
        self.enter("Poller.register()")
        try:
            watch = Watch.__new__(Watch)
            watch.watched = self.watched_of("register()", target)
            if target in self.registered:
                raise AlreadyRegistered("registered", f"register(): {target!r} is registered already", errno.EEXIST)
            watch.target = target
            watch.data = data
            watch.c.home = &self.ready
            watch.c.events = wanted
            self.registered[target] = watch
            watch.registered = <void *>self.registered
            watch.watched.add_watch(watch)
            self.look_anew(watch)
        finally:
            self.stack.leave()

    def modify(self, target: object, events: int, data: object = None) -> None:
        """Watch it for other events from now on, with other data. Arms what EPOLLONESHOT has disarmed, and reports
        again what holds. Raises NotRegistered (a FileNotFoundError), and what register() raises for the events."""
        cdef Watch watch
        cdef uint32_t wanted = wanted_events("modify()", events)
        self.enter("Poller.modify()")
        before = None                       # let go outside of the gate: it may be the end of something
        try:
            watch = self.watch_of("modify()", target)
            before, watch.data = watch.data, data
            watch.c.events = wanted
            watch.watched.wishes_changed()
            self.look_anew(watch)
        finally:
            self.stack.leave()

    def unregister(self, target: object) -> None:
        """Watch it no longer. What close() was called on is not registered any more. Raises NotRegistered."""
        cdef Watch watch = None             # as above
        self.ensure_open("unregister()")
        self.stack.gate.enter("Poller.unregister()")        # the stack may be closed
        try:
            watch = self.watch_of("unregister()", target)
            watch.leave()
        finally:
            self.stack.gate.leave()

    cdef Watched watched_of(self, str call, object target):
        cdef Connection connection
        cdef Listener listener
        if isinstance(target, Connection):
            connection = <Connection>target
            if connection.stack is not self.stack:
                raise ValueError(f"{call}: {target!r} is not of this poller's stack")
            if connection.closed:
                raise ValueError(f"{call}: {target!r} is closed")
            return connection
        if not isinstance(target, Listener):
            raise TypeError(f"{call}: {target!r} is no Connection or Listener of a stack; Stack.add_reader() watches "
                            "descriptors")
        listener = <Listener>target
        if listener.stack is not self.stack:
            raise ValueError(f"{call}: {target!r} is not of this poller's stack")
        if not listener.open:
            raise ValueError(f"{call}: {target!r} is closed")
        if listener.backlog is None:
            raise ValueError(f"{call}: the Application of {target!r} takes its connections")
        return listener.backlog

    cdef Watch watch_of(self, str call, object target):
        cdef Watch watch = None
        if isinstance(target, (Connection, Listener)):
            watch = self.registered.get(target)
        if watch is None:
            raise NotRegistered("not_registered", f"{call}: {target!r} is not registered", errno.ENOENT)
        return watch

    # ------------------------------------------------------------ what is ready

    def poll(self, timeout: float | None = None, maxevents: int = 1024) -> list[tuple[object, PollEvents]]:
        """Wait until something is ready: [(data, events)], at most `maxevents` of them; [] after the timeout.

        timeout: seconds; None: for ever; 0: what is ready now. The stack makes one turn in any case, so that a loop
        over poll() serves it, and other threads' calls (call_soon_threadsafe) are made. What finds no place in the list
        comes first the next time. A stack with a manual clock does not wait, nor make a turn: BlockingIOError if
        nothing is ready and timeout is not 0, as from its other calls. Raises ValueError when the poller or the stack
        is closed, meanwhile as well. What is reported once is not lost by what a signal's handler raises in it, nor for
        want of memory: the next poll() reports it.
        """
        cdef Py_ssize_t most = whole("maxevents", maxevents, 1, PY_SSIZE_T_MAX)
        cdef uint64_t limit_ns = timeout_ns(timeout), until_ns, now_ns
        cdef list found = []
        cdef bint in_time = True
        now_ns = clock_monotonic_ns()
        until_ns = now_ns + limit_ns if limit_ns < UINT64_MAX - now_ns else UINT64_MAX
        self.drive()
        while True:
            if limit_ns:
                in_time = self.wait(until_ns)
            # In a gate of its own, whose leaving raises nothing: what is reported once would be lost.
            self.ensure_open("poll()")
            self.stack.gate.enter("Poller.poll()")
            try:
                self.collect(found, most)
            finally:
                self.stack.gate.leave()
            if found or not limit_ns or not in_time:
                return found

    cdef int drive(self) except -1:
        """A turn, and what other threads have asked for."""
        self.enter("Poller.poll()")
        try:
            self.stack.step()
        finally:
            self.stack.leave()
        return 0

    cdef bint wait(self, uint64_t until_ns) except -1:
        """False: nothing has become ready in that time."""
        self.enter("Poller.poll()")
        try:
            return self.any_ready() or self.stack.wait_for(lambda: self.closed or self.any_ready(), until_ns,
                                                           "poll(): nothing is ready")
        finally:
            self.stack.leave()

    cdef uint32_t look(self, Watch watch) noexcept:
        """What is to be reported of it now."""
        cdef uint32_t now = watch.watched.events_now()
        self.looks += 1
        if watch.c.events & EPOLLOUT and not now & EPOLLOUT:
            watch.watched.await_room()
        return now & watch.c.events

    cdef void look_anew(self, Watch watch) noexcept:
        if self.look(watch) and watch.c.list == NULL:
            ready_add(&self.ready, &watch.c)

    cdef bint any_ready(self) noexcept:
        while self.ready.first != NULL:
            if self.look(<Watch>self.ready.first.watch):
                return True
            ready_remove(self.ready.first)
        return False

    cdef int collect(self, list found, Py_ssize_t most) except -1:
        """Report from the ready list's head, and only then take: all that can raise comes first. That is to make the
        list (PollEvents is Python code, in which handlers of signals run, and memory may be short), and the handlers
        of signals that have come, which would raise at the caller's next instruction, the list lost. (Any of it may
        start the garbage collector, and with it code that takes any watch out of any list.)"""
        cdef ready_t told
        cdef Watch watch
        cdef uint32_t events
        cdef bint sure = False
        told.first = told.last = NULL
        try:
            while self.ready.first != NULL and len(found) < most:
                watch = <Watch>self.ready.first.watch
                events = self.look(watch)
                ready_remove(&watch.c)
                if events:
                    ready_add(&told, &watch.c)
                    found.append((watch.target if watch.data is None else watch.data, flags_of(events)))
            PyErr_CheckSignals()
            sure = True
        finally:
            if not sure:                    # as they stood
                ready_join(&told, &self.ready)
                ready_join(&self.ready, &told)
        self.take(&told)
        return 0

    cdef void take(self, ready_t *told) noexcept:
        """They have been reported. What stays ready goes behind all others."""
        cdef Watch watch
        while told.first != NULL:
            watch = <Watch>told.first.watch
            ready_remove(&watch.c)
            if watch.c.events & EPOLLONESHOT:
                watch.c.events &= EPOLLET | EPOLLONESHOT
                watch.watched.wishes_changed()
            elif not watch.c.events & EPOLLET:
                ready_add(&self.ready, &watch.c)

    # ------------------------------------------------------------ the end

    cdef list leave_all(self):
        cdef list left = list(self.registered.values())
        cdef Watch watch
        for watch in left:
            watch.leave()
        return left

    def close(self) -> None:
        """Watch nothing any more. Idempotent."""
        if self.closed or self.stack is None:
            return
        left = None                         # let go outside of the gate
        self.stack.gate.enter("Poller.close()")
        try:
            self.closed = True
            left = self.leave_all()
        finally:
            self.stack.gate.leave()

    def __del__(self) -> None:
        # Before the dictionary goes: what ends with it may close what is still registered.
        self.closed = True
        self.leave_all()

    def __len__(self) -> int:
        return len(self.registered)

    def __enter__(self) -> Poller:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed or self.stack is None else f"{len(self.registered)} registered"
        return f"<Poller, {state}>"


cdef uint32_t wanted_events(str call, object events) except 0:
    cdef uint32_t known = (EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLET | EPOLLONESHOT)
    cdef uint32_t wanted = whole("events", events, 0, 0xFFFFFFFF)
    if wanted & ~known:
        raise ValueError(f"{call}: events {wanted:#x}: there are none but {', '.join(PollEvents.__members__)}")
    return wanted | EPOLLERR | EPOLLHUP


cdef object flags_of(uint32_t events):
    found = FLAGS.get(events)
    if found is None:
        found = FLAGS[events] = PollEvents(events)
    return found
