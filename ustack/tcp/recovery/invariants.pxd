# SPDX-License-Identifier: MIT
# Whether a flight is as flight.pxd says: its sums, its order, its lists, and that a timer runs.
#
# It looks at every record: for ensure() and tests; release builds never call it. It must not: change anything. Read
# first: flight.pxd. Above: ack, output. Below: flight.

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

cdef bint flight_check(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
