# SPDX-License-Identifier: MIT
# The record of transmissions: what was sent, when, and where it is now. The layout is in records/flight.pxd.
#
#     send         transmission_prepare, transmission_sent (new data, a SYN, a FIN), transmission_resent, split, merge
#     scoreboard   transmission_split, transmission_merge
#     elsewhere    what has arrived is measured and goes (delivered); what is lost, or is not after all (losses)
#
# Finding, splitting and removing one costs O(log n) steps (transmission_tree); the rest is constant.
#
# Memory: one flight_t per connection with something in flight (config.flights of them), and a record for each frame but
# the first (config.transmissions in all, TRANSMISSIONS_MAX for one connection). Where none is to be had
# (TRANSMISSIONS_REFUSED) the sender works on, more slowly: without a flight_t one frame is out at a time and only the
# retransmission timer repairs it; without a further record new data waits until an ACK gives one back; a super-frame
# that cannot be split stays whole, and what is SACKed within it goes unnoticed.
#
# It must not: decide what is lost, know of windows. Below: flight, transmission_lists, transmission_tree. Above:
# delivered, scoreboard, repair, ack, send, output.

from libc.stdint cimport uint32_t

from ustack.base.counters cimport TRANSMISSIONS_REFUSED, count
from ustack.buf.slab cimport slab_release, slab_take
from ustack.tcp.records.flight cimport (
    FLIGHT_LONE, FRTO_NONE, REPAIR_NONE, TRANSMISSION_FIRST, flight_raw, flight_t, transmission_t)
from ustack.tcp.records.tcb cimport DEADLINE_PACE, DEADLINE_PROBE, tcb_t, tcp_t

# A lone flight becomes one like any other.
cdef void flight_write_out(const tcp_t *tcp, const tcb_t *tcb, flight_t *flight) noexcept nogil

# ---------------------------------------------------------------- sending
cdef uint32_t transmission_reserve(tcp_t *tcp, flight_t *flight) noexcept nogil
cdef void transmission_append(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index, uint32_t end) noexcept nogil
# It has been sent again, now. It was lost, or a probe repeats it.
cdef void transmission_resent(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index) noexcept nogil

# ---------------------------------------------------------------- splitting
# Cut one in two at `at`, which lies within it; the second part's index. 0: there is no record for it, nothing changed.
cdef uint32_t transmission_split(tcp_t *tcp, flight_t *flight, uint32_t index, uint32_t at) noexcept nogil
# The last sequence number at which a record may be cut that is not above `at`; its own ends included.
cdef uint32_t transmission_edge_below(const transmission_t *sent, uint32_t at) noexcept nogil
cdef uint32_t transmission_edge_above(const transmission_t *sent, uint32_t at) noexcept nogil

# ---------------------------------------------------------------- where it is
# The record behind one is SACKed as it is, or lost as it is: both become one.
cdef void transmission_merge(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil
# The connection has ended.
cdef void transmissions_end(tcp_t *tcp, tcb_t *tcb) noexcept nogil


# What is in flight; NULL: nothing, or there was no memory for it. (const: what it says is the same before and after.)
cdef inline flight_t *flight_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef flight_t *flight
    if tcb.flight == 0:
        return NULL
    flight = flight_raw(tcp, tcb)
    if flight.flags & FLIGHT_LONE:
        flight_write_out(tcp, tcb, flight)
    return flight


# A record for the next frame, before it is sent: its index, 0: none is to be had. Until it is sent, or cancelled,
# nobody asks for the flight of a first one.
cdef inline uint32_t transmission_prepare(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.flight:
        return transmission_reserve(tcp, flight_of(tcp, tcb))
    tcb.flight = slab_take(&tcp.flights)
    if tcb.flight == 0:
        count(tcp.counters, TRANSMISSIONS_REFUSED)
        return 0
    flight_raw(tcp, tcb).records = 0
    return TRANSMISSION_FIRST


# The frame was not sent after all.
cdef inline void transmission_cancel(tcp_t *tcp, tcb_t *tcb, uint32_t index) noexcept nogil:
    if index == 0:
        return
    if flight_raw(tcp, tcb).records == 0:
        flight_release(tcp, tcb)
    elif index != TRANSMISSION_FIRST:
        slab_release(&tcp.transmissions, index)


cdef inline void flight_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    tcb.armed &= <unsigned char>~(1 << DEADLINE_PROBE | 1 << DEADLINE_PACE)
    slab_release(&tcp.flights, tcb.flight)
    tcb.flight = 0


# [SND.NXT, end) has been sent for the first time, as the record that was prepared. SND.NXT has not moved yet.
cdef inline void transmission_sent(tcp_t *tcp, tcb_t *tcb, uint32_t index, uint32_t end) noexcept nogil:
    cdef flight_t *flight = flight_raw(tcp, tcb)
    if flight.records:
        transmission_append(tcp, tcb, flight, index, end)
        return
    flight.records = 1
    flight.flags = FLIGHT_LONE
    flight.repair = REPAIR_NONE
    flight.frto = FRTO_NONE
    flight.to_resend.first = 0
    flight.sacked_bytes = 0
    flight.pacer.rate = 0
    flight.pacer.next_ns = 0
    flight.first.sent_ns = tcp.now_ns
    flight.first.segment_bytes = tcb.smss


# A record that is in neither tree nor list any more.
cdef inline void transmission_give_back(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil:
    flight.records -= 1
    if index == TRANSMISSION_FIRST:
        flight.first.flags = 0
    else:
        slab_release(&tcp.transmissions, index)
