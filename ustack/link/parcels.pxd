# SPDX-License-Identifier: MIT
# Frames of simulated wires: allocated, reused, listed, in order of arrival, and what a device or a path does to one.
#
# A parcel has one owner at a time. It must not: know a wire, or read a clock. Above: simwire and sim_end, ustack/sim.
# Below: link's contract, buf, wire.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.prng cimport prng_t
from ustack.buf.frame cimport frame_t
from ustack.link.device cimport link_t, offload_t

ctypedef struct parcel_t:                   # one Ethernet frame; its bytes follow the record (parcel_data)
    parcel_t *next                          # in a list, or in pool.free
    uint64_t at_ns                          # when it arrives; in a queue of ustack/sim: when it came
    uint64_t order                          # breaks ties of at_ns: first sent, first delivered
    uint32_t capacity
    uint32_t length
    uint32_t wire_length                    # more than length: it is cut
    uint16_t gso_size
    uint8_t checksum                        # checksum_status_t

ctypedef struct parcels_t:                  # a first-in, first-out list
    parcel_t *first
    parcel_t *last

ctypedef struct parcel_pool_t:
    parcel_t *free
    uint64_t live                           # parcels with an owner

ctypedef struct arrivals_t:                 # a heap, the next to arrive on top
    parcel_t **heap
    uint32_t used
    uint32_t capacity

# Room for `length` bytes; NULL without memory.
cdef parcel_t *parcel_new(parcel_pool_t *pool, uint32_t length) noexcept nogil
cdef void parcel_free(parcel_pool_t *pool, parcel_t *parcel) noexcept nogil
cdef parcel_t *parcel_copy(parcel_pool_t *pool, parcel_t *parcel) noexcept nogil
cdef void parcels_free(parcel_pool_t *pool, parcels_t *list) noexcept nogil
# Frees what is kept for reuse.
cdef void pool_empty(parcel_pool_t *pool) noexcept nogil

# 0, or -1 without memory (the parcel is still the caller's).
cdef int arrivals_push(arrivals_t *arrivals, parcel_t *parcel) noexcept nogil
# The next one. There must be one.
cdef parcel_t *arrivals_pop(arrivals_t *arrivals) noexcept nogil
# Frees them all, and the heap.
cdef void arrivals_free(arrivals_t *arrivals, parcel_pool_t *pool) noexcept nogil

# A link's tx_reserve and tx_commit: *reserved is the slot. commit: NULL for a frame that the device does not take.
cdef uint8_t *parcel_reserve(parcel_pool_t *pool, parcel_t **reserved, link_t *link, uint32_t length) noexcept nogil
cdef parcel_t *parcel_commit(parcel_pool_t *pool, parcel_t **reserved, link_t *link, uint32_t length,
                             const offload_t *offload) noexcept nogil
# Set Congestion Experienced, where the sender's transport knows ECN. Whether it is set now.
cdef bint parcel_mark(parcel_t *parcel) noexcept nogil
# Damage it, if it has a bit.
cdef void parcel_flip_one_bit(parcel_t *parcel, prng_t *prng) noexcept nogil


cdef inline uint8_t *parcel_data(parcel_t *parcel) noexcept nogil:
    # Two bytes of padding put the IP header, 14 bytes further on, at a multiple of eight.
    return <uint8_t *>(parcel + 1) + 2


cdef inline bint arrives_before(const parcel_t *x, const parcel_t *y) noexcept nogil:
    return x.at_ns < y.at_ns or (x.at_ns == y.at_ns and x.order < y.order)


cdef inline void parcels_push(parcels_t *list, parcel_t *parcel) noexcept nogil:
    parcel.next = NULL
    if list.first == NULL:
        list.first = parcel
    else:
        list.last.next = parcel
    list.last = parcel


cdef inline parcel_t *parcels_pop(parcels_t *list) noexcept nogil:
    cdef parcel_t *parcel = list.first
    if parcel != NULL:
        list.first = parcel.next
        if list.first == NULL:
            list.last = NULL
    return parcel


# For rx_burst, which counts it.
cdef inline void parcel_lend(link_t *link, parcel_t *parcel, frame_t *out) noexcept nogil:
    out.data = parcel_data(parcel)
    out.length = parcel.length
    out.wire_length = parcel.wire_length
    out.gso_size = parcel.gso_size
    out.vlan_id = 0
    out.checksum = parcel.checksum
    parcel_received(link, parcel)


cdef inline void parcel_received(link_t *link, const parcel_t *parcel) noexcept nogil:
    link.counters.rx_frames += 1
    link.counters.rx_bytes += parcel.length
    if parcel.wire_length > parcel.length:
        link.counters.rx_truncated += 1
