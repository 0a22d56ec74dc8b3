# SPDX-License-Identifier: MIT
"""IPv4 headers: bytes to fields and back."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from ustack.base.bytestring cimport bytes_from, data_of
from ustack.base.counters cimport counter_t
from ustack.wire.checksum cimport checksum_fold

cdef enum ipv4_option_t:
    OPTION_END = 0
    OPTION_NOP = 1
    OPTION_LOOSE_SOURCE_ROUTE = 131
    OPTION_STRICT_SOURCE_ROUTE = 137


cdef int ipv4_parse_quoted(const uint8_t *packet, uint32_t length, ipv4_t *out) noexcept nogil:
    if length < IPV4_HEADER_BYTES or packet[0] >> 4 != 4:
        return counter_t.DROP_ICMP_TRUNCATED
    ipv4_read(packet, out)
    if out.header_length < IPV4_HEADER_BYTES or out.header_length > length:
        return counter_t.DROP_ICMP_TRUNCATED
    return 0


cdef int ipv4_check_options(const uint8_t *packet, uint32_t header_length) noexcept nogil:
    # RFC 1122 section 3.2.1.8: what is not understood is skipped, and none of them means anything to us. A source
    # route would have to be reversed by every answer (RFC 9293, MUST-51); hosts drop it (RFC 7126 sections 4.3, 4.4).
    cdef uint32_t at = IPV4_HEADER_BYTES
    cdef uint8_t kind
    while at < header_length:
        kind = packet[at]
        if kind == OPTION_END:
            return 0
        if kind == OPTION_NOP:
            at += 1
            continue
        if at + 1 >= header_length or packet[at + 1] < 2 or at + packet[at + 1] > header_length:
            return counter_t.DROP_IP_OPTION
        if kind == OPTION_LOOSE_SOURCE_ROUTE or kind == OPTION_STRICT_SOURCE_ROUTE:
            return counter_t.DROP_IP_OPTION
        at += packet[at + 1]
    return 0


# ---------------------------------------------------------------- for tests
def parse(packet: bytes, quoted: bool = False) -> dict[str, object] | int:
    """Fields by name, or the counter_t that the packet is dropped under (options included)."""
    cdef ipv4_t fields
    cdef const uint8_t *data = data_of(packet)
    cdef int reason
    if quoted:
        reason = ipv4_parse_quoted(data, <uint32_t>len(packet), &fields)
    else:
        reason = ipv4_parse(data, <uint32_t>len(packet), &fields)
    if reason == 0:
        reason = ipv4_check_options(data, fields.header_length)
    if reason:
        return reason
    return {
        "header_length": fields.header_length, "tos": fields.tos, "ttl": fields.ttl, "protocol": fields.protocol,
        "total_length": fields.total_length, "identification": fields.identification, "fragment": fields.fragment,
        "src": (<const char *>&fields.src_be)[:4], "dst": (<const char *>&fields.dst_be)[:4],
    }


def emit(src: bytes, dst: bytes, *, tos: int, ttl: int, protocol: int, total_length: int, identification: int,
         fragment: int) -> bytes:
    """The 20 bytes of a header, checksum included."""
    cdef ipv4_t fields
    cdef uint8_t out[IPV4_HEADER_BYTES]
    if len(src) != 4 or len(dst) != 4:
        raise ValueError("an IPv4 address has 4 bytes")
    fields.header_length = IPV4_HEADER_BYTES
    fields.tos, fields.ttl, fields.protocol = <uint8_t>tos, <uint8_t>ttl, <uint8_t>protocol
    fields.total_length, fields.identification = <uint16_t>total_length, <uint16_t>identification
    fields.fragment = <uint16_t>fragment
    memcpy(&fields.src_be, data_of(src), 4)
    memcpy(&fields.dst_be, data_of(dst), 4)
    ipv4_emit(out, &fields)
    return bytes_from(out, IPV4_HEADER_BYTES)


def pseudo_sum(src: bytes, dst: bytes, protocol: int, length: int) -> bytes:
    """The folded sum of a pseudo-header as it lies on the wire, not complemented."""
    cdef uint32_t src_be, dst_be
    cdef uint16_t folded
    if len(src) != 4 or len(dst) != 4:
        raise ValueError("an IPv4 address has 4 bytes")
    memcpy(&src_be, data_of(src), 4)
    memcpy(&dst_be, data_of(dst), 4)
    folded = checksum_fold(ipv4_pseudo_sum(src_be, dst_be, <uint8_t>protocol, <uint32_t>length))
    return (<const char *>&folded)[:2]
