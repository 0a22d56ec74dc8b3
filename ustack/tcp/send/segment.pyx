# SPDX-License-Identifier: MIT
"""What a segment seldom has, and bytes of a queue of several pieces. See segment.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from ustack.base.counters cimport SEGMENTS_GATHERED, SEND_PIECES_SKIPPED
from ustack.base.posix cimport iovec
from ustack.ip.layer cimport ip_commit_gathered
from ustack.link.device cimport GATHER_PIECES_MAX
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


cdef uint32_t first_piece(tcp_t *tcp, tcb_t *tcb, uint32_t seq) noexcept nogil:
    """Index of the piece that has `seq`. The search begins at the cursor, where the segment before ended; for what lies
    before that, where the retransmission before ended, or at the head. So a queue of many small pieces costs neither
    new data nor a repair a walk."""
    cdef uint32_t index = snd_cursor(tcp, tcb)
    cdef send_piece_t *piece = send_piece_at(tcp, index)
    cdef flight_t *flight
    if seq_lt(seq, piece.seq):
        index = tcb.snd_head
        flight = flight_of(tcp, tcb)
        if flight != NULL and flight.piece and seq_le(send_piece_at(tcp, flight.piece).seq, seq):
            index = flight.piece
        piece = send_piece_at(tcp, index)
    while seq_le(piece.seq + piece.length, seq):
        index = piece.next
        piece = send_piece_at(tcp, index)
        count(tcp.counters, SEND_PIECES_SKIPPED)
    return index


cdef void last_piece(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t index) noexcept nogil:
    """The segment from `seq` ended in this piece: the next search begins here."""
    cdef flight_t *flight
    if seq == tcb.snd_nxt:
        snd_cursor_set(tcp, tcb, index)
        return
    flight = flight_of(tcp, tcb)
    if flight != NULL:
        flight.piece = index


cdef bint copy_out_pieces(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint8_t *out, uint32_t length) noexcept nogil:
    cdef uint32_t index = first_piece(tcp, tcb, seq)
    cdef uint32_t at = seq
    cdef send_piece_t *piece
    cdef uint32_t skip, step
    while True:
        piece = send_piece_at(tcp, index)
        skip = at - piece.seq
        step = min(piece.length - skip, length)
        lent_guard(piece.lent, tcp.now_ns)
        memcpy(out, piece.data + skip, step)
        if piece.lent.damaged:
            return False
        length -= step
        if length == 0:
            last_piece(tcp, tcb, seq, index)
            return True
        out += step
        at += step
        index = piece.next


cdef uint32_t gather(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length, iovec *pieces) noexcept nogil:
    """Where the bytes are: at most GATHER_PIECES_MAX pieces; how many. 0: they are in more, or one is damaged."""
    cdef uint32_t index = first_piece(tcp, tcb, seq)
    cdef uint32_t at = seq
    cdef send_piece_t *piece
    cdef uint32_t skip, step, n
    for n in range(<uint32_t>GATHER_PIECES_MAX):
        piece = send_piece_at(tcp, index)
        if piece.lent.damaged:
            return 0
        skip = at - piece.seq
        step = min(piece.length - skip, length)
        pieces[n].iov_base = <void *>(piece.data + skip)
        pieces[n].iov_len = step
        length -= step
        if length == 0:
            if tcb.snd_head != tcb.snd_tail:
                last_piece(tcp, tcb, seq, index)
            return n + 1
        at += step
        index = piece.next
    return 0


cdef bint commit_gathered(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length, uint8_t *out, uint16_t header_bytes,
                          uint16_t gso_size) noexcept nogil:
    """The kernel finds out by itself that a file was cut, and the link refuses; which one it was shows when the bytes
    are copied."""
    cdef iovec pieces[GATHER_PIECES_MAX]
    cdef uint32_t n = gather(tcp, tcb, seq, length, pieces)
    if n and ip_commit_gathered(tcp.ip, header_bytes + length, TCP_CHECKSUM_OFFSET, header_bytes, gso_size, pieces, n):
        count(tcp.counters, SEGMENTS_GATHERED)
        return True
    if not copy_out(tcp, tcb, seq, out + header_bytes, length):
        return False
    ip_commit(tcp.ip, header_bytes + length, TCP_CHECKSUM_OFFSET, header_bytes, gso_size)
    return True
