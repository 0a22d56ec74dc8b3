# SPDX-License-Identifier: MIT
"""The one timer node of a connection. See deadlines.pxd."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from ustack.base.wheel cimport TIMER_NONE, WHEEL_TICK_SHIFT, tick_before, wheel_arm, wheel_deadline_tick, wheel_move
from ustack.tcp.records.state cimport ESTABLISHED
from ustack.tcp.records.tcb cimport TCB_ACK_ARMED, TCB_APP_TIMEOUT, TCB_KEEPALIVE

cdef uint64_t MS = 1000000


cdef void tcb_arm(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t now_tick = tcp_tick(tcp)
    cdef uint32_t earliest = 0, tick
    cdef uint64_t deadline_ns
    cdef bint any_deadline = False
    if tcb.flags & TCB_REXMIT_ARMED:
        earliest = tcb.rexmit_tick
        any_deadline = True
    if tcb.flags & TCB_ACK_ARMED:
        if not any_deadline or <int32_t>(tcb.ack_tick - earliest) < 0:
            earliest = tcb.ack_tick
        any_deadline = True
    if tcb.flags & TCB_APP_TIMEOUT:
        if not any_deadline or <int32_t>(tcb.app_tick - earliest) < 0:
            earliest = tcb.app_tick
        any_deadline = True
    if tcb.flags & TCB_KEEPALIVE and tcb.state >= ESTABLISHED and tcb.snd_una == tcb.snd_max:
        tick = keepalive_tick(tcp, tcb)
        if not any_deadline or <int32_t>(tick - earliest) < 0:
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


cdef inline uint32_t keepalive_tick(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """When the next keep-alive probe is due: counted from the last segment received (MUST-26)."""
    cdef uint64_t silent_ms = <uint32_t>(tcp.now_ns // MS) - tcb.last_received_ms
    cdef uint64_t due_ms = (tcp.config.keepalive_idle_ns
                            + tcb.keepalive_probes * tcp.config.keepalive_interval_ns) // MS
    return tick_after(tcp, (due_ms - silent_ms) * MS if due_ms > silent_ms else 0)
