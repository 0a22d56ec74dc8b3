# SPDX-License-Identifier: MIT
# Round-trip time and the retransmission timeout: RFC 6298, with Karn's rule (MUST-18) and timestamps (RFC 7323 section
# 4).
#
# Above: ack, output, timers. Below: tcb. Times on the tcb are microseconds in 32 bits.

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.tcb cimport TCB_RTT_TIMING, tcb_t, tcp_t

# One measurement (RFC 6298 (2.2), (2.3)); what was taken of it, at least 1.
cdef uint32_t rtt_sample(tcb_t *tcb, uint32_t rtt_us) noexcept nogil
# The timeout in force: computed, bounded by config.rto_min_ns and rto_max, doubled tcb.backoff times (5.5).
cdef uint64_t rtt_rto_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# (5.1), (5.3): start or restart the retransmission timer. (5.2): stop it.
cdef void rexmit_start(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void rexmit_stop(tcb_t *tcb) noexcept nogil
# Time that has passed without an answer when `backoff` timeouts have: what R2 is compared with (MUST-20).
cdef uint64_t rtt_waited_ns(const tcp_t *tcp, const tcb_t *tcb, uint32_t timeouts) noexcept nogil
# R2, from the last progress. An orphan, which its application has closed, has less: nobody here waits for it any more
# (RFC 6429 section 3); and little while there are many, so that the dead ones make room first (config.max_orphans).
cdef uint64_t rtt_r2_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# The peer has acknowledged something new, but no measurement came of it: the back-off stays (Karn), as far as it leaves
# most of R2, which counts from here again.
cdef void rtt_progress(const tcp_t *tcp, tcb_t *tcb) noexcept nogil


cdef inline uint32_t rtt_now_us(const tcp_t *tcp) noexcept nogil:
    return <uint32_t>(tcp.now_ns // 1000)


# What is in flight will be sent again: the running measurement is void, and rtt_sent_us tells since when echoes count.
cdef inline void rtt_spoil(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    tcb.flags &= ~TCB_RTT_TIMING
    tcb.rtt_sent_us = rtt_now_us(tcp)
