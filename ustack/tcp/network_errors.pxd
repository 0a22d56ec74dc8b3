# SPDX-License-Identifier: MIT
# Errors from the network about segments of ours (RFC 9293 section 3.9.2.2, RFC 1191, RFC 5927).
#
# Above: engine. Below: ending, demux, tcb. One of the event files: never imports the others.

from libc.stdint cimport uint64_t

from ustack.ip.layer cimport packet_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# packet: an ICMP error (IP_TCP_ERROR) that quotes a segment of ours.
cdef void tcp_error(tcp_t *tcp, const packet_t *packet, uint64_t now_ns) noexcept nogil
# packet: a segment of ours that never left, because its neighbour does not answer (ip_take_unreached).
cdef void tcp_unreached(tcp_t *tcp, const packet_t *packet, uint64_t now_ns) noexcept nogil
