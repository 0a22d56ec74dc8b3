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

# A second has begun: write its date. Above: tick.
cdef void begin_second(server_t *server, uint64_t now_ns) noexcept nogil
# The offset is not known: read the wall clock, with the GIL. Above: begin_burst.
cdef void learn_offset(server_t *server, uint64_t now_ns) noexcept nogil


# Take the engine's time; at a new second, write the date.
cdef inline void tick(server_t *server, uint64_t now_ns) noexcept nogil:
    server.now_ns = now_ns
    if now_ns >= server.next_second_ns:
        begin_second(server, now_ns)


# A burst has begun: set the wall clock if its offset is not known, and take the time.
cdef inline void begin_burst(server_t *server, uint64_t now_ns) noexcept nogil:
    if not server.wall_known:
        learn_offset(server, now_ns)
    tick(server, now_ns)
