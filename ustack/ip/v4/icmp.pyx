# SPDX-License-Identifier: MIT
"""ICMP: echo, errors about what we sent, errors about what we cannot use."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ustack.base.counters cimport count, counter_t
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.ip.records cimport (
    IP_CONSUMED, IP_PROTO_ICMP, IP_PROTO_TCP, IP_TCP_ERROR, ip_is_own, ip_route_t, ip_t, ip_verdict_t, packet_t)
from ustack.ip.v4.output cimport ip_commit_whole, ip_payload_mtu, ip_reserve
from ustack.wire.icmpv4 cimport (
    ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, ICMP_FRAGMENTATION_NEEDED, ICMP_HEADER_BYTES, ICMP_PARAMETER_PROBLEM,
    ICMP_QUOTED_TRANSPORT_BYTES, ICMP_TIME_EXCEEDED, ICMP_UNREACHABLE, icmp_emit, icmp_next_hop_mtu, icmp_parse, icmp_t)
from ustack.wire.ipv4 cimport IPV4_FRAGMENT_OFFSET, IPV4_HEADER_BYTES, ipv4_parse_quoted, ipv4_t

cdef enum:
    # Allowance for errors: a token bucket (RFC 1812 section 4.3.2.8), kept as the time when it is full again.
    ERROR_INTERVAL_NS = 10 * 1000000             # 100 per second
    ERROR_BURST = 50
    # An error quotes as much as fits into 576 bytes (RFC 1812 section 4.3.2.3).
    ERROR_QUOTE_BYTES = 576 - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES


cdef inline ip_verdict_t _drop(ip_t *ip, counter_t reason) noexcept nogil:
    count(ip.counters, reason)
    return IP_CONSUMED


cdef bint _send(ip_t *ip, const ip_addr_t *src, const ip_addr_t *dst, const icmp_t *fields, const uint8_t *data,
                uint32_t length, uint8_t tos) noexcept nogil:
    # `length` bytes of data behind the header. False: no room, or no way to get there; output has counted it.
    cdef ip_route_t route
    cdef uint16_t neighbour = 0
    cdef int status = 0
    cdef uint8_t *message
    route.src = src
    route.dst = dst
    route.neighbour = &neighbour
    route.protocol = IP_PROTO_ICMP
    route.tos = tos
    route.ttl = ip.config.ttl
    route.may_fragment = 0
    message = ip_reserve(ip, &route, ICMP_HEADER_BYTES + length, &status, ip.now_ns)
    if message == NULL:
        return False
    memcpy(message + ICMP_HEADER_BYTES, data, length)
    icmp_emit(message, ICMP_HEADER_BYTES + length, fields)
    ip_commit_whole(ip, ICMP_HEADER_BYTES + length)
    return True


cdef ip_verdict_t _echo(ip_t *ip, const packet_t *packet, icmp_t *fields) noexcept nogil:
    # RFC 1122 section 3.2.2.6: all of the data comes back; what would have to be fragmented is cut. The reply has
    # the request's TOS (section 3.2.2.6) and comes from the address that was asked.
    cdef uint32_t length = min(packet.payload_length, ip_payload_mtu(ip)) - ICMP_HEADER_BYTES
    fields.type = ICMP_ECHO_REPLY
    if _send(ip, &packet.dst, &packet.src, fields, packet.payload + ICMP_HEADER_BYTES, length, packet.tos):
        count(ip.counters, counter_t.ICMP_ECHOES_ANSWERED)
    return IP_CONSUMED


cdef ip_verdict_t _error(ip_t *ip, packet_t *packet, const icmp_t *fields) noexcept nogil:
    # Hand the quoted packet up, if it looks like one of our segments. Whether we sent it the transport finds out.
    cdef ipv4_t quoted
    cdef uint8_t *start = packet.payload + ICMP_HEADER_BYTES
    cdef uint32_t length = packet.payload_length - ICMP_HEADER_BYTES
    cdef int reason = ipv4_parse_quoted(start, length, &quoted)
    if reason:
        return _drop(ip, <counter_t>reason)
    if (not ip_is_own(ip, quoted.src_be) or quoted.protocol != IP_PROTO_TCP
            or quoted.fragment & IPV4_FRAGMENT_OFFSET != 0):
        return _drop(ip, counter_t.DROP_ICMP_NO_CONNECTION)
    length -= quoted.header_length
    if quoted.total_length < quoted.header_length + ICMP_QUOTED_TRANSPORT_BYTES:
        return _drop(ip, counter_t.DROP_ICMP_TRUNCATED)
    length = min(length, <uint32_t>(quoted.total_length - quoted.header_length))
    if length < ICMP_QUOTED_TRANSPORT_BYTES:
        return _drop(ip, counter_t.DROP_ICMP_TRUNCATED)
    packet.icmp_type = fields.type
    packet.icmp_code = fields.code
    packet.icmp_mtu = 0
    packet.icmp_quoted_length = quoted.total_length
    if fields.type == ICMP_UNREACHABLE and fields.code == ICMP_FRAGMENTATION_NEEDED:
        packet.icmp_mtu = icmp_next_hop_mtu(packet.payload)
    ip_addr_set_v4(&packet.src, quoted.src_be)
    ip_addr_set_v4(&packet.dst, quoted.dst_be)
    packet.payload = start + quoted.header_length
    packet.payload_length = length
    packet.tos = quoted.tos
    packet.ttl = quoted.ttl
    return IP_TCP_ERROR


cdef inline bint _is_error(const icmp_t *fields) noexcept nogil:
    # What a transport hears of, with the codes that exist (RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1).
    if fields.type == ICMP_UNREACHABLE:
        return fields.code <= 15
    if fields.type == ICMP_TIME_EXCEEDED:
        return fields.code <= 1
    return fields.type == ICMP_PARAMETER_PROBLEM and fields.code <= 2


cdef ip_verdict_t icmp_input(ip_t *ip, packet_t *packet) noexcept nogil:
    cdef icmp_t fields
    # Always in software: no device verifies the checksum of ICMP, whatever it says of the frame.
    cdef int reason = icmp_parse(packet.payload, packet.payload_length, &fields)
    if reason:
        return _drop(ip, <counter_t>reason)
    if packet.broadcast:                         # RFC 1122 section 3.2.2.6: may be discarded, and is
        return _drop(ip, counter_t.DROP_ICMP_TYPE)
    if fields.type == ICMP_ECHO_REQUEST and fields.code == 0:
        return _echo(ip, packet, &fields)
    if _is_error(&fields):
        return _error(ip, packet, &fields)
    return _drop(ip, counter_t.DROP_ICMP_TYPE)   # a reply nobody asked for, a redirect, a source quench (MUST-55)


cdef bint _may_send_error(ip_t *ip) noexcept nogil:
    cdef uint64_t tat_ns = max(ip.error_tat_ns, ip.now_ns)
    if tat_ns - ip.now_ns > <uint64_t>(ERROR_BURST - 1) * ERROR_INTERVAL_NS:
        return False
    ip.error_tat_ns = tat_ns + ERROR_INTERVAL_NS
    return True


cdef void icmp_unreachable(ip_t *ip, const packet_t *packet, const uint8_t *header, uint8_t code) noexcept nogil:
    # Fragments and impossible sources never get here, nor does ICMP itself (RFC 1122 section 3.2.2).
    cdef icmp_t fields
    cdef uint32_t length = <uint32_t>(packet.payload - header) + packet.payload_length
    if packet.broadcast or not _may_send_error(ip):
        return
    fields.type = ICMP_UNREACHABLE
    fields.code = code
    fields.rest_be = 0
    if _send(ip, &packet.dst, &packet.src, &fields, header, min(length, <uint32_t>ERROR_QUOTE_BYTES), 0):
        count(ip.counters, counter_t.ICMP_ERRORS_OUT)
