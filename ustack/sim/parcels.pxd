# SPDX-License-Identifier: MIT
# Frames of a simulated network: allocated, reused, listed. Above: queues, hops, nodes. Below: records.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.sim.records cimport parcel_pool_t, parcel_t, parcels_t

# Room for `length` bytes; NULL without memory.
cdef parcel_t *parcel_new(parcel_pool_t *pool, uint32_t length) noexcept nogil
cdef void parcel_free(parcel_pool_t *pool, parcel_t *parcel) noexcept nogil
cdef parcel_t *parcel_copy(parcel_pool_t *pool, parcel_t *parcel) noexcept nogil
cdef void parcels_free(parcel_pool_t *pool, parcels_t *list) noexcept nogil
# Frees what is kept for reuse.
cdef void pool_empty(parcel_pool_t *pool) noexcept nogil


cdef inline uint8_t *parcel_data(parcel_t *parcel) noexcept nogil:
    # Two bytes of padding put the IP header, 14 bytes further on, at a multiple of eight.
    return <uint8_t *>(parcel + 1) + 2


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
