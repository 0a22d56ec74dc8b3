# SPDX-License-Identifier: MIT
"""The course of a repair. See repair.pxd for the states and the sources."""

from libc.stdint cimport uint32_t
from libc.string cimport memset

from ustack.base.counters cimport FAST_RETRANSMITS, SACK_RENEGED_IN, count
from ustack.tcp.cc.contract cimport ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.records.configuration cimport GROWTH_BY_ROUND
from ustack.tcp.records.flight cimport (
    FLIGHT_PROBE, FLIGHT_PROBE_AGAIN, FLIGHT_PROBED, FLIGHT_RECOVER, FLIGHT_RENEGED, FLIGHT_ROUND, FLIGHT_SEND_ONE,
    FLIGHT_STAMPED, FLIGHT_TIMEOUT_UNDONE, FLIGHT_UNDO, FRTO_FIRST, FRTO_NONE, FRTO_SECOND, REPAIR_FAST, REPAIR_NONE,
    REPAIR_RTO, REPAIR_SIZE, REXMIT_FAST, REXMIT_SIZE, TX_LOST, TX_RETRANSMITTED, TX_SACKED, TX_SIZE_PROBE,
    flight_pipe, transmission_at, transmission_bytes, transmission_t)
from ustack.tcp.records.tcb cimport OPT_SACK, TCB_PROBE_REPEATED, TCB_REPAIRED
from ustack.tcp.records.trace cimport TRACE_LOST, TRACE_RECOVERED, TRACE_RECOVERY, trace_note, trace_repair
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.control cimport (
    control_awake, control_lost, control_owns_repair, control_pace, control_sleeps, control_state, flight_of_round,
    flight_size, sample_fill, view_load, view_store, view_store_rate)
from ustack.tcp.recovery.ecn cimport ecn_has_reduced, ecn_note_reduced, ecn_repair_ended
from ustack.tcp.recovery.losses cimport transmission_lose, transmission_lose_first, transmissions_renege
from ustack.tcp.recovery.path cimport path_probe_is_lost, path_probe_lost
from ustack.tcp.recovery.prr cimport prr_recover_fs, prr_send_count
from ustack.tcp.recovery.rack cimport (
    DUPLICATE_THRESHOLD, rack_detect, rack_lose_at_timeout, rack_note_dsack, rack_note_recovered)
from ustack.tcp.recovery.tlp cimport tlp_acknowledged
from ustack.tcp.recovery.transmissions cimport transmission_merge, transmission_split
from ustack.tcp.recovery.undo cimport (
    FRTO_LOST, FRTO_SEND_NEW, FRTO_SPURIOUS, frto_step, frto_verdict_t, undo_begin, undo_detects, undo_resent,
    undo_restore)
from ustack.wire.seq cimport seq_ge, seq_gt, seq_lt


# ---------------------------------------------------------------- what is lost, without SACK

cdef void repair_count_duplicate(tcb_t *tcb, flight_t *flight, ack_news_t *news) noexcept nogil:
    """A segment has left the network, as long as there can be one: the first that is missing has not (RFC 5681 section
    3.2 step 4, the note: what is beyond is made up by the receiver)."""
    cdef uint32_t most = flight.pipe
    flight.duplicate_acks += 1
    if (flight.repair == REPAIR_RTO or flight.repair == REPAIR_SIZE) and not seq_gt(tcb.snd_nxt, flight.recover):
        return                              # of what was sent before: it is not in flight any more
    if flight.repair == REPAIR_FAST and flight.prr_delivered + tcb.smss > flight.recover_fs:
        return                              # RFC 9937 section 6.2: against who invents them, no more than RecoverFS
    if flight.repair == REPAIR_NONE:
        most -= tcb.smss if most > tcb.smss else most
    if flight.duplicate_bytes + tcb.smss <= most:
        flight.duplicate_bytes += tcb.smss
        news.delivered += tcb.smss


cdef void lose_first_segment(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """The segment at SND.UNA; a super-frame goes whole if it cannot be split."""
    cdef transmission_t *sent = transmission_at(tcp, flight, flight.head)
    if transmission_bytes(sent) > sent.segment_bytes:
        transmission_split(tcp, flight, flight.head, sent.seq + sent.segment_bytes)
    transmission_lose_first(tcp, flight)
    control_lost(tcp, tcb, flight, flight.head)
    trace_note(tcp, tcb, TRACE_LOST, REXMIT_FAST, sent.seq, transmission_bytes(sent), 0)


cdef void detect_by_duplicates(tcp_t *tcp, tcb_t *tcb, flight_t *flight, ack_news_t *news, bint moved) noexcept nogil:
    """RFC 5681 section 3.2 step 2, RFC 6582 section 3.2 step 3."""
    cdef const transmission_t *sent
    cdef uint32_t lost = flight.lost_bytes
    if flight.head == 0:
        return
    sent = transmission_at(tcp, flight, flight.head)
    if sent.flags & TX_LOST:
        return
    if flight.repair == REPAIR_NONE:
        # RFC 6582 section 3.2 step 1: not for duplicates that the repair just ended has caused.
        if flight.duplicate_acks < DUPLICATE_THRESHOLD or tcb.flags & TCB_REPAIRED:
            return
        if tcb.extra and path_probe_is_lost(tcp, tcb):
            return                          # they come of what was sent behind the probe
    elif flight.repair != REPAIR_FAST or not moved or sent.flags & TX_RETRANSMITTED:
        return
    if flight.repair == REPAIR_FAST:
        flight.flags |= FLIGHT_SEND_ONE     # at once, whatever PRR has left
    if sent.flags & TX_SIZE_PROBE:          # RFC 4821 section 7.6.2: no sign of congestion
        path_probe_lost(tcp, tcb)
        transmission_lose_first(tcp, flight)
        trace_note(tcp, tcb, TRACE_LOST, REXMIT_SIZE, sent.seq, transmission_bytes(sent), 0)
        return
    lose_first_segment(tcp, tcb, flight)
    news.newly_lost += flight.lost_bytes - lost


# ---------------------------------------------------------------- beginning and end

cdef void forget_probe(tcb_t *tcb, flight_t *flight) noexcept nogil:
    """RFC 8985 section 7.1: a recovery resets TLP.end_seq and TLP.is_retrans: it is itself the answer to the loss."""
    flight.flags &= ~(FLIGHT_PROBE | FLIGHT_PROBED | FLIGHT_PROBE_AGAIN)
    tcb.flags &= ~TCB_PROBE_REPEATED


cdef void repair_begin(tcp_t *tcp, tcb_t *tcb, flight_t *flight, const ack_news_t *news, uint32_t una) noexcept nogil:
    """RFC 9937 section 6.1, RFC 5681 section 3.2 step 2: FlightSize without what limited transmit has added since the
    first sign of a loss (MUST NOT). Not for what a mark has answered (RFC 3168 section 6.1.2)."""
    cdef const cc_ops_t *ops = control_awake(tcp, tcb)
    cdef bint marked = ecn_has_reduced(tcb, flight)
    cdef cc_view_t view
    cdef uint32_t outstanding = tcb.snd_nxt - una
    if flight.flags & FLIGHT_RECOVER and seq_gt(flight.recover, una):
        outstanding = flight.recover - una
    outstanding = flight_size(tcp, tcb, flight, outstanding, news.newest_in_flight)
    undo_begin(tcb, flight)
    forget_probe(tcb, flight)
    # What is SACKed, truly or not, makes no window larger: "no more than" equation (4) gives (RFC 5681 section 3.1).
    if outstanding > flight.cwnd_before:
        outstanding = flight.cwnd_before
    flight.repair = REPAIR_FAST
    flight.flags |= FLIGHT_RECOVER
    flight.recover = tcb.snd_nxt
    flight.prr_delivered = 0
    flight.prr_out = 0
    flight.recover_fs = prr_recover_fs(tcb.snd_nxt - tcb.snd_una, flight.sacked_bytes + flight.duplicate_bytes,
                                       news.sacked if tcb.options & OPT_SACK else news.delivered, news.acked)
    ecn_note_reduced(tcb)
    if not marked or control_owns_repair(tcp, tcb):
        view_load(tcp, tcb, &view)
        ops.on_loss(control_state(tcp, tcb, ops), &view, outstanding)
        view_store(tcb, &view)
        view_store_rate(tcp, tcb, &view)
    count(tcp.counters, FAST_RETRANSMITS)
    trace_repair(tcp, tcb, flight, TRACE_RECOVERY)


cdef void repair_end(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """Everything up to `recover` is acknowledged. RFC 9937 section 6.4: cwnd = ssthresh. Without SACK little is known
    of what is in flight, and RFC 6582 section 3.2 step 3, option (1), lets no burst follow."""
    cdef uint32_t gentle
    if flight.repair != REPAIR_SIZE:
        rack_note_recovered(tcb)
        ecn_repair_ended(tcb, flight)
    if flight.repair == REPAIR_FAST and not control_owns_repair(tcp, tcb):
        tcb.cwnd = tcb.ssthresh
        if not tcb.options & OPT_SACK:
            gentle = (flight.pipe if flight.pipe > tcb.smss else tcb.smss) + tcb.smss
            if gentle < tcb.cwnd:
                tcb.cwnd = gentle
        if tcb.cwnd < tcb.smss:
            tcb.cwnd = tcb.smss
    if tcb.snd_una == flight.recover:
        tcb.flags |= TCB_REPAIRED
    trace_repair(tcp, tcb, flight, TRACE_RECOVERED)
    flight.repair = REPAIR_NONE
    flight.frto = FRTO_NONE
    flight.duplicate_acks = 0
    flight.flags &= ~(FLIGHT_RECOVER | FLIGHT_SEND_ONE | FLIGHT_RENEGED)


cdef void set_window(tcp_t *tcp, tcb_t *tcb, flight_t *flight, const ack_news_t *news, bint moved) noexcept nogil:
    """RFC 9937 section 6.2."""
    cdef uint32_t pipe = flight_pipe(flight), send_count
    if control_owns_repair(tcp, tcb):
        return
    if news.delivered == 0 and flight.prr_out != 0:
        return
    flight.prr_delivered += news.delivered
    send_count = prr_send_count(pipe, tcb.ssthresh, flight.recover_fs, flight.prr_delivered, flight.prr_out,
                                news.delivered, tcb.smss, moved and news.newly_lost == 0)
    tcb.cwnd = pipe + send_count


# ---------------------------------------------------------------- F-RTO

cdef bint can_send_new(const tcb_t *tcb) noexcept nogil:
    return seq_lt(tcb.snd_nxt, tcb.snd_end) and seq_gt(tcb.snd_una + tcb.snd_wnd, tcb.snd_nxt)


cdef void frto_on_ack(tcp_t *tcp, tcb_t *tcb, flight_t *flight, const ack_news_t *news, bint moved) noexcept nogil:
    cdef frto_verdict_t verdict = frto_step(flight.frto, moved, seq_ge(tcb.snd_una, flight.recover), news.original,
                                            news.repeated, news.beyond, can_send_new(tcb), tcb.options & OPT_SACK)
    if verdict == FRTO_SPURIOUS:
        undo_restore(tcp, tcb, flight)
    elif verdict == FRTO_SEND_NEW:
        flight.frto = FRTO_SECOND
        flight.frto_left = 2u * tcb.smss
    elif verdict == FRTO_LOST:
        if flight.frto == FRTO_SECOND:
            if tcb.cwnd > 3u * tcb.smss:
                tcb.cwnd = 3u * tcb.smss   # step 3a
            flight.flags |= FLIGHT_SEND_ONE         # what new data is out holds the repair up no longer
        flight.frto = FRTO_NONE


# ---------------------------------------------------------------- events

cdef void repair_on_ack(tcp_t *tcp, tcb_t *tcb, flight_t *flight, ack_news_t *news, uint32_t una, uint32_t in_flight,
                        bint duplicate) noexcept nogil:
    cdef bint moved = tcb.snd_una != una
    cdef bint was_fast = flight.repair == REPAIR_FAST, was_rto = flight.repair == REPAIR_RTO
    cdef bint probe_repaired = tlp_acknowledged(tcp, flight, tcb.snd_una, news, duplicate)
    if news.dsack:
        rack_note_dsack(tcb, flight)
    if undo_detects(tcp, tcb, flight, news, moved):
        undo_restore(tcp, tcb, flight)
    elif flight.frto != FRTO_NONE and (moved or news.sack or duplicate):
        frto_on_ack(tcp, tcb, flight, news, moved)
    if flight.repair != REPAIR_NONE and seq_ge(tcb.snd_una, flight.recover):
        repair_end(tcp, tcb, flight)
    if tcb.options & OPT_SACK:
        rack_detect(tcp, tcb, flight, news)
    else:
        detect_by_duplicates(tcp, tcb, flight, news, moved)
    if news.newly_lost and flight.repair == REPAIR_NONE:
        repair_begin(tcp, tcb, flight, news, una)
    elif probe_repaired:
        repair_by_probe(tcp, tcb, tcb.snd_nxt - una)
    note_disorder(tcb, flight, news, moved, duplicate)
    control_on_ack(tcp, tcb, flight, news, una, in_flight, was_fast or flight.repair == REPAIR_FAST, was_rto)
    if flight.repair == REPAIR_FAST:
        set_window(tcp, tcb, flight, news, moved)


cdef inline void note_disorder(tcb_t *tcb, flight_t *flight, const ack_news_t *news, bint moved,
                               bint duplicate) noexcept nogil:
    """SND.NXT at the first sign of a loss, before limited transmit adds to it.

    An ACK that moves SND.UNA ends the run of duplicates (RFC 3042 counts "the first two"; RFC 6675 section 5 resets
    DupAcks): what has gone since is an answer to new data delivered, and belongs to FlightSize. On a path that reorders
    all the time there is always a hole, and the first sign of the first one would leave a fraction of the flight.
    """
    if flight.repair != REPAIR_NONE:
        return
    if moved:
        flight.flags &= ~FLIGHT_RECOVER
    if not flight.flags & FLIGHT_RECOVER and (news.sack or duplicate):
        flight.flags |= FLIGHT_RECOVER
        flight.recover = tcb.snd_nxt


cdef inline void control_on_ack(tcp_t *tcp, tcb_t *tcb, flight_t *flight, const ack_news_t *news, uint32_t una,
                                uint32_t in_flight, bint in_recovery, bint after_timeout) noexcept nogil:
    cdef const cc_ops_t *ops
    cdef cc_view_t view
    cdef ack_sample_t sample
    cdef bint by_round = tcp.config.window_growth == GROWTH_BY_ROUND
    if by_round:
        in_flight = flight_of_round(tcp, flight, in_flight, news.newest_in_flight)
    if (news.delivered == 0 and news.newly_lost == 0 and news.acked == 0) or control_sleeps(tcp, tcb, in_flight):
        return
    ops = control_awake(tcp, tcb)
    view_load(tcp, tcb, &view)
    sample_fill(tcp, tcb, flight, news, &sample, una,
                flight_size(tcp, tcb, flight, in_flight, news.newest_in_flight))
    if by_round and sample.acked > sample.delivered:
        sample.acked = sample.delivered     # what SACK or duplicates have told of before: as Linux, tcp_newly_delivered
    sample.in_recovery = in_recovery
    sample.after_timeout = after_timeout
    control_pace(tcp, tcb, &view, 0 if in_recovery or after_timeout else sample.acked)
    ops.on_ack(control_state(tcp, tcb, ops), &view, &sample)
    if not in_recovery or control_owns_repair(tcp, tcb):
        view_store(tcb, &view)
    view_store_rate(tcp, tcb, &view)
    if view.hold_samples:
        flight.app_limited = (tcb.delivered + flight_pipe(flight)) | 1


cdef void repair_on_reordering_timeout(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """RFC 8985 section 6.2 step 5: RACK_detect_loss, and the fast recovery that it begins."""
    cdef ack_news_t news
    memset(&news, 0, sizeof(news))
    if rack_detect(tcp, tcb, flight, &news) == 0:
        if flight.to_resend.first:          # a probe of the path's MTU, and nothing else
            work_add(tcp, tcb)
        return
    if flight.repair == REPAIR_NONE:
        repair_begin(tcp, tcb, flight, &news, tcb.snd_una)
    if flight.repair == REPAIR_FAST:
        set_window(tcp, tcb, flight, &news, False)
    work_add(tcp, tcb)


cdef void repair_on_rto(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    # RFC 5682 section 3.1 step 1: no F-RTO within a recovery. Nor after the timeout has been repeated, which it allows.
    # A timeout that was undone leaves its back-off until something is measured (undo_restore), and is none.
    cdef bint first = flight.repair == REPAIR_NONE and (tcb.backoff == 0
                                                        or flight.flags & FLIGHT_TIMEOUT_UNDONE)
    undo_begin(tcb, flight)
    forget_probe(tcb, flight)
    if transmission_at(tcp, flight, flight.head).flags & TX_SACKED:
        count(tcp.counters, SACK_RENEGED_IN)
        transmissions_renege(tcp, tcb, flight)
    rack_lose_at_timeout(tcp, tcb, flight)
    flight.repair = REPAIR_RTO
    flight.recover = tcb.snd_nxt            # RFC 6582 section 3.2 step 4
    flight.frto = FRTO_FIRST if first else FRTO_NONE
    flight.flags = (flight.flags | FLIGHT_RECOVER | FLIGHT_SEND_ONE) & ~FLIGHT_ROUND
    flight.duplicate_acks = 0
    flight.duplicate_bytes = 0
    trace_repair(tcp, tcb, flight, TRACE_RECOVERY)


cdef void repair_resend(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t above) noexcept nogil:
    cdef uint32_t index = flight.head, before = 0
    cdef const transmission_t *sent
    while index:
        sent = transmission_at(tcp, flight, index)
        if not sent.flags & (TX_SACKED | TX_LOST) and transmission_bytes(sent) > above:
            transmission_lose(tcp, flight, index)
            trace_note(tcp, tcb, TRACE_LOST, REXMIT_SIZE, sent.seq, transmission_bytes(sent), 0)
        if before and sent.flags & TX_LOST and transmission_at(tcp, flight, before).flags & TX_LOST:
            transmission_merge(tcp, flight, before)     # cut anew when it is sent
        else:
            before = index
        index = transmission_at(tcp, flight, before).next
    flight.repair = REPAIR_SIZE
    flight.frto = FRTO_NONE
    flight.recover = tcb.snd_nxt
    # Duplicates of what did arrive are to be expected, and say nothing of the repair before (RFC 3708 section 2).
    flight.flags = (flight.flags | FLIGHT_RECOVER) & ~(FLIGHT_SEND_ONE | FLIGHT_UNDO | FLIGHT_STAMPED)
    flight.duplicate_acks = 0
    flight.duplicate_bytes = 0
    work_add(tcp, tcb)
    trace_repair(tcp, tcb, flight, TRACE_RECOVERY)


cdef void repair_note_sent(tcp_t *tcp, flight_t *flight, uint32_t length, bint again) noexcept nogil:
    if flight.repair == REPAIR_FAST:
        flight.prr_out += length
    if again:
        undo_resent(tcp, flight, length)
    elif flight.frto == FRTO_SECOND:
        flight.frto_left -= length if length < flight.frto_left else flight.frto_left


cdef void repair_by_probe(tcp_t *tcp, tcb_t *tcb, uint32_t flight_bytes) noexcept nogil:
    cdef const cc_ops_t *ops = control_awake(tcp, tcb)
    cdef cc_view_t view
    ecn_note_reduced(tcb)
    view_load(tcp, tcb, &view)
    ops.on_loss(control_state(tcp, tcb, ops), &view, flight_bytes)
    view_store(tcb, &view)
