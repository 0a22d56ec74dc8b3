# SPDX-License-Identifier: MIT
# A Trace: the reader's end of a ring of records (tcp/tracing.pxd). Body: trace.pyx.

from libc.stdint cimport uint32_t, uint64_t

from ustack.application cimport conn_t
from ustack.engine.owner cimport Engine
from ustack.tcp.records.trace cimport trace_record_t
from ustack.tcp.tracing cimport TRACE_CONNECTIONS_MAX, TRACE_RECORDS_MAX, TRACE_RECORDS_MIN, trace_ring_t


cdef class Lent


cdef class Trace:
    cdef trace_ring_t ring
    cdef Engine stack                       # whose connections it is about
    cdef uint64_t lent                      # records, the oldest of those that wait
    cdef int check(self, str call) except -1
    cdef bytes copied(self, uint64_t most)
    cdef list people(self, uint32_t first)
    cdef Lent piece(self, uint64_t first, uint64_t count)


# A piece of a ring, for memoryview.
cdef class Lent:
    cdef Trace trace                        # whose memory it is
    cdef trace_record_t *records
    cdef Py_ssize_t octets


# Inside the gate. Raise StackError, MemoryError.
cdef Trace trace_of_connection(Engine stack, conn_t *conn, uint32_t capacity)
cdef Trace trace_of_everybody(Engine stack, uint32_t connections, uint32_t capacity)
