# SPDX-License-Identifier: MIT
"""A connection and its congestion control. See control.pxd."""

from libc.stdint cimport uint8_t, uint32_t

from ustack.base.counters cimport CONTROLS_REPLACED, count
from ustack.buf.slab cimport slab_alloc, slab_init, slab_release
from ustack.tcp.cc.registry cimport CC_FIRST, cc_table
from ustack.tcp.records.tcb cimport CC_WAITING, TCP_MAX_CC


cdef uint32_t record_bytes(uint32_t state_bytes) noexcept nogil:
    """What a slab takes: a power of two up to a cache line, then whole ones."""
    cdef uint32_t size = 8
    while size < state_bytes and size < 64:
        size *= 2
    return size if size >= state_bytes else (state_bytes + 63) // 64 * 64


cdef int control_provide(tcp_t *tcp, int number) noexcept nogil:
    cdef const cc_ops_t *ops = cc_table(number)
    if tcp.cc[number] != NULL:
        return 0
    if ops.state_bytes > <uint32_t>STATE_IN_PLACE and slab_init(
            &tcp.cc_records[number], record_bytes(ops.state_bytes), tcp.config.cc_records) != 0:
        return -1
    tcp.cc[number] = ops
    return 0


cdef void control_choose(tcb_t *tcb, int number) noexcept nogil:
    tcb.cc = <uint8_t>(number | CC_WAITING)


cdef int control_number(const tcb_t *tcb) noexcept nogil:
    return tcb.cc & (CC_MAX - 1)


cdef const char *control_name(const tcb_t *tcb) noexcept nogil:
    return cc_table(control_number(tcb)).name


cdef bint take_record(tcp_t *tcp, int number, uint32_t *word) noexcept nogil:
    """A zeroed record. False: there is none to be had."""
    word[0] = 0
    if tcp.cc[number].state_bytes > <uint32_t>STATE_IN_PLACE:
        word[0] = slab_alloc(&tcp.cc_records[number])
        return word[0] != 0
    return True


cdef void begin_with(tcp_t *tcp, tcb_t *tcb, int number, uint32_t word) noexcept nogil:
    cdef cc_view_t view
    cdef const cc_ops_t *ops = tcp.cc[number]
    tcb.cc = <uint8_t>(number | CC_HEARS_SENT if ops.hears_sent else number)
    tcb.cc_word = word
    view_load(tcp, tcb, &view)
    ops.init(control_state(tcp, tcb, ops), &view)
    view_store(tcb, &view)


cdef void control_begin(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef int number = control_number(tcb)
    cdef uint32_t word
    if not take_record(tcp, number, &word):
        count(tcp.counters, CONTROLS_REPLACED)
        number = CC_FIRST
    begin_with(tcp, tcb, number, word)


cdef void control_end(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    if tcb.cc & CC_WAITING:
        return
    ops.release(control_state(tcp, tcb, ops))
    if ops.state_bytes > <uint32_t>STATE_IN_PLACE:
        slab_release(&tcp.cc_records[control_number(tcb)], tcb.cc_word)
    tcb.cc_word = 0
    control_choose(tcb, control_number(tcb))


cdef int control_change(tcp_t *tcp, tcb_t *tcb, int number) noexcept nogil:
    cdef uint32_t word
    if number == control_number(tcb):
        return 0
    if tcb.cc & CC_WAITING:
        control_choose(tcb, number)
        return 0
    if not take_record(tcp, number, &word):
        return -1
    control_end(tcp, tcb)
    begin_with(tcp, tcb, number, word)
    return 0


cdef uint32_t control_records_in_use(const tcp_t *tcp) noexcept nogil:
    cdef uint32_t records = 0
    cdef int number
    for number in range(TCP_MAX_CC):
        records += tcp.cc_records[number].in_use
    return records


cdef void control_hears_sent(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    ops.on_sent(control_state(tcp, tcb, ops), length, tcb.snd_nxt - tcb.snd_una, tcp.now_ns)


cdef void window_widen(tcb_t *tcb) noexcept nogil:
    tcb.cwnd = tcb.smss
