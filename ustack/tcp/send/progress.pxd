# SPDX-License-Identifier: MIT
# New data begins to flow, has gone out, or waits: the control's beginning, SND.NXT, records, timers.
#
# It must not: decide how much may go (allowance), nor put anything on the link (segment). Inline is what each frame of
# new data needs. Read first: RFC 5681 section 4.1 (restart after idle), RFC 6298 section 5, RFC 9293 section 3.8.6.1.
# Above: probes, resend, output. Below: segment (send_t), allowance, control, rtt, tlp, repair, transmissions, pacing.

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.wheel cimport tick_before
from ustack.tcp.records.deadlines cimport (
    deadline_is_set, deadline_set, deadline_set_pace, deadline_tick, tcb_needs_refresh, tcb_refresh, tcp_tick,
    tick_after, tick_reached)
from ustack.tcp.records.flight cimport REPAIR_NONE, flight_raw, flight_t
from ustack.tcp.records.tcb cimport (
    CC_USED, CC_WAITING, DEADLINE_PACE, DEADLINE_REXMIT, TCB_NODELAY, TCB_PERSIST, TCB_PROBE, snd_short_end, tcb_t,
    tcp_t)
from ustack.tcp.recovery.control cimport control_begin, control_of, control_sent, control_start
from ustack.tcp.recovery.pacing cimport pacing_wait_ns
from ustack.tcp.recovery.repair cimport repair_note_sent
from ustack.tcp.recovery.rtt cimport rexmit_start
from ustack.tcp.recovery.tlp cimport WORST_DELAYED_ACK_US, tlp_schedule
from ustack.tcp.recovery.transmissions cimport transmission_sent
from ustack.tcp.send.segment cimport send_t
from ustack.wire.seq cimport seq_gt

cdef enum:
    OVERRIDE_NS = 200000000                 # RFC 9293 section 3.8.6.2.1: 0.1 to 1.0 s

cdef void congestion_on_idle(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef send_t note_unsent(tcp_t *tcp, tcb_t *tcb, uint32_t index, send_t sent) noexcept nogil


# Nothing is in flight. The first data begins the connection's control, unless that begins late. An RTO after the last
# data the ACK clock has stopped: begin with the restart window (RFC 5681 section 4.1).
#
# The tick of DEADLINE_REXMIT is that moment: the timer was last started with the last data or its ACK, one RTO
# before. (What the peer has sent since does not count: a request that wakes an idle connection is no ACK clock.) The
# rate at which it is paced; 0: it is not.
cdef inline uint64_t begin_sending(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb_needs_refresh(tcp, tcb):
        tcb_refresh(tcp, tcb)
    if tcb.cc & CC_WAITING and not control_of(tcp, tcb).begins_late and not control_begin(tcp, tcb):
        return control_start(tcp, tcb)
    tcb.cc |= CC_USED
    if not deadline_is_set(tcb, DEADLINE_REXMIT) and tick_reached(deadline_tick(tcp, tcb, DEADLINE_REXMIT),
                                                                  tcp_tick(tcp)):
        congestion_on_idle(tcp, tcb)
    return control_start(tcp, tcb)


# A frame with new data, or the FIN, has gone out: its record, SND.NXT, the timers. index: 0 without a record.
cdef inline void note_sent(tcp_t *tcp, tcb_t *tcb, uint32_t index, uint32_t length, bint fin) noexcept nogil:
    cdef uint32_t seg_len = length + (1 if fin else 0)
    cdef flight_t *flight
    if not tcb.flags & TCB_NODELAY and length and (length < tcb.smss or length % tcb.smss):
        snd_short_end(tcp, tcb)[0] = tcb.snd_nxt + length
    if index:
        transmission_sent(tcp, tcb, index, tcb.snd_nxt + seg_len)
    tcb.snd_nxt += seg_len
    if seq_gt(tcb.snd_nxt, tcb.snd_max):
        tcb.snd_max = tcb.snd_nxt
    if not deadline_is_set(tcb, DEADLINE_REXMIT) or tcb.flags & TCB_PERSIST:
        tcb.flags &= ~(TCB_PERSIST | TCB_PROBE)
        rexmit_start(tcp, tcb)                          # RFC 6298 (5.1)
    if index:
        flight = flight_raw(tcp, tcb)
        if flight.repair != REPAIR_NONE:
            repair_note_sent(tcp, flight, seg_len, False)
        # A tail loss probe of a lone segment waits for SRTT and the delayed ACK's time longer than this: the
        # retransmission timer, at 200 ms or more, comes first and sends the probe itself (tlp.pxd).
        elif (tcb.snd_nxt - tcb.snd_una > tcb.smss
                or 4ULL * tcb.rttvar_us > tcb.srtt_us + <uint64_t>WORST_DELAYED_ACK_US):
            tlp_schedule(tcp, tcb, flight)
    control_sent(tcp, tcb, seg_len)


# Something may go, but for the pacing. A faster rate brings forward the deadline that a slower one has set; one that is
# too early now comes, finds nothing, and is set anew.
cdef inline void await_pace(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint64_t wait_ns = pacing_wait_ns(&flight_raw(tcp, tcb).pacer, tcp.now_ns)
    if not deadline_is_set(tcb, DEADLINE_PACE) or tick_before(tick_after(tcp, wait_ns),
                                                              deadline_tick(tcp, tcb, DEADLINE_PACE)):
        deadline_set_pace(tcp, tcb, wait_ns)


# Data waits and nothing in flight will bring an ACK. A closed window: only a probe finds out when it opens (MUST-36),
# the first after one RTO (SHLD-29). One that is open, but too small for a segment worth sending: the override timer
# of section 3.8.6.2.1, between 0.1 and 1 s.
cdef inline void await_window(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.snd_max == tcb.snd_una and not deadline_is_set(tcb, DEADLINE_REXMIT):
        tcb.flags |= TCB_PERSIST
        tcb.backoff = 0
        if tcb.snd_wnd == 0 or tcb.cwnd < tcb.smss:     # a closed window, or a mark in a flight of one (ecn_settle)
            rexmit_start(tcp, tcb)
        else:
            deadline_set(tcp, tcb, DEADLINE_REXMIT, OVERRIDE_NS)
