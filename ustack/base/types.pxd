# SPDX-License-Identifier: MIT
# Types that every floor shares. Nothing here has behaviour.
#
# Widths are the C ones (uint32_t, ...), cimported from libc.stdint where they are used.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset


# One address of either family, in network order. IPv4 is stored IPv4-mapped (::ffff:a.b.c.d, RFC 4291
# section 2.5.5.2), so a flow key, a route and a neighbour have one layout for both families.
ctypedef union ip_addr_t:
    uint8_t octets[16]
    uint32_t words_be[4]      # words_be[3] is the IPv4 address of a mapped one; four-byte alignment keeps keys dense


# Half an address in one load, for comparing and hashing. half: 0 or 1.
cdef inline uint64_t ip_addr_half(const ip_addr_t *a, int half) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, &a.octets[8 * half], 8)
    return value


cdef inline bint ip_addr_equal(const ip_addr_t *a, const ip_addr_t *b) noexcept nogil:
    return ip_addr_half(a, 0) == ip_addr_half(b, 0) and ip_addr_half(a, 1) == ip_addr_half(b, 1)


cdef inline bint ip_addr_is_any(const ip_addr_t *a) noexcept nogil:
    return (ip_addr_half(a, 0) | ip_addr_half(a, 1)) == 0


cdef inline void ip_addr_set_v4(ip_addr_t *out, uint32_t address_be) noexcept nogil:
    memset(out, 0, 10)
    out.octets[10] = 0xFF
    out.octets[11] = 0xFF
    out.words_be[3] = address_be


cdef inline bint ip_addr_is_v4(const ip_addr_t *a) noexcept nogil:
    return (ip_addr_half(a, 0) == 0 and a.octets[8] == 0 and a.octets[9] == 0
            and a.octets[10] == 0xFF and a.octets[11] == 0xFF)


# A time, or a span of it, in 32 bits: records keep it so where it need not be longer than it takes to wrap (71 minutes,
# 49 days); compare with seq_* (wire/seq).
cdef inline uint32_t us_of(uint64_t ns) noexcept nogil:
    return <uint32_t>(ns // 1000)


cdef inline uint32_t ms_of(uint64_t ns) noexcept nogil:
    return <uint32_t>(ns // 1000000)
