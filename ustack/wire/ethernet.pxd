# SPDX-License-Identifier: MIT
# Ethernet II headers: bytes to fields and back (RFC 894; IEEE 802.3 clause 3.2), and the tags of IEEE 802.1Q clause 9
# that may stand behind them. 802.3 length fields are ethertypes like any other here: nothing above accepts them.
#
# It must not: judge for whom a frame is. Neighbours: above, ip; below, bytes, base.
#
#      0                   1
#      0 1 2 3 4 5 6 7 8 9 0 1 2 3
#     +-----------+-----------+---+
#     |destination|  source   |typ|   then the payload, and padding up to 60 bytes
#     +-----------+-----------+---+

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from ustack.base.counters cimport DROP_FRAME_TRUNCATED
from ustack.wire.octets cimport read_u16, read_u16_be, read_u32_be, write_u16

cdef enum:
    ETHERNET_HEADER_BYTES = 14
    VLAN_TAG_BYTES = 4       # the EtherType in front of it names the tag; it ends with the EtherType of what follows
    VLAN_TAGS_MAX = 2        # a service tag and a customer's
    VLAN_ID_MASK = 0x0FFF
    MAC_BYTES = 6

cdef enum ethertype_t:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_ARP = 0x0806
    ETHERTYPE_VLAN = 0x8100  # a customer's tag
    ETHERTYPE_SERVICE_VLAN = 0x88A8

ctypedef struct ethernet_t:
    uint8_t destination[6]
    uint8_t source[6]
    uint16_t ethertype

# One tag, without the EtherType that announced it.
ctypedef struct vlan_tag_t:
    uint16_t vlan_id         # 0: the tag says a priority and nothing else (clause 6.7.1)
    uint16_t ethertype       # of what follows

# 0, or the counter_t to drop the frame under.
cdef inline int ethernet_parse(const uint8_t *frame, uint32_t length, ethernet_t *out) noexcept nogil:
    if length < ETHERNET_HEADER_BYTES:
        return DROP_FRAME_TRUNCATED
    memcpy(out.destination, frame, 6)
    memcpy(out.source, frame + 6, 6)
    out.ethertype = read_u16(frame + 12)
    return 0


cdef int vlan_tag_parse(const uint8_t *tag, uint32_t length, vlan_tag_t *out) noexcept nogil


cdef inline bint ethertype_is_tag(uint16_t ethertype) noexcept nogil:
    return ethertype == ETHERTYPE_VLAN or ethertype == ETHERTYPE_SERVICE_VLAN


# Writes ETHERNET_HEADER_BYTES bytes.
cdef inline void ethernet_emit(uint8_t *out, const uint8_t *destination, const uint8_t *source,
                               uint16_t ethertype) noexcept nogil:
    memcpy(out, destination, 6)
    memcpy(out + 6, source, 6)
    write_u16(out + 12, ethertype)


# The group bit of the first byte: multicast, and broadcast as its special case.
cdef inline bint mac_is_group(const uint8_t *mac) noexcept nogil:
    return mac[0] & 1 != 0


cdef inline bint mac_is_zero(const uint8_t *mac) noexcept nogil:
    return (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]) == 0


cdef inline bint mac_equal(const uint8_t *a, const uint8_t *b) noexcept nogil:
    return read_u32_be(a) == read_u32_be(b) and read_u16_be(a + 4) == read_u16_be(b + 4)
