# SPDX-License-Identifier: MIT
"""How connections end. See ending.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.base.counters cimport (
    CONNECTIONS_CLOSED, CONNECTIONS_RESET, CONNECTIONS_TIMED_OUT, CONNECTIONS_UNREACHABLE, count)
from ustack.base.ilist cimport ilist_append, ilist_remove
from ustack.base.wheel cimport TIMER_NONE, wheel_cancel
from ustack.buf.slab cimport slab_alloc, slab_release
from ustack.tcp.receive.window cimport tcb_receive_window
from ustack.tcp.records.accecn cimport accecn_ace, tcb_is_accurate
from ustack.tcp.records.deadlines cimport deadlines_clear, tick_after
from ustack.tcp.records.demux cimport FLOW_TIME_WAIT, flow_remove, flow_retarget
from ustack.tcp.records.life cimport rx_queue_release, send_queue_release
from ustack.tcp.records.moves cimport hand_over_state, note_move
from ustack.tcp.records.state cimport (
    CLOSED, CLOSE_HOST_UNREACHABLE, CLOSE_KEEPALIVE, CLOSE_NET_UNREACHABLE, CLOSE_NORMAL, CLOSE_REFUSED, CLOSE_RESET,
    CLOSE_TIMEOUT, LAST_ACK, LISTEN, SYN_RECEIVED, TIME_WAIT, tcp_state_t)
from ustack.tcp.records.tcb cimport (
    OPT_ACE_SHIFT, OPT_AGREED, OPT_SLOW_TICKS, TCB_ACK_DELAYED, TCB_ACK_NOW, TCB_CLOSED_BY_APP, TCB_EV_CLOSED,
    TCB_KEEPALIVE, TCB_PERSIST, TCB_PROBE, TCB_REORDERED, TCB_REXMIT, syn_at, syn_hook, time_wait_at, time_wait_hook,
    time_wait_t)
from ustack.tcp.records.timestamps cimport timestamp_note_end
from ustack.tcp.records.trace cimport trace_closed
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.control cimport control_end
from ustack.tcp.recovery.transmissions cimport transmissions_end


cdef void mark_closed(tcp_t *tcp, tcb_t *tcb, tcp_state_t became, close_reason_t reason) noexcept nogil:
    """The record has left the flow table: nothing runs for it any more but its last upcalls.

    became: CLOSED, or TIME-WAIT in a record of its own.
    """
    if tcb.flags & TCB_CLOSED_BY_APP:
        tcp.orphans -= 1
    if tcb.state == SYN_RECEIVED:
        rx_queue_release(tcp, tcb)          # text on the SYN of a peer that never proved to be there
    if tcb.state == LAST_ACK:               # the peer closed first, and is in TIME-WAIT
        timestamp_note_end(tcp, tcb)
    trace_closed(tcp, tcb, became, reason)
    hand_over_state(tcp, tcb, became)
    deadlines_clear(tcb)
    tcb.flags &= ~(TCB_ACK_NOW | TCB_ACK_DELAYED | TCB_REXMIT | TCB_PERSIST | TCB_PROBE | TCB_KEEPALIVE)
    tcb.flags |= TCB_EV_CLOSED
    tcb.close_reason = reason
    send_queue_release(tcp, tcb)
    transmissions_end(tcp, tcb)
    control_end(tcp, tcb)
    count(tcp.counters, CONNECTIONS_CLOSED)
    work_add(tcp, tcb)


cdef void connection_end(tcp_t *tcp, tcb_t *tcb, close_reason_t reason) noexcept nogil:
    if tcb.state == CLOSED:
        return
    flow_remove(tcp, &tcb.key)
    if reason == CLOSE_RESET or reason == CLOSE_REFUSED:
        count(tcp.counters, CONNECTIONS_RESET)
    elif reason == CLOSE_TIMEOUT or reason == CLOSE_KEEPALIVE:
        count(tcp.counters, CONNECTIONS_TIMED_OUT)
    elif reason == CLOSE_NET_UNREACHABLE or reason >= CLOSE_HOST_UNREACHABLE:
        count(tcp.counters, CONNECTIONS_UNREACHABLE)
    mark_closed(tcp, tcb, CLOSED, reason)


# ---------------------------------------------------------------- TIME-WAIT

cdef void time_wait_link(tcp_t *tcp, uint32_t index) noexcept nogil:
    """At the end: every record waits equally long, so the list is in order of expiry."""
    time_wait_at(tcp, index).expiry_tick = tick_after(tcp, 2 * tcp.config.msl_ns)
    ilist_append(&tcp.time_wait_order, time_wait_hook, tcp, index)


cdef void connection_time_wait(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t index = slab_alloc(&tcp.time_waits)
    cdef time_wait_t *record
    if index == 0 and tcp.time_wait_order.first:             # at the limit: the one that has waited longest makes room
        time_wait_remove(tcp, tcp.time_wait_order.first)
        index = slab_alloc(&tcp.time_waits)
    if index == 0:
        connection_end(tcp, tcb, CLOSE_NORMAL)
        return
    record = time_wait_at(tcp, index)
    record.key = tcb.key
    record.snd_nxt = tcb.snd_nxt
    record.rcv_nxt = tcb.rcv_nxt
    record.ts_recent = tcb.ts_recent
    record.rcv_wnd = <uint16_t>(tcb_receive_window(tcp, tcb) >> tcb.rcv_wscale)
    record.options = tcb.options & OPT_AGREED
    if tcb.flags & TCB_REORDERED:
        record.options |= OPT_SLOW_TICKS
    if tcb_is_accurate(tcb):
        record.options |= <uint8_t>(accecn_ace(tcp, tcb) << OPT_ACE_SHIFT)
    time_wait_link(tcp, index)
    flow_retarget(tcp, &tcb.key, FLOW_TIME_WAIT, index)
    mark_closed(tcp, tcb, TIME_WAIT, CLOSE_NORMAL)


cdef void time_wait_restart(tcp_t *tcp, uint32_t index) noexcept nogil:
    ilist_remove(&tcp.time_wait_order, time_wait_hook, tcp, index)
    time_wait_link(tcp, index)


cdef void time_wait_remove(tcp_t *tcp, uint32_t index) noexcept nogil:
    flow_remove(tcp, &time_wait_at(tcp, index).key)
    note_move(tcp, TIME_WAIT, CLOSED)
    ilist_remove(&tcp.time_wait_order, time_wait_hook, tcp, index)
    slab_release(&tcp.time_waits, index)


# ---------------------------------------------------------------- half-open records

cdef void syn_received_remove(tcp_t *tcp, uint32_t index, bint keep_flow) noexcept nogil:
    cdef syn_received_t *syn = syn_at(tcp, index)
    if not keep_flow:
        flow_remove(tcp, &syn.key)
        note_move(tcp, SYN_RECEIVED, LISTEN)
    if syn.timer != TIMER_NONE:
        wheel_cancel(&tcp.wheel, syn.timer)
    ilist_remove(&tcp.syn_order, syn_hook, tcp, index)
    slab_release(&tcp.syns, index)
