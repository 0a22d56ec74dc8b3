# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""A Trace: what has happened to one connection of a stack, or to many, record by record.

    trace = connection.trace()
    ...
    for record in trace.records():
        print(record["time_ns"], record["event"], record["cwnd"])

The stack writes the records without the GIL; this is their reader, and owns the memory of both. It must not: change
what is traced. A Trace outlives its connections and its stack. One that is dropped is stopped.

What a record says: tcp/records/trace.pxd, docs/trace.md. Above: stack. Below: owner, tcp.tracing.
"""

from libc.stdint cimport uint32_t, uint64_t

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from ustack.application cimport conn_t
from ustack.base.address cimport ip_addr_text
from ustack.base.arguments cimport whole
from ustack.engine.owner cimport Engine
from ustack.engine.transport cimport tcb_of
from ustack.tcp.cc.registry cimport cc_table
from ustack.tcp.records.trace cimport trace_record_t
from ustack.tcp.tracing cimport (
    trace_begin, trace_connection_t, trace_everybody, trace_leave_behind, trace_lend, trace_peek, trace_ring_free,
    trace_ring_init, trace_ring_stop, trace_waiting)

import errno
import struct
from pathlib import Path

from ustack.errors import StackError
from ustack.tcp.tracing import CAUSES, EVENTS, FIELDS, FORMAT, REPAIRS, STATES


cdef class Trace:
    """Records of one connection (Connection.trace()) or of many (Stack.trace()), the latest `capacity` of them."""

    def __init__(self):
        raise TypeError("use Connection.trace() or Stack.trace()")

    def __del__(self) -> None:
        if self.ring.users:
            self.stack.gate.defer(self._stop_dropped)       # which keeps us alive until then

    def _stop_dropped(self) -> None:
        if self.stack.alive:
            trace_ring_stop(&self.stack.c.tcp, &self.ring)

    def __dealloc__(self) -> None:
        if self.ring.users == 0:            # else the stack was never asked, and may write into it still
            trace_ring_free(&self.ring)

    cdef int check(self, str call) except -1:
        """The records are the stack's while somebody is inside."""
        return self.stack.gate.check(call)

    def stop(self) -> None:
        """Record nothing more. What was recorded stays. Idempotent."""
        self.check("Trace.stop()")
        if self.stack.alive:
            trace_ring_stop(&self.stack.c.tcp, &self.ring)

    @property
    def active(self) -> bool:
        """Whether something may still be recorded: a connection that is traced lives, or may come."""
        return self.ring.users > 0

    @property
    def capacity(self) -> int:
        """How many records there is room for. A new one then takes the place of the oldest."""
        return self.ring.capacity

    @property
    def written(self) -> int:
        """Records so far, in all."""
        return self.ring.written

    @property
    def missed(self) -> int:
        """Records that were displaced before take() had them, or found no room (lend())."""
        self.check("Trace.missed")
        trace_waiting(&self.ring)
        return self.ring.missed

    @property
    def connections(self) -> list[dict[str, object]]:
        """Who was traced: connections[n - 1] is that whose records have the number n.

        local, remote: address and port. active: opened by us. began_ns: when its trace did. iss, irs: what its records'
        sequence numbers are relative to. smss: bytes of a full segment then. cc: its congestion control then.
        """
        self.check("Trace.connections")
        return self.people(0)

    def connections_from(self, first: int) -> list[dict[str, object]]:
        """connections[first:], without making those before it."""
        cdef uint32_t begin = whole("first", first, 0, TRACE_CONNECTIONS_MAX)
        self.check("Trace.connections_from()")
        return self.people(begin)

    cdef list people(self, uint32_t first):
        cdef uint32_t number
        return [connection_of(&self.ring.connections[number]) for number in range(first, self.ring.known)]

    def take(self, most: int | None = None) -> bytes:
        """The oldest `most` records (None: all), which are then gone from here: 64 bytes each, as FORMAT of
        ustack.tcp.tracing lays them out for `struct`."""
        cdef uint64_t wanted = self.ring.capacity if most is None else whole("most", most, 0, 1 << 32)
        cdef bytes out
        self.check("Trace.take()")
        if self.lent:
            raise ValueError("Trace.take(): records are lent: take_back() comes first")
        out = self.copied(wanted)
        trace_leave_behind(&self.ring, len(out) // sizeof(trace_record_t))
        return out

    def lend(self) -> list[memoryview]:
        """The records that take() would give, where they are: in two pieces at most, which another thread may read
        while the stack runs. They stay as they are until take_back().

        From the first call on a record that finds no room is not written, and counts as missed, instead of one that
        waits.
        """
        cdef uint64_t first, until_end
        self.check("Trace.lend()")
        if self.lent:
            raise ValueError("Trace.lend(): records are lent: take_back() comes first")
        self.lent = trace_lend(&self.ring)
        first = self.ring.read & (self.ring.capacity - 1)
        until_end = min(self.lent, self.ring.capacity - first)
        return [memoryview(piece) for piece in (self.piece(first, until_end), self.piece(0, self.lent - until_end))
                if (<Lent>piece).octets]

    cdef Lent piece(self, uint64_t first, uint64_t count):
        cdef Lent piece = Lent.__new__(Lent)
        piece.trace = self
        piece.records = &self.ring.records[first]
        piece.octets = <Py_ssize_t>(count * sizeof(trace_record_t))
        return piece

    def take_back(self) -> None:
        """What lend() gave last is read, and gone from the ring. Idempotent."""
        self.check("Trace.take_back()")
        trace_leave_behind(&self.ring, self.lent)
        self.lent = 0

    def records(self) -> list[dict[str, object]]:
        """The records that take() has not had, which stay here: a dict of each, with names for its numbers."""
        self.check("Trace.records()")
        return unpack(self.copied(self.ring.capacity))

    cdef bytes copied(self, uint64_t most):
        """The oldest `most` that wait, which they go on doing."""
        cdef uint64_t count = min(trace_waiting(&self.ring), most)
        cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(count * sizeof(trace_record_t)))
        trace_peek(&self.ring, <trace_record_t *>PyBytes_AS_STRING(out), count)
        return out

    def write(self, path: object) -> None:
        """Write records() to a file, which is made or emptied: Parquet if it ends in .parquet (that needs pyarrow, the
        extra `trace`), qlog if it ends in .qlog or .sqlog. Raises ValueError for any other, OSError."""
        from ustack.obs.tracefile import write

        self.check("Trace.write()")
        records = self.copied(self.ring.capacity)
        write(Path(path), records, self.connections, self.missed)

    def __repr__(self) -> str:
        if self.stack is None:
            return "<Trace that nobody made>"
        state = "active" if self.active else "stopped"
        return f"<Trace of {self.ring.known} connections, {self.ring.written} records, {state}>"


cdef class Lent:
    """A piece of a ring, which can be read as long as this lives."""

    def __getbuffer__(self, Py_buffer *buffer, int flags) -> None:
        PyBuffer_FillInfo(buffer, self, self.records, self.octets, 1, flags)


def unpack(data: bytes) -> list[dict[str, object]]:
    """The records in what take() has given, as Trace.records() has them."""
    cdef list found = []
    for values in struct.iter_unpack(FORMAT, data):
        record = dict(zip(FIELDS, values))
        record["event"] = EVENTS[record["event"]]
        record["cause"] = CAUSES[record["cause"]]
        record["state"] = STATES[record["state"]]
        record["repair"] = REPAIRS[record["repair"]]
        found.append(record)
    return found


cdef dict connection_of(const trace_connection_t *known):
    return {
        "local": (ip_addr_text(&known.key.laddr), known.key.lport),
        "remote": (ip_addr_text(&known.key.raddr), known.key.rport),
        "active": known.active != 0, "began_ns": known.began_ns, "iss": known.snd_base, "irs": known.rcv_base,
        "smss": known.smss, "cc": cc_table(<int>known.cc).name.decode(),
    }


cdef Trace make(Engine stack, uint32_t connections, uint32_t capacity):
    cdef Trace trace = Trace.__new__(Trace)
    trace.stack = stack
    if trace_ring_init(&trace.ring, capacity, connections) != 0:
        raise MemoryError(f"no memory for a trace of {capacity} records")
    return trace


cdef Trace trace_of_connection(Engine stack, conn_t *conn, uint32_t capacity):
    cdef Trace trace = make(stack, 1, capacity)
    if trace_begin(&stack.c.tcp, tcb_of(conn), &trace.ring) == 0:
        raise StackError("in_use", "trace(): the connection is traced already, or there is no memory", errno.EBUSY)
    return trace


cdef Trace trace_of_everybody(Engine stack, uint32_t connections, uint32_t capacity):
    cdef Trace trace = make(stack, connections, capacity)
    if trace_everybody(&stack.c.tcp, &trace.ring) != 0:
        raise StackError("in_use", "trace(): new connections are traced already, or there is no memory", errno.EBUSY)
    return trace
