# SPDX-License-Identifier: MIT
# Input: the checks of Ethernet and of IPv4 in RFC 1122's order, and who gets what is left.
#
# It must not: look behind the IP header, but for the checksum of a UDP datagram that is about to be refused.
# Read first: RFC 1122 sections 2.3.3, 3.2.1, 3.3.6. Neighbours: above, layer (re-exports it), engine; below, icmp, arp.

from libc.stdint cimport uint64_t

from ustack.buf.frame cimport frame_t
from ustack.ip.records cimport ip_t, ip_verdict_t, packet_t

# One frame in. `packet` is filled for IP_TCP and IP_TCP_ERROR; it points into the frame. Every drop is counted under
# one reason. May send (answers, waiting packets): nothing may be reserved and not committed.
cdef ip_verdict_t ip_input(ip_t *ip, frame_t *frame, packet_t *packet, uint64_t now_ns) noexcept nogil
