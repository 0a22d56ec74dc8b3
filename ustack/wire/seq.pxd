# SPDX-License-Identifier: MIT
# Sequence numbers: comparison modulo 2^32.
#
# RFC 9293 section 3.4: the space is finite, so "before" means "less than half the circle behind" (the serial
# number arithmetic of RFC 1982 with SERIAL_BITS = 32). Two numbers exactly 2^31 apart have no order: here each
# is then less than the other, as RFC 1982 section 3.2 leaves undefined. No window can bring them about, because
# RFC 7323 section 2.3 bounds windows by 2^30; a hostile segment can, so never use these as a sort order.
#
# Never compare sequence numbers with < or >, and never subtract them into anything but seq_diff.
# The same serves whatever else is counted modulo 2^32: timestamps, ticks, bytes delivered.

from libc.stdint cimport int32_t, uint32_t


# How far `a` lies ahead of `b`; negative when it lies behind. Meaningful for distances under 2^31.
cdef inline int32_t seq_diff(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(a - b)


cdef inline bint seq_lt(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(a - b) < 0


cdef inline bint seq_le(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(b - a) >= 0


cdef inline bint seq_gt(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(b - a) < 0


cdef inline bint seq_ge(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(a - b) >= 0


cdef inline uint32_t seq_max(uint32_t a, uint32_t b) noexcept nogil:
    return b if <int32_t>(a - b) < 0 else a


cdef inline uint32_t seq_min(uint32_t a, uint32_t b) noexcept nogil:
    return a if <int32_t>(a - b) < 0 else b


# low =< seq < high around the circle, with no limit on the length of [low, high); empty when low == high.
# One subtraction a side: the offset from `low` is compared unsigned, so nothing overflows at the wrap.
cdef inline bint seq_between(uint32_t seq, uint32_t low, uint32_t high) noexcept nogil:
    return seq - low < high - low
