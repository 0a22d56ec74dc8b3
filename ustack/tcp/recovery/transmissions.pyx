# SPDX-License-Identifier: MIT
"""The record of transmissions. See transmissions.pxd for the contract and flight.pxd for the layout."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.debug cimport ensure
from ustack.base.types cimport us_of
from ustack.buf.slab cimport slab_alloc
from ustack.tcp.records.flight cimport (
    TRANSMISSIONS_MAX, TX_APP_LIMITED, TX_LOST, TX_RETRANSMITTED, TX_SACKED, TX_SIZE_PROBE, TX_USED, pacer_t,
    sacked_segments, transmission_at, transmission_bytes)
from ustack.tcp.records.tcb cimport tcp_now_us
from ustack.tcp.recovery.transmission_lists cimport list_append, list_insert_newer, list_remove
from ustack.tcp.recovery.transmission_tree cimport tree_insert, tree_remove
from ustack.wire.seq cimport seq_lt


# ---------------------------------------------------------------- sending

cdef inline void stamp(const tcb_t *tcb, const flight_t *flight, transmission_t *sent, uint64_t sent_ns) noexcept nogil:
    """What a record says of one sending."""
    sent.sent_ns = sent_ns
    sent.delivered = tcb.delivered
    sent.delivered_us = flight.delivered_us
    sent.first_sent_us = flight.first_sent_us
    sent.in_flight = flight.pipe
    sent.lost = flight.lost


cdef void flight_write_out(const tcp_t *tcp, const tcb_t *tcb, flight_t *flight) noexcept nogil:
    """SND.UNA, SND.NXT and C.delivered are what they were when the frame had been sent: what moves them asks for the
    flight before. SMSS may be another."""
    cdef uint64_t sent_ns = flight.first.sent_ns
    cdef uint16_t segment_bytes = flight.first.segment_bytes
    cdef uint32_t probe_tick = flight.probe_tick
    cdef pacer_t pacer = flight.pacer
    cdef transmission_t *sent = &flight.first
    ensure(flight.records == 1 and tcb.snd_nxt != tcb.snd_una)
    memset(flight, 0, sizeof(flight_t))
    flight.probe_tick = probe_tick
    flight.pacer = pacer
    flight.head = TRANSMISSION_FIRST
    flight.tail = TRANSMISSION_FIRST
    flight.root = TRANSMISSION_FIRST
    flight.by_time.first = TRANSMISSION_FIRST
    flight.by_time.last = TRANSMISSION_FIRST
    flight.records = 1
    flight.seed = tcb.index ^ tcp.transmission_seed
    flight.delivered_us = us_of(sent_ns)
    flight.first_sent_us = flight.delivered_us
    # What was sent before was all there was to send: what goes out now says little of the path, until it is delivered.
    flight.app_limited = tcb.delivered | 1
    flight.next_round = tcb.delivered
    flight.rack_fack = tcb.snd_una          # everything before is delivered
    flight.pipe = tcb.snd_nxt - tcb.snd_una
    sent.seq = tcb.snd_una
    sent.end = tcb.snd_nxt
    sent.first_us = flight.delivered_us
    stamp(tcb, flight, sent, sent_ns)
    sent.segment_bytes = segment_bytes
    sent.flags = TX_USED | TX_APP_LIMITED
    sent.sends = 1


cdef uint32_t transmission_reserve(tcp_t *tcp, flight_t *flight) noexcept nogil:
    cdef uint32_t index = 0
    if not flight.first.flags & TX_USED:
        return TRANSMISSION_FIRST
    if flight.records < TRANSMISSIONS_MAX:
        index = slab_alloc(&tcp.transmissions)
    if index == 0:
        count(tcp.counters, TRANSMISSIONS_REFUSED)
    return index


cdef void transmission_append(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index, uint32_t end) noexcept nogil:
    cdef transmission_t *sent = transmission_at(tcp, flight, index)
    cdef uint32_t now_us = tcp_now_us(tcp)
    if flight.pipe == 0:                    # draft-ietf-ccwg-bbr section 4.1.2.2
        flight.first_sent_us = now_us
        flight.delivered_us = now_us
    sent.seq = tcb.snd_nxt
    sent.end = end
    sent.first_us = now_us
    flight.pipe += end - tcb.snd_nxt
    stamp(tcb, flight, sent, tcp.now_ns)
    sent.segment_bytes = tcb.smss
    sent.next = 0
    sent.flags = <uint8_t>(TX_USED | (TX_APP_LIMITED if flight.app_limited else 0))
    sent.sends = 1
    transmission_at(tcp, flight, flight.tail).next = index
    flight.tail = index
    flight.records += 1
    list_append(tcp, flight, index)
    tree_insert(tcp, flight, index)


cdef void transmission_resent(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index) noexcept nogil:
    cdef transmission_t *sent = transmission_at(tcp, flight, index)
    list_remove(tcp, flight, index)
    if flight.pipe == 0:
        flight.first_sent_us = tcp_now_us(tcp)
        flight.delivered_us = flight.first_sent_us
    flight.pipe += transmission_bytes(sent)
    stamp(tcb, flight, sent, tcp.now_ns)
    sent.segment_bytes = tcb.smss
    sent.flags = <uint8_t>(TX_USED | TX_RETRANSMITTED | (TX_APP_LIMITED if flight.app_limited else 0))
    if sent.sends < 255:
        sent.sends += 1
    list_append(tcp, flight, index)


# ---------------------------------------------------------------- splitting, joining

cdef uint32_t transmission_edge_below(const transmission_t *sent, uint32_t at) noexcept nogil:
    cdef uint32_t within = at - sent.seq
    if within >= transmission_bytes(sent):
        return sent.end
    return sent.seq + within - within % sent.segment_bytes


cdef uint32_t transmission_edge_above(const transmission_t *sent, uint32_t at) noexcept nogil:
    cdef uint32_t within = at - sent.seq + sent.segment_bytes - 1
    within -= within % sent.segment_bytes
    return sent.seq + within if within < transmission_bytes(sent) else sent.end


cdef uint32_t transmission_split(tcp_t *tcp, flight_t *flight, uint32_t index, uint32_t at) noexcept nogil:
    cdef uint32_t added = transmission_reserve(tcp, flight)
    cdef transmission_t *sent
    cdef transmission_t *second
    if added == 0:
        return 0
    sent = transmission_at(tcp, flight, index)
    second = transmission_at(tcp, flight, added)
    ensure(seq_lt(sent.seq, at) and seq_lt(at, sent.end))
    second[0] = sent[0]
    second.seq = at
    sent.end = at
    sent.next = added
    if flight.tail == index:
        flight.tail = added
    flight.records += 1
    if not sent.flags & TX_SACKED:
        list_insert_newer(tcp, flight, index, added)
    tree_insert(tcp, flight, added)
    return added


cdef void transmission_merge(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil:
    cdef transmission_t *sent = transmission_at(tcp, flight, index)
    cdef uint32_t gone = sent.next
    cdef transmission_t *other = transmission_at(tcp, flight, gone)
    ensure(sent.flags & (TX_SACKED | TX_LOST) == other.flags & (TX_SACKED | TX_LOST))
    tree_remove(tcp, flight, gone)
    if sent.flags & TX_SACKED:
        sacked_segments(sent)[0] += sacked_segments(other)[0]
    else:
        list_remove(tcp, flight, gone)
        flight.lost_bytes += transmission_bytes(other)
        if (sent.flags ^ other.flags) & TX_SIZE_PROBE:      # the whole counts, or nothing of it
            flight.lost += transmission_bytes(sent if sent.flags & TX_SIZE_PROBE else other)
            sent.flags &= <uint8_t>~TX_SIZE_PROBE
    sent.end = other.end
    sent.next = other.next
    sent.flags |= other.flags & TX_RETRANSMITTED
    if flight.tail == gone:
        flight.tail = index
    transmission_give_back(tcp, flight, gone)


cdef void transmissions_end(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const flight_t *flight = flight_of(tcp, tcb)
    cdef uint32_t index, following
    if flight == NULL:
        return
    index = flight.head
    while index:
        following = transmission_at(tcp, flight, index).next
        if index != TRANSMISSION_FIRST:
            slab_release(&tcp.transmissions, index)
        index = following
    flight_release(tcp, tcb)
