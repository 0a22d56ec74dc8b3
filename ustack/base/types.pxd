# SPDX-License-Identifier: MIT
# Types that every floor shares. Nothing here has behaviour.
#
# Widths are the C ones (uint32_t, ...), cimported from libc.stdint where they are used.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


# One address of either family, in network order. IPv4 is stored IPv4-mapped (::ffff:a.b.c.d, RFC 4291
# section 2.5.5.2), so a flow key, a route and a neighbour have one layout for both families.
ctypedef union ip_addr_t:
    uint8_t octets[16]
    uint32_t words_be[4]      # words_be[3] is the IPv4 address of a mapped one
    uint64_t halves_be[2]


cdef inline bint ip_addr_equal(const ip_addr_t *a, const ip_addr_t *b) noexcept nogil:
    return a.halves_be[0] == b.halves_be[0] and a.halves_be[1] == b.halves_be[1]


cdef inline void ip_addr_set_v4(ip_addr_t *out, uint32_t address_be) noexcept nogil:
    out.halves_be[0] = 0
    out.octets[8] = 0
    out.octets[9] = 0
    out.octets[10] = 0xFF
    out.octets[11] = 0xFF
    out.words_be[3] = address_be


cdef inline bint ip_addr_is_v4(const ip_addr_t *a) noexcept nogil:
    return (a.halves_be[0] == 0 and a.octets[8] == 0 and a.octets[9] == 0
            and a.octets[10] == 0xFF and a.octets[11] == 0xFF)
