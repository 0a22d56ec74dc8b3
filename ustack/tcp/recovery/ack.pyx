# SPDX-License-Identifier: MIT
"""What an acknowledgment does to the sender. See ack.pxd for the contract and the sources."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.counters cimport DUPLICATE_ACKS_IN, TAIL_PROBE_REPAIRS, count
from ustack.base.debug cimport ensure
from ustack.base.types cimport us_of
from ustack.tcp.cc.contract cimport SSTHRESH_AT_FIRST, ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.records.configuration cimport GROWTH_BY_ROUND
from ustack.tcp.records.deadlines cimport deadlines_arm
from ustack.tcp.records.flight cimport (
    FLIGHT_LONE, FLIGHT_MARKED, FLIGHT_PROBE_AGAIN, FLIGHT_ROUND, FLIGHT_SEND_ONE, FLIGHT_TIMEOUT_UNDONE, REPAIR_NONE,
    REXMIT_NONE, REXMIT_RTO, TX_SACKED, flight_pipe, flight_raw, flight_t, mark_end, transmission_at,
    transmission_bytes, transmission_t)
from ustack.tcp.records.life cimport piece_release
from ustack.tcp.records.marks cimport note_writable
from ustack.tcp.records.measures cimport note_rate
from ustack.tcp.records.state cimport ESTABLISHED
from ustack.tcp.records.tally cimport delivered_advance
from ustack.tcp.records.tcb cimport (
    OPT_SACK, OPT_TIMESTAMPS, TCB_KEEPALIVE, TCB_MSS_PROVEN, TCB_PERSIST, TCB_PROBE_REPEATED, TCB_PROBE_UNMEASURED,
    TCB_REORDERED, TCB_REPAIRED, TCB_REXMIT, send_piece_at, send_piece_t, snd_cursor_set, tcb_max_window, tcp_now_us)
from ustack.tcp.records.trace cimport TRACE_ACKED, TRACE_ACKED_ALL, TRACE_LOST, TRACE_SACKED, TRACE_WINDOW, trace_note
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.control cimport (
    control_awake, control_pace, control_sleeps, control_state, rate_interval_us, sample_fill_plain, view_load,
    view_store)
from ustack.tcp.recovery.delivered cimport ack_news_t, transmissions_acknowledge
from ustack.tcp.recovery.invariants cimport flight_check
from ustack.tcp.recovery.losses cimport transmission_lose_first
from ustack.tcp.recovery.path cimport MTU_PROBING_ALWAYS, path_acknowledged, path_search
from ustack.tcp.recovery.rack cimport rack_update
from ustack.tcp.recovery.repair cimport (
    repair_by_probe, repair_count_duplicate, repair_on_ack, repair_resend)
from ustack.tcp.recovery.rtt cimport (
    RTO_AFTER_LOST_SYN_US, rexmit_restart, rexmit_start, rexmit_stop, rtt_base_rto_ns, rtt_min_us, rtt_note_min,
    rtt_progress, rtt_sample, rtt_sample_after_undo)
from ustack.tcp.recovery.scoreboard cimport scoreboard_take
from ustack.tcp.recovery.tlp cimport tlp_schedule
from ustack.tcp.recovery.transmissions cimport flight_of, flight_release
from ustack.wire.seq cimport seq_diff, seq_gt, seq_lt
from ustack.wire.tcp cimport FIN, HAS_TIMESTAMPS, SYN


cdef uint32_t initial_window(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """RFC 6928 section 2: min(10 * MSS, max(2 * MSS, 14600)), with the configured count for 10."""
    cdef uint32_t segments = tcp.config.initial_window_segments * <uint32_t>tcb.smss
    cdef uint32_t floor = 2u * tcb.smss
    cdef uint32_t octets = 1460u * tcp.config.initial_window_segments
    if floor < octets:
        floor = octets
    return segments if segments < floor else floor


cdef void ack_start(tcp_t *tcp, tcb_t *tcb, uint32_t repeats, uint32_t rtt_us) noexcept nogil:
    tcb.cwnd = initial_window(tcp, tcb)
    tcb.ssthresh = SSTHRESH_AT_FIRST
    if repeats > 1:                         # RFC 5681 section 3.1, as RFC 6928 section 2 has it for these windows
        tcb.cwnd = tcb.smss
    if rtt_us != 0:
        rtt_sample(tcb, rtt_us)
    elif repeats > 0:
        tcb.rttvar_us = RTO_AFTER_LOST_SYN_US       # of a connection without SRTT: its RTO (rtt)
    if tcp.config.mtu_probing == MTU_PROBING_ALWAYS:
        path_search(tcp, tcb)


cdef void ack_set_window(tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    tcb.snd_wnd = window
    tcb.snd_wl1 = seg.seq
    tcb.snd_wl2 = seg.ack
    if window > tcb_max_window(tcb):        # rounded up where it is a SYN's, which is not scaled
        tcb.snd_max_wnd = <uint16_t>((window + (1u << tcb.snd_wscale) - 1) >> tcb.snd_wscale)


cdef void ack_input(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    if seg.ack == tcb.snd_nxt and is_simple(tcp, tcb, seg):
        take_simple(tcp, tcb)
    elif seq_lt(seg.ack, tcb.snd_una):
        # An old duplicate; but what it has SACKed may be news, where ACKs overtake each other.
        if tcb.flight and tcb.options & OPT_SACK and seg.sack_count:
            take_acknowledgment(tcp, tcb, seg, False)
        return
    elif seg.ack != tcb.snd_una:
        if tcb.flight:
            take_acknowledgment(tcp, tcb, seg, False)
        else:
            take_unrecorded(tcp, tcb, seg)
    else:
        take_duplicate(tcp, tcb, seg, window)
    update_window(tcp, tcb, seg, window)


cdef inline bint is_duplicate(const tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    """RFC 5681 section 2, all five conditions. Answers to window probes look alike and tell of no loss."""
    return (not tcb.flags & TCB_PERSIST and tcb.snd_max != tcb.snd_una and seg.length == 0
            and not seg.flags & (SYN | FIN) and window == tcb.snd_wnd)


cdef void update_window(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    """Only from a segment that is not older than the last one used, so that a reordered one cannot close the window.

    RFC 9293 (3.10.7.4) takes SEG.SEQ for a segment's age. But one that acknowledges more is never older, though it may
    be sent again and have a lower number: where it was passed over, SND.UNA would move and take the old SND.WND with
    it, to the right of what the peer has promised. Linux does the same. SND.WL2 =< SEG.ACK always holds here.
    """
    cdef flight_t *flight
    cdef uint32_t before = tcb.snd_wnd
    if seq_lt(seg.seq, tcb.snd_wl1) and not seq_gt(seg.ack, tcb.snd_wl2):
        return
    if window != tcb.snd_wnd:
        work_add(tcp, tcb)
        if window == 0 and tcb.flags & TCB_PERSIST and tcb.snd_una == tcb.snd_max:
            rexmit_stop(tcb)                # it was the override timer's: a closed window has an RTO (SHLD-29)
        elif window > tcb.snd_wnd and tcb.flags & TCB_PERSIST:
            tcb.backoff = 0
            rexmit_stop(tcb)
            flight = flight_of(tcp, tcb)
            if flight != NULL:              # what was in flight when the window closed may be lost
                repair_resend(tcp, tcb, flight, 0)
            elif tcb.snd_nxt != tcb.snd_una:
                tcb.flags |= TCB_REXMIT
            if tcb.snd_una != tcb.snd_max:
                rexmit_start(tcp, tcb)
    ack_set_window(tcb, seg, window)
    if window != before:
        trace_note(tcp, tcb, TRACE_WINDOW, REXMIT_NONE, tcb.snd_una, 0, before)


# ---------------------------------------------------------------- the common case

cdef inline bint is_simple(const tcp_t *tcp, const tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """SEG.ACK = SND.NXT. One frame is out, sent once, and this acknowledges all of it: nothing else can be learned."""
    return (tcb.flight != 0 and flight_raw(tcp, tcb).flags == FLIGHT_LONE and seg.sack_count == 0
            and tcb.snd_max == tcb.snd_nxt and not tcb.flags & (TCB_PROBE_REPEATED | TCB_PROBE_UNMEASURED))


cdef inline void take_simple(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """What take_acknowledgment comes to there: with nothing SACKed, lost or sent again, and nothing left in flight,
    each of its steps but the round trip, the control and the timer finds nothing to do (test_lone.py compares both)."""
    cdef const flight_t *flight = flight_raw(tcp, tcb)
    cdef uint32_t acked = tcb.snd_nxt - tcb.snd_una
    cdef uint32_t waited_us = us_of(tcp.now_ns - flight.first.sent_ns), rtt_us
    rtt_us = rtt_sample(tcb, waited_us)
    rtt_note_min(tcp, tcb, rtt_us)
    if acked >= tcb.smss and flight.first.segment_bytes == tcb.smss:
        tcb.flags |= TCB_MSS_PROVEN         # sent once, and it arrived
    delivered_advance(tcp, tcb, acked)
    if tcp.config.measure:
        note_rate(tcp, tcb.index, acked, waited_us, True)
    tcb.backoff = 0
    if not control_sleeps(tcp, tcb, acked):
        control_on_simple(tcp, tcb, acked, waited_us, rtt_us)
    trace_note(tcp, tcb, TRACE_ACKED_ALL, REXMIT_NONE, tcb.snd_una, acked, rtt_us)
    flight_release(tcp, tcb)
    una_moved(tcp, tcb, tcb.snd_nxt)
    rexmit_stop(tcb)                        # RFC 6298 (5.2)
    if tcb.flags & TCB_KEEPALIVE:
        deadlines_arm(tcp, tcb)
    note_writable(tcp, tcb)
    work_add(tcp, tcb)


cdef void control_on_simple(tcp_t *tcp, tcb_t *tcb, uint32_t acked, uint32_t waited_us, uint32_t rtt_us) noexcept nogil:
    cdef const cc_ops_t *ops = control_awake(tcp, tcb)
    cdef ack_sample_t sample
    cdef cc_view_t view
    view_load(tcp, tcb, &view)
    sample_fill_plain(tcp, tcb, &sample, acked, acked, acked)
    sample.rtt_us = rtt_us
    sample.delivered_total = tcb.delivered
    sample.rate_delivered = acked
    sample.rate_interval_us = waited_us
    sample.rate_prior_delivered = tcb.delivered - acked
    sample.rate_in_flight = acked
    sample.is_app_limited = True
    sample.round_start = True
    control_pace(tcp, tcb, &view, sample.acked)
    ops.on_ack(control_state(tcp, tcb, ops), &view, &sample)
    view_store(tcb, &view)


cdef inline void una_moved(tcp_t *tcp, tcb_t *tcb, uint32_t ack) noexcept nogil:
    tcb.snd_una = ack
    tcb.soft_error = 0                      # whatever the network said, it has carried this since
    tcb.flags &= ~(TCB_REPAIRED | TCB_PROBE_REPEATED)
    release_acknowledged(tcp, tcb)
    if tcb.extra:
        path_acknowledged(tcp, tcb)


# ---------------------------------------------------------------- any other acknowledgment

cdef void take_acknowledgment(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, bint duplicate) noexcept nogil:
    """Something is in flight, and SEG acknowledges some of it, or SACKs, or is a duplicate."""
    cdef flight_t *flight = flight_of(tcp, tcb)
    cdef uint32_t una = tcb.snd_una, in_flight = flight_pipe(flight)
    cdef bint moved = seq_gt(seg.ack, una)
    cdef bint repeated = tcb.flags & TCB_PROBE_REPEATED
    cdef ack_news_t news
    memset(&news, 0, sizeof(news))
    news.has_ts = tcb.options & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS and seg.ts_ecr != 0
    news.ts_ecr = seg.ts_ecr
    news.fack = flight.rack_fack
    if tcb.options & OPT_SACK:
        if seg.sack_count:
            scoreboard_take(tcp, tcb, flight, seg, &news)
    elif duplicate:
        repair_count_duplicate(tcb, flight, &news)
    if moved:
        news.acked = seg.ack - una
        if flight.duplicate_bytes:
            forget_duplicates(tcp, tcb, flight, &news)
        flight.duplicate_acks = 0
        transmissions_acknowledge(tcp, tcb, flight, seg.ack, &news)
        una_moved(tcp, tcb, seg.ack)
        if seq_lt(tcb.snd_nxt, seg.ack):    # the byte of a window probe
            tcb.snd_nxt = seg.ack
    if news.delivered:
        delivered_advance(tcp, tcb, news.delivered)
        flight.delivered_us = tcp_now_us(tcp)
        if news.newest_sent_ns:
            flight.first_sent_us = us_of(news.newest_sent_ns)
        if flight.app_limited and seq_diff(tcb.delivered, flight.app_limited) > 0:
            flight.app_limited = 0
    take_measurements(tcp, tcb, flight, &news, moved)
    if tcp.config.measure and news.newest_sent_ns:
        measure_rate(tcp, tcb, flight, &news)
    rack_update(tcp, flight, &news)
    if repeated and moved:                  # RFC 8985 section 7.4.2: the probe's repetition was needed
        repair_by_probe(tcp, tcb, tcb.snd_nxt - una)
        count(tcp.counters, TAIL_PROBE_REPAIRS)
    repair_on_ack(tcp, tcb, flight, &news, una, in_flight, duplicate)
    if not seq_lt(tcb.snd_nxt, tcb.snd_end) and flight.to_resend.first == 0 and flight_pipe(flight) < tcb.cwnd:
        flight.app_limited = (tcb.delivered + flight_pipe(flight)) | 1
    if moved:
        go_on(tcp, tcb, flight)
    elif news.sacked and flight.head and news.newest_sent_ns <= transmission_at(tcp, flight, flight.head).sent_ns:
        # What was sent before it is still arriving: the path is slow, and the timer times what is first since it was
        # sent. What was sent after it restarts nothing, or a lost one would never time out. Linux does the same.
        rexmit_start(tcp, tcb)
    if news.delivered or news.newly_lost or news.dsack or flight_of(tcp, tcb) == NULL or duplicate:
        work_add(tcp, tcb)
    if tcp.trace != NULL:
        trace_news(tcp, tcb, &news, una, duplicate)
    ensure(flight_check(tcp, tcb))


cdef void measure_rate(tcp_t *tcp, const tcb_t *tcb, const flight_t *flight, const ack_news_t *news) noexcept nogil:
    cdef uint32_t interval_us = rate_interval_us(flight, news)
    if interval_us >= rtt_min_us(tcb):      # shorter than any path: an ACK of something sent again
        note_rate(tcp, tcb.index, tcb.delivered - news.newest_delivered, interval_us, news.newest_app_limited)


cdef void trace_news(tcp_t *tcp, const tcb_t *tcb, const ack_news_t *news, uint32_t una, bint duplicate) noexcept nogil:
    if news.sacked:
        trace_note(tcp, tcb, TRACE_SACKED, REXMIT_NONE, news.newest_end, news.sacked, news.rtt_us)
    if news.acked or (duplicate and not news.sacked):
        trace_note(tcp, tcb, TRACE_ACKED, REXMIT_NONE, una, news.acked, news.rtt_us)


cdef inline void go_on(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """SND.UNA has moved: what waits next."""
    if flight.records == 0:
        if flight.flags & FLIGHT_PROBE_AGAIN and flight.tlp_end == tcb.snd_una:
            tcb.flags |= TCB_PROBE_REPEATED
        flight_release(tcp, tcb)
    if tcb.snd_una == tcb.snd_max:
        rexmit_stop(tcb)                    # RFC 6298 (5.2)
        if tcb.flags & TCB_KEEPALIVE:
            deadlines_arm(tcp, tcb)
    else:
        rexmit_restart(tcp, tcb, flight_of(tcp, tcb))   # (5.3)
        if tcb.flight:
            tlp_schedule(tcp, tcb, flight)
    note_writable(tcp, tcb)
    work_add(tcp, tcb)


cdef inline void forget_duplicates(const tcp_t *tcp, const tcb_t *tcb, flight_t *flight,
                                   ack_news_t *news) noexcept nogil:
    """Without SACK: of what is acknowledged now, all but the first segment may have been counted by a duplicate.
    (Before a repair Linux forgets the others then: tcp_reset_reno_sack.)"""
    cdef uint32_t counted = news.acked - tcb.smss if news.acked > tcb.smss else 0
    if counted > flight.duplicate_bytes:
        counted = flight.duplicate_bytes
    flight.duplicate_bytes -= counted
    if tcp.config.window_growth == GROWTH_BY_ROUND and flight.repair == REPAIR_NONE:
        flight.duplicate_bytes = 0
    news.delivered -= counted               # transmissions_acknowledge adds all of it


cdef inline void take_measurements(tcp_t *tcp, tcb_t *tcb, flight_t *flight, ack_news_t *news,
                                   bint moved) noexcept nogil:
    """RFC 6298 section 3, RFC 7323 section 4. Only a measurement ends the back-off (Karn's rule, MUST-18)."""
    cdef uint64_t sent_ns = news.rtt_newest_ns
    cdef uint64_t oldest_ns = news.rtt_oldest_ns
    # Sent again, and the echo tells that it answers this sending (Karn); ticks of half a second do not tell.
    if news.rtt_echoed_ns > sent_ns and not tcb.flags & TCB_REORDERED:
        sent_ns = news.rtt_echoed_ns
        if moved and oldest_ns == 0:
            oldest_ns = sent_ns
    if sent_ns:
        news.rtt_us = us_of(tcp.now_ns - sent_ns)
        if news.rtt_us == 0:
            news.rtt_us = 1
        rtt_note_min(tcp, tcb, news.rtt_us)
        tcb.flags &= ~TCB_PROBE_UNMEASURED
    if not moved:
        return
    if oldest_ns == 0 or (news.rtt_oldest_ns == 0 and tcb.srtt_us == 0 and tcb.rttvar_us != 0):
        # The second: a SYN had to be repeated, and its echo does not end the three seconds of RFC 6298 (5.7).
        rtt_progress(tcp, tcb)
        return
    tcb.backoff = 0
    if flight.flags & FLIGHT_TIMEOUT_UNDONE and news.rtt_oldest_ns:
        rtt_sample_after_undo(tcb, flight, us_of(tcp.now_ns - oldest_ns))
    elif not flight.flags & FLIGHT_ROUND or seq_gt(tcb.snd_una, flight.round_end):
        rtt_sample(tcb, us_of(tcp.now_ns - oldest_ns))
    else:
        return
    if flight.flags & FLIGHT_MARKED and flight.repair == REPAIR_NONE and seq_gt(tcb.snd_una, mark_end(flight)[0]):
        flight.flags &= ~FLIGHT_MARKED
    flight.flags |= FLIGHT_ROUND
    flight.round_end = tcb.snd_nxt


cdef void take_duplicate(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    """SEG.ACK = SND.UNA."""
    cdef bint duplicate = is_duplicate(tcb, seg, window)
    if tcb.flags & TCB_PROBE_REPEATED and (duplicate or seg.sack_count):
        tcb.flags &= ~TCB_PROBE_REPEATED    # RFC 8985 section 7.4.2, cases 1 and 2: both copies have arrived
    if duplicate:
        count(tcp.counters, DUPLICATE_ACKS_IN)
    if tcb.flight and (duplicate or (tcb.options & OPT_SACK and seg.sack_count)):
        take_acknowledgment(tcp, tcb, seg, duplicate)
    if tcb.backoff:
        take_life(tcp, tcb, window)


cdef void take_life(tcp_t *tcp, tcb_t *tcb, uint32_t window) noexcept nogil:
    """The peer is there, and the timer has backed off: the path has come back, perhaps. What is missing goes again now,
    not when the timer comes, which may be a minute away.

    No RFC says so. RFC 6298 (5.5) backs off because silence may be congestion; here the silence has ended, and RFC 6069
    retransmits at once on less, an ICMP message. It is one segment, at most once in the time of an RTO without
    back-off, no more than (5.4) sends before any: the window stays at one segment and the back-off as it is until
    something is acknowledged. Not into a closed window, which is probed by the timer (RFC 9293 MUST-35), and not where
    the timeout has been undone: then nothing is missing."""
    cdef flight_t *flight = flight_of(tcp, tcb)
    cdef const transmission_t *sent
    if (flight == NULL or flight.head == 0 or tcb.flags & TCB_PERSIST or tcb.state < ESTABLISHED or window == 0
            or flight.flags & (FLIGHT_SEND_ONE | FLIGHT_TIMEOUT_UNDONE)
            or transmission_at(tcp, flight, flight.head).flags & TX_SACKED
            or tcp.now_ns - transmission_at(tcp, flight, flight.head).sent_ns < rtt_base_rto_ns(tcp, tcb)):
        return
    transmission_lose_first(tcp, flight)
    sent = transmission_at(tcp, flight, flight.head)
    trace_note(tcp, tcb, TRACE_LOST, REXMIT_RTO, sent.seq, transmission_bytes(sent), 0)
    flight.flags |= FLIGHT_SEND_ONE
    work_add(tcp, tcb)


cdef void take_unrecorded(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """There was no memory for a flight (transmissions.pxd), or the byte of a window probe was taken: no measurement."""
    cdef const cc_ops_t *ops
    cdef cc_view_t view
    cdef ack_sample_t sample
    cdef uint32_t una = tcb.snd_una
    rtt_progress(tcp, tcb)
    delivered_advance(tcp, tcb, seg.ack - una)
    una_moved(tcp, tcb, seg.ack)
    if seq_lt(tcb.snd_nxt, seg.ack):
        tcb.snd_nxt = seg.ack
    if not control_sleeps(tcp, tcb, tcb.snd_nxt - una):
        ops = control_awake(tcp, tcb)
        view_load(tcp, tcb, &view)
        sample_fill_plain(tcp, tcb, &sample, seg.ack - una, tcb.snd_nxt - una, tcb.snd_nxt - una)
        sample.delivered_total = tcb.delivered
        control_pace(tcp, tcb, &view, sample.acked)
        ops.on_ack(control_state(tcp, tcb, ops), &view, &sample)
        view_store(tcb, &view)
    if tcb.snd_una == tcb.snd_max:
        rexmit_stop(tcb)
        if tcb.flags & TCB_KEEPALIVE:
            deadlines_arm(tcp, tcb)
    else:
        rexmit_start(tcp, tcb)
        if tcb.backoff:
            tcb.flags |= TCB_REXMIT         # the rest of what a timeout has found missing, segment by segment
    note_writable(tcp, tcb)
    work_add(tcp, tcb)
    trace_note(tcp, tcb, TRACE_ACKED, REXMIT_NONE, una, tcb.snd_una - una, 0)


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
        if tcb.flight and flight_of(tcp, tcb).piece == index:
            flight_of(tcp, tcb).piece = 0
        piece_release(tcp, index)
