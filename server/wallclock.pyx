# SPDX-License-Identifier: MIT
"""A server's times. See wallclock.pxd."""

import logging

from libc.stdint cimport int64_t, uint64_t

from ustack.server.dates cimport write_http_date
from ustack.server.decide cimport interrupted
from ustack.server.records cimport server_t

_log = logging.getLogger("ustack.server")


cdef void begin_second(server_t *server, uint64_t now_ns) noexcept nogil:
    cdef uint64_t wall_ns = <uint64_t>(<int64_t>now_ns + server.wall_offset_ns)
    server.second = <int64_t>(wall_ns / 1_000_000_000)
    server.next_second_ns = now_ns + 1_000_000_000 - wall_ns % 1_000_000_000
    server.checks_left = server.checks_per_second
    write_http_date(server.date, server.second)


cdef void learn_offset(server_t *server, uint64_t now_ns) noexcept nogil:
    set_wall_clock(server, now_ns)


cdef void set_wall_clock(server_t *server, uint64_t now_ns) noexcept with gil:
    cdef WallClock clock = <WallClock>server.wall_clock
    try:
        clock.set(now_ns)
    except BaseException as error:      # the offset stays what it was, and is asked for again with the next burst
        if not interrupted(server, error):
            _log.error("the wall clock could not be read", exc_info=error)


cdef class WallClock:
    """Where the time of day comes from."""

    cdef int set(self, uint64_t now_ns) except -1:
        self.s.wall_offset_ns = self.read() - now_ns
        self.s.wall_known = 1
        self.s.next_second_ns = 0
        tick(self.s, now_ns)
        return 0
