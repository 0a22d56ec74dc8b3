# SPDX-License-Identifier: MIT
"""Turns of a transport in memory: the upcalls, in the order in which the engine makes them. See turns.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memmove, memset

from ustack.application cimport (
    ACCEPT_NO_MEMORY, ACCEPT_REFUSED, ACCEPT_WAITING, CLOSE_ABORTED, CLOSE_NORMAL, CLOSE_RESET, CLOSE_TIMEOUT,
    Application, Transport, application_t, close_reason_t, conn_t, turn_budget_t)
from ustack.base.bytestring cimport data_of, size_of
from ustack.base.posix cimport close_descriptor
from ustack.buf.lent cimport lent_release_pending, lent_unref
from ustack.link.gate cimport Gate
from ustack.testing.memory.client cimport MemoryClient
from ustack.testing.memory.downcalls cimport listener_of
from ustack.testing.memory.records cimport (
    ABORT, ACCEPTED, CLOSED_BY_APP, ENDED, EOF_TOLD, FIN_QUEUED, FIN_TAKEN, PAUSED, PEER_FIN, RESUMED, WAITING,
    WANT_WRITABLE, is_writable, memory_conn_t, memory_listener_t, memory_read_t, memory_t, queue_take, record_free,
    unread_append)

from ustack.errors import error_of

cdef enum:
    STAGE_UNITS = 8192              # as the engine has it: see turn_spent
    UPCALL_UNITS = 512
    RECEIVE_BYTES = 1 << 18         # unread bytes of a paused connection; more waits at the client


cdef class MemoryTurns(Transport):
    """What MemoryTransport does in a turn."""

    def __cinit__(self, *args: object, **options: object) -> None:
        memset(&self.memory, 0, sizeof(memory_t))
        self.applications = []
        self.clients = []
        self.begun = set()
        self.gate = Gate()
        self.manual_clock = True

    def __dealloc__(self) -> None:
        cdef uint32_t index
        for index in range(self.memory.count):
            if self.memory.conns[index] != NULL:
                record_free(self.memory.conns[index])
        for index in range(self.memory.read_count):
            close_descriptor(self.memory.reads[index].fd)
            lent_unref(self.memory.reads[index].into)
        free(self.memory.conns)

    cdef uint32_t make_turn(self) except? 0xFFFFFFFF:
        cdef uint32_t step, happened = 0
        cdef uint32_t count = self.memory.count, served = count, first = self.first
        self.memory.budget.stage_left = STAGE_UNITS
        for step in range(count):
            if self.memory.budget.stage_left <= 0:
                self.first = (first + step) % count
                served = step
                happened += 1
                break
            happened += self.serve((first + step) % count)
        happened += self.tell_reads()
        self.hand_over()
        for step in range(served):
            happened += self.send_out((first + step) % count)
        self.hand_over()
        for index in sorted(self.begun):
            self.end_burst(self.applications[index - 1])
        self.begun.clear()
        lent_release_pending()
        return happened

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
        self.begin_burst(record.app)
        return record.app

    cdef int begin_burst(self, application_t *app) except -1:
        if app.index not in self.begun:
            self.begun.add(app.index)
            if app.on_burst_begin != NULL:
                app.on_burst_begin(app, self.memory.now_ns)
        return 0

    cdef uint32_t tell_reads(self) except? 0xFFFFFFFF:
        cdef memory_read_t told
        cdef uint32_t index = 0, ended = 0
        while index < self.memory.read_count:
            if not self.memory.reads[index].ended:
                index += 1
                continue
            told = self.memory.reads[index]
            self.memory.read_count -= 1     # the application may ask for more
            memmove(&self.memory.reads[index], &self.memory.reads[index + 1],
                    (self.memory.read_count - index) * sizeof(memory_read_t))
            ended += 1
            self.upcalls += 1
            self.begin_burst(told.app)
            told.app.on_file_read(told.app, self.table, told.token, told.fd, told.into, told.taken)
        return ended

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
        happened += self.call_after_data(record, client)
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
            length = size_of(segment)
            if self.memory.budget.stage_left <= 0 or (
                    record.end > record.start and record.end - record.start + length > RECEIVE_BYTES):
                break
            client.segments.popleft()
            happened += 1
            if record.end > record.start:
                unread_append(record, data_of(segment), length)
                if not record.flags & PAUSED:
                    self.offer_unread(record)
                continue
            app = self.begin(record)
            record.offering = True
            used = app.on_data(app, self.table, <conn_t *>record, data_of(segment), length)
            record.offering = False
            self.keep_rest(record, data_of(segment) + used, length - used)
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

    cdef uint32_t call_after_data(self, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF:
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
