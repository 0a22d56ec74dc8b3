# SPDX-License-Identifier: MIT
# SYN, and the SYN-ACK of a simultaneous open: what a tcb in SYN-SENT or SYN-RECEIVED sends.
#
# (The SYN-ACK of a listener comes from a record of 64 bytes: emit.) It must not: agree on anything; opening does.
# Read first: RFC 9293 section 3.5, RFC 7323 section 2.2, RFC 3168 section 6.1.1. Above: output. Below: emit, ending,
# rtt, transmissions.

from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.send.segment cimport send_t

cdef send_t send_syn(tcp_t *tcp, tcb_t *tcb) noexcept nogil
