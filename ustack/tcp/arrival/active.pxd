# SPDX-License-Identifier: MIT
# An active open: SYN-SENT (RFC 9293 section 3.10.7.3), and what is left of it in SYN-RECEIVED (simultaneous open).
#
# (A listener's side has no tcb yet: opening.) It must not: send; the SYN-ACK of a simultaneous open, and the ACK, are
# left on the tcb. Read first: RFC 9293 sections 3.5 and 3.10.7.3, RFC 7323 section 2, RFC 3168 section 6.1.1. Above:
# input. Below: text, opening, ack, ecn, ending, emit.

from libc.stdint cimport uint32_t

from ustack.tcp.arrival.text cimport delivery_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.wire.tcp cimport segment_t

cdef void syn_sent_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, delivery_t *delivery) noexcept nogil
# The peer has acknowledged our SYN. window: SEG.WND, scaled.
cdef void established(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil
# seg: a copy of it, which begins with the SYN that we know.
# The SYN-ACK of a simultaneous open, and what its SYN has agreed on. False: the connection ends.
cdef bint confirms_feedback(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
cdef void trim_syn_ack(const tcb_t *tcb, segment_t *seg) noexcept nogil
