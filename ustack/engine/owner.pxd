# SPDX-License-Identifier: MIT
# Owner of an engine_t: memory, time, waiting, and who may be inside. The base of ustack.Stack.
#
# Every public call that touches C state is `enter` ... `leave` (link/gate.pxd): one thread at a time, and nothing that
# the stack itself runs comes in again. Ownership passes between calls.
#
# Above: sockets, stack, tools. Below: engine, config.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.application cimport Application
from ustack.engine.records cimport engine_t
from ustack.link.device cimport Link, LinkUse
from ustack.link.gate cimport Gate


cdef class Engine:
    cdef engine_t c
    cdef readonly Link link
    cdef LinkUse link_use                              # nobody else drives the link until close()
    cdef readonly bint alive
    cdef readonly bint manual_clock                    # every poll is told the time (simulation)
    cdef Gate gate                                     # the link's: who is inside
    cdef bint stop_requested
    cdef bint come_up                                  # read once a turn: stop(), or something waits for the GIL
    cdef list applications                             # keeps the Application objects alive
    cdef dict application_index                        # id(Application) -> index in engine_t.applications
    cdef dict closing_balance                          # leaks() after close()
    # The time for a call between two polls, written to tcp.now_ns; it never goes back.
    cdef uint64_t now(self) noexcept
    # Index of an application, registered when it is new.
    cdef uint16_t register(self, Application application) except 0
    cdef void ensure_new(self) except *
    cdef void ensure_alive(self) except *
    # A public call begins. Raises OwnershipError, or ValueError if the stack is closed.
    cdef int enter(self, str call) except -1
    # It ends, in a `finally`: does what was deferred, opens the gate, raises what is parked.
    cdef int leave(self) except -1
    # Between two turns of a long call: deferred work, lent objects, parked exceptions, signal handlers.
    cdef int between_turns(self) except -1
    cdef int raise_parked(self) except -1
    # All below: inside the gate.
    # One engine_poll without the GIL; the number of frames.
    cdef uint32_t turn(self, uint64_t at_ns) noexcept
    # Send what a call has left behind; with a manual clock the next poll does.
    cdef void push(self) noexcept
    # The same without giving the GIL up: a finalizer's thread is not the owner, who must not find the gate shut.
    cdef void push_with_gil(self) noexcept
    # Drive the engine until condition() holds. timeout: seconds, None: for ever. what: for the CallTimeout that it
    # raises then ("accept() on port 80: no connection came").
    cdef void wait_until(self, object condition, object timeout, str what) except *
    # Tell everybody, free everything, keep the balance for leaks().
    cdef void destroy(self) except *

# `value` as an integer from low to high. Raises TypeError for what is none, ValueError beyond the bounds, with `name`.
cdef object whole(str name, object value, object low, object high)
# Raises ValueError for an IPv6 address, with or without prefix.
cdef int refuse_ipv6(str address) except -1
# Seconds to nanoseconds; None, and what is longer than a clock counts, is UINT64_MAX. Raises ValueError, TypeError.
cdef uint64_t timeout_ns(object seconds) except? 0
