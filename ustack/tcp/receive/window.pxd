# SPDX-License-Identifier: MIT
# The receive window: how much the peer may be told that it can send.
#
# It decides how far the right edge may move; output announces it. Read first: RFC 9293 section 3.8.6.2, RFC 7323
# section 2. Below: records. Above: output, ending.

from libc.stdint cimport uint32_t

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# Bytes the peer may be told it can send: never moves the right edge to the left (SHLD-14), nor by less than is
# worth an announcement (MUST-39). Less than 2^16 << rcv_wscale, and a multiple of 1 << rcv_wscale.
cdef uint32_t tcb_receive_window(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
