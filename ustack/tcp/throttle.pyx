# SPDX-License-Identifier: MIT
"""How often a segment that is not acceptable may be answered. See throttle.pxd.

One corrective or challenge ACK per connection in half a second, as Linux (tcp_invalid_ratelimit); a keep-alive comes
every minute, a window probe at doubling intervals. The total of challenges is about CHALLENGE_ACKS_PER_SECOND, with a
share drawn anew each second: a fixed number would tell an outsider who counts his own challenges whether somebody else
was challenged, and so whether his guess hit (CVE-2016-5696).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.base.counters cimport CHALLENGE_ACKS_LIMITED, CHALLENGE_ACKS_OUT, CORRECTIVE_ACKS_LIMITED, count
from ustack.base.prng cimport siphash24
from ustack.tcp.records.tcb cimport OPT_CORRECTED, TCB_CORRECTED
from ustack.wire.tcp cimport ACK, FIN, SYN


cdef enum:
    CHALLENGE_ACKS_PER_SECOND = 1000
    INTERVAL_SHIFT = 26                     # ticks of 67 ms. 16 bits of them are 73 minutes: one honest probe in 8,000
    INTERVAL_TICKS = 8                      # that comes a whole circle later finds the limit; its peer sends another
    COARSE_SHIFT = 28                       # TIME-WAIT has 8 bits for it: 268 ms, 68 s
    COARSE_TICKS = 2
    SYN_RECEIVED_ANSWERS = 2


cdef inline bint cannot_loop(const segment_t *seg) noexcept nogil:
    """No ACK that answers an ACK looks like this."""
    return (seg.length > 0 or seg.flags & FIN) and not seg.flags & SYN


cdef inline bint refuse(tcp_t *tcp) noexcept nogil:
    count(tcp.counters, CORRECTIVE_ACKS_LIMITED)
    return False


cdef bint challenge_in_total(tcp_t *tcp) noexcept nogil:
    if tcp.now_ns - tcp.challenge_window_ns >= 1000000000:
        tcp.challenge_window_ns = tcp.now_ns
        tcp.challenge_left = (CHALLENGE_ACKS_PER_SECOND // 2 + <uint32_t>siphash24(
            tcp.secret, <const uint8_t *>&tcp.now_ns, sizeof(tcp.now_ns)) % CHALLENGE_ACKS_PER_SECOND)
    if tcp.challenge_left == 0:
        count(tcp.counters, CHALLENGE_ACKS_LIMITED)
        return False
    tcp.challenge_left -= 1
    count(tcp.counters, CHALLENGE_ACKS_OUT)
    return True


# ---------------------------------------------------------------- connections

cdef inline uint16_t interval_tick(const tcp_t *tcp) noexcept nogil:
    return <uint16_t>(tcp.now_ns >> INTERVAL_SHIFT)


cdef inline bint due(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return (not tcb.flags & TCB_CORRECTED
            or <uint16_t>(interval_tick(tcp) - tcb.corrective_tick) >= INTERVAL_TICKS)


cdef inline void granted(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    tcb.flags |= TCB_CORRECTED
    tcb.corrective_tick = interval_tick(tcp)


cdef inline bint once_in_interval(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if not due(tcp, tcb):
        return refuse(tcp)
    granted(tcp, tcb)
    return True


cdef inline bint is_keepalive(const tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """RFC 9293 section 3.8.4: SEG.SEQ = RCV.NXT-1, and an ACK of what we have sent. Of two ends that are out of step by
    one, the other acknowledges what was never sent, so these make no loop either; and whoever knows both numbers need
    not forge a keep-alive."""
    return (seg.seq == tcb.rcv_nxt - 1 and seg.flags & ACK and not seg.flags & SYN
            and seg.ack - tcb.snd_una <= tcb.snd_max - tcb.snd_una)


cdef bint corrective_allowed(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    if seg.flags & SYN and not seg.flags & ACK:
        return challenge_allowed(tcp, tcb)
    return cannot_loop(seg) or is_keepalive(tcb, seg) or once_in_interval(tcp, tcb)


cdef bint repeated_syn_allowed(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    return once_in_interval(tcp, tcb)


cdef bint challenge_allowed(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if not due(tcp, tcb):
        return refuse(tcp)
    if not challenge_in_total(tcp):
        return False
    granted(tcp, tcb)
    return True


# ---------------------------------------------------------------- TIME-WAIT

cdef inline uint8_t coarse_tick(const tcp_t *tcp) noexcept nogil:
    return <uint8_t>(tcp.now_ns >> COARSE_SHIFT)


cdef inline bint time_wait_due(const tcp_t *tcp, const time_wait_t *record) noexcept nogil:
    return (not record.options & OPT_CORRECTED
            or <uint8_t>(coarse_tick(tcp) - record.corrective_tick) >= COARSE_TICKS)


cdef inline void time_wait_granted(const tcp_t *tcp, time_wait_t *record) noexcept nogil:
    record.options |= OPT_CORRECTED
    record.corrective_tick = coarse_tick(tcp)


cdef bint time_wait_corrective_allowed(tcp_t *tcp, time_wait_t *record, const segment_t *seg) noexcept nogil:
    if seg.flags & SYN:
        return time_wait_challenge_allowed(tcp, record)
    if cannot_loop(seg):
        return True
    if not time_wait_due(tcp, record):
        return refuse(tcp)
    time_wait_granted(tcp, record)
    return True


cdef bint time_wait_challenge_allowed(tcp_t *tcp, time_wait_t *record) noexcept nogil:
    if not time_wait_due(tcp, record):
        return refuse(tcp)
    if not challenge_in_total(tcp):
        return False
    time_wait_granted(tcp, record)
    return True


# ---------------------------------------------------------------- SYN-RECEIVED of a passive open

cdef bint syn_received_answer_allowed(tcp_t *tcp, syn_received_t *record, bint challenge) noexcept nogil:
    if record.retries_answers >> 5 >= SYN_RECEIVED_ANSWERS:
        return refuse(tcp)
    if challenge and not challenge_in_total(tcp):
        return False
    record.retries_answers += 1 << 5
    return True
