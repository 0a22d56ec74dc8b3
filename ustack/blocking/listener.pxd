# SPDX-License-Identifier: MIT
# A port in LISTEN of a blocking stack. Body: listener.pyx. Made by Stack.listen(). Above: stack. Below: sockets.

from libc.stdint cimport uint16_t, uint32_t

from ustack.application cimport Transport
from ustack.blocking.backlog cimport Backlog
from ustack.blocking.sockets cimport SocketApplication


cdef class Listener:
    cdef Transport stack
    cdef Backlog backlog                    # None: an Application of its own takes the connections
    cdef SocketApplication sockets          # None as well
    cdef readonly uint16_t port
    cdef readonly object address
    cdef bint open
    cdef object timeout                     # settimeout(): seconds, None: for ever
    cdef dict options                       # what set_option() has set
    cdef int set_own(self, int code, uint32_t number) except -1
    cdef void bind(self, Transport stack, SocketApplication sockets, uint16_t port, object address) except *
    cdef void end(self) except *
