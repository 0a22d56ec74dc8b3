# SPDX-License-Identifier: MIT
# Fields of a header at any alignment: host-order values from network-order bytes and back. Each is one load or
# store after compilation. It checks no length: that is its caller's work, once for a whole header.
#
# Neighbours: above, the files of wire/ that parse and emit; below, nothing.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from ustack.base.posix cimport htonl, htons, ntohl, ntohs


cdef inline uint16_t read_u16(const uint8_t *at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return ntohs(value)


cdef inline uint32_t read_u32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return ntohl(value)


cdef inline uint32_t read_u32_be(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline uint16_t read_u16_be(const uint8_t *at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return value


cdef inline void write_u16(uint8_t *at, uint16_t value) noexcept nogil:
    cdef uint16_t be = htons(value)
    memcpy(at, &be, 2)


cdef inline void write_u32(uint8_t *at, uint32_t value) noexcept nogil:
    cdef uint32_t be = htonl(value)
    memcpy(at, &be, 4)


cdef inline void write_u16_be(uint8_t *at, uint16_t value) noexcept nogil:
    memcpy(at, &value, 2)


cdef inline void write_u32_be(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)
