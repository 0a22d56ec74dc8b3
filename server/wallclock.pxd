# SPDX-License-Identifier: MIT
# A server's times: monotonic from the engine, the wall clock as an offset to it, and the date that responses carry.
#
# The data path reads no clock. The wall clock is read when the first burst brings the engine's time, and then by
# housekeeping, about once per second. What it says in between follows from the engine's time.
#
# Above: upcalls, http. Below: decide (interrupted), dates, records.

from libc.stdint cimport uint64_t

from ustack.server.records cimport server_t


# Borrowed by server_t.wall_clock; its `s` outlives it.
cdef class WallClock:
    cdef server_t *s
    cdef object read                # its nanoseconds since 1970
    # now_ns: the engine's time now. Raises what reading it raises.
    cdef int set(self, uint64_t now_ns) except -1

# Take the engine's time; at a new second, write the date.
cdef void tick(server_t *server, uint64_t now_ns) noexcept nogil
# A burst has begun: set the wall clock if its offset is not known, and take the time.
cdef void begin_burst(server_t *server, uint64_t now_ns) noexcept nogil
