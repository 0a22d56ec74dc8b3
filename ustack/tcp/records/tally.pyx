# SPDX-License-Identifier: MIT
"""Counting what a connection has been through. See tally.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.history cimport (
    BIRTH_CAME_ROUND, BIRTH_SHIFT, BIRTH_TIME, birth_t, birth_time, history_of, history_t, resent_by)
from ustack.tcp.records.life cimport history_make
from ustack.tcp.records.tcb cimport TCB_FIN_RECEIVED


cdef void tally_resent(tcp_t *tcp, tcb_t *tcb, rexmit_cause_t cause, uint32_t length, uint32_t data) noexcept nogil:
    cdef history_t *own = history_make(tcp, tcb)
    cdef uint32_t most = tcb.smss if tcb.smss else 1
    if own != NULL:
        resent_by(own, cause)[0] += length // most + (1 if length % most else 0)
        own.resent_bytes += data


cdef void tally_duplicate(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef history_t *own = history_make(tcp, tcb)
    if own != NULL:
        own.duplicates += 1


cdef void tally_spurious(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef history_t *own = history_make(tcp, tcb)
    if own != NULL:
        own.spurious += 1


cdef void tally_timeout(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef history_t *own = history_make(tcp, tcb)
    if own != NULL:
        own.timeouts += 1


cdef void received_came_round(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef birth_t *birth = birth_at(tcp, tcb.index)
    cdef history_t *own
    if not birth.opened & BIRTH_CAME_ROUND:
        birth.opened |= BIRTH_CAME_ROUND
        return
    own = history_make(tcp, tcb)
    if own != NULL:
        own.received_rounds += 1


cdef void received_went_back(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef history_t *own = history_of(tcp, tcb)
    if own != NULL and own.received_rounds:
        own.received_rounds -= 1
    else:
        birth_at(tcp, tcb.index).opened &= BIRTH_TIME


cdef void delivered_came_round(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef history_t *own = history_make(tcp, tcb)
    if own != NULL:
        own.delivered_rounds += 1


cdef void delivered_went_back(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef history_t *own = history_of(tcp, tcb)
    if own != NULL and own.delivered_rounds:
        own.delivered_rounds -= 1


cdef uint64_t tally_received(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const birth_t *birth = birth_at(tcp, tcb.index)
    cdef const history_t *own = history_of(tcp, tcb)
    cdef uint32_t first = birth.irs + 1
    cdef uint64_t rounds = 1 if birth.opened & BIRTH_CAME_ROUND else 0
    if own != NULL:
        rounds += own.received_rounds
    return (rounds << 32) + tcb.rcv_nxt - first - (1 if tcb.flags & TCB_FIN_RECEIVED else 0)


cdef uint64_t tally_delivered(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const history_t *own = history_of(tcp, tcb)
    return (<uint64_t>own.delivered_rounds << 32 if own != NULL else 0) + tcb.delivered


cdef uint64_t tally_age_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return <uint64_t>((birth_time(tcp) - birth_at(tcp, tcb.index).opened) & BIRTH_TIME) << BIRTH_SHIFT
