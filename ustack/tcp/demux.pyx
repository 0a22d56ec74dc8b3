# SPDX-License-Identifier: MIT
"""Which connection does a segment belong to. See demux.pxd for the table's shape.

The hash is keyed (SipHash-1-3), so that a peer cannot choose ports that collide. Read first: RFC 9293 section 3.10.7
(the order of matching), RFC 6528 (initial sequence numbers).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from ustack.base.prng cimport siphash13, siphash24
from ustack.base.types cimport ip_addr_equal, ip_addr_is_any
from ustack.tcp.tcb cimport (TCP_MAX_LISTENERS, flow_slot_t, flow_table_t, syn_at, tcb_at, time_wait_at)


cdef enum:
    FLOW_INDEX_MASK = (1 << FLOW_INDEX_BITS) - 1
    ISN_TICK_SHIFT = 12                     # 4096 ns


cdef inline uint32_t flow_hash(const tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    return <uint32_t>siphash13(tcp.flows.hash_key, <const uint8_t *>key, sizeof(flow_key_t))


cdef inline const flow_key_t *target_key(const tcp_t *tcp, uint32_t target) noexcept nogil:
    cdef uint32_t index = target & FLOW_INDEX_MASK
    cdef uint32_t kind = target >> FLOW_INDEX_BITS
    if kind == FLOW_CONNECTION:
        return &tcb_at(tcp, index).key
    if kind == FLOW_SYN_RECEIVED:
        return &syn_at(tcp, index).key
    return &time_wait_at(tcp, index).key


cdef inline flow_slot_t *flow_slot(const tcp_t *tcp, const flow_key_t *key, uint32_t tag) noexcept nogil:
    """The key's slot, or the empty one where it would go. tag: the key's hash."""
    cdef const flow_table_t *flows = &tcp.flows
    cdef uint32_t at = tag & flows.mask
    cdef flow_slot_t *slot
    while True:
        slot = &flows.slots[at]
        if slot.target == 0:
            return slot
        if slot.tag == tag and memcmp(target_key(tcp, slot.target), key, sizeof(flow_key_t)) == 0:
            return slot
        at = (at + 1) & flows.mask


cdef flow_t flow_find(const tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef uint32_t target = flow_slot(tcp, key, flow_hash(tcp, key)).target
    cdef flow_t found
    found.kind = <flow_kind_t>(target >> FLOW_INDEX_BITS)
    found.index = target & FLOW_INDEX_MASK
    return found


cdef int flow_grow(flow_table_t *flows) noexcept nogil:
    """Double the table. Tags are stored, so no record is touched."""
    cdef uint32_t size = (flows.mask + 1) * 2
    cdef flow_slot_t *slots = <flow_slot_t *>calloc(size, sizeof(flow_slot_t))
    cdef uint32_t i, at
    if slots == NULL:
        return -1
    for i in range(flows.mask + 1):
        if flows.slots[i].target == 0:
            continue
        at = flows.slots[i].tag & (size - 1)
        while slots[at].target != 0:
            at = (at + 1) & (size - 1)
        slots[at] = flows.slots[i]
    free(flows.slots)
    flows.slots = slots
    flows.mask = size - 1
    return 0


cdef int flow_insert(tcp_t *tcp, const flow_key_t *key, flow_kind_t kind, uint32_t index) noexcept nogil:
    cdef flow_table_t *flows = &tcp.flows
    cdef uint32_t tag = flow_hash(tcp, key)
    cdef flow_slot_t *slot
    if <uint64_t>(flows.used + 1) * 4 > <uint64_t>(flows.mask + 1) * 3 and flow_grow(flows) != 0:
        return -1
    slot = flow_slot(tcp, key, tag)
    slot.tag = tag
    slot.target = <uint32_t>kind << FLOW_INDEX_BITS | index
    flows.used += 1
    return 0


cdef void flow_retarget(tcp_t *tcp, const flow_key_t *key, flow_kind_t kind, uint32_t index) noexcept nogil:
    flow_slot(tcp, key, flow_hash(tcp, key)).target = <uint32_t>kind << FLOW_INDEX_BITS | index


cdef void flow_remove(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    """Empty the slot and move back what had to probe past it (Knuth 6.4, algorithm R)."""
    cdef flow_table_t *flows = &tcp.flows
    cdef flow_slot_t *slot = flow_slot(tcp, key, flow_hash(tcp, key))
    cdef uint32_t hole, at, home
    if slot.target == 0:
        return
    flows.used -= 1
    hole = <uint32_t>(slot - flows.slots)
    at = hole
    while True:
        at = (at + 1) & flows.mask
        if flows.slots[at].target == 0:
            break
        home = flows.slots[at].tag & flows.mask
        if ((at - home) & flows.mask) >= ((at - hole) & flows.mask):
            flows.slots[hole] = flows.slots[at]
            hole = at
    flows.slots[hole].target = 0


# ---------------------------------------------------------------- listeners

cdef listener_t *listener_exact(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport) noexcept nogil:
    cdef int i
    for i in range(TCP_MAX_LISTENERS):
        if tcp.listeners[i].lport == lport and ip_addr_equal(&tcp.listeners[i].laddr, laddr):
            return &tcp.listeners[i]
    return NULL


cdef listener_t *listener_find(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport) noexcept nogil:
    cdef listener_t *any_address = NULL
    cdef int i
    for i in range(TCP_MAX_LISTENERS):
        if tcp.listeners[i].lport != lport:
            continue
        if ip_addr_equal(&tcp.listeners[i].laddr, laddr):
            return &tcp.listeners[i]
        if ip_addr_is_any(&tcp.listeners[i].laddr):
            any_address = &tcp.listeners[i]
    return any_address


cdef uint32_t initial_sequence_number(const tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    return (<uint32_t>(tcp.now_ns >> ISN_TICK_SHIFT)
            + <uint32_t>siphash24(tcp.secret, <const uint8_t *>key, sizeof(flow_key_t)))
