# SPDX-License-Identifier: MIT
# Turns of a transport in memory: what came in, upcalls, what goes out, for each connection that the turn pays for.
#
# Who is inside has the gate. Above: memory_transport, the face. Below: client, downcalls, records; application.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.application cimport Application, Transport, application_t, close_reason_t
from ustack.testing.memory.client cimport MemoryClient
from ustack.testing.memory.records cimport memory_conn_t, memory_t


cdef class MemoryTurns(Transport):
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
    # One turn, at memory.now_ns. The number of things that happened in it.
    cdef uint32_t make_turn(self) except? 0xFFFFFFFF
    cdef int hand_over(self) except -1
    cdef int end_burst(self, Application application) except -1
    cdef application_t *begin(self, memory_conn_t *record) except NULL
    cdef int begin_burst(self, application_t *app) except -1
    # on_file_read for those that have ended. How many.
    cdef uint32_t tell_reads(self) except? 0xFFFFFFFF
    cdef uint32_t serve(self, uint32_t index) except? 0xFFFFFFFF
    cdef uint32_t send_out(self, uint32_t index) except? 0xFFFFFFFF
    cdef bint accept(self, memory_conn_t *record) except -1
    cdef uint32_t arrive(self, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF
    cdef int keep_rest(self, memory_conn_t *record, const uint8_t *data, size_t length) except -1
    cdef int offer_unread(self, memory_conn_t *record) except -1
    cdef uint32_t call_after_data(self, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF
    cdef uint32_t depart(self, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF
    cdef uint32_t finish(self, uint32_t index, memory_conn_t *record, MemoryClient client) except? 0xFFFFFFFF
    cdef int end(self, uint32_t index, close_reason_t why) except -1
    cdef int drop(self, uint32_t index) except -1
