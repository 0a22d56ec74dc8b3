# SPDX-License-Identifier: MIT
# The receive queue of one connection: bytes by their sequence number, in order and beyond holes, in chunks.
#
#     sequence   base_seq                 head_seq              + queued_bytes                        top_seq
#     numbers    ├───────────────┼────────┼─────────────────────┼──────────┬────────┬───────┬────────┤
#                                consumed   in order              hole       run     hole     run
#     blocks     [    0    ][    1    ][    2    ][    3    ][    4    ][    5    ][    6    ]
#
# Block n holds the bytes from base_seq + 4096 n; `blocks` is a ring of chunk handles, as long as what is held needs. A
# byte lies where its number says, so segments may come in any order and sizes: each byte is copied once, joining runs
# moves nothing, and what a connection holds is never more than its window needs, a block at each end, and its runs.
# A block of which only the first 512 bytes are wanted is a small chunk, until more comes.
#
# Every record that holds memory is in one of the lists of rx_memory_t, by how much it holds: who holds most is found in
# constant time. It must not know of connections but by number. Above: tcb, pressure, reassembly, sack.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.ilist cimport ilist_hook_t, ilist_t
from ustack.buf.chunks cimport chunk_free_bytes, chunk_pool_t
from ustack.buf.slab cimport slab_at, slab_t
from ustack.tcp.records.runs cimport runs_t, runs_view_t

cdef enum:
    RX_SACK_RECENT = 4
    RX_CLASSES = 32                         # class c: from 2^(c-1) to 2^c - 1 times 512 bytes

ctypedef struct rx_queue_t:                 # 128 bytes; only while something is held
    uint32_t *blocks                        # block_mask + 1 handles, 0: nothing there
    uint32_t block_mask
    uint32_t blocks_handle                  # of the chunk that `blocks` lies in; 0: first_blocks, or pages of its own
    uint32_t first_blocks[4]
    runs_t runs                             # beyond the queue's end
    uint32_t base_seq
    uint32_t head_seq                       # first byte in order, offered to the application
    uint32_t top_seq                        # after the last byte ever held: the ring must reach there
    uint32_t queued_bytes                   # in order; head_seq + queued_bytes is rcv_nxt until the FIN
    uint32_t read_seq                       # head_seq at read_ms
    uint32_t held_bytes                     # memory of chunks, tables and runs
    uint32_t owner                          # the connection's index
    ilist_hook_t order                      # in the list of its class
    uint32_t sack_recent[RX_SACK_RECENT]    # a byte of each of the latest blocks, newest first (RFC 2018 section 4)
    uint32_t fin_seq
    uint32_t read_ms                        # when the application had last taken an eighth, or the queue began
    uint16_t duplicate_acks_owed            # one for each segment out of order in this burst (RFC 5681 section 4.2)
    uint8_t sack_count
    uint8_t fin_ooo                         # a FIN waits at fin_seq
    uint8_t place                           # its list, plus one; 0: in none
    uint8_t pad[3]

# What all connections of one TCP hold together.
ctypedef struct rx_memory_t:
    chunk_pool_t chunks                     # its limit is config.rx_memory_bytes
    slab_t queues
    uint64_t random                         # priorities of runs
    uint32_t classes[2]                     # bit c: the list is not empty. [0]: nothing beyond a hole; [1]: runs
    ilist_t lists[64]                       # [RX_CLASSES * (0 or 1) + class], oldest first

cdef int rx_memory_init(rx_memory_t *memory, uint64_t limit_bytes, uint64_t random) noexcept nogil      # 0, or -1
cdef void rx_memory_destroy(rx_memory_t *memory) noexcept nogil
# A new empty record for data from `seq` on; its index, 0 without memory.
cdef uint32_t rx_queue_new(rx_memory_t *memory, uint32_t owner, uint32_t seq, uint32_t now_ms) noexcept nogil
# Gives back everything, the record as well.
cdef void rx_queue_free(rx_memory_t *memory, uint32_t index) noexcept nogil
# How many of the `length` bytes from `seq` can be put with at most `allowed` bytes of further memory; cost: how much
# those take.
cdef uint32_t rx_queue_fit(const rx_queue_t *rx, uint32_t seq, uint32_t length, uint64_t allowed,
                           uint64_t *cost) noexcept nogil
# Copy bytes to their place, whole or not at all. 0, or -1 without memory. Lists and counts of bytes are the caller's.
cdef int rx_queue_put(rx_memory_t *memory, rx_queue_t *rx, uint32_t seq, const uint8_t *data,
                      uint32_t length) noexcept nogil
# Bytes in order, contiguous, from the one behind the first `skip` on. NULL: none there.
cdef const uint8_t *rx_queue_view(const rx_memory_t *memory, const rx_queue_t *rx, uint32_t skip,
                                  uint32_t *length) noexcept nogil
# The queue begins at `seq` now: blocks that are wholly behind are released.
cdef void rx_queue_move_head(rx_memory_t *memory, rx_queue_t *rx, uint32_t seq) noexcept nogil
# Give up what lies beyond the queue's end, runs and FIN.
cdef void rx_queue_forget_runs(rx_memory_t *memory, rx_queue_t *rx) noexcept nogil
# Into the list that fits what it holds now. index: of rx.
cdef void rx_queue_note(rx_memory_t *memory, rx_queue_t *rx, uint32_t index) noexcept nogil
# To the young end of its list.
cdef void rx_queue_requeue(rx_memory_t *memory, rx_queue_t *rx, uint32_t index) noexcept nogil


cdef inline rx_queue_t *rx_queue_at(const rx_memory_t *memory, uint32_t index) noexcept nogil:
    return <rx_queue_t *>slab_at(&memory.queues, index)


cdef inline void rx_runs_view(rx_memory_t *memory, rx_queue_t *rx, runs_view_t *view) noexcept nogil:
    view.pool = &memory.chunks
    view.runs = &rx.runs
    view.random = &memory.random
    view.steps = 0


# ---- shares. All limits follow what is free, so that whoever comes last still finds some: with N connections that
# hold what they may, 1 / (1 + N/16) of the memory is free (Choudhury and Hahne, "Dynamic queue length thresholds for
# shared-memory packet switches", 1998). Half of the memory is for whoever comes.

cdef inline bint rx_memory_short(const rx_memory_t *memory) noexcept nogil:
    return memory.chunks.pages_in_use > memory.chunks.limit_pages >> 1


# Bytes that one connection's window may promise. A quarter of what it may hold: many promises are redeemed at once.
cdef inline uint64_t rx_window_share(const rx_memory_t *memory) noexcept nogil:
    return chunk_free_bytes(&memory.chunks) >> 6
