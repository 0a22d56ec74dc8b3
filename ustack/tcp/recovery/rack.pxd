# SPDX-License-Identifier: MIT
# RACK: RFC 8985 sections 6.1 to 6.3. A segment is lost when one that was sent later has been delivered, and the
# reordering window has passed since.
#
#     delivered ──▶ rack_update         RACK.segment (step 2), reordering (step 3)
#                   rack_note_dsack     the window adapts to duplicate SACKs (step 4)
#                   rack_detect         what is lost now (step 5); the reordering timer for what may be soon
#     the timer ──▶ rack_detect
#     an RTO ─────▶ rack_lose_at_timeout (section 6.3): only what is old enough is lost
#
# The list by time is in the order of sending, so that each call looks at what it marks and one more. Where Linux and
# the RFC wait for the last candidate of the window, the timer here waits for the first: the others follow one by one.
#
# tcb.reordering, across flights: RACK.reo_wnd_mult - 1 (bits 0 to 3) and RACK.reo_wnd_persist - 1 (bits 4 to 7, of
# meaning while the multiplier is more than 1). The window MUST be bounded, which SHOULD be SRTT (section 3.3.2); a
# multiplier of 16, four times the shortest round trip, bounds it once more.
#
# The timers run beside the retransmission timer, which section 8 SHOULD cancel for them: its moment is not put off, so
# that the two need no rule about who comes first. A retransmission found lost is no second congestion event: that MUST
# be one "in the absence of PRR" (section 9.3), and PRR there is.
#
# Peers without SACK: duplicate ACKs are counted instead, up to DUPLICATE_THRESHOLD (repair). Below: transmissions, rtt.
# Above: repair, ack, timers.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.recovery.delivered cimport ack_news_t
from ustack.wire.seq cimport seq_gt

cdef enum:
    DUPLICATE_THRESHOLD = 3                 # DupThresh
    REORDERING_MULTIPLIER_MAX = 16
    REORDERING_PERSISTS = 16                # recoveries

cdef void rack_update(tcp_t *tcp, flight_t *flight, const ack_news_t *news) noexcept nogil
cdef void rack_note_dsack(tcb_t *tcb, flight_t *flight) noexcept nogil
# A recovery is over.
cdef void rack_note_recovered(tcb_t *tcb) noexcept nogil
cdef uint32_t rack_window_us(const tcb_t *tcb, const flight_t *flight) noexcept nogil
# Marks what is lost. Bytes, those of a probe of the path's MTU not counted; the timer is set for what may be lost when
# it fires.
cdef uint32_t rack_detect(tcp_t *tcp, tcb_t *tcb, flight_t *flight, ack_news_t *news) noexcept nogil
cdef void rack_lose_at_timeout(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil


# RACK_sent_after: (t1, seq1) was sent after (t2, seq2).
cdef inline bint rack_sent_after(uint64_t t1, uint32_t seq1, uint64_t t2, uint32_t seq2) noexcept nogil:
    return t1 > t2 or (t1 == t2 and seq_gt(seq1, seq2))


# Step 4: RACK_update_reo_wnd. Microseconds.
cdef inline uint32_t reordering_window_us(bint seen, bint repairing, uint32_t sacked_segs, uint32_t multiplier,
                                          uint32_t min_rtt_us, uint32_t srtt_us) noexcept nogil:
    cdef uint64_t window = <uint64_t>multiplier * min_rtt_us // 4
    if not seen and (repairing or sacked_segs >= DUPLICATE_THRESHOLD):
        return 0
    return <uint32_t>window if window < srtt_us else srtt_us


cdef inline uint32_t reordering_multiplier(uint8_t packed) noexcept nogil:
    return (packed & 15) + 1


# A round with duplicate SACKs: RACK.reo_wnd_mult + 1, kept for sixteen recoveries from now.
cdef inline uint8_t reordering_widened(uint8_t packed) noexcept nogil:
    cdef uint8_t more = packed & 15
    if more < REORDERING_MULTIPLIER_MAX - 1:
        more += 1
    return <uint8_t>((REORDERING_PERSISTS - 1) << 4 | more)


# One recovery less; the last one makes the multiplier 1 again.
cdef inline uint8_t reordering_faded(uint8_t packed) noexcept nogil:
    if packed & 15 == 0 or packed >> 4 == 0:
        return 0
    return <uint8_t>(packed - 16)
