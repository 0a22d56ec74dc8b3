# SPDX-License-Identifier: MIT
"""Buffers that the kernel receives into. See buffers.pxd."""

from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from ustack.base.debug cimport ensure
from ustack.base.posix cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap)
from ustack.kernel.uring.abi cimport IORING_REGISTER_PBUF_RING, io_uring_buf, io_uring_buf_reg, ring_store_16
from ustack.kernel.uring.ring cimport ring_register, ring_t

cdef size_t MEMORY_BYTES = <size_t>BUFFERS_MOST * BUFFER_STRIDE
cdef size_t ENTRIES_BYTES = BUFFERS_MOST * sizeof(io_uring_buf)


cdef inline void *pages(size_t size) noexcept nogil:
    cdef void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return found if found != MAP_FAILED else NULL


cdef int buffers_begin(buffers_t *buffers) noexcept nogil:
    memset(buffers, 0, sizeof(buffers_t))
    buffers.memory = <uint8_t *>pages(MEMORY_BYTES)         # a page when its buffer is first used
    buffers.taken = <uint8_t *>calloc(BUFFERS_MOST, 1)
    buffers.provided = BUFFERS_FIRST
    if buffers.memory == NULL or buffers.taken == NULL:
        buffers_end(buffers)
        return -ENOMEM
    return 0


cdef int buffers_register(buffers_t *buffers, ring_t *ring) noexcept nogil:
    cdef io_uring_buf_reg registered
    cdef void *entries = pages(ENTRIES_BYTES)
    cdef uint32_t number
    cdef int failed
    if entries == NULL:
        return -ENOMEM
    memset(&registered, 0, sizeof(registered))
    registered.ring_addr = <uint64_t>entries
    registered.ring_entries = BUFFERS_MOST
    registered.bgid = BUFFERS_GROUP
    failed = ring_register(ring, IORING_REGISTER_PBUF_RING, &registered, 1)
    if failed < 0:
        munmap(entries, ENTRIES_BYTES)
        return failed
    if buffers.entries != NULL:             # of a ring that is closed: the kernel keeps its pages as long as it must
        munmap(buffers.entries, ENTRIES_BYTES)
    buffers.entries = <io_uring_buf *>entries
    buffers.tail = 0
    for number in range(buffers.provided):
        if not buffers.taken[number]:
            put(buffers, number)
    return 0


cdef void buffers_end(buffers_t *buffers) noexcept nogil:
    if buffers.entries != NULL:
        munmap(buffers.entries, ENTRIES_BYTES)
    if buffers.memory != NULL:
        munmap(buffers.memory, MEMORY_BYTES)
    free(buffers.taken)
    memset(buffers, 0, sizeof(buffers_t))


cdef void put(buffers_t *buffers, uint32_t number) noexcept nogil:
    cdef io_uring_buf *entry = &buffers.entries[buffers.tail & (BUFFERS_MOST - 1)]
    entry.addr = <uint64_t>buffer_at(buffers, number)
    entry.len = BUFFER_BYTES
    entry.bid = <uint16_t>number            # not resv: in the first entry that is the ring's tail
    buffers.tail += 1
    ring_store_16(&buffers.entries[0].resv, buffers.tail)


cdef void buffers_take(buffers_t *buffers, uint32_t number) noexcept nogil:
    ensure(number < buffers.provided and not buffers.taken[number])
    buffers.taken[number] = 1
    buffers.taken_count += 1


cdef void buffers_return(buffers_t *buffers, uint32_t number) noexcept nogil:
    ensure(buffers.taken[number])
    buffers.taken[number] = 0
    buffers.taken_count -= 1
    put(buffers, number)


cdef void buffers_grow(buffers_t *buffers) noexcept nogil:
    cdef uint32_t wanted = 2 * buffers.provided
    while buffers.provided < wanted and buffers.provided < BUFFERS_MOST:
        put(buffers, buffers.provided)
        buffers.provided += 1
