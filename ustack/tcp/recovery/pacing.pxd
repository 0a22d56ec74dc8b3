# SPDX-License-Identifier: MIT
# Pacing: may the next frame go now, how much of the queue may it carry, and if not, when?
#
#     the control     says a rate (cc_view_t.pacing_rate). Where it says none it is what the window
#                     comes to in a round trip, and more (pacing_rate_of_window): always or never, as the setting
#                     `pacing` has it, or in a slow start in which one ACK lets go of a burst
#     output          asks pacing_allows before each frame with data and tells pacing_sent after it; what has to wait
#                     waits for a deadline, pacing_wait_ns from now
#
# A frame carries what the rate brings in a millisecond, two segments at least and no more than output can put into one:
# the timing wheel's ticks are a quarter of that, and a frame costs the same whatever it carries. A deadline that is
# served late is made up for, by one such frame at most, so that a busy machine sends at the rate all the same and never
# a window at once (draft-ietf-ccwg-bbr section 5.6.2 has no such credit; Linux has, of half a frame). Where the link
# does not segment a tick may bring several frames: then by what it brings.
#
# Numbers in, numbers out. It must not: know a connection. Above: output, control. Below: flight.

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.wheel cimport WHEEL_TICK_SHIFT
from ustack.tcp.records.flight cimport pacer_t

cdef enum:
    PACING_QUANTUM_MIN_SEGS = 2
    PACING_FRAME_MAX = 65535
    PACING_STRETCH_SEGS = 8                 # in one ACK: RFC 9406 section 4.3, L of who does not pace
    PACING_RTT_MIN_US = 1000                # below, the wheel's ticks are too few to spread anything over
    PACING_SLOW_START_PERCENT = 200         # the window doubles in a round trip: as much again must find its place
    PACING_AVOIDANCE_PERCENT = 120          # room to grow, and for what has to be sent again. Both as in Linux

cdef inline uint64_t pacing_time_ns(uint64_t rate, uint32_t length) noexcept nogil:
    return length * 1000000000ULL // rate


# Bytes for one frame at this rate: whole segments. most: what output can put into one.
cdef inline uint32_t pacing_quantum(uint64_t rate, uint32_t smss, uint32_t most) noexcept nogil:
    cdef uint64_t quantum = rate // 1000
    if quantum >= most:
        return most
    quantum -= quantum % smss
    if quantum < PACING_QUANTUM_MIN_SEGS * smss:
        quantum = PACING_QUANTUM_MIN_SEGS * smss
    return <uint32_t>quantum if quantum < most else most


# Bytes that may go in one frame now; 0: none before pacer.next_ns.
cdef inline uint32_t pacing_allows(const pacer_t *pacer, uint64_t now_ns, uint32_t smss, uint32_t most) noexcept nogil:
    if pacer.rate == 0:
        return most
    if pacer.next_ns > now_ns:
        return 0
    return pacing_quantum(pacer.rate, smss, most)


cdef inline uint64_t pacing_wait_ns(const pacer_t *pacer, uint64_t now_ns) noexcept nogil:
    return pacer.next_ns - now_ns if pacer.next_ns > now_ns else 0


# A frame of `length` bytes has gone. smss, most: as for pacing_allows.
cdef inline void pacing_sent(pacer_t *pacer, uint64_t now_ns, uint32_t length, uint32_t smss,
                             uint32_t most) noexcept nogil:
    cdef uint64_t credit_ns
    if pacer.rate == 0:
        return
    if pacer.next_ns < now_ns:
        credit_ns = pacing_time_ns(pacer.rate, pacing_quantum(pacer.rate, smss, most))
        if credit_ns < 1ULL << WHEEL_TICK_SHIFT:
            credit_ns = 1ULL << WHEEL_TICK_SHIFT
        if pacer.next_ns + credit_ns < now_ns:
            pacer.next_ns = now_ns - credit_ns if credit_ns < now_ns else 0
    pacer.next_ns += pacing_time_ns(pacer.rate, length)


# Another rate from now on. What waits for the next frame waits as long as it takes at the new one, if that is shorter.
cdef inline void pacing_set_rate(pacer_t *pacer, uint64_t now_ns, uint64_t rate, uint32_t smss,
                                 uint32_t most) noexcept nogil:
    cdef uint64_t longest_ns
    pacer.rate = rate
    if rate and pacer.next_ns > now_ns:
        longest_ns = pacing_time_ns(rate, pacing_quantum(rate, smss, most))
        if pacer.next_ns - now_ns > longest_ns:
            pacer.next_ns = now_ns + longest_ns


# For controls that say no rate: the window in a round trip, times 2 in slow start and 1.2 afterwards. 0: nothing is
# known of the path, so that the initial window goes at once (RFC 6928).
cdef inline uint64_t pacing_rate_of_window(uint32_t cwnd, uint32_t ssthresh, uint32_t srtt_us) noexcept nogil:
    cdef uint64_t percent = PACING_SLOW_START_PERCENT if cwnd < ssthresh else PACING_AVOIDANCE_PERCENT
    cdef uint64_t rate
    if srtt_us == 0:
        return 0
    rate = <uint64_t>cwnd * percent * 10000 // srtt_us
    return rate if rate else 1
