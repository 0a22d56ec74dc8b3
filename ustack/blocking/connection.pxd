# SPDX-License-Identifier: MIT
# A connection of a blocking stack, under a socket's names. Body: connection.pyx. Made by Stack.connect() and by
# Listener.accept(). Above: sockets, listener, stack. Below: endpoint.

from ustack.blocking.endpoint cimport Endpoint


cdef class Connection(Endpoint):
    cdef bint close_later                   # close() was called while files of makefile() were open
    cdef Py_ssize_t files                   # objects of makefile() that are open
    cdef object timeout                     # settimeout(): seconds, None: for ever
    cdef object patience(self, object timeout)
    cdef bint wait_readable(self, object timeout) except -1
    cdef bint readable(self) except -1
    cdef bint has_room(self) except -1
