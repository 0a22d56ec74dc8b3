# SPDX-License-Identifier: MIT
# The neighbour cache: who answers to which next-hop address, how sure we are of it, and the packets that wait for it.
#
# It must not: send anything, or know ARP (IPv6's neighbour discovery will use the same table). Read first: RFC 1122
# section 2.3.2 (time-outs, bounded questions, one waiting packet at least), RFC 4861 section 7.3.2 (the states).
# Neighbours: above, arp and output; below, link (offload_t only), base.
#
#              needed                answer               time                used
#       free ─────────▶ INCOMPLETE ─────────▶ REACHABLE ─────────▶ STALE ─────────▶ PROBE
#        │                 │   ▲                  ▲                  ▲               │ │
#        │ heard of        │   │ needed           └── answer, or confirmed by TCP ───┼─┘
#        └─────────────────┼───┼─────────────────────────────────────┘               │
#                          └─▶ FAILED ◀──────────── no answer after all tries ───────┘
#
# Bounds. Every entry is on one list. A new entry for a full table takes the place of the first entry that is found in
# this order: FAILED; HEARD (it sent to us, we never sent to it); INCOMPLETE, oldest question first; USED (second
# chance: not used since the last look); PROBE. So strangers, however many, displace strangers only: a flood of forged
# senders takes the place of one USED entry at most, because its own is INCOMPLETE and goes next. An entry that is made
# because somebody sent to us displaces neither USED nor PROBE. The gateway (pinned) is never displaced.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.counters cimport counters_t
from ustack.base.ilist cimport ilist_hook_t, ilist_t
from ustack.base.types cimport ip_addr_equal, ip_addr_t
from ustack.link.device cimport offload_t

cdef enum neighbour_state_t:
    NEIGHBOUR_FREE = 0
    NEIGHBOUR_INCOMPLETE     # asked, not answered: packets wait
    NEIGHBOUR_REACHABLE      # until fresh_until_ns; STALE from then on, without anybody writing it
    NEIGHBOUR_STALE          # usable; the next use asks whether it still holds
    NEIGHBOUR_PROBE          # usable while it is asked
    NEIGHBOUR_FAILED         # did not answer; the next use asks anew

cdef enum neighbour_list_t:
    LIST_FREE = 0
    LIST_FAILED
    LIST_HEARD               # STALE, never used
    LIST_INCOMPLETE          # by deadline_ns, soonest first
    LIST_USED                # REACHABLE and STALE
    LIST_PROBE               # by deadline_ns, soonest first
    LIST_COUNT

cdef enum:
    NEIGHBOUR_MAX_WAITING_BYTES = 4 * 1024 * 1024      # of all neighbours together

# A frame that waits for its destination's station address. `length` bytes follow the record.
ctypedef struct waiting_t:
    waiting_t *next
    offload_t offload
    uint32_t length
    uint32_t capacity

ctypedef struct neighbour_t:
    uint64_t fresh_until_ns  # may be used without a question before this time; 0 unless REACHABLE
    ip_addr_t address
    uint8_t mac[6]           # valid in REACHABLE, STALE, PROBE
    uint8_t state            # neighbour_state_t
    uint8_t used             # since eviction last looked. Writer: output
    uint64_t deadline_ns     # of the question in INCOMPLETE and PROBE
    waiting_t *first
    waiting_t *last
    ilist_hook_t order       # on its list
    uint16_t hash_next
    uint8_t list             # neighbour_list_t
    uint8_t tries            # questions sent in this state
    uint8_t waiting          # frames from first to last
    uint8_t pinned

ctypedef struct neighbour_table_t:
    neighbour_t *entries     # [0] is never used; [1..limit]
    ilist_t lists[LIST_COUNT]
    uint16_t *buckets
    uint32_t bucket_shift
    uint16_t limit
    uint32_t waiting_bytes
    waiting_t *reserved      # the buffer handed out by neighbour_reserve
    counters_t *counters

# NULL without memory. counters must outlive the table.
cdef neighbour_table_t *neighbour_table_new(uint16_t limit, counters_t *counters) noexcept nogil
cdef void neighbour_table_free(neighbour_table_t *table) noexcept nogil
# Index of the entry, 0 if there is none.
cdef uint16_t neighbour_find(const neighbour_table_t *table, const ip_addr_t *address) noexcept nogil
# A new entry in state FREE, in place of a less useful one if need be; the caller moves it to its state at once.
# for_use: we are about to send to it. 0: everything in the table is more useful.
cdef uint16_t neighbour_insert(neighbour_table_t *table, const ip_addr_t *address, bint for_use) noexcept nogil
# Puts the entry into `state`, on the list that goes with it. deadline_ns: INCOMPLETE and PROBE only. One that FAILED
# loses its waiting frames, each counted.
cdef void neighbour_move(neighbour_table_t *table, uint16_t index, neighbour_state_t state,
                         uint64_t deadline_ns) noexcept nogil
# STALE entries begin on HEARD; the first use puts them on USED.
cdef void neighbour_promote(neighbour_table_t *table, uint16_t index) noexcept nogil
# Entry whose question is due at now_ns, 0 if none is. The caller moves it, or it is returned again.
cdef uint16_t neighbour_due(const neighbour_table_t *table, uint64_t now_ns) noexcept nogil
# When neighbour_due next has something; UINT64_MAX: never.
cdef uint64_t neighbour_next_ns(const neighbour_table_t *table) noexcept nogil

# A buffer for a frame of up to `length` bytes that will wait; it stays the table's until neighbour_wait or the next
# neighbour_reserve. NULL without memory.
cdef uint8_t *neighbour_reserve(neighbour_table_t *table, uint32_t length) noexcept nogil
# Queue the reserved buffer. The oldest frames of the same neighbour are dropped and counted to keep both bounds.
cdef void neighbour_wait(neighbour_table_t *table, uint16_t index, uint32_t length, const offload_t *offload,
                         uint8_t queue_limit) noexcept nogil
# Takes the oldest waiting frame out; the caller frees it. NULL when none is left.
cdef waiting_t *neighbour_take(neighbour_table_t *table, uint16_t index) noexcept nogil


cdef inline uint8_t *waiting_frame(waiting_t *waiting) noexcept nogil:
    return <uint8_t *>(waiting + 1)


# The entry of a hint, if it is the wanted address and needs no question; NULL: take the long way. A hint may be stale
# or made up: it is only ever compared.
cdef inline neighbour_t *neighbour_fresh(neighbour_table_t *table, uint16_t hint, const ip_addr_t *address,
                                         uint64_t now_ns) noexcept nogil:
    cdef neighbour_t *entry
    if hint > table.limit:
        return NULL
    entry = &table.entries[hint]
    if now_ns < entry.fresh_until_ns and ip_addr_equal(&entry.address, address):
        return entry
    return NULL
