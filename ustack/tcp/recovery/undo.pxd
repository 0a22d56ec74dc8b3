# SPDX-License-Identifier: MIT
# Repairs that were none: finding out, and taking the window back.
#
#     undo_begin      the window before a repair is remembered
#     undo_resent     something is sent again in it
#     Eifel detection (RFC 3522)      an ACK that moves SND.UNA over something sent again echoes a timestamp from before
#                                     its first retransmission: the original has arrived (delivered, first_echoed).
#                                     Step (5): not with a duplicate SACK, nor when it acknowledges everything, unless
#                                     the peer sends duplicate SACKs (it has, within RACK's memory of them). All ACKs
#                                     may have been lost, and that is congestion, too
#     F-RTO (RFC 5682 section 3.1)    after a timeout: new data instead of more retransmissions, and the second ACK
#                                     acknowledges what was never sent again
#     DSACK (RFC 3708, RFC 2883)      everything that was sent again is reported as a duplicate; what is reported from
#                                     before the repair was sent again by another one, or by the network
#     undo_restore    nothing is lost, the control hears on_spurious, the RTO becomes more patient (RFC 4015) with the
#                     next sample, and stays backed off until then. The window is what it was, as in Linux. RFC 4015
#                     step (9) would let it grow again from FlightSize + min(bytes_acked, IW); here what was lost is
#                     in flight again, so that no more than that is free
#
# F-RTO's step 2 lets two segments of new data go where there are any and the peer's window has room; otherwise the
# timeout is taken for what it says. What the first ACK acknowledges must not reach `recover`.
#
# Below: transmissions, control. Above: repair, output.

from libc.stdint cimport uint32_t

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.recovery.delivered cimport ack_news_t

cdef enum frto_verdict_t:
    FRTO_GO_ON = 0                          # nothing decided, or nothing to decide
    FRTO_SEND_NEW = 1
    FRTO_LOST = 2                           # it was a loss: conventional recovery
    FRTO_SPURIOUS = 3

cdef void undo_begin(tcb_t *tcb, flight_t *flight) noexcept nogil
cdef void undo_resent(const tcp_t *tcp, flight_t *flight, uint32_t length) noexcept nogil
# The ACK shows that the latest repair was none. moved: it moves SND.UNA.
cdef bint undo_detects(const tcp_t *tcp, const tcb_t *tcb, flight_t *flight, const ack_news_t *news,
                       bint moved) noexcept nogil
cdef void undo_restore(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil


# One step of F-RTO, SACK-enhanced (RFC 5682 section 3.1), with plain answers to its questions.
# step: frto_t.  moved: the ACK moves SND.UNA.  complete: it reaches `recover`.  original: it acknowledges, or SACKs,
# something that was sent once and before the timeout.  repeated: it acknowledges something that was sent again.
# beyond: something that was sent after the timeout.  can_send: there is new data, and room in the peer's window.
# selective: with SACK (section 3.1); without (section 2.1) a duplicate decides at once.
cdef inline frto_verdict_t frto_step(int step, bint moved, bint complete, bint original, bint repeated,
                                     bint beyond, bint can_send, bint selective) noexcept nogil:
    if step == 1:                           # step 2
        if not moved and selective:
            return FRTO_GO_ON               # "stay in step 2 and wait for the next new acknowledgment"
        if not moved or complete or not can_send:
            return FRTO_LOST
        return FRTO_SEND_NEW
    if step == 2:                           # step 3
        if original and not repeated and not (beyond and selective):
            return FRTO_SPURIOUS
        return FRTO_LOST
    return FRTO_GO_ON
