# SPDX-License-Identifier: MIT
"""How often a segment that is not acceptable may be answered. See throttle.pxd.

One corrective or challenge ACK per connection in config.corrective_interval_ns, half a second, as Linux
(tcp_invalid_ratelimit); a keep-alive comes every minute, a window probe at doubling intervals, and neither counts but
with config.probe_answers_limited, as in Linux. The total of a second is about config.challenge_acks_per_second (RFC
5961 section 7 wants it configurable), and drawn anew for each: a fixed number would tell an outsider who counts his own
challenges whether somebody else was challenged, and so whether his guess hit (CVE-2016-5696; Cao et al., "Off-Path TCP
Exploits: Global Rate Limit Considered Dangerous", section 8, proposes this noise). A peer's share is drawn with it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.counters cimport (
    CHALLENGE_ACKS_LIMITED, CHALLENGE_ACKS_OUT, CHALLENGE_ACKS_PEER_LIMITED, CORRECTIVE_ACKS_LIMITED, count)
from ustack.base.prng cimport siphash24
from ustack.base.types cimport ip_addr_t
from ustack.tcp.records.tcb cimport ALLOWANCE_SHARES, OPT_CORRECTED, TCB_CORRECTED, allowance_t, syn_answers
from ustack.wire.tcp cimport ACK, FIN, SYN


cdef enum:
    CHALLENGE = 0                           # kinds of allowance_t
    CORRECTIVE = 1
    CORRECTIVE_TIMES = 16                   # as many more: they tell nobody whether a guess hit
    SHARE = 8                               # a peer may have one in so many
    # Ticks of 17 ms. 16 bits of them are 18 minutes: one honest segment in 2,000 that comes a whole circle later finds
    # the limit; its peer sends another.
    INTERVAL_SHIFT = 24
    COARSE_SHIFT = 28                       # TIME-WAIT has 8 bits for it: 268 ms, 68 s
    SYN_RECEIVED_ANSWERS = 2


cdef inline bint cannot_loop(const segment_t *seg) noexcept nogil:
    """No ACK that answers an ACK looks like this."""
    return (seg.length > 0 or seg.flags & FIN) and not seg.flags & SYN


cdef inline bint refuse(tcp_t *tcp) noexcept nogil:
    count(tcp.counters, CORRECTIVE_ACKS_LIMITED)
    return False


# ---------------------------------------------------------------- all connections

ctypedef struct asker_t:                    # 40 bytes, hashed whole; nothing else that the secret hashes is as long
    ip_addr_t raddr
    uint64_t since_ns
    uint64_t zero[2]


cdef void begin_second(tcp_t *tcp) noexcept nogil:
    """N / 2 to 3 N / 2 of each kind, N on the average. With 8 bytes the secret hashes nothing else."""
    cdef allowance_t *allowance = &tcp.allowance
    cdef uint64_t drawn = siphash24(tcp.secret, &tcp.now_ns, sizeof(tcp.now_ns))
    cdef uint32_t mean = tcp.config.challenge_acks_per_second
    memset(allowance, 0, sizeof(allowance_t))
    allowance.since_ns = tcp.now_ns
    allowance.left[CHALLENGE] = mean // 2 + <uint32_t>drawn % mean
    allowance.left[CORRECTIVE] = CORRECTIVE_TIMES * (mean // 2 + <uint32_t>(drawn >> 32) % mean)
    allowance.share[CHALLENGE] = allowance.left[CHALLENGE] // SHARE + 1
    allowance.share[CORRECTIVE] = allowance.left[CORRECTIVE] // SHARE + 1


cdef bint in_total(tcp_t *tcp, const ip_addr_t *raddr, int kind) noexcept nogil:
    """True: counted against what its peer and all together may have."""
    cdef allowance_t *allowance = &tcp.allowance
    cdef asker_t asker
    cdef uint32_t *spent
    if tcp.now_ns - allowance.since_ns >= 1000000000 or allowance.share[CHALLENGE] == 0:
        begin_second(tcp)
    memset(&asker, 0, sizeof(asker))
    asker.raddr = raddr[0]
    asker.since_ns = allowance.since_ns
    spent = &allowance.spent[kind][siphash24(tcp.secret, &asker, sizeof(asker)) % ALLOWANCE_SHARES]
    if spent[0] >= allowance.share[kind]:
        count(tcp.counters, CHALLENGE_ACKS_PEER_LIMITED if kind == CHALLENGE else CORRECTIVE_ACKS_LIMITED)
        return False
    if allowance.left[kind] == 0:
        count(tcp.counters, CHALLENGE_ACKS_LIMITED if kind == CHALLENGE else CORRECTIVE_ACKS_LIMITED)
        return False
    spent[0] += 1
    allowance.left[kind] -= 1
    if kind == CHALLENGE:
        count(tcp.counters, CHALLENGE_ACKS_OUT)
    return True


# ---------------------------------------------------------------- connections

cdef inline uint16_t interval_tick(const tcp_t *tcp) noexcept nogil:
    return <uint16_t>(tcp.now_ns >> INTERVAL_SHIFT)


cdef inline uint64_t interval_ticks(const tcp_t *tcp, uint32_t shift) noexcept nogil:
    """As a difference of two ticks: never less than the interval, at most two ticks more."""
    cdef uint64_t interval_ns = tcp.config.corrective_interval_ns
    return (interval_ns + (1ULL << shift) - 1 >> shift) + 1 if interval_ns else 0


cdef inline bint due(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return (not tcb.flags & TCB_CORRECTED
            or <uint16_t>(interval_tick(tcp) - tcb.corrective_tick) >= interval_ticks(tcp, INTERVAL_SHIFT))


cdef inline void granted(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    tcb.flags |= TCB_CORRECTED
    tcb.corrective_tick = interval_tick(tcp)


cdef inline bint once_in_interval(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if not due(tcp, tcb):
        return refuse(tcp)
    granted(tcp, tcb)
    return True


cdef bint allowed(tcp_t *tcp, tcb_t *tcb, int kind) noexcept nogil:
    if not due(tcp, tcb):
        return refuse(tcp)
    if not in_total(tcp, &tcb.key.raddr, kind):
        return False
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
    if cannot_loop(seg) or (is_keepalive(tcb, seg) and not tcp.config.probe_answers_limited):
        return True
    return allowed(tcp, tcb, CORRECTIVE)


cdef bint repeated_syn_allowed(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    return once_in_interval(tcp, tcb)


cdef bint challenge_allowed(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    return allowed(tcp, tcb, CHALLENGE)


# ---------------------------------------------------------------- TIME-WAIT

cdef inline uint8_t coarse_tick(const tcp_t *tcp) noexcept nogil:
    return <uint8_t>(tcp.now_ns >> COARSE_SHIFT)


cdef inline bint time_wait_due(const tcp_t *tcp, const time_wait_t *record) noexcept nogil:
    return (not record.options & OPT_CORRECTED
            or <uint8_t>(coarse_tick(tcp) - record.corrective_tick) >= interval_ticks(tcp, COARSE_SHIFT))


cdef inline void time_wait_granted(const tcp_t *tcp, time_wait_t *record) noexcept nogil:
    record.options |= OPT_CORRECTED
    record.corrective_tick = coarse_tick(tcp)


cdef bint time_wait_allowed(tcp_t *tcp, time_wait_t *record, int kind) noexcept nogil:
    if not time_wait_due(tcp, record):
        return refuse(tcp)
    if not in_total(tcp, &record.key.raddr, kind):
        return False
    time_wait_granted(tcp, record)
    return True


cdef bint time_wait_corrective_allowed(tcp_t *tcp, time_wait_t *record, const segment_t *seg) noexcept nogil:
    if seg.flags & SYN:
        return time_wait_allowed(tcp, record, CHALLENGE)
    return cannot_loop(seg) or time_wait_allowed(tcp, record, CORRECTIVE)


cdef bint time_wait_challenge_allowed(tcp_t *tcp, time_wait_t *record) noexcept nogil:
    return time_wait_allowed(tcp, record, CHALLENGE)


# ---------------------------------------------------------------- SYN-RECEIVED of a passive open

cdef bint syn_received_answer_allowed(tcp_t *tcp, syn_received_t *record, bint challenge) noexcept nogil:
    if syn_answers(record) >= SYN_RECEIVED_ANSWERS:
        return refuse(tcp)
    if challenge and not in_total(tcp, &record.key.raddr, CHALLENGE):
        return False
    record.retries_answers += 1 << 5
    return True
