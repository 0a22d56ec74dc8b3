# SPDX-License-Identifier: MIT
"""ARP for IPv4 over Ethernet: bytes to fields and back."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from ustack.base.bytestring cimport bytes_from, data_of
from ustack.base.counters cimport counter_t
from ustack.wire.ethernet cimport ETHERTYPE_IPV4, mac_is_group, mac_is_zero
from ustack.wire.ipv4 cimport ipv4_is_broadcast, ipv4_is_loopback, ipv4_is_multicast
from ustack.wire.octets cimport read_u16, read_u32_be, write_u16, write_u32_be

cdef enum:
    HARDWARE_ETHERNET = 1


cdef inline bint _sender_is_possible(const arp_t *arp) noexcept nogil:
    # A station sends from one address of its own. A sender of 0.0.0.0 is the probe of RFC 5227 section 2.1.1,
    # which is always a request. A group address here would make us send unicast packets to many.
    if mac_is_group(arp.sender_mac) or mac_is_zero(arp.sender_mac):
        return False
    if arp.sender_be == 0:
        return arp.operation == ARP_REQUEST
    return not (ipv4_is_multicast(arp.sender_be) or ipv4_is_broadcast(arp.sender_be)
                or ipv4_is_loopback(arp.sender_be))


cdef int arp_parse(const uint8_t *packet, uint32_t length, arp_t *out) noexcept nogil:
    if (length < ARP_BYTES or read_u16(packet) != HARDWARE_ETHERNET or read_u16(packet + 2) != ETHERTYPE_IPV4
            or packet[4] != 6 or packet[5] != 4):
        return counter_t.DROP_ARP_MALFORMED
    out.operation = read_u16(packet + 6)
    memcpy(out.sender_mac, packet + 8, 6)
    out.sender_be = read_u32_be(packet + 14)
    memcpy(out.target_mac, packet + 18, 6)
    out.target_be = read_u32_be(packet + 24)
    if out.operation != ARP_REQUEST and out.operation != ARP_REPLY:
        return counter_t.DROP_ARP_MALFORMED
    if not _sender_is_possible(out):
        return counter_t.DROP_ARP_MALFORMED
    return 0


cdef void arp_emit(uint8_t *out, const arp_t *fields) noexcept nogil:
    write_u16(out, HARDWARE_ETHERNET)
    write_u16(out + 2, ETHERTYPE_IPV4)
    out[4] = 6
    out[5] = 4
    write_u16(out + 6, fields.operation)
    memcpy(out + 8, fields.sender_mac, 6)
    write_u32_be(out + 14, fields.sender_be)
    memcpy(out + 18, fields.target_mac, 6)
    write_u32_be(out + 24, fields.target_be)


# ---------------------------------------------------------------- for tests
def parse(packet: bytes) -> dict[str, object] | int:
    """Fields by name (addresses as bytes), or the counter_t that the frame is dropped under."""
    cdef arp_t fields
    cdef int reason = arp_parse(data_of(packet), <uint32_t>len(packet), &fields)
    if reason:
        return reason
    return {
        "operation": fields.operation,
        "sender_mac": bytes_from(fields.sender_mac, 6),
        "sender": (<const char *>&fields.sender_be)[:4],
        "target_mac": bytes_from(fields.target_mac, 6),
        "target": (<const char *>&fields.target_be)[:4],
    }


def emit(operation: int, sender_mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    """The 28 bytes of a packet."""
    cdef arp_t fields
    cdef uint8_t out[ARP_BYTES]
    if (len(sender_mac), len(sender), len(target_mac), len(target)) != (6, 4, 6, 4):
        raise ValueError("a station address has 6 bytes, an IPv4 address 4")
    fields.operation = <uint16_t>operation
    memcpy(fields.sender_mac, data_of(sender_mac), 6)
    memcpy(&fields.sender_be, data_of(sender), 4)
    memcpy(fields.target_mac, data_of(target_mac), 6)
    memcpy(&fields.target_be, data_of(target), 4)
    arp_emit(out, &fields)
    return bytes_from(out, ARP_BYTES)
