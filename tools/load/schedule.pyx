# SPDX-License-Identifier: MIT
"""When requests are due. See schedule.pxd."""

from libc.math cimport log, sqrt
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.string cimport memset

from ustack.base.arguments cimport whole
from ustack.base.prng cimport prng_seed, prng_unit


cdef void schedule_init(schedule_t *schedule, double per_second, bint poisson, uint64_t ramp_ns,
                        uint64_t seed) noexcept nogil:
    memset(schedule, 0, sizeof(schedule_t))
    schedule.per_second = per_second
    schedule.poisson = poisson
    schedule.ramp_ns = ramp_ns
    schedule.due_ns = UINT64_MAX
    prng_seed(&schedule.prng, seed)


cdef double time_of(const schedule_t *schedule, double requests) noexcept nogil:
    """When so many requests have come due, in ns from the start: the inverse of the integral of the rate."""
    cdef double in_ramp = schedule.per_second * schedule.ramp_ns / 2e9
    if requests < in_ramp:
        return sqrt(2e9 * requests * schedule.ramp_ns / schedule.per_second)
    return schedule.ramp_ns + (requests - in_ramp) * 1e9 / schedule.per_second


cdef void set_due(schedule_t *schedule) noexcept nogil:
    cdef double after_ns
    if schedule.poisson:
        schedule.passed -= log(1.0 - prng_unit(&schedule.prng))
        after_ns = time_of(schedule, schedule.passed)
    else:
        after_ns = time_of(schedule, <double>schedule.taken)
    if after_ns >= <double>(schedule.until_ns - schedule.start_ns):
        schedule.due_ns = UINT64_MAX
    else:
        schedule.due_ns = schedule.start_ns + <uint64_t>after_ns


cdef void schedule_start(schedule_t *schedule, uint64_t start_ns, uint64_t until_ns) noexcept nogil:
    schedule.start_ns = start_ns
    schedule.until_ns = until_ns
    schedule.taken = 0
    schedule.passed = 0
    if schedule.per_second > 0 and until_ns > start_ns:
        set_due(schedule)
    else:
        schedule.due_ns = UINT64_MAX


cdef void schedule_advance(schedule_t *schedule) noexcept nogil:
    schedule.taken += 1
    set_due(schedule)


def due_times(per_second: float, duration_ns: int, *, poisson: bool = False, ramp_ns: int = 0,
              seed: int = 1) -> list[int]:
    """Every due time of a schedule, in ns from its start; for tests and plots."""
    cdef schedule_t schedule
    cdef list times = []
    schedule_init(&schedule, per_second, poisson, <uint64_t>whole("ramp_ns", ramp_ns, 0, UINT64_MAX),
                  <uint64_t>whole("seed", seed, 0, UINT64_MAX))
    schedule_start(&schedule, 0, <uint64_t>whole("duration_ns", duration_ns, 0, UINT64_MAX))
    while schedule.due_ns != UINT64_MAX:
        times.append(schedule.due_ns)
        schedule_advance(&schedule)
    return times
