# SPDX-License-Identifier: MIT
"""Tail loss probes. See tlp.pxd for the rules and the source."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.counters cimport TAIL_PROBE_REPAIRS, count
from ustack.tcp.records.deadlines cimport deadline_clear, deadline_set_probe
from ustack.tcp.records.flight cimport FLIGHT_PROBE_AGAIN, FLIGHT_REORDER
from ustack.tcp.records.state cimport ESTABLISHED
from ustack.tcp.records.tcb cimport DEADLINE_PROBE, TCB_PERSIST
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.rtt cimport rtt_rto_ns
from ustack.wire.seq cimport seq_ge, seq_gt


cdef void tlp_schedule(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    cdef uint64_t pto_ns
    if not tlp_may(tcb, flight) or tcb.state < ESTABLISHED or tcb.flags & TCB_PERSIST or flight.flags & FLIGHT_REORDER:
        return
    pto_ns = tlp_timeout_us(tcb.srtt_us, tcb.snd_nxt - tcb.snd_una <= tcb.smss) * 1000ULL
    if pto_ns < tcp.config.tail_probe_min_ns:
        pto_ns = tcp.config.tail_probe_min_ns
    if pto_ns < rtt_rto_ns(tcp, tcb):
        deadline_set_probe(tcp, tcb, pto_ns)
    else:
        deadline_clear(tcb, DEADLINE_PROBE)     # the RTO will do (tlp_instead)


cdef bint tlp_instead(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    if not tlp_may(tcb, flight) or tcb.state < ESTABLISHED or tcb.backoff > 0:
        return False
    tlp_expired(tcp, tcb, flight)
    return True


cdef void tlp_expired(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    deadline_clear(tcb, DEADLINE_PROBE)
    # A window that was taken back to nothing is probed by the retransmission timer (RFC 9293 section 3.8.6, MUST-35).
    if not tlp_may(tcb, flight) or tcb.snd_wnd == 0:
        return
    flight.flags |= FLIGHT_PROBE
    work_add(tcp, tcb)


cdef bint tlp_acknowledged(tcp_t *tcp, flight_t *flight, uint32_t ack, const ack_news_t *news,
                           bint duplicate) noexcept nogil:
    """7.4.2: TLP_process_ack."""
    cdef bint again = flight.flags & FLIGHT_PROBE_AGAIN
    if not flight.flags & FLIGHT_PROBED or not seq_ge(ack, flight.tlp_end):
        return False
    if again and news.dsack and news.dsack_right == flight.tlp_end:
        again = False                       # case 1: both copies have arrived
    elif again and not seq_gt(ack, flight.tlp_end):
        if not duplicate:
            return False                    # what the probe repeated has arrived: was it the first copy?
        again = False                       # case 2: so has the other one
    flight.flags &= ~(FLIGHT_PROBED | FLIGHT_PROBE_AGAIN)
    if again:
        count(tcp.counters, TAIL_PROBE_REPAIRS)
    return again
