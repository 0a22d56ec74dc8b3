# SPDX-License-Identifier: MIT
# Ranges of addresses, of either family: which addresses are in them, and which one is the n-th.
#
# A row of ranges is sorted and does not overlap; who makes it sees to that (engine/addresses). Nothing here is on the
# path of a stack with one address.
#
# It must not: know whose addresses they are. Above: records, v4, layer. Below: base.

from libc.stdint cimport uint32_t

from ustack.base.types cimport ip_addr_t

cdef enum:
    IP_RANGES_MOST = 16

# Both ends included, of one family.
ctypedef struct ip_range_t:
    ip_addr_t first
    ip_addr_t last

# At most IP_RANGES_MOST comparisons.
cdef bint ranges_hold(const ip_range_t *ranges, uint32_t count, const ip_addr_t *address) noexcept nogil
cdef bint ranges_hold_v4(const ip_range_t *ranges, uint32_t count, uint32_t address_be) noexcept nogil
# Addresses in all of them; 0xFFFFFFFF for as many or more.
cdef uint32_t ranges_size(const ip_range_t *ranges, uint32_t count) noexcept nogil
# The address with so many before it; number < ranges_size.
cdef void ranges_nth(const ip_range_t *ranges, uint32_t count, uint32_t number, ip_addr_t *out) noexcept nogil
