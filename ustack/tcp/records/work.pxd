# SPDX-License-Identifier: MIT
# The work list: connections that output or the application must look at after the burst, in order of arrival; and what
# work costs the engine's turn.
#
# An event puts a connection on it and goes on; the engine (poll) takes one after the other, as long as the turn lasts.
# Below: tcb, turn. Above: the event files, engine, applications.

from libc.stdint cimport int32_t, uint32_t

from ustack.tcp.records.tcb cimport TCB_LISTED, tcb_at, tcb_t, tcp_t


# Put the connection on the list that the engine walks after the burst.
cdef inline void work_add(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.flags & TCB_LISTED:
        return
    tcb.flags |= TCB_LISTED
    tcb.work_next = 0
    if tcp.work_tail:
        tcb_at(tcp, tcp.work_tail).work_next = tcb.index
    else:
        tcp.work_head = tcb.index
    tcp.work_tail = tcb.index


# First connection of the work list, taken off it; NULL: none.
cdef inline tcb_t *work_take(tcp_t *tcp) noexcept nogil:
    cdef tcb_t *tcb
    if tcp.work_head == 0:
        return NULL
    tcb = tcb_at(tcp, tcp.work_head)
    tcp.work_head = tcb.work_next
    if tcp.work_head == 0:
        tcp.work_tail = 0
    tcb.flags &= ~TCB_LISTED
    return tcb


# Put a connection back at the front: its output could not be finished (the ring is full).
cdef inline void work_return(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    tcb.flags |= TCB_LISTED
    tcb.work_next = tcp.work_head
    tcp.work_head = tcb.index
    if tcp.work_tail == 0:
        tcp.work_tail = tcb.index


# Take a connection out; before: the one in front of it, NULL: it is the first.
cdef inline void work_remove(tcp_t *tcp, tcb_t *before, tcb_t *tcb) noexcept nogil:
    if before == NULL:
        tcp.work_head = tcb.work_next
    else:
        before.work_next = tcb.work_next
    if tcp.work_tail == tcb.index:
        tcp.work_tail = before.index if before != NULL else 0
    tcb.flags &= ~TCB_LISTED


# Work done, in units of about 100 ns (turn_t).
cdef inline void turn_charge(tcp_t *tcp, uint32_t units) noexcept nogil:
    tcp.turn.budget.stage_left -= <int32_t>units


# The upcall that is being made has had its share of the turn: leave the rest (application.pxd, on_data).
cdef inline bint turn_spent(const tcp_t *tcp) noexcept nogil:
    return tcp.turn.budget.stage_left <= tcp.turn.budget.upcall_floor
