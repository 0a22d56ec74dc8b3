# SPDX-License-Identifier: MIT
# What a connection with something in flight keeps: the record of transmissions, and what recovery remembers about it.
#
#     transmission_t    one frame that was sent and is not acknowledged (a super-frame is one, until SACK splits it):
#                       what, when, and what a delivery-rate sample needs
#     flight_t          their order by sequence and by time, their sums, and the state of the repair. Made with the
#                       first frame, given back when everything is acknowledged: an idle connection has none
#
# The first transmission of a flight lies in it (`first`), so that a small response costs one record. The others come
# from a slab. Plain data: what happens to it is in recovery (transmissions, delivered, losses, and above).
#
# A flight is lone (FLIGHT_LONE) while it is one frame to which nothing has happened: the usual fate of a small
# response, all of which the peer's next segment acknowledges. All that is worth knowing of it is when it was sent and
# in segments of which size; the rest follows from the tcb, which has not moved either. So only the fields marked L are
# written, and flight_of (recovery/transmissions.pxd) writes the others when somebody wants them. flight_raw is for who
# does not.
#
#      SND.UNA                                                                             SND.NXT
#        | 1 sent  | 2 SACKED | 3 LOST | 4 SACKED | 5 sent again | 6 sent     | 7 sent       |
#        head ───── next ───────────────────────────────────────────────────▶ tail       by sequence (and a tree)
#                                        by_time ▶ 1 ▶ 6 ▶ 7 ▶ 5 ◀                        by time of the last sending
#                                      to_resend ▶ 3 ◀                                    in the order to send again
#
# Invariants (flight_check asks them in debug builds): the records are neighbours from SND.UNA to SND.NXT without a hole
# or an overlap; each is in exactly one of three places, the list by time, the list of lost ones, or (SACKED) neither;
# pipe, lost_bytes and sacked_bytes are the sums of theirs.
#
# Below: tcb. Above: deadlines, recovery.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.ilist cimport ilist_hook_t, ilist_t
from ustack.buf.slab cimport slab_at
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

cdef enum:
    TRANSMISSION_FIRST = 0xFFFFFFFFu        # index of the one that lies in the flight
    TRANSMISSIONS_MAX = 32768               # of one connection: 16 MiB in segments of 512 bytes

cdef enum transmission_flags_t:
    TX_USED = 1
    TX_SACKED = 2
    TX_LOST = 4                             # waits to be sent again. Neither: it is in flight
    TX_RETRANSMITTED = 8                    # more than once: an ACK does not say of which (Karn)
    TX_APP_LIMITED = 16                     # sent while the application, not the window, was the limit
    TX_SIZE_PROBE = 32                      # asks for a larger path MTU: its loss is no sign of congestion (path.pxd)
    TX_FOUND = 64                           # it had been lost and was found (undo) since it was sent last
    TX_TIMED = 128                          # LOST, and told by time: counting duplicates would not have found it (rack)

ctypedef struct transmission_t:             # one cache line
    uint32_t seq                            # 0   first byte
    uint32_t end                            # 4   after the last; a SYN or FIN counts one
    uint64_t sent_ns                        # 8   when it was sent last
    uint32_t first_us                       # 16  when it was sent first
    uint32_t delivered                      # 20  C.delivered when it was sent last: P.delivered of
    uint32_t delivered_us                   # 24  draft-ietf-ccwg-bbr section 4.1.2, and so on
    uint32_t first_sent_us                  # 28
    uint32_t in_flight                      # 32  bytes, itself included
    uint32_t lost                           # 36  C.lost
    uint32_t lower                          # 40  the tree: children by index; 0: none
    uint32_t higher                         # 44
    uint32_t next                           # 48  by sequence
    ilist_hook_t order                      # 52  in by_time or to_resend. SACKED: see sacked_segments
    uint16_t segment_bytes                  # 60  SMSS when it was sent: where it may be split
    uint8_t flags                           # 62  transmission_flags_t
    uint8_t sends                           # 63  how often it was sent, at most 255

cdef enum repair_state_t:
    REPAIR_NONE = 0
    REPAIR_FAST = 1                         # fast recovery: the window is PRR's
    REPAIR_RTO = 2                          # after a retransmission timeout: slow start
    REPAIR_SIZE = 3                         # segments have become smaller: sent again, no sign of congestion

# Why something is sent again.
cdef enum rexmit_cause_t:
    REXMIT_NONE = 0                         # it is not: it goes for the first time
    REXMIT_FAST                             # three duplicate ACKs, or as many segments SACKed (RFC 5681, RFC 6675)
    REXMIT_RACK                             # time: what was sent later has arrived (RFC 8985), where counting fails
    REXMIT_PROBE                            # a tail loss probe
    REXMIT_RTO                              # the retransmission timer
    REXMIT_SIZE                             # segments have become smaller, or the window was closed: no congestion
    REXMIT_CAUSES

cdef enum flight_flags_t:
    FLIGHT_SEND_ONE = 1                     # output sends the first lost one again, whatever the window says
    FLIGHT_PROBE = 2                        # output sends a tail loss probe
    FLIGHT_PROBED = 4                       # one is out: tlp_end is valid
    FLIGHT_PROBE_AGAIN = 8                  # ... and carried what had been sent already (TLP.is_retrans)
    FLIGHT_DSACK_ROUND = 16                 # dsack_round is valid
    FLIGHT_RECOVER = 32                     # recover is valid: the first sign of disorder has been seen, or a repair
    FLIGHT_UNDO = 64                        # the window before the latest repair is known
    FLIGHT_STAMPED = 128                    # resent_ts is valid
    FLIGHT_TIMEOUT_UNDONE = 256             # the RTO was spurious: srtt_before waits for a sample (RFC 4015)
    FLIGHT_REORDER = 512                    # DEADLINE_PROBE is the reordering timer, not the probe's
    FLIGHT_ROUND = 1024                     # round_end is valid
    FLIGHT_MARKED = 2048                    # mark_end is valid (ecn)
    FLIGHT_ECHO = 4096                      # the ACK in hand says ECE: no window grows by it
    FLIGHT_MARKED_REPAIR = 8192             # ECE has come since the latest repair began: its window does not come back
    FLIGHT_LONE = 16384                     # only the fields marked L are written
    FLIGHT_RENEGED = 32768                  # the latest repair began with the loss of what had been SACKed: no rates

cdef enum frto_t:                           # RFC 5682 section 3.1
    FRTO_NONE = 0
    FRTO_FIRST = 1                          # step 2: the first ACK after the timeout decides whether to go on
    FRTO_SECOND = 2                         # step 3: new data has been sent, the second ACK decides

# When the next frame may go (recovery/pacing.pxd).
ctypedef struct pacer_t:                    # 16 bytes; zeroed: not paced
    uint64_t rate                           # bytes per second; 0: not paced
    uint64_t next_ns

ctypedef struct flight_t:
    # ---- line 0: every flight
    uint32_t head                           # 0   by sequence
    uint32_t tail                           # 4
    uint32_t root                           # 8   of the tree
    ilist_t by_time                         # 12  in flight, the oldest first
    ilist_t to_resend                       # 20  LOST. L: `first`, 0
    uint32_t records                        # 28  L: 1; 0 while the frame is being made
    uint32_t pipe                           # 32  bytes in flight: neither SACKED nor LOST
    uint32_t delivered_us                   # 36  C.delivered_time: the latest delivery, or the flight's beginning
    uint32_t first_sent_us                  # 40  C.first_sent_time
    uint32_t app_limited                    # 44  C.app_limited: until so much is delivered; 0: not
    uint16_t flags                          # 48  flight_flags_t. L: no other
    uint8_t repair                          # 50  repair_state_t. L
    uint8_t frto                            # 51  frto_t. L
    uint32_t duplicate_acks                 # 52  without SACK, since SND.UNA moved
    uint32_t duplicate_bytes                # 56  what they say has left the network; 0 with SACK
    uint32_t sacked_bytes                   # 60  L
    # ---- lines 1 and 2: flights with trouble
    uint64_t rack_sent_ns                   # 64  RFC 8985: RACK.xmit_ts; 0: nothing is delivered yet
    uint32_t rack_end                       # 72  RACK.end_seq
    uint32_t rack_rtt_us                    # 76  RACK.rtt
    uint32_t rack_fack                      # 80  RACK.fack: the highest delivered, with rack_sent_ns
    uint32_t dsack_round                    # 84
    uint32_t sacked_segs                    # 88  RACK.segs_sacked
    uint32_t lost_bytes                     # 92  LOST, not sent again
    uint32_t lost                           # 96  C.lost: bytes marked in all
    uint32_t recover                        # 100 RecoveryPoint: SND.NXT when the repair began (or disorder was seen)
    uint32_t prr_delivered                  # 104 RFC 9937
    uint32_t prr_out                        # 108
    uint32_t recover_fs                     # 112
    uint32_t tlp_end                        # 116 RFC 8985 section 7: TLP.end_seq
    uint32_t probe_tick                     # 120 of DEADLINE_PROBE. L: as ever, while it is set
    uint32_t round_end                      # 124 RFC 6298 takes one sample per round trip: from what lies beyond
    uint32_t next_round                     # 128 C.delivered at which a round trip has passed
    uint32_t cwnd_before                    # 132 of the latest repair
    uint32_t ssthresh_before                # 136
    uint32_t undo_bytes                     # 140 sent again in it and not reported as duplicates
    uint32_t resent_ts                      # 144 timestamp of the first retransmission in it (RFC 3522)
    uint32_t srtt_before_us                 # 148 RFC 4015
    uint32_t rttvar_before_us               # 152
    uint32_t piece                          # 156 send piece where the latest retransmission ended; 0: unknown
    uint32_t frto_left                      # 160 bytes of new data that F-RTO lets go; outside of a repair: mark_end
    uint32_t seed                           # 164 of the tree's priorities
    uint32_t undo_una                       # 168 SND.UNA when the latest repair began
    uint32_t pace_tick                      # 172 of DEADLINE_PACE
    pacer_t pacer                           # 176 L
    # ---- line 3
    transmission_t first                    # 192 L: sent_ns, segment_bytes

# Of a connection with something in flight. It may be lone.
cdef inline flight_t *flight_raw(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return <flight_t *>slab_at(&tcp.flights, tcb.flight)


cdef inline transmission_t *transmission_at(const tcp_t *tcp, const flight_t *flight, uint32_t index) noexcept nogil:
    if index == TRANSMISSION_FIRST:
        return <transmission_t *>&flight.first
    return <transmission_t *>slab_at(&tcp.transmissions, index)


cdef inline uint32_t transmission_bytes(const transmission_t *sent) noexcept nogil:
    return sent.end - sent.seq


# Of a SACKED record, which is in no list and so has no use for its hook: how many segments SACK has told of.
cdef inline uint32_t *sacked_segments(transmission_t *sent) noexcept nogil:
    return &sent.order.previous


# SND.NXT when the window last shrank, for a mark or a loss: until more is acknowledged, no echo shrinks it again
# (ecn.pxd). Valid with FLIGHT_MARKED, and while nothing is repaired: F-RTO is part of a repair.
cdef inline uint32_t *mark_end(flight_t *flight) noexcept nogil:
    return &flight.frto_left


# Why this record, which is LOST, goes again now. Outside of a repair: a probe of the path's MTU was lost; the peer is
# heard again after timeouts (ack, take_life); what has been found once stays lost (transmissions_found).
cdef inline rexmit_cause_t rexmit_cause(const tcb_t *tcb, const flight_t *flight,
                                        const transmission_t *sent) noexcept nogil:
    if flight.repair == REPAIR_SIZE or (flight.repair == REPAIR_NONE and sent.flags & TX_SIZE_PROBE):
        return REXMIT_SIZE
    if flight.repair == REPAIR_RTO or (flight.repair == REPAIR_NONE and tcb.backoff):
        return REXMIT_RTO
    return REXMIT_RACK if sent.flags & TX_TIMED else REXMIT_FAST


# Bytes that are in the network: RFC 6675's pipe. Without SACK each duplicate ACK says that a segment has left it.
cdef inline uint32_t flight_pipe(const flight_t *flight) noexcept nogil:
    return flight.pipe - flight.duplicate_bytes
