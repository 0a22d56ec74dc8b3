# SPDX-License-Identifier: MIT
# A record is found lost, or not lost after all: it moves between the list by time and the list of what is sent again.
#
# C.lost (draft-ietf-ccwg-bbr section 4.1.2) counts each loss once, a probe of the path's MTU never. It must not: decide
# what is lost (rack, repair, timers do), nor send. Constant time for one record; the others say what they cost.
#
# Read first: flight.pxd. Above: rack, repair, undo, timers, ack, send. Below: transmission_lists.

from libc.stdint cimport uint32_t

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# In flight until now: it is lost, and waits behind the others that are.
cdef void transmission_lose(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil
# The first record, which is not SACKed: it is lost, and the first to be sent again.
cdef void transmission_lose_first(tcp_t *tcp, flight_t *flight) noexcept nogil
# Everything that waits to be sent again is in flight after all: the loss was none. Each record once for each time that
# it is sent, so that a peer who says so again and again has not all of them marked again and again: what has been found
# before stays lost, and so does what was sent before it. again: all the same.
cdef void transmissions_found(tcp_t *tcp, flight_t *flight, bint again) noexcept nogil
# The peer no longer has what it had SACKed (RFC 2018 section 8): all of that is lost, and C.delivered goes back by it,
# and what records remember of C.delivered, so that nothing is measured against more than there is. Until the repair
# ends no ACK gives a delivery rate (FLIGHT_RENEGED): what the peer has kept after all would arrive in it a second time.
# Linux gives none either, but counts such bytes twice.
cdef void transmissions_renege(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil
