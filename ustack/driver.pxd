# SPDX-License-Identifier: MIT
# Who owns an engine_t and moves it: memory, time, waiting. The base of ustack.Stack.
#
# Above: sockets, stack, tools. Below: engine, config.

from libc.stdint cimport uint16_t, uint64_t

from ustack.engine cimport Application, engine_t
from ustack.link.device cimport Link, LinkUse


cdef class Engine:
    cdef engine_t c
    cdef readonly Link link
    cdef LinkUse link_use                              # nobody else drives the link until close()
    cdef readonly bint alive
    cdef readonly bint manual_clock                    # every poll is told the time (simulation)
    cdef bint stop_requested                           # read once a poll by run()
    cdef list applications                             # keeps the Application objects alive
    cdef dict application_index                        # id(Application) -> index in engine_t.applications
    cdef dict closing_balance                          # leaks() after close()
    # The time for a call between two polls, written to tcp.now_ns; it never goes back.
    cdef uint64_t now(self) noexcept
    # Index of an application, registered when it is new.
    cdef uint16_t register(self, Application application) except 0
    cdef void ensure_alive(self) except *
    # Send what a call has left behind; with a manual clock the next poll does.
    cdef void push(self) except *
    # Drive the engine until condition() holds. timeout: seconds, None: for ever. Raises TimeoutError.
    cdef void wait_until(self, object condition, object timeout) except *
    # Tell everybody, free everything, keep the balance for leaks().
    cdef void destroy(self) except *
