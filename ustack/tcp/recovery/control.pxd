# SPDX-License-Identifier: MIT
# A connection and its congestion control: which one, its record, how it is called (tcp/cc/contract.pxd).
#
#     tcb.cc         the control's number, and so the index of its table in tcp.cc; with CC_WAITING until the first data
#                    is about to go, or, where the control begins late, until it is needed: there the tables have
#                    default bodies and no record. CC_HEARS_SENT: frames are many, and most controls do not count them
#     tcb.cc_word    the index of its record in tcp.cc_records[number], 0: none (of CC_FIRST, which does without where
#                    there is no memory); a record of STATE_IN_PLACE bytes or fewer is the word itself
#
# An idle connection that never sent has no record, nor one whose responses never filled its initial window, if its
# control begins late (NewReno and CUBIC do). Who has one keeps it for ten to twenty seconds
# (CONTROL_REST_NS) after the last data: then a control that has a `rest` keeps one word of it (tcb.cc_word, with
# CC_WAITING), and the record goes. How long ago the last data was is not written down: the records of a control are a
# list, in the order in which they were last looked at, and one that comes round is asked whether a flight has begun
# since (CC_USED; with CC_WAITING: whether data has flowed at all).
#
# Above: ack, path, output, timers, ending, calls. Below: tcb, cc. It must not: decide when.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.types cimport us_of
from ustack.buf.slab cimport slab_at
from ustack.tcp.cc.contract cimport CC_MAX, STATE_IN_PLACE, ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.records.accecn cimport accecn_of, tcb_is_accurate
from ustack.tcp.records.configuration cimport PACING_OF_SLOW_START
from ustack.tcp.records.flight cimport (
    FLIGHT_ECHO, FLIGHT_RENEGED, flight_pipe, flight_raw, flight_t, transmission_at)
from ustack.tcp.records.tcb cimport (
    CC_HEARS_MORE, CC_HEARS_SENT, CC_PACED, CC_TABLE, CC_USED, CC_WAITING, OPT_SACK, tcb_t, tcp_t)
from ustack.tcp.recovery.delivered cimport ack_news_t
from ustack.tcp.recovery.pacing cimport PACING_FRAME_MAX, PACING_STRETCH_SEGS, pacing_set_rate
from ustack.tcp.recovery.rtt cimport rtt_min_us
from ustack.wire.seq cimport seq_diff, seq_ge, seq_lt

# Make a registered control (its number) one of this TCP's, so that connections may have it. 0, or -1: no memory.
cdef int control_provide(tcp_t *tcp, int number) noexcept nogil
# Choose the control of a connection that is being made; `number` has been provided.
cdef void control_choose(tcb_t *tcb, int number) noexcept nogil
# Data is about to go, or more has happened than the default bodies answer: the control gets its record and begins, or
# wakes (True). Without one the connection falls back to CC_FIRST (CONTROLS_REPLACED). Only while CC_WAITING.
cdef bint control_begin(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Look at records that are due: those of connections that are idle go. How many were looked at.
cdef uint32_t controls_rest(tcp_t *tcp) noexcept nogil
# When the next one is due; UINT64_MAX: there is none.
cdef uint64_t controls_rest_ns(const tcp_t *tcp) noexcept nogil
# Another control from now on, from the present cwnd and ssthresh. 0, or -1: there is no record for it, nothing changed.
cdef int control_change(tcp_t *tcp, tcb_t *tcb, int number) noexcept nogil
# The connection has ended: the record goes back.
cdef void control_end(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Records of all controls in use.
cdef uint32_t control_records_in_use(const tcp_t *tcp) noexcept nogil
# Out of line, to keep the usual way short: control_sent, control_lost, control_start and view_store.
cdef void control_hears_sent(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil
cdef void control_hears_lost(tcp_t *tcp, tcb_t *tcb, const flight_t *flight, uint32_t index) noexcept nogil
cdef uint64_t control_hears_start(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void window_widen(tcb_t *tcb) noexcept nogil
cdef void pace_by_window(tcp_t *tcp, tcb_t *tcb, cc_view_t *view) noexcept nogil
cdef void pace_slow_start(tcp_t *tcp, tcb_t *tcb, cc_view_t *view) noexcept nogil
# The number and the name of the connection's control.
cdef int control_number(const tcb_t *tcb) noexcept nogil
cdef const char *control_name(const tcb_t *tcb) noexcept nogil


cdef inline const cc_ops_t *control_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return tcp.cc[tcb.cc & CC_TABLE]


# For an event that the default bodies do not answer: one that begins late begins with it. (Not with a SYN or a FIN,
# before data has flowed.)
cdef inline const cc_ops_t *control_awake(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.cc & CC_WAITING and tcb.cc & CC_USED:
        control_begin(tcp, tcb)
    return control_of(tcp, tcb)


# The window was what held the sender back (RFC 9293 section 3.8.2, RFC 7661), as far as the bytes that were in flight
# tell. In slow start half a window is enough: it is twice what it was when the first of them went. (Linux's half is
# more than that: tcp_is_cwnd_limited. GROWTH_BY_ROUND is 1.)
cdef inline bint window_limits(const tcp_t *tcp, const tcb_t *tcb, uint32_t prior_in_flight) noexcept nogil:
    return (prior_in_flight + tcb.smss >= tcb.cwnd
            or (tcb.cwnd < tcb.ssthresh and prior_in_flight * 2 >= tcb.cwnd + tcp.config.window_growth))


# An ACK is nothing to a control that has not begun: the window does not limit, or it is a SYN's or a FIN's.
cdef inline bint control_sleeps(const tcp_t *tcp, const tcb_t *tcb, uint32_t prior_in_flight) noexcept nogil:
    return tcb.cc & CC_WAITING and not (tcb.cc & CC_USED and window_limits(tcp, tcb, prior_in_flight))


# FlightSize (RFC 5681 section 2) for a control that is told of a loss, a mark or an ACK: `now`, or what was in flight
# when output last came by, if that was more and more is waiting to go. newest: what was when the newest delivered frame
# was sent, if nothing is left.
#
# ACKs of one turn come before its output (engine/poll): what the first of them lets go is not sent when the next ones
# are looked at, and the flight seems smaller than the window though nothing but the window limits it. So the next ones
# would not let the window grow, and a loss or a mark among them would be answered by a part of FlightSize. (RFC 9438
# section 4.6 lets cwnd stand for FlightSize, where it cannot grow beyond what is used; Linux does that.) Not where the
# peer's window was the limit: then output has come by since, and found nothing to send. Nor at a timeout (timers): an
# ACK that leaves less in flight restarts the timer (RFC 6298 (5.3)), so that output comes by before it.
cdef inline uint32_t flight_size(const tcp_t *tcp, const tcb_t *tcb, const flight_t *flight, uint32_t now,
                                 uint32_t newest) noexcept nogil:
    cdef uint32_t after_output
    if (not seq_lt(tcb.snd_nxt, tcb.snd_end)
            or seq_diff(tcb.snd_wl2 + tcb.snd_wnd, tcb.snd_nxt) < <int32_t>tcb.smss):
        return now
    after_output = transmission_at(tcp, flight, flight.tail).in_flight if flight.tail else newest
    return now if now > after_output else after_output


# With GROWTH_BY_ROUND: what was in flight when the newest frame was sent, or when the ACK came, if that was more. While
# nothing is sent all ACKs of a flight find the same, and let a slow start grow to twice of it. (Linux remembers the
# largest flight of a round trip: max_packets_out.) newest: as above.
cdef inline uint32_t flight_of_round(const tcp_t *tcp, const flight_t *flight, uint32_t now,
                                     uint32_t newest) noexcept nogil:
    cdef uint32_t sent = transmission_at(tcp, flight, flight.tail).in_flight if flight.tail else newest
    return now if now > sent else sent


cdef inline void *control_state(tcp_t *tcp, tcb_t *tcb, const cc_ops_t *ops) noexcept nogil:
    if ops.state_bytes <= STATE_IN_PLACE:
        return &tcb.cc_word
    return slab_at(&tcp.cc_records[tcb.cc & (CC_MAX - 1)], tcb.cc_word) if tcb.cc_word else NULL


cdef inline void view_load(const tcp_t *tcp, const tcb_t *tcb, cc_view_t *view) noexcept nogil:
    view.cwnd = tcb.cwnd
    view.ssthresh = tcb.ssthresh
    view.smss = tcb.smss
    view.srtt_us = tcb.srtt_us
    view.now_ns = tcp.now_ns
    view.pacing_rate = flight_raw(tcp, tcb).pacer.rate if tcb.flight else 0
    view.hold_samples = False
    view.seed = 0
    view.delivered_total = tcb.delivered


# A window of less than a segment would stop the connection, or be overridden whole (RFC 9293 section 3.8.6.2.1).
cdef inline void view_store(tcb_t *tcb, const cc_view_t *view) noexcept nogil:
    tcb.cwnd = view.cwnd
    tcb.ssthresh = view.ssthresh
    if tcb.cwnd < tcb.smss:
        window_widen(tcb)


# ... and the rate, into the flight.
cdef inline void view_store_rate(tcp_t *tcp, tcb_t *tcb, cc_view_t *view) noexcept nogil:
    if tcb.cc & CC_PACED:
        pace_by_window(tcp, tcb, view)
    if tcb.flight and view.pacing_rate != flight_raw(tcp, tcb).pacer.rate:
        pacing_set_rate(&flight_raw(tcp, tcb).pacer, tcp.now_ns, view.pacing_rate, tcb.smss, PACING_FRAME_MAX)


# Before the control hears of an ACK of `acked` bytes (0: in a repair, where they say nothing of bursts). Where the
# setting `pacing` is PACING_OF_SLOW_START a connection is paced from the first ACK that lets go of more than an unpaced
# slow start may grow by, until slow start ends.
cdef inline void control_pace(tcp_t *tcp, tcb_t *tcb, cc_view_t *view, uint32_t acked) noexcept nogil:
    if tcp.config.pacing == PACING_OF_SLOW_START and (tcb.cc & CC_PACED or acked > PACING_STRETCH_SEGS * tcb.smss):
        pace_slow_start(tcp, tcb, view)


# The window in a repair is the control's own, not PRR's.
cdef inline bint control_owns_repair(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return tcb.cc & CC_HEARS_MORE and control_of(tcp, tcb).owns_repair


# The first data of a flight is about to go. The pacing rate that it goes at; 0: none.
cdef inline uint64_t control_start(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    return control_hears_start(tcp, tcb) if tcb.cc & (CC_HEARS_MORE | CC_PACED) else 0


# A frame has been found lost.
cdef inline void control_lost(tcp_t *tcp, tcb_t *tcb, const flight_t *flight, uint32_t index) noexcept nogil:
    if tcb.cc & CC_HEARS_MORE:
        control_hears_lost(tcp, tcb, flight, index)


# One ACK, SND.UNA has moved from `una`. prior: bytes that were in flight before it, or after the last output, if that
# was more and more waits.
cdef inline void sample_fill(tcp_t *tcp, tcb_t *tcb, flight_t *flight, const ack_news_t *news, ack_sample_t *sample,
                             uint32_t una, uint32_t prior) noexcept nogil:
    sample_fill_plain(tcp, tcb, sample, news.acked, tcb.snd_nxt - una, prior)
    sample.delivered = news.delivered
    sample.in_flight = flight_pipe(flight)
    sample.rtt_us = news.rtt_us
    sample.newly_lost = news.newly_lost
    sample.delivered_total = tcb.delivered
    sample.lost_total = flight.lost
    sample_rate(flight, news, sample)
    if flight.flags & (FLIGHT_ECHO | FLIGHT_RENEGED):
        sample_amend(tcp, tcb, flight, sample)


# An ACK with ECE, and one in the repair of what the peer has reneged on.
cdef inline void sample_amend(tcp_t *tcp, const tcb_t *tcb, const flight_t *flight,
                              ack_sample_t *sample) noexcept nogil:
    if flight.flags & FLIGHT_ECHO:
        sample.cwnd_limited = False
        sample.ecn_marks = accecn_of(tcp, tcb).newly_marked if tcb_is_accurate(tcb) else 1
    if flight.flags & FLIGHT_RENEGED:
        sample.rate_delivered = 0
        sample.rate_interval_us = 0
        sample.rate_in_flight = 0
        sample.rate_lost = 0


# What any ACK has.
cdef inline void sample_fill_plain(const tcp_t *tcp, const tcb_t *tcb, ack_sample_t *sample, uint32_t acked,
                                   uint32_t outstanding, uint32_t prior) noexcept nogil:
    memset(sample, 0, sizeof(ack_sample_t))
    sample.acked = acked
    sample.delivered = acked
    sample.flight = outstanding
    sample.prior_in_flight = prior
    sample.min_rtt_us = rtt_min_us(tcb)
    sample.selective = tcb.options & OPT_SACK
    sample.unsent = seq_diff(tcb.snd_end, tcb.snd_nxt)
    sample.cwnd_limited = window_limits(tcp, tcb, prior)


# In how long as much was delivered as has been since the newest delivered segment was sent, of which there is one:
# what it took to send, or to be acknowledged.
cdef inline uint32_t rate_interval_us(const flight_t *flight, const ack_news_t *news) noexcept nogil:
    cdef uint32_t send_us = us_of(news.newest_sent_ns) - news.newest_first_sent_us
    cdef uint32_t ack_us = flight.delivered_us - news.newest_delivered_us
    return send_us if send_us > ack_us else ack_us


# draft-ietf-ccwg-bbr section 4.1.2.3: the rate at which what was sent with the newest delivered segment has arrived.
cdef inline void sample_rate(flight_t *flight, const ack_news_t *news, ack_sample_t *sample) noexcept nogil:
    if news.newest_sent_ns == 0:
        return
    sample.rate_prior_delivered = news.newest_delivered
    sample.rate_delivered = sample.delivered_total - news.newest_delivered
    sample.rate_interval_us = rate_interval_us(flight, news)
    sample.rate_in_flight = news.newest_in_flight
    sample.rate_lost = flight.lost - news.newest_lost
    sample.is_app_limited = news.newest_app_limited
    if sample.rate_interval_us < sample.min_rtt_us:
        sample.rate_interval_us = 0         # shorter than any path: an ACK of something sent again
    if seq_ge(news.newest_delivered, flight.next_round):
        flight.next_round = sample.delivered_total
        sample.round_start = True


# A frame has gone out and SND.NXT says so.
cdef inline void control_sent(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    if tcb.cc & CC_HEARS_SENT:
        control_hears_sent(tcp, tcb, length)
