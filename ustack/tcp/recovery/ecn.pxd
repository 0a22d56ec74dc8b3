# SPDX-License-Identifier: MIT
# Explicit Congestion Notification: RFC 3168 section 6.1, with the gentler answer of RFC 8511 (the controls' on_ecn).
# What a mark does to the window is here for accurate feedback (RFC 9768, accecn.pxd) as well.
#
#     agreed      TCB_ECN, by opening and input: marks that arrive are reported. ECT(0) in tcb.tos as well: our own new
#                 data says that it may be marked. Both, unless a SYN of ours went without the offer (section 6.1.1)
#     receiver    a segment with data that was marked (CE) ──▶ TCB_ECE_OWED, and an ACK at once: every segment says ECE
#                 until data comes with CWR
#     sender      an ACK with ECE ──▶ the control's on_ecn, once per window of data, and TCB_CWR_OWED: the next new data
#                 says CWR. So does the first after any other reduction
#
# One window of data: what was in flight at the reduction. SND.NXT of then is mark_end, and an echo counts again when
# more than that is acknowledged: CWR travels with what lies right behind it, and until it has arrived the receiver
# repeats itself. In a new flight the same is true of SND.UNA. A loss among the same data shrinks nothing again, nor
# does an echo while a loss is repaired.
#
# What this trusts the peer with: a receiver that hides marks gets more than its share, as one does that acknowledges
# what was lost (section 7; RFC 3540's nonce, which could have told, is historic by RFC 8311). The queue that marks
# drops what it cannot hold, and losses count. Echoes that never end shrink the window once per round trip, to the
# control's least.
#
# It must not: send, find losses. Below: control. Above: accecn, repair, ack, input, output, timers.
# Read first: RFC 3168 sections 5 and 6.1, RFC 8311 section 4, RFC 8511 section 3.

from libc.stdint cimport uint32_t

from ustack.tcp.records.flight cimport FLIGHT_MARKED, flight_t, mark_end
from ustack.tcp.records.tcb cimport TCB_CWR_OWED, TCB_ECE_OWED, TCB_ECN, tcb_t, tcp_t
from ustack.tcp.recovery.transmissions cimport flight_of
from ustack.wire.ipv4 cimport IPV4_ECN_ECT0, IPV4_ECN_MASK
from ustack.wire.seq cimport seq_lt
from ustack.wire.tcp cimport CWR, ECE, header_t, segment_t

cdef enum ecn_heard_t:
    ECN_NOTHING = 0
    ECN_ECHO = 1                            # this ACK makes no window larger (section 6.1.2)
    ECN_REDUCED = 2                         # ... and has made it smaller
    ECN_STOP = 3                            # the window was one segment already: nothing more before the timer

# An acceptable segment with CE, ECE or CWR, of a connection that is not in RFC 9768's mode, before its acknowledgment
# is taken; what it says is for ecn_settle.
cdef ecn_heard_t ecn_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
# Accurate feedback: SEG, newer than what was heard before, tells of marks that were not known.
cdef ecn_heard_t ecn_marks_arrive(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
# ... and after.
cdef void ecn_settle(tcp_t *tcp, tcb_t *tcb, ecn_heard_t heard) noexcept nogil
# What a header says while TCB_ECN_SAYS has something. fresh: it carries new data, and says in its IP header that it may
# be marked.
cdef void ecn_say(tcp_t *tcp, tcb_t *tcb, header_t *header, bint fresh) noexcept nogil


# Both ends will. sends: our data says so.
cdef inline void ecn_agree(tcb_t *tcb, bint sends) noexcept nogil:
    tcb.flags |= TCB_ECN
    if sends:
        tcb.tos |= IPV4_ECN_ECT0


cdef inline void ecn_refuse(tcb_t *tcb) noexcept nogil:
    tcb.flags &= ~TCB_ECN
    tcb.tos &= ~IPV4_ECN_MASK


# The window has become smaller for a loss or a timeout: CWR says so, too (section 6.1.2; not in RFC 9768's mode,
# section 3.1.5).
cdef inline void ecn_note_reduced(tcb_t *tcb) noexcept nogil:
    if tcb.tos & IPV4_ECN_MASK and tcb.flags & TCB_ECN:
        tcb.flags |= TCB_CWR_OWED


# What is first in flight was sent before the window shrank for a mark: its loss is the same congestion.
cdef inline bint ecn_has_reduced(const tcb_t *tcb, flight_t *flight) noexcept nogil:
    return flight.flags & FLIGHT_MARKED and seq_lt(tcb.snd_una, mark_end(flight)[0])


# A repair has ended: what was in flight when it began has been answered.
cdef inline void ecn_repair_ended(const tcb_t *tcb, flight_t *flight) noexcept nogil:
    if tcb.tos & IPV4_ECN_MASK:
        flight.flags |= FLIGHT_MARKED
        mark_end(flight)[0] = flight.recover
