# SPDX-License-Identifier: MIT
"""The packets of one frame. The contract: packets.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from ustack.base.debug cimport ensure
from ustack.base.posix cimport htonl
from ustack.buf.frame cimport CHECKSUM_PARTIAL, frame_t
from ustack.link.device cimport offload_t
from ustack.wire.checksum cimport checksum_add, checksum_emit, checksum_fold, checksum_partial
from ustack.wire.ethernet cimport (
    ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_VLAN, MAC_BYTES, VLAN_TAG_BYTES, VLAN_TAGS_MAX, ethertype_is_tag)
from ustack.wire.ipv4 cimport IPV4_FRAGMENT_OFFSET, IPV4_HEADER_BYTES, IPV4_MORE_FRAGMENTS, ipv4_mark
from ustack.wire.octets cimport read_u16, read_u32, write_u16, write_u16_be, write_u32
from ustack.wire.tcp cimport CWR, FIN, PSH, TCP_CHECKSUM_OFFSET, TCP_HEADER_BYTES

cdef enum:
    ETHERTYPE_IPV6 = 0x86DD
    IPV6_HEADER_BYTES = 40
    IPV6_EXTENSIONS_MAX = 8
    PROTOCOL_TCP = 6
    PROTOCOL_UDP = 17
    UDP_HEADER_BYTES = 8
    UDP_LENGTH_OFFSET = 4
    UDP_CHECKSUM_OFFSET = 6
    TCP_FLAGS_OFFSET = 13
    ECN_CE = 3                          # RFC 3168 section 5: both bits


# ---------------------------------------------------------------- where the headers are
cdef inline bint is_extension(uint8_t next_header) noexcept nogil:
    # Hop-by-hop options, routing, destination options: all have their length in their second byte (RFC 8200 section 4).
    return next_header == 0 or next_header == 43 or next_header == 60


cdef void find_ipv4(cutter_t *cutter) noexcept nogil:
    cdef const uint8_t *header = cutter.frame + cutter.network
    cdef uint32_t room = cutter.length - cutter.network
    cdef uint32_t header_bytes
    if room < IPV4_HEADER_BYTES or header[0] >> 4 != 4:
        return
    header_bytes = (header[0] & 0x0F) * 4
    if header_bytes < IPV4_HEADER_BYTES or header_bytes > room:
        return
    cutter.family = 4
    if read_u16(header + 6) & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET):
        return
    cutter.protocol = header[9]
    cutter.transport = <uint16_t>(cutter.network + header_bytes)


cdef void find_ipv6(cutter_t *cutter) noexcept nogil:
    cdef const uint8_t *header = cutter.frame + cutter.network
    cdef uint32_t room = cutter.length - cutter.network
    cdef uint32_t at = IPV6_HEADER_BYTES
    cdef uint8_t next_header
    cdef int _extension
    if room < IPV6_HEADER_BYTES or header[0] >> 4 != 6:
        return
    cutter.family = 6
    next_header = header[6]
    for _extension in range(IPV6_EXTENSIONS_MAX):
        if not is_extension(next_header):
            cutter.protocol = next_header
            cutter.transport = <uint16_t>(cutter.network + at)
            return
        if room - at < 8:
            return
        next_header = header[at]
        at += (<uint32_t>header[at + 1] + 1) * 8
        if at > room:
            return


cdef void find_headers(cutter_t *cutter) noexcept nogil:
    """cutter.transport is set where the whole header of TCP or UDP is there, and header_bytes with it."""
    cdef uint32_t at = ETHERNET_HEADER_BYTES
    cdef uint16_t ethertype = read_u16(cutter.frame + at - 2)
    cdef uint32_t header_bytes = UDP_HEADER_BYTES
    cdef int _tag
    for _tag in range(VLAN_TAGS_MAX):
        if not ethertype_is_tag(ethertype) or cutter.length - at < VLAN_TAG_BYTES:
            break
        at += VLAN_TAG_BYTES
        ethertype = read_u16(cutter.frame + at - 2)
    if ethertype != ETHERTYPE_IPV4 and ethertype != ETHERTYPE_IPV6:
        return
    cutter.network = <uint16_t>at
    if ethertype == ETHERTYPE_IPV4:
        find_ipv4(cutter)
    else:
        find_ipv6(cutter)
    if cutter.family == 0:
        cutter.network = 0
    if cutter.transport == 0:
        return
    if cutter.protocol == PROTOCOL_TCP and cutter.length - cutter.transport >= TCP_HEADER_BYTES:
        header_bytes = (cutter.frame[cutter.transport + 12] >> 4) * 4
        if header_bytes < TCP_HEADER_BYTES:
            header_bytes = cutter.length        # never there
    elif cutter.protocol != PROTOCOL_UDP:
        header_bytes = cutter.length
    if header_bytes > cutter.length - cutter.transport:
        cutter.transport = 0
    else:
        cutter.header_bytes = <uint16_t>(cutter.transport + header_bytes)


cdef bint begin_super_frame(cutter_t *cutter, uint16_t gso_size) noexcept nogil:
    cdef uint32_t ends_at
    if cutter.transport == 0 or gso_size < GSO_BYTES_MIN:
        return False
    if cutter.family == 4:
        ends_at = cutter.network + read_u16(cutter.frame + cutter.network + 2)
    else:
        ends_at = cutter.network + IPV6_HEADER_BYTES + read_u16(cutter.frame + cutter.network + 4)
    # What the IP header counts is what is sent; it may leave out padding, and cannot count what is not there.
    if ends_at <= cutter.header_bytes or ends_at > cutter.length:
        return False
    cutter.length = ends_at
    cutter.data_bytes = ends_at - cutter.header_bytes
    cutter.gso_size = <uint16_t>min(<uint32_t>gso_size, cutter.data_bytes)
    cutter.is_partial = True
    return True


cdef bint cutter_begin(cutter_t *cutter, const frame_t *frame) noexcept nogil:
    memset(cutter, 0, sizeof(cutter_t))
    if frame.length < ETHERNET_HEADER_BYTES or frame.length < frame.wire_length or frame.length > 0xFFFF + 64:
        return False
    cutter.frame = frame.data
    cutter.length = frame.length
    cutter.tag = frame.vlan_id
    find_headers(cutter)
    if frame.gso_size != 0:
        return begin_super_frame(cutter, frame.gso_size)
    if frame.checksum == CHECKSUM_PARTIAL:
        cutter.is_partial = True
        return cutter.transport != 0
    return True


# ---------------------------------------------------------------- one packet
cdef uint32_t cutter_length(const cutter_t *cutter) noexcept nogil:
    cdef uint32_t tag_bytes = VLAN_TAG_BYTES if cutter.tag != 0 else 0
    if cutter.is_done:
        return 0
    if cutter.gso_size == 0:
        return tag_bytes + cutter.length
    return tag_bytes + cutter.header_bytes + min(<uint32_t>cutter.gso_size, cutter.data_bytes - cutter.at)


cdef void cutter_step(cutter_t *cutter) noexcept nogil:
    cutter.number += 1
    cutter.at += cutter.gso_size
    cutter.is_done = cutter.gso_size == 0 or cutter.at >= cutter.data_bytes


cdef inline uint32_t pseudo_sum(const cutter_t *cutter, uint32_t length) noexcept nogil:
    """Of the super-frame's addresses, and the length of one packet's transport header and data."""
    cdef const uint8_t *addresses = cutter.frame + cutter.network + (12 if cutter.family == 4 else 8)
    cdef uint32_t sum = checksum_partial(addresses, 8 if cutter.family == 4 else 32, 0)
    return checksum_add(checksum_add(sum, htonl(length)), htonl(cutter.protocol))


cdef void adapt_headers(const cutter_t *cutter, uint8_t *packet, uint32_t length) noexcept nogil:
    """packet: without the tag, `length` bytes, the super-frame's headers before the data."""
    cdef uint8_t *ip = packet + cutter.network
    cdef uint8_t *transport = packet + cutter.transport
    cdef bint is_last = cutter.at + cutter.gso_size >= cutter.data_bytes
    cdef uint16_t sum = checksum_fold(pseudo_sum(cutter, length - cutter.transport))
    if cutter.family == 4:
        write_u16(ip + 2, <uint16_t>(length - cutter.network))
        write_u16(ip + 4, <uint16_t>(read_u16(ip + 4) + cutter.number))
        write_u16_be(ip + 10, 0)
        write_u16_be(ip + 10, checksum_emit(checksum_partial(ip, (ip[0] & 0x0F) * 4, 0)))
    else:
        write_u16(ip + 4, <uint16_t>(length - cutter.network - IPV6_HEADER_BYTES))
    if cutter.protocol == PROTOCOL_UDP:
        write_u16(transport + UDP_LENGTH_OFFSET, <uint16_t>(length - cutter.transport))
        write_u16_be(transport + UDP_CHECKSUM_OFFSET, sum)
        return
    write_u32(transport + 4, read_u32(transport + 4) + cutter.at)
    if not is_last:
        transport[TCP_FLAGS_OFFSET] &= <uint8_t>~(FIN | PSH)
    if cutter.number > 0:
        transport[TCP_FLAGS_OFFSET] &= <uint8_t>~CWR
    write_u16_be(transport + TCP_CHECKSUM_OFFSET, sum)


cdef void cutter_write(const cutter_t *cutter, uint8_t *packet, offload_t *offload) noexcept nogil:
    cdef uint32_t tag_bytes = VLAN_TAG_BYTES if cutter.tag != 0 else 0
    cdef uint32_t length = cutter_length(cutter) - tag_bytes
    cdef uint8_t *untagged = packet + tag_bytes
    ensure(not cutter.is_done)
    if cutter.gso_size == 0:
        memcpy(untagged, cutter.frame, length)
    else:
        memcpy(untagged, cutter.frame, cutter.header_bytes)
        memcpy(untagged + cutter.header_bytes, cutter.frame + cutter.header_bytes + cutter.at,
               length - cutter.header_bytes)
    memset(offload, 0, sizeof(offload_t))
    if cutter.gso_size != 0:
        adapt_headers(cutter, untagged, length)
    if cutter.is_partial:
        offload.csum_start = <uint16_t>(tag_bytes + cutter.transport)
        offload.csum_offset = TCP_CHECKSUM_OFFSET if cutter.protocol == PROTOCOL_TCP else UDP_CHECKSUM_OFFSET
    if cutter.tag != 0:
        memcpy(packet, cutter.frame, 2 * MAC_BYTES)
        write_u16(packet + 2 * MAC_BYTES, ETHERTYPE_VLAN)
        write_u16(packet + 2 * MAC_BYTES + 2, cutter.tag)


cdef bint packet_mark(const cutter_t *cutter, uint8_t *packet) noexcept nogil:
    cdef uint8_t *ip = packet + (VLAN_TAG_BYTES if cutter.tag != 0 else 0) + cutter.network
    if cutter.family == 4:
        return ipv4_mark(ip)
    if cutter.family == 6 and ip[1] & (ECN_CE << 4):
        ip[1] |= ECN_CE << 4
        return True
    return False


cdef void packet_complete(uint8_t *packet, uint32_t length, offload_t *offload) noexcept nogil:
    cdef uint8_t *transport = packet + offload.csum_start
    cdef uint16_t checksum
    if offload.csum_start != 0:
        # The field holds the pseudo-header's sum, so that it counts as any other word.
        checksum = checksum_emit(checksum_partial(transport, length - offload.csum_start, 0))
        if checksum == 0 and offload.csum_offset == UDP_CHECKSUM_OFFSET:
            checksum = 0xFFFF                   # RFC 768: zero says that there is none
        write_u16_be(transport + offload.csum_offset, checksum)
    memset(offload, 0, sizeof(offload_t))
