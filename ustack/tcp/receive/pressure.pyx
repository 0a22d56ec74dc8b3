# SPDX-License-Identifier: MIT
"""Shares of the receive memory, and who gives up first. The rules are in pressure.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.counters cimport CONNECTIONS_MEMORY_ABORTED, SACK_RENEGED, count
from ustack.base.types cimport ms_of
from ustack.buf.chunks cimport CHUNK_SHIFT, SMALL_CHUNK_BYTES, chunk_free_bytes
from ustack.tcp.records.life cimport rx_queue_release
from ustack.tcp.records.rx_queue cimport (
    RX_CLASSES, rx_memory_short, rx_memory_t, rx_queue_at, rx_queue_forget_runs, rx_queue_note, rx_queue_requeue,
    rx_queue_t)
from ustack.tcp.records.state cimport CLOSED, CLOSE_NO_MEMORY
from ustack.tcp.records.tcb cimport TCB_ABORT, rx_queue_of, tcb_at
from ustack.tcp.records.work cimport work_add


cdef enum:
    SHARE_SHIFT = 4                         # a connection may hold a sixteenth of what is free
    FLOORS_SHIFT = 4                        # a sixteenth of all is for those who hold RX_FLOOR_BYTES or less
    IN_ORDER_SHIFT = 3                      # the last eighth of all is for data in order
    VICTIMS_AT_ONCE = 8                     # for one segment
    LOOKED_AT_ONCE = 4                      # records of one list, before the next one


cdef inline uint64_t free_bytes(const tcp_t *tcp, uint64_t wanted) noexcept nogil:
    """What can be taken now: whole pages, or an eighth of one that is split."""
    cdef uint64_t free = chunk_free_bytes(&tcp.rx.chunks)
    if free == 0 and wanted <= SMALL_CHUNK_BYTES and tcp.rx.chunks.split.first:
        return SMALL_CHUNK_BYTES
    return free


cdef inline uint64_t may_hold(const tcp_t *tcp) noexcept nogil:
    cdef uint64_t free = chunk_free_bytes(&tcp.rx.chunks)
    cdef uint64_t floors = <uint64_t>(tcp.rx.chunks.limit_pages >> FLOORS_SHIFT) << CHUNK_SHIFT
    cdef uint64_t share = (free - floors) >> SHARE_SHIFT if free > floors else 0
    return share if share > RX_FLOOR_BYTES else RX_FLOOR_BYTES


cdef inline uint64_t left_of_share(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef uint64_t held = rx.held_bytes if rx != NULL else 0
    cdef uint64_t share = may_hold(tcp)
    return share - held if held < share else 0


cdef uint64_t pressure_allow(tcp_t *tcp, tcb_t *tcb, uint64_t wanted) noexcept nogil:
    cdef uint64_t share, free
    cdef uint32_t tries = 0
    cdef rx_queue_t *rx
    if not rx_memory_short(&tcp.rx):
        free = chunk_free_bytes(&tcp.rx.chunks)
        return wanted if wanted < free else free
    share = left_of_share(tcp, tcb)
    rx = rx_queue_of(tcp, tcb)
    if share < wanted and rx != NULL and rx.runs.count:
        pressure_renege(tcp, tcb)           # its own data beyond a hole must not keep out what closes the hole
        share = left_of_share(tcp, tcb)
    if wanted > share:
        wanted = share
    while free_bytes(tcp, wanted) < wanted and tries < VICTIMS_AT_ONCE:
        if not renege_largest(tcp) and not abort_largest(tcp, tcb, wanted):
            break
        tries += 1
    free = free_bytes(tcp, wanted)
    return wanted if wanted < free else free


cdef uint64_t pressure_allow_beyond(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint64_t free = chunk_free_bytes(&tcp.rx.chunks)
    cdef uint64_t kept = <uint64_t>(tcp.rx.chunks.limit_pages >> IN_ORDER_SHIFT) << CHUNK_SHIFT
    cdef uint64_t share
    free = free - kept if free > kept else 0
    if not rx_memory_short(&tcp.rx):
        return free
    share = left_of_share(tcp, tcb)
    return share if share < free else free


cdef void pressure_renege(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    count(tcp.counters, SACK_RENEGED)
    rx_queue_forget_runs(&tcp.rx, rx)
    if rx.queued_bytes == 0:
        rx_queue_release(tcp, tcb)
    else:
        rx_queue_note(&tcp.rx, rx, tcb.rx)


cdef inline uint32_t largest_class(uint32_t classes) noexcept nogil:
    """The highest bit that is set, RX_CLASSES if there is none."""
    cdef uint32_t at = RX_CLASSES
    while at > 0:
        at -= 1
        if classes >> at & 1:
            return at
    return RX_CLASSES


cdef bint renege_largest(tcp_t *tcp) noexcept nogil:
    cdef uint32_t at = largest_class(tcp.rx.classes[1])
    if at == RX_CLASSES:
        return False
    pressure_renege(tcp, tcb_at(tcp, rx_queue_at(&tcp.rx, tcp.rx.lists[RX_CLASSES + at].first).owner))
    return True


cdef bint abort_largest(tcp_t *tcp, const tcb_t *asker, uint64_t wanted) noexcept nogil:
    """End the connection that holds most and has read nothing for long. Its memory is free at once, its RST and its
    upcall follow in this turn."""
    cdef rx_memory_t *memory = &tcp.rx
    cdef const rx_queue_t *own = rx_queue_of(tcp, asker)
    cdef uint64_t least = wanted + (own.held_bytes if own != NULL else 0)
    cdef uint32_t now_ms = ms_of(tcp.now_ns)
    cdef uint32_t classes = memory.classes[0], at, index
    cdef int _looked
    cdef rx_queue_t *rx
    cdef tcb_t *victim
    while True:
        at = largest_class(classes)
        if at == RX_CLASSES:
            return False
        classes &= ~(1u << at)
        for _looked in range(LOOKED_AT_ONCE):
            index = memory.lists[at].first
            rx = rx_queue_at(memory, index)
            victim = tcb_at(tcp, rx.owner)
            if (rx.held_bytes >= least and now_ms - rx.read_ms >= RX_PATIENCE_MS and victim != asker
                    and victim.state != CLOSED and tcp.offering != rx.owner):
                if not victim.flags & TCB_ABORT:
                    count(tcp.counters, CONNECTIONS_MEMORY_ABORTED)
                    victim.close_reason = CLOSE_NO_MEMORY
                    victim.flags |= TCB_ABORT
                    work_add(tcp, victim)
                rx_queue_release(tcp, victim)
                return True
            rx_queue_requeue(memory, rx, index)     # second chance: others are looked at before it comes again
        if <uint64_t>SMALL_CHUNK_BYTES << at <= 2 * least:
            return False                    # whoever follows holds less than the asker
