# SPDX-License-Identifier: MIT
# A connection of a blocking stack, under a socket's names. Body: connection.pyx. Made by Stack.connect() and by
# Listener.accept(). Above: sockets, listener, stack. Below: endpoint.

from ustack.application cimport Transport
from ustack.blocking.endpoint cimport Endpoint


cdef class Connection(Endpoint):
    cdef bint close_later                   # close() was called while files of makefile() were open
    cdef Py_ssize_t files                   # objects of makefile() that are open
    cdef object timeout                     # settimeout(): seconds, None: for ever
    cdef bint more                          # the latest send() said MSG_MORE
    cdef object urgent_handler              # on_urgent; None: nobody wants to know
    cdef object patience(self, object timeout)
    cdef Transport enter_to_take(self, str call)
    cdef int leave_with(self, Transport stack, bint taken) except -1
    cdef bint wait_readable(self, object timeout) except -1
    cdef bint readable(self) except -1
    cdef bint has_room(self) except -1
    cdef bytes take_some(self, size_t wanted)
    cdef bytes look_at(self, size_t wanted)
    cdef size_t up_to_mark(self, size_t wanted) noexcept
    cdef bytes receive_some(self, str call, size_t wanted, object timeout, int flags)
    cdef int say_more(self, bint more) except -1
    cdef int say_urgent(self) except -1
    cdef int wait_delivered(self) except -1
