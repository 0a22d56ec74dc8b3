# SPDX-License-Identifier: MIT
"""Connections whose peers hold what we have for them. See holders.pxd.

Marks are kept beside the connections, in a table of HOLDER_MARKS that is made when connections first run short. A mark
has the place that its connection's index gives it; one that is in use stays for two intervals, so that with more
connections than places some are always judged.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc

from ustack.base.counters cimport HOLDERS_ENDED, count
from ustack.tcp.records.demux cimport flow_connection, flow_slot_count
from ustack.tcp.records.state cimport CLOSE_NO_MEMORY, ESTABLISHED
from ustack.tcp.records.tcb cimport TCB_ABORT, holder_mark_t, tcb_t
from ustack.tcp.records.work cimport turn_charge, work_add


cdef enum:
    HOLDER_MARKS = 4096                     # a power of two
    LOOK_UNITS = 8


cdef inline bint owes(const tcb_t *tcb) noexcept nogil:
    """Its peer has something to acknowledge, or to make room for."""
    return tcb.state >= ESTABLISHED and (tcb.snd_una != tcb.snd_end or tcb.snd_una != tcb.snd_max)


cdef inline bint is_of(const holder_mark_t *mark, const tcb_t *tcb) noexcept nogil:
    return mark.index == tcb.index and mark.rport == tcb.key.rport and mark.raddr_be == tcb.key.raddr.words_be[3]


cdef bint judge(tcp_t *tcp, tcb_t *tcb, uint64_t now_ms) noexcept nogil:
    """True: it is a holder."""
    cdef holder_mark_t *mark = &tcp.holder_marks[tcb.index & (HOLDER_MARKS - 1)]
    cdef uint64_t interval_ms = tcp.config.holder_interval_ns // 1000000
    cdef uint64_t since_ms = now_ms - mark.at_ms
    if mark.index != 0 and not is_of(mark, tcb):
        if since_ms < 2 * interval_ms:
            return False
        mark.index = 0
    if not owes(tcb):
        mark.index = 0
        return False
    if mark.index != 0:
        if since_ms < interval_ms:
            return False
        if <uint64_t>(tcb.snd_una - mark.snd_una) * 1000 < tcp.config.holder_bytes_per_second * since_ms:
            mark.index = 0
            return True
    mark.index = tcb.index
    mark.rport = tcb.key.rport
    mark.raddr_be = tcb.key.raddr.words_be[3]
    mark.snd_una = tcb.snd_una
    mark.at_ms = now_ms
    return False


cdef void holders_look(tcp_t *tcp) noexcept nogil:
    cdef uint64_t now_ms = tcp.now_ns // 1000000
    cdef tcb_t *tcb
    cdef uint32_t slots = 0, looked = 0
    if not holders_wanted(tcp):
        return
    if tcp.holder_marks == NULL:
        tcp.holder_marks = <holder_mark_t *>calloc(HOLDER_MARKS, sizeof(holder_mark_t))
        if tcp.holder_marks == NULL:
            return
    turn_charge(tcp, LOOK_UNITS)
    while slots < HOLDERS_LOOK_SLOTS and looked < HOLDERS_LOOK:
        slots += 1
        if tcp.holders_at >= flow_slot_count(tcp):
            tcp.holders_at = 0
        tcb = flow_connection(tcp, tcp.holders_at)
        tcp.holders_at += 1
        if tcb == NULL:
            continue
        looked += 1
        if tcb.flags & TCB_ABORT or not judge(tcp, tcb, now_ms):
            continue
        count(tcp.counters, HOLDERS_ENDED)
        tcb.close_reason = CLOSE_NO_MEMORY
        tcb.flags |= TCB_ABORT
        work_add(tcp, tcb)
