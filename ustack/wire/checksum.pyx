# SPDX-License-Identifier: MIT
"""The Internet checksum (RFC 1071). The contract, and how to verify and emit, is in checksum.pxd.

It must not know what it sums: pseudo-headers are the business of the protocol that has one.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef uint32_t checksum_partial(const uint8_t *data, size_t length, uint32_t sum) noexcept nogil:
    # 32-bit words into 64-bit accumulators: carries gather in the upper half, where they are folded once at the
    # end (2^32 and 2^16 are both 1 modulo 0xFFFF, RFC 1071 section 2, C). Sixteen words a turn in a fixed inner
    # loop is what compilers turn into vector code without any intrinsic.
    cdef uint64_t lanes[16]
    cdef uint64_t total = sum
    cdef uint32_t words[16]
    cdef uint32_t word
    cdef uint16_t tail
    cdef int i
    if length >= 64:
        for i in range(16):
            lanes[i] = 0
        while length >= 64:
            memcpy(words, data, 64)
            for i in range(16):
                lanes[i] += words[i]
            data += 64
            length -= 64
        for i in range(16):
            total += lanes[i]
    while length >= 4:
        memcpy(&word, data, 4)
        total += word
        data += 4
        length -= 4
    if length >= 2:
        memcpy(&tail, data, 2)
        total += tail
        data += 2
        length -= 2
    if length:
        tail = 0
        memcpy(&tail, data, 1)              # the byte lies first in its word, whatever the byte order
        total += tail
    total = <uint32_t>total + (total >> 32)
    return <uint32_t>(total + (total >> 32))


# -- test shims

def partial(const uint8_t[::1] data not None, uint32_t sum=0) -> int:
    """checksum_partial over a buffer."""
    return checksum_partial(&data[0] if data.shape[0] else NULL, <size_t>data.shape[0], sum)


def add(uint32_t sum, uint32_t more) -> int:
    """checksum_add."""
    return checksum_add(sum, more)


def fold(uint32_t sum) -> int:
    """checksum_fold."""
    return checksum_fold(sum)


def emit(uint32_t sum) -> int:
    """checksum_emit."""
    return checksum_emit(sum)


def update16(uint16_t old, uint16_t before, uint16_t after) -> int:
    """checksum_update16."""
    return checksum_update16(old, before, after)
