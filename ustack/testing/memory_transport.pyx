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
application.pxd. Above: tests. Below: memory/ (turns, which make the upcalls; the downcalls, the records, a client's
end), application, link's gate.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, realloc
from libc.string cimport memcpy

from ustack.application cimport CALL_OK, CLOSE_ABORTED, OPTION_LOW_WATER, OPTION_UNSENT_LOW_WATER, Application
from ustack.base.arguments cimport whole
from ustack.base.bytestring cimport data_of, size_of
from ustack.base.types cimport ip_addr_set_v4
from ustack.testing.memory.client cimport MemoryClient
from ustack.testing.memory.downcalls cimport downcalls_fill, files_fill, listener_of
from ustack.testing.memory.records cimport MEMORY_LISTENERS, memory_conn_t, memory_listener_t, memory_read_t
from ustack.testing.memory.turns cimport MemoryTurns

import errno
import os
from collections import deque

from ustack.errors import WouldBlock, error_of

cdef enum:
    SETTLE_TURNS = 100000


cdef class MemoryTransport(MemoryTurns):
    """MemoryTransport(*, now_ns=1_000_000_000, send_queue_bytes=1 << 20, low_water_bytes=16384,
    unsent_low_water_bytes=1 << 30, reads_files=False)
--

    A transport whose clients are test code. now_ns: the time of the first turn. reads_files: applications' files are
    read while others go on, and each read ends when end_reads() says so.
    """

    def __init__(self, *, now_ns: int = 1_000_000_000, send_queue_bytes: int = 1 << 20,
                 low_water_bytes: int = 16384, unsent_low_water_bytes: int = 1 << 30,
                 reads_files: bool = False) -> None:
        self.memory.now_ns = whole("now_ns", now_ns, 1, 1 << 62)
        self.memory.send_queue_bytes = whole("send_queue_bytes", send_queue_bytes, 1, 1 << 30)
        self.memory.low_water_bytes = whole("low_water_bytes", low_water_bytes, 0, send_queue_bytes - 1)
        self.memory.unsent_low_water_bytes = min(
            whole("unsent_low_water_bytes", unsent_low_water_bytes, 0, 1 << 30), send_queue_bytes)
        downcalls_fill(&self.memory.transport)
        self.memory.transport.budget = &self.memory.budget
        if reads_files:
            files_fill(&self.memory.transport)
        self.table = &self.memory.transport
        self.alive = True

    cdef uint16_t register(self, Application application) except 0:
        if application.transport == self.table:
            return application.c.index
        self.ensure_usable(application)
        if len(self.applications) == MEMORY_LISTENERS:
            raise ValueError(f"a transport in memory serves at most {MEMORY_LISTENERS} applications")
        self.applications.append(application)
        application.attach(self, <uint16_t>len(self.applications), &self.come_up)
        return application.c.index

    cdef uint64_t now(self) noexcept:
        return self.memory.now_ns

    cdef int leave(self) except -1:
        self.gate.leave()
        return self.raise_parked_of(self.applications)

    cdef bint wait_for(self, object condition, uint64_t until_ns, str what) except -1:
        if not condition():
            raise WouldBlock("would_block", what, errno.EAGAIN)
        return True

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

    # ------------------------------------------------------------ files

    @property
    def reads(self) -> int:
        """Of files, that are under way."""
        return self.memory.read_count

    def end_reads(self, count: int = 1, *, error: int = 0, most_bytes: int = 1 << 62) -> None:
        """The oldest ones have ended, which the next turn tells: with what is in the file now, most_bytes of it, or
        with an errno."""
        cdef memory_read_t *read
        cdef uint32_t index
        cdef uint8_t *out
        cdef bytes data
        self.enter("end_reads()")
        try:
            for index in range(min(count, self.memory.read_count)):
                read = &self.memory.reads[index]
                read.ended = True
                read.taken = -error
                if error == 0:
                    data = os.pread(read.fd, min(read.length, most_bytes), read.offset)
                    read.taken = len(data)
                    out = <uint8_t *>read.into.data + read.at
                    memcpy(out, data_of(data), size_of(data))
        finally:
            self.leave()

    # ------------------------------------------------------------ turns

    def poll(self, now_ns: int | None = None) -> int:
        """One turn at now_ns (None: the time stays). The number of things that happened in it."""
        self.enter("poll()")
        try:
            if now_ns is not None:
                self.memory.now_ns = whole("now_ns", now_ns, self.memory.now_ns, 1 << 62)
            return self.make_turn()
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
            for index in range(self.memory.read_count):
                self.memory.reads[index].taken = -errno.ECANCELED
                self.memory.reads[index].ended = True
            self.tell_reads()
            self.hand_over()
            for application in self.applications:
                (<Application>application).detach()
            self.alive = False
        finally:
            self.leave()
