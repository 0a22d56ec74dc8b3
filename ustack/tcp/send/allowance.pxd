# SPDX-License-Identifier: MIT
# How much may go now: the windows, Nagle's algorithm, silly windows, and what is lost before what is new.
#
# It looks and answers. It must not: change anything, nor send. Inline, because the answer is a comparison or two.
#
# Read first: RFC 9293 sections 3.7.4 (Nagle), 3.8.6 (windows, silly windows); RFC 6675 section 5 (pipe); RFC 5682
# (F-RTO). Above: progress, resend, probes, output. Below: transmissions, path, records.

from libc.stdint cimport uint32_t

from ustack.ip.layer cimport ip_payload_max
from ustack.tcp.records.flight cimport (
    FLIGHT_SEND_ONE, FRTO_SECOND, TX_LOST, flight_pipe, flight_raw, flight_t, transmission_at)
from ustack.tcp.records.sockopts cimport OWN_HOLDS, sockopts_flags
from ustack.tcp.records.tcb cimport (
    TCB_CWR_OWED, TCB_FIN_QUEUED, TCB_NODELAY, TCB_PERSIST, TCB_PROBE, snd_short_end, tcb_header_bytes, tcb_max_window,
    tcb_t, tcp_t)
from ustack.tcp.records.urgent cimport urgent_is_out
from ustack.tcp.recovery.path cimport path_fragments
from ustack.tcp.recovery.transmissions cimport flight_of

# Not before what is lost has been sent again (but for F-RTO, which wants that), nor behind what has no record.
cdef inline bint may_send_new(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const flight_t *flight
    if tcb.flight == 0:
        return tcb.snd_nxt == tcb.snd_una
    flight = flight_raw(tcp, tcb)
    return flight.to_resend.first == 0 or flight.frto == FRTO_SECOND


# What may be sent for the first time: cwnd less what is in flight (RFC 6675 section 5), within SND.WND. What is
# SACKed, or reported by duplicates, is not in flight: limited transmit (RFC 3042) needs nothing else.
cdef inline uint32_t usable_window(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const flight_t *flight = flight_of(tcp, tcb)
    cdef uint32_t outstanding = tcb.snd_nxt - tcb.snd_una
    cdef uint32_t in_flight = flight_pipe(flight) if flight != NULL else outstanding
    cdef uint32_t room = tcb.cwnd - in_flight if in_flight < tcb.cwnd else 0
    cdef uint32_t window = tcb.snd_wnd - outstanding if outstanding < tcb.snd_wnd else 0
    if flight != NULL and flight.frto == FRTO_SECOND:
        room = flight.frto_left
    return room if room < window else window


# Bytes of data in one frame: SMSS, or a whole number of them where the link segments (which numbers the packets by
# itself: not where DF is clear). CWR goes on one segment alone: not every device that segments knows to leave it on
# the first; and one that does would take that bit of RFC 9768's counter from the others. An urgent pointer counts from
# its own segment, and devices copy the first one's.
cdef inline uint32_t largest_segment(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint32_t header_bytes = tcb_header_bytes(tcb)
    cdef uint32_t room = ip_payload_max(tcp.ip) - header_bytes
    if not tcp.ip.link.caps.tx_segmentation or room < 2u * tcb.smss or path_fragments(tcp, tcb) or (
            tcb.flags & TCB_CWR_OWED) or urgent_is_out(tcp, tcb):
        return tcb.smss
    return room - room % tcb.smss


cdef inline bint short_in_flight(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint32_t in_flight = tcb.snd_nxt - tcb.snd_una
    return in_flight != 0 and snd_short_end(tcp, tcb)[0] - tcb.snd_una - 1 < in_flight


# How much of the queue goes into the next frame; 0: wait. RFC 9293 sections 3.7.4 (SHLD-7) and 3.8.6.2.1.
#
# Nagle's algorithm in Minshall's form (RFC 9293 appendix A.3), as Linux has it: the short end of what was written
# waits only while a short segment sent before is not acknowledged. As section 3.7.4 is written it would wait for any
# data in flight, so the last part of every write of several segments would wait a round trip, or for the peer's
# delayed ACK. A stream of small writes is held together all the same: one short segment per round trip.
cdef inline uint32_t segment_length(const tcp_t *tcp, const tcb_t *tcb, uint32_t unsent,
                                    uint32_t largest) noexcept nogil:
    cdef uint32_t usable = usable_window(tcp, tcb)
    cdef uint32_t length = unsent if unsent < usable else usable
    cdef bint hold_tail = not tcb.flags & (TCB_NODELAY | TCB_FIN_QUEUED) and short_in_flight(tcp, tcb)
    if tcb.extra and sockopts_flags(tcp, tcb) & OWN_HOLDS and not tcb.flags & TCB_FIN_QUEUED:
        hold_tail = True                                # what comes within 200 ms goes with it (await_window)
    if hold_tail and urgent_is_out(tcp, tcb):
        hold_tail = False                               # as on Linux
    if length >= tcb.smss:
        if length > largest:
            return largest
        if length < unsent or hold_tail:
            return length - length % tcb.smss           # whole segments; a short one only ends the queue
        return length
    if length == unsent:                                # the end of the queue, less than a segment
        return 0 if hold_tail else length
    if tcb.snd_nxt == tcb.snd_una and length >= tcb_max_window(tcb) // 2:
        return length                                   # a peer with a small buffer (rule 3)
    return 0


# Section 3.8.6.2.1 rule (4): min(D, U) goes all the same. That is the window: of less data, or more room,
# segment_length makes a segment.
cdef inline bint override_due(const tcb_t *tcb) noexcept nogil:
    return (tcb.flags & (TCB_PROBE | TCB_PERSIST) == (TCB_PROBE | TCB_PERSIST) and tcb.snd_wnd > 0
            and tcb.snd_una == tcb.snd_max)


# How much from `seq`, which is lost, may go: what cwnd leaves, one segment at least if the repair asks for it; and of
# the peer's window, into which SND.UNA always fits (RFC 9293 SHLD-16).
cdef inline uint32_t lost_window(const tcb_t *tcb, const flight_t *flight, uint32_t seq) noexcept nogil:
    cdef uint32_t in_flight = flight_pipe(flight)
    cdef uint32_t room = tcb.cwnd - in_flight if in_flight < tcb.cwnd else 0
    cdef uint32_t before = seq - tcb.snd_una
    cdef uint32_t window = tcb.snd_wnd - before if before < tcb.snd_wnd else 0
    if flight.frto == FRTO_SECOND or tcb.flags & TCB_PERSIST:
        return 0
    if flight.flags & FLIGHT_SEND_ONE and room < tcb.smss:
        room = tcb.smss
    if before == 0 and window < tcb.smss:
        window = tcb.smss if tcb.snd_wnd or flight.flags & FLIGHT_SEND_ONE else 0
    return room if room < window else window


# The window has shrunk, the first to be sent again lies beyond it, and what is at SND.UNA waits behind: that goes
# first. It always fits (RFC 9293 section 3.8.6, SHLD-16), and its ACK moves the window on; what lies beyond MAY go
# (MAY-7), and would be refused.
cdef inline bint beyond_window(const tcp_t *tcp, const tcb_t *tcb, const flight_t *flight,
                               uint32_t index) noexcept nogil:
    return (index != flight.head and tcb.snd_wnd != 0
            and transmission_at(tcp, flight, flight.head).flags & TX_LOST
            and transmission_at(tcp, flight, index).seq - tcb.snd_una >= tcb.snd_wnd)
