# SPDX-License-Identifier: MIT
# Counting what a connection has been through (history.pxd), and the only way to move what is counted.
#
# RCV.NXT and tcb.delivered move by the functions below: that they have come round is found by a comparison, and all
# that follows is out of line. It must not: decide anything. Below: history, life. Above: arrival, receive, recovery,
# send, status.

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.flight cimport rexmit_cause_t
from ustack.tcp.records.history cimport birth_at
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# `length` sequence numbers were sent again, `data` of them without SYN and FIN.
cdef void tally_resent(tcp_t *tcp, tcb_t *tcb, rexmit_cause_t cause, uint32_t length, uint32_t data) noexcept nogil
cdef void tally_duplicate(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void tally_spurious(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void tally_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Out of line: a count has come round, forwards or back.
cdef void received_came_round(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void received_went_back(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void delivered_came_round(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void delivered_went_back(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Bytes of data received in order and acknowledged by the peer, and nanoseconds since the connection was opened.
cdef uint64_t tally_received(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
cdef uint64_t tally_delivered(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
cdef uint64_t tally_age_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil


# The peer's SYN has come.
cdef inline void rcv_nxt_begin(tcp_t *tcp, tcb_t *tcb, uint32_t irs) noexcept nogil:
    birth_at(tcp, tcb.index).irs = irs
    tcb.rcv_nxt = irs + 1


# `length` sequence numbers more have been received, at least one.
cdef inline void rcv_nxt_advance(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    tcb.rcv_nxt += length
    if tcb.rcv_nxt < length:
        received_came_round(tcp, tcb)


# What was counted has not been received after all.
cdef inline void rcv_nxt_retreat(tcp_t *tcp, tcb_t *tcb, uint32_t seq) noexcept nogil:
    if seq > tcb.rcv_nxt:
        received_went_back(tcp, tcb)
    tcb.rcv_nxt = seq


cdef inline void delivered_advance(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    tcb.delivered += length
    if tcb.delivered < length:
        delivered_came_round(tcp, tcb)


cdef inline void delivered_retreat(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    if tcb.delivered < length:
        delivered_went_back(tcp, tcb)
    tcb.delivered -= length
