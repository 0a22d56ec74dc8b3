# SPDX-License-Identifier: MIT
# The kernel's side of a connection: system calls on its socket, and what their errors mean.
#
# It must not: make upcalls, or know a strategy. Above: accepting, downcalls, turns. Below: connections, base.
# Read first: socket(7), tcp(7), ip(7).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport close_reason_t
from ustack.base.types cimport ip_addr_t
from ustack.kernel.records cimport kernel_conn_t, kernel_t

# What an errno of connect, recv or send says about the end of a connection.
cdef close_reason_t reason_of(int error) noexcept nogil
# A listening socket. Its descriptor, or a negative errno. address NULL: any. *port 0: the kernel chooses, and says it.
cdef int socket_listening(const kernel_t *kernel, const ip_addr_t *address, uint16_t *port,
                          uint32_t backlog) noexcept nogil
# A copy of somebody's listening socket, with this transport's settings. Its descriptor, or a negative errno.
cdef int socket_adopted(const kernel_t *kernel, int listening_fd, ip_addr_t *address, uint16_t *port) noexcept nogil
# A socket that connects to somebody: its descriptor, or a negative errno. Whether it has, READY_OUT and
# socket_error tell.
cdef int socket_connecting(const kernel_t *kernel, const ip_addr_t *address, uint16_t port,
                           uint16_t local_port) noexcept nogil
# SO_ERROR: an errno, which the socket then forgets. 0: none.
cdef int socket_error(int fd) noexcept nogil
# Without an error: connect has come to its end. SO_ERROR alone says nothing in SYN-SENT.
cdef bint socket_is_connected(int fd) noexcept nogil
# Our own address and port, asked for when somebody wants to know.
cdef void socket_name(kernel_conn_t *conn) noexcept nogil
# Bytes that recv would find.
cdef uint32_t socket_receivable(const kernel_t *kernel, const kernel_conn_t *conn) noexcept nogil
# recv: how many bytes, 0 at the peer's FIN, or a negative errno (-EAGAIN: nothing is there). out NULL: consume alone.
cdef ssize_t socket_receive(kernel_t *kernel, kernel_conn_t *conn, uint8_t *out, size_t length) noexcept nogil
# Give the kernel what it takes of the send queue, as the system call's vector points into what was lent. 0, or a
# negative errno. UNWRITABLE is set when its buffer is full.
cdef int socket_flush(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# What close_descriptor does next is a RST (SO_LINGER with a time of 0).
cdef void socket_reset_at_close(int fd) noexcept nogil
cdef int socket_set_option(kernel_t *kernel, kernel_conn_t *conn, int option, uint32_t value) noexcept nogil
cdef uint32_t socket_option(const kernel_t *kernel, const kernel_conn_t *conn, int option) noexcept nogil
# TCP_INFO, as a dict. With the GIL.
cdef dict socket_info(const kernel_conn_t *conn)
