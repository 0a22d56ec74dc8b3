# SPDX-License-Identifier: MIT
"""The receive queue: bytes by sequence number in chunks, and the lists of who holds how much. See rx_queue.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.base.ilist cimport ilist_append, ilist_hook_t, ilist_remove
from ustack.buf.chunks cimport (
    CHUNK_BYTES, CHUNK_IS_SMALL, CHUNK_SHIFT, SMALL_CHUNK_BYTES, chunk_alloc, chunk_at, chunk_bytes, chunk_map,
    chunk_pool_destroy, chunk_pool_init, chunk_release, chunk_unmap)
from ustack.buf.slab cimport SLAB_MOST, slab_alloc, slab_destroy, slab_init, slab_release
from ustack.tcp.records.runs cimport runs_clear, runs_memory_bytes
from ustack.wire.seq cimport seq_gt, seq_lt


cdef enum:
    FIRST_BLOCKS = 4
    CIRCLE_MASK = 0xFFFFF                   # 2^32 sequence numbers are 2^20 blocks
    LARGEST_TABLE = 1024                    # handles in a chunk; longer tables have pages of their own


# ---------------------------------------------------------------- all of them

cdef int rx_memory_init(rx_memory_t *memory, uint64_t limit_bytes, uint64_t random) noexcept nogil:
    memset(memory, 0, sizeof(rx_memory_t))
    chunk_pool_init(&memory.chunks, limit_bytes)
    memory.random = random
    return slab_init(&memory.queues, sizeof(rx_queue_t), SLAB_MOST)


cdef void rx_memory_destroy(rx_memory_t *memory) noexcept nogil:
    slab_destroy(&memory.queues)
    chunk_pool_destroy(&memory.chunks)


cdef uint32_t rx_queue_new(rx_memory_t *memory, uint32_t owner, uint32_t seq, uint32_t now_ms) noexcept nogil:
    cdef uint32_t index = slab_alloc(&memory.queues)
    cdef rx_queue_t *rx
    if index == 0:
        return 0
    rx = rx_queue_at(memory, index)
    rx.blocks = rx.first_blocks
    rx.block_mask = FIRST_BLOCKS - 1
    rx.base_seq = seq
    rx.head_seq = seq
    rx.top_seq = seq
    rx.owner = owner
    rx.read_ms = now_ms
    rx.read_seq = seq
    return index


cdef void rx_queue_free(rx_memory_t *memory, uint32_t index) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_at(memory, index)
    cdef uint32_t i
    for i in range(rx.block_mask + 1):
        if rx.blocks[i]:
            chunk_release(&memory.chunks, rx.blocks[i])
    table_release(memory, rx)
    runs_clear(&memory.chunks, &rx.runs)
    unlink(memory, rx, index)
    slab_release(&memory.queues, index)


# ---------------------------------------------------------------- who holds how much

cdef inline ilist_hook_t *class_hook(const void *memory, uint32_t index) noexcept nogil:
    return &rx_queue_at(<const rx_memory_t *>memory, index).order


cdef void unlink(rx_memory_t *memory, rx_queue_t *rx, uint32_t index) noexcept nogil:
    cdef uint32_t at
    if rx.place == 0:
        return
    at = rx.place - 1
    ilist_remove(&memory.lists[at], class_hook, memory, index)
    if memory.lists[at].first == 0:
        memory.classes[at // RX_CLASSES] &= ~(1u << (at % RX_CLASSES))
    rx.place = 0


cdef void link(rx_memory_t *memory, rx_queue_t *rx, uint32_t index, uint32_t at) noexcept nogil:
    ilist_append(&memory.lists[at], class_hook, memory, index)
    memory.classes[at // RX_CLASSES] |= 1u << (at % RX_CLASSES)
    rx.place = <uint8_t>(at + 1)


cdef void rx_queue_note(rx_memory_t *memory, rx_queue_t *rx, uint32_t index) noexcept nogil:
    cdef uint32_t units = rx.held_bytes // SMALL_CHUNK_BYTES
    cdef uint32_t at = RX_CLASSES if rx.runs.count else 0
    if units == 0:
        unlink(memory, rx, index)
        return
    while units:
        units >>= 1
        at += 1
    if at + 1 != rx.place:
        unlink(memory, rx, index)
        link(memory, rx, index, at)


cdef void rx_queue_requeue(rx_memory_t *memory, rx_queue_t *rx, uint32_t index) noexcept nogil:
    cdef uint32_t place = rx.place
    if place and rx.order.next:
        unlink(memory, rx, index)
        link(memory, rx, index, place - 1)


# ---------------------------------------------------------------- blocks

cdef inline uint32_t block_of(const rx_queue_t *rx, uint32_t seq) noexcept nogil:
    return (seq - rx.base_seq) >> CHUNK_SHIFT


cdef inline uint32_t *block_slot(const rx_queue_t *rx, uint32_t seq) noexcept nogil:
    return &rx.blocks[block_of(rx, seq) & rx.block_mask]


cdef inline uint32_t lowest(const rx_queue_t *rx, uint32_t seq) noexcept nogil:
    return seq if seq_lt(seq, rx.head_seq) else rx.head_seq


cdef inline uint32_t highest(const rx_queue_t *rx, uint32_t end) noexcept nogil:
    return end if seq_gt(end, rx.top_seq) else rx.top_seq


cdef uint32_t table_length(const rx_queue_t *rx, uint32_t low, uint32_t end) noexcept nogil:
    """Handles that a ring over [low, end) needs: a power of two, never fewer than now."""
    cdef uint32_t length = rx.block_mask + 1
    cdef uint32_t blocks = ((block_of(rx, end - 1) - block_of(rx, low)) & CIRCLE_MASK) + 1
    if blocks <= length:
        return length
    length = SMALL_CHUNK_BYTES // sizeof(uint32_t)
    while length < blocks:
        length <<= 1
    if length > SMALL_CHUNK_BYTES // sizeof(uint32_t) and length < LARGEST_TABLE:
        length = LARGEST_TABLE
    return length


cdef inline uint32_t table_bytes(uint32_t length) noexcept nogil:
    return 0 if length <= FIRST_BLOCKS else length * <uint32_t>sizeof(uint32_t)


cdef void table_release(rx_memory_t *memory, rx_queue_t *rx) noexcept nogil:
    cdef uint32_t length = rx.block_mask + 1
    if rx.blocks_handle:
        chunk_release(&memory.chunks, rx.blocks_handle)
    elif length > FIRST_BLOCKS:
        chunk_unmap(&memory.chunks, rx.blocks, table_bytes(length) >> CHUNK_SHIFT)


cdef int table_grow(rx_memory_t *memory, rx_queue_t *rx, uint32_t length) noexcept nogil:
    """A ring of `length` handles with all that the present one has: nothing is held before head_seq."""
    cdef uint32_t handle = 0, i, block = block_of(rx, rx.head_seq)
    cdef uint32_t *table
    if length <= LARGEST_TABLE:
        handle = chunk_alloc(&memory.chunks, length < LARGEST_TABLE)
        if handle == 0:
            return -1
        table = <uint32_t *>chunk_at(&memory.chunks, handle)
        memset(table, 0, table_bytes(length))
    else:
        table = <uint32_t *>chunk_map(&memory.chunks, table_bytes(length) >> CHUNK_SHIFT)
        if table == NULL:
            return -1
    for i in range(rx.block_mask + 1):
        table[(block + i) & (length - 1)] = rx.blocks[(block + i) & rx.block_mask]
    table_release(memory, rx)
    rx.held_bytes += table_bytes(length) - table_bytes(rx.block_mask + 1)
    rx.blocks = table
    rx.blocks_handle = handle
    rx.block_mask = length - 1
    return 0


cdef inline uint32_t block_cost(uint32_t handle, uint32_t reach) noexcept nogil:
    """Further memory that a block needs until its first `reach` bytes are there."""
    if handle == 0:
        return SMALL_CHUNK_BYTES if reach <= SMALL_CHUNK_BYTES else CHUNK_BYTES
    if handle & CHUNK_IS_SMALL and reach > SMALL_CHUNK_BYTES:
        return CHUNK_BYTES
    return 0


cdef uint32_t rx_queue_fit(const rx_queue_t *rx, uint32_t seq, uint32_t length, uint64_t allowed,
                           uint64_t *cost) noexcept nogil:
    cdef uint32_t end = seq + length, at = seq, offset, step, handle
    cdef uint32_t head = block_of(rx, rx.head_seq)
    cdef uint32_t table = table_length(rx, lowest(rx, seq), highest(rx, end))
    cdef uint64_t total = 0
    if table > rx.block_mask + 1:
        total = table_bytes(table)
    cost[0] = 0
    while at != end:
        offset = (at - rx.base_seq) & (CHUNK_BYTES - 1)
        step = CHUNK_BYTES - offset
        if step > end - at:
            step = end - at
        handle = 0
        if ((block_of(rx, at) - head) & CIRCLE_MASK) <= rx.block_mask:      # beyond, a slot is another block's
            handle = block_slot(rx, at)[0]
        total += block_cost(handle, offset + step)
        if total > allowed:
            break
        cost[0] = total
        at += step
    return at - seq


cdef int block_reach(rx_memory_t *memory, rx_queue_t *rx, uint32_t *slot, uint32_t reach) noexcept nogil:
    """Make the block's first `reach` bytes writable: a chunk, or a whole one in place of a small one."""
    cdef uint32_t handle, before = slot[0]
    if block_cost(before, reach) == 0:
        return 0
    handle = chunk_alloc(&memory.chunks, reach <= SMALL_CHUNK_BYTES)
    if handle == 0:
        return -1
    rx.held_bytes += chunk_bytes(handle)
    if before:
        memcpy(chunk_at(&memory.chunks, handle), chunk_at(&memory.chunks, before), SMALL_CHUNK_BYTES)
        chunk_release(&memory.chunks, before)
        rx.held_bytes -= SMALL_CHUNK_BYTES
    slot[0] = handle
    return 0


cdef int rx_queue_put(rx_memory_t *memory, rx_queue_t *rx, uint32_t seq, const uint8_t *data,
                      uint32_t length) noexcept nogil:
    cdef uint32_t end = seq + length, at, offset, step
    cdef uint32_t high = highest(rx, end)
    cdef uint32_t table = table_length(rx, lowest(rx, seq), high)
    if table > rx.block_mask + 1 and table_grow(memory, rx, table) != 0:
        return -1
    at = seq
    while at != end:                        # all memory first: it is put whole or not at all
        offset = (at - rx.base_seq) & (CHUNK_BYTES - 1)
        step = CHUNK_BYTES - offset
        if step > end - at:
            step = end - at
        if block_reach(memory, rx, block_slot(rx, at), offset + step) != 0:
            rx.top_seq = high               # blocks that are there already must be found again
            return -1
        at += step
    rx.top_seq = high
    at = seq
    while at != end:
        offset = (at - rx.base_seq) & (CHUNK_BYTES - 1)
        step = CHUNK_BYTES - offset
        if step > end - at:
            step = end - at
        memcpy(chunk_at(&memory.chunks, block_slot(rx, at)[0]) + offset, data, step)
        data += step
        at += step
    return 0


cdef const uint8_t *rx_queue_view(const rx_memory_t *memory, const rx_queue_t *rx, uint32_t skip,
                                  uint32_t *length) noexcept nogil:
    cdef uint32_t seq = rx.head_seq + skip
    cdef uint32_t offset = (seq - rx.base_seq) & (CHUNK_BYTES - 1)
    cdef uint32_t step = CHUNK_BYTES - offset
    if skip >= rx.queued_bytes:
        length[0] = 0
        return NULL
    length[0] = min(step, rx.queued_bytes - skip)
    return chunk_at(&memory.chunks, block_slot(rx, seq)[0]) + offset


cdef void release_blocks(rx_memory_t *memory, rx_queue_t *rx, uint32_t first, uint32_t count) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t *slot
    if count > rx.block_mask + 1:
        count = rx.block_mask + 1
    for i in range(count):
        slot = &rx.blocks[(first + i) & rx.block_mask]
        if slot[0]:
            rx.held_bytes -= chunk_bytes(slot[0])
            chunk_release(&memory.chunks, slot[0])
            slot[0] = 0


cdef void rx_queue_move_head(rx_memory_t *memory, rx_queue_t *rx, uint32_t seq) noexcept nogil:
    cdef uint32_t first = block_of(rx, rx.head_seq)
    release_blocks(memory, rx, first, (block_of(rx, seq) - first) & CIRCLE_MASK)
    rx.head_seq = seq
    if seq_gt(seq, rx.top_seq):
        rx.top_seq = seq


cdef void rx_queue_forget_runs(rx_memory_t *memory, rx_queue_t *rx) noexcept nogil:
    cdef uint32_t end = rx.head_seq + rx.queued_bytes
    cdef uint32_t first = block_of(rx, end - 1) + 1 if rx.queued_bytes else block_of(rx, end)
    release_blocks(memory, rx, first, (block_of(rx, rx.top_seq - 1) - first + 1) & CIRCLE_MASK
                   if seq_gt(rx.top_seq, end) else 0)
    rx.held_bytes -= runs_memory_bytes(&rx.runs)
    runs_clear(&memory.chunks, &rx.runs)
    rx.sack_count = 0
    rx.fin_ooo = 0
    rx.top_seq = end
