# SPDX-License-Identifier: MIT
# Deadlines of a connection: ticks in its record, and one node in the wheel for the earliest of them.
#
# What is due is the event files' work (timers). Below: tcb, wheel. Above: rtt, ack, the event files.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from ustack.base.wheel cimport WHEEL_TICK_SHIFT, wheel_tick_of
from ustack.tcp.records.tcb cimport OPT_TS_STALE, TCB_REXMIT_ARMED, tcb_last_received_ms, tcb_t, tcp_t

cdef enum:
    TICK_MAX_DELAY = 0x7F000000             # 6.4 days; ticks are compared modulo 2^32, half the circle is 6.5 days
    TICK_STALE_MS = 24 * 3600 * 1000        # after a silence this long, what no timer watches has passed
    REFRESH_SHIFT = 24                      # see tcb_refresh: 2^24 ms
    TS_STALE_MS = 24 * 24 * 3600 * 1000     # RFC 7323 section 5.5

cdef enum timer_kind_t:
    TIMER_CONNECTION = 1
    TIMER_SYN_RECEIVED = 2

# Earliest of the connection's deadlines into its one timer node. Moving a deadline later costs nothing: the
# node fires early, finds nothing due, and is armed again.
cdef void tcb_arm(tcp_t *tcp, tcb_t *tcb) noexcept nogil


cdef inline uint32_t tcp_tick(const tcp_t *tcp) noexcept nogil:
    return wheel_tick_of(&tcp.wheel, tcp.now_ns)


# The first tick at or after now + delay: a deadline never comes early, but for those beyond six days.
cdef inline uint32_t tick_after(const tcp_t *tcp, uint64_t delay_ns) noexcept nogil:
    if delay_ns >> WHEEL_TICK_SHIFT > TICK_MAX_DELAY:
        return wheel_tick_of(&tcp.wheel, tcp.now_ns) + TICK_MAX_DELAY
    return wheel_tick_of(&tcp.wheel, tcp.now_ns + delay_ns) + 1


cdef inline bint tick_reached(uint32_t tick, uint32_t now_tick) noexcept nogil:
    return <int32_t>(now_tick - tick) >= 0


# Before what only the passing of time makes too old is compared: on a segment that arrives in another block of 4.7
# hours than the last one did (REFRESH_SHIFT), and when sending begins after a pause.
cdef inline void tcb_refresh(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint64_t silent_ms = (tcp.now_ns // 1000000 - tcb_last_received_ms(tcb)) & 0xFFFFFFFFFULL
    cdef uint32_t now_tick = tcp_tick(tcp)
    if not tcb.flags & TCB_REXMIT_ARMED and (silent_ms >= TICK_STALE_MS or tick_reached(tcb.rexmit_tick, now_tick)):
        tcb.rexmit_tick = now_tick          # stays "reached" (restart_after_idle), however long the pause
    if silent_ms >= TS_STALE_MS:
        tcb.options |= OPT_TS_STALE


cdef inline bint tcb_needs_refresh(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return ((tcp.now_ns // 1000000 ^ tcb_last_received_ms(tcb)) & 0xFFFFFFFFFULL) >> REFRESH_SHIFT != 0
