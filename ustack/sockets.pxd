# SPDX-License-Identifier: MIT
# Blocking sockets: what upcalls leave for them, listeners and connections. Made by ustack.Stack.

from libc.stdint cimport uint16_t

from ustack.base.types cimport ip_addr_t
from ustack.driver cimport Engine
from ustack.engine cimport Application
from ustack.tcp.state cimport close_reason_t
from ustack.tcp.tcb cimport flow_key_t, tcb_t, tcp_t


# Turns upcalls into state that blocking calls look at. Received data stays in the stack's queue (backpressure).
cdef class SocketApplication(Application):
    cdef Engine stack
    cdef dict listeners                     # (octets of the address or None, port) -> Listener
    cdef set references                     # the Connections that a tcb's user_data points to


cdef class Listener:
    cdef Engine stack
    cdef SocketApplication sockets          # None: an Application of its own takes the connections
    cdef readonly uint16_t port
    cdef readonly object address
    cdef object queue                       # Connections that wait for accept()
    cdef bint open
    cdef void bind(self, Engine stack, SocketApplication sockets, uint16_t port, object address) except *


cdef class Connection:
    cdef Engine stack
    cdef SocketApplication sockets
    cdef tcb_t *conn                        # NULL once it has ended
    cdef readonly bint established
    cdef bint waiting                       # counted against the listener's backlog
    cdef close_reason_t end                 # why it ended, valid without a tcb
    cdef object rest                        # received before the end and not yet read
    cdef flow_key_t key
    cdef void bind(self, SocketApplication sockets, tcb_t *conn) except *
    cdef void unbind(self, tcp_t *tcp, close_reason_t reason) noexcept
    cdef void take(self) noexcept
    cdef bytes take_bytes(self, tcp_t *tcp, size_t length)
    cdef bint readable(self) except -1
    cdef bint has_room(self) except -1
    cdef void need_conn(self) except *

# How a listener's address is named in SocketApplication.listeners.
cdef bytes address_key(const ip_addr_t *address)
# The exception for a negative tcp_status_t.
cdef object error_of_status(int status)
