# SPDX-License-Identifier: MIT
"""The tree of the records in a flight. See transmission_tree.pxd for the contract and flight.pxd for the layout."""

from libc.stdint cimport uint32_t

from ustack.base.counters cimport TRANSMISSION_STEPS, count_add
from ustack.base.debug cimport ensure
from ustack.tcp.records.flight cimport transmission_at, transmission_t
from ustack.wire.seq cimport seq_le, seq_lt


cdef inline uint32_t priority(const flight_t *flight, uint32_t index) noexcept nogil:
    """Of a record in the treap: a keyed mix of its index (the finalizer of MurmurHash3), which nobody outside knows."""
    cdef uint32_t mixed = index ^ flight.seed
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6Bu
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35u
    return mixed ^ mixed >> 16


cdef void tree_insert(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil:
    cdef transmission_t *added = transmission_at(tcp, flight, index)
    cdef transmission_t *sent
    cdef uint32_t *link = &flight.root
    cdef uint32_t *lower = &added.lower
    cdef uint32_t *higher = &added.higher
    cdef uint32_t mine = priority(flight, index), at, steps = 0
    while link[0] and priority(flight, link[0]) >= mine:
        sent = transmission_at(tcp, flight, link[0])
        link = &sent.higher if seq_lt(sent.seq, added.seq) else &sent.lower
        steps += 1
    at = link[0]                            # what is below is split at its edge
    link[0] = index
    while at:
        sent = transmission_at(tcp, flight, at)
        steps += 1
        if seq_lt(sent.seq, added.seq):
            lower[0] = at
            lower = &sent.higher
            at = sent.higher
        else:
            higher[0] = at
            higher = &sent.lower
            at = sent.lower
    lower[0] = 0
    higher[0] = 0
    count_add(tcp.counters, TRANSMISSION_STEPS, steps)


cdef void tree_remove(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil:
    cdef transmission_t *gone = transmission_at(tcp, flight, index)
    cdef transmission_t *sent
    cdef uint32_t *link = &flight.root
    cdef uint32_t lower = gone.lower, higher = gone.higher, steps = 0
    while link[0] != index:
        ensure(link[0] != 0)
        sent = transmission_at(tcp, flight, link[0])
        link = &sent.higher if seq_lt(sent.seq, gone.seq) else &sent.lower
        steps += 1
    while lower and higher:                 # its two subtrees become one
        steps += 1
        if priority(flight, lower) > priority(flight, higher):
            link[0] = lower
            link = &transmission_at(tcp, flight, lower).higher
            lower = link[0]
        else:
            link[0] = higher
            link = &transmission_at(tcp, flight, higher).lower
            higher = link[0]
    link[0] = lower | higher
    count_add(tcp.counters, TRANSMISSION_STEPS, steps)


cdef uint32_t transmission_floor(tcp_t *tcp, flight_t *flight, uint32_t seq) noexcept nogil:
    cdef uint32_t index = flight.root, found = flight.head, steps = 0
    cdef transmission_t *sent
    while index:
        sent = transmission_at(tcp, flight, index)
        steps += 1
        if seq_le(sent.seq, seq):
            found = index
            index = sent.higher
        else:
            index = sent.lower
    count_add(tcp.counters, TRANSMISSION_STEPS, steps)
    return found
