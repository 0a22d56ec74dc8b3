# SPDX-License-Identifier: MIT
# What an acknowledgment does to the sender: SND.UNA, the send queue, RTT, congestion control, loss recovery, SND.WND.
#
# One ACK, in this order: the scoreboard (SACK, DSACK), what is acknowledged leaves the record of transmissions, the
# round trip, RACK, then repair: undo, loss detection, the control, the window. Last the timers. The common case, one
# frame out and one ACK for all of it, has a short way.
#
# Above: input, timers. Below: tcb, rtt, control, scoreboard, repair. It sends nothing: it leaves work on the tcb.
# Read first: RFC 9293 section 3.10.7.4 fifth step, RFC 8985, RFC 5681 section 3.2, RFC 5961 section 5.

from libc.stdint cimport uint32_t

from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.wire.tcp cimport segment_t

# Process SEG.ACK and SEG.WND in a synchronized state. SEG.ACK: acceptable, so not beyond SND.MAX (input, check_ack).
# window: SEG.WND scaled.
cdef void ack_input(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil
# SND.WND <- SEG.WND, SND.WL1 <- SEG.SEQ, SND.WL2 <- SEG.ACK, without conditions (first segments of a connection).
cdef void ack_set_window(tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil
# Both ends are synchronized: initial congestion window (RFC 6928). repeats: how often the timer has sent our SYN or
# SYN-ACK again; one may have been needless, two are a sign of congestion. rtt_us: what the handshake has measured, an
# upper bound, so no minimum; 0: nothing that is not known already.
cdef void ack_start(tcp_t *tcp, tcb_t *tcb, uint32_t repeats, uint32_t rtt_us) noexcept nogil
cdef uint32_t initial_window(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
