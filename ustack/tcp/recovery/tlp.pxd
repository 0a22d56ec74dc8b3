# SPDX-License-Identifier: MIT
# Tail loss probes: RFC 8985 section 7. The last segments of a flight have nothing behind them whose delivery would show
# their loss; after two round trips without an ACK one segment is sent to ask for it.
#
#     new data is sent, or SND.UNA moves ──▶ tlp_schedule    PTO = 2 * SRTT, and the delayed ACK's time when one segment
#                                                            is all that is out (7.2)
#     the PTO ──▶ tlp_expired ──▶ output sends: new data, or the last segment again (7.3); then the RTO is left to come
#     an ACK ───▶ tlp_acknowledged    did the probe repair something? Then a control must know (7.4)
#
# The PTO is at least config.tail_probe_min_ns, 2 ms, of which the RFC says nothing: where a round trip takes 100 us, a
# peer that waits for a processor is no loss. Linux waits for two ticks of its clock, 2 to 8 ms.
#
# Where the RTO comes before the PTO, the RTO's moment is the PTO's (7.2: the lesser of the two): tlp_instead says so
# once. Only with SACK, outside of repairs, while nothing is SACKed, and one at a time.
#
# Below: flight, deadlines, rtt. Above: ack, timers, output.

from libc.stdint cimport uint32_t

from ustack.tcp.records.flight cimport (
    FLIGHT_PROBE, FLIGHT_PROBED, REPAIR_NONE, flight_t)
from ustack.tcp.records.tcb cimport OPT_SACK, TCB_PROBE_REPEATED, TCB_PROBE_UNMEASURED, tcb_t, tcp_t
from ustack.tcp.recovery.delivered cimport ack_news_t

cdef enum:
    WORST_DELAYED_ACK_US = 200000           # TLP.max_ack_delay, which 7.2 leaves to us: as in Linux

# The flight may be lone.
cdef void tlp_schedule(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil
# The retransmission timer has come: a probe first? Then it is asked for.
cdef bint tlp_instead(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil
# The PTO: a probe is asked for.
cdef void tlp_expired(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil
# SEG.ACK = ack, before anything else is decided. duplicate: a duplicate ACK without SACK. True: a loss was repaired by
# the probe alone.
cdef bint tlp_acknowledged(tcp_t *tcp, flight_t *flight, uint32_t ack, const ack_news_t *news,
                           bint duplicate) noexcept nogil


# 7.2, without the RTO's bound. Microseconds; one_segment: no more is out.
cdef inline uint32_t tlp_timeout_us(uint32_t srtt_us, bint one_segment) noexcept nogil:
    if srtt_us == 0:
        return 1000000
    return 2 * srtt_us + (WORST_DELAYED_ACK_US if one_segment else 0)


# 7.3: MUST NOT while a probe is out (TLP.end_seq), or until a round trip has been measured since the last one. Without
# the second a path that has become slow would be probed for each segment, and no ACK would say so (Karn).
cdef inline bint tlp_may(const tcb_t *tcb, const flight_t *flight) noexcept nogil:
    return (tcb.options & OPT_SACK and not tcb.flags & (TCB_PROBE_REPEATED | TCB_PROBE_UNMEASURED)
            and flight.repair == REPAIR_NONE and flight.sacked_bytes == 0
            and not flight.flags & (FLIGHT_PROBED | FLIGHT_PROBE) and flight.to_resend.first == 0)
