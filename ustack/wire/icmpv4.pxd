# SPDX-License-Identifier: MIT
# ICMP for IPv4: bytes to fields and back (RFC 792, RFC 1122 section 3.2.2, RFC 1191 section 4 for the next-hop MTU).
#
# It must not: decide what is answered. Neighbours: above, ip; below, checksum, bytes, base.
#
#      0                   1                   2                   3
#      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
#     +---------------+---------------+-------------------------------+
#  0  |     type      |     code      |           checksum            |
#     +---------------+---------------+-------------------------------+
#  4  |    echo: identifier, sequence; 3/4: 0, next-hop MTU; else 0   |
#     +---------------------------------------------------------------+
#  8  |   echo: data; errors: the offending header and 8 bytes more  |

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.wire.octets cimport read_u16

cdef enum:
    ICMP_HEADER_BYTES = 8
    ICMP_QUOTED_TRANSPORT_BYTES = 8      # the least that an error quotes behind the IP header

cdef enum icmp_type_t:
    ICMP_ECHO_REPLY = 0
    ICMP_UNREACHABLE = 3
    ICMP_SOURCE_QUENCH = 4
    ICMP_ECHO_REQUEST = 8
    ICMP_TIME_EXCEEDED = 11
    ICMP_PARAMETER_PROBLEM = 12

cdef enum icmp_unreachable_code_t:
    ICMP_HOST_UNREACHABLE = 1
    ICMP_PROTOCOL_UNREACHABLE = 2
    ICMP_PORT_UNREACHABLE = 3
    ICMP_FRAGMENTATION_NEEDED = 4

ctypedef struct icmp_t:
    uint8_t type
    uint8_t code
    uint32_t rest_be                     # bytes 4 to 7

# Checks length and checksum. 0, or the counter_t to drop the packet under.
cdef int icmp_parse(const uint8_t *message, uint32_t length, icmp_t *out) noexcept nogil
# Writes ICMP_HEADER_BYTES bytes and the checksum over them and the `length` - 8 bytes that already follow.
cdef void icmp_emit(uint8_t *out, uint32_t length, const icmp_t *fields) noexcept nogil


# Of a 3/4 message: 0 if the router gave none (RFC 1191 section 4).
cdef inline uint16_t icmp_next_hop_mtu(const uint8_t *message) noexcept nogil:
    return read_u16(message + 6)
