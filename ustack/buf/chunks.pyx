# SPDX-License-Identifier: MIT
"""Chunks of a page and of an eighth of one, given back to the kernel when they are free. The contract is in chunks.pxd.

It must not know what a chunk holds. Under AddressSanitizer a chunk that is not in use is poisoned.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from ustack.base.debug cimport ensure, poison, unpoison
from ustack.base.ilist cimport ilist_hook_t, ilist_prepend, ilist_remove
from ustack.base.posix cimport (
    MADV_DONTNEED, MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, madvise, mmap,
    munmap)


cdef enum:
    WARM_PAGES = 256                        # free pages that are kept whatever happens
    WARM_SHIFT = 3                          # and one for each eight in use
    COOL_AT_ONCE = 2                        # pages given back for one that is released: the reserve shrinks as well
    EIGHTHS = 0xFF

cdef enum page_state_t:
    PAGE_WHOLE = 1
    PAGE_SPLIT
    PAGE_WARM
    PAGE_COLD


cdef inline chunk_page_t *page_of(const chunk_pool_t *pool, uint32_t page) noexcept nogil:
    return &pool.regions[page >> CHUNK_REGION_SHIFT].pages[page & (CHUNK_REGION_PAGES - 1)]


cdef inline ilist_hook_t *page_hook(const void *pool, uint32_t page) noexcept nogil:
    return &page_of(<const chunk_pool_t *>pool, page).order


cdef void chunk_pool_init(chunk_pool_t *pool, uint64_t limit_bytes) noexcept nogil:
    memset(pool, 0, sizeof(chunk_pool_t))
    pool.limit_pages = <uint32_t>((limit_bytes + CHUNK_BYTES - 1) >> CHUNK_SHIFT)
    pool.next_unused = 1


cdef void chunk_pool_destroy(chunk_pool_t *pool) noexcept nogil:
    cdef uint32_t i
    for i in range(pool.region_count):
        unpoison(pool.regions[i].memory, CHUNK_REGION_PAGES << CHUNK_SHIFT)
        munmap(pool.regions[i].memory, CHUNK_REGION_PAGES << CHUNK_SHIFT)
        free(pool.regions[i])
    free(pool.regions)
    memset(pool, 0, sizeof(chunk_pool_t))


cdef int add_region(chunk_pool_t *pool) noexcept nogil:
    cdef chunk_region_t *region
    cdef void *memory
    cdef void *grown
    if pool.region_count & (pool.region_count - 1) == 0:    # the array of pointers doubles; regions do not move
        grown = realloc(pool.regions, (<size_t>pool.region_count * 2 + 1) * sizeof(chunk_region_t *))
        if grown == NULL:
            return -1
        pool.regions = <chunk_region_t **>grown
    region = <chunk_region_t *>malloc(sizeof(chunk_region_t))
    if region == NULL:
        return -1
    memory = mmap(NULL, CHUNK_REGION_PAGES << CHUNK_SHIFT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if memory == MAP_FAILED:
        free(region)
        return -1
    madvise(memory, CHUNK_REGION_PAGES << CHUNK_SHIFT, MADV_NOHUGEPAGE)     # a page in use must not cost 2 MiB
    memset(region, 0, sizeof(chunk_region_t))
    region.memory = <uint8_t *>memory
    poison(memory, CHUNK_REGION_PAGES << CHUNK_SHIFT)
    pool.regions[pool.region_count] = region
    pool.region_count += 1
    return 0


# ---------------------------------------------------------------- pages

cdef uint32_t page_take(chunk_pool_t *pool) noexcept nogil:
    cdef uint32_t page
    if pool.pages_in_use >= pool.limit_pages:
        return 0
    if pool.warm_head:                      # the one released last: still in the cache
        page = pool.warm_head
        pool.warm_head = page_of(pool, page).order.next
        pool.warm_count -= 1
    elif pool.cold_head:
        page = pool.cold_head
        pool.cold_head = page_of(pool, page).order.next
    else:
        page = pool.next_unused
        if page >> CHUNK_REGION_SHIFT >= pool.region_count and add_region(pool) != 0:
            return 0
        pool.next_unused += 1
    pool.pages_in_use += 1
    return page


cdef void page_give(chunk_pool_t *pool, uint32_t page) noexcept nogil:
    cdef chunk_page_t *record = page_of(pool, page)
    cdef uint32_t cooled = 0
    poison(chunk_at(pool, page << 4), CHUNK_BYTES)
    pool.pages_in_use -= 1
    record.state = PAGE_WARM
    record.order.next = pool.warm_head
    pool.warm_head = page
    pool.warm_count += 1
    while pool.warm_count > WARM_PAGES + (pool.pages_in_use >> WARM_SHIFT) and cooled < COOL_AT_ONCE:
        page = pool.warm_head
        record = page_of(pool, page)
        pool.warm_head = record.order.next
        pool.warm_count -= 1
        madvise(chunk_at(pool, page << 4), CHUNK_BYTES, MADV_DONTNEED)
        record.state = PAGE_COLD
        record.order.next = pool.cold_head
        pool.cold_head = page
        cooled += 1


# ---------------------------------------------------------------- chunks

cdef uint32_t chunk_alloc(chunk_pool_t *pool, bint small) noexcept nogil:
    cdef uint32_t page, eighth = 0
    cdef chunk_page_t *record
    if not small:
        page = page_take(pool)
        if page == 0:
            return 0
        page_of(pool, page).state = PAGE_WHOLE
        unpoison(chunk_at(pool, page << 4), CHUNK_BYTES)
        pool.chunks_in_use += 1
        return page << 4
    page = pool.split.first
    if page == 0:
        page = page_take(pool)
        if page == 0:
            return 0
        record = page_of(pool, page)
        record.state = PAGE_SPLIT
        record.eighths = 0
        ilist_prepend(&pool.split, page_hook, pool, page)
    record = page_of(pool, page)
    while record.eighths >> eighth & 1:
        eighth += 1
    record.eighths |= <uint8_t>(1 << eighth)
    if record.eighths == EIGHTHS:
        ilist_remove(&pool.split, page_hook, pool, page)
    unpoison(chunk_at(pool, page << 4 | CHUNK_IS_SMALL | eighth), SMALL_CHUNK_BYTES)
    pool.chunks_in_use += 1
    return page << 4 | CHUNK_IS_SMALL | eighth


cdef void chunk_release(chunk_pool_t *pool, uint32_t handle) noexcept nogil:
    cdef uint32_t page = handle >> 4
    cdef chunk_page_t *record = page_of(pool, page)
    cdef uint8_t bit = <uint8_t>(1 << (handle & 7))
    ensure(page != 0 and page < pool.next_unused)
    pool.chunks_in_use -= 1
    if not handle & CHUNK_IS_SMALL:
        ensure(record.state == PAGE_WHOLE)
        page_give(pool, page)
        return
    ensure(record.state == PAGE_SPLIT)
    ensure(record.eighths & bit != 0)
    poison(chunk_at(pool, handle), SMALL_CHUNK_BYTES)
    if record.eighths == EIGHTHS:
        ilist_prepend(&pool.split, page_hook, pool, page)
    record.eighths &= ~bit
    if record.eighths == 0:
        ilist_remove(&pool.split, page_hook, pool, page)
        page_give(pool, page)


cdef void *chunk_map(chunk_pool_t *pool, uint32_t pages) noexcept nogil:
    cdef void *memory
    if pages > pool.limit_pages - pool.pages_in_use:
        return NULL
    memory = mmap(NULL, <size_t>pages << CHUNK_SHIFT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if memory == MAP_FAILED:
        return NULL
    pool.pages_in_use += pages
    pool.chunks_in_use += 1
    return memory


cdef void chunk_unmap(chunk_pool_t *pool, void *memory, uint32_t pages) noexcept nogil:
    munmap(memory, <size_t>pages << CHUNK_SHIFT)
    pool.pages_in_use -= pages
    pool.chunks_in_use -= 1


# -- test shim

cdef class ChunkPool:
    """A pool of chunks, its memory writable from Python. For tests.

    limit_bytes: most bytes of pages in use at once, rounded up to pages.
    """

    cdef chunk_pool_t c

    def __cinit__(self, uint64_t limit_bytes) -> None:
        chunk_pool_init(&self.c, limit_bytes)

    def __dealloc__(self) -> None:
        chunk_pool_destroy(&self.c)

    def alloc(self, *, bint small=False) -> int:
        """Handle of a chunk, 0 at the limit."""
        return chunk_alloc(&self.c, small)

    def release(self, uint32_t handle) -> None:
        """Give a chunk back."""
        chunk_release(&self.c, handle)

    def map(self, uint32_t pages) -> int:
        """Address of adjacent pages, 0 at the limit."""
        return <size_t>chunk_map(&self.c, pages)

    def unmap(self, size_t address, uint32_t pages) -> None:
        """Give adjacent pages back."""
        chunk_unmap(&self.c, <void *>address, pages)

    def fill(self, uint32_t handle, uint8_t octet) -> None:
        """Overwrite the whole chunk."""
        memset(chunk_at(&self.c, handle), octet, chunk_bytes(handle))

    def read(self, uint32_t handle) -> bytes:
        """The chunk's bytes."""
        return (<const uint8_t *>chunk_at(&self.c, handle))[:chunk_bytes(handle)]

    def address(self, uint32_t handle) -> int:
        """Where the chunk lies in memory."""
        return <size_t>chunk_at(&self.c, handle)

    @property
    def held_bytes(self) -> int:
        """Bytes of all pages in use."""
        return chunk_held_bytes(&self.c)

    @property
    def chunks_in_use(self) -> int:
        """Chunks handed out and not released."""
        return self.c.chunks_in_use

    @property
    def warm_pages(self) -> int:
        """Free pages whose memory is kept."""
        return self.c.warm_count

    @property
    def mapped_bytes(self) -> int:
        """Bytes of address space of all regions."""
        return <uint64_t>self.c.region_count * CHUNK_REGION_PAGES * CHUNK_BYTES
