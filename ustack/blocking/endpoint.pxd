# SPDX-License-Identifier: MIT
# Our end of a connection: what ties a Connection to its record, its state and its settings. Body: endpoint.pyx.
#
# Who keeps it alive: the backlog until accept(), then its user alone, and after close() the stack, until the last
# upcall. One that its user drops without close() is closed by its finalizer (Gate.defer), as a socket is.
#
# It must not: move bytes, or wait. Above: connection. Below: watched, backlog, events, application.

from libc.stdint cimport uint32_t

from ustack.application cimport Transport, close_reason_t, conn_t, endpoints_t, transport_t
from ustack.blocking.backlog cimport Backlog
from ustack.blocking.events cimport event_t
from ustack.blocking.watched cimport Watched


cdef class Endpoint(Watched):
    cdef Transport stack
    cdef set still_closing                  # the stack's: endpoints that are closed and not yet gone
    cdef const transport_t *transport       # the stack's
    cdef event_t *event                     # what upcalls know of it. We hold it
    cdef conn_t *conn                       # NULL once its end has been handed over
    cdef readonly bint established
    cdef Backlog backlog                    # while it waits for accept(), counted by the listener; else None
    cdef bint shut                          # shutdown() was called: no more data from us
    cdef bint closed                        # close() was called: nobody is to be warned of a dropped connection
    cdef close_reason_t end                 # why it ended, valid without a conn
    cdef object rest                        # received before the end and not yet read, valid without a conn
    cdef size_t rest_urgent                 # so many of its first bytes are urgent
    cdef endpoints_t key
    cdef object linger                      # SO_LINGER: seconds that close() waits; None: none
    # event.object points here from now on. `closing` keeps it from finish() or give_up() until its end was told.
    cdef void bind(self, Transport stack, set closing, event_t *event) except *
    cdef void unbind(self, event_t *event) noexcept
    cdef void keep_rest(self, event_t *event) noexcept
    cdef void leave_backlog(self) noexcept
    cdef void take(self) noexcept
    cdef bint is_writable(self) noexcept
    cdef Transport enter(self, str call)
    cdef int need_conn(self, str call) except -1
    cdef int finish(self) except -1
    cdef int give_up(self) except -1
    cdef object failure(self)
    cdef str where(self)
    cdef uint32_t option_now(self, str call, int option) except? 0xFFFFFFFF
    cdef int set_number(self, str call, str name, object value) except -1
    cdef uint32_t counted(self, str call, int which) except? 0xFFFFFFFF
    cdef size_t urgent_now(self) noexcept
    cdef int set_now(self, str call, int option, object value) except -1
    cdef int set_inside(self, str call, int option, uint32_t value) except -1

# The exception for a negative call_status_t. what: the call and its address.
cdef object error_of_status(int status, str what)
