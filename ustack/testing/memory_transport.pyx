# SPDX-License-Identifier: MIT
"""A transport without a network: bytes between an application and test code, split as the test wants.

    transport = MemoryTransport(now_ns=0)
    transport.listen(80, HttpServer("site"))
    client = transport.open(80)                 # a client's end
    client.send(b"GET / HTTP/1.1\\r\\n", b"Host: h\\r\\n\\r\\n")       # as two segments
    transport.settle()
    client.receive()

It makes the upcalls and takes the downcalls of application.pxd as the engine's TCP does, from the application's side:
an application cannot tell them apart. Nothing is lost, nothing is late, and time is what poll() is told. A client takes
at most window_bytes that the test has not received yet; what is behind them stays in the send queue, which holds
send_queue_bytes. So a test decides when an application meets a full queue, a pause, an end or a reset.

It must not: know a protocol. No connection is opened by the application (connect finds no route). Read first:
application.pxd. Above: tests. Below: memory/ (the records, the downcalls, a client's end), application, link's gate.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from ustack.application cimport (
    ACCEPT_NO_MEMORY, ACCEPT_REFUSED, ACCEPT_WAITING, CALL_OK, CLOSE_ABORTED, CLOSE_NORMAL, CLOSE_RESET, CLOSE_TIMEOUT,
    OPTION_LOW_WATER, OPTION_UNSENT_LOW_WATER, Application, Transport, application_t, close_reason_t, conn_t,
    turn_budget_t)
from ustack.base.arguments cimport whole
from ustack.base.types cimport ip_addr_set_v4
from ustack.buf.lent cimport lent_release_pending
from ustack.link.gate cimport Gate
from ustack.testing.memory.client cimport MemoryClient
from ustack.testing.memory.downcalls cimport downcalls_fill, listener_of
from ustack.testing.memory.records cimport (
    ABORT, ACCEPTED, CLOSED_BY_APP, ENDED, EOF_TOLD, FIN_QUEUED, FIN_TAKEN, MEMORY_LISTENERS, PAUSED, PEER_FIN,
    RESUMED, WAITING, WANT_WRITABLE, is_writable, memory_conn_t, memory_listener_t, memory_t, queue_take,
    record_free, unread_append)

import errno
from collections import deque

from ustack.errors import WouldBlock, error_of

cdef enum:
    STAGE_UNITS = 8192              # as the engine has it: see turn_spent
    UPCALL_UNITS = 512
    RECEIVE_BYTES = 1 << 18         # unread bytes of a paused connection; more waits at the client
    SETTLE_TURNS = 100000


cdef class MemoryTransport(Transport):
    """MemoryTransport(*, now_ns=1_000_000_000, send_queue_bytes=1 << 20, low_water_bytes=16384,
    unsent_low_water_bytes=1 << 30)
--

    A transport whose clients are test code. now_ns: the time of the first turn.
    """

    cdef memory_t memory
    cdef list applications
    cdef list clients                           # MemoryClient by number; None: gone
    cdef set begun                              # indexes of applications whose burst has begun
    cdef uint32_t first                         # whose turn it is
    cdef bint come_up
    cdef readonly uint64_t upcalls              # made so far
    cdef readonly uint64_t hand_overs           # to an application, so far
    cdef readonly uint64_t events_handed_over
    cdef readonly uint64_t accepts_without_memory

    def __cinit__(self, *args: object, **options: object) -> None:
        memset(&self.memory, 0, sizeof(memory_t))
        self.applications = []
        self.clients = []
        self.begun = set()
        self.gate = Gate()
        self.manual_clock = True

    def __init__(self, *, now_ns: int = 1_000_000_000, send_queue_bytes: int = 1 << 20,
                 low_water_bytes: int = 16384, unsent_low_water_bytes: int = 1 << 30) -> None:
        self.memory.now_ns = whole("now_ns", now_ns, 1, 1 << 62)
        self.memory.send_queue_bytes = whole("send_queue_bytes", send_queue_bytes, 1, 1 << 30)
        self.memory.low_water_bytes = whole("low_water_bytes", low_water_bytes, 0, send_queue_bytes - 1)
        self.memory.unsent_low_water_bytes = min(
            whole("unsent_low_water_bytes", unsent_low_water_bytes, 0, 1 << 30), send_queue_bytes)
        downcalls_fill(&self.memory.transport)
        self.memory.transport.budget = &self.memory.budget
        self.table = &self.memory.transport
        self.alive = True

    def __dealloc__(self) -> None:
        cdef uint32_t index
        for index in range(self.memory.count):
            if self.memory.conns[index] != NULL:
                record_free(self.memory.conns[index])
        free(self.memory.conns)

    cdef uint16_t register(self, Application application) except 0:
        if application.transport == self.table:
            return application.c.index
        missing = application.missing_upcalls()
        if missing:
            raise ValueError(f"{type(application).__name__} has no {', '.join(missing)}")
        application.ensure_free()
        if len(self.applications) == MEMORY_LISTENERS:
            raise ValueError(f"a transport in memory serves at most {MEMORY_LISTENERS} applications")
        self.applications.append(application)
        application.attach(self, <uint16_t>len(self.applications), &self.come_up)
        return application.c.index

    cdef uint64_t now(self) noexcept:
        return self.memory.now_ns

    cdef int leave(self) except -1:
        cdef Application application
        self.gate.leave()
        for application in self.applications:
            if application.parked is not None:
                error = application.parked
                application.parked = None
                raise error
        return 0

    cdef void wait_until(self, object condition, object timeout, str what) except *:
        if not condition():
            raise WouldBlock("would_block", what, errno.EAGAIN)

    @property
    def now_ns(self) -> int:
        """The time of the latest turn."""
        return self.memory.now_ns

    @property
    def next_deadline_ns(self) -> int | None:
        """The earliest timeout that an application has set; None: none."""
        cdef uint32_t index
        times = [self.memory.conns[index].timeout_at_ns for index in range(self.memory.count)
                 if self.memory.conns[index] != NULL and self.memory.conns[index].timeout_at_ns]
        return min(times, default=None)

    def listen(self, port: int, application: Application, *, backlog: int = 128) -> None:
        """The application gets the connections to this port."""
        self.enter("listen()")
        try:
            self.register(application)
            if self.table.listen(self.table, NULL, whole("port", port, 1, 65535), &application.c, backlog) != CALL_OK:
                raise ValueError(f"port {port} is in use")
        finally:
            self.leave()

    def open(self, port: int = 80, *, window_bytes: int = 1 << 20, from_port: int = 0) -> MemoryClient:
        """A client's end of a new connection; on_accept comes with the next turn.

        from_port: the client's own, 0: one that no other has. Raises ConnectionRefusedError where nobody listens.
        """
        cdef memory_listener_t *listener = listener_of(&self.memory, whole("port", port, 1, 65535))
        cdef memory_conn_t *record
        cdef memory_conn_t **grown
        cdef MemoryClient client
        if listener == NULL or listener.waiting >= listener.backlog:
            raise error_of("refused", f"memory:{port}")
        grown = <memory_conn_t **>realloc(self.memory.conns, (self.memory.count + 1) * sizeof(void *))
        if grown == NULL:
            raise MemoryError
        self.memory.conns = grown
        record = <memory_conn_t *>calloc(1, sizeof(memory_conn_t))
        if record == NULL:
            raise MemoryError
        ip_addr_set_v4(&record.ends.laddr, 0x0100007F)
        ip_addr_set_v4(&record.ends.raddr, 0x0200007F)
        record.ends.lport = port
        record.ends.rport = from_port if from_port else 40000 + self.memory.count % 20000
        record.app = listener.app
        record.options[<int>OPTION_LOW_WATER] = self.memory.low_water_bytes
        record.options[<int>OPTION_UNSENT_LOW_WATER] = self.memory.unsent_low_water_bytes
        client = MemoryClient.__new__(MemoryClient)
        client.transport = self
        client.number = self.memory.count
        client.port = record.ends.rport
        client.window_bytes = window_bytes
        client.received = bytearray()
        client.segments = deque()
        self.memory.conns[self.memory.count] = record
        self.memory.count += 1
        self.clients.append(client)
        return client

    # ------------------------------------------------------------ turns

    def poll(self, now_ns: int | None = None) -> int:
        """One turn at now_ns (None: the time stays). The number of things that happened in it."""
        cdef uint32_t step, happened = 0
        cdef uint32_t count = self.memory.count, served = count, first = self.first
        self.enter("poll()")
        try:
            if now_ns is not None:
                self.memory.now_ns = whole("now_ns", now_ns, self.memory.now_ns, 1 << 62)
            self.memory.budget.stage_left = STAGE_UNITS
            for step in range(count):
                if self.memory.budget.stage_left <= 0:
                    self.first = (first + step) % count
                    served = step
                    happened += 1
                    break
                happened += self.serve((first + step) % count)
            self.hand_over()
            for step in range(served):
                happened += self.send_out((first + step) % count)
            self.hand_over()
            for index in sorted(self.begun):
                self.end_burst(self.applications[index - 1])
            self.begun.clear()
            lent_release_pending()
            return happened
        finally:
            self.leave()

    def settle(self) -> None:
        """Turns, without time passing, until nothing happens any more."""
        for _ in range(SETTLE_TURNS):
            if self.poll() == 0:
                return
        raise AssertionError("the application does not come to rest")

    def advance(self, duration_ns: int) -> None:
        """Let time pass from timeout to timeout."""
        until = self.now_ns + duration_ns
        self.settle()
        while (at := self.next_deadline_ns) is not None and at <= until:
            self.poll(max(at, self.now_ns))
            self.settle()
        self.poll(until)
        self.settle()

    cdef int hand_over(self) except -1:
        """Between receiving and output; and what output has ended, before poll() returns."""
        cdef Application application
        cdef uint64_t wanted = self.memory.hand_overs
        self.memory.hand_overs = 0
        for application in self.applications:
            if wanted >> application.c.index & 1 and application.c.on_hand_over != NULL:
                self.hand_overs += 1
                self.events_handed_over += application.c.on_hand_over(&application.c, self.table)
        return 0

    cdef int end_burst(self, Application application) except -1:
        if application.c.on_burst_end != NULL:
            application.c.on_burst_end(&application.c, self.memory.now_ns)
        return 0

    cdef application_t *begin(self, memory_conn_t *record) except NULL:
        """The application, its burst begun, with its share of the turn."""
        cdef turn_budget_t *budget = &self.memory.budget
        self.upcalls += 1
        budget.stage_left -= 1
        budget.upcall_floor = budget.stage_left - UPCALL_UNITS
        if budget.upcall_floor < 0:
            budget.upcall_floor = 0 if budget.stage_left > 0 else budget.stage_left - 1
        if record.app.index not in self.begun:
            self.begun.add(record.app.index)
            if record.app.on_burst_begin != NULL:
                record.app.on_burst_begin(record.app, self.memory.now_ns)
        return record.app

    cdef uint32_t serve(self, uint32_t index) except? 0xFFFFFFFF:
        """Everything that comes in on one connection or is due, in the order in which the engine has it."""
        cdef memory_conn_t *record = self.memory.conns[index]
        cdef MemoryClient client = self.clients[index]
        cdef uint32_t happened = 0
        if record == NULL:
            return 0
        if not record.flags & ACCEPTED and not client.wants_reset:
            happened += 1
            if not self.accept(record):
                client.failure = error_of("reset", "memory")
                self.drop(index)
                return happened
        happened += self.arrive(record, client)
        happened += self.tell(record, client)
        return happened + self.finish(index, record, client)

    cdef uint32_t send_out(self, uint32_t index) except? 0xFFFFFFFF:
        cdef memory_conn_t *record = self.memory.conns[index]
        cdef MemoryClient client = self.clients[index]
        cdef uint32_t happened
        if record == NULL or not record.flags & ACCEPTED:
            return 0
        happened = self.depart(record, client)
        return happened + self.finish(index, record, client)

    cdef bint accept(self, memory_conn_t *record) except -1:
        cdef application_t *app = self.begin(record)
        cdef memory_listener_t *listener = listener_of(&self.memory, record.ends.lport)
        cdef int answer = app.on_accept(app, self.table, <conn_t *>record)
        if answer == ACCEPT_REFUSED or answer == ACCEPT_NO_MEMORY:
            self.accepts_without_memory += answer == ACCEPT_NO_MEMORY
            return False
        record.flags |= ACCEPTED
        if answer == ACCEPT_WAITING and listener != NULL:
            record.flags |= WAITING
            listener.waiting += 1
        return True

    cdef uint32_t arrive(self, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF:
        """The client's segments, one on_data for each; what is left of one is kept, and pauses the connection."""
        cdef application_t *app
        cdef bytes segment
        cdef size_t used, length
        cdef uint32_t happened = 0
        if record.flags & RESUMED and record.flags & ACCEPTED:
            happened += 1
            self.offer_unread(record)
        while client.segments and not client.wants_reset and not record.flags & ABORT:
            if record.flags & (CLOSED_BY_APP | PEER_FIN):
                record.flags |= ABORT                   # data after its close: nobody is there to read it
                record.reason = CLOSE_ABORTED
                client.segments.clear()
                return happened + 1
            segment = client.segments[0]
            length = <size_t>PyBytes_GET_SIZE(segment)
            if self.memory.budget.stage_left <= 0 or (
                    record.end > record.start and record.end - record.start + length > RECEIVE_BYTES):
                break
            client.segments.popleft()
            happened += 1
            if record.end > record.start:
                unread_append(record, <const uint8_t *>PyBytes_AS_STRING(segment), length)
                if not record.flags & PAUSED:
                    self.offer_unread(record)
                continue
            app = self.begin(record)
            record.offering = True
            used = app.on_data(app, self.table, <conn_t *>record, <const uint8_t *>PyBytes_AS_STRING(segment), length)
            record.offering = False
            self.keep_rest(record, <const uint8_t *>PyBytes_AS_STRING(segment) + used, length - used)
        if client.fin_sent and not client.segments and not record.flags & PEER_FIN:
            record.flags |= PEER_FIN
            happened += 1
        return happened

    cdef int keep_rest(self, memory_conn_t *record, const uint8_t *data, size_t length) except -1:
        if length == 0:
            return 0
        if record.flags & CLOSED_BY_APP:
            record.flags |= ABORT                       # closed with data unread
            record.reason = CLOSE_ABORTED
            return 0
        record.flags |= PAUSED
        return unread_append(record, data, length)

    cdef int offer_unread(self, memory_conn_t *record) except -1:
        cdef application_t *app
        cdef size_t used
        record.flags &= ~<uint32_t>(RESUMED | PAUSED)
        if record.end == record.start or record.flags & (ABORT | CLOSED_BY_APP):
            return 0
        app = self.begin(record)
        record.offering = True
        used = app.on_data(app, self.table, <conn_t *>record, record.unread + record.start, record.end - record.start)
        record.offering = False
        record.start += used
        if record.end > record.start:
            record.flags |= PAUSED
            if record.flags & CLOSED_BY_APP:
                record.flags |= ABORT
                record.reason = CLOSE_ABORTED
        return 0

    cdef uint32_t tell(self, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF:
        """on_writable, on_eof, on_timeout."""
        cdef application_t *app
        cdef uint32_t happened = 0
        if record.flags & ABORT or client.wants_reset:
            return 0
        if record.flags & CLOSED_BY_APP:
            if not record.timeout_at_ns or record.timeout_at_ns > self.memory.now_ns:
                return 0
            record.timeout_at_ns = 0                    # it was closed, and nobody waits for the rest any longer
            record.flags |= ABORT
            record.reason = CLOSE_TIMEOUT
            return 1
        if record.flags & WANT_WRITABLE and is_writable(record):
            record.flags &= ~<uint32_t>WANT_WRITABLE
            app = self.begin(record)
            app.on_writable(app, self.table, <conn_t *>record)
            happened += 1
        if (record.flags & (PEER_FIN | EOF_TOLD) == PEER_FIN and record.end == record.start
                and not record.flags & (ABORT | CLOSED_BY_APP)):
            record.flags |= EOF_TOLD
            app = self.begin(record)
            app.on_eof(app, self.table, <conn_t *>record)
            happened += 1
        if record.timeout_at_ns and record.timeout_at_ns <= self.memory.now_ns and not record.flags & ABORT:
            record.timeout_at_ns = 0
            app = self.begin(record)
            app.on_timeout(app, self.table, <conn_t *>record)
            happened += 1
        return happened

    cdef uint32_t depart(self, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF:
        """What the client's window takes of the send queue, and the FIN behind it."""
        cdef uint64_t room, received = len(client.received)
        if record.flags & ABORT or client.wants_reset:
            return 0
        room = client.window_bytes - received if client.window_bytes > received else 0
        if room > 0 and record.queued > 0:
            client.received += queue_take(record, room)
            return 1
        if record.flags & (FIN_QUEUED | FIN_TAKEN) == FIN_QUEUED and record.queued == 0:
            record.flags |= FIN_TAKEN
            client.fin_received = True
            return 1
        return 0

    cdef uint32_t finish(self, uint32_t index, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF:
        """on_closed, when nothing is left to come or to go."""
        if client.wants_reset:
            self.end(index, CLOSE_RESET)
            client.failure = error_of("reset", "memory")
        elif record.flags & ABORT:
            self.end(index, record.reason)
            client.failure = error_of("reset", "memory")
        elif record.flags & FIN_TAKEN and record.flags & PEER_FIN and (
                record.flags & (EOF_TOLD | CLOSED_BY_APP) and not record.flags & RESUMED):
            self.end(index, CLOSE_NORMAL)
        else:
            return 0
        return 1

    cdef int end(self, uint32_t index, close_reason_t why) except -1:
        cdef memory_conn_t *record = self.memory.conns[index]
        cdef application_t *app
        record.reason = why
        record.flags |= ENDED
        if record.flags & ACCEPTED:
            app = self.begin(record)
            app.on_closed(app, self.table, <conn_t *>record, why)
        self.drop(index)
        return 0

    cdef int drop(self, uint32_t index) except -1:
        cdef memory_conn_t *record = self.memory.conns[index]
        self.table.taken(self.table, <conn_t *>record)
        self.memory.conns[index] = NULL
        (<MemoryClient>self.clients[index]).gone = True
        self.clients[index] = None
        record_free(record)
        return 0

    def close(self) -> None:
        """Reset every connection and let the applications go. Idempotent."""
        if not self.alive:
            return
        self.enter("close()")
        try:
            for index in range(self.memory.count):
                if self.memory.conns[index] != NULL:
                    (<MemoryClient>self.clients[index]).failure = error_of("reset", "memory")
                    self.end(index, CLOSE_ABORTED)
            self.hand_over()
            for application in self.applications:
                (<Application>application).detach()
            self.alive = False
        finally:
            self.leave()
