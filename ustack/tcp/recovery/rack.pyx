# SPDX-License-Identifier: MIT
"""RACK: losses found by the time of sending. See rack.pxd for the rules and the sources."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.counters cimport RETRANSMITS_LOST, TRANSMISSION_STEPS, count, count_add
from ustack.base.types cimport us_of
from ustack.tcp.records.deadlines cimport deadline_clear, deadline_set_probe
from ustack.tcp.records.flight cimport (
    FLIGHT_DSACK_ROUND, FLIGHT_REORDER, REPAIR_NONE, REXMIT_FAST, REXMIT_RACK, REXMIT_RTO, REXMIT_SIZE, TX_LOST,
    TX_RETRANSMITTED, TX_SACKED, TX_SIZE_PROBE, TX_TIMED, rexmit_cause_t, transmission_at, transmission_bytes,
    transmission_t)
from ustack.tcp.records.tcb cimport DEADLINE_PROBE, OPT_SACK, TCB_REORDERED
from ustack.tcp.records.trace cimport TRACE_LOST, trace_note
from ustack.tcp.recovery.control cimport control_lost
from ustack.tcp.recovery.losses cimport transmission_lose, transmission_lose_first
from ustack.tcp.recovery.path cimport path_probe_lost
from ustack.tcp.recovery.rtt cimport rtt_min_us
from ustack.wire.seq cimport seq_ge


cdef void rack_update(tcp_t *tcp, flight_t *flight, const ack_news_t *news) noexcept nogil:
    """Step 2. Step 3 is in `measure`, which sees each segment (delivered)."""
    if news.newest_sent_ns == 0:
        return
    flight.rack_rtt_us = us_of(tcp.now_ns - news.newest_sent_ns)
    if rack_sent_after(news.newest_sent_ns, news.newest_end, flight.rack_sent_ns, flight.rack_end):
        flight.rack_sent_ns = news.newest_sent_ns
        flight.rack_end = news.newest_end


cdef void rack_note_dsack(tcb_t *tcb, flight_t *flight) noexcept nogil:
    """Step 4: once per round trip."""
    if flight.flags & FLIGHT_DSACK_ROUND and not seq_ge(tcb.snd_una, flight.dsack_round):
        return
    flight.flags |= FLIGHT_DSACK_ROUND
    flight.dsack_round = tcb.snd_nxt
    tcb.reordering = reordering_widened(tcb.reordering)


cdef void rack_note_recovered(tcb_t *tcb) noexcept nogil:
    tcb.reordering = reordering_faded(tcb.reordering)


cdef uint32_t rack_window_us(const tcb_t *tcb, const flight_t *flight) noexcept nogil:
    return reordering_window_us(tcb.flags & TCB_REORDERED, flight.repair != REPAIR_NONE, flight.sacked_segs,
                                reordering_multiplier(tcb.reordering), rtt_min_us(tcb), tcb.srtt_us)


cdef uint32_t rack_detect(tcp_t *tcp, tcb_t *tcb, flight_t *flight, ack_news_t *news) noexcept nogil:
    cdef uint64_t patience_ns, due_ns
    cdef uint32_t index = flight.by_time.first, lost = 0, steps = 0, window_us
    cdef bint timed
    cdef rexmit_cause_t cause
    cdef transmission_t *sent
    if flight.flags & FLIGHT_REORDER:
        flight.flags &= ~FLIGHT_REORDER
        deadline_clear(tcb, DEADLINE_PROBE)
    if flight.rack_sent_ns == 0:
        return 0
    window_us = rack_window_us(tcb, flight)
    patience_ns = (<uint64_t>flight.rack_rtt_us + window_us) * 1000
    while index:
        sent = transmission_at(tcp, flight, index)
        steps += 1
        if not rack_sent_after(flight.rack_sent_ns, flight.rack_end, sent.sent_ns, sent.end):
            break
        due_ns = sent.sent_ns + patience_ns
        if due_ns > tcp.now_ns:
            flight.flags |= FLIGHT_REORDER
            deadline_set_probe(tcp, tcb, due_ns - tcp.now_ns)
            break
        if sent.flags & TX_RETRANSMITTED:
            count(tcp.counters, RETRANSMITS_LOST)
        timed = window_us != 0 or sent.flags & TX_RETRANSMITTED
        sent.flags = <uint8_t>((sent.flags & ~TX_TIMED) | (TX_TIMED if timed else 0))
        cause = REXMIT_RACK if timed else REXMIT_FAST
        if sent.flags & TX_SIZE_PROBE:
            path_probe_lost(tcp, tcb)
            cause = REXMIT_SIZE
        else:
            lost += transmission_bytes(sent)
        transmission_lose(tcp, flight, index)
        control_lost(tcp, tcb, flight, index)
        trace_note(tcp, tcb, TRACE_LOST, cause, sent.seq, transmission_bytes(sent), 0)
        index = flight.by_time.first
    count_add(tcp.counters, TRANSMISSION_STEPS, steps)
    news.newly_lost += lost
    return lost


cdef void rack_lose_at_timeout(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """Section 6.3: the first outstanding segment is lost, and what was sent more than RACK.rtt and the reordering
    window ago. What has been sent since, as it happens with short timeouts, is given its time.

    Before anything of this flight is delivered RACK.rtt is the connection's SRTT. Without SACK there is no RACK
    (section 4), and all of the flight is lost, as nothing but a further timeout would find the rest.
    """
    cdef uint64_t patience_ns = 0
    cdef uint32_t index, steps = 1
    cdef bint known
    cdef transmission_t *sent = transmission_at(tcp, flight, flight.head)
    if tcb.options & OPT_SACK:
        patience_ns = <uint64_t>(flight.rack_rtt_us if flight.rack_rtt_us else tcb.srtt_us) * 1000
        patience_ns += rack_window_us(tcb, flight) * 1000ULL
    if sent.flags & TX_RETRANSMITTED and not sent.flags & (TX_LOST | TX_SACKED):
        count(tcp.counters, RETRANSMITS_LOST)
    if not sent.flags & TX_SACKED:
        known = sent.flags & TX_LOST
        transmission_lose_first(tcp, flight)
        if not known:
            control_lost(tcp, tcb, flight, flight.head)
            trace_note(tcp, tcb, TRACE_LOST, REXMIT_RTO, sent.seq, transmission_bytes(sent), 0)
    index = flight.by_time.first
    while index:
        sent = transmission_at(tcp, flight, index)
        steps += 1
        if sent.sent_ns + patience_ns > tcp.now_ns:
            break
        transmission_lose(tcp, flight, index)
        control_lost(tcp, tcb, flight, index)
        trace_note(tcp, tcb, TRACE_LOST, REXMIT_RTO, sent.seq, transmission_bytes(sent), 0)
        index = flight.by_time.first
    count_add(tcp.counters, TRANSMISSION_STEPS, steps)
