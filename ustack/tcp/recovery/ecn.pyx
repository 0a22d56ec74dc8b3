# SPDX-License-Identifier: MIT
"""Explicit Congestion Notification. See ecn.pxd for the rules and the sources."""

from libc.stdint cimport uint32_t

from ustack.base.counters cimport CE_IN, CWR_IN, CWR_OUT, ECE_IN, ECN_IGNORED_IN, ECN_REDUCTIONS, count
from ustack.tcp.cc.contract cimport cc_ops_t, cc_view_t
from ustack.tcp.records.flight cimport FLIGHT_ECHO, FLIGHT_MARKED_REPAIR, REPAIR_FAST, REPAIR_RTO, REXMIT_NONE
from ustack.tcp.records.tcb cimport TCB_ACK_NOW
from ustack.tcp.records.trace cimport TRACE_MARKED, trace_note
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.control cimport (
    control_awake, control_owns_repair, control_state, flight_size, view_load, view_store, view_store_rate)
from ustack.tcp.recovery.rtt cimport rexmit_start
from ustack.wire.seq cimport seq_gt
from ustack.wire.tcp cimport CE


# ---------------------------------------------------------------- the sender

cdef ecn_heard_t reduce(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """"Just as a congestion loss", but by the factor of RFC 8511 (section 6.1.2 as RFC 8311 section 4.1 updates it)."""
    cdef const cc_ops_t *ops = control_awake(tcp, tcb)
    cdef cc_view_t view
    cdef uint32_t before = tcb.cwnd, outstanding = tcb.snd_nxt - tcb.snd_una
    count(tcp.counters, ECN_REDUCTIONS)
    if flight != NULL:
        outstanding = flight_size(tcp, tcb, flight, outstanding, 0)
    view_load(tcp, tcb, &view)
    ops.on_ecn(control_state(tcp, tcb, ops), &view, outstanding if outstanding < before else before)
    if view.cwnd > before:                  # of a small window a control's least may be more
        view.cwnd = before
    view_store(tcb, &view)
    view_store_rate(tcp, tcb, &view)
    ecn_note_reduced(tcb)
    if flight != NULL:
        flight.flags |= FLIGHT_MARKED
        mark_end(flight)[0] = tcb.snd_nxt
    trace_note(tcp, tcb, TRACE_MARKED, REXMIT_NONE, tcb.snd_una, 0, before)
    # A control that owns the repair paces by a model, and has a window of one for a timeout's sake alone.
    return ECN_STOP if before <= tcb.smss and not control_owns_repair(tcp, tcb) else ECN_REDUCED


cdef ecn_heard_t echo_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    cdef flight_t *flight = flight_of(tcp, tcb)
    if not tcb.tos & IPV4_ECN_MASK:         # nothing of ours can have been marked
        count(tcp.counters, ECN_IGNORED_IN)
        return ECN_NOTHING
    count(tcp.counters, ECE_IN)
    if seq_lt(seg.ack, tcb.snd_una) or tcb.snd_una == tcb.snd_nxt:
        return ECN_NOTHING                  # older than what has been answered, or there is nothing to send less of
    if flight == NULL:                      # one frame is out at a time (transmissions.pxd): each is a window
        return reduce(tcp, tcb, NULL) if seq_gt(seg.ack, tcb.snd_una) else ECN_NOTHING
    flight.flags |= FLIGHT_ECHO
    if flight.repair == REPAIR_FAST or flight.repair == REPAIR_RTO:
        flight.flags |= FLIGHT_MARKED_REPAIR
        return ECN_ECHO
    if not seq_gt(seg.ack, mark_end(flight)[0] if flight.flags & FLIGHT_MARKED else tcb.snd_una):
        return ECN_ECHO                     # sent before the peer had our CWR; if not, what it says next says ECE, too
    flight.flags |= FLIGHT_MARKED_REPAIR
    return reduce(tcp, tcb, flight)


cdef ecn_heard_t ecn_marks_arrive(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """Each mark is told of once, so there is no echo of the window before to be passed over: all but marks of what was
    in flight at the latest reduction count. RFC 9768 section 3.1.5: also if our data does not ask for them any more."""
    cdef flight_t *flight = flight_of(tcp, tcb)
    if tcb.snd_una == tcb.snd_nxt:
        return ECN_NOTHING
    if flight == NULL:
        return reduce(tcp, tcb, NULL) if seq_gt(seg.ack, tcb.snd_una) else ECN_NOTHING
    flight.flags |= FLIGHT_ECHO
    if flight.repair == REPAIR_FAST or flight.repair == REPAIR_RTO:
        flight.flags |= FLIGHT_MARKED_REPAIR
        return ECN_ECHO
    if flight.flags & FLIGHT_MARKED and not seq_gt(seg.ack, mark_end(flight)[0]):
        return ECN_ECHO
    flight.flags |= FLIGHT_MARKED_REPAIR
    return reduce(tcp, tcb, flight)


cdef void ecn_settle(tcp_t *tcp, tcb_t *tcb, ecn_heard_t heard) noexcept nogil:
    """ECN_STOP: "the sending TCP MUST reset the retransmit timer on receiving the ECN-Echo packet when the congestion
    window is one [and] will then be able to send a new packet only when the retransmit timer expires" (section 6.1.2).
    A window of nothing says so until then (timers: override_timeout), or until an ACK without an echo widens it.
    """
    if tcb.flight:
        flight_of(tcp, tcb).flags &= ~FLIGHT_ECHO
    if heard == ECN_STOP:
        tcb.cwnd = 0
        if tcb.snd_una != tcb.snd_max:
            rexmit_start(tcp, tcb)


# ---------------------------------------------------------------- the receiver

cdef void mark_arrives(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Section 6.1.3. The first mark is acknowledged at once, as in Linux: the sooner the sender knows, the better."""
    count(tcp.counters, CE_IN)
    if not tcb.flags & TCB_ECE_OWED:
        tcb.flags |= TCB_ECE_OWED | TCB_ACK_NOW
        work_add(tcp, tcb)


cdef ecn_heard_t ecn_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """CWR and CE are of data alone: a pure ACK cannot be marked (section 6.1.4), nor does it begin a window.

    A mark that CWR follows before anything was acknowledged needs no echo: the sender has slowed down after it sent
    what was marked (section 6.1.3). CWR is acknowledged at once: its window may be one segment.
    """
    cdef ecn_heard_t heard = ECN_NOTHING
    if not tcb.flags & TCB_ECN:
        count(tcp.counters, ECN_IGNORED_IN)
        return ECN_NOTHING
    if seg.flags & ECE:
        heard = echo_arrives(tcp, tcb, seg)
    if seg.length == 0:
        if seg.flags & (CWR | CE):
            count(tcp.counters, ECN_IGNORED_IN)
        return heard
    if seg.flags & CWR:
        count(tcp.counters, CWR_IN)
        if tcb.flags & TCB_ECE_OWED:
            tcb.flags = (tcb.flags & ~TCB_ECE_OWED) | TCB_ACK_NOW
            work_add(tcp, tcb)
    if seg.flags & CE:
        mark_arrives(tcp, tcb)
    return heard


# ---------------------------------------------------------------- what we say

cdef void ecn_say(tcp_t *tcp, tcb_t *tcb, header_t *header, bint fresh) noexcept nogil:
    if tcb.flags & TCB_ECE_OWED:
        header.flags |= ECE
    if not fresh or not tcb.flags & TCB_CWR_OWED:
        return
    header.flags |= CWR
    tcb.flags &= ~TCB_CWR_OWED
    count(tcp.counters, CWR_OUT)
