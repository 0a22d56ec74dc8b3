# SPDX-License-Identifier: MIT
# Who is traced, and the rings that their records go to.
#
#     tcp.trace ──▶ tracing_t ── traced_t, by the tcb's index ──┬──▶ trace_ring_t ◀── a reader (engine/trace)
#                      └─ everybody: whoever opens from now on ──┘      written ─▶ ... ◀─ read
#
# A ring has one writer, the stack, and one reader, never at work at once (the gate), so it needs neither lock nor
# barrier. It has the latest records: a new one takes the place of the oldest, and the reader learns how many it has not
# seen (missed). The latest tell why something has come to an end, and the writer never asks how far the reader is.
#
# A reader that writes them out from where they are, in a thread of its own, has the ring lend them (trace_lend).
# From then on it is the new record that gives way in a full ring, and what waits stays as it is until it is taken back.
#
# A ring may have many connections: one for each of a server's thousands would be thousands that are mostly empty, and
# one for all has what happened in its order. Who wants one connection, whatever others do, has a ring for that one.
#
# tracing_t exists while somebody is traced or awaited; else tcp.trace is NULL. Connections are found by index in a
# table of their own, because tcb_t has no bit left and most are never traced; who closes leaves it, so that the next
# one with the same index is another.
#
# Numbers of a connection are told relative to ISS and IRS. Who is traced from later than its handshake has, in their
# place, the number before the first that is not acknowledged then, and the number before RCV.NXT.
#
# It must not: change what it looks at. Below: records, rtt. Above: engine.

from libc.stdint cimport uint32_t, uint64_t

from ustack.application cimport endpoints_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t, trace_t
from ustack.tcp.records.trace cimport trace_record_t

cdef enum:
    TRACE_RECORDS_MIN = 64                  # of a ring: a page
    TRACE_RECORDS_MAX = 1 << 26             # 4 GiB
    TRACE_CONNECTIONS_MAX = 1 << 20         # of a ring, in all

# What a ring knows of a connection that is, or was, traced into it.
ctypedef struct trace_connection_t:         # one cache line
    endpoints_t key                         # 0
    uint32_t snd_base                       # 36  sequence number 0 of the records
    uint32_t rcv_base                       # 40
    uint32_t active                         # 44  opened by us
    uint64_t began_ns                       # 48
    uint32_t smss                           # 56  as it was then
    uint32_t cc                             # 60  number of its congestion control

ctypedef struct trace_ring_t:
    trace_record_t *records
    trace_connection_t *connections         # [number - 1]
    uint64_t written                        # so many have been, in all. writer: tracing
    uint64_t read                           # ... are behind the reader. writer: its owner (trace_take)
    uint64_t missed                         # of these it has not seen; and those that found no room
    uint64_t full                           # `written` when there is no room: UINT64_MAX: the oldest gives way
    uint32_t capacity                       # a power of two
    uint32_t known                          # connections that have been, or are, traced into it
    uint32_t most                           # ... at most
    uint32_t users                          # ... now; and one more for `everybody`
    trace_record_t nowhere                  # where a record is written that finds no room

ctypedef struct traced_t:
    trace_ring_t *ring
    uint32_t index                          # of the tcb; 0: an empty slot
    uint32_t number                         # in the ring
    uint32_t snd_base
    uint32_t rcv_base                       # valid once there is an IRS
    uint32_t knows_irs

ctypedef struct tracing_t:
    trace_t table                           # first: tcp.trace points to it
    trace_ring_t *everybody                 # who opens is traced into it, as far as it has room; NULL: nobody is
    traced_t *slots                         # open addressing, at most half full
    uint32_t mask
    uint32_t used

# capacity: records, rounded up to a power of two. most: connections. 0, or -1: no memory.
cdef int trace_ring_init(trace_ring_t *ring, uint32_t capacity, uint32_t most) noexcept nogil
# Nobody may be traced into it any more.
cdef void trace_ring_free(trace_ring_t *ring) noexcept nogil
# Records that wait for the reader: those that have not been displaced. Counts those that have.
cdef uint64_t trace_waiting(trace_ring_t *ring) noexcept nogil
# Copy the oldest `most` of those that wait, which they go on doing. How many.
cdef uint64_t trace_peek(trace_ring_t *ring, trace_record_t *out, uint64_t most) noexcept nogil
# Keep the records that wait where they are, until trace_leave_behind: a new one that finds no room is counted as missed
# from now on. How many.
cdef uint64_t trace_lend(trace_ring_t *ring) noexcept nogil
# The oldest `count` of those that wait are behind the reader.
cdef void trace_leave_behind(trace_ring_t *ring, uint64_t count) noexcept nogil

# Trace a connection from now on: its number in the ring. 0: it is traced already, the ring has had its `most`, or there
# is no memory. ring: until its `users` are none.
cdef uint32_t trace_begin(tcp_t *tcp, const tcb_t *tcb, trace_ring_t *ring) noexcept nogil
# No more, without a record of it. Whether it was traced.
cdef bint trace_end(tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# Trace whoever opens from now on. 0, or -1: another ring has them already, or no memory.
cdef int trace_everybody(tcp_t *tcp, trace_ring_t *ring) noexcept nogil
# Nobody writes into this ring any more, from now on.
cdef void trace_ring_stop(tcp_t *tcp, trace_ring_t *ring) noexcept nogil
# Nobody writes anywhere any more: TCP ends.
cdef void tracing_end(tcp_t *tcp) noexcept nogil
