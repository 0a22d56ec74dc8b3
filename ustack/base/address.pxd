# SPDX-License-Identifier: MIT
# Addresses as text, both ways. For the Python face and for observers, never for the data path.
#
# Sources: RFC 6943 section 3.1.1 (one strict form of IPv4 text), which the standard library's ipaddress keeps to.
# Neighbours: above, stack and testing; below, base.

from ustack.base.types cimport ip_addr_t

# Writes the address that `text` spells. Raises ValueError for anything else (host names, prefixes, IPv6).
cdef int ip_addr_from_text(str text, ip_addr_t *out) except -1
# Same for "198.18.0.2/24"; *prefix_length is 32 without a slash.
cdef int ip_interface_from_text(str text, ip_addr_t *out, int *prefix_length) except -1
cdef str ip_addr_text(const ip_addr_t *a)
