# SPDX-License-Identifier: MIT
# The SACK scoreboard: what the peer says it has beyond SND.UNA (RFC 2018, RFC 6675), and what it says it has got twice
# (RFC 2883).
#
# It marks records of transmissions; SACKed neighbours become one record, so that a block which is repeated in every ACK
# is passed over in one step, and a flight never has more records than frames were sent, or segments were asked for.
#
#     a block that begins or ends within a super-frame splits it at a multiple of the segment size that it was sent
#     with; its edges are rounded inward: a receiver that lies cannot make more records than there are segments
#     a block beyond SND.NXT, or empty, is ignored and counted; what lies below SEG.ACK is cut off
#     the first block below SEG.ACK, or within the second one, is a duplicate SACK (RFC 2883 section 4)
#     the peer may drop what it has SACKed (RFC 2018 section 8): nothing SACKed is forgotten before SND.UNA passes it,
#     and when the retransmission timer finds SND.UNA SACKed, all of it is lost again (timers, transmissions_renege).
#     Section 8 SHOULD turn all bits off at every timeout (RFC 6675 section 5.1, too); that would send everything again
#     that has arrived, while a peer that has dropped it shows at SND.UNA. Linux does the same
#
# Each block costs one search of O(log n) steps and what it marks. It must not: decide what is lost. Above: ack. Below:
# transmissions.

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.recovery.delivered cimport ack_news_t
from ustack.wire.tcp cimport segment_t

# SEG's SACK option, before SND.UNA moves to `ack`. seg.sack_count > 0, SACK agreed.
cdef void scoreboard_take(tcp_t *tcp, tcb_t *tcb, flight_t *flight, const segment_t *seg,
                          ack_news_t *news) noexcept nogil
