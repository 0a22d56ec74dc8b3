# SPDX-License-Identifier: MIT
# What a connection sends, and in which order: RST, SYN, what is lost, probes, new data, ACKs. The engine pulls it once
# a burst.
#
# The way of new data and of ACKs is here, the others in the room send/. Above: engine. Below: send, emit, receive,
# recovery, ending, records. Never imports calls, input or timers.
#
# Read first: RFC 9293 sections 3.8.6 (windows, silly windows), 3.7.4 (Nagle), 3.10.2; RFC 5681 section 4.

from libc.stdint cimport uint64_t

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

cdef enum output_t:
    OUTPUT_DONE = 0          # nothing more can go now
    OUTPUT_BLOCKED = 1       # the ring is full: call again after the next submit

# tcb: any state; does what its flags and queues ask for. May end the connection.
cdef output_t tcp_output(tcp_t *tcp, tcb_t *tcb, uint64_t now_ns) noexcept nogil
