# SPDX-License-Identifier: MIT
# ARP for IPv4 over Ethernet: bytes to fields and back (RFC 826; checks of sender addresses after RFC 5227).
#
# It must not: know whose addresses these are. Neighbours: above, ip; below, ethernet, bytes, base.
#
#      0       2       4   5   6       8           14      18          24      28
#     +-------+-------+---+---+-------+-----------+-------+-----------+-------+
#     | htype | ptype | hl| pl| oper  |sender MAC |sender |target MAC |target |
#     |   1   | 0x0800| 6 | 4 | 1 | 2 |           |  IP   |           |  IP   |
#     +-------+-------+---+---+-------+-----------+-------+-----------+-------+

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    ARP_BYTES = 28

cdef enum arp_operation_t:
    ARP_REQUEST = 1
    ARP_REPLY = 2

ctypedef struct arp_t:
    uint16_t operation
    uint8_t sender_mac[6]
    uint32_t sender_be
    uint8_t target_mac[6]        # in a request: anything (RFC 826 leaves it open)
    uint32_t target_be

# `packet` follows the Ethernet header; `length` may count padding. 0, or the counter_t to drop the frame under.
cdef int arp_parse(const uint8_t *packet, uint32_t length, arp_t *out) noexcept nogil
# Writes ARP_BYTES bytes.
cdef void arp_emit(uint8_t *out, const arp_t *fields) noexcept nogil
