# SPDX-License-Identifier: MIT
# What makes a simulated network go: from event to event, hops move frames, stacks have turns, flows begin and end.
#
# No clock is read and no Python is called, unless an application or a congestion control of a stack is written in it.
# At one instant the script comes first, then hops, then hosts, each in the order of their making: the same network does
# the same on every machine. Above: network. Below: everything else of this room, engine/poll.

from libc.stdint cimport uint64_t

from ustack.sim.records cimport net_t

cdef enum rank_t:                           # of sources at one instant
    RANK_SCRIPT = 0
    RANK_SAMPLER = 1
    RANK_HOP = 2
    RANK_HOST = 3
    RANK_SHIFT = 28

# Until until_ns, which is what the clock says then; with `until_ended` until no flow runs that ends by itself, if that
# is sooner. Returns early after so many events, and when something waits for the GIL.
cdef void net_run(net_t *net, uint64_t until_ns, bint until_ended, uint64_t events) noexcept nogil
# Somebody may have called a host's stack, or polled it: when does it want its next turn? What nobody has touched gets
# none for it: it does not matter in how many pieces a network is run.
cdef void net_wake(net_t *net) noexcept nogil
