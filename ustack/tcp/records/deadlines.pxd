# SPDX-License-Identifier: MIT
# Deadlines of a connection: a small table of kinds (deadline_t in tcb.pxd), and one node in the wheel for the earliest.
#
#     deadline_set        it is due `delay` from now. Moving it later costs nothing: the node fires early, finds nothing
#                         due, and is armed again
#     deadline_clear      it is not waited for any more. Its tick stays: restart_after_idle asks when it would have been
#     deadlines_arm       the earliest of all into the node
#     deadline_expired    it has come
#
# The node never fires later than the earliest deadline that is set, so setting one compares it with the node alone, and
# a further kind costs nothing but its tick. What is done when one has come is the event files' work (timers). Below:
# tcb, wheel. Above: rtt, ack, the event files.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from ustack.base.wheel cimport TIMER_NONE, WHEEL_TICK_SHIFT, tick_before, wheel_deadline_tick, wheel_tick_of
from ustack.tcp.records.flight cimport flight_raw
from ustack.tcp.records.tcb cimport (
    ACK_IN_COMPANY, DEADLINE_ACK, DEADLINE_PACE, DEADLINE_PROBE, DEADLINE_REXMIT, DEADLINES_STORED, OPT_TS_STALE,
    deadline_t, tcb_last_received_ms, tcb_t, tcp_t)
from ustack.wire.seq cimport seq_ge

cdef enum:
    TICK_MAX_DELAY = 0x7F000000             # 6.4 days; ticks are compared modulo 2^32, half the circle is 6.5 days
    TICK_STALE_MS = 24 * 3600 * 1000        # after a silence this long, what no timer watches has passed
    REFRESH_SHIFT = 24                      # see tcb_refresh: 2^24 ms
    TS_STALE_MS = 24 * 24 * 3600 * 1000     # RFC 7323 section 5.5

cdef enum timer_kind_t:
    TIMER_CONNECTION = 1
    TIMER_SYN_RECEIVED = 2

cdef bint deadline_expired(const tcp_t *tcp, const tcb_t *tcb, uint32_t kind, uint32_t now_tick) noexcept nogil
cdef void deadlines_arm(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Since the peer's last acceptable segment, modulo 49 days.
cdef uint64_t tcb_silent_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# Silence is watched. Until the next probe is due, counted from the last segment received (MUST-26); 0: it is.
cdef bint keepalive_runs(const tcb_t *tcb) noexcept nogil
cdef uint64_t keepalive_left_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil


cdef inline void deadline_clear(tcb_t *tcb, deadline_t kind) noexcept nogil:
    tcb.armed &= ~(1 << kind)


# An ACK has gone: none waits, for nobody.
cdef inline void deadline_clear_ack(tcb_t *tcb) noexcept nogil:
    tcb.armed &= <unsigned char>~(1 << DEADLINE_ACK | ACK_IN_COMPANY)


cdef inline void deadlines_clear(tcb_t *tcb) noexcept nogil:
    tcb.armed = 0


cdef inline bint deadline_is_set(const tcb_t *tcb, deadline_t kind) noexcept nogil:
    return tcb.armed >> kind & 1


# Of one that is stored. When it was cleared: when it would have come. Of DEADLINE_PROBE and DEADLINE_PACE: while it
# is set.
cdef inline uint32_t deadline_tick(const tcp_t *tcp, const tcb_t *tcb, uint32_t kind) noexcept nogil:
    if kind < DEADLINES_STORED:
        return tcb.deadlines[kind]
    return flight_raw(tcp, tcb).probe_tick if kind == DEADLINE_PROBE else flight_raw(tcp, tcb).pace_tick


cdef inline uint32_t tcp_tick(const tcp_t *tcp) noexcept nogil:
    return wheel_tick_of(&tcp.wheel, tcp.now_ns)


# The first tick at or after now + delay: a deadline never comes early, but for those beyond six days.
cdef inline uint32_t tick_after(const tcp_t *tcp, uint64_t delay_ns) noexcept nogil:
    if delay_ns >> WHEEL_TICK_SHIFT > TICK_MAX_DELAY:
        return wheel_tick_of(&tcp.wheel, tcp.now_ns) + TICK_MAX_DELAY
    return wheel_tick_of(&tcp.wheel, tcp.now_ns + delay_ns) + 1


cdef inline void deadline_set(tcp_t *tcp, tcb_t *tcb, deadline_t kind, uint64_t delay_ns) noexcept nogil:
    cdef uint32_t tick = tick_after(tcp, delay_ns)
    tcb.deadlines[<int>kind] = tick
    tcb.armed |= 1 << kind
    deadline_arm(tcp, tcb, tick)


# DEADLINE_PROBE, of a connection with a flight.
cdef inline void deadline_set_probe(tcp_t *tcp, tcb_t *tcb, uint64_t delay_ns) noexcept nogil:
    cdef uint32_t tick = tick_after(tcp, delay_ns)
    flight_raw(tcp, tcb).probe_tick = tick
    tcb.armed |= 1 << DEADLINE_PROBE
    deadline_arm(tcp, tcb, tick)


# DEADLINE_PACE, of a connection with a flight.
cdef inline void deadline_set_pace(tcp_t *tcp, tcb_t *tcb, uint64_t delay_ns) noexcept nogil:
    cdef uint32_t tick = tick_after(tcp, delay_ns)
    flight_raw(tcp, tcb).pace_tick = tick
    tcb.armed |= 1 << DEADLINE_PACE
    deadline_arm(tcp, tcb, tick)


cdef inline void deadline_arm(tcp_t *tcp, tcb_t *tcb, uint32_t tick) noexcept nogil:
    if tcb.timer == TIMER_NONE or tick_before(tick, wheel_deadline_tick(&tcp.wheel, tcb.timer)):
        deadlines_arm(tcp, tcb)


cdef inline bint tick_reached(uint32_t tick, uint32_t now_tick) noexcept nogil:
    return seq_ge(now_tick, tick)


# The next ACKs do not wait, config.quick_acks of them (is_quick, in output), unless one waits now.
cdef inline void ask_for_quick_acks(tcb_t *tcb) noexcept nogil:
    if not deadline_is_set(tcb, DEADLINE_ACK):
        tcb.deadlines[<int>DEADLINE_ACK] = 0


# Before what only the passing of time makes too old is compared: on a segment that arrives in another block of 4.7
# hours than the last one did (REFRESH_SHIFT), and when sending begins after a pause.
cdef inline void tcb_refresh(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint64_t silent_ms = (tcp.now_ns // 1000000 - tcb_last_received_ms(tcb)) & 0xFFFFFFFFFULL
    cdef uint32_t now_tick = tcp_tick(tcp)
    if not deadline_is_set(tcb, DEADLINE_REXMIT) and (
            silent_ms >= TICK_STALE_MS or tick_reached(deadline_tick(tcp, tcb, DEADLINE_REXMIT), now_tick)):
        # It stays "reached" (restart_after_idle), however long the pause.
        tcb.deadlines[<int>DEADLINE_REXMIT] = now_tick
    if silent_ms >= TS_STALE_MS:
        tcb.options |= OPT_TS_STALE


cdef inline bint tcb_needs_refresh(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return ((tcp.now_ns // 1000000 ^ tcb_last_received_ms(tcb)) & 0xFFFFFFFFFULL) >> REFRESH_SHIFT != 0
