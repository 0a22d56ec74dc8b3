# SPDX-License-Identifier: MIT
"""Urgent data, as it comes and as it goes. See urgent.pxd."""

from libc.stdint cimport uint16_t, uint32_t

from ustack.application cimport CALL_NO_MEMORY, CALL_OK, CALL_STATE
from ustack.base.counters cimport URGENT_NO_RECORD, count
from ustack.tcp.records.life cimport urgent_make, urgent_release
from ustack.tcp.records.state cimport CLOSE_WAIT, ESTABLISHED, SYN_RECEIVED, SYN_SENT
from ustack.tcp.records.tcb cimport (
    TCB_ABORT, TCB_ACK_NOW, TCB_CLOSED_BY_APP, TCB_EV_URGENT, TCB_FIN_QUEUED, TCB_FIN_RECEIVED)
from ustack.tcp.records.urgent cimport (
    URGENT_IN, URGENT_OUT, URGENT_UNTOLD, read_seq, urgent_is_out, urgent_of, urgent_t, urgent_unread)
from ustack.tcp.records.work cimport work_add
from ustack.wire.seq cimport seq_gt, seq_lt
from ustack.wire.tcp cimport FIN, HAS_URGENT, SYN, URG


cdef enum:
    POINTER_MOST = 0xFFFF


cdef void urgent_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """RCV.UP <- max(RCV.UP, SEG.UP); the application is told if that is ahead of what it has read, and has moved
    (MUST-32: "or whenever the urgent pointer advances", which section 3.10.7.4 would leave out)."""
    cdef uint32_t up = seg.seq + seg.urgent
    cdef uint32_t end = seg.seq + seg.length + (1 if seg.flags & SYN else 0)
    cdef urgent_t *own
    if tcb.flags & (TCB_FIN_RECEIVED | TCB_CLOSED_BY_APP):              # CLOSE-WAIT, ...: "Ignore the URG"
        return
    if seg.flags & FIN and seq_gt(up, end):
        up = end
    if not seq_gt(up, read_seq(tcp, tcb)) or (urgent_unread(tcp, tcb) and not seq_gt(up, urgent_of(tcp, tcb).rcv_up)):
        return
    own = urgent_make(tcp, tcb)
    if own == NULL:
        count(tcp.counters, URGENT_NO_RECORD)
        return
    own.rcv_up = up
    own.flags |= URGENT_IN | URGENT_UNTOLD
    if tcb.state != SYN_RECEIVED:           # with the SYN of a simultaneous open: on_accept is not due yet
        tcb.flags |= TCB_EV_URGENT
    work_add(tcp, tcb)


cdef int urgent_queued(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """SND.UP <- SND.NXT, as it will be behind what is queued (section 3.10.2). The peer hears of it at once: what the
    windows hold back is announced by an ACK, which it takes at a window of zero, too (MUST-66)."""
    cdef urgent_t *own
    if tcb.flags & (TCB_FIN_QUEUED | TCB_ABORT) or (
            tcb.state != ESTABLISHED and tcb.state != CLOSE_WAIT
            and tcb.state != SYN_SENT and tcb.state != SYN_RECEIVED):
        return CALL_STATE
    if not seq_gt(tcb.snd_end, tcb.snd_una + (1 if tcb.state == SYN_SENT or tcb.state == SYN_RECEIVED else 0)):
        return CALL_OK                      # "the user must also send at least one data octet"; a SYN is none
    own = urgent_make(tcp, tcb)
    if own == NULL:
        return CALL_NO_MEMORY
    own.snd_up = tcb.snd_end
    own.flags |= URGENT_OUT
    if tcb.state == ESTABLISHED or tcb.state == CLOSE_WAIT:
        tcb.flags |= TCB_ACK_NOW
    work_add(tcp, tcb)
    return CALL_OK


cdef void urgent_say(tcp_t *tcp, tcb_t *tcb, header_t *header) noexcept nogil:
    """Every segment that begins before SND.UP, sent again or not, and ACKs while some of it waits. The field has 16
    bits: of a pointer that is further away it says as much of the way as it can, which is urgent as well, and the
    segments behind it say the rest."""
    cdef urgent_t *own = urgent_of(tcp, tcb)
    cdef uint32_t ahead
    if not urgent_is_out(tcp, tcb):
        own.flags &= ~URGENT_OUT
    elif seq_lt(header.seq, own.snd_up):
        ahead = own.snd_up - header.seq
        header.urgent = <uint16_t>(ahead if ahead < POINTER_MOST else POINTER_MOST)
        header.flags |= URG
        header.has |= HAS_URGENT
    if own.flags & URGENT_IN and not urgent_unread(tcp, tcb):
        own.flags &= ~(URGENT_IN | URGENT_UNTOLD)
    if own.flags == 0:
        urgent_release(tcp, tcb)
