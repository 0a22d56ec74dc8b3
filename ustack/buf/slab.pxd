# SPDX-License-Identifier: MIT
# Fixed-size records addressed by a 32-bit index. Addresses are reserved for all of them at once, and memory comes page
# by page when it is first needed: a record is found by a multiplication, and a pointer stays valid as long as its
# record is in use. Index 0 is never handed out: it means "none".

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from ustack.base.debug cimport IS_DEBUG, ensure

cdef enum:
    SLAB_MOST = 1 << 28          # a limit for records that only memory, or what they hold, bounds

ctypedef struct slab_t:
    uint8_t *records             # record 0 would be here
    uint32_t record_bytes        # a multiple of 64, or a divisor of 64 that is at least 4
    uint32_t page_shift          # log2 of the records in a page
    uint32_t page_count          # pages that have memory: the first ones
    uint32_t limit               # most records in use at once
    uint32_t reserved            # the limit of slab_init: there are addresses for so many
    uint32_t in_use
    uint32_t next_unused         # records never handed out so far start here
    uint32_t free_head           # freed records, linked through their first four bytes
    uint8_t *in_use_bits         # debug builds: one for each record

# 0, or -1: bytes that cannot be, or no room for the addresses.
cdef int slab_init(slab_t *slab, uint32_t record_bytes, uint32_t limit) noexcept nogil
cdef void slab_destroy(slab_t *slab) noexcept nogil
cdef uint32_t slab_alloc(slab_t *slab) noexcept nogil      # index of a zeroed record; 0 at the limit or without memory
# A slab beside another whose records have the same indices: there is memory for `index`, which the other one has just
# handed out, with whatever it last held. 0, or -1 without memory. Nothing of it is ever released.
cdef int slab_back_more(slab_t *slab, uint32_t index) noexcept nogil
cdef void slab_release_checked(slab_t *slab, uint32_t index) noexcept nogil  # slab_release of debug builds

cdef inline void *slab_at(const slab_t *slab, uint32_t index) noexcept nogil:
    ensure(index != 0)
    ensure(index < slab.next_unused)
    return slab.records + <size_t>index * slab.record_bytes


# Like slab_alloc, but the record holds anything: for who writes every field, on a way that is taken for each request.
cdef inline uint32_t slab_take(slab_t *slab) noexcept nogil:
    cdef uint32_t index = slab.free_head
    if IS_DEBUG or index == 0 or slab.in_use >= slab.limit:
        return slab_alloc(slab)
    memcpy(&slab.free_head, slab_at(slab, index), sizeof(uint32_t))
    slab.in_use += 1
    return index


# slab_back_more where there is nothing to do, which is so once the index has been in use before.
cdef inline int slab_back(slab_t *slab, uint32_t index) noexcept nogil:
    return 0 if index < slab.next_unused else slab_back_more(slab, index)


# Debug builds abort on a double release.
cdef inline void slab_release(slab_t *slab, uint32_t index) noexcept nogil:
    if IS_DEBUG:
        slab_release_checked(slab, index)
        return
    memcpy(slab_at(slab, index), &slab.free_head, sizeof(uint32_t))
    slab.free_head = index
    slab.in_use -= 1
