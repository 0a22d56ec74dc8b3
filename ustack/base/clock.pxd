# SPDX-License-Identifier: MIT
# The only reader of operating-system time. Everything else takes `now_ns` as a parameter.

from libc.stdint cimport uint64_t

cdef uint64_t clock_monotonic_ns() noexcept nogil   # CLOCK_MONOTONIC; never decreases
cdef uint64_t clock_wall_ns() noexcept nogil        # CLOCK_REALTIME; for logs and captures
cdef uint64_t clock_thread_ns() noexcept nogil      # processor time of the calling thread; for measurements
