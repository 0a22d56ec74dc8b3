# SPDX-License-Identifier: MIT
# The records of a flight in the order of their sequence numbers: a treap, as in records/runs.
#
# Finding, entering and removing one costs O(log n) steps, expected over priorities that no peer can see or choose.
# TRANSMISSION_STEPS counts them. It must not: know what has become of a record, nor keep the flight's sums.
#
# Above: transmissions, delivered, scoreboard. Below: flight.

from libc.stdint cimport uint32_t

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcp_t

# The record at `index` has its seq, and becomes a node.
cdef void tree_insert(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil
# It is one, and is none after this. What lies beside it in the sequence, and in the lists, is untouched.
cdef void tree_remove(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil
# The record that holds `seq`, which lies within [SND.UNA, SND.NXT).
cdef uint32_t transmission_floor(tcp_t *tcp, flight_t *flight, uint32_t seq) noexcept nogil
