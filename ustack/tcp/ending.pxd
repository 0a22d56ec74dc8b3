# SPDX-License-Identifier: MIT
# How connections end: the tcb leaves the table, its application is told, TIME-WAIT lives on as a mini-record.
#
# Above: calls, input, timers, output. Below: tcb, demux, control. The engine frees the tcb itself after on_closed.

from libc.stdint cimport uint32_t

from ustack.tcp.records.state cimport close_reason_t
from ustack.tcp.records.tcb cimport syn_received_t, tcb_t, tcp_t

# CLOSED. Lent buffers go back now; unread data stays until on_closed has returned.
cdef void connection_end(tcp_t *tcp, tcb_t *tcb, close_reason_t reason) noexcept nogil
# TIME-WAIT: for the application the connection is over (CLOSE_NORMAL), the record answers for 2 * MSL (MUST-13).
cdef void connection_time_wait(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void time_wait_restart(tcp_t *tcp, uint32_t index) noexcept nogil
cdef void time_wait_remove(tcp_t *tcp, uint32_t index) noexcept nogil
# A half-open record leaves its table, list and timer, and is freed. keep_flow: the caller gives the flow another
# record.
cdef void syn_received_remove(tcp_t *tcp, uint32_t index, bint keep_flow) noexcept nogil
