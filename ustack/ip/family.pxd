# SPDX-License-Identifier: MIT
# What a transport must know of an address's family, in numbers: so that none of them is written down above this floor.
#
# Below: wire, base. Above: layer, tcp.

from libc.stdint cimport uint32_t

from ustack.base.types cimport ip_addr_is_v4, ip_addr_t
from ustack.wire.ipv4 cimport IPV4_HEADER_BYTES

cdef enum:
    IPV6_HEADER_BYTES = 40                  # RFC 8200 section 3, without extension headers
    IPV4_DEFAULT_PACKET_BYTES = 576         # RFC 1122 section 3.3.3
    IPV6_DEFAULT_PACKET_BYTES = 1280        # RFC 8200 section 5


# Of a packet to `address`, as this stack sends them: no options, no extension headers.
cdef inline uint32_t ip_header_bytes(const ip_addr_t *address) noexcept nogil:
    return IPV4_HEADER_BYTES if ip_addr_is_v4(address) else IPV6_HEADER_BYTES


# The packet that may be sent to a host which has said nothing about its size.
cdef inline uint32_t ip_default_packet_bytes(const ip_addr_t *address) noexcept nogil:
    return IPV4_DEFAULT_PACKET_BYTES if ip_addr_is_v4(address) else IPV6_DEFAULT_PACKET_BYTES
