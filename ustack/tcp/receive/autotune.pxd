# SPDX-License-Identifier: MIT
# How large a connection's receive window may become: dynamic right-sizing.
#
# A connection begins with config.rcv_buffer_bytes. Its receiver measures how many bytes the application takes in one
# round trip; the window is made twice that, since a sender in slow start sends twice as much in the next. It never
# becomes smaller, and never more than config.rcv_buffer_max_bytes; while receive memory is short it does not grow.
# A program that does not read, a peer that sends slowly and a short path all keep what they began with.
#
# It measures only while segments of full size come: an exchange of small messages never makes a record. The record is
# a part of extra_t (tcb.pxd), and goes back when the stream has become thin before the window had grown.
#
# Read first: M. Fisk and W. Feng, "Dynamic Right-Sizing in TCP" (2001). RFC 7323 section 4.1 (RTT by timestamps).
# Above: input. Below: records, window.

from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.wire.tcp cimport segment_t

# A segment of full size has been accepted; RCV.NXT does not count it yet.
cdef void autotune_note(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
