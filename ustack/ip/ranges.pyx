# SPDX-License-Identifier: MIT
"""Ranges of addresses. See ranges.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.posix cimport htonl, ntohl
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t


cdef int compare(const ip_addr_t *a, const ip_addr_t *b) noexcept nogil:
    """As numbers of 128 bits: negative, 0, positive."""
    cdef int word
    for word in range(4):
        if a.words_be[word] != b.words_be[word]:
            return -1 if ntohl(a.words_be[word]) < ntohl(b.words_be[word]) else 1
    return 0


cdef bint ranges_hold(const ip_range_t *ranges, uint32_t count, const ip_addr_t *address) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if compare(&ranges[i].first, address) <= 0 and compare(address, &ranges[i].last) <= 0:
            return True
    return False


cdef bint ranges_hold_v4(const ip_range_t *ranges, uint32_t count, uint32_t address_be) noexcept nogil:
    cdef ip_addr_t address
    ip_addr_set_v4(&address, address_be)
    return ranges_hold(ranges, count, &address)


cdef uint32_t size(const ip_range_t *one) noexcept nogil:
    """Of a range whose ends differ in their last 32 bits alone; else as many as can be said."""
    cdef int word
    cdef uint32_t more = ntohl(one.last.words_be[3]) - ntohl(one.first.words_be[3])
    for word in range(3):
        if one.first.words_be[word] != one.last.words_be[word]:
            return 0xFFFFFFFFu
    return more + 1 if more < 0xFFFFFFFFu else 0xFFFFFFFFu


cdef uint32_t ranges_size(const ip_range_t *ranges, uint32_t count) noexcept nogil:
    cdef uint64_t found = 0
    cdef uint32_t i
    for i in range(count):
        found += size(&ranges[i])
    return <uint32_t>found if found < 0xFFFFFFFFu else 0xFFFFFFFFu


cdef void ranges_nth(const ip_range_t *ranges, uint32_t count, uint32_t number, ip_addr_t *out) noexcept nogil:
    cdef uint32_t i = 0
    while i + 1 < count and number >= size(&ranges[i]):
        number -= size(&ranges[i])
        i += 1
    out[0] = ranges[i].first
    out.words_be[3] = htonl(ntohl(out.words_be[3]) + number)
