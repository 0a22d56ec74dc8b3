# SPDX-License-Identifier: MIT
# What is sent to learn something: is the tail lost, the window open, the peer there, how large may segments be.
#
# Each is asked for by who waits for the answer (tlp, timers, path), goes once, and says so on the flight or the tcb. It
# must not: decide when to probe. Read first: RFC 8985 section 7.3 (tail), RFC 9293 sections 3.8.6.1 (closed window) and
# 3.8.4 (keep-alive), RFC 4821 section 7 (size). Above: resend, output. Below: allowance, segment, progress, path,
# transmissions.

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.send.segment cimport send_t

# FLIGHT_PROBE, and nothing waits to be sent again.
cdef send_t send_tail_probe(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil
# TCB_PROBE.
cdef send_t send_probe(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# tcb.extra. SEND_HELD: nothing else of what is new may go before it.
cdef send_t send_size_probe(tcp_t *tcp, tcb_t *tcb) noexcept nogil
