# SPDX-License-Identifier: MIT
# What one ACK says of the records in flight: the news of it, from which recovery measures and decides.
#
# It takes a record that was delivered, by SACK or cumulatively, out of the lists and notes what it tells of round trip,
# rate (draft-ietf-ccwg-bbr section 4.1.2), RACK.segment and reordering (RFC 8985 section 6.2), and of losses that were
# none (RFC 3522, RFC 5682). It must not: decide what is lost, nor draw a conclusion from what it notes.
#
# Above: scoreboard, ack, and who reads the news: rtt, control, rack, tlp, repair, undo. Below: transmissions, rtt
# (rtt_min_us).

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# What one ACK has told. Zeroed before; filled by scoreboard and transmissions_acknowledge.
ctypedef struct ack_news_t:
    uint64_t newest_sent_ns                 # of what was delivered, that which was sent last; 0: nothing to measure by
    uint64_t rtt_oldest_ns                  # when that which was acknowledged first, and sent once, was sent; 0: none
    uint64_t rtt_newest_ns                  # ... last, SACKed ones included
    uint64_t rtt_echoed_ns                  # of what was sent again and is acknowledged: when, if the echo answers that
    uint32_t newest_end
    uint32_t newest_delivered               # its P.delivered, and so on
    uint32_t newest_delivered_us
    uint32_t newest_first_sent_us
    uint32_t newest_in_flight
    uint32_t newest_lost
    uint32_t acked                          # bytes, cumulatively
    uint32_t sacked                         # bytes, by SACK
    uint32_t delivered                      # bytes that have left the network for good: both, each once
    uint32_t newly_lost                     # bytes
    uint32_t rtt_us                         # of the newest that measures; 0: none. writer: rtt
    uint32_t ts_ecr                         # with has_ts
    bint has_ts
    bint newest_app_limited
    bint original                           # something sent once, before `recover`, was delivered (F-RTO)
    bint beyond                             # ... after `recover`
    uint32_t fack                           # RACK.fack before this ACK. writer: ack
    bint first_echoed                       # the ACK of something sent again answers its first sending (RFC 3522)
    bint repeated                           # something sent again was acknowledged cumulatively
    bint sack                               # the ACK carries a SACK block above SND.UNA
    bint dsack                              # ... a duplicate SACK (RFC 2883)
    uint32_t dsack_left
    uint32_t dsack_right

# The peer has it, by SACK: it is measured and leaves the lists.
cdef void transmission_deliver(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index,
                               ack_news_t *news) noexcept nogil
# Everything below `ack` is acknowledged and goes. A flight without records is its caller's to release.
cdef void transmissions_acknowledge(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t ack,
                                    ack_news_t *news) noexcept nogil
