# SPDX-License-Identifier: MIT
# Upcalls of a transport over the kernel's sockets: what a connection has for its application, in the order in which the
# engine has it: on_data, on_writable, on_eof, on_timeout; on_closed last.
#
# It must not: wait, or make system calls other than those that read or end a connection.
# Above: accepting, turns. Below: connections, sockets.

from libc.stdint cimport uint8_t, uint32_t

from ustack.application cimport application_t, close_reason_t
from ustack.kernel.records cimport kernel_conn_t, kernel_t

# The connection's application, its burst begun, with its share of the turn.
cdef application_t *upcall_begin(kernel_t *kernel, const kernel_conn_t *conn) noexcept nogil
# The same for an upcall that is about no connection.
cdef void burst_begin(kernel_t *kernel, application_t *app) noexcept nogil
# Read and tell, as far as the turn pays for. How much happened.
cdef uint32_t upcalls_make(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# The same where the reading has been done: what recv said (bytes, 0, a negative errno; -EAGAIN: nothing).
cdef uint32_t upcalls_make_read(kernel_t *kernel, kernel_conn_t *conn, const uint8_t *data,
                                ssize_t taken) noexcept nogil
# on_closed, and the end of the record.
cdef void upcall_closed(kernel_t *kernel, kernel_conn_t *conn, close_reason_t reason) noexcept nogil
cdef void upcalls_end_bursts(kernel_t *kernel) noexcept nogil
# on_hand_over to each application that has asked for it. How many events.
cdef uint32_t upcalls_hand_over(kernel_t *kernel) noexcept nogil
