# SPDX-License-Identifier: MIT
"""Timeouts: RFC 9293 section 3.10.8 and 3.8, RFC 6298 section 5.

A connection has one node in the wheel for all its deadlines (deadlines.pxd). When it fires, each deadline that has come
is served, and the node is armed for the next one. TIME-WAIT records wait equally long and need no node: they are a list
in order of expiry. A million of either may be due in one tick: a turn serves so many, the rest is due at once in the
next (tcp_next_deadline says so).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.counters cimport (
    KEEPALIVE_PROBES_OUT, ORPHANS_TIMED_OUT, RETRANSMIT_TIMEOUTS, SEGMENTS_RETRANSMITTED, count)
from ustack.base.prefetch cimport prefetch_lines
from ustack.base.wheel cimport TIMER_NONE, WHEEL_TICK_SHIFT, timer_event_t, wheel_arm, wheel_expire, wheel_next_ns
from ustack.ip.layer cimport IP_RING_FULL, ip_is_unreached
from ustack.tcp.cc.contract cimport cc_ops_t, cc_view_t
from ustack.tcp.emit cimport emit_syn_ack
from ustack.tcp.ending cimport connection_end, syn_received_remove, time_wait_remove
from ustack.tcp.records.deadlines cimport (
    TIMER_CONNECTION, TIMER_SYN_RECEIVED, deadline_clear, deadline_expired, deadlines_arm, tcb_silent_ns, tcp_tick,
    tick_after)
from ustack.tcp.records.flight cimport (
    FLIGHT_MARKED, FLIGHT_PROBE, FLIGHT_REORDER, FLIGHT_TIMEOUT_UNDONE, REXMIT_NONE, flight_t)
from ustack.tcp.records.sockopts cimport tcb_keepalive_probes, tcb_user_timeout_ns
from ustack.tcp.records.state cimport (
    CLOSED, CLOSE_HOST_UNREACHABLE, CLOSE_KEEPALIVE, CLOSE_TIMEOUT, SYN_RECEIVED, SYN_SENT, close_reason_t,
    reason_of_icmp)
from ustack.tcp.records.tally cimport tally_timeout
from ustack.tcp.records.tcb cimport (
    DEADLINE_ACK, DEADLINE_APPLICATION, DEADLINE_KEEPALIVE, DEADLINE_KINDS, DEADLINE_PACE, DEADLINE_PROBE,
    DEADLINE_REXMIT, SYN_ACCURATE, TCB_ABORT, TCB_ACK_NOW, TCB_CLOSED_BY_APP, TCB_EV_TIMEOUT, TCB_PERSIST, TCB_PROBE,
    TCB_REXMIT, syn_at, syn_received_t, syn_retries, tcb_at, tcb_t, time_wait_at)
from ustack.tcp.records.trace cimport TRACE_TIMEOUT, trace_note
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.control cimport (
    control_awake, control_state, controls_rest, controls_rest_ns, view_load, view_store, view_store_rate)
from ustack.tcp.recovery.ecn cimport ecn_has_reduced, ecn_note_reduced
from ustack.tcp.recovery.path cimport path_timed_out
from ustack.tcp.recovery.repair cimport repair_on_reordering_timeout, repair_on_rto
from ustack.tcp.recovery.rtt cimport rexmit_start, rexmit_stop, rtt_r2_ns, rtt_waited_ns
from ustack.tcp.recovery.tlp cimport tlp_expired, tlp_instead
from ustack.tcp.recovery.transmissions cimport flight_of


cdef enum:
    EVENTS_AT_ONCE = 64
    TIMERS_A_TURN = 1024                    # that fire, and as many TIME-WAIT records
    MOVES_A_TURN = 4096                     # timers of the wheel's higher levels that come nearer
    RING_FULL_RETRY_NS = 1000000
    COLD_CONNECTIONS = 1024                 # with more, a record is not expected in the caches
    MAX_BACKOFF = 250                       # beyond any R2: the interval stops growing at config.rto_max_ns long before


cdef void tcp_timers(tcp_t *tcp, uint64_t now_ns) noexcept nogil:
    cdef timer_event_t events[EVENTS_AT_ONCE]
    cdef uint32_t n = EVENTS_AT_ONCE, fired = 0, moves = MOVES_A_TURN, i
    tcp.now_ns = now_ns
    while n == EVENTS_AT_ONCE and fired < TIMERS_A_TURN:
        n = wheel_expire(&tcp.wheel, now_ns, events, EVENTS_AT_ONCE, &moves)
        fired += n
        if tcp.tcbs.in_use > COLD_CONNECTIONS:
            for i in range(n):
                if events[i].kind == TIMER_CONNECTION:
                    prefetch_lines(tcb_at(tcp, events[i].owner), sizeof(tcb_t))
        for i in range(n):
            if events[i].kind == TIMER_SYN_RECEIVED:
                syn_received_expired(tcp, events[i].owner)
            else:
                connection_expired(tcp, tcb_at(tcp, events[i].owner), events[i].now_tick)
    tcp.turn.timers += fired + time_waits_expired(tcp) + controls_rest(tcp)
    tcp.turn.moves += MOVES_A_TURN - moves


cdef inline uint32_t time_wait_left(const tcp_t *tcp) noexcept nogil:
    """Ticks until the first one expires. None has more than a whole TIME-WAIT to go: it has expired, then, and longer
    ago than ticks can tell."""
    cdef uint32_t now_tick = tcp_tick(tcp)
    cdef uint32_t ticks = time_wait_at(tcp, tcp.time_wait_order.first).expiry_tick - now_tick
    return ticks if ticks <= tick_after(tcp, 2 * tcp.config.msl_ns) - now_tick else 0


cdef uint32_t time_waits_expired(tcp_t *tcp) noexcept nogil:
    cdef uint32_t n = 0
    while n < TIMERS_A_TURN and tcp.time_wait_order.first and time_wait_left(tcp) == 0:
        time_wait_remove(tcp, tcp.time_wait_order.first)
        n += 1
    return n


cdef uint64_t tcp_next_deadline(const tcp_t *tcp) noexcept nogil:
    cdef uint64_t deadline_ns = wheel_next_ns(&tcp.wheel)
    cdef uint64_t expiry_ns
    if tcp.time_wait_order.first:
        expiry_ns = tcp.now_ns + (<uint64_t>time_wait_left(tcp) << WHEEL_TICK_SHIFT)
        if expiry_ns < deadline_ns:
            deadline_ns = expiry_ns
    expiry_ns = controls_rest_ns(tcp)
    return expiry_ns if expiry_ns < deadline_ns else deadline_ns


# ---------------------------------------------------------------- half-open records

cdef void syn_received_expired(tcp_t *tcp, uint32_t index) noexcept nogil:
    """SYN-ACK again, after 1, 2, 4, ... times the initial RTO, for config.syn_ack_timeout_ns in all."""
    cdef syn_received_t *syn = syn_at(tcp, index)
    cdef uint64_t interval_ns = tcp.config.rto_initial_ns << (syn_retries(syn) + 1)
    syn.timer = TIMER_NONE
    if interval_ns - tcp.config.rto_initial_ns >= tcp.config.syn_ack_timeout_ns:
        syn_received_remove(tcp, index, False)
        return
    if emit_syn_ack(tcp, syn, syn_retries(syn) + 1) == IP_RING_FULL:
        interval_ns = RING_FULL_RETRY_NS
    else:
        syn.retries_answers = (syn_retries(syn) + 1) | (syn.retries_answers & SYN_ACCURATE)     # and no answers yet
        count(tcp.counters, SEGMENTS_RETRANSMITTED)
    syn.timer = wheel_arm(&tcp.wheel, tcp.now_ns + interval_ns, TIMER_SYN_RECEIVED, index)


# ---------------------------------------------------------------- connections

cdef void connection_expired(tcp_t *tcp, tcb_t *tcb, uint32_t now_tick) noexcept nogil:
    """now_tick: of the node that has fired. A process may have been stopped for longer than ticks can tell apart, and
    what was due meanwhile would be in the future (timer_event_t)."""
    cdef uint32_t kind
    tcb.timer = TIMER_NONE
    if tcb.state == CLOSED:
        return
    for kind in range(DEADLINE_KINDS):
        if deadline_expired(tcp, tcb, kind, now_tick):
            SERVE[kind](tcp, tcb)
    if tcb.state != CLOSED:
        deadlines_arm(tcp, tcb)


cdef void ack_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    deadline_clear(tcb, DEADLINE_ACK)
    tcb.flags |= TCB_ACK_NOW
    work_add(tcp, tcb)


cdef void give_up(tcp_t *tcp, tcb_t *tcb, close_reason_t reason) noexcept nogil:
    """R2 (MUST-20): output tells the peer, in case it can hear, and ends the connection. What the network has said
    since the last ACK explains the silence better than "timeout" does (MUST-47)."""
    if reason == CLOSE_TIMEOUT and tcb.soft_error:
        reason = reason_of_icmp(tcb.soft_error >> 4, tcb.soft_error & 0x0F)
    tcb.close_reason = reason
    tcb.flags |= TCB_ABORT
    work_add(tcp, tcb)


cdef void application_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    deadline_clear(tcb, DEADLINE_APPLICATION)
    if tcb.flags & TCB_CLOSED_BY_APP:       # FIN-WAIT-2 for nobody: the peer never closed
        connection_end(tcp, tcb, CLOSE_TIMEOUT)
        return
    tcb.flags |= TCB_EV_TIMEOUT
    work_add(tcp, tcb)


cdef void no_answer(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.flags & TCB_CLOSED_BY_APP:
        count(tcp.counters, ORPHANS_TIMED_OUT)
    give_up(tcp, tcb, CLOSE_TIMEOUT)


cdef void retransmission_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef bint syn = tcb.state == SYN_SENT or tcb.state == SYN_RECEIVED
    cdef flight_t *flight
    cdef uint64_t limit_ns = rtt_r2_ns(tcp, tcb)
    if syn and tcb_user_timeout_ns(tcp, tcb) == 0:
        limit_ns = tcp.config.syn_timeout_ns
    if tcb.flags & TCB_PERSIST:
        if tcb.snd_wnd > 0 and tcb.snd_una == tcb.snd_max:
            override_timeout(tcp, tcb)
        else:
            persist_timeout(tcp, tcb)
        return
    if tcb.snd_una == tcb.snd_max:          # nothing was sent when it should have been: output tries again
        rexmit_stop(tcb)
        work_add(tcp, tcb)
        return
    if tcb.state == SYN_SENT and ip_is_unreached(tcp.ip, tcb.neighbour, &tcb.key.raddr):
        # One of more SYNs than the neighbour's queue holds: it was not there to be given back (tcp_unreached).
        connection_end(tcp, tcb, CLOSE_HOST_UNREACHABLE)
        return
    if tcb.backoff >= MAX_BACKOFF or rtt_waited_ns(tcp, tcb, <uint32_t>tcb.backoff + 1) >= limit_ns:
        no_answer(tcp, tcb)
        return
    flight = flight_of(tcp, tcb)
    if not syn and tcb.snd_wnd == 0:        # the window was taken back: probe, it is no congestion (MUST-35, SHLD-17)
        count(tcp.counters, RETRANSMIT_TIMEOUTS)
        persist_timeout(tcp, tcb)
        return
    if flight != NULL and tlp_instead(tcp, tcb, flight):
        rexmit_start(tcp, tcb)              # RFC 8985 section 7.3
        return
    count(tcp.counters, RETRANSMIT_TIMEOUTS)
    if not syn:
        path_timed_out(tcp, tcb)
        if flight != NULL:
            repair_on_rto(tcp, tcb, flight)
        congestion_on_rto(tcp, tcb)
    if syn or flight == NULL:
        tcb.flags |= TCB_REXMIT
    tally_timeout(tcp, tcb)
    tcb.backoff += 1                        # RFC 6298 (5.5)
    rexmit_start(tcp, tcb)                  # (5.6)
    work_add(tcp, tcb)
    trace_note(tcp, tcb, TRACE_TIMEOUT, REXMIT_NONE, tcb.snd_una, tcb.snd_nxt - tcb.snd_una, tcb.backoff)


cdef void probe_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """A tail loss probe is due, or the reordering window is over (RFC 8985 sections 7.3 and 6.2)."""
    cdef flight_t *flight = flight_of(tcp, tcb)
    deadline_clear(tcb, DEADLINE_PROBE)
    if flight.flags & FLIGHT_REORDER:
        repair_on_reordering_timeout(tcp, tcb, flight)
        return
    tlp_expired(tcp, tcb, flight)
    if flight.flags & FLIGHT_PROBE:
        rexmit_start(tcp, tcb)


cdef void pace_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """The next frame may go."""
    deadline_clear(tcb, DEADLINE_PACE)
    work_add(tcp, tcb)


cdef void congestion_on_rto(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const cc_ops_t *ops = control_awake(tcp, tcb)
    cdef flight_t *flight = flight_of(tcp, tcb)
    cdef uint32_t outstanding = tcb.snd_nxt - tcb.snd_una       # FlightSize as it is (flight_size)
    cdef bint first = tcb.backoff == 0
    cdef cc_view_t view
    ecn_note_reduced(tcb)
    if flight != NULL and outstanding > flight.cwnd_before:     # see repair_begin
        outstanding = flight.cwnd_before
    if flight != NULL:
        if flight.flags & FLIGHT_TIMEOUT_UNDONE:        # the one before was none (see repair_on_rto)
            flight.flags &= ~FLIGHT_TIMEOUT_UNDONE
            first = True
        if ecn_has_reduced(tcb, flight):    # no smaller ssthresh for the same window (RFC 3168 section 6.1.2)
            first = False
        flight.flags &= ~FLIGHT_MARKED
    view_load(tcp, tcb, &view)
    ops.on_rto(control_state(tcp, tcb, ops), &view, outstanding, first)
    view_store(tcb, &view)
    view_store_rate(tcp, tcb, &view)


cdef void override_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Section 3.8.6.2.1 rule 4: the window has stayed too small for a segment worth sending. Output fills it.

    Or our own was shut by a mark in a flight of one segment, and opens again by one (ecn_settle).
    """
    if tcb.cwnd < tcb.smss:
        tcb.cwnd = tcb.smss
        tcb.flags &= ~TCB_PERSIST
        rexmit_stop(tcb)
        work_add(tcp, tcb)
        return
    tcb.flags |= TCB_PROBE
    rexmit_start(tcp, tcb)
    work_add(tcp, tcb)


cdef void persist_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Probe a closed window, at doubling intervals (SHLD-30), for as long as the peer answers (MUST-37)."""
    cdef uint8_t unanswered = tcb.keepalive_probes
    if tcb.flags & TCB_CLOSED_BY_APP:       # an answer that does not open the window is no progress for an orphan
        unanswered = tcb.backoff
    if unanswered >= MAX_BACKOFF or rtt_waited_ns(tcp, tcb, unanswered) >= rtt_r2_ns(tcp, tcb):
        no_answer(tcp, tcb)
        return
    tcb.keepalive_probes += 1               # any segment from the peer clears it
    if tcb.backoff < MAX_BACKOFF:
        tcb.backoff += 1
    tcb.flags |= TCB_PROBE | TCB_PERSIST
    rexmit_start(tcp, tcb)
    work_add(tcp, tcb)


cdef void keepalive_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """A probe when nothing is outstanding and nothing was received for the interval (MUST-26), several before giving
    up (MUST-29); or as many as the user timeout leaves, as on Linux."""
    cdef uint64_t limit_ns = tcb_user_timeout_ns(tcp, tcb)
    if tcb.keepalive_probes >= tcb_keepalive_probes(tcp, tcb) or (
            limit_ns and tcb.keepalive_probes and tcb_silent_ns(tcp, tcb) >= limit_ns):
        give_up(tcp, tcb, CLOSE_KEEPALIVE)
        return
    tcb.keepalive_probes += 1
    count(tcp.counters, KEEPALIVE_PROBES_OUT)
    tcb.flags |= TCB_PROBE
    work_add(tcp, tcb)


# What is done when a deadline has come, in this order.
ctypedef void (*serve_t)(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef serve_t SERVE[DEADLINE_KINDS]
SERVE[<int>DEADLINE_ACK] = ack_timeout
SERVE[<int>DEADLINE_APPLICATION] = application_timeout
SERVE[<int>DEADLINE_REXMIT] = retransmission_timeout
SERVE[<int>DEADLINE_PROBE] = probe_timeout
SERVE[<int>DEADLINE_PACE] = pace_timeout
SERVE[<int>DEADLINE_KEEPALIVE] = keepalive_timeout
