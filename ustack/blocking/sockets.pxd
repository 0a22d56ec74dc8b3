# SPDX-License-Identifier: MIT
# Blocking sockets: what upcalls leave for them, listeners and connections. Made by ustack.Stack.
#
# Who keeps a Connection alive: the backlog until accept(), then its user alone, and after close() the stack, until the
# last upcall. One that its user drops without close() is closed by its finalizer (Gate.defer), as a socket is.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.application cimport Transport, close_reason_t, conn_t, endpoints_t, transport_t
from ustack.base.types cimport ip_addr_t
from ustack.blocking.events cimport EventApplication, event_t

# A port that a Listener takes connections of, as upcalls find it. Part of a Backlog.
ctypedef struct listening_t:
    listening_t *next
    ip_addr_t address
    bint any_address
    uint16_t port
    void *backlog                           # the Backlog; SocketApplication.backlogs keeps it


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


# Established connections that wait for accept(). Its length is the listener's count: one that ends leaves at once.
cdef class Backlog:
    cdef listening_t c
    cdef object waiting                     # OrderedDict: Connection -> None, the oldest first
    cdef readonly uint64_t lost             # connections that ended before accept() took them


cdef class Listener:
    cdef Transport stack
    cdef Backlog backlog                    # None: an Application of its own takes the connections
    cdef SocketApplication sockets          # None as well
    cdef readonly uint16_t port
    cdef readonly object address
    cdef bint open
    cdef void bind(self, Transport stack, SocketApplication sockets, uint16_t port, object address) except *
    cdef void end(self) except *


cdef class Connection:
    cdef Transport stack
    cdef SocketApplication sockets
    cdef const transport_t *transport       # the stack's
    cdef event_t *event                     # what upcalls know of it. We hold it
    cdef conn_t *conn                       # NULL once its end has been handed over
    cdef readonly bint established
    cdef Backlog backlog                    # while it waits for accept(), counted by the listener; else None
    cdef bint closed                        # close() was called: nobody is to be warned of a dropped connection
    cdef bint close_later                   # close() was called while files of makefile() were open
    cdef Py_ssize_t files                   # objects of makefile() that are open
    cdef object timeout                     # settimeout(): seconds, None: for ever
    cdef close_reason_t end                 # why it ended, valid without a conn
    cdef object rest                        # received before the end and not yet read
    cdef endpoints_t key
    cdef void bind(self, SocketApplication sockets, event_t *event) except *
    cdef void unbind(self, event_t *event) noexcept
    cdef void keep_rest(self, event_t *event) noexcept
    cdef uint32_t option(self, str call, int option) except? 0xFFFFFFFF
    cdef void leave_backlog(self) noexcept
    cdef void take(self) noexcept
    cdef Transport enter(self, str call)
    cdef object patience(self, object timeout)
    cdef bint wait_readable(self, object timeout) except -1
    cdef bint readable(self) except -1
    cdef bint has_room(self) except -1
    cdef int need_conn(self, str call) except -1
    cdef int set_mark(self, str call, int option, uint32_t size) except -1
    cdef int finish(self) except -1
    cdef int give_up(self) except -1
    cdef object failure(self)
    cdef str where(self)

# The exception for a negative call_status_t. what: the call and its address.
cdef object error_of_status(int status, str what)
