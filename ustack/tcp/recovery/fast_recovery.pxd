# SPDX-License-Identifier: MIT
# Fast retransmit and fast recovery: RFC 5681 section 3.2, RFC 6582 section 3.2.
#
#     third duplicate ACK ──▶ repair_begin ──▶ TCB_RECOVERY ──▶ repair_on_duplicate, repair_on_ack (partial) ──┐
#                                                   ▲                                                          │
#                                                   └──────────────────────────────────────────────────────────┘
#                             everything up to `recover` acknowledged (repair_on_ack), or smaller segments (path): done
#
# It decides what is sent again (TCB_REXMIT) and, while it lasts, the window (newreno_window). Its congestion control is
# asked for ssthresh and the window to start from. Above: ack, path. Below: control, newreno_window, rtt.

from libc.stdint cimport uint32_t

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# The segment at SND.UNA is lost. tcb.recover: SND.MAX before limited transmit added to it.
cdef void repair_begin(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# One more duplicate ACK.
cdef void repair_on_duplicate(tcb_t *tcb) noexcept nogil
# Something new is acknowledged, SND.UNA has not moved yet. rtt_us: what the ACK has measured, 0: nothing.
cdef void repair_on_ack(tcp_t *tcp, tcb_t *tcb, uint32_t ack, uint32_t rtt_us) noexcept nogil
# The repair ends early, without the window that duplicates have added.
cdef void repair_end(tcb_t *tcb) noexcept nogil
