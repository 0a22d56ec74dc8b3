# SPDX-License-Identifier: MIT
# Seventh and eighth of SEGMENT ARRIVES (RFC 9293 section 3.10.7.4): text, and the FIN behind it.
#
# What is next and whole, with nothing held before it, is offered from the frame (inline, the way of most segments);
# the rest is trimmed to the window, kept out of order, or joined to what is kept. It must not: look at the ACK, nor
# send; what is owed is left on the tcb.
#
# Read first: RFC 9293 sections 3.4, 3.10.7.4; RFC 5681 section 4.2 (ACKs of what is out of order). Above: active,
# input, engine (delivery_t). Below: doubt, reassembly, duplicates, ending, emit, demux.

from libc.stdint cimport uint8_t, uint32_t

from ustack.tcp.records.tally cimport rcv_nxt_advance
from ustack.tcp.records.tcb cimport (
    ACK_IN_COMPANY, TCB_ACK_DELAYED, TCB_CLOSED_BY_APP, TCB_FIN_RECEIVED, tcb_t, tcp_t)
from ustack.tcp.records.work cimport work_add
from ustack.wire.tcp cimport FIN, segment_t

# What one segment has for an application. data is a view of the frame: offer it before the frame is released.
ctypedef struct delivery_t:
    tcb_t *conn              # NULL: no connection was touched
    const uint8_t *data
    uint32_t length          # in order, counted in rcv_nxt; keep what is not consumed (reassembly_append)
    bint more                # RCV.NXT has moved, by what is kept already or by a FIN

cdef void accept_text(tcp_t *tcp, tcb_t *tcb, uint32_t seq, const segment_t *seg, delivery_t *delivery) noexcept nogil


# The common case, found without asking accept_text's questions one by one: text alone, the next that is expected, all
# of it in the window, nothing held before or behind it, and somebody to read it.
cdef inline bint is_next_text(const tcb_t *tcb, const segment_t *seg) noexcept nogil:
    return (seg.seq == tcb.rcv_nxt and seg.length - 1 < tcb.rcv_adv - tcb.rcv_nxt and tcb.rx == 0
            and not seg.flags & FIN and not tcb.flags & (TCB_FIN_RECEIVED | TCB_CLOSED_BY_APP))


# A segment with text is to be acknowledged, and may wait for company.
cdef inline void owe_delayed_ack(tcb_t *tcb) noexcept nogil:
    if tcb.flags & TCB_ACK_DELAYED:
        tcb.armed |= ACK_IN_COMPANY
    tcb.flags |= TCB_ACK_DELAYED


cdef inline void take_next_text(tcp_t *tcp, tcb_t *tcb, const uint8_t *data, uint32_t length,
                                delivery_t *delivery) noexcept nogil:
    rcv_nxt_advance(tcp, tcb, length)
    delivery.data = data
    delivery.length = length
    owe_delayed_ack(tcb)
    work_add(tcp, tcb)
