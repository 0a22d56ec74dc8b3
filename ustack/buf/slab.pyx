# SPDX-License-Identifier: MIT
"""Fixed-size records addressed by a 32-bit index. The contract is in slab.pxd.

It must not know what a record means, and it is not for several threads.

    records ──▶ page 0   | unused | record 1 | record 2 | ...    256 KiB each: memory when first needed, given back at
                page 1   | record n | ...                        the end
                ...                                              addresses without memory, up to the limit

    freed records   free_head ──▶ record ──▶ record ──▶ 0        through their first four bytes, last in first out:
                                                                 the next one handed out is still in the cache

Addresses cost nothing: what is reserved is neither in memory nor counted against what the machine may promise
(PROT_NONE). So a lookup needs no table of pages, which every segment would go through a dozen times.

Debug builds keep one bit for each record, so that a double release is found exactly, and fill what was released with
0xDD. Under AddressSanitizer a record that is not in use is poisoned: a stale pointer is caught at its first use.
"""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from ustack.base.debug cimport IS_DEBUG, ensure, poison, unpoison
from ustack.base.posix cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, mmap, mprotect, munmap)


cdef enum:
    PAGE_BYTES = 256 * 1024
    PROTECTION_BYTES = 65536        # what a processor protects at once divides this
    POISON_GRAIN = 8                # AddressSanitizer tells eight bytes apart, not fewer


cdef inline size_t _page_bytes(const slab_t *slab) noexcept nogil:
    return <size_t>slab.record_bytes << slab.page_shift


cdef inline size_t _reserved_bytes(const slab_t *slab) noexcept nogil:
    return ((slab.reserved >> slab.page_shift) + <size_t>1) * _page_bytes(slab)


cdef inline size_t _bits_bytes(const slab_t *slab) noexcept nogil:
    return <size_t>slab.reserved // 8 + 1


cdef inline uint8_t *_record(const slab_t *slab, uint32_t index) noexcept nogil:
    # As slab_at, for records that are not in use.
    return slab.records + <size_t>index * slab.record_bytes


cdef void _mark(slab_t *slab, uint32_t index, bint used) noexcept nogil:
    """Debug only: flip the record's bit, which must have had the other value."""
    cdef uint8_t bit = <uint8_t>(1 << (index & 7))
    ensure(((slab.in_use_bits[index >> 3] & bit) == 0) == used)     # a double release, or a free list gone astray
    slab.in_use_bits[index >> 3] ^= bit


cdef inline uint8_t *_reserve(size_t size, int protection, int flags) noexcept nogil:
    cdef void *found = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0)
    return <uint8_t *>found if found != MAP_FAILED else NULL


cdef int _add_page(slab_t *slab) noexcept nogil:
    cdef size_t begin = slab.page_count * _page_bytes(slab)
    cdef size_t end = begin + _page_bytes(slab)
    begin -= begin % PROTECTION_BYTES       # a page may end within what is protected at once
    if mprotect(slab.records + begin, end - begin, PROT_READ | PROT_WRITE) != 0:
        return -1
    if slab.record_bytes >= POISON_GRAIN:
        poison(slab.records + slab.page_count * _page_bytes(slab), _page_bytes(slab))
    slab.page_count += 1
    return 0


cdef int slab_init(slab_t *slab, uint32_t record_bytes, uint32_t limit) noexcept nogil:
    memset(slab, 0, sizeof(slab_t))
    if record_bytes < 4 or (record_bytes % 64 != 0 and (record_bytes > 64 or 64 % record_bytes != 0)):
        return -1
    slab.record_bytes = record_bytes
    while (<size_t>record_bytes << (slab.page_shift + 1)) <= PAGE_BYTES:
        slab.page_shift += 1
    # Index 0 stands for "none", so one index fewer than 2^32 can be in use.
    slab.limit = limit if limit < UINT32_MAX else UINT32_MAX - 1
    slab.reserved = slab.limit
    slab.next_unused = 1
    slab.records = _reserve(_reserved_bytes(slab), PROT_NONE, 0)
    if slab.records == NULL:
        return -1
    if IS_DEBUG:
        slab.in_use_bits = _reserve(_bits_bytes(slab), PROT_READ | PROT_WRITE, MAP_NORESERVE)
        if slab.in_use_bits == NULL:
            slab_destroy(slab)
            return -1
    return 0


cdef void slab_destroy(slab_t *slab) noexcept nogil:
    if slab.records != NULL:
        unpoison(slab.records, slab.page_count * _page_bytes(slab))
        munmap(slab.records, _reserved_bytes(slab))
    if slab.in_use_bits != NULL:
        munmap(slab.in_use_bits, _bits_bytes(slab))
    memset(slab, 0, sizeof(slab_t))


cdef uint32_t slab_alloc(slab_t *slab) noexcept nogil:
    cdef uint32_t index = slab.free_head
    cdef uint8_t *record
    if slab.in_use >= slab.limit:
        return 0
    if index != 0:
        record = _record(slab, index)
        unpoison(record, slab.record_bytes)
        memcpy(&slab.free_head, record, sizeof(uint32_t))
        memset(record, 0, slab.record_bytes)
    else:
        index = slab.next_unused
        # Twice at the start when a page is one record: page 0 is then index 0's alone, and never touched.
        while (index >> slab.page_shift) >= slab.page_count:
            if _add_page(slab) != 0:
                return 0
        # Fresh pages are zero already; touching the record now would only bring it into memory early.
        unpoison(_record(slab, index), slab.record_bytes)
        slab.next_unused += 1
    if IS_DEBUG:
        _mark(slab, index, True)
    slab.in_use += 1
    return index


cdef int slab_back_more(slab_t *slab, uint32_t index) noexcept nogil:
    if index > slab.reserved:
        return -1
    while (index >> slab.page_shift) >= slab.page_count:
        if _add_page(slab) != 0:
            return -1
    while slab.next_unused <= index:
        unpoison(_record(slab, slab.next_unused), slab.record_bytes)
        slab.next_unused += 1
    return 0


cdef void slab_release_checked(slab_t *slab, uint32_t index) noexcept nogil:
    cdef uint8_t *record = _record(slab, index)
    ensure(index != 0)
    ensure(index < slab.next_unused)
    _mark(slab, index, False)
    memset(record, 0xDD, slab.record_bytes)
    memcpy(record, &slab.free_head, sizeof(uint32_t))
    if slab.record_bytes >= POISON_GRAIN:
        poison(record, slab.record_bytes)
    slab.free_head = index
    slab.in_use -= 1


# -- test shim

cdef class Slab:
    """A slab with its records readable and writable from Python. For tests."""

    cdef slab_t c

    def __cinit__(self, uint32_t record_bytes, uint32_t limit) -> None:
        if slab_init(&self.c, record_bytes, limit) != 0:
            raise ValueError(f"a slab has no records of {record_bytes} bytes")

    def __dealloc__(self) -> None:
        slab_destroy(&self.c)

    def alloc(self) -> int:
        """Index of a zeroed record, 0 at the limit."""
        return slab_alloc(&self.c)

    def release(self, uint32_t index) -> None:
        """Give a record back."""
        slab_release(&self.c, index)

    def address(self, uint32_t index) -> int:
        """Where the record lies in memory."""
        return <size_t>slab_at(&self.c, index)

    def read(self, uint32_t index) -> bytes:
        """The record's bytes."""
        return (<const uint8_t *>slab_at(&self.c, index))[:self.c.record_bytes]

    def fill(self, uint32_t index, uint8_t octet) -> None:
        """Overwrite the whole record."""
        memset(slab_at(&self.c, index), octet, self.c.record_bytes)

    @property
    def in_use(self) -> int:
        """Records handed out and not released."""
        return self.c.in_use

    @property
    def page_count(self) -> int:
        """Pages that have memory so far."""
        return self.c.page_count

    @property
    def records_per_page(self) -> int:
        """Records that share a page."""
        return 1 << self.c.page_shift

    @property
    def is_debug(self) -> bool:
        """Whether this build checks its callers."""
        return bool(IS_DEBUG)
