# SPDX-License-Identifier: MIT
"""Disjoint runs of sequence numbers in a treap. The contract is in runs.pxd."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.debug cimport ensure
from ustack.buf.chunks cimport (
    CHUNK_BYTES, SMALL_CHUNK_BYTES, chunk_alloc, chunk_at, chunk_pool_destroy, chunk_pool_init, chunk_release)
from ustack.wire.seq cimport seq_gt, seq_le, seq_lt


cdef enum:
    RUNS_SHIFT = 5                          # runs in a chunk of 512 bytes
    RUNS_MASK = 31


cdef inline run_t *run_at(const runs_view_t *view, uint32_t index) noexcept nogil:
    cdef uint32_t chunk = index >> RUNS_SHIFT
    cdef uint32_t handle
    if chunk < RUNS_FEW_CHUNKS:
        handle = view.runs.few[chunk]
    else:
        handle = (<uint32_t *>chunk_at(view.pool, view.runs.more))[chunk]
    return <run_t *>chunk_at(view.pool, handle) + (index & RUNS_MASK)


cdef inline uint32_t next_priority(uint64_t *random) noexcept nogil:
    """splitmix64 (Steele, Lea and Flood 2014), seeded with the stack's secret: a peer never sees a value of it."""
    cdef uint64_t z
    random[0] += 0x9E3779B97F4A7C15ULL
    z = random[0]
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL
    return <uint32_t>(z >> 32)


# ---------------------------------------------------------------- memory

cdef uint32_t chunk_count(const runs_t *runs) noexcept nogil:
    return (runs.unused + <uint32_t>RUNS_MASK) >> RUNS_SHIFT


cdef uint32_t runs_memory_bytes(const runs_t *runs) noexcept nogil:
    return chunk_count(runs) * SMALL_CHUNK_BYTES + (CHUNK_BYTES if runs.more else 0)


cdef uint32_t runs_growth_bytes(const runs_t *runs) noexcept nogil:
    if runs.free or runs.unused & RUNS_MASK:
        return 0
    if runs.unused >> RUNS_SHIFT == RUNS_FEW_CHUNKS:
        return SMALL_CHUNK_BYTES + CHUNK_BYTES
    return SMALL_CHUNK_BYTES


cdef uint32_t index_take(runs_view_t *view) noexcept nogil:
    cdef runs_t *runs = view.runs
    cdef uint32_t index = runs.free, chunk, handle
    if index:
        runs.free = run_at(view, index).higher
        return index
    index = runs.unused if runs.unused else 1
    chunk = index >> RUNS_SHIFT
    if index > RUNS_MAX:
        return 0
    if runs.unused & RUNS_MASK == 0:        # the first run of a chunk
        if chunk >= RUNS_FEW_CHUNKS and runs.more == 0:
            runs.more = chunk_alloc(view.pool, False)
            if runs.more == 0:
                return 0
        handle = chunk_alloc(view.pool, True)
        if handle == 0:
            return 0
        if chunk < RUNS_FEW_CHUNKS:
            runs.few[chunk] = handle
        else:
            (<uint32_t *>chunk_at(view.pool, runs.more))[chunk] = handle
    runs.unused = <uint16_t>(index + 1)
    return index


cdef void runs_clear(chunk_pool_t *pool, runs_t *runs) noexcept nogil:
    cdef uint32_t chunk
    for chunk in range(chunk_count(runs)):
        chunk_release(pool, runs.few[chunk] if chunk < RUNS_FEW_CHUNKS
                      else (<uint32_t *>chunk_at(pool, runs.more))[chunk])
    if runs.more:
        chunk_release(pool, runs.more)
    memset(runs, 0, sizeof(runs_t))


# ---------------------------------------------------------------- looking

cdef run_t *runs_floor(runs_view_t *view, uint32_t seq) noexcept nogil:
    cdef uint32_t index = view.runs.root
    cdef run_t *run
    cdef run_t *found = NULL
    while index:
        run = run_at(view, index)
        view.steps += 1
        if seq_le(run.left, seq):
            found = run
            index = run.higher
        else:
            index = run.lower
    return found


cdef run_t *runs_above(runs_view_t *view, uint32_t seq) noexcept nogil:
    cdef uint32_t index = view.runs.root
    cdef run_t *run
    cdef run_t *found = NULL
    while index:
        run = run_at(view, index)
        view.steps += 1
        if seq_gt(run.left, seq):
            found = run
            index = run.lower
        else:
            index = run.higher
    return found


cdef run_t *runs_lowest(runs_view_t *view) noexcept nogil:
    cdef uint32_t index = view.runs.root
    cdef run_t *run = NULL
    while index:
        run = run_at(view, index)
        view.steps += 1
        index = run.lower
    return run


cdef run_t *runs_highest(runs_view_t *view) noexcept nogil:
    cdef uint32_t index = view.runs.root
    cdef run_t *run = NULL
    while index:
        run = run_at(view, index)
        view.steps += 1
        index = run.higher
    return run


# ---------------------------------------------------------------- changing

cdef run_t *runs_add(runs_view_t *view, uint32_t left, uint32_t right) noexcept nogil:
    cdef uint32_t index = index_take(view)
    cdef uint16_t *link = &view.runs.root
    cdef uint16_t *lower
    cdef uint16_t *higher
    cdef uint32_t at
    cdef run_t *added
    cdef run_t *run
    if index == 0:
        return NULL
    added = run_at(view, index)
    added.left = left
    added.right = right
    added.priority = next_priority(view.random)
    view.runs.count += 1
    while link[0]:                          # down to where its priority belongs
        run = run_at(view, link[0])
        view.steps += 1
        if run.priority < added.priority:
            break
        link = &run.higher if seq_lt(run.left, left) else &run.lower
    at = link[0]                            # what is below is split at its edge
    link[0] = <uint16_t>index
    lower = &added.lower
    higher = &added.higher
    while at:
        run = run_at(view, at)
        view.steps += 1
        if seq_lt(run.left, left):
            lower[0] = <uint16_t>at
            lower = &run.higher
            at = run.higher
        else:
            higher[0] = <uint16_t>at
            higher = &run.lower
            at = run.lower
    lower[0] = 0
    higher[0] = 0
    return added


cdef void runs_remove(runs_view_t *view, uint32_t left) noexcept nogil:
    cdef uint16_t *link = &view.runs.root
    cdef uint32_t index, lower, higher
    cdef run_t *run
    cdef run_t *low
    cdef run_t *high
    while True:
        ensure(link[0] != 0)
        run = run_at(view, link[0])
        view.steps += 1
        if run.left == left:
            break
        link = &run.higher if seq_lt(run.left, left) else &run.lower
    index = link[0]
    lower = run.lower
    higher = run.higher
    while lower and higher:                 # its two subtrees become one
        low = run_at(view, lower)
        high = run_at(view, higher)
        view.steps += 1
        if low.priority > high.priority:
            link[0] = <uint16_t>lower
            link = &low.higher
            lower = low.higher
        else:
            link[0] = <uint16_t>higher
            link = &high.lower
            higher = high.lower
    link[0] = <uint16_t>(lower | higher)
    view.runs.count -= 1
    if view.runs.count == 0:
        runs_clear(view.pool, view.runs)
        return
    run.higher = view.runs.free
    view.runs.free = <uint16_t>index


# -- test shim

cdef class Runs:
    """A set of runs with a pool of its own. For tests."""

    cdef chunk_pool_t pool
    cdef runs_t c
    cdef uint64_t random

    def __cinit__(self, uint64_t seed=1, uint64_t limit_bytes=1 << 20) -> None:
        chunk_pool_init(&self.pool, limit_bytes)
        self.random = seed

    def __dealloc__(self) -> None:
        chunk_pool_destroy(&self.pool)

    cdef runs_view_t view(self) noexcept:
        cdef runs_view_t view
        view.pool = &self.pool
        view.runs = &self.c
        view.random = &self.random
        view.steps = 0
        return view

    def add(self, uint32_t left, uint32_t right) -> tuple[bool, int]:
        """(added, steps). The run must touch no other."""
        cdef runs_view_t view = self.view()
        return runs_add(&view, left, right) != NULL, view.steps

    def remove(self, uint32_t left) -> int:
        """Take out the run that begins at `left`; steps."""
        cdef runs_view_t view = self.view()
        if not self.holds(left):
            raise KeyError(left)
        runs_remove(&view, left)
        return view.steps

    cdef bint holds(self, uint32_t left) noexcept:
        cdef runs_view_t view = self.view()
        cdef run_t *run = runs_floor(&view, left)
        return run != NULL and run.left == left

    def floor(self, uint32_t seq) -> tuple[int, int] | None:
        """The last run with left =< seq."""
        cdef runs_view_t view = self.view()
        cdef run_t *run = runs_floor(&view, seq)
        return None if run == NULL else (run.left, run.right)

    def above(self, uint32_t seq) -> tuple[int, int] | None:
        """The first run with left > seq."""
        cdef runs_view_t view = self.view()
        cdef run_t *run = runs_above(&view, seq)
        return None if run == NULL else (run.left, run.right)

    def ends(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """The lowest and the highest run."""
        cdef runs_view_t view = self.view()
        cdef run_t *low = runs_lowest(&view)
        cdef run_t *high = runs_highest(&view)
        return None if low == NULL else ((low.left, low.right), (high.left, high.right))

    def clear(self) -> None:
        """Take out all."""
        runs_clear(&self.pool, &self.c)

    def check(self) -> int:
        """The tree's depth. Raises AssertionError where order, heap or count are broken."""
        cdef runs_view_t view = self.view()
        depth, count = check_below(&view, self.c.root)
        assert count == self.c.count
        return depth

    @property
    def memory_bytes(self) -> int:
        """What the set says it holds; the pool must agree in chunks."""
        return runs_memory_bytes(&self.c)

    @property
    def chunks_in_use(self) -> int:
        """Chunks out of the pool."""
        return self.pool.chunks_in_use


cdef tuple check_below(runs_view_t *view, uint32_t index):
    cdef run_t *run
    cdef run_t *child
    if index == 0:
        return 0, 0
    run = run_at(view, index)
    deepest = 0
    count = 1
    for child_index in (run.lower, run.higher):
        if child_index:
            child = run_at(view, child_index)
            assert child.priority <= run.priority
            assert seq_lt(child.right, run.left) if child_index == run.lower else seq_lt(run.right, child.left)
        depth, below = check_below(view, child_index)
        deepest = max(deepest, depth)
        count += below
    return deepest + 1, count
