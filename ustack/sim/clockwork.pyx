# SPDX-License-Identifier: MIT
"""Which source of events is next. See clockwork.pxd."""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from ustack.sim.records cimport source_t

cdef enum:
    CAPACITY_MIN = 16


cdef inline bint is_before(const source_t *x, const source_t *y) noexcept nogil:
    return x.at_ns < y.at_ns or (x.at_ns == y.at_ns and x.rank < y.rank)


cdef inline void place(clock_t *clock, uint32_t position, uint32_t source) noexcept nogil:
    clock.heap[position] = source
    clock.sources[source].position = position


cdef void sift_up(clock_t *clock, uint32_t source) noexcept nogil:
    cdef uint32_t at = clock.sources[source].position
    cdef uint32_t parent
    while at > 0:
        parent = (at - 1) // 2
        if not is_before(&clock.sources[source], &clock.sources[clock.heap[parent]]):
            break
        place(clock, at, clock.heap[parent])
        at = parent
    place(clock, at, source)


cdef void sift_down(clock_t *clock, uint32_t source) noexcept nogil:
    cdef uint32_t at = clock.sources[source].position
    cdef uint32_t child
    while True:
        child = 2 * at + 1
        if child >= clock.count:
            break
        if (child + 1 < clock.count
                and is_before(&clock.sources[clock.heap[child + 1]], &clock.sources[clock.heap[child]])):
            child += 1
        if not is_before(&clock.sources[clock.heap[child]], &clock.sources[source]):
            break
        place(clock, at, clock.heap[child])
        at = child
    place(clock, at, source)


cdef int clock_add(clock_t *clock, uint32_t rank, uint32_t *source) noexcept nogil:
    cdef uint32_t capacity = clock.capacity * 2 if clock.capacity else CAPACITY_MIN
    cdef source_t *sources
    cdef uint32_t *heap
    if clock.count == clock.capacity:
        sources = <source_t *>realloc(clock.sources, capacity * sizeof(source_t))
        if sources == NULL:
            return -1
        clock.sources = sources
        heap = <uint32_t *>realloc(clock.heap, capacity * sizeof(uint32_t))
        if heap == NULL:
            return -1
        clock.heap = heap
        clock.capacity = capacity
    source[0] = clock.count
    clock.sources[source[0]].at_ns = UINT64_MAX
    clock.sources[source[0]].rank = rank
    clock.sources[source[0]].position = clock.count
    clock.count += 1
    sift_up(clock, source[0])
    return 0


cdef void clock_set(clock_t *clock, uint32_t source, uint64_t at_ns) noexcept nogil:
    cdef uint64_t before_ns = clock.sources[source].at_ns
    clock.sources[source].at_ns = at_ns
    if at_ns < before_ns:
        sift_up(clock, source)
    elif at_ns > before_ns:
        sift_down(clock, source)


cdef void clock_free(clock_t *clock) noexcept nogil:
    free(clock.sources)
    free(clock.heap)
    clock.sources = NULL
    clock.heap = NULL
    clock.count = clock.capacity = 0
