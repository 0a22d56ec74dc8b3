# SPDX-License-Identifier: MIT
"""Frames of a simulated network. See parcels.pxd."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ustack.base.debug cimport IS_DEBUG, ensure
from ustack.buf.frame cimport CHECKSUM_UNKNOWN

cdef enum:
    SMALL_BYTES = 1536                      # parcels of this capacity are kept for reuse


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
    parcel.capacity = capacity
    parcel.length = length
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
