# SPDX-License-Identifier: MIT
# Round-trip time and the retransmission timeout: RFC 6298, with Karn's rule (MUST-18) and timestamps (RFC 7323 section
# 4).
#
# Every ACK of something that was sent once measures; so does one of something sent again, where the peer's timestamp
# says which sending it answers. The control, RACK and the minimum take each (microseconds of our own clock); SRTT and
# RTTVAR take one per round trip, for which their gains are made (RFC 6298 section 3; RFC 7323 section 4.2 and appendix
# G say what becomes of RTTVAR otherwise).
#
# The first sample is the handshake's: of an active open its SYN's, of a passive one its SYN-ACK's (opening; of a cookie
# what the echo tells of it). The latter has the timer's resolution and the peer's delay of that ACK in it: an upper
# bound, which the minimum does not take. Where a SYN or SYN-ACK went twice, the echo tells which of the two is answered
# (section 3), and the three seconds of (5.7) are for who has no timestamps, or took an initial RTO or longer, which is
# the path that they are meant for.
#
# The RTO is at least config.rto_min_ns, 200 ms, where RFC 6298 (2.4) SHOULD have a second. (Linux has 200 ms at least
# for 4 RTTVAR, as config.rto_variance_min_ns can be told to; its default is G of (2.3).) RFC 8961 leaves such numbers
# to an implementation that meets its section 4, as this one does: a second before the first measurement, a measurement
# in each round trip, exponential back-off, a congestion response. Timeouts that were none are found out and taken back
# (undo).
#
# Without SACK every partial ACK restarts the timer, as RFC 6298 (5.3) has it, not only the first one of a recovery (RFC
# 6582 section 3.2 step 3): a hole per round trip is filled without a timeout.
#
# Above: ack, output, timers. Below: tcb, flight. Times on the tcb are microseconds in 32 bits.

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.wheel cimport WHEEL_TICK_SHIFT
from ustack.tcp.records.deadlines cimport deadline_clear
from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport DEADLINE_REXMIT, TCB_PERSIST, TCB_PROBE, tcb_t, tcp_t, tcp_timestamp

cdef enum:
    GRANULARITY_US = (1 << WHEEL_TICK_SHIFT) // 1000    # G: the timing wheel's tick
    MAX_SAMPLE_US = 1 << 28
    MIN_RTT_AGE_BITS = 4
    MIN_RTT_AGE_SHIFT = 36
    MIN_RTT_AGE_MAX = 4
    RESTART_THRESHOLD = 4                   # rrthresh of RFC 7765, in segments
    RTO_AFTER_LOST_SYN_US = 3000000         # RFC 6298 (5.7). In rttvar_us until there is an SRTT

# The timeout in force: computed, bounded by config.rto_min_ns and rto_max, doubled tcb.backoff times (5.5).
cdef uint64_t rtt_rto_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# (5.1), (5.3): start or restart the retransmission timer.
cdef void rexmit_start(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Time that has passed without an answer when `backoff` timeouts have: what R2 is compared with (MUST-20).
cdef uint64_t rtt_waited_ns(const tcp_t *tcp, const tcb_t *tcb, uint32_t timeouts) noexcept nogil
# R2, from the last progress. An orphan, which its application has closed, has less: nobody here waits for it any more
# (RFC 6429 section 3); and little while there are many, so that the dead ones make room first (config.max_orphans).
cdef uint64_t rtt_r2_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# The peer has acknowledged something new, but no measurement came of it: the back-off stays (Karn), as far as it leaves
# most of R2, which counts from here again.
cdef void rtt_progress(const tcp_t *tcp, tcb_t *tcb) noexcept nogil
# (5.3) with RFC 7765: an ACK has moved SND.UNA and something is left.
cdef void rexmit_restart(tcp_t *tcp, tcb_t *tcb, const flight_t *flight) noexcept nogil
# The timeout without back-off.
cdef uint64_t rtt_base_rto_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# A sample after a timeout that was none (RFC 4015 section 4): no less patient than before.
cdef void rtt_sample_after_undo(tcb_t *tcb, flight_t *flight, uint32_t rtt_us) noexcept nogil


# From the sending of a SYN or SYN-ACK that an echo names until now, rounded up to the clock's tick. 0: it names none,
# or one from an initial RTO ago or longer.
cdef inline uint32_t rtt_of_echo_us(const tcp_t *tcp, uint32_t ts_ecr) noexcept nogil:
    cdef uint32_t waited_ms = tcp_timestamp(tcp) - ts_ecr
    return (waited_ms + 1) * 1000 if ts_ecr != 0 and waited_ms * 1000000ULL < tcp.config.rto_initial_ns else 0


# One measurement (RFC 6298 (2.2), (2.3)); what was taken of it, at least 1.
cdef inline uint32_t rtt_sample(tcb_t *tcb, uint32_t rtt_us) noexcept nogil:
    cdef uint32_t error
    if rtt_us == 0:
        rtt_us = 1
    if rtt_us > MAX_SAMPLE_US:
        rtt_us = MAX_SAMPLE_US
    if tcb.srtt_us == 0:                                            # (2.2)
        tcb.srtt_us = rtt_us
        tcb.rttvar_us = rtt_us // 2
        return rtt_us
    error = tcb.srtt_us - rtt_us if tcb.srtt_us > rtt_us else rtt_us - tcb.srtt_us
    tcb.rttvar_us = tcb.rttvar_us - tcb.rttvar_us // 4 + error // 4     # (2.3), beta = 1/4
    tcb.srtt_us = tcb.srtt_us - tcb.srtt_us // 8 + rtt_us // 8          # alpha = 1/8
    if tcb.srtt_us == 0:
        tcb.srtt_us = 1
    return rtt_us


# (5.2): stop the timer.
cdef inline void rexmit_stop(tcb_t *tcb) noexcept nogil:
    deadline_clear(tcb, DEADLINE_REXMIT)
    tcb.flags &= ~(TCB_PERSIST | TCB_PROBE)


cdef inline uint32_t rtt_min_us(const tcb_t *tcb) noexcept nogil:
    return tcb.min_rtt >> MIN_RTT_AGE_BITS


# The shortest round trip of the last five minutes or so: tcb.min_rtt is microseconds << 4 and, below, when it was seen,
# in units of 69 s modulo 16. (After 18 minutes without a sample the age may look younger than it is.)
cdef inline void rtt_note_min(const tcp_t *tcp, tcb_t *tcb, uint32_t rtt_us) noexcept nogil:
    cdef uint32_t age = <uint32_t>(tcp.now_ns >> MIN_RTT_AGE_SHIFT) & 15
    if (rtt_us <= rtt_min_us(tcb) or tcb.min_rtt == 0 or (age - tcb.min_rtt & 15) > MIN_RTT_AGE_MAX):
        tcb.min_rtt = (rtt_us if rtt_us < MAX_SAMPLE_US else MAX_SAMPLE_US - 1) << MIN_RTT_AGE_BITS | age
