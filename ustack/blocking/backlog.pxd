# SPDX-License-Identifier: MIT
# What waits on a port: the connections that accept() has not taken, and whose port it is. Body: backlog.pyx.
#
# Upcalls look listeners up without the GIL (listening_find); connections are put into a backlog and taken out with it.
# It must not: know what a listener or a connection does with it. Above: connection, sockets, listener.
# Below: watched, application.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.application cimport endpoints_t
from ustack.base.types cimport ip_addr_t
from ustack.blocking.watched cimport Watched

cdef enum:
    INHERITED_MAX = 24                      # more options than there are

ctypedef struct inherited_t:
    int option                              # conn_option_t
    uint32_t value

# A port that a Listener takes connections of, as upcalls find it. Part of a Backlog.
ctypedef struct listening_t:
    listening_t *next
    ip_addr_t address
    bint any_address
    uint16_t port
    uint32_t inherited_count                # options that its connections begin with
    inherited_t inherited[INHERITED_MAX]
    void *backlog                           # the Backlog; SocketApplication.backlogs keeps it

# Whose listener is it? That of its own address comes before that of any. NULL: nobody's.
cdef const listening_t *listening_find(const listening_t *first, const endpoints_t *ends) noexcept nogil


# Established connections that wait for accept(). Its length is the listener's count: one that ends leaves at once.
cdef class Backlog(Watched):
    cdef listening_t c
    cdef object waiting                     # OrderedDict: Connection -> None, the oldest first
    cdef object linger                      # SO_LINGER of its connections
    cdef readonly uint64_t lost             # connections that ended before accept() took them
    # Into the list at first, and out of it. address NULL: any address of ours that has no other listener.
    cdef void link(self, listening_t **first, const ip_addr_t *address, uint16_t port) noexcept
    # Connections begin with this option from now on.
    cdef void inherit(self, int option, uint32_t value) noexcept
    cdef void unlink(self, listening_t **first) noexcept
