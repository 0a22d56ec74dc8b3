# SPDX-License-Identifier: MIT
"""Text and FIN. See text.pxd for the contract."""

from libc.stdint cimport uint8_t, uint32_t

from ustack.base.counters cimport (
    DROP_NO_MEMORY, DROP_TCP_AFTER_CLOSE, DROP_TCP_AFTER_FIN, DROP_TCP_SEQUENCE, OUT_OF_ORDER_IN, count, counter_t)
from ustack.tcp.arrival.doubt cimport owe_ack
from ustack.tcp.emit cimport emit_time_wait_ack
from ustack.tcp.ending cimport connection_time_wait
from ustack.tcp.receive.reassembly cimport (
    reassembly_advance, reassembly_append, reassembly_forget, reassembly_insert, reassembly_sure)
from ustack.tcp.records.demux cimport FLOW_TIME_WAIT, flow_find, flow_t
from ustack.tcp.records.duplicates cimport duplicate_note
from ustack.tcp.records.moves cimport set_state
from ustack.tcp.records.rx_queue cimport rx_queue_t
from ustack.tcp.records.state cimport CLOSE_ABORTED, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT_1, SYN_RECEIVED
from ustack.tcp.records.tally cimport rcv_nxt_advance
from ustack.tcp.records.tcb cimport (
    TCB_ABORT, TCB_ACK_NOW, TCB_EV_DATA, TCB_EV_EOF, TCB_PAUSED, rx_queue_of, time_wait_at)
from ustack.wire.seq cimport seq_gt, seq_lt


cdef void accept_text(tcp_t *tcp, tcb_t *tcb, uint32_t seq, const segment_t *seg, delivery_t *delivery) noexcept nogil:
    """Seventh. seq: of the first byte of text (a SYN before it is not counted)."""
    cdef const uint8_t *data = seg.data
    cdef uint32_t length = seg.length
    cdef bint fin = seg.flags & FIN
    cdef uint32_t known, room
    if length == 0 and not fin:
        return
    if tcb.flags & TCB_FIN_RECEIVED:                                    # CLOSE-WAIT, CLOSING, LAST-ACK: "ignore the
        count(tcp.counters, DROP_TCP_AFTER_FIN)                         # segment text", and what else lies beyond
        return
    if seq_lt(seq, tcb.rcv_nxt):                                        # what is known already
        known = tcb.rcv_nxt - seq
        if known > length:
            known = length
        duplicate_note(tcp, tcb, seq, seq + known)
        data += known
        length -= known
        seq += known
    room = tcb.rcv_adv - tcb.rcv_nxt
    if seq - tcb.rcv_nxt > room:                                        # nothing of it is inside
        owe_ack(tcp, tcb, DROP_TCP_SEQUENCE)
        return
    room -= seq - tcb.rcv_nxt
    if length > room:                                                   # what is beyond the window
        length = room
        fin = False
        if length == 0:
            owe_ack(tcp, tcb, DROP_TCP_SEQUENCE)
            return
    if length > 0 and tcb.flags & TCB_CLOSED_BY_APP:
        count(tcp.counters, DROP_TCP_AFTER_CLOSE)                       # SHLD-3
        tcb.close_reason = CLOSE_ABORTED
        tcb.flags |= TCB_ABORT
        work_add(tcp, tcb)
        return
    if seq != tcb.rcv_nxt:
        keep_out_of_order(tcp, tcb, seq, data, length, fin)
    elif length > 0 and tcb.rx == 0 and not fin:
        take_next_text(tcp, tcb, data, length, delivery)
    else:
        accept_in_order(tcp, tcb, data, length, fin, delivery)


cdef void keep_out_of_order(tcp_t *tcp, tcb_t *tcb, uint32_t seq, const uint8_t *data, uint32_t length,
                            bint fin) noexcept nogil:
    cdef int reason = reassembly_insert(tcp, tcb, seq, data, length, fin)
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    count(tcp.counters, <counter_t>reason if reason else OUT_OF_ORDER_IN)
    if rx != NULL:
        rx.duplicate_acks_owed += 1
    tcb.flags |= TCB_ACK_NOW                                            # RFC 5681 section 4.2
    work_add(tcp, tcb)


cdef void accept_in_order(tcp_t *tcp, tcb_t *tcb, const uint8_t *data, uint32_t length, bint fin,
                          delivery_t *delivery) noexcept nogil:
    """In order, but something is held or a FIN comes: offer it straight from the frame unless data waits before it,
    then take what this has made whole. Memory is asked for only where the application leaves something."""
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef bint closes_hole = False
    cdef uint32_t kept, before = tcb.rcv_nxt
    if rx != NULL and rx.fin_ooo and seq_gt(tcb.rcv_nxt + length, rx.fin_seq):
        # nothing can follow a FIN
        length = rx.fin_seq - tcb.rcv_nxt if seq_lt(tcb.rcv_nxt, rx.fin_seq) else 0
    if length > 0 and rx != NULL and rx.queued_bytes:
        closes_hole = rx.runs.count != 0
        kept = reassembly_append(tcp, tcb, data, length)
        if kept < length:
            count(tcp.counters, DROP_NO_MEMORY)                         # not acknowledged: it will come again
            fin = False
            if kept == 0:
                return
        rcv_nxt_advance(tcp, tcb, kept)
        owe_delayed_ack(tcb)
        if not tcb.flags & TCB_PAUSED:
            tcb.flags |= TCB_EV_DATA
    elif length > 0:
        closes_hole = rx != NULL and rx.runs.count
        # What the application leaves may find no memory and is then not received after all (reassembly_keep). A FIN
        # behind it could not be taken back, so it is left to come again.
        if (fin or (rx != NULL and rx.fin_ooo)) and not reassembly_sure(tcp, tcb, length):
            fin = False
            rx = rx_queue_of(tcp, tcb)
            if rx != NULL:
                rx.fin_ooo = 0
        rcv_nxt_advance(tcp, tcb, length)
        delivery.data = data
        delivery.length = length
        owe_delayed_ack(tcb)
    if closes_hole:
        tcb.flags |= TCB_ACK_NOW                                        # RFC 5681 section 4.2
    if fin:
        reassembly_forget(tcp, tcb)         # what lies beyond a FIN in order is nobody's
    elif tcb.rx != 0:
        kept = tcb.rcv_nxt
        fin = reassembly_advance(tcp, tcb)
        if tcb.rcv_nxt != kept and not tcb.flags & TCB_PAUSED:
            tcb.flags |= TCB_EV_DATA
    work_add(tcp, tcb)
    if fin:
        accept_fin(tcp, tcb)
    delivery.more = tcb.rcv_nxt != before


cdef void accept_fin(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Eighth: everything before the FIN has been received."""
    rcv_nxt_advance(tcp, tcb, 1)
    if seq_gt(tcb.rcv_nxt, tcb.rcv_adv):
        tcb.rcv_adv = tcb.rcv_nxt
    tcb.flags |= TCB_FIN_RECEIVED | TCB_ACK_NOW
    work_add(tcp, tcb)
    if tcb.state == SYN_RECEIVED:           # established() goes on from here
        return
    tcb.flags |= TCB_EV_EOF
    if tcb.state == ESTABLISHED:
        set_state(tcp, tcb, CLOSE_WAIT)
    elif tcb.state == FIN_WAIT_1:
        set_state(tcp, tcb, CLOSING)
    else:                                                               # FIN-WAIT-2
        connection_time_wait(tcp, tcb)
        answer_from_time_wait(tcp, tcb)


cdef void answer_from_time_wait(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """The ACK of its FIN: the tcb is gone for output, so the record answers."""
    cdef flow_t flow = flow_find(tcp, &tcb.key)
    if flow.kind == FLOW_TIME_WAIT:
        emit_time_wait_ack(tcp, time_wait_at(tcp, flow.index))
