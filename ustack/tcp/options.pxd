# SPDX-License-Identifier: MIT
# Options of one connection that few have (sockopts.pxd): setting and asking. What each means: application.pxd.
#
# An option is heeded where it matters: cork by send/allowance, quick ACKs by output, DF by recovery/path, the receive
# buffer by receive/window, the MSS by opening and send/handshake, keep-alive by deadlines and timers. It must not:
# send. Above: engine/transport. Below: sockopts, life, marks, autotune's record, deadlines.

from libc.stdint cimport uint32_t

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# call_status_t: CALL_UNSUPPORTED for an option that is not here; CALL_STATE: the connection is closed, or the SYN has
# gone (OPTION_MSS); CALL_NO_MEMORY: there is no record for it, nothing has changed.
cdef int tcp_option_set(tcp_t *tcp, tcb_t *tcb, int option, uint32_t value) noexcept nogil
# What is in force; 0 for an option that is not here.
cdef uint32_t tcp_option(const tcp_t *tcp, const tcb_t *tcb, int option) noexcept nogil
