# SPDX-License-Identifier: MIT
"""Packets on their way. The contract and the picture: store.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from ustack.base.debug cimport ensure, poison, unpoison

cdef enum:
    ALIGNMENT = 16


cdef inline size_t footprint(uint32_t length) noexcept nogil:
    return (sizeof(flight_t) + length + ALIGNMENT - 1) & ~<size_t>(ALIGNMENT - 1)


cdef int store_allocate(store_t *store, size_t size_bytes) noexcept nogil:
    memset(store, 0, sizeof(store_t))
    store.bytes = <uint8_t *>calloc(1, size_bytes)
    if store.bytes == NULL:
        return -1
    store.size_bytes = size_bytes
    poison(store.bytes, size_bytes)
    return 0


cdef void store_free(store_t *store) noexcept nogil:
    unpoison(store.bytes, store.size_bytes)
    free(store.bytes)
    memset(store, 0, sizeof(store_t))


cdef bint find_room(store_t *store, size_t needed) noexcept nogil:
    """True: there is room at the tail now."""
    if store.count == 0:
        store.head = store.tail = 0
        store.wrapped = False
    if store.wrapped:
        return needed <= store.head - store.tail
    if needed <= store.size_bytes - store.tail:
        return True
    if needed > store.head:
        return False
    store.wraps_at = store.tail
    store.tail = 0
    store.wrapped = True
    return True


cdef flight_t *store_append(store_t *store, uint32_t length, uint64_t due_ns) noexcept nogil:
    cdef size_t needed = footprint(length)
    cdef flight_t *flight
    cdef uint64_t used
    if not find_room(store, needed):
        return NULL
    flight = <flight_t *>(store.bytes + store.tail)
    unpoison(flight, sizeof(flight_t) + length)
    store.tail += needed
    store.count += 1
    store.latest_due_ns = max(store.latest_due_ns, due_ns)
    flight.due_ns = store.latest_due_ns
    flight.length = length
    flight.copies = 1
    used = store.tail - store.head if not store.wrapped else store.wraps_at - store.head + store.tail
    store.most_bytes = max(store.most_bytes, used)
    return flight


cdef void store_drop_first(store_t *store) noexcept nogil:
    cdef flight_t *flight = store_first(store)
    cdef size_t size = footprint(flight.length)
    ensure(store.count > 0)
    poison(flight, size)
    store.head += size
    store.count -= 1
    if store.wrapped and store.head == store.wraps_at:
        store.head = 0
        store.wrapped = False
