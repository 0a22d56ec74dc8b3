# SPDX-License-Identifier: MIT
"""Probes of the tail, the window, the peer and the path. See probes.pxd for the contract."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.counters cimport RETRANSMITTED_PROBE, SEGMENTS_RETRANSMITTED, TAIL_PROBES_OUT, WINDOW_PROBES_OUT, count
from ustack.tcp.records.flight cimport (
    FLIGHT_PROBE, FLIGHT_PROBED, FLIGHT_PROBE_AGAIN, REXMIT_NONE, REXMIT_PROBE, REXMIT_SIZE, TX_RETRANSMITTED,
    flight_pipe, transmission_at, transmission_bytes, transmission_t)
from ustack.tcp.records.tally cimport tally_resent
from ustack.tcp.records.tcb cimport (
    TCB_ACK_NOW, TCB_FIN_SENT, TCB_PERSIST, TCB_PROBE, TCB_PROBE_UNMEASURED, snd_short_end)
from ustack.tcp.records.trace cimport TRACE_PROBED, TRACE_RETRANSMITTED, TRACE_SENT, trace_note
from ustack.tcp.records.urgent cimport urgent_is_out
from ustack.tcp.recovery.control cimport control_sent
from ustack.tcp.recovery.pacing cimport pacing_allows, pacing_sent
from ustack.tcp.recovery.path cimport path_probe_begin, path_probe_cancel, path_probe_due, path_probe_sent, path_resent
from ustack.tcp.recovery.rtt cimport rexmit_start
from ustack.tcp.recovery.transmissions cimport (
    flight_of, transmission_cancel, transmission_prepare, transmission_resent, transmission_split)
from ustack.tcp.send.allowance cimport override_due, usable_window
from ustack.tcp.send.progress cimport begin_sending, note_sent, note_unsent
from ustack.tcp.send.segment cimport SEND_HELD, SEND_OK, send_record, send_segment, unmarkable, without_fin
from ustack.wire.seq cimport seq_lt
from ustack.wire.tcp cimport FIN, PSH


cdef send_t send_tail_probe(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """RFC 8985 section 7.3: one segment of new data, if there is any and the peer's window has room (cwnd is not
    asked), otherwise the last one again."""
    cdef uint32_t unsent = tcb.snd_end - tcb.snd_nxt if seq_lt(tcb.snd_nxt, tcb.snd_end) else 0
    cdef uint32_t outstanding = tcb.snd_nxt - tcb.snd_una
    cdef uint32_t length = unsent if unsent < tcb.smss else tcb.smss
    cdef uint32_t index = 0, size, data, fin
    cdef transmission_t *record
    cdef send_t sent
    if length and outstanding + length <= tcb.snd_wnd:
        index = transmission_prepare(tcp, tcb)
    if index:
        sent = send_segment(tcp, tcb, tcb.snd_nxt, length, PSH if length == unsent else 0, tcb.tos)
        if sent != SEND_OK:
            transmission_cancel(tcp, tcb, index)
            return sent
        flight.flags = (flight.flags & ~FLIGHT_PROBE) | FLIGHT_PROBED
        note_sent(tcp, tcb, index, length, False)
        trace_note(tcp, tcb, TRACE_SENT, REXMIT_PROBE, tcb.snd_nxt - length, length, 0)
    else:
        index = flight.tail
        record = transmission_at(tcp, flight, index)
        size = record.segment_bytes if record.segment_bytes < tcb.smss else tcb.smss
        data = without_fin(tcb, record.seq, transmission_bytes(record))
        fin = transmission_bytes(record) - data
        length = (data - 1) % size + 1 + fin if data else fin
        if length < transmission_bytes(record) and transmission_split(tcp, flight, index, record.end - length):
            index = flight.tail
            record = transmission_at(tcp, flight, index)
        sent = send_record(tcp, tcb, record.end - length, length)
        if sent != SEND_OK:
            return sent
        flight.flags = (flight.flags & ~FLIGHT_PROBE) | FLIGHT_PROBED | FLIGHT_PROBE_AGAIN
        if tcb.extra:
            path_resent(tcp, tcb, record.seq, transmission_bytes(record))
        transmission_resent(tcp, tcb, flight, index)
        count(tcp.counters, RETRANSMITTED_PROBE)
        tally_resent(tcp, tcb, REXMIT_PROBE, length, length - fin)
        control_sent(tcp, tcb, length)
        trace_note(tcp, tcb, TRACE_RETRANSMITTED, REXMIT_PROBE, record.end - length, length, 0)
    flight.tlp_end = tcb.snd_nxt
    tcb.flags |= TCB_PROBE_UNMEASURED
    count(tcp.counters, TAIL_PROBES_OUT)
    rexmit_start(tcp, tcb)
    return SEND_OK


cdef send_t send_probe(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """A closed window: one byte at SND.UNA, which stays unsent for the books, or the FIN that alone is outstanding
    ("or retransmit", section 3.8.6.1: it needs no room, a receiver that has none may take it). Otherwise a keep-alive:
    nothing at SND.NXT - 1, which the peer must answer (SHLD-12). So may a probe of the window be (window_probe_bytes),
    where nothing has to go again."""
    cdef bint waits = tcb.flags & TCB_PERSIST and seq_lt(tcb.snd_una, tcb.snd_end)
    cdef bint data = waits and (tcp.config.window_probe_bytes or tcb.snd_max != tcb.snd_una)
    cdef bint fin = tcb.flags & TCB_PERSIST and tcb.flags & TCB_FIN_SENT and tcb.snd_una == tcb.snd_end
    cdef flight_t *flight = flight_of(tcp, tcb)
    cdef send_t sent
    if override_due(tcb):
        return SEND_OK                                  # send_data's work
    if data:
        sent = send_segment(tcp, tcb, tcb.snd_una, 1, 0, unmarkable(tcb))
    elif fin:
        sent = send_segment(tcp, tcb, tcb.snd_una, 0, FIN, unmarkable(tcb))
    else:
        sent = send_segment(tcp, tcb, tcb.snd_una - 1, 0, 0, unmarkable(tcb))
    if sent != SEND_OK:
        return sent
    tcb.flags &= ~TCB_PROBE
    if flight != NULL and flight.head and (data or fin):
        transmission_at(tcp, flight, flight.head).flags |= TX_RETRANSMITTED     # Karn: its ACK measures nothing
    if waits:
        if not data and urgent_is_out(tcp, tcb):
            tcb.flags |= TCB_ACK_NOW        # what lies before the window is not looked at for URG: an ACK says it
        count(tcp.counters, WINDOW_PROBES_OUT)
        if data and tcb.snd_max == tcb.snd_una:
            tcb.snd_max = tcb.snd_una + 1               # the peer may take and acknowledge it
    elif fin:
        count(tcp.counters, SEGMENTS_RETRANSMITTED)
        tally_resent(tcp, tcb, REXMIT_SIZE, 1, 0)
    if fin:
        trace_note(tcp, tcb, TRACE_RETRANSMITTED, REXMIT_SIZE, tcb.snd_una, 1, 0)
    else:
        trace_note(tcp, tcb, TRACE_PROBED, REXMIT_NONE, tcb.snd_una if data else tcb.snd_una - 1, data, 0)
    return SEND_OK


cdef send_t send_size_probe(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """A probe of the path's MTU, if one is due (path.pxd): one segment of new data, larger than SMSS. Until the window
    has room for it nothing else is sent (RFC 4821 section 7.4 allows the delay): at most a probe's length of it stays
    empty, for as long as the ACKs of that take."""
    cdef uint32_t length = path_probe_due(tcp, tcb), largest = tcb.smss, index, short_end
    cdef flight_t *flight = flight_of(tcp, tcb)
    cdef uint64_t rate = 0
    cdef send_t sent
    if length == 0:
        return SEND_OK
    if flight == NULL:                      # the first of what is queued: the rest follows it
        rate = begin_sending(tcp, tcb)
        if path_probe_due(tcp, tcb) == 0:   # the restart window is too small
            return SEND_OK
    elif pacing_allows(&flight.pacer, tcp.now_ns, tcb.smss, largest) == 0:
        return SEND_OK
    elif usable_window(tcp, tcb) < length:
        flight.app_limited = (tcb.delivered + flight_pipe(flight)) | 1      # the path could take more
        return SEND_HELD
    index = transmission_prepare(tcp, tcb)
    if index == 0:
        return SEND_OK
    path_probe_begin(tcp, tcb, length)
    # It says nothing of ECN: CWR must be on what is answered with a smaller window if it is lost (RFC 3168 section
    # 6.1.2).
    sent = send_segment(tcp, tcb, tcb.snd_nxt, length, 0, unmarkable(tcb))
    if sent != SEND_OK:
        path_probe_cancel(tcp, tcb)
        return note_unsent(tcp, tcb, index, sent)
    short_end = snd_short_end(tcp, tcb)[0]
    note_sent(tcp, tcb, index, length, False)
    snd_short_end(tcp, tcb)[0] = short_end  # it is not a short one
    path_probe_sent(tcp, tcb, index)
    flight = flight_of(tcp, tcb)
    if rate:
        flight.pacer.rate = rate
        flight.pacer.next_ns = tcp.now_ns
    pacing_sent(&flight.pacer, tcp.now_ns, length, tcb.smss, largest)
    trace_note(tcp, tcb, TRACE_SENT, REXMIT_NONE, tcb.snd_nxt - length, length, 0)
    return SEND_OK
