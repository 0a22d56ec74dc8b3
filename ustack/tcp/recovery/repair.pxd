# SPDX-License-Identifier: MIT
# The course of a repair: what begins it, which window holds while it lasts, what ends it.
#
#                      RACK, or three duplicates                  everything up to `recover` acknowledged
#     REPAIR_NONE ──┬─ repair_begin ──▶ REPAIR_FAST (PRR) ──────────────────────────────────────────┬──▶ REPAIR_NONE
#                   ├─ the RTO ───────▶ REPAIR_RTO  (slow start from one segment, F-RTO) ───────────┤
#                   └─ a smaller MTU ─▶ REPAIR_SIZE (the window as it is) ──────────────────────────┤
#                                       the repair was none (undo) ─────────────────────────────────┘
#
# The control hears of each repair once (on_loss, on_rto), and for each ACK what it has told (on_ack). In fast recovery
# the window is PRR's (prr.pxd) and what a control leaves in its view is not used; at the end it is ssthresh.
#
# Peers without SACK: three duplicate ACKs (RFC 5681 section 3.2) mark the segment at SND.UNA, partial ACKs the next one
# (RFC 6582 section 3.2); each duplicate counts as one segment delivered, as far as there are any (RFC 9937 section
# 6.2). Limited transmit (RFC 3042) needs no rule of its own: what is SACKed, or duplicated, is not in flight any more,
# so that new data may go.
#
# Above: ack, timers, network_errors, path. Below: rack, tlp, prr, undo, scoreboard, control.

from libc.stdint cimport uint32_t

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.recovery.delivered cimport ack_news_t

# An ACK has been entered into the record of transmissions, and SND.UNA has moved. una: SND.UNA before it. in_flight:
# what was, before it. duplicate: a duplicate ACK (RFC 5681 section 2).
cdef void repair_on_ack(tcp_t *tcp, tcb_t *tcb, flight_t *flight, ack_news_t *news, uint32_t una, uint32_t in_flight,
                        bint duplicate) noexcept nogil
# A duplicate ACK from a peer without SACK, before it is looked at.
cdef void repair_count_duplicate(tcb_t *tcb, flight_t *flight, ack_news_t *news) noexcept nogil
# The reordering timer: some of what waited may be lost now.
cdef void repair_on_reordering_timeout(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil
# The retransmission timer: what is lost is marked, the first segment will be sent whatever the window says.
cdef void repair_on_rto(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil
# Everything in flight was dropped for another reason than congestion: a closed window, segments that were too big.
# above: only records with more than so many bytes.
cdef void repair_resend(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t above) noexcept nogil
# `length` bytes have been sent, new or again, while a repair lasts.
cdef void repair_note_sent(tcp_t *tcp, flight_t *flight, uint32_t length, bint again) noexcept nogil
# A tail loss probe alone has repaired a loss: the control hears of it (RFC 8985 section 7.4.2).
cdef void repair_by_probe(tcp_t *tcp, tcb_t *tcb, uint32_t flight_bytes) noexcept nogil
