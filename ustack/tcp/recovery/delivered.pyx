# SPDX-License-Identifier: MIT
"""What an ACK delivers. See delivered.pxd for the contract."""

from libc.stdint cimport uint8_t, uint32_t

from ustack.base.types cimport ms_of
from ustack.tcp.records.flight cimport (
    FLIGHT_RECOVER, TX_APP_LIMITED, TX_LOST, TX_RETRANSMITTED, TX_SACKED, sacked_segments, transmission_at,
    transmission_bytes, transmission_t)
from ustack.tcp.records.tcb cimport TCB_MSS_PROVEN, TCB_REORDERED
from ustack.tcp.recovery.rtt cimport rtt_min_us
from ustack.tcp.recovery.transmission_lists cimport list_remove
from ustack.tcp.recovery.transmission_tree cimport tree_remove
from ustack.tcp.recovery.transmissions cimport transmission_give_back
from ustack.wire.seq cimport seq_gt, seq_le, seq_lt


cdef inline uint32_t segments_of(const transmission_t *sent) noexcept nogil:
    return (transmission_bytes(sent) + sent.segment_bytes - 1) // sent.segment_bytes


cdef inline bint is_ambiguous(const tcp_t *tcp, const tcb_t *tcb, const transmission_t *sent,
                              const ack_news_t *news, bint cumulatively) noexcept nogil:
    """RFC 8985 section 6.2 step 2: the ACK may be for an earlier sending of it.

    The echo tells only of what is acknowledged cumulatively. A segment beyond a hole is answered with the timestamp of
    what came before the hole (RFC 7323 section 4.3, case B), so of what is SACKed it would say "not this sending"
    always, and a lost tail would wait for a timeout though the probe has arrived. Linux asks the round trip alone."""
    if not sent.flags & TX_RETRANSMITTED:
        return False
    if cumulatively and news.has_ts and seq_lt(news.ts_ecr, ms_of(sent.sent_ns) + tcp.timestamp_offset):
        return True
    return (tcp.now_ns - sent.sent_ns) // 1000 < rtt_min_us(tcb)


cdef inline void measure(tcp_t *tcp, tcb_t *tcb, flight_t *flight, const transmission_t *sent,
                         ack_news_t *news, bint cumulatively) noexcept nogil:
    """A record has been delivered just now: what it says of the round trip, the rate, RACK.segment and reordering."""
    # RFC 8985 section 6.2 step 3. What one ACK delivers is not in the order of delivery, so it counts what was the
    # highest before.
    if seq_lt(sent.end, news.fack) and not sent.flags & TX_RETRANSMITTED:
        tcb.flags |= TCB_REORDERED
    if seq_gt(sent.end, flight.rack_fack):
        flight.rack_fack = sent.end
    if not sent.flags & TX_RETRANSMITTED:
        if sent.sent_ns > news.rtt_newest_ns:
            news.rtt_newest_ns = sent.sent_ns
        if cumulatively and (news.rtt_oldest_ns == 0 or sent.sent_ns < news.rtt_oldest_ns):
            news.rtt_oldest_ns = sent.sent_ns
        if flight.flags & FLIGHT_RECOVER:
            if seq_le(sent.end, flight.recover):
                news.original = True
            else:
                news.beyond = True
        if sent.segment_bytes == tcb.smss and transmission_bytes(sent) >= tcb.smss:
            tcb.flags |= TCB_MSS_PROVEN     # sent once, and it arrived
    elif cumulatively:
        news.repeated = True
    if is_ambiguous(tcp, tcb, sent, news, cumulatively):
        return
    if sent.flags & TX_RETRANSMITTED and cumulatively and news.has_ts and sent.sent_ns > news.rtt_echoed_ns:
        news.rtt_echoed_ns = sent.sent_ns
    if sent.sent_ns > news.newest_sent_ns or (sent.sent_ns == news.newest_sent_ns
                                              and seq_gt(sent.end, news.newest_end)):
        news.newest_sent_ns = sent.sent_ns
        news.newest_end = sent.end
        news.newest_delivered = sent.delivered
        news.newest_delivered_us = sent.delivered_us
        news.newest_first_sent_us = sent.first_sent_us
        news.newest_in_flight = sent.in_flight
        news.newest_lost = sent.lost
        news.newest_app_limited = sent.flags & TX_APP_LIMITED


cdef void transmission_deliver(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index,
                               ack_news_t *news) noexcept nogil:
    cdef transmission_t *sent = transmission_at(tcp, flight, index)
    cdef uint32_t length = transmission_bytes(sent)
    measure(tcp, tcb, flight, sent, news, False)
    list_remove(tcp, flight, index)
    sent.flags = <uint8_t>((sent.flags & ~TX_LOST) | TX_SACKED)
    flight.sacked_bytes += length
    sacked_segments(sent)[0] = segments_of(sent)
    flight.sacked_segs += segments_of(sent)
    news.sacked += length
    news.delivered += length


cdef inline void note_echo(const tcp_t *tcp, const flight_t *flight, const transmission_t *sent,
                           ack_news_t *news) noexcept nogil:
    """RFC 3522 section 3.2 (4), of the first that is acknowledged: an echo from strictly before its first
    retransmission. A tick of a millisecond may hide one, it never invents one. Of what was sent more than twice only
    the last time is known, and the first retransmission of the repair."""
    cdef uint32_t last = ms_of(sent.sent_ns) + tcp.timestamp_offset
    if not news.has_ts or not sent.flags & TX_RETRANSMITTED or sent.flags & TX_SACKED:
        return
    if seq_lt(news.ts_ecr, last) and (sent.sends == 2 or seq_lt(news.ts_ecr, flight.resent_ts)):
        news.first_echoed = True


cdef void transmissions_acknowledge(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t ack,
                                    ack_news_t *news) noexcept nogil:
    cdef transmission_t *sent
    cdef transmission_t part
    cdef uint32_t index, length
    if flight.records:
        note_echo(tcp, flight, transmission_at(tcp, flight, flight.head), news)
    while flight.records:
        index = flight.head
        sent = transmission_at(tcp, flight, index)
        if not seq_lt(sent.seq, ack):
            return
        if seq_gt(sent.end, ack):           # the first part of a super-frame
            part = sent[0]
            part.end = ack
            length = ack - sent.seq
            if sent.flags & TX_SACKED:
                flight.sacked_bytes -= length
            else:
                measure(tcp, tcb, flight, &part, news, True)
                news.delivered += length
                if sent.flags & TX_LOST:
                    flight.lost_bytes -= length
                else:
                    flight.pipe -= length
                    if flight.duplicate_bytes > flight.pipe:
                        flight.duplicate_bytes = flight.pipe
            sent.seq = ack
            if sent.flags & TX_SACKED and segments_of(sent) < sacked_segments(sent)[0]:
                flight.sacked_segs -= sacked_segments(sent)[0] - segments_of(sent)
                sacked_segments(sent)[0] = segments_of(sent)
            return
        if sent.flags & TX_SACKED:
            flight.sacked_bytes -= transmission_bytes(sent)
            flight.sacked_segs -= sacked_segments(sent)[0]
        else:
            measure(tcp, tcb, flight, sent, news, True)
            news.delivered += transmission_bytes(sent)
            list_remove(tcp, flight, index)
        tree_remove(tcp, flight, index)
        flight.head = sent.next
        if flight.head == 0:
            flight.tail = 0
        transmission_give_back(tcp, flight, index)
