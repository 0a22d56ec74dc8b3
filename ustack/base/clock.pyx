# SPDX-License-Identifier: MIT
"""The only reader of operating-system time (clock_gettime through the vDSO, about 20 ns a call)."""

from libc.stdint cimport uint64_t

from ustack.base.posix cimport CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec


cdef uint64_t clock_monotonic_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000ULL + <uint64_t>t.tv_nsec


cdef uint64_t clock_wall_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_REALTIME, &t)
    return <uint64_t>t.tv_sec * 1000000000ULL + <uint64_t>t.tv_nsec


cdef uint64_t clock_thread_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return <uint64_t>t.tv_sec * 1000000000ULL + <uint64_t>t.tv_nsec


def monotonic_ns() -> int:
    """Nanoseconds of CLOCK_MONOTONIC, the clock that every `now_ns` of the stack counts in."""
    return clock_monotonic_ns()
