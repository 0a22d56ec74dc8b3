# SPDX-License-Identifier: MIT
"""The SACK scoreboard. See scoreboard.pxd for the rules and the sources."""

from libc.stdint cimport uint32_t

from ustack.base.counters cimport DSACKS_IN, SACK_BLOCKS_IGNORED, TRANSMISSION_STEPS, count, count_add
from ustack.tcp.records.flight cimport TX_SACKED, transmission_at, transmission_t
from ustack.tcp.records.tally cimport tally_duplicate
from ustack.tcp.records.tcb cimport tcb_max_window
from ustack.tcp.recovery.delivered cimport transmission_deliver
from ustack.tcp.recovery.transmission_tree cimport transmission_floor
from ustack.tcp.recovery.transmissions cimport (
    transmission_edge_above, transmission_edge_below, transmission_merge, transmission_split)
from ustack.wire.seq cimport seq_ge, seq_gt, seq_le, seq_lt, seq_max


cdef bint take_duplicate(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, ack_news_t *news) noexcept nogil:
    """RFC 2883 section 4: is the first block one? What it reports must have been sent, and not long ago (RFC 5961)."""
    cdef uint32_t left = seg.sack[0].left, right = seg.sack[0].right
    cdef bint inside = (seg.sack_count > 1 and seq_ge(left, seg.sack[1].left) and seq_le(right, seg.sack[1].right))
    if not seq_lt(left, right) or not (seq_le(right, seg.ack) or inside):
        return False
    if seq_gt(right, tcb.snd_nxt) or seq_lt(left, tcb.snd_una - tcb_max_window(tcb)):
        count(tcp.counters, SACK_BLOCKS_IGNORED)
        return True
    count(tcp.counters, DSACKS_IN)
    tally_duplicate(tcp, tcb)
    news.dsack = True
    news.dsack_left = left
    news.dsack_right = right
    return True


cdef uint32_t first_of_block(tcp_t *tcp, flight_t *flight, uint32_t left, uint32_t right,
                             uint32_t *before) noexcept nogil:
    """The first record that may be marked for a block, split off if need be, and the one before it. 0: none."""
    cdef uint32_t index = transmission_floor(tcp, flight, left)
    cdef transmission_t *sent = transmission_at(tcp, flight, index)
    cdef uint32_t edge
    before[0] = 0
    if sent.seq == left:
        if index != flight.head:
            before[0] = transmission_floor(tcp, flight, left - 1)
        return index
    before[0] = index
    if sent.flags & TX_SACKED:
        return sent.next
    edge = transmission_edge_above(sent, left)
    if seq_le(transmission_edge_below(sent, right), edge) and edge != sent.end:
        return 0                            # no whole segment of it
    return sent.next if edge == sent.end else transmission_split(tcp, flight, index, edge)


cdef void mark(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t left, uint32_t right,
               ack_news_t *news) noexcept nogil:
    """[left, right) lies within [SEG.ACK, SND.NXT)."""
    cdef uint32_t before, index = first_of_block(tcp, flight, left, right, &before), edge, steps = 0
    cdef transmission_t *sent
    while index:
        sent = transmission_at(tcp, flight, index)
        steps += 1
        if not seq_lt(sent.seq, right):
            break
        if not sent.flags & TX_SACKED:
            if seq_gt(sent.end, right):
                edge = transmission_edge_below(sent, right)
                if edge == sent.seq or transmission_split(tcp, flight, index, edge) == 0:
                    break
            transmission_deliver(tcp, tcb, flight, index, news)
            if before and transmission_at(tcp, flight, before).flags & TX_SACKED:
                transmission_merge(tcp, flight, before)
                index = before
            sent = transmission_at(tcp, flight, index)
            if sent.next and transmission_at(tcp, flight, sent.next).flags & TX_SACKED:
                transmission_merge(tcp, flight, index)
        before = index
        index = transmission_at(tcp, flight, index).next
    count_add(tcp.counters, TRANSMISSION_STEPS, steps)


cdef void scoreboard_take(tcp_t *tcp, tcb_t *tcb, flight_t *flight, const segment_t *seg,
                          ack_news_t *news) noexcept nogil:
    cdef uint32_t i = 1 if take_duplicate(tcp, tcb, seg, news) else 0
    cdef uint32_t floor = seq_max(seg.ack, tcb.snd_una), left, right
    while i < seg.sack_count:
        left = seg.sack[i].left
        right = seg.sack[i].right
        i += 1
        if not seq_lt(left, right) or seq_gt(right, tcb.snd_nxt):
            count(tcp.counters, SACK_BLOCKS_IGNORED)
            continue
        if seq_le(right, floor):
            continue                        # of an ACK that was overtaken
        news.sack = True
        if seq_lt(left, floor):
            left = floor
        mark(tcp, tcb, flight, left, right, news)
