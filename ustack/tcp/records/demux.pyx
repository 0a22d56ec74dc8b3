# SPDX-License-Identifier: MIT
"""Which connection does a segment belong to. See demux.pxd for the table's shape.

The hash is keyed (SipHash-1-3), so that a peer cannot choose ports that collide. Read first: RFC 9293 section 3.10.7
(the order of matching), RFC 6528 (initial sequence numbers).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ustack.base.posix cimport (
    MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, madvise, mmap, munmap)
from ustack.base.prng cimport siphash24
from ustack.base.types cimport ip_addr_equal, ip_addr_is_any
from ustack.tcp.records.tcb cimport TCP_MAX_LISTENERS, flow_slot_t, flow_table_t, syn_at, tcb_at, time_wait_at


cdef enum:
    ISN_TICK_SHIFT = 12                     # 4096 ns
    SLOTS_A_CHANGE = 8                      # moved with each insertion and removal, while there are two tables
    SLOTS_A_TURN = 256
    PIECE_BYTES = 256 * 1024                # of an old table, unmapped in a turn
    FLOW_SLOTS_MAX = 1 << 30                # as FLOW_INDEX_BITS: there are never more records of a kind


# ---------------------------------------------------------------- memory

cdef flow_slot_t *flow_slots_map(uint32_t count) noexcept nogil:
    """Empty slots, NULL without memory. Not in huge pages: the first touch of one would clear 2 MiB."""
    cdef size_t size = <size_t>count * sizeof(flow_slot_t)
    cdef void *slots = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if slots == MAP_FAILED:
        return NULL
    madvise(slots, size, MADV_NOHUGEPAGE)
    return <flow_slot_t *>slots


cdef int flow_table_init(flow_table_t *flows, uint32_t slots) noexcept nogil:
    flows.slots = flow_slots_map(slots)
    flows.mask = slots - 1
    flows.mask_at_first = slots - 1
    return 0 if flows.slots != NULL else -1


cdef void flow_table_free(flow_table_t *flows) noexcept nogil:
    if flows.slots != NULL:
        munmap(flows.slots, (<size_t>flows.mask + 1) * sizeof(flow_slot_t))
    if flows.old_slots != NULL:
        munmap(flows.old_slots, (<size_t>flows.old_mask + 1) * sizeof(flow_slot_t))
    if flows.retired != NULL:
        munmap(flows.retired, flows.retired_bytes)
    flows.slots = NULL
    flows.old_slots = NULL
    flows.retired = NULL


cdef void flow_set_key(flow_table_t *flows, const uint8_t *key) noexcept nogil:
    memcpy(flows.hash_key, key, sizeof(flows.hash_key))
    flows.memo.addresses = 0
    flows.memo.ports = 0
    flows.memo.tag = flow_hash_of(flows, 0, 0)


# ---------------------------------------------------------------- looking up

cdef inline const flow_key_t *target_key(const tcp_t *tcp, uint32_t target) noexcept nogil:
    cdef uint32_t index = target & FLOW_INDEX_MASK
    cdef uint32_t kind = target >> FLOW_INDEX_BITS
    if kind == FLOW_CONNECTION:
        return &tcb_at(tcp, index).key
    if kind == FLOW_SYN_RECEIVED:
        return &syn_at(tcp, index).key
    return &time_wait_at(tcp, index).key


cdef inline uint32_t ports_of(const flow_key_t *key) noexcept nogil:
    cdef uint32_t ports
    memcpy(&ports, &key.lport, 4)
    return ports


cdef inline bint flow_key_equal(const flow_key_t *a, const flow_key_t *b) noexcept nogil:
    return (ip_addr_equal(&a.raddr, &b.raddr) and ports_of(a) == ports_of(b) and ip_addr_equal(&a.laddr, &b.laddr))


cdef inline flow_slot_t *probe(const tcp_t *tcp, flow_slot_t *slots, uint32_t mask, const flow_key_t *key,
                               uint32_t tag) noexcept nogil:
    """The key's slot of one table, or the empty one that ends its run."""
    cdef uint32_t at = tag & mask
    cdef flow_slot_t *slot
    while True:
        slot = &slots[at]
        if slot.target == 0:
            return slot
        if slot.tag == tag and flow_key_equal(target_key(tcp, slot.target), key):
            return slot
        at = (at + 1) & mask


cdef inline bint in_old(const flow_table_t *flows, uint32_t tag) noexcept nogil:
    """May the key be in the table that is being emptied? Runs are moved whole, so a home that is done is empty."""
    return ((tag - flows.moved_from) & flows.old_mask) >= flows.moved


cdef inline flow_slot_t *flow_slot(const tcp_t *tcp, const flow_key_t *key, uint32_t tag) noexcept nogil:
    """The key's slot, or the empty one where it would go. tag: the key's hash."""
    cdef const flow_table_t *flows = &tcp.flows
    cdef flow_slot_t *slot
    if flows.old_slots != NULL and in_old(flows, tag):
        slot = probe(tcp, flows.old_slots, flows.old_mask, key, tag)
        if slot.target != 0:
            return slot
    return probe(tcp, flows.slots, flows.mask, key, tag)


cdef flow_t flow_find(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef uint32_t target = flow_slot(tcp, key, flow_hash(tcp, key)).target
    cdef flow_t found
    found.kind = <flow_kind_t>(target >> FLOW_INDEX_BITS)
    found.index = target & FLOW_INDEX_MASK
    return found


# ---------------------------------------------------------------- growing and shrinking
#
# A table that must change its size becomes the old one, and each insertion, removal and turn moves some of its slots
# into the new one. It moves whole runs of occupied slots, beginning behind an empty slot, so that in the old table
#
#     moved_from
#     | done: empty ............ | not yet: as linear probing left it ............ | the empty slot before moved_from |
#
# no key that is left has its home in the part that is done, and probing from the other part always meets an empty slot.
# Tags are stored, so moving touches no record. A new entry goes into the new table. Steps are large enough for a move
# to end long before the new table is 3/4 full: growing from S leaves room for 3/4 S entries and ends after S/8.

cdef void flow_resize(flow_table_t *flows, uint32_t size) noexcept nogil:
    """Begin to move into a table of `size` slots. Without memory nothing changes."""
    cdef flow_slot_t *slots = flow_slots_map(size)
    cdef uint32_t at = 0
    if slots == NULL:
        return
    while flows.slots[at].target != 0:
        at += 1
    flows.moved_from = (at + 1) & flows.mask
    flows.moved = 0
    flows.old_slots = flows.slots
    flows.old_mask = flows.mask
    flows.slots = slots
    flows.mask = size - 1


cdef uint32_t flow_move(flow_table_t *flows, uint32_t least) noexcept nogil:
    """Move `least` slots and on to the end of the run; the slots looked at. Runs are short: the hash is keyed."""
    cdef uint32_t looked = 0, at
    cdef flow_slot_t *slot
    while flows.moved <= flows.old_mask:
        slot = &flows.old_slots[(flows.moved_from + flows.moved) & flows.old_mask]
        flows.moved += 1
        looked += 1
        if slot.target == 0:
            if looked >= least:
                break
            continue
        at = slot.tag & flows.mask
        while flows.slots[at].target != 0:
            at = (at + 1) & flows.mask
        flows.slots[at] = slot[0]
        slot.target = 0
    if flows.moved > flows.old_mask:
        flow_retire(flows)
    return looked


cdef void flow_retire(flow_table_t *flows) noexcept nogil:
    """The old table is empty: give its memory back, but not at once."""
    if flows.retired != NULL:
        munmap(flows.retired, flows.retired_bytes)
    flows.retired = flows.old_slots
    flows.retired_bytes = (<size_t>flows.old_mask + 1) * sizeof(flow_slot_t)
    flows.old_slots = NULL


cdef void flow_unmap_piece(flow_table_t *flows) noexcept nogil:
    cdef size_t keep = flows.retired_bytes - PIECE_BYTES if flows.retired_bytes > PIECE_BYTES else 0
    munmap(<uint8_t *>flows.retired + keep, flows.retired_bytes - keep)
    flows.retired_bytes = keep
    if keep == 0:
        flows.retired = NULL


cdef inline void flow_step(tcp_t *tcp, uint32_t least) noexcept nogil:
    if tcp.flows.old_slots != NULL:
        tcp.turn.moves += flow_move(&tcp.flows, least)


cdef inline void flow_shrink(flow_table_t *flows) noexcept nogil:
    """Begin to, when less than 1/8 is in use: half the size is then far from being too small again."""
    if (flows.old_slots == NULL and flows.mask > flows.mask_at_first
            and flows.used * 8ULL < <uint64_t>flows.mask + 1):
        flow_resize(flows, (flows.mask + 1) // 2)


cdef void flow_turn(tcp_t *tcp) noexcept nogil:
    flow_shrink(&tcp.flows)
    flow_step(tcp, SLOTS_A_TURN)
    if tcp.flows.retired != NULL:
        flow_unmap_piece(&tcp.flows)


# ---------------------------------------------------------------- changes

cdef int flow_insert(tcp_t *tcp, const flow_key_t *key, flow_kind_t kind, uint32_t index) noexcept nogil:
    cdef flow_table_t *flows = &tcp.flows
    cdef uint32_t tag = flow_hash(tcp, key)
    cdef uint64_t size = <uint64_t>flows.mask + 1
    cdef flow_slot_t *slot
    if (<uint64_t>flows.used + 1) * 4 > size * 3:
        if flows.old_slots != NULL:         # cannot be, see above; a table that is full would be searched for ever
            flow_step(tcp, flows.old_mask + 1)
        if size < FLOW_SLOTS_MAX:
            flow_resize(flows, <uint32_t>size * 2)
        if flows.old_slots == NULL and (<uint64_t>flows.used + 1) * 16 > size * 15:
            return -1                       # no memory for a larger one: this one serves on, a little slower
    flow_step(tcp, SLOTS_A_CHANGE)
    slot = probe(tcp, flows.slots, flows.mask, key, tag)
    slot.tag = tag
    slot.target = <uint32_t>kind << FLOW_INDEX_BITS | index
    flows.used += 1
    return 0


cdef void flow_retarget(tcp_t *tcp, const flow_key_t *key, flow_kind_t kind, uint32_t index) noexcept nogil:
    flow_slot(tcp, key, flow_hash(tcp, key)).target = <uint32_t>kind << FLOW_INDEX_BITS | index


cdef void close_gap(flow_slot_t *slots, uint32_t mask, uint32_t hole) noexcept nogil:
    """Empty a slot and move back what had to probe past it (Knuth 6.4, algorithm R)."""
    cdef uint32_t at = hole, home
    while True:
        at = (at + 1) & mask
        if slots[at].target == 0:
            break
        home = slots[at].tag & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            slots[hole] = slots[at]
            hole = at
    slots[hole].target = 0


cdef void flow_remove(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef flow_table_t *flows = &tcp.flows
    cdef flow_slot_t *slot = flow_slot(tcp, key, flow_hash(tcp, key))
    if slot.target == 0:
        return
    flows.used -= 1
    if flows.old_slots != NULL and flows.old_slots <= slot <= flows.old_slots + flows.old_mask:
        close_gap(flows.old_slots, flows.old_mask, <uint32_t>(slot - flows.old_slots))
    else:
        close_gap(flows.slots, flows.mask, <uint32_t>(slot - flows.slots))
    flow_shrink(flows)
    flow_step(tcp, SLOTS_A_CHANGE)


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
            + <uint32_t>siphash24(tcp.secret, key, sizeof(flow_key_t)))
