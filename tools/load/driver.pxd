# SPDX-License-Identifier: MIT
# Who drives a load client and the engine below it: turns, with the client's pump before each. See driver.pyx.
#
# Above: running, memory. Below: client, engine.

from libc.stdint cimport uint64_t

from ustack.engine.owner cimport Engine
from ustack.engine.records cimport engine_t
from ustack.tools.load.client cimport LoadClient
from ustack.tools.load.records cimport load_t

cdef enum:
    SPIN_NS = 100000            # before a request is due no sleep is short enough: this long it is looked for

# Until until_ns, *stop, or the load is over; the time at the end. *idle_ns grows by the time of turns without work.
cdef uint64_t drive(load_t *load, engine_t *engine, uint64_t until_ns, const bint *stop,
                    uint64_t *idle_ns) noexcept nogil

cdef class Driver:
    cdef LoadClient client
    cdef uint64_t idle_ns
    cdef uint64_t driven_ns
    cdef Engine engine
