# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Who owns an engine_t and moves it: memory, time, waiting, the link's errors.

The stack starts no thread: it processes packets only while run(), poll() or a blocking call is running, in the caller's
thread; the GIL is given up while it does. A process that fork() has made has copies of its parent's stacks, and the
same devices. The copies lose their links (LinkUse.ends_in_child), or both would send: waiting for one raises OSError
(EBADF), closing it tells no peer, because the connections are the parent's. A link that no stack has used may be used
in the child.

It must not: know the protocol.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strerror

from ustack.application cimport Application, Transport
from ustack.base.arguments cimport whole
from ustack.base.bytestring cimport data_of
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.counters cimport counters_as_dict
from ustack.buf.lent cimport lent_release_pending, lent_watch
from ustack.engine.addresses cimport configure_addresses
from ustack.engine.layers cimport begin_layers, end_layers
from ustack.engine.poll cimport (
    engine_add_application, engine_discard_all, engine_end_some, engine_flush, engine_hand_over, engine_next_deadline,
    engine_poll, engine_run, engine_wait)
from ustack.engine.records cimport ENGINE_APPLICATIONS
from ustack.engine.report cimport balance_of, pressure_of, state_moves_of
from ustack.engine.settings cimport configure_all
from ustack.engine.transport cimport engine_transport_init
from ustack.engine.waking cimport Waker
from ustack.ip.layer cimport ip_announce, ip_config_defaults, ip_config_t
from ustack.link.gate cimport warn_unclosed
from ustack.link.use cimport link_use
from ustack.tcp.calls cimport tcp_set_listener_cc, tcp_set_listener_option
from ustack.tcp.cc.registry cimport cc_number, cc_table
from ustack.tcp.records.configuration cimport tcp_config_defaults, tcp_config_t
from ustack.tcp.records.demux cimport flow_set_key
from ustack.tcp.recovery.control cimport control_provide

import errno
import operator
import os

from ustack.errors import WouldBlock, is_interruption

cdef enum:
    SECRET_BYTES = 32                   # two keys of SipHash


cdef uint64_t slice_end(uint64_t until_ns, bint watches) noexcept nogil:
    """A busy engine comes up for signals ten times per second, for descriptors that it watches a hundred times."""
    cdef uint64_t end_ns = clock_monotonic_ns() + (10000000 if watches else 100000000)
    return end_ns if end_ns < until_ns else until_ns


cdef void wake_up(void *engine) noexcept:
    """Something was deferred, in some thread: run() or a blocking call does it now, not after its sleep."""
    (<Engine>engine).come_up = True
    (<Engine>engine).waker.ring()


cdef class Engine(Transport):
    """The stack of one link: frames in, upcalls out. Python face: ustack.Stack."""

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.c, 0, sizeof(engine_t))
        self.alive = False
        self.applications = []
        self.calls_due = []
        self.waker = Waker()

    def __init__(self, Link link not None, str address not None, str gateway, object seed, object now_ns,
                 dict config not None, object cc="cubic", str sources=None, object profile="rfc"):
        cdef ip_config_t ip_config
        cdef tcp_config_t tcp_config
        cdef uint64_t seed_word, start_ns
        cdef bytes secrets = None
        cdef LinkUse use
        tcp_config_defaults(&tcp_config)
        tcp_config.cc = <uint8_t>cc_number(cc)
        self.ensure_new()
        use = link_use(link)
        use.ends_in_child = True
        ip_config_defaults(&ip_config)
        configure_addresses(&ip_config, address, gateway, sources)
        configure_all(&ip_config, &tcp_config, profile, config)
        self.manual_clock = now_ns is not None
        start_ns = whole("now_ns", now_ns, 0, UINT64_MAX) if self.manual_clock else clock_monotonic_ns()
        if seed is None:
            seed = int.from_bytes(os.urandom(8), "little")
            secrets = os.urandom(SECRET_BYTES)
        seed_word = operator.index(seed) & 0xFFFFFFFFFFFFFFFF
        # From here on nothing runs that could let another thread or a callback in.
        link.gate.check("Stack()")
        self.ensure_new()
        self.c.link = &link.c
        self.c.now_ns = start_ns
        link.c.now_ns = start_ns
        begin_layers(&self.c, &ip_config, &tcp_config, seed_word)
        if secrets is not None:             # what outsiders must not guess is worth more than the generator's 64 bits
            memcpy(self.c.tcp.secret, data_of(secrets), 16)
            flow_set_key(&self.c.tcp.flows, data_of(secrets) + 16)
        engine_transport_init(&self.c)
        self.table = &self.c.transport
        self.link = link
        self.link_use = use
        self.gate = link.gate
        self.alive = True
        ip_announce(&self.c.ip, start_ns)
        self.link.c.ops.tx_submit(&self.link.c)

    def __del__(self) -> None:
        if self.alive:                      # its peers are told by whoever leaves the gate next: mostly us, now
            warn_unclosed(self)
            self.gate.defer(self._destroy_dropped)

    def _destroy_dropped(self) -> None:
        self.destroy()

    def __dealloc__(self) -> None:
        if self.alive:                      # __del__ could not: say nothing, give the memory back
            self.alive = False
            engine_discard_all(&self.c)
            end_layers(&self.c)
            lent_release_pending()

    cdef uint64_t now(self) noexcept:
        cdef uint64_t now_ns = self.c.now_ns
        if not self.manual_clock:
            now_ns = clock_monotonic_ns()
        self.c.tcp.now_ns = now_ns
        return now_ns

    cdef void ensure_new(self) except *:
        if self.link is not None:
            raise RuntimeError("an engine is initialised once")

    cdef void ensure_alive(self) except *:
        if not self.alive:
            raise ValueError("the stack is closed")

    cdef int enter(self, str call) except -1:
        self.ensure_alive()
        return self.gate.enter(call)

    cdef int leave(self) except -1:
        self.gate.leave()
        if self.calls_due:
            self.make_calls()
        return self.raise_parked()

    cdef int raise_parked(self) except -1:
        self.raise_parked_of(self.applications)
        self.link.raise_parked()
        return 0

    cdef int between_turns(self) except -1:
        self.gate.serve()
        self.raise_parked()
        return PyErr_CheckSignals()

    cdef uint32_t turn(self, uint64_t at_ns) noexcept:
        cdef uint32_t frames
        lent_watch(&self.come_up)
        with nogil:
            frames = engine_poll(&self.c, at_ns)
        lent_watch(NULL)
        self.hand_over()
        return frames

    cdef void hand_over(self) noexcept:
        if self.c.hand_overs:
            engine_hand_over(&self.c)

    cdef uint16_t register(self, Application application) except 0:
        cdef uint16_t index
        if application.transport == self.table:
            return application.c.index
        self.ensure_usable(application)
        index = engine_add_application(&self.c, &application.c)
        if index == 0:
            raise MemoryError(f"an engine serves at most {ENGINE_APPLICATIONS - 1} applications")
        application.attach(self, index, &self.come_up)
        self.applications.append(application)
        return index

    cdef void destroy(self) except *:
        cdef bint more = True
        cdef uint64_t now_ns
        if not self.alive:
            return
        while more:
            now_ns = self.now()
            with nogil:
                more = engine_end_some(&self.c, now_ns)
            self.hand_over()
        for application in self.applications:
            (<Application>application).detach()
        self.closing_balance = balance_of(&self.c)
        self.alive = False
        self.link_use = None
        self.waker.close()
        end_layers(&self.c)

    def leaks(self) -> dict[str, int]:
        """Records of this stack in use, by pool: the present ones, or after close() those that were left: all zero.

        lent: references to buffers in its send queues.
        """
        return balance_of(&self.c) if self.alive else dict(self.closing_balance)

    def counters(self) -> dict[str, int]:
        """Every event counted since the start, by name (base/counters.pxd)."""
        return counters_as_dict(&self.c.counters)

    def turns(self) -> dict[str, int]:
        """What turns (polls) have cost: how many there were, and the most that one of them did.

        units: of about 100 ns, as engine and applications count them (tcp/records/turn.pxd). frames, upcalls,
        connections (taken from the work list), timers (that fired, and TIME-WAIT records that expired), moves (timers
        placed again, flow slots moved to another table), looks_in_vain (at connections with nothing for a hand-over).
        """
        return dict(self.c.turns)

    def pressure(self) -> dict[str, int | bool]:
        """What is filling up, and what is done about it. What has been done so far is in counters().

        half_open of syn_queue, connections of max_connections, orphans of max_orphans. backlog: new connections are
        refused, because too many frames wait in the link (admission_frames). syn_cookies: SYNs are answered
        with cookies now. cookies_out: some of the last minute may still come back. holders: at the next handshake peers
        that take nothing of what waits for them are looked for.
        """
        return pressure_of(&self.c) if self.alive else {}

    def state_moves(self) -> set[tuple[str, str]]:
        """Moves between states (RFC 9293 section 3.3.2) that any connection has made: ("SYN-SENT", "ESTABLISHED")."""
        return state_moves_of(&self.c)

    @property
    def established(self) -> int:
        """Connections that applications own now."""
        return self.c.tcp.established

    @property
    def next_deadline_ns(self) -> int | None:
        """When poll() next has something to do without a frame; None: never."""
        if not self.alive:
            return None
        self.gate.check("next_deadline_ns")
        cdef uint64_t deadline_ns = engine_next_deadline(&self.c)
        return None if deadline_ns == UINT64_MAX else deadline_ns

    def poll(self, now_ns: int | None = None) -> int:
        """One turn of the engine; the number of frames taken.

        now_ns: nanoseconds, never decreasing; needed by a stack with a manual clock, refused by one with a real clock.
        """
        cdef uint64_t at_ns
        self.enter("poll()")
        try:
            if self.manual_clock != (now_ns is not None):
                raise ValueError("poll() takes now_ns exactly when the stack was made with now_ns")
            at_ns = whole("now_ns", now_ns, 0, UINT64_MAX) if self.manual_clock else clock_monotonic_ns()
            if at_ns < self.c.now_ns:
                raise ValueError(f"time goes back: {at_ns} after {self.c.now_ns}")
            return self.turn(at_ns)
        finally:
            self.leave()

    def run(self, duration_ns: int | None = None) -> None:
        """Drive the engine until stop(), the end of duration_ns, or a signal handler that raises.

        Sleeps on the link when nothing is to be done. Raises OSError when the link is gone. Other threads run
        meanwhile, but may not use the stack (OwnershipError): they have run() call something (call_soon_threadsafe), or
        stop it. Both end its sleep at once. What a callback waits for inside, its own run() included, is nested.
        """
        cdef uint64_t until_ns = UINT64_MAX
        cdef uint64_t start_ns = clock_monotonic_ns()
        cdef bint watches
        cdef int wake_fd
        self.enter("run()")
        wake_fd = self.link.c.wake_fd       # of a blocking call whose callback runs us
        try:
            if self.manual_clock:
                raise ValueError("a stack with a manual clock is driven by poll(now_ns)")
            if duration_ns is not None:
                until_ns = start_ns + <uint64_t>whole("duration_ns", duration_ns, 0, UINT64_MAX - start_ns)
            self.stop_requested = False
            self.link.c.wake_fd = self.waker.fd()
            while self.alive and not self.stop_requested and clock_monotonic_ns() < until_ns:
                self.may_sleep()
                self.come_up = self.stop_requested or bool(self.gate.deferred) or bool(self.waker.calls)
                watches = bool(self.waker.readers)
                lent_watch(&self.come_up)
                with nogil:
                    engine_run(&self.c, slice_end(until_ns, watches), &self.come_up)
                lent_watch(NULL)
                self.hand_over()
                self.between_turns()
                if self.calls_due or self.waker.due():
                    self.serve_waker()
                self.raise_link_error()
        finally:
            self.link.c.wake_fd = wake_fd
            self.gate.wake = NULL
            self.leave()

    def raise_link_error(self) -> None:
        """Raise what the link has reported since the last call, if anything."""
        cdef int error = self.c.link_error
        if error != 0:
            self.c.link_error = 0
            raise OSError(-error, f"link: {strerror(-error).decode()}")

    cdef int serve_waker(self) except -1:
        """Outside of the gate: what it calls may use the stack."""
        cdef str call = self.gate.call
        self.gate.leave()
        try:
            self.make_calls()
            self.waker.serve()
        finally:
            self.gate.enter(call)
        return 0

    cdef void call_later(self, object call, object argument) noexcept:
        self.calls_due.append((call, argument))
        self.come_up = True

    cdef int make_calls(self) except -1:
        cdef list calls = self.calls_due
        self.calls_due = []                 # what they cause has its turn later
        calls.reverse()
        while calls:
            call, argument = calls.pop()
            try:
                call(argument)
            except BaseException as error:
                if is_interruption(error):
                    calls.reverse()
                    self.calls_due = calls + self.calls_due
                    raise
                give_up(error)
        return 0

    def stop(self) -> None:
        """Make run() return after its current turn. May be called from a signal handler, a callback or any thread."""
        self.stop_requested = True
        self.come_up = True
        self.waker.ring()

    def call_soon_threadsafe(self, callback: object, *args: object) -> None:
        """Have run(), or a blocking call (accept, receive, send, connect), call callback(*args) between two turns, in
        its thread; it may use the stack. Any thread may ask.

        Calls are made in order, once each. What one raises comes out of the run() or the blocking call. While neither
        runs they wait for the next that has to wait. A blocking call whose stack was closed by one raises ValueError.
        """
        self.ensure_alive()
        self.waker.calls.append((callback, args))
        self.come_up = True
        self.waker.ring()

    def add_reader(self, fd: int, callback: object, *args: object) -> None:
        """Have run(), or a blocking call, call callback(*args) whenever the descriptor can be read: at once when it
        sleeps, within 10 ms when it is busy. One callback for each descriptor: another one takes its place.

        For the thread that runs the stack; from others through call_soon_threadsafe(). Raises OSError.
        """
        cdef int number = whole("fd", fd, 0, 0x7FFFFFFF)
        self.ensure_alive()
        self.waker.watch(number, callback, args)

    def remove_reader(self, fd: int) -> bool:
        """Watch the descriptor no longer; call it before the descriptor is closed. Whether it was watched."""
        return self.waker.watch_no_more(fd)

    @property
    def wakeups(self) -> int:
        """Times that the word of another thread, or of a signal handler, has reached run()."""
        return self.waker.wakeups

    cdef void push(self) noexcept:
        cdef uint64_t now_ns
        if not self.manual_clock and self.alive:
            now_ns = self.now()
            lent_watch(&self.come_up)
            with nogil:
                engine_flush(&self.c, now_ns)
            lent_watch(NULL)
            self.hand_over()

    cdef void push_with_gil(self) noexcept:
        if not self.manual_clock and self.alive:
            engine_flush(&self.c, self.now())
            self.hand_over()

    cdef int control_number(self, object name) except -1:
        cdef int number = self.c.tcp.config.cc if name is None else cc_number(name)
        if control_provide(&self.c.tcp, number) != 0:
            raise MemoryError(f"no memory for the congestion control {name}")
        return number

    cdef object control_name(self, int number):
        return cc_table(number).name.decode()

    cdef void set_listener_control(self, const ip_addr_t *address, uint16_t port, int control) noexcept:
        tcp_set_listener_cc(&self.c.tcp, address, port, control)

    cdef int set_listener_option(self, const ip_addr_t *address, uint16_t port, int option, uint32_t value) noexcept:
        return tcp_set_listener_option(&self.c.tcp, address, port, option, value)

    cdef void may_sleep(self) noexcept:
        self.gate.sleeper = <void *>self
        self.gate.wake = wake_up

    cdef int step(self) except -1:
        if self.manual_clock:
            return 0
        self.between_turns()
        if self.calls_due or self.waker.due():
            self.serve_waker()
            self.ensure_alive()
        self.turn(clock_monotonic_ns())
        if self.c.link_error != 0:
            self.raise_link_error()
        return 0

    cdef bint wait_for(self, object condition, uint64_t until_ns, str what) except -1:
        cdef uint64_t now_ns, deadline_ns
        cdef uint32_t frames
        cdef int wake_fd = self.link.c.wake_fd                  # of a run() whose callback waits
        if self.manual_clock:
            raise WouldBlock("would_block", f"{what}; a stack with a manual clock does not wait: poll it", errno.EAGAIN)
        try:
            while self.calls_due or not condition():            # the calls first: they may do what we wait for
                self.link.c.wake_fd = self.waker.fd()
                self.between_turns()
                if self.calls_due or self.waker.due():
                    self.serve_waker()
                    if condition():                             # they may have done what we wait for
                        return True
                    self.ensure_alive()
                now_ns = clock_monotonic_ns()
                if now_ns >= until_ns:
                    return False
                self.may_sleep()
                frames = self.turn(now_ns)
                deadline_ns = engine_next_deadline(&self.c)
                if (frames == 0 and self.c.link_error == 0 and deadline_ns > now_ns and not condition()
                        and not self.gate.deferred):
                    with nogil:
                        engine_wait(&self.c, deadline_ns if deadline_ns < until_ns else until_ns)
                if self.c.link_error != 0:
                    self.raise_link_error()
            return True
        finally:
            self.link.c.wake_fd = wake_fd
            self.gate.wake = NULL


cdef void give_up(object error) noexcept:
    """To sys.unraisablehook: nobody is there to get it."""
    raise error
