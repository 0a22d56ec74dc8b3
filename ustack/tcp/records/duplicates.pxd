# SPDX-License-Identifier: MIT
# What has arrived twice and is still to be reported: RFC 2883, the receiver's half.
#
#     a segment whose data is here already ──▶ duplicate_note ──▶ the next pure ACK: its first SACK block
#
# Few connections have one, and only until the turn's output: 16 places for all, by the connection's index. Where two
# meet the later one stays: a report is advice, from which the peer learns that it need not have sent something again.
# Of one connection, pieces that touch become one (a block is a contiguous sequence, section 3), any other replaces it.
#
# Below: tcb. Above: input and reassembly (who note), output (who takes), life (who forgets).

from libc.stdint cimport uint32_t

from ustack.tcp.records.tcb cimport DUPLICATE_PLACES, OPT_SACK, duplicate_t, tcb_t, tcp_t
from ustack.wire.seq cimport seq_gt, seq_le, seq_lt


# NULL: it has none.
cdef inline duplicate_t *duplicate_of(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef duplicate_t *place
    if tcp.duplicates_waiting == 0:
        return NULL
    place = &tcp.duplicates[tcb.index % DUPLICATE_PLACES]
    return place if place.index == tcb.index else NULL


# [left, right) is here twice. Nothing for a peer that did not agree to SACK, nor for an empty range.
cdef inline void duplicate_note(tcp_t *tcp, const tcb_t *tcb, uint32_t left, uint32_t right) noexcept nogil:
    cdef duplicate_t *place = &tcp.duplicates[tcb.index % DUPLICATE_PLACES]
    if not tcb.options & OPT_SACK or not seq_lt(left, right):
        return
    if place.index == tcb.index and seq_le(left, place.right) and seq_le(place.left, right):
        if seq_lt(left, place.left):
            place.left = left
        if seq_gt(right, place.right):
            place.right = right
        return
    if place.index == 0:
        tcp.duplicates_waiting += 1
    place.index = tcb.index
    place.left = left
    place.right = right


cdef inline void duplicate_forget(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef duplicate_t *place = duplicate_of(tcp, tcb)
    if place != NULL:
        place.index = 0
        tcp.duplicates_waiting -= 1
