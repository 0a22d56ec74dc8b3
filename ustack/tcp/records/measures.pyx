# SPDX-License-Identifier: MIT
"""What a connection can be asked for with the setting `measure`. See measures.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.buf.slab cimport slab_at
from ustack.tcp.records.tcb cimport TCB_WANT_WRITABLE
from ustack.wire.seq cimport seq_lt


cdef inline measures_t *measures_at(const tcp_t *tcp, uint32_t index) noexcept nogil:
    return <measures_t *>slab_at(&tcp.measures, index)


cdef inline uint32_t segments(uint32_t data, uint16_t size) noexcept nogil:
    return (data + size - 1) // size if size and data > size else 1


cdef void note_segments_in(tcp_t *tcp, uint32_t index, uint32_t data, uint16_t size) noexcept nogil:
    cdef measures_t *own = measures_at(tcp, index)
    cdef uint32_t count = segments(data, size), largest = size if count > 1 else data
    own.segs_in += count
    if data:
        own.data_segs_in += count
        own.data_received_ns = tcp.now_ns
        if largest > own.rcv_mss:
            own.rcv_mss = <uint16_t>largest


cdef void note_segments_out(tcp_t *tcp, uint32_t index, uint32_t data, uint16_t size) noexcept nogil:
    cdef measures_t *own = measures_at(tcp, index)
    cdef uint32_t count = segments(data, size)
    own.segs_out += count
    if data:
        own.data_segs_out += count
        own.data_sent_ns = tcp.now_ns


cdef void note_rate(tcp_t *tcp, uint32_t index, uint32_t delivered, uint32_t interval_us,
                    bint app_limited) noexcept nogil:
    cdef measures_t *own = measures_at(tcp, index)
    if delivered == 0 or interval_us == 0:
        return
    if app_limited and <uint64_t>delivered * own.rate_interval_us < <uint64_t>own.rate_delivered * interval_us:
        return
    own.rate_delivered = delivered
    own.rate_interval_us = interval_us


cdef inline wait_t wait_of(const tcb_t *tcb) noexcept nogil:
    """Linux looks at the same (tcp_write_xmit, tcp_cwnd_validate)."""
    cdef uint32_t unsent = tcb.snd_end - tcb.snd_nxt if seq_lt(tcb.snd_nxt, tcb.snd_end) else 0
    cdef uint32_t following = unsent if unsent < tcb.smss else tcb.smss
    cdef uint32_t outstanding = tcb.snd_nxt - tcb.snd_una
    if not seq_lt(tcb.snd_una, tcb.snd_end):
        return WAIT_NOTHING
    if unsent:
        return WAIT_RWND if tcb.snd_wnd < outstanding + following <= tcb.cwnd else WAIT_BUSY
    return WAIT_SNDBUF if tcb.flags & TCB_WANT_WRITABLE and outstanding + tcb.smss <= tcb.cwnd else WAIT_BUSY


cdef void note_wait(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef measures_t *own = measures_at(tcp, tcb.index)
    cdef wait_t wait = wait_of(tcb)
    if wait == <wait_t>own.wait:
        return
    own.waited_ns[own.wait] += tcp.now_ns - own.since_ns
    own.since_ns = tcp.now_ns
    own.wait = <uint8_t>wait


cdef uint64_t waited_ns(const tcp_t *tcp, const measures_t *own, wait_t wait) noexcept nogil:
    return own.waited_ns[<int>wait] + (tcp.now_ns - own.since_ns if wait == <wait_t>own.wait else 0)
