# SPDX-License-Identifier: MIT
"""Frames of simulated wires. See parcels.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from ustack.base.debug cimport IS_DEBUG, ensure
from ustack.base.prng cimport prng_below
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN
from ustack.link.device cimport device_accepts
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4
from ustack.wire.ipv4 cimport IPV4_HEADER_BYTES, ipv4_mark
from ustack.wire.octets cimport read_u16

cdef enum:
    SMALL_BYTES = 1536                      # parcels of this capacity are kept for reuse
    HEAP_MIN = 64


# ---------------------------------------------------------------- memory
cdef parcel_t *parcel_new(parcel_pool_t *pool, uint32_t length) noexcept nogil:
    cdef uint32_t capacity = length if length > SMALL_BYTES else SMALL_BYTES
    cdef parcel_t *parcel
    if IS_DEBUG:
        capacity = length                   # exact, and never reused: the address sanitizer sees every overrun
    if not IS_DEBUG and capacity == SMALL_BYTES and pool.free != NULL:
        parcel = pool.free
        pool.free = parcel.next
    else:
        parcel = <parcel_t *>malloc(sizeof(parcel_t) + 2 + capacity)
        if parcel == NULL:
            return NULL
    parcel.next = NULL
    parcel.at_ns = 0
    parcel.order = 0
    parcel.capacity = capacity
    parcel.length = length
    parcel.wire_length = length
    parcel.gso_size = 0
    parcel.checksum = CHECKSUM_UNKNOWN
    pool.live += 1
    return parcel


cdef void parcel_free(parcel_pool_t *pool, parcel_t *parcel) noexcept nogil:
    ensure(pool.live > 0)
    pool.live -= 1
    if IS_DEBUG or parcel.capacity != SMALL_BYTES:
        free(parcel)
        return
    parcel.next = pool.free
    pool.free = parcel


cdef parcel_t *parcel_copy(parcel_pool_t *pool, parcel_t *parcel) noexcept nogil:
    cdef parcel_t *twin = parcel_new(pool, parcel.length)
    if twin != NULL:
        memcpy(parcel_data(twin), parcel_data(parcel), parcel.length)
        twin.wire_length = parcel.wire_length
        twin.gso_size = parcel.gso_size
        twin.checksum = parcel.checksum
    return twin


cdef void parcels_free(parcel_pool_t *pool, parcels_t *list) noexcept nogil:
    cdef parcel_t *parcel = parcels_pop(list)
    while parcel != NULL:
        parcel_free(pool, parcel)
        parcel = parcels_pop(list)


cdef void pool_empty(parcel_pool_t *pool) noexcept nogil:
    cdef parcel_t *parcel
    while pool.free != NULL:
        parcel = pool.free
        pool.free = parcel.next
        free(parcel)


# ---------------------------------------------------------------- in order of arrival
cdef int arrivals_push(arrivals_t *arrivals, parcel_t *parcel) noexcept nogil:
    cdef uint32_t capacity, child, parent
    cdef parcel_t **grown
    if arrivals.used == arrivals.capacity:
        capacity = arrivals.capacity * 2 if arrivals.capacity else HEAP_MIN
        grown = <parcel_t **>realloc(arrivals.heap, capacity * sizeof(parcel_t *))
        if grown == NULL:
            return -1
        arrivals.heap = grown
        arrivals.capacity = capacity
    child = arrivals.used
    arrivals.used += 1
    while child > 0:
        parent = (child - 1) // 2
        if not arrives_before(parcel, arrivals.heap[parent]):
            break
        arrivals.heap[child] = arrivals.heap[parent]
        child = parent
    arrivals.heap[child] = parcel
    return 0


cdef parcel_t *arrivals_pop(arrivals_t *arrivals) noexcept nogil:
    cdef parcel_t *top = arrivals.heap[0]
    cdef parcel_t *last
    cdef uint32_t parent = 0
    cdef uint32_t child
    arrivals.used -= 1
    last = arrivals.heap[arrivals.used]
    while True:
        child = 2 * parent + 1
        if child >= arrivals.used:
            break
        if child + 1 < arrivals.used and arrives_before(arrivals.heap[child + 1], arrivals.heap[child]):
            child += 1
        if not arrives_before(arrivals.heap[child], last):
            break
        arrivals.heap[parent] = arrivals.heap[child]
        parent = child
    arrivals.heap[parent] = last
    return top


cdef void arrivals_free(arrivals_t *arrivals, parcel_pool_t *pool) noexcept nogil:
    while arrivals.used:
        parcel_free(pool, arrivals_pop(arrivals))
    free(arrivals.heap)
    arrivals.heap = NULL
    arrivals.capacity = 0


# ---------------------------------------------------------------- a device's slot
cdef uint8_t *parcel_reserve(parcel_pool_t *pool, parcel_t **reserved, link_t *link, uint32_t length) noexcept nogil:
    ensure(length <= link.caps.max_frame)
    if length > link.caps.max_frame:
        return NULL
    if reserved[0] != NULL:
        if reserved[0].capacity >= length:
            reserved[0].length = length
            return parcel_data(reserved[0])
        parcel_free(pool, reserved[0])
    reserved[0] = parcel_new(pool, length)
    return parcel_data(reserved[0]) if reserved[0] != NULL else NULL


cdef parcel_t *parcel_commit(parcel_pool_t *pool, parcel_t **reserved, link_t *link, uint32_t length,
                             const offload_t *offload) noexcept nogil:
    cdef parcel_t *parcel = reserved[0]
    ensure(parcel != NULL and length <= parcel.length)
    if parcel == NULL or length > parcel.length:
        return NULL
    reserved[0] = NULL
    if not device_accepts(&link.caps, length, offload):
        link.counters.tx_dropped += 1
        parcel_free(pool, parcel)
        return NULL
    parcel.length = length
    parcel.wire_length = length
    parcel.gso_size = offload.gso_size
    parcel.checksum = CHECKSUM_PARTIAL if offload.csum_start != 0 else CHECKSUM_UNKNOWN
    return parcel


# ---------------------------------------------------------------- on the path
cdef bint parcel_mark(parcel_t *parcel) noexcept nogil:
    cdef uint8_t *data = parcel_data(parcel)
    if (parcel.length < ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES or read_u16(data + 12) != ETHERTYPE_IPV4
            or data[ETHERNET_HEADER_BYTES] >> 4 != 4):
        return False
    return ipv4_mark(data + ETHERNET_HEADER_BYTES)


cdef void parcel_flip_one_bit(parcel_t *parcel, prng_t *prng) noexcept nogil:
    cdef uint32_t bit
    if parcel.length == 0:
        return
    bit = prng_below(prng, parcel.length * 8)
    parcel_data(parcel)[bit >> 3] ^= <uint8_t>(1 << (bit & 7))
    # What an earlier device said about the checksum is no longer true. A partial one can only fail now: no receiver
    # takes damaged bytes for good ones.
    parcel.checksum = CHECKSUM_UNKNOWN
