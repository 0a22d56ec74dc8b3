# SPDX-License-Identifier: MIT
# What upcalls leave for the blocking sockets of a stack. Body: sockets.pyx.

from libc.stdint cimport uint16_t

from ustack.application cimport Transport
from ustack.base.types cimport ip_addr_t
from ustack.blocking.backlog cimport Backlog, listening_t
from ustack.blocking.events cimport EventApplication

# Turns events into state that blocking calls look at. Received data stays in the stack's queue (backpressure).
#
# on_accept, without the GIL, answers whether a Listener waits; its Connection is made when the events are handed over.
cdef class SocketApplication(EventApplication):
    cdef Transport stack
    cdef listening_t *listening             # the first of few (a stack has a bound): events.listeners points here
    cdef set backlogs
    cdef set closing                        # Connections that are closed and not yet gone
    # The backlog gets the connections to that port. address NULL: of any address of ours that has no other listener.
    cdef void listen(self, Backlog backlog, const ip_addr_t *address, uint16_t port) except *
    cdef void unlisten(self, Backlog backlog) noexcept
