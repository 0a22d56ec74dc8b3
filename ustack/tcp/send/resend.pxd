# SPDX-License-Identifier: MIT
# What is sent again: the lost, in the order in which they were found lost, and a tail that may be.
#
# Recovery has decided what is lost; allowance says how much of it the windows let go. It must not: find losses, send
# new data (but for a tail loss probe), move SND.NXT. Every call sends a bounded amount: a turn's budget ends it.
#
# Read first: RFC 6675 section 5, RFC 8985 section 7, RFC 5682, RFC 9293 section 3.8.1. Above: output. Below: probes,
# allowance, segment, progress, repair, losses, transmissions, pacing, path.

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.send.segment cimport send_t

# to_resend is not empty, or FLIGHT_PROBE is set.
cdef send_t send_again(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil
# TCB_REXMIT, and no flight: the segment at SND.UNA.
cdef send_t retransmit_unrecorded(tcp_t *tcp, tcb_t *tcb) noexcept nogil
