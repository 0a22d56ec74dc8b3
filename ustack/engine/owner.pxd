# SPDX-License-Identifier: MIT
# Owner of an engine_t: memory, time, waiting, and who may be inside. The base of ustack.Stack.
#
# Every public call that touches C state is `enter` ... `leave` (link/gate.pxd): one thread at a time, and nothing that
# the stack itself runs comes in again. Ownership passes between calls.
#
# Above: sockets, stack, tools. Below: engine, config.

from libc.stdint cimport uint16_t

from ustack.application cimport Application, Transport
from ustack.base.types cimport ip_addr_t
from ustack.engine.records cimport engine_t
from ustack.engine.waking cimport Waker
from ustack.link.device cimport Link
from ustack.link.use cimport LinkUse


cdef class Engine(Transport):
    cdef engine_t c
    cdef readonly Link link
    cdef LinkUse link_use                              # nobody else drives the link until close()
    cdef bint stop_requested
    cdef Waker waker                                   # what ends run()'s sleep besides frames and deadlines
    cdef list calls_due                                # (call, argument) of call_later
    cdef bint come_up                                  # read once a turn: stop(), or something waits for the GIL
    cdef list applications                             # keeps the Application objects alive
    cdef dict closing_balance                          # leaks() after close()
    cdef void ensure_new(self) except *
    cdef void ensure_alive(self) except *
    # Between two turns of a long call: deferred work, lent objects, parked exceptions, signal handlers.
    cdef int between_turns(self) except -1
    cdef int raise_parked(self) except -1
    # After each call into the engine: what it noted for applications that need Python and has not handed over.
    cdef void hand_over(self) noexcept
    cdef int serve_waker(self) except -1
    # Those of call_later. What interrupts one (errors.is_interruption) is raised; the others have their turn later.
    cdef int make_calls(self) except -1
    # What is deferred from now on ends the sleep after the next turn. Before each one: what callbacks have called may
    # have slept as well.
    cdef void may_sleep(self) noexcept
    # Inside the gate: the congestion control of the connections of a listener that exists, by its number.
    cdef void set_listener_control(self, const ip_addr_t *address, uint16_t port, int control) noexcept
    # Inside the gate: tell everybody, free everything, keep the balance for leaks().
    cdef void destroy(self) except *
