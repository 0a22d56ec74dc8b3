# SPDX-License-Identifier: MIT
"""The deadlines of a connection and its one timer node. See deadlines.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.wheel cimport TIMER_NONE, WHEEL_TICK_SHIFT, tick_before, wheel_arm, wheel_deadline_tick, wheel_move
from ustack.tcp.records.sockopts cimport tcb_keepalive_idle_ns, tcb_keepalive_interval_ns
from ustack.tcp.records.state cimport ESTABLISHED
from ustack.tcp.records.tcb cimport DEADLINE_KEEPALIVE, TCB_KEEPALIVE


cdef uint64_t MS = 1000000


cdef bint keepalive_runs(const tcb_t *tcb) noexcept nogil:
    return tcb.flags & TCB_KEEPALIVE and tcb.state >= ESTABLISHED and tcb.snd_una == tcb.snd_max


cdef uint64_t tcb_silent_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return <uint64_t>(<uint32_t>(tcp.now_ns // MS) - tcb.last_received_ms) * MS


cdef uint64_t keepalive_left_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint64_t silent_ns = tcb_silent_ns(tcp, tcb)
    cdef uint64_t due_ns = tcb_keepalive_idle_ns(tcp, tcb)
    due_ns += tcb.keepalive_probes * tcb_keepalive_interval_ns(tcp, tcb)
    return due_ns - silent_ns if due_ns > silent_ns else 0


cdef bint deadline_expired(const tcp_t *tcp, const tcb_t *tcb, uint32_t kind, uint32_t now_tick) noexcept nogil:
    if kind == DEADLINE_KEEPALIVE:
        return keepalive_runs(tcb) and keepalive_left_ns(tcp, tcb) == 0
    return tcb.armed >> kind & 1 and tick_reached(deadline_tick(tcp, tcb, kind), now_tick)


cdef void deadlines_arm(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t now_tick = tcp_tick(tcp)
    cdef uint32_t earliest = 0, kind, tick
    cdef uint64_t deadline_ns
    cdef bint any_deadline = keepalive_runs(tcb)
    if any_deadline:
        earliest = tick_after(tcp, keepalive_left_ns(tcp, tcb))
    for kind in range(DEADLINE_KEEPALIVE):
        if tcb.armed >> kind & 1:
            tick = deadline_tick(tcp, tcb, kind)
            if not any_deadline or tick_before(tick, earliest):
                earliest = tick
            any_deadline = True
    if not any_deadline:
        return                              # a node that is still armed fires once for nothing
    if tcb.timer != TIMER_NONE and not tick_before(earliest, wheel_deadline_tick(&tcp.wheel, tcb.timer)):
        return
    if tick_reached(earliest, now_tick):
        earliest = now_tick + 1
    deadline_ns = tcp.wheel.base_ns + ((<uint64_t>(earliest - now_tick)
                                        + ((tcp.now_ns - tcp.wheel.base_ns) >> WHEEL_TICK_SHIFT))
                                       << WHEEL_TICK_SHIFT)
    if tcb.timer != TIMER_NONE:
        wheel_move(&tcp.wheel, tcb.timer, deadline_ns)
    else:
        tcb.timer = wheel_arm(&tcp.wheel, deadline_ns, TIMER_CONNECTION, tcb.index)
