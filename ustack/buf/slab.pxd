# SPDX-License-Identifier: MIT
# Fixed-size records addressed by a 32-bit index. Pages are mapped when they are first needed and never
# move, so a pointer stays valid as long as its record is in use. Index 0 is never handed out: it means "none".

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from ustack.base.debug cimport IS_DEBUG, ensure

ctypedef struct slab_t:
    uint8_t **pages
    uint32_t record_bytes        # a multiple of 64, or a divisor of 64 that is at least 4
    uint32_t page_shift          # log2 of the records in a page
    uint32_t page_count
    uint32_t limit               # most records in use at once
    uint32_t in_use
    uint32_t next_unused         # records never handed out so far start here
    uint32_t free_head           # freed records, linked through their first four bytes

cdef int slab_init(slab_t *slab, uint32_t record_bytes, uint32_t limit) noexcept nogil   # 0, or -1
cdef void slab_destroy(slab_t *slab) noexcept nogil
cdef uint32_t slab_alloc(slab_t *slab) noexcept nogil      # index of a zeroed record; 0 at the limit or without memory
cdef void slab_release(slab_t *slab, uint32_t index) noexcept nogil   # debug builds abort on a double release

cdef inline void *slab_at(const slab_t *slab, uint32_t index) noexcept nogil:
    ensure(index != 0)
    ensure(index < slab.next_unused)
    return <void *>(slab.pages[index >> slab.page_shift]
                    + <size_t>(index & ((1u << slab.page_shift) - 1)) * slab.record_bytes)


# Like slab_alloc, but the record holds anything: for who writes every field, on a way that is taken for each request.
cdef inline uint32_t slab_take(slab_t *slab) noexcept nogil:
    cdef uint32_t index = slab.free_head
    if IS_DEBUG or index == 0 or slab.in_use >= slab.limit:
        return slab_alloc(slab)
    memcpy(&slab.free_head, slab_at(slab, index), sizeof(uint32_t))
    slab.in_use += 1
    return index
