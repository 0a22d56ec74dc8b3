# SPDX-License-Identifier: MIT
# A wire between two links: both directions, and the loop that moves them. Body: wire.pyx. Below: direction.

from libc.stdint cimport uint64_t

from ustack.bridge.direction cimport direction_t
from ustack.link.device cimport Link
from ustack.link.use cimport LinkUse
from ustack.link.gate cimport Gate

ctypedef struct wire_t:
    direction_t directions[2]        # a to b, b to a
    uint64_t spin_ns                 # how long to look at the rings before a sleep, at most
    uint64_t batch_ns                # from a packet given to the end of the next sleep, at least
    uint64_t sleeps
    int stopping                     # writer: stop(), in any thread


cdef class Wire:
    cdef wire_t c
    cdef readonly Link a
    cdef readonly Link b
    cdef readonly bint closed
    cdef LinkUse a_use
    cdef LinkUse b_use
    cdef Gate gate
    cdef object wake                 # eventfd that ends a sleep
    cdef int enter(self, str call) except -1
    cdef void leave(self) noexcept
    cdef int set_all(self, dict checked) except -1
    cdef int raise_for(self, int status) except -1
