# SPDX-License-Identifier: MIT
# When requests are due, at a rate that the server has no say in.
#
# The schedule is fixed before the run begins: the i-th request is due at a time that depends on the rate, the ramp and
# the seed, and on nothing that happens. It is sent as soon after that as a connection is free, in the schedule's order,
# and its latency counts from when it was due. So a server that stalls delays no measurement: what came due meanwhile
# waits in the schedule (as a number, not as memory), and its wait is in the figures. Omission of what a slow server
# would have answered slowly is thereby impossible, but for requests that were never answered: these are counted, and
# enter the distribution with the time for which they had waited at the end, a lower bound (client).
#
# Fixed: one request each 1/rate. Poisson: gaps drawn from the exponential distribution, as many independent people
# would make them. With a ramp the rate grows from 0 in a straight line: due times are those of a constant rate, with
# time stretched by the inverse of the integral of the rate, which is exact for both.
#
# Below: base's generator. Above: client. It must not: read a clock.

from libc.stdint cimport uint64_t

from ustack.base.prng cimport prng_t

ctypedef struct schedule_t:
    double per_second                       # requests, once the ramp is over; 0: there is no schedule
    uint64_t ramp_ns
    uint64_t start_ns
    uint64_t until_ns                       # nothing is due from here on
    uint64_t due_ns                         # of the next request; UINT64_MAX: none is left
    uint64_t taken                          # requests before it
    bint poisson
    double passed                           # the sum of the gaps so far, for a rate of 1
    prng_t prng

cdef void schedule_init(schedule_t *schedule, double per_second, bint poisson, uint64_t ramp_ns,
                        uint64_t seed) noexcept nogil
# The first request is due at start_ns (Poisson: one gap later).
cdef void schedule_start(schedule_t *schedule, uint64_t start_ns, uint64_t until_ns) noexcept nogil
# The request that was next is sent, or given up: on to the one behind it.
cdef void schedule_advance(schedule_t *schedule) noexcept nogil
