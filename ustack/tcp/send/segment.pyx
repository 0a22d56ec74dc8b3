# SPDX-License-Identifier: MIT
"""What a segment seldom has, and bytes of a queue of several pieces. See segment.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from ustack.base.counters cimport SEND_PIECES_SKIPPED
from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport snd_cursor, snd_cursor_set
from ustack.tcp.recovery.accecn cimport accecn_plan
from ustack.tcp.recovery.path cimport path_fragments, path_identification
from ustack.tcp.recovery.transmissions cimport flight_of
from ustack.wire.seq cimport seq_le, seq_lt


cdef uint32_t dress(tcp_t *tcp, const tcb_t *tcb, ip_route_t *route, uint32_t seq, uint32_t length) noexcept nogil:
    if path_fragments(tcp, tcb):
        route.may_fragment = 1
        route.identification = path_identification(tcp, tcb)
    return accecn_plan(tcp, tcb, seq, length)


cdef bint copy_out_pieces(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint8_t *out, uint32_t length) noexcept nogil:
    """The search begins at the cursor, where the segment before ended; for what lies before that, where the
    retransmission before ended, or at the head. So a queue of many small pieces costs neither new data nor a repair a
    walk."""
    cdef uint32_t index = snd_cursor(tcp, tcb)
    cdef send_piece_t *piece = send_piece_at(tcp, index)
    cdef flight_t *flight = NULL
    cdef bint newest = seq == tcb.snd_nxt
    cdef uint32_t skip, step
    if not newest:
        flight = flight_of(tcp, tcb)
    if seq_lt(seq, piece.seq):
        index = tcb.snd_head
        if flight != NULL and flight.piece and seq_le(send_piece_at(tcp, flight.piece).seq, seq):
            index = flight.piece
        piece = send_piece_at(tcp, index)
    while seq_le(piece.seq + piece.length, seq):
        index = piece.next
        piece = send_piece_at(tcp, index)
        count(tcp.counters, SEND_PIECES_SKIPPED)
    while True:
        skip = seq - piece.seq
        step = piece.length - skip
        if step > length:
            step = length
        lent_guard(piece.lent, tcp.now_ns)
        memcpy(out, piece.data + skip, step)
        if piece.lent.damaged:
            return False
        length -= step
        if length == 0:
            if newest:
                snd_cursor_set(tcp, tcb, index)
            elif flight != NULL:
                flight.piece = index
            return True
        out += step
        seq += step
        index = piece.next
        piece = send_piece_at(tcp, index)
