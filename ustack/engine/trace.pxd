# SPDX-License-Identifier: MIT
# A Trace: the reader's end of a ring of records (tcp/tracing.pxd). Body: trace.pyx.

from libc.stdint cimport uint32_t, uint64_t

from ustack.application cimport conn_t
from ustack.engine.owner cimport Engine
from ustack.tcp.tracing cimport TRACE_CONNECTIONS_MAX, TRACE_RECORDS_MAX, TRACE_RECORDS_MIN, trace_ring_t


cdef class Trace:
    cdef trace_ring_t ring
    cdef Engine stack                       # whose connections it is about
    cdef int check(self, str call) except -1
    cdef bytes peek(self)
    cdef bytes take_now(self, uint64_t count)


# Inside the gate. Raise StackError, MemoryError.
cdef Trace trace_of_connection(Engine stack, conn_t *conn, uint32_t capacity)
cdef Trace trace_of_everybody(Engine stack, uint32_t connections, uint32_t capacity)
