# SPDX-License-Identifier: MIT
# USER, RETRANSMISSION and TIME-WAIT TIMEOUT (RFC 9293 section 3.10.8), persist, delayed ACK, keep-alive.
#
# Above: engine. Below: ending, emit, rtt, tcb. Never imports calls, input or output: what must be sent is left on the
# tcb.

from libc.stdint cimport uint64_t

from ustack.tcp.records.tcb cimport tcp_t

# Everything that is due. now_ns: monotonic.
cdef void tcp_timers(tcp_t *tcp, uint64_t now_ns) noexcept nogil
# When to call it next, at the latest; UINT64_MAX: never.
cdef uint64_t tcp_next_deadline(const tcp_t *tcp) noexcept nogil
