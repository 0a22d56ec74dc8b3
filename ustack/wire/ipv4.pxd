# SPDX-License-Identifier: MIT
# IPv4 headers: bytes to fields and back (RFC 791 section 3.1, checks of RFC 1122 section 3.2.1).
#
# It must not: know which addresses are ours, or trust any length. Neighbours: above, ip and arp; below, checksum,
# bytes, base. Addresses are 32-bit words in network order (`_be`) throughout.
#
#      0                   1                   2                   3
#      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
#     +-------+-------+---------------+-------------------------------+
#  0  |version|  IHL  |      TOS      |         total length          |
#  4  |         identification        |R D M|     fragment offset     |
#  8  |      TTL      |   protocol    |        header checksum        |
# 12  |                        source address                         |
# 16  |                      destination address                      |
# 20  |                options, then the transport header             |

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.counters cimport (
    DROP_IP_CHECKSUM, DROP_IP_HEADER_LENGTH, DROP_IP_TOTAL_LENGTH, DROP_IP_TRUNCATED, DROP_IP_VERSION)
from ustack.base.posix cimport htonl, ntohs
from ustack.wire.checksum cimport (
    checksum_add, checksum_emit, checksum_fold, checksum_partial, checksum_update16)
from ustack.wire.octets cimport read_u16, read_u16_be, read_u32_be, write_u16_be, write_u32_be

cdef enum:
    IPV4_HEADER_BYTES = 20               # without options
    IPV4_MAX_BYTES = 65535

cdef enum ipv4_ecn_t:                    # of ipv4_t.tos: RFC 3168 section 5
    IPV4_ECN_NOT = 0
    IPV4_ECN_ECT1 = 1
    IPV4_ECN_ECT0 = 2
    IPV4_ECN_CE = 3
    IPV4_ECN_MASK = 3

cdef enum ipv4_fragment_t:               # of ipv4_t.fragment
    IPV4_DONT_FRAGMENT = 0x4000
    IPV4_MORE_FRAGMENTS = 0x2000
    IPV4_FRAGMENT_OFFSET = 0x1FFF        # in units of 8 bytes

ctypedef struct ipv4_t:
    uint8_t header_length                # bytes, options included
    uint8_t tos
    uint8_t ttl
    uint8_t protocol
    uint16_t total_length                # bytes, header included
    uint16_t identification
    uint16_t fragment                    # flags and offset
    uint32_t src_be
    uint32_t dst_be

# As ipv4_parse for a packet quoted in an ICMP error: its end is cut off, and its header was rewritten on the way,
# so neither total length nor checksum is judged. 0, or DROP_ICMP_TRUNCATED.
cdef int ipv4_parse_quoted(const uint8_t *packet, uint32_t length, ipv4_t *out) noexcept nogil
# Walks the options of a parsed header. 0, or DROP_IP_OPTION: a length that does not fit, or a source route.
cdef int ipv4_check_options(const uint8_t *packet, uint32_t header_length) noexcept nogil


# Sum over a header without options, its checksum field included.
cdef inline uint32_t ipv4_header_sum(const uint8_t *header) noexcept nogil:
    cdef uint64_t sum = <uint64_t>read_u32_be(header) + read_u32_be(header + 4)
    sum += <uint64_t>read_u32_be(header + 8) + read_u32_be(header + 12)
    sum += read_u32_be(header + 16)
    return checksum_add(<uint32_t>sum, <uint32_t>(sum >> 32))


cdef inline void ipv4_read(const uint8_t *packet, ipv4_t *out) noexcept nogil:
    out.header_length = (packet[0] & 0xF) * 4
    out.tos = packet[1]
    out.total_length = read_u16(packet + 2)
    out.identification = read_u16(packet + 4)
    out.fragment = read_u16(packet + 6)
    out.ttl = packet[8]
    out.protocol = packet[9]
    out.src_be = read_u32_be(packet + 12)
    out.dst_be = read_u32_be(packet + 16)


# Checks version, header length, total length and header checksum, in this order. `length` may count padding.
# 0, or the counter_t to drop the packet under.
cdef inline int ipv4_parse(const uint8_t *packet, uint32_t length, ipv4_t *out) noexcept nogil:
    cdef uint32_t sum
    if length < IPV4_HEADER_BYTES:
        return DROP_IP_TRUNCATED
    if packet[0] >> 4 != 4:                                      # RFC 1122 section 3.2.1.1
        return DROP_IP_VERSION
    ipv4_read(packet, out)
    if out.header_length < IPV4_HEADER_BYTES:
        return DROP_IP_HEADER_LENGTH
    if out.header_length > length:
        return DROP_IP_TRUNCATED
    if out.total_length < out.header_length or out.total_length > length:
        return DROP_IP_TOTAL_LENGTH
    sum = ipv4_header_sum(packet)                                # RFC 1122 section 3.2.1.2
    if out.header_length > IPV4_HEADER_BYTES:
        sum = checksum_partial(packet + IPV4_HEADER_BYTES, out.header_length - IPV4_HEADER_BYTES, sum)
    if checksum_fold(sum) != 0xFFFF:
        return DROP_IP_CHECKSUM
    return 0


# Sum of the pseudo-header of TCP and UDP (RFC 9293 section 3.1). `length` is that of transport header and data.
cdef inline uint32_t ipv4_pseudo_sum(uint32_t src_be, uint32_t dst_be, uint8_t protocol,
                                     uint32_t length) noexcept nogil:
    cdef uint64_t sum = <uint64_t>src_be + dst_be + htonl(<uint32_t>protocol << 16 | length)
    return checksum_add(<uint32_t>sum, <uint32_t>(sum >> 32))


# Writes IPV4_HEADER_BYTES bytes, no options, for ipv4_finish; header_length is not looked at. Whole words are stored,
# because that loads them again soon: a load that spans narrower stores waits until they have left the store buffer.
cdef inline void ipv4_begin(uint8_t *out, const ipv4_t *fields) noexcept nogil:
    write_u32_be(out, htonl(<uint32_t>0x45000000 | <uint32_t>fields.tos << 16))
    write_u32_be(out + 4, htonl(fields.fragment))
    write_u32_be(out + 8, htonl(<uint32_t>fields.ttl << 24 | <uint32_t>fields.protocol << 16))
    write_u32_be(out + 12, fields.src_be)
    write_u32_be(out + 16, fields.dst_be)


# Writes what may be known only when the packet is complete: total length, identification, and the checksum over all.
cdef inline void ipv4_finish(uint8_t *out, uint16_t total_length, uint16_t identification) noexcept nogil:
    cdef uint32_t first = (read_u32_be(out) & htonl(0xFFFF0000U)) | htonl(total_length)
    cdef uint32_t second = (read_u32_be(out + 4) & htonl(0x0000FFFF)) | htonl(<uint32_t>identification << 16)
    cdef uint32_t third = read_u32_be(out + 8) & htonl(0xFFFF0000U)
    cdef uint64_t sum = <uint64_t>first + second + third + read_u32_be(out + 12) + read_u32_be(out + 16)
    write_u32_be(out, first)
    write_u32_be(out + 4, second)
    write_u32_be(out + 8, third | htonl(ntohs(checksum_emit(checksum_add(<uint32_t>sum, <uint32_t>(sum >> 32))))))


cdef inline void ipv4_emit(uint8_t *out, const ipv4_t *fields) noexcept nogil:
    ipv4_begin(out, fields)
    ipv4_finish(out, fields.total_length, fields.identification)


# Set Congestion Experienced in a header whose sender's transport knows ECN (RFC 3168 section 5). Whether it is set now.
cdef inline bint ipv4_mark(uint8_t *header) noexcept nogil:
    cdef uint16_t before
    if header[1] & IPV4_ECN_MASK == IPV4_ECN_NOT:
        return False
    before = read_u16_be(header)
    header[1] |= IPV4_ECN_CE
    write_u16_be(header + 10, checksum_update16(read_u16_be(header + 10), before, read_u16_be(header)))
    return True


# ---- kinds of addresses (RFC 1122 section 3.2.1.3)
cdef inline bint ipv4_is_multicast(uint32_t address_be) noexcept nogil:
    return address_be & htonl(0xF0000000U) == htonl(0xE0000000U)


cdef inline bint ipv4_is_broadcast(uint32_t address_be) noexcept nogil:
    return address_be == 0xFFFFFFFFU                 # limited broadcast; a subnet's needs its prefix


cdef inline bint ipv4_is_loopback(uint32_t address_be) noexcept nogil:
    return address_be & htonl(0xFF000000U) == htonl(0x7F000000)


cdef inline bint ipv4_is_this_network(uint32_t address_be) noexcept nogil:
    return address_be & htonl(0xFF000000U) == 0       # 0/8


cdef inline uint32_t ipv4_mask_be(uint8_t prefix_length) noexcept nogil:
    return htonl(<uint32_t>(0xFFFFFFFF00000000ULL >> prefix_length))
