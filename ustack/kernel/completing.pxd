# SPDX-License-Identifier: MIT
# Output over a strategy that completes: one vector at a time, and what it has come to. Body: completing.pyx.
#
# Above: sockets. Below: connections, records, readiness.

from ustack.kernel.records cimport kernel_conn_t, kernel_t

# As socket_flush. UNWRITABLE: a send is under way.
cdef int completing_flush(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
