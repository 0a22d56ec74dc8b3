# SPDX-License-Identifier: MIT
# STATUS (RFC 9293 section 3.10.6): a connection's variables by their names, for observers. Reads, changes nothing.
#
# Above: stack, sockets. Below: control, rtt, state, tcb.

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

cdef dict connection_status(const tcp_t *tcp, const tcb_t *tcb)
