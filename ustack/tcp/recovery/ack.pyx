# SPDX-License-Identifier: MIT
"""What an acknowledgment does to the sender. See ack.pxd for the contract and the sources."""

from libc.stdint cimport uint16_t, uint32_t

from ustack.base.counters cimport DUPLICATE_ACKS_IN, count
from ustack.tcp.cc.contract cimport SSTHRESH_AT_FIRST, ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.records.deadlines cimport deadlines_arm
from ustack.tcp.records.life cimport piece_release
from ustack.tcp.records.marks cimport note_writable
from ustack.tcp.records.tcb cimport (
    OPT_TIMESTAMPS, TCB_KEEPALIVE, TCB_MSS_PROVEN, TCB_PERSIST, TCB_RECOVERY, TCB_RECOVER_VALID,
    TCB_RTO_RECOVERY, TCB_RTT_FULL, TCB_RTT_TIMING, send_piece_at, send_piece_t, snd_cursor_set,
    tcb_max_window, tcp_timestamp)
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.control cimport control_of, control_state, sample_fill, view_load, view_store
from ustack.tcp.recovery.fast_recovery cimport repair_begin, repair_on_ack, repair_on_duplicate
from ustack.tcp.recovery.path cimport path_acknowledged
from ustack.tcp.recovery.rtt cimport rexmit_start, rexmit_stop, rtt_now_us, rtt_progress, rtt_sample
from ustack.wire.seq cimport seq_ge, seq_gt, seq_lt
from ustack.wire.tcp cimport FIN, HAS_TIMESTAMPS, SYN


cdef enum:
    DUPLICATE_THRESHOLD = 3                 # RFC 5681 section 3.2


cdef uint32_t initial_window(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """RFC 6928 section 2: min(10 * MSS, max(2 * MSS, 14600)), with the configured count for 10."""
    cdef uint32_t segments = tcp.config.initial_window_segments * <uint32_t>tcb.smss
    cdef uint32_t floor = 2 * <uint32_t>tcb.smss
    cdef uint32_t octets = 1460 * <uint32_t>tcp.config.initial_window_segments
    if floor < octets:
        floor = octets
    return segments if segments < floor else floor


cdef void ack_start(tcp_t *tcp, tcb_t *tcb, bint handshake_lost) noexcept nogil:
    tcb.cwnd = initial_window(tcp, tcb)
    tcb.ssthresh = SSTHRESH_AT_FIRST
    if handshake_lost:
        tcb.cwnd = tcb.smss                 # RFC 5681 section 3.1
        tcb.srtt_us = 1000000               # RFC 6298 (5.7): an RTO of 3 s when data begins
        tcb.rttvar_us = 500000


cdef void ack_set_window(tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    tcb.snd_wnd = window
    tcb.snd_wl1 = seg.seq
    tcb.snd_wl2 = seg.ack
    if window > tcb_max_window(tcb):        # rounded up where it is a SYN's, which is not scaled
        tcb.snd_max_wnd = <uint16_t>((window + (1u << tcb.snd_wscale) - 1) >> tcb.snd_wscale)


cdef void ack_input(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    if seq_lt(seg.ack, tcb.snd_una):
        return                              # an old duplicate: nothing to learn
    if seg.ack != tcb.snd_una:
        new_acknowledgment(tcp, tcb, seg)
    elif is_duplicate(tcb, seg, window):
        duplicate_acknowledgment(tcp, tcb)
    update_window(tcp, tcb, seg, window)


cdef inline bint is_duplicate(const tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    """RFC 5681 section 2, all five conditions. Answers to window probes look alike and tell of no loss."""
    return (not tcb.flags & TCB_PERSIST and tcb.snd_max != tcb.snd_una and seg.length == 0
            and not seg.flags & (SYN | FIN) and window == tcb.snd_wnd)


cdef void update_window(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    """Only from a segment that is not older than the last one used, so that a reordered one cannot close the window."""
    if not (seq_lt(tcb.snd_wl1, seg.seq) or (tcb.snd_wl1 == seg.seq and not seq_gt(tcb.snd_wl2, seg.ack))):
        return
    if window != tcb.snd_wnd:
        work_add(tcp, tcb)
        if window == 0 and tcb.flags & TCB_PERSIST and tcb.snd_una == tcb.snd_max:
            rexmit_stop(tcb)                # it was the override timer's: a closed window has an RTO (SHLD-29)
        elif window > tcb.snd_wnd and tcb.flags & TCB_PERSIST:
            tcb.backoff = 0
            rexmit_stop(tcb)
            if tcb.snd_una != tcb.snd_max:  # what was in flight when the window closed may be lost
                tcb.snd_nxt = tcb.snd_una
                rexmit_start(tcp, tcb)
    ack_set_window(tcb, seg, window)


cdef void new_acknowledgment(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    cdef uint32_t rtt_us = sample_rtt(tcp, tcb, seg)
    if rtt_us:
        tcb.backoff = 0
    else:
        rtt_progress(tcp, tcb)
    if tcb.flags & TCB_RECOVERY:
        repair_on_ack(tcp, tcb, seg.ack, rtt_us)
    else:
        congestion_on_ack(tcp, tcb, seg.ack, rtt_us)
    if tcb.flags & TCB_RECOVER_VALID and seq_gt(seg.ack, tcb.recover):
        tcb.flags &= ~TCB_RECOVER_VALID
    tcb.snd_una = seg.ack
    tcb.soft_error = 0                      # whatever the network said, it has carried this since
    if seq_lt(tcb.snd_nxt, seg.ack):        # after a timeout: the peer had what we were about to send again
        tcb.snd_nxt = seg.ack
    release_acknowledged(tcp, tcb)
    if tcb.extra:
        path_acknowledged(tcp, tcb)
    if tcb.snd_una == tcb.snd_max:
        rexmit_stop(tcb)                    # RFC 6298 (5.2)
        if tcb.flags & TCB_KEEPALIVE:
            deadlines_arm(tcp, tcb)
    else:
        rexmit_start(tcp, tcb)              # RFC 6298 (5.3)
    note_writable(tcp, tcb)
    work_add(tcp, tcb)


cdef inline uint32_t sample_rtt(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """One timed segment a round trip; by timestamps when a retransmission has spoilt it (RFC 6298 section 3).

    The sample in microseconds; 0: none was taken. Only a sample ends the back-off (RFC 6298 section 5, Karn's rule,
    MUST-18).
    """
    cdef uint32_t elapsed_ms
    if tcb.flags & TCB_RTT_TIMING:
        if seq_ge(seg.ack, tcb.rtt_seq):
            tcb.flags &= ~TCB_RTT_TIMING
            if tcb.flags & TCB_RTT_FULL:
                tcb.flags |= TCB_MSS_PROVEN  # sent once, and it arrived
            return rtt_sample(tcb, rtt_now_us(tcp) - tcb.rtt_sent_us)
    elif tcb.options & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS and seg.ts_ecr != 0:
        # After a retransmission only echoes of what was sent since count: where the ACK was lost and not the segment,
        # the peer still echoes the original (RFC 7323 section 5.3), and each timeout would lengthen the next.
        elapsed_ms = tcp_timestamp(tcp) - seg.ts_ecr
        if elapsed_ms <= (rtt_now_us(tcp) - tcb.rtt_sent_us) // 1000 + 1:
            return rtt_sample(tcb, elapsed_ms * 1000 + 500)
    return 0


cdef inline void release_acknowledged(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Lent buffers go back as soon as their last byte is acknowledged."""
    cdef send_piece_t *piece
    cdef uint32_t index
    while tcb.snd_head:
        index = tcb.snd_head
        piece = send_piece_at(tcp, index)
        if seq_gt(piece.seq + piece.length, tcb.snd_una):
            return
        tcb.snd_head = piece.next
        if tcb.snd_head == 0:
            tcb.snd_tail = 0
        else:                               # it was not the tail, so its note is the cursor
            snd_cursor_set(tcp, tcb, piece.note if piece.note != index else tcb.snd_head)
        piece_release(tcp, index)


# ---------------------------------------------------------------- congestion and loss

cdef void congestion_on_ack(tcp_t *tcp, tcb_t *tcb, uint32_t ack, uint32_t rtt_us) noexcept nogil:
    """RFC 5681 section 3.1, before SND.UNA moves."""
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef cc_view_t view
    cdef ack_sample_t sample
    view_load(tcp, tcb, &view)
    sample_fill(tcb, &sample, ack - tcb.snd_una, rtt_us)
    ops.on_ack(control_state(tcp, tcb, ops), &view, &sample)
    view_store(tcb, &view)
    tcb.duplicate_acks = 0
    if tcb.flags & TCB_RTO_RECOVERY and seq_ge(ack, tcb.recover):
        tcb.flags &= ~TCB_RTO_RECOVERY


cdef void duplicate_acknowledgment(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    count(tcp.counters, DUPLICATE_ACKS_IN)
    if tcb.duplicate_acks == 0 and not tcb.flags & TCB_RECOVER_VALID:
        tcb.recover = tcb.snd_max           # FlightSize before limited transmit adds to it, see repair_begin
    if tcb.duplicate_acks < 255:
        tcb.duplicate_acks += 1
    if tcb.flags & TCB_RECOVERY:
        repair_on_duplicate(tcb)
    elif tcb.duplicate_acks == DUPLICATE_THRESHOLD and not tcb.flags & TCB_RTO_RECOVERY:
        # RFC 6582 section 3.2 step 1: not again for a window that was repaired already.
        if tcb.flags & TCB_RECOVER_VALID and not seq_gt(tcb.snd_una, tcb.recover):
            return
        repair_begin(tcp, tcb)
    work_add(tcp, tcb)
