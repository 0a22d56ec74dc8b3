# SPDX-License-Identifier: MIT
# The downcalls of a transport over the kernel's sockets (transport_t). Body: downcalls.pyx.

from libc.stdint cimport uint16_t

from ustack.application cimport transport_t
from ustack.base.types cimport ip_addr_t
from ustack.kernel.records cimport kernel_conn_t, kernel_t, listener_t

cdef void downcalls_fill(transport_t *table) noexcept
# Who listens there; NULL: nobody. address NULL: any.
cdef listener_t *listener_of(kernel_t *kernel, const ip_addr_t *address, uint16_t port) noexcept nogil
# The connection fails with this errno: on_closed follows in this turn.
cdef void conn_fail(kernel_t *kernel, kernel_conn_t *conn, int error) noexcept nogil
