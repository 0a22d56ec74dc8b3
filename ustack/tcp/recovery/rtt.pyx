# SPDX-License-Identifier: MIT
"""Round-trip time and the retransmission timeout (RFC 6298).

It measures and computes; when a sample may be taken is ack's decision, what a timeout does is timers'.
"""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.deadlines cimport deadline_set
from ustack.tcp.records.flight cimport FLIGHT_TIMEOUT_UNDONE, transmission_at
from ustack.tcp.records.sockopts cimport tcb_user_timeout_ns
from ustack.tcp.records.tcb cimport DEADLINE_REXMIT, TCB_CLOSED_BY_APP
from ustack.wire.seq cimport seq_lt


cdef enum:
    LASTING_BACKOFF = 6                     # doublings that outlive progress without a measurement: 1 s becomes 64 s


cdef void rtt_sample_after_undo(tcb_t *tcb, flight_t *flight, uint32_t rtt_us) noexcept nogil:
    flight.flags &= ~FLIGHT_TIMEOUT_UNDONE
    tcb.srtt_us = flight.srtt_before_us if flight.srtt_before_us > rtt_us else rtt_us
    tcb.rttvar_us = flight.rttvar_before_us if flight.rttvar_before_us > rtt_us // 2 else rtt_us // 2


cdef inline uint64_t base_rto_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint64_t variance_ns, rto_ns
    if tcb.srtt_us == 0:                                               # (2.1), (5.7)
        return tcb.rttvar_us * 1000ULL if tcb.rttvar_us else tcp.config.rto_initial_ns
    variance_ns = 4000ULL * tcb.rttvar_us
    if variance_ns < tcp.config.rto_variance_min_ns:
        variance_ns = tcp.config.rto_variance_min_ns
    rto_ns = tcb.srtt_us * 1000ULL + variance_ns
    if rto_ns < tcp.config.rto_min_ns:                                 # (2.4)
        return tcp.config.rto_min_ns
    return rto_ns if rto_ns < tcp.config.rto_max_ns else tcp.config.rto_max_ns


cdef inline uint64_t backed_off(const tcp_t *tcp, uint64_t rto_ns, uint32_t times) noexcept nogil:
    while times > 0 and rto_ns < tcp.config.rto_max_ns:
        rto_ns *= 2
        times -= 1
    return rto_ns if rto_ns < tcp.config.rto_max_ns else tcp.config.rto_max_ns


cdef uint64_t rtt_rto_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return backed_off(tcp, base_rto_ns(tcp, tcb), tcb.backoff)


cdef uint64_t rtt_base_rto_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return base_rto_ns(tcp, tcb)


cdef void rexmit_restart(tcp_t *tcp, tcb_t *tcb, const flight_t *flight) noexcept nogil:
    """RFC 7765 section 4: with few segments out and none to follow there will be no fast recovery, and the timer counts
    from when the first of them was sent, not from the ACK before it."""
    cdef uint64_t rto_ns = rtt_rto_ns(tcp, tcb), waited_ns
    if (flight != NULL and flight.head and not seq_lt(tcb.snd_nxt, tcb.snd_end)
            and flight.records < RESTART_THRESHOLD
            and tcb.snd_nxt - tcb.snd_una < RESTART_THRESHOLD * <uint32_t>tcb.smss):
        waited_ns = tcp.now_ns - transmission_at(tcp, flight, flight.head).sent_ns
        if waited_ns < rto_ns:
            rto_ns -= waited_ns
    deadline_set(tcp, tcb, DEADLINE_REXMIT, rto_ns)


cdef uint64_t within_user_timeout(const tcp_t *tcp, const tcb_t *tcb, uint64_t rto_ns) noexcept nogil:
    """A user timeout of the connection's own is kept to the millisecond: the last wait ends with it, as on Linux."""
    cdef uint64_t limit_ns = tcb_user_timeout_ns(tcp, tcb), waited_ns
    if limit_ns == 0 or tcb.flags & TCB_PERSIST:
        return rto_ns
    waited_ns = rtt_waited_ns(tcp, tcb, tcb.backoff)
    if waited_ns >= limit_ns:
        return 0
    return rto_ns if rto_ns < limit_ns - waited_ns else limit_ns - waited_ns


cdef void rexmit_start(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint64_t rto_ns = rtt_rto_ns(tcp, tcb)
    if tcb.extra:
        rto_ns = within_user_timeout(tcp, tcb, rto_ns)
    deadline_set(tcp, tcb, DEADLINE_REXMIT, rto_ns)


cdef uint64_t rtt_waited_ns(const tcp_t *tcp, const tcb_t *tcb, uint32_t timeouts) noexcept nogil:
    cdef uint64_t rto_ns = base_rto_ns(tcp, tcb)
    cdef uint64_t waited_ns = 0
    cdef uint32_t i
    for i in range(timeouts):
        waited_ns += backed_off(tcp, rto_ns, i)
    return waited_ns


cdef uint64_t rtt_r2_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint64_t limit_ns = tcb_user_timeout_ns(tcp, tcb)
    if limit_ns == 0:
        limit_ns = tcp.config.user_timeout_ns
    if tcb.flags & TCB_CLOSED_BY_APP:
        if limit_ns > tcp.config.orphan_timeout_ns:
            limit_ns = tcp.config.orphan_timeout_ns
        if tcp.orphans > tcp.config.max_orphans // 2 and limit_ns > rtt_waited_ns(tcp, tcb, 2):
            limit_ns = rtt_waited_ns(tcp, tcb, 2)
    return limit_ns


cdef void rtt_progress(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint64_t most_ns
    if tcb.backoff == 0:
        return
    if tcb.backoff > LASTING_BACKOFF:
        tcb.backoff = LASTING_BACKOFF
    most_ns = rtt_r2_ns(tcp, tcb) // 4
    while tcb.backoff > 0 and rtt_waited_ns(tcp, tcb, <uint32_t>tcb.backoff + 1) > most_ns:
        tcb.backoff -= 1
