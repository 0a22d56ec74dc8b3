# SPDX-License-Identifier: MIT
"""Input: the checks of Ethernet and of IPv4 in RFC 1122's order, and who gets what is left."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.counters cimport count, count_add, counter_t
from ustack.base.types cimport ip_addr_set_v4
from ustack.buf.frame cimport CHECKSUM_UNKNOWN, frame_t
from ustack.ip.records cimport (
    IP_CONSUMED, IP_PROTO_ICMP, IP_PROTO_TCP, IP_PROTO_UDP, IP_TCP, ip_is_foreign_host, ip_is_own, ip_t,
    ip_verdict_t, packet_t)
from ustack.ip.v4.arp cimport arp_input
from ustack.ip.v4.icmp cimport icmp_input, icmp_unreachable
from ustack.wire.checksum cimport checksum_fold, checksum_partial
from ustack.wire.ethernet cimport (
    ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, VLAN_TAG_BYTES, VLAN_TAGS_MAX, ethernet_parse, ethernet_t,
    ethertype_is_tag, mac_equal, mac_is_group, vlan_tag_parse, vlan_tag_t)
from ustack.wire.icmpv4 cimport ICMP_PORT_UNREACHABLE, ICMP_PROTOCOL_UNREACHABLE
from ustack.wire.ipv4 cimport (
    IPV4_FRAGMENT_OFFSET, IPV4_HEADER_BYTES, IPV4_MORE_FRAGMENTS, ipv4_check_options, ipv4_is_broadcast, ipv4_parse,
    ipv4_pseudo_sum, ipv4_t)
from ustack.wire.octets cimport htonl, read_u16, read_u16_be

cdef enum:
    UDP_HEADER_BYTES = 8


cdef inline ip_verdict_t _drop(ip_t *ip, int reason) noexcept nogil:
    count(ip.counters, <counter_t>reason)
    return IP_CONSUMED


cdef inline int _judge_addresses(const ip_t *ip, const ipv4_t *header, bint to_group,
                                 uint8_t *broadcast) noexcept nogil:
    # RFC 1122 section 3.2.1.3. 0, or the counter_t to drop the packet under.
    if not ip_is_foreign_host(ip, header.src_be):
        return counter_t.DROP_IP_SOURCE
    broadcast[0] = header.dst_be != ip.address_be
    if broadcast[0] and ip_is_own(ip, header.dst_be):
        broadcast[0] = False                            # another one of ours
    if not broadcast[0]:
        # RFC 1122 section 3.3.6: what everybody on the link received but one host is named in is not for us.
        return counter_t.DROP_NOT_FOR_US if to_group else 0
    # 224.0.0.1 is the one group that every host is in (RFC 1112 section 4).
    if (ipv4_is_broadcast(header.dst_be) or header.dst_be == htonl(0xE0000001U)
            or (header.dst_be == ip.subnet_broadcast_be and ip.subnet_broadcast_be != 0)):
        return 0
    return counter_t.DROP_NOT_FOR_US


cdef bint _udp_is_intact(const packet_t *packet) noexcept nogil:
    # RFC 1122 section 4.1.3.4: an error is sent about a datagram only if its checksum, if it has one, is right.
    cdef uint32_t length
    if packet.payload_length < UDP_HEADER_BYTES:
        return False
    length = read_u16(packet.payload + 4)
    if length < UDP_HEADER_BYTES or length > packet.payload_length:
        return False
    if packet.checksum != CHECKSUM_UNKNOWN or read_u16_be(packet.payload + 6) == 0:
        return True
    return checksum_fold(checksum_partial(
        packet.payload, length,
        ipv4_pseudo_sum(packet.src.words_be[3], packet.dst.words_be[3], IP_PROTO_UDP, length))) == 0xFFFF


cdef ip_verdict_t _refuse(ip_t *ip, const packet_t *packet, const uint8_t *start, uint8_t protocol) noexcept nogil:
    # No such transport here, or nobody listens on it.
    if protocol != IP_PROTO_UDP:
        icmp_unreachable(ip, packet, start, ICMP_PROTOCOL_UNREACHABLE)
    elif _udp_is_intact(packet):
        icmp_unreachable(ip, packet, start, ICMP_PORT_UNREACHABLE)
    return _drop(ip, counter_t.DROP_IP_PROTOCOL)


cdef ip_verdict_t _ipv4(ip_t *ip, frame_t *frame, uint32_t offset, bint to_group, packet_t *packet) noexcept nogil:
    cdef uint8_t *start = frame.data + offset
    cdef ipv4_t header
    cdef int reason = ipv4_parse(start, frame.length - offset, &header)
    if reason == 0:
        reason = _judge_addresses(ip, &header, to_group, &packet.broadcast)
    if reason == 0 and header.header_length > IPV4_HEADER_BYTES:
        reason = ipv4_check_options(start, header.header_length)
    if reason == 0 and header.fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET):
        reason = counter_t.DROP_IP_FRAGMENT
    if reason:
        return _drop(ip, reason)
    # A TTL of 0 is none of the destination's business (RFC 1122 section 3.2.1.7).
    ip_addr_set_v4(&packet.src, header.src_be)
    ip_addr_set_v4(&packet.dst, header.dst_be)
    packet.payload = start + header.header_length
    packet.payload_length = header.total_length - header.header_length
    packet.gso_size = frame.gso_size
    packet.checksum = frame.checksum
    packet.tos = header.tos
    packet.ttl = header.ttl
    if header.protocol == IP_PROTO_TCP:
        return IP_TCP
    if header.protocol == IP_PROTO_ICMP:
        return icmp_input(ip, packet)
    return _refuse(ip, packet, start, header.protocol)


cdef int _skip_priority_tags(const frame_t *frame, uint16_t *ethertype, uint32_t *offset) noexcept nogil:
    """IEEE 802.1Q clause 6.7.1: a tag with VID 0 carries a priority, and the frame belongs to the untagged network.

    offset and ethertype: moved behind such tags. Returns 0, or the counter_t to drop the frame under.
    """
    cdef vlan_tag_t tag
    cdef int reason, _tag
    for _tag in range(VLAN_TAGS_MAX):
        if not ethertype_is_tag(ethertype[0]):
            return 0
        reason = vlan_tag_parse(frame.data + offset[0], frame.length - offset[0], &tag)
        if reason:
            return reason
        if tag.vlan_id:
            return counter_t.DROP_VLAN
        ethertype[0] = tag.ethertype
        offset[0] += VLAN_TAG_BYTES
    return 0


cdef ip_verdict_t ip_input(ip_t *ip, frame_t *frame, packet_t *packet, uint64_t now_ns) noexcept nogil:
    cdef ethernet_t header
    cdef uint32_t offset = ETHERNET_HEADER_BYTES
    cdef uint16_t ethertype
    cdef bint to_group
    cdef int reason
    ip.now_ns = now_ns
    count(ip.counters, counter_t.FRAMES_IN)
    count_add(ip.counters, counter_t.BYTES_IN, frame.length)
    if frame.wire_length > frame.length:
        return _drop(ip, counter_t.DROP_FRAME_TRUNCATED)
    reason = ethernet_parse(frame.data, frame.length, &header)
    if reason:
        return _drop(ip, reason)
    if frame.vlan_id:
        return _drop(ip, counter_t.DROP_VLAN)
    to_group = mac_is_group(header.destination)
    if not to_group and not mac_equal(header.destination, ip.link.mac):
        return _drop(ip, counter_t.DROP_NOT_FOR_US)
    if header.ethertype != ETHERTYPE_IPV4 and ethertype_is_tag(header.ethertype):
        ethertype = header.ethertype
        reason = _skip_priority_tags(frame, &ethertype, &offset)
        header.ethertype = ethertype
        if reason:
            return _drop(ip, reason)
    if header.ethertype == ETHERTYPE_IPV4:
        return _ipv4(ip, frame, offset, to_group, packet)
    if header.ethertype == ETHERTYPE_ARP:
        arp_input(ip, frame.data + offset, frame.length - offset)
        return IP_CONSUMED
    return _drop(ip, counter_t.DROP_ETHERTYPE_UNKNOWN)
