# SPDX-License-Identifier: MIT
# The downcalls of a transport over the kernel's sockets (transport_t). Body: downcalls.pyx.

from libc.stdint cimport uint16_t, uint32_t

from ustack.application cimport application_t, transport_t
from ustack.base.types cimport ip_addr_t
from ustack.kernel.records cimport kernel_conn_t, kernel_t, listener_t

cdef void downcalls_fill(transport_t *table) noexcept
# Who listens there; NULL: nobody. address NULL: any.
cdef listener_t *listener_of(kernel_t *kernel, const ip_addr_t *address, uint16_t port) noexcept nogil
# Passive OPEN on a copy of a socket that listens already, from which other processes take as well. call_status_t.
cdef int listen_shared(kernel_t *kernel, int listening_fd, application_t *app, uint32_t backlog) noexcept nogil
# The connection fails with this errno: on_closed follows in this turn.
cdef void conn_fail(kernel_t *kernel, kernel_conn_t *conn, int error) noexcept nogil
