# SPDX-License-Identifier: MIT
# A client's end of a connection in memory. Body: client.pyx.
#
# The test writes what it sends and wants; a turn (turns.pyx) takes it, writes what came and how it ended.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.application cimport Transport


cdef class MemoryClient:
    cdef readonly Transport transport
    cdef readonly uint32_t number
    cdef readonly uint16_t port                 # the client's own
    cdef public uint64_t window_bytes
    cdef public uint32_t segment_bytes
    cdef readonly bytearray received
    cdef object segments                        # deque: what was sent and has not arrived yet
    cdef bint fin_sent
    cdef bint fin_received
    cdef bint wants_reset
    cdef bint gone                              # on_closed has been called, or nobody took it
    cdef object failure                         # exception: how the connection ended, None: it has not
    cdef int raise_failure(self) except -1
