# SPDX-License-Identifier: MIT
# Which connection does a segment belong to: one open-addressing table over all three kinds of records, and the
# listeners.
#
# A slot is 8 bytes: 32 bits of the keyed hash and a target (kind and index). Linear probing, at most 3/4 full,
# deletion by shifting back, so that lookups need no tombstones. It grows and shrinks by moving a few slots with each
# change and each turn into a table of another size: no call pays for more (demux.pyx). Below: tcb. Above: calls, input,
# timers.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.prefetch cimport prefetch
from ustack.base.prng cimport siphash13, siphash13_of_12
from ustack.base.types cimport ip_addr_is_v4, ip_addr_t
from ustack.tcp.records.tcb cimport (
    flow_key_t, flow_memo_t, flow_slot_t, flow_table_t, listener_t, tcb_at, tcb_t, tcp_t)

cdef enum flow_kind_t:
    FLOW_NONE = 0
    FLOW_CONNECTION = 1
    FLOW_SYN_RECEIVED = 2
    FLOW_TIME_WAIT = 3

cdef enum:
    FLOW_INDEX_BITS = 30
    FLOW_INDEX_MASK = (1 << FLOW_INDEX_BITS) - 1
    GUESS_SLOTS = 8                         # a line of them

ctypedef struct flow_t:
    flow_kind_t kind
    uint32_t index

# The table's memory. slots: a power of two. flow_slots_map: NULL, init: -1 without memory.
cdef flow_slot_t *flow_slots_map(uint32_t count) noexcept nogil
cdef int flow_table_init(flow_table_t *flows, uint32_t slots) noexcept nogil
cdef void flow_table_free(flow_table_t *flows) noexcept nogil
# The hash's 16 bytes, before anything is in the table.
cdef void flow_set_key(flow_table_t *flows, const uint8_t *key) noexcept nogil
# FLOW_NONE: no record has the key.
cdef flow_t flow_find(tcp_t *tcp, const flow_key_t *key) noexcept nogil
# 0, or -1 without memory. The key must not be in the table; the record holds it and must outlive the entry.
cdef int flow_insert(tcp_t *tcp, const flow_key_t *key, flow_kind_t kind, uint32_t index) noexcept nogil
cdef void flow_remove(tcp_t *tcp, const flow_key_t *key) noexcept nogil
# The keyed hash of what differs between keys: three words of IPv4's, all of IPv6's.
cdef inline uint32_t flow_hash_of(const flow_table_t *flows, uint64_t addresses, uint32_t ports) noexcept nogil:
    return <uint32_t>siphash13_of_12(flows.hash_key, addresses, ports)


# The latest hash is kept: who opens, moves and removes an entry hashes its key three times, and a look ahead over the
# burst (engine/ahead) has hashed it before.
cdef inline uint32_t flow_hash(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef flow_memo_t *memo = &tcp.flows.memo
    cdef uint64_t addresses = <uint64_t>key.laddr.words_be[3] << 32 | key.raddr.words_be[3]
    cdef uint32_t ports = <uint32_t>key.lport << 16 | key.rport
    if not ip_addr_is_v4(&key.raddr):
        return <uint32_t>siphash13(tcp.flows.hash_key, key, sizeof(flow_key_t))
    if memo.addresses != addresses or memo.ports != ports:
        memo.addresses = addresses
        memo.ports = ports
        memo.tag = flow_hash_of(&tcp.flows, addresses, ports)
    return memo.tag


# Give an existing entry another record of the same key (SYN-RECEIVED -> connection -> TIME-WAIT).
cdef void flow_retarget(tcp_t *tcp, const flow_key_t *key, flow_kind_t kind, uint32_t index) noexcept nogil
# A step of growing or shrinking, once a turn: so that it ends without another connection, too.
cdef void flow_turn(tcp_t *tcp) noexcept nogil


# For a look ahead: the line where a search for this hash begins, and (once it is there) the first target of that hash
# in it; 0: none. It may be another key's, and an entry may lie in the next line, or still in the table that is being
# emptied: a guess.
cdef inline void flow_prefetch(const tcp_t *tcp, uint32_t tag) noexcept nogil:
    prefetch(&tcp.flows.slots[tag & tcp.flows.mask])


cdef inline uint32_t flow_guess(const tcp_t *tcp, uint32_t tag) noexcept nogil:
    cdef uint32_t at = tag & tcp.flows.mask
    cdef uint32_t end = (at | (GUESS_SLOTS - 1)) + 1
    while at < end and tcp.flows.slots[at].target != 0:
        if tcp.flows.slots[at].tag == tag:
            return tcp.flows.slots[at].target
        at += 1
    return 0


# For walks over all connections: slots there are now, and the connection in slot `at`, NULL: none. A removal may bring
# an entry back past a walker, and insertions move entries: who must see every connection walks until none is left.
cdef inline uint64_t flow_slot_count(const tcp_t *tcp) noexcept nogil:
    return <uint64_t>tcp.flows.mask + 1 + (<uint64_t>tcp.flows.old_mask + 1 if tcp.flows.old_slots != NULL else 0)


cdef inline tcb_t *flow_connection(const tcp_t *tcp, uint64_t at) noexcept nogil:
    cdef uint32_t target
    if at <= tcp.flows.mask:
        target = tcp.flows.slots[at].target
    else:
        target = tcp.flows.old_slots[at - tcp.flows.mask - 1].target
    if target >> FLOW_INDEX_BITS != FLOW_CONNECTION:
        return NULL
    return tcb_at(tcp, target & FLOW_INDEX_MASK)


# Most specific first: the exact address, then any of ours. NULL: nobody listens.
cdef listener_t *listener_find(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport) noexcept nogil
cdef listener_t *listener_exact(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport) noexcept nogil
# RFC 6528: clock + F(4-tuple, secret). The clock ticks every 4096 ns (MUST-8: a tick of about 4 us).
cdef uint32_t initial_sequence_number(const tcp_t *tcp, const flow_key_t *key) noexcept nogil
