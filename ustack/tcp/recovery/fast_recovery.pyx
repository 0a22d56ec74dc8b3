# SPDX-License-Identifier: MIT
"""Fast retransmit and fast recovery. See fast_recovery.pxd for the course and the sources."""

from libc.stdint cimport uint32_t

from ustack.base.counters cimport FAST_RETRANSMITS, count
from ustack.tcp.cc.contract cimport ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.records.tcb cimport TCB_RECOVERY, TCB_RECOVER_VALID, TCB_REXMIT
from ustack.tcp.recovery.control cimport control_of, control_state, sample_fill, view_load, view_store
from ustack.tcp.recovery.newreno_window cimport window_at_loss, window_deflated, window_inflated, window_recovered
from ustack.tcp.recovery.rtt cimport rtt_spoil
from ustack.wire.seq cimport seq_ge


cdef void repair_begin(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """RFC 6582 section 3.2 step 2."""
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef cc_view_t view
    cdef uint32_t flight = tcb.recover - tcb.snd_una    # MUST NOT count what was sent since (RFC 5681 step 2)
    tcb.recover = tcb.snd_max
    tcb.flags |= TCB_RECOVERY | TCB_RECOVER_VALID | TCB_REXMIT
    rtt_spoil(tcp, tcb)
    view_load(tcp, tcb, &view)
    ops.on_loss(control_state(tcp, tcb, ops), &view, flight)
    view_store(tcb, &view)
    tcb.cwnd = window_at_loss(tcb.cwnd, tcb.smss)
    count(tcp.counters, FAST_RETRANSMITS)


cdef void repair_on_duplicate(tcb_t *tcb) noexcept nogil:
    tcb.cwnd = window_inflated(tcb.cwnd, tcb.ssthresh, tcb.snd_max - tcb.snd_una, tcb.smss)


cdef void repair_on_ack(tcp_t *tcp, tcb_t *tcb, uint32_t ack, uint32_t rtt_us) noexcept nogil:
    """Step 3: the repair is complete, or there is another hole. The control sees the ACK; the window is ours."""
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef cc_view_t view
    cdef ack_sample_t sample
    view_load(tcp, tcb, &view)
    sample_fill(tcb, &sample, ack - tcb.snd_una, rtt_us)
    sample.in_recovery = True
    ops.on_ack(control_state(tcp, tcb, ops), &view, &sample)
    if seq_ge(ack, tcb.recover):
        tcb.cwnd = window_recovered(tcb.ssthresh, tcb.snd_max - ack, tcb.smss)
        tcb.flags &= ~(TCB_RECOVERY | TCB_REXMIT)
        tcb.duplicate_acks = 0
    else:
        tcb.cwnd = window_deflated(tcb.cwnd, sample.acked, tcb.smss)
        tcb.flags |= TCB_REXMIT             # the next hole begins at the new SND.UNA


cdef void repair_end(tcb_t *tcb) noexcept nogil:
    tcb.cwnd = window_recovered(tcb.ssthresh, tcb.snd_max - tcb.snd_una, tcb.smss)
    tcb.flags &= ~TCB_RECOVERY
