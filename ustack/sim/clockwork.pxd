# SPDX-License-Identifier: MIT
# Which source of events is next: an indexed binary heap. A source has one time, its next event's; setting it again
# moves it. Above: whoever has events. Below: records.

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from ustack.sim.records cimport clock_t

# A new source, with nothing to come. 0, or -1 without memory.
cdef int clock_add(clock_t *clock, uint32_t rank, uint32_t *source) noexcept nogil
cdef void clock_set(clock_t *clock, uint32_t source, uint64_t at_ns) noexcept nogil
cdef void clock_free(clock_t *clock) noexcept nogil


# The source with the next event, if there is any source.
cdef inline uint32_t clock_first(const clock_t *clock) noexcept nogil:
    return clock.heap[0]


cdef inline uint64_t clock_next_ns(const clock_t *clock) noexcept nogil:
    return clock.sources[clock.heap[0]].at_ns if clock.count else UINT64_MAX
