# SPDX-License-Identifier: MIT
# SEGMENT ARRIVES (RFC 9293 section 3.10.7).
#
# The order of the steps, and the way of most segments, are here; the other steps in the room arrival/. Above: engine.
# Below: arrival, opening, ack, ending, emit, demux, tcb. Never imports calls, timers or output: what must be sent is
# left on the tcb (TCB_ACK_NOW, TCB_ACK_DELAYED, TCB_REXMIT, TCB_ABORT), what must be told is an event on it.

from libc.stdint cimport uint64_t

from ustack.ip.layer cimport packet_t
from ustack.tcp.arrival.text cimport delivery_t
from ustack.tcp.records.tcb cimport tcp_t

# packet: a TCP segment addressed to us. now_ns: monotonic, never decreases. Every segment that is not used is
# counted under one DROP_* reason.
cdef void tcp_input(tcp_t *tcp, const packet_t *packet, uint64_t now_ns, delivery_t *delivery) noexcept nogil
