# SPDX-License-Identifier: MIT
# One way of a link: a queue, a wire that takes one frame at a time, and what becomes of a frame on it.
#
#     hop_send ─▶ queue (drop-tail, CoDel, RED) ─▶ wire (rate, or a recorded rate trace) ─▶ lost? corrupted? twice?
#              ─▶ delay, jitter, lateness ─▶ hop_arrival
#
# It must not: know nodes, or read a clock. The same seed, settings and sends give the same arrivals. Above: nodes,
# pump. Below: queues, impairment.

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from ustack.link.parcels cimport parcel_pool_t, parcel_t
from ustack.sim.records cimport hop_t

# NULL without memory.
cdef hop_t *hop_new(uint64_t seed, uint32_t index, uint32_t begin, uint32_t end) noexcept nogil
cdef void hop_free(hop_t *hop, parcel_pool_t *pool) noexcept nogil
# Takes the parcel. It must fit (hop_fits).
cdef void hop_send(hop_t *hop, parcel_pool_t *pool, parcel_t *parcel, uint64_t now_ns) noexcept nogil
# Does what is due by now_ns; a frame that has arrived by then, NULL: no more.
cdef parcel_t *hop_arrival(hop_t *hop, parcel_pool_t *pool, uint64_t now_ns) noexcept nogil
# A setting (SETTINGS in hops.pyx) as hop_set and hop_schedule take it. Raises ValueError for bad ones.
cdef object hop_check(str name, object value)
# Settings by name: all of them before a frame moves; or one of them later. Raises MemoryError.
cdef int hop_set(hop_t *hop, parcel_pool_t *pool, dict checked, uint64_t now_ns) except -1
cdef int hop_schedule(hop_t *hop, uint64_t at_ns, str name, object value) except -1
# Frames that are lost, by their numbers from 1 as they leave for the wire.
cdef int hop_lose(hop_t *hop, list numbers) except -1
# A rate trace: [(ns since now_ns, bits per second)], ascending from 0.
cdef int hop_set_trace(hop_t *hop, parcel_pool_t *pool, list steps, uint64_t repeat_ns, uint64_t now_ns) except -1


cdef inline bint hop_fits(const hop_t *hop, const parcel_t *parcel) noexcept nogil:
    return hop.mtu == 0 or parcel.length <= hop.mtu + 14


cdef inline uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


# When hop_arrival next has something to do.
cdef inline uint64_t hop_next_ns(const hop_t *hop) noexcept nogil:
    cdef uint64_t next_ns = hop.served_ns
    if hop.in_order.first != NULL:
        next_ns = earlier(next_ns, hop.in_order.first.at_ns)
    if hop.late.used:
        next_ns = earlier(next_ns, hop.late.heap[0].at_ns)
    if hop.changes_at < hop.changes_count:
        next_ns = earlier(next_ns, hop.changes[hop.changes_at].at_ns)
    if hop.trace_at < hop.trace_count:
        next_ns = earlier(next_ns, hop.trace_base_ns + hop.trace[hop.trace_at].after_ns)
    return next_ns
