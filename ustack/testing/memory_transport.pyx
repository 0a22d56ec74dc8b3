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
application.pxd. Above: tests. Below: application, base, buf, link's gate.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_WAITING, CALL_BAD_ADDRESS, CALL_IN_USE, CALL_NO_MEMORY, CALL_NO_ROUTE, CALL_OK, CALL_STATE,
    CALL_UNSUPPORTED, CLOSE_ABORTED, CLOSE_NORMAL, CLOSE_RESET, CLOSE_TIMEOUT, CONN_ABORTED, CONN_EOF,
    OPTION_NODELAY, OPTION_TTL, Application, Transport, application_t,
    close_reason_t, conn_t, endpoints_t, transport_t, turn_budget_t, visit_t)
from ustack.base.arguments cimport whole
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.buf.lent cimport lent_ref, lent_release_pending, lent_t, lent_unref
from ustack.link.gate cimport Gate

import errno
from collections import deque

from ustack.errors import WouldBlock, error_of

cdef enum:
    STAGE_UNITS = 8192              # as the engine has it: see turn_spent
    UPCALL_UNITS = 512
    RECEIVE_BYTES = 1 << 18         # unread bytes of a paused connection; more waits at the client
    OPTIONS = 8
    SETTLE_TURNS = 100000
    MOST_APPLICATIONS = 63

cdef enum flags_t:
    ACCEPTED = 1
    PAUSED = 2                      # on_data left a rest
    RESUMED = 4                     # ... and wants it
    WANT_WRITABLE = 8
    FIN_QUEUED = 16                 # shutdown or close
    FIN_TAKEN = 32                  # the client has seen it
    CLOSED_BY_APP = 64
    ABORT = 128
    PEER_FIN = 256                  # behind everything unread
    EOF_TOLD = 512
    WAITING = 1024                  # it counts against the backlog
    ENDED = 2048                    # on_closed is being called

ctypedef struct piece_t:            # one lent range in the send queue
    lent_t *lent
    const uint8_t *data
    uint64_t length
    piece_t *next

ctypedef struct memory_conn_t:
    uint64_t user_data              # conn_t
    endpoints_t ends
    application_t *app
    uint32_t flags
    uint32_t queued                 # bytes
    piece_t *head
    piece_t *tail
    uint8_t *unread                 # received and not consumed: unread[start:end]
    size_t start
    size_t end
    size_t capacity
    uint64_t timeout_at_ns          # 0: off
    uint32_t options[OPTIONS]
    close_reason_t reason
    bint offering                   # on_data has the unread bytes in its hands

ctypedef struct memory_listener_t:
    uint16_t port                   # 0: nobody listens
    uint32_t backlog
    uint32_t waiting
    application_t *app

ctypedef struct memory_t:
    transport_t transport           # first: see transport_t
    turn_budget_t budget
    uint64_t now_ns
    uint32_t send_queue_bytes
    uint32_t low_water_bytes
    memory_listener_t listeners[MOST_APPLICATIONS]
    memory_conn_t **conns           # of `count`; NULL: gone
    uint32_t count


cdef inline memory_t *memory_of(const transport_t *transport) noexcept nogil:
    return <memory_t *>transport


cdef inline memory_conn_t *own(const conn_t *conn) noexcept nogil:
    return <memory_conn_t *>conn


# ---------------------------------------------------------------- downcalls

cdef uint32_t send_queued(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return own(conn).queued


cdef uint32_t send_room(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return memory_of(transport).send_queue_bytes - own(conn).queued


cdef int64_t send(const transport_t *transport, conn_t *conn, lent_t *lent, uint64_t offset,
                  uint64_t length) noexcept nogil:
    cdef memory_conn_t *record = own(conn)
    cdef uint64_t room = send_room(transport, conn)
    cdef uint64_t accepted = length if length < room else room
    cdef piece_t *piece
    if record.flags & (FIN_QUEUED | ABORT | ENDED):
        return CALL_STATE
    if offset > lent.length or length > lent.length - offset:
        return CALL_BAD_ADDRESS
    if accepted == 0:
        return 0
    piece = <piece_t *>calloc(1, sizeof(piece_t))
    if piece == NULL:
        return CALL_NO_MEMORY
    piece.lent = lent_ref(lent)
    piece.data = lent.data + offset
    piece.length = accepted
    if record.tail != NULL:
        record.tail.next = piece
    else:
        record.head = piece
    record.tail = piece
    record.queued += <uint32_t>accepted
    return <int64_t>accepted


cdef void want_writable(const transport_t *transport, conn_t *conn) noexcept nogil:
    own(conn).flags |= WANT_WRITABLE


cdef uint32_t low_water(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return memory_of(transport).low_water_bytes


cdef uint32_t receivable(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return <uint32_t>(own(conn).end - own(conn).start)


cdef size_t receive(const transport_t *transport, conn_t *conn, uint8_t *out, size_t length) noexcept nogil:
    cdef memory_conn_t *record = own(conn)
    if record.offering:
        return 0
    if length > record.end - record.start:
        length = record.end - record.start
    if out != NULL:
        memcpy(out, record.unread + record.start, length)
    record.start += length
    if length > 0:
        record.flags &= ~<uint32_t>PAUSED
    return length


cdef const uint8_t *peek(const transport_t *transport, conn_t *conn, uint32_t *length) noexcept nogil:
    cdef memory_conn_t *record = own(conn)
    if record.offering or record.end == record.start:
        return NULL
    length[0] = <uint32_t>(record.end - record.start)
    return record.unread + record.start


cdef void resume(const transport_t *transport, conn_t *conn) noexcept nogil:
    if own(conn).end > own(conn).start or own(conn).offering:
        own(conn).flags |= RESUMED


cdef void shutdown(const transport_t *transport, conn_t *conn) noexcept nogil:
    own(conn).flags |= FIN_QUEUED


cdef void close(const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef memory_conn_t *record = own(conn)
    if record.flags & CLOSED_BY_APP:
        return
    if record.end > record.start and not record.offering:
        abort(transport, conn)          # unread data is lost, say so
        return
    record.flags |= CLOSED_BY_APP | FIN_QUEUED
    record.timeout_at_ns = 0


cdef void abort(const transport_t *transport, conn_t *conn) noexcept nogil:
    own(conn).flags |= ABORT
    own(conn).reason = CLOSE_ABORTED


cdef void set_timeout(const transport_t *transport, conn_t *conn, uint64_t after_ns) noexcept nogil:
    own(conn).timeout_at_ns = memory_of(transport).now_ns + after_ns if after_ns else 0


cdef int set_option(const transport_t *transport, conn_t *conn, int option, uint32_t value) noexcept nogil:
    if not OPTION_NODELAY <= option <= OPTION_TTL:
        return CALL_UNSUPPORTED
    own(conn).options[option] = value
    return CALL_OK


cdef uint32_t get_option(const transport_t *transport, const conn_t *conn, int option) noexcept nogil:
    return own(conn).options[option] if OPTION_NODELAY <= option <= OPTION_TTL else 0


cdef const endpoints_t *endpoints(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return &own(conn).ends


cdef uint32_t status(const transport_t *transport, const conn_t *conn) noexcept nogil:
    cdef uint32_t bits = 0
    if own(conn).flags & PEER_FIN:
        bits |= CONN_EOF
    if own(conn).flags & ABORT:
        bits |= CONN_ABORTED
    return bits


cdef close_reason_t reason(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return own(conn).reason


cdef object state(const transport_t *transport, const conn_t *conn):
    cdef uint32_t flags = own(conn).flags
    if flags & (ABORT | ENDED):
        return "CLOSED"
    if flags & FIN_QUEUED:
        return "LAST-ACK" if flags & PEER_FIN else "FIN-WAIT-2" if flags & FIN_TAKEN else "FIN-WAIT-1"
    return "CLOSE-WAIT" if flags & PEER_FIN else "ESTABLISHED"


cdef object info(const transport_t *transport, const conn_t *conn):
    return {"state": state(transport, conn), "snd_queued_bytes": own(conn).queued,
            "rcv_queued_bytes": own(conn).end - own(conn).start}


cdef void each(const transport_t *transport, application_t *app, visit_t visit) noexcept nogil:
    cdef memory_t *memory = memory_of(transport)
    cdef uint32_t index
    for index in range(memory.count):
        if memory.conns[index] != NULL and memory.conns[index].app == app and memory.conns[index].flags & ACCEPTED:
            visit(app, transport, <conn_t *>memory.conns[index])


cdef memory_listener_t *listener_of(memory_t *memory, uint16_t port) noexcept nogil:
    cdef int index
    for index in range(MOST_APPLICATIONS):
        if memory.listeners[index].port == port:
            return &memory.listeners[index]
    return NULL


cdef int listen(const transport_t *transport, const ip_addr_t *address, uint16_t port, application_t *app,
                uint32_t backlog) noexcept nogil:
    cdef memory_listener_t *listener = listener_of(memory_of(transport), port)
    if listener != NULL:
        return CALL_IN_USE
    listener = listener_of(memory_of(transport), 0)
    if listener == NULL:
        return CALL_NO_MEMORY
    listener.port = port
    listener.app = app
    listener.backlog = backlog
    listener.waiting = 0
    return CALL_OK


cdef int unlisten(const transport_t *transport, const ip_addr_t *address, uint16_t port) noexcept nogil:
    cdef memory_listener_t *listener = listener_of(memory_of(transport), port)
    if listener == NULL or port == 0:
        return CALL_STATE
    memset(listener, 0, sizeof(memory_listener_t))
    return CALL_OK


cdef conn_t *connect(const transport_t *transport, const ip_addr_t *address, uint16_t port, uint16_t local_port,
                     application_t *app, int *outcome) noexcept nogil:
    outcome[0] = CALL_NO_ROUTE
    return NULL


cdef void taken(const transport_t *transport, const conn_t *conn) noexcept nogil:
    cdef memory_listener_t *listener = listener_of(memory_of(transport), own(conn).ends.lport)
    if own(conn).flags & WAITING and listener != NULL:
        listener.waiting -= 1
    own(conn).flags &= ~<uint32_t>WAITING


cdef void fill(transport_t *table) noexcept:
    table.send = send
    table.send_queued = send_queued
    table.send_room = send_room
    table.want_writable = want_writable
    table.low_water = low_water
    table.receivable = receivable
    table.receive = receive
    table.peek = peek
    table.resume = resume
    table.shutdown = shutdown
    table.close = close
    table.abort = abort
    table.set_timeout = set_timeout
    table.set_option = set_option
    table.option = get_option
    table.endpoints = endpoints
    table.status = status
    table.reason = reason
    table.state = state
    table.info = info
    table.each = each
    table.listen = listen
    table.unlisten = unlisten
    table.connect = connect
    table.taken = taken


# ---------------------------------------------------------------- the records

cdef int unread_append(memory_conn_t *record, const uint8_t *data, size_t length) except -1:
    cdef uint8_t *grown
    if record.start > 0:
        memmove(record.unread, record.unread + record.start, record.end - record.start)
        record.end -= record.start
        record.start = 0
    if record.end + length > record.capacity:
        grown = <uint8_t *>realloc(record.unread, 2 * (record.end + length))
        if grown == NULL:
            raise MemoryError
        record.unread = grown
        record.capacity = 2 * (record.end + length)
    memcpy(record.unread + record.end, data, length)
    record.end += length
    return 0


cdef bytes queue_take(memory_conn_t *record, uint64_t wanted):
    """The first `wanted` bytes of the send queue, acknowledged: what lent them gets them back."""
    cdef piece_t *piece
    cdef uint64_t step
    cdef list parts = []
    while wanted > 0 and record.head != NULL:
        piece = record.head
        step = piece.length if piece.length < wanted else wanted
        parts.append((<const char *>piece.data)[:<Py_ssize_t>step])
        piece.data += step
        piece.length -= step
        record.queued -= <uint32_t>step
        wanted -= step
        if piece.length == 0:
            queue_drop(record)
    return b"".join(parts)


cdef void queue_drop(memory_conn_t *record) noexcept:
    """Give the first piece back."""
    cdef piece_t *piece = record.head
    record.head = piece.next
    if record.head == NULL:
        record.tail = NULL
    record.queued -= <uint32_t>piece.length
    lent_unref(piece.lent)
    free(piece)


cdef void record_free(memory_conn_t *record) noexcept:
    while record.head != NULL:
        queue_drop(record)
    free(record.unread)
    free(record)


# ---------------------------------------------------------------- the client's end

cdef class MemoryClient:
    """A client's end of a connection, made by MemoryTransport.open(). What it does, the application sees in the next
    turn (poll, settle).

    received: bytes that came and were not yet received. window_bytes: the most of them; more stays with the sender.
    segment_bytes: what send() is given is split into segments of at most so many bytes; 0: not at all.
    """

    cdef readonly MemoryTransport transport
    cdef readonly uint32_t number
    cdef readonly uint16_t port                 # the client's own
    cdef public uint64_t window_bytes
    cdef public uint32_t segment_bytes
    cdef readonly bytearray received
    cdef object segments                        # deque: what was sent and has not arrived yet
    cdef bint fin_sent
    cdef bint fin_received
    cdef bint wants_reset
    cdef object failure                         # exception: how the connection ended, None: it has not

    def __init__(self):
        raise TypeError("use MemoryTransport.open()")

    def send(self, *segments: bytes) -> int:
        """Each argument arrives as a segment of its own: on_data is called for each of them. The number of bytes."""
        self.raise_failure()
        if self.fin_sent:
            raise error_of("aborted", "send() after shutdown()")
        for segment in segments:
            step = self.segment_bytes or len(segment)
            for at in range(0, len(segment), step or 1):
                self.segments.append(bytes(segment[at:at + step]))
        return sum(map(len, segments))

    def receive(self, max_bytes: int = 65536, timeout: float | None = 0) -> bytes:
        """What has come, at most max_bytes; b"" at the end. BlockingIOError: nothing is there now. Raises the
        connection's end if it was a reset."""
        if not self.received:
            if self.fin_received:
                return b""
            self.raise_failure()
            raise WouldBlock("would_block", "receive(): nothing came", errno.EAGAIN)
        found = bytes(self.received[:max_bytes])
        del self.received[:max_bytes]
        return found

    def shutdown(self) -> None:
        """No more data from here: the application sees the end behind what was sent."""
        self.fin_sent = True

    def close(self) -> None:
        """Done with both directions: what still comes is answered with a reset."""
        self.fin_sent = True
        if self.received:
            self.abort()

    def abort(self) -> None:
        """Reset the connection. Idempotent."""
        self.wants_reset = True

    @property
    def ended(self) -> bool:
        """The application has heard of the end (on_closed)."""
        return self.transport.clients[self.number] is None

    cdef int raise_failure(self) except -1:
        if self.failure is not None:
            raise self.failure
        return 0


# ---------------------------------------------------------------- the transport

cdef class MemoryTransport(Transport):
    """MemoryTransport(*, now_ns=1_000_000_000, send_queue_bytes=1 << 20, low_water_bytes=16384)
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

    def __cinit__(self, *args: object, **options: object) -> None:
        memset(&self.memory, 0, sizeof(memory_t))
        self.applications = []
        self.clients = []
        self.begun = set()
        self.gate = Gate()
        self.manual_clock = True

    def __init__(self, *, now_ns: int = 1_000_000_000, send_queue_bytes: int = 1 << 20,
                 low_water_bytes: int = 16384) -> None:
        self.memory.now_ns = whole("now_ns", now_ns, 1, 1 << 62)
        self.memory.send_queue_bytes = whole("send_queue_bytes", send_queue_bytes, 1, 1 << 30)
        self.memory.low_water_bytes = whole("low_water_bytes", low_water_bytes, 0, send_queue_bytes - 1)
        fill(&self.memory.transport)
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
        if application.transport != NULL or len(self.applications) == MOST_APPLICATIONS:
            raise ValueError(f"this {type(application).__name__} is in use")
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
        cdef uint32_t count = self.memory.count
        self.enter("poll()")
        try:
            if now_ns is not None:
                self.memory.now_ns = whole("now_ns", now_ns, self.memory.now_ns, 1 << 62)
            self.memory.budget.stage_left = STAGE_UNITS
            for step in range(count):
                if self.memory.budget.stage_left <= 0:
                    self.first = (self.first + step) % count
                    happened += 1
                    break
                happened += self.serve((self.first + step) % count)
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
        """Everything that is due on one connection, in the order in which the engine has it."""
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
        happened += self.depart(record, client)
        return happened + self.finish(index, record, client)

    cdef bint accept(self, memory_conn_t *record) except -1:
        cdef application_t *app = self.begin(record)
        cdef memory_listener_t *listener = listener_of(&self.memory, record.ends.lport)
        cdef int answer = app.on_accept(app, self.table, <conn_t *>record)
        if answer == ACCEPT_REFUSED:
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
        if record.flags & WANT_WRITABLE and record.queued <= self.memory.low_water_bytes:
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
        cdef uint64_t room
        if record.flags & ABORT or client.wants_reset:
            return 0
        room = client.window_bytes - len(client.received) if client.window_bytes > len(client.received) else 0
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
        taken(self.table, <conn_t *>record)
        self.memory.conns[index] = NULL
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
            for application in self.applications:
                (<Application>application).detach()
            self.alive = False
        finally:
            self.leave()
