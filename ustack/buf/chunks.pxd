# SPDX-License-Identifier: MIT
# Memory for received bytes that really goes back to the kernel: chunks of one page (4096 bytes), and small chunks,
# eight to a page (512 bytes).
#
#     regions ──▶ 1 MiB each, mapped when first needed      a page is   whole     one chunk
#                                                                       split     up to eight small chunks
#                 free pages: warm (at hand)                            warm      free, its memory kept for the next
#                             cold (given back)                         cold      free, its memory given back
#
# malloc cannot promise this: its heap shrinks only from the top, so one long-lived piece above pins all that was freed
# below. Here every free page beyond a reserve (a mebibyte, and an eighth of what is in use) is given back by itself.
#
# A chunk is named by a handle: page << 4, and for a small one 8 | its eighth. 0 means "none". Chunks never move; their
# contents are not cleared. Not for several threads. The bound is on pages, so a page with one small chunk counts whole.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.ilist cimport ilist_hook_t, ilist_t

cdef enum:
    CHUNK_BYTES = 4096
    CHUNK_SHIFT = 12
    SMALL_CHUNK_BYTES = 512
    CHUNK_REGION_PAGES = 256
    CHUNK_REGION_SHIFT = 8
    CHUNK_IS_SMALL = 8                      # bit of a handle

ctypedef struct chunk_page_t:               # 12 bytes
    ilist_hook_t order                      # split, with room: in pool.split; free: only `next`, the next free page
    uint8_t eighths                         # small chunks in use, one bit each
    uint8_t state                           # which of the four, checked by debug builds

ctypedef struct chunk_region_t:
    uint8_t *memory
    chunk_page_t pages[256]

ctypedef struct chunk_pool_t:
    chunk_region_t **regions
    uint32_t region_count
    uint32_t limit_pages                    # most in use at once
    uint32_t pages_in_use
    uint32_t chunks_in_use                  # of both sizes
    uint32_t next_unused                    # pages never handed out so far start here; page 0 is never used
    uint32_t warm_head
    uint32_t warm_count
    uint32_t cold_head
    ilist_t split                           # pages with an eighth that is free, the latest first

cdef void chunk_pool_init(chunk_pool_t *pool, uint64_t limit_bytes) noexcept nogil     # rounded up to pages
cdef void chunk_pool_destroy(chunk_pool_t *pool) noexcept nogil
# A chunk of CHUNK_BYTES or SMALL_CHUNK_BYTES, not cleared; 0 at the limit or without memory.
cdef uint32_t chunk_alloc(chunk_pool_t *pool, bint small) noexcept nogil
cdef void chunk_release(chunk_pool_t *pool, uint32_t handle) noexcept nogil
# Several adjacent pages, zeroed, under the same limit: for tables that outgrow a chunk. NULL at the limit.
cdef void *chunk_map(chunk_pool_t *pool, uint32_t pages) noexcept nogil
cdef void chunk_unmap(chunk_pool_t *pool, void *memory, uint32_t pages) noexcept nogil


cdef inline uint8_t *chunk_at(const chunk_pool_t *pool, uint32_t handle) noexcept nogil:
    cdef uint32_t page = handle >> 4
    return (pool.regions[page >> CHUNK_REGION_SHIFT].memory
            + (((page & (CHUNK_REGION_PAGES - 1)) << CHUNK_SHIFT) + (handle & 7) * SMALL_CHUNK_BYTES))


cdef inline uint32_t chunk_bytes(uint32_t handle) noexcept nogil:
    return SMALL_CHUNK_BYTES if handle & CHUNK_IS_SMALL else CHUNK_BYTES


# Bytes that chunk_alloc can still hand out as pages.
cdef inline uint64_t chunk_free_bytes(const chunk_pool_t *pool) noexcept nogil:
    return <uint64_t>(pool.limit_pages - pool.pages_in_use) << CHUNK_SHIFT


cdef inline uint64_t chunk_held_bytes(const chunk_pool_t *pool) noexcept nogil:
    return <uint64_t>pool.pages_in_use << CHUNK_SHIFT
