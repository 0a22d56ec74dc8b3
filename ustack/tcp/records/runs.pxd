# SPDX-License-Identifier: MIT
# The set of sequence numbers received beyond a hole, as disjoint runs that do not touch: a treap (a binary tree by left
# edge that is also a heap by random priority; Seidel and Aragon, "Randomized search trees", 1996).
#
# Each search, insertion and removal visits O(log n) runs, expected over priorities that no peer can see or choose: the
# order in which segments arrive does not matter. 16 bytes for each run, in small chunks of 32 runs, so that they count
# against the pool and go back to it: as many as there were runs at one time, until the last run is removed.
#
# Below: buf/chunks, wire/seq. It must not know of connections. Above: rx_queue, reassembly, sack.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.buf.chunks cimport chunk_pool_t

cdef enum:
    RUNS_MAX = 32767                        # an index has 15 bits: 1,024 chunks of 32 runs, index 0 unused
    RUNS_FEW_CHUNKS = 4

ctypedef struct run_t:                      # 16 bytes
    uint32_t left                           # first byte
    uint32_t right                          # after the last byte
    uint32_t priority                       # never above the parent's
    uint16_t lower                          # children, by index; 0: none
    uint16_t higher

ctypedef struct runs_t:                     # 28 bytes, zeroed: the empty set
    uint32_t few[4]                         # handles of the first chunks of runs
    uint32_t more                           # handle of a chunk with all handles from the fifth on
    uint16_t root
    uint16_t free                           # runs that were removed, linked through `higher`
    uint16_t count
    uint16_t unused                         # the next index never used

# One operation's view. steps: runs looked at so far, for whoever counts them.
ctypedef struct runs_view_t:
    chunk_pool_t *pool
    runs_t *runs
    uint64_t *random                        # state of the priorities' generator
    uint32_t steps

# A run's edges may be moved in place as long as it neither passes nor touches a neighbour. Pointers stay valid until
# the run is removed.
cdef run_t *runs_floor(runs_view_t *view, uint32_t seq) noexcept nogil     # the last with left =< seq; NULL: none
cdef run_t *runs_above(runs_view_t *view, uint32_t seq) noexcept nogil     # the first with left > seq; NULL: none
cdef run_t *runs_lowest(runs_view_t *view) noexcept nogil
cdef run_t *runs_highest(runs_view_t *view) noexcept nogil
# A new run [left, right) that touches no other. NULL: no memory, or RUNS_MAX.
cdef run_t *runs_add(runs_view_t *view, uint32_t left, uint32_t right) noexcept nogil
# Take out the run that begins at `left`, which must be there. The last one's removal gives all memory back.
cdef void runs_remove(runs_view_t *view, uint32_t left) noexcept nogil
cdef void runs_clear(chunk_pool_t *pool, runs_t *runs) noexcept nogil
# Bytes of memory behind the set, and what one more run may add to it at most.
cdef uint32_t runs_memory_bytes(const runs_t *runs) noexcept nogil
cdef uint32_t runs_growth_bytes(const runs_t *runs) noexcept nogil
