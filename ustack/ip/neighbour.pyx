# SPDX-License-Identifier: MIT
"""The neighbour cache: states, bounds, waiting frames. See neighbour.pxd for the rules."""

from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from ustack.base.counters cimport count, counter_t, counters_t
from ustack.base.debug cimport ensure
from ustack.base.ilist cimport ilist_hook_t, ilist_insert, ilist_remove
from ustack.base.types cimport ip_addr_equal, ip_addr_half, ip_addr_t
from ustack.link.device cimport offload_t


# ---------------------------------------------------------------- lists and hash
cdef inline ilist_hook_t *_hook(const void *table, uint32_t index) noexcept nogil:
    return &(<const neighbour_table_t *>table).entries[index].order


cdef inline uint16_t _first(const neighbour_table_t *table, int which) noexcept nogil:
    # Index of a list's first entry; 0 if it is empty.
    return <uint16_t>table.lists[which].first


cdef inline void _unlink(neighbour_table_t *table, uint16_t index) noexcept nogil:
    ilist_remove(&table.lists[table.entries[index].list], _hook, table, index)


cdef inline void _link_before(neighbour_table_t *table, uint16_t index, uint32_t successor, int which) noexcept nogil:
    table.entries[index].list = <uint8_t>which
    ilist_insert(&table.lists[which], _hook, table, index, successor)


cdef inline void _append(neighbour_table_t *table, uint16_t index, int which) noexcept nogil:
    _link_before(table, index, 0, which)


cdef inline uint32_t _bucket(const neighbour_table_t *table, const ip_addr_t *address) noexcept nogil:
    # Fibonacci hashing (Knuth, volume 3, section 6.4). The table is small and bounded, so a chain that an attacker
    # on the link makes long on purpose costs at most a walk over `limit` entries.
    cdef uint64_t mixed = ip_addr_half(address, 0) ^ ip_addr_half(address, 1)
    return <uint32_t>((mixed * 0x9E3779B97F4A7C15ULL) >> table.bucket_shift)


cdef void _unhash(neighbour_table_t *table, uint16_t index) noexcept nogil:
    cdef uint16_t *link = &table.buckets[_bucket(table, &table.entries[index].address)]
    while link[0] != index:
        ensure(link[0] != 0)
        link = &table.entries[link[0]].hash_next
    link[0] = table.entries[index].hash_next


# ---------------------------------------------------------------- the table
cdef neighbour_table_t *neighbour_table_new(uint16_t limit, counters_t *counters) noexcept nogil:
    cdef neighbour_table_t *table = <neighbour_table_t *>calloc(1, sizeof(neighbour_table_t))
    cdef uint32_t bits = 4
    cdef int i
    if table == NULL:
        return NULL
    table.limit = limit if limit else 1
    while (1u << bits) < table.limit:
        bits += 1
    table.bucket_shift = 64 - bits
    table.counters = counters
    table.entries = <neighbour_t *>calloc(<size_t>table.limit + 1, sizeof(neighbour_t))
    table.buckets = <uint16_t *>calloc(<size_t>1 << bits, sizeof(uint16_t))
    if table.entries == NULL or table.buckets == NULL:
        neighbour_table_free(table)
        return NULL
    for i in range(1, table.limit + 1):
        _append(table, <uint16_t>i, LIST_FREE)
    return table


cdef void neighbour_table_free(neighbour_table_t *table) noexcept nogil:
    cdef waiting_t *waiting
    cdef int i
    if table == NULL:
        return
    if table.entries != NULL:
        for i in range(1, table.limit + 1):
            while True:
                waiting = neighbour_take(table, <uint16_t>i)
                if waiting == NULL:
                    break
                free(waiting)
    free(table.reserved)
    free(table.entries)
    free(table.buckets)
    free(table)


cdef uint16_t neighbour_find(const neighbour_table_t *table, const ip_addr_t *address) noexcept nogil:
    cdef uint16_t index = table.buckets[_bucket(table, address)]
    while index and not ip_addr_equal(&table.entries[index].address, address):
        index = table.entries[index].hash_next
    return index


cdef uint16_t _second_chance(neighbour_table_t *table) noexcept nogil:
    # The first USED entry that has not been used since it was last looked at. Each step clears one mark or ends, so
    # two rounds are enough; a list of pinned entries only gives 0.
    cdef uint32_t steps = 2u * table.limit
    cdef uint16_t index
    while steps:
        index = _first(table, LIST_USED)
        if index == 0:
            return 0
        if not table.entries[index].used and not table.entries[index].pinned:
            return index
        table.entries[index].used = 0
        _unlink(table, index)
        _append(table, index, LIST_USED)
        steps -= 1
    return 0


cdef uint16_t _first_not_pinned(const neighbour_table_t *table, int which) noexcept nogil:
    cdef uint16_t index = _first(table, which)
    while index and table.entries[index].pinned:
        index = <uint16_t>table.entries[index].order.next
    return index


cdef uint16_t _least_useful(neighbour_table_t *table, bint for_use) noexcept nogil:
    cdef uint16_t index = _first_not_pinned(table, LIST_FAILED)
    if index == 0:
        index = _first_not_pinned(table, LIST_HEARD)
    if index == 0:
        index = _first_not_pinned(table, LIST_INCOMPLETE)
    if index == 0 and for_use:
        index = _second_chance(table)
        if index == 0:
            index = _first_not_pinned(table, LIST_PROBE)
    return index


cdef void _drop_waiting(neighbour_table_t *table, uint16_t index) noexcept nogil:
    cdef waiting_t *waiting = neighbour_take(table, index)
    while waiting != NULL:
        free(waiting)
        count(table.counters, counter_t.DROP_NEIGHBOUR_UNRESOLVED)
        waiting = neighbour_take(table, index)


cdef uint16_t neighbour_insert(neighbour_table_t *table, const ip_addr_t *address, bint for_use) noexcept nogil:
    cdef uint16_t index = _first(table, LIST_FREE)
    cdef neighbour_t *entry
    cdef uint32_t bucket
    if index == 0:
        index = _least_useful(table, for_use)
        if index == 0:
            return 0
        _drop_waiting(table, index)
        _unhash(table, index)
    entry = &table.entries[index]
    entry.address = address[0]
    entry.state = NEIGHBOUR_FREE
    entry.fresh_until_ns = 0
    entry.tries = 0
    entry.used = 0
    entry.pinned = 0
    bucket = _bucket(table, address)
    entry.hash_next = table.buckets[bucket]
    table.buckets[bucket] = index
    return index


cdef void neighbour_move(neighbour_table_t *table, uint16_t index, neighbour_state_t state,
                         uint64_t deadline_ns) noexcept nogil:
    cdef neighbour_t *entry = &table.entries[index]
    cdef int which
    cdef uint32_t successor, last
    _unlink(table, index)
    if state != entry.state:
        entry.tries = 0
    entry.state = <uint8_t>state
    entry.fresh_until_ns = 0
    if state == NEIGHBOUR_INCOMPLETE or state == NEIGHBOUR_PROBE:
        which = LIST_INCOMPLETE if state == NEIGHBOUR_INCOMPLETE else LIST_PROBE
        entry.deadline_ns = deadline_ns
        successor = 0
        last = table.lists[which].last                   # deadlines mostly grow: look from the end
        while last and table.entries[last].deadline_ns > deadline_ns:
            successor = last
            last = table.entries[last].order.previous
        _link_before(table, index, successor, which)
    elif state == NEIGHBOUR_REACHABLE:
        _append(table, index, LIST_USED)
    elif state == NEIGHBOUR_STALE:
        _append(table, index, LIST_HEARD)
    else:
        _append(table, index, LIST_FAILED)
        _drop_waiting(table, index)


cdef void neighbour_promote(neighbour_table_t *table, uint16_t index) noexcept nogil:
    if table.entries[index].list == LIST_HEARD:
        _unlink(table, index)
        _append(table, index, LIST_USED)


cdef uint16_t neighbour_due(const neighbour_table_t *table, uint64_t now_ns) noexcept nogil:
    cdef uint16_t index = _first(table, LIST_INCOMPLETE)
    if index and table.entries[index].deadline_ns <= now_ns:
        return index
    index = _first(table, LIST_PROBE)
    if index and table.entries[index].deadline_ns <= now_ns:
        return index
    return 0


cdef uint64_t neighbour_next_ns(const neighbour_table_t *table) noexcept nogil:
    cdef uint64_t soonest = UINT64_MAX
    cdef uint16_t index = _first(table, LIST_INCOMPLETE)
    if index:
        soonest = table.entries[index].deadline_ns
    index = _first(table, LIST_PROBE)
    if index and table.entries[index].deadline_ns < soonest:
        soonest = table.entries[index].deadline_ns
    return soonest


# ---------------------------------------------------------------- waiting frames
cdef uint8_t *neighbour_reserve(neighbour_table_t *table, uint32_t length) noexcept nogil:
    free(table.reserved)
    table.reserved = <waiting_t *>malloc(sizeof(waiting_t) + length)
    if table.reserved == NULL:
        return NULL
    table.reserved.next = NULL
    table.reserved.capacity = length
    return waiting_frame(table.reserved)


cdef void _forget_oldest(neighbour_table_t *table, uint16_t index) noexcept nogil:
    free(neighbour_take(table, index))
    count(table.counters, counter_t.DROP_NEIGHBOUR_UNRESOLVED)


cdef void neighbour_wait(neighbour_table_t *table, uint16_t index, uint32_t length, const offload_t *offload,
                         uint8_t queue_limit) noexcept nogil:
    cdef waiting_t *waiting = table.reserved
    cdef neighbour_t *entry = &table.entries[index]
    table.reserved = NULL
    ensure(waiting != NULL and length <= waiting.capacity)
    waiting.length = length
    waiting.offload = offload[0]
    # RFC 1122 section 2.3.2.2: the latest packet is the one worth keeping.
    while entry.waiting and (entry.waiting >= queue_limit
                             or table.waiting_bytes + waiting.capacity > NEIGHBOUR_MAX_WAITING_BYTES):
        _forget_oldest(table, index)
    if table.waiting_bytes + waiting.capacity > NEIGHBOUR_MAX_WAITING_BYTES or queue_limit == 0:
        free(waiting)
        count(table.counters, counter_t.DROP_NEIGHBOUR_UNRESOLVED)
        return
    table.waiting_bytes += waiting.capacity
    if entry.last != NULL:
        entry.last.next = waiting
    else:
        entry.first = waiting
    entry.last = waiting
    entry.waiting += 1


cdef waiting_t *neighbour_take(neighbour_table_t *table, uint16_t index) noexcept nogil:
    cdef neighbour_t *entry = &table.entries[index]
    cdef waiting_t *waiting = entry.first
    if waiting == NULL:
        return NULL
    entry.first = waiting.next
    if entry.first == NULL:
        entry.last = NULL
    entry.waiting -= 1
    table.waiting_bytes -= waiting.capacity
    return waiting
