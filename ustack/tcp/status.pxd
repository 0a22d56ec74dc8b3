# SPDX-License-Identifier: MIT
# STATUS (RFC 9293 section 3.10.6): what a TCP holds, by the names of its variables, for observers. Reads, changes
# nothing.
#
# Inside the gate: a record that is looked at must not end meanwhile. Above: stack, transport. Below: control, rtt,
# window, tally, state, tcb.

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# One connection. What each name means: ustack.blocking.info, and connections() of the stack.
cdef dict connection_status(const tcp_t *tcp, const tcb_t *tcb)
# Every record of these kinds ("listener", "half-open", "connection", "time-wait"), a dict each.
cdef list status_rows(tcp_t *tcp, object kinds)
