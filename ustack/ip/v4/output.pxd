# SPDX-License-Identifier: MIT
# Output: the next hop, the reservation, the headers, the checksums. This runs for every segment.
#
# The headers are written when the room is reserved, and finished (length, identification, checksums) when it is
# committed, in the link's slot itself:
#
#     | Ethernet 14 | IPv4 20 | transport header and payload, written by the caller between the two calls |
#     frame         +14       +34 = what ip_reserve returns
#
# Identification: DF is set unless a transport says otherwise, so our datagrams are atomic and the field means nothing
# (RFC 6864 section 4.1: any value will do). It is 0. A counter would tell everybody who provokes an answer how much we
# send to others (idle scans), and a counter per destination still how much goes there. (The kernel numbers the segments
# of a super-frame upwards from ours, so each begins at 0.)
#
# It must not: fragment, or keep a pointer of the caller's. Read first: RFC 1122 section 3.3.1 (routing), RFC 6864
# (identification), RFC 1191 (DF). Neighbours: above, icmp, layer (re-exports it), tcp; below, arp.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.posix cimport iovec
from ustack.ip.records cimport ip_route_t, ip_t

# Room for `length` transport bytes (header and payload). NULL: the ring is full (nothing was lost: try after
# the next submit) — unless *status says otherwise. status: IP_OK, IP_NO_ROUTE, IP_RING_FULL, IP_NO_MEMORY, each
# counted here. A reservation that is not committed is forgotten by the next one.
cdef uint8_t *ip_reserve(ip_t *ip, const ip_route_t *route, uint32_t length, int *status,
                         uint64_t now_ns) noexcept nogil
# Send the reserved packet with `length` transport bytes. Fills in the transport checksum at `csum_offset` (its
# field may hold anything): left to the device where it can, in software where not. gso_size not 0: a super-frame,
# whose transport header is `header_length` bytes; only where link.caps.tx_segmentation.
cdef void ip_commit(ip_t *ip, uint32_t length, uint16_t csum_offset, uint16_t header_length,
                    uint16_t gso_size) noexcept nogil
# Whether the reserved packet may be sent by ip_commit_gathered: the link can, and the neighbour is known.
cdef inline bint ip_can_gather(const ip_t *ip) noexcept nogil:
    return ip.link.ops.tx_gather != NULL and ip.pending_neighbour == 0


# ip_commit for a super-frame whose payload is not in the reservation but in pieces[0 .. n_pieces) (device.pxd,
# tx_gather). False: it was not sent, the reservation stands; write the payload there and commit.
cdef bint ip_commit_gathered(ip_t *ip, uint32_t length, uint16_t csum_offset, uint16_t header_length,
                             uint16_t gso_size, const iovec *pieces, uint32_t n_pieces) noexcept nogil
# ip_commit for a transport without a pseudo-header, which has filled in its checksum itself.
cdef void ip_commit_whole(ip_t *ip, uint32_t length) noexcept nogil
# Largest transport length (header and payload) of an ordinary packet, and of a super-frame (the same without
# segmentation).
cdef uint32_t ip_payload_mtu(const ip_t *ip) noexcept nogil
cdef uint32_t ip_payload_max(const ip_t *ip) noexcept nogil
