# SPDX-License-Identifier: MIT
"""What a connection sends, decided once a burst, after everything that arrived has been processed (MUST-58, MUST-59).

    tcp_output ──┬── TCB_ABORT                abort: RST, CLOSED
                 ├── SYN-SENT, SYN-RECEIVED   send_syn
                 ├── what is lost             send_lost: as much of it as the window has room for
                 ├── a quiet tail             send_tail_probe (RFC 8985 section 7.3)
                 ├── TCB_PROBE                send_probe: closed window or keep-alive
                 ├── the send queue           send_data: new data, FIN; first send_size_probe, if one is due
                 └── an ACK still owed        send_acks

A data segment is built from the lent buffers straight into the transmit slot. Where the link segments, one frame
carries up to 64 KB; its length is then a multiple of SMSS unless it ends the queue.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.counters cimport (
    PURE_ACKS_OUT, RETRANSMITTED_FAST, RETRANSMITTED_PROBE, RETRANSMITTED_RTO, SEGMENTS_RETRANSMITTED, TAIL_PROBES_OUT,
    WINDOW_OVERRIDES, WINDOW_PROBES_OUT, count)
from ustack.base.debug cimport ensure
from ustack.ip.layer cimport IP_NO_ROUTE, IP_OK, IP_RING_FULL, ip_status_t
from ustack.tcp.emit cimport advertised_mss, advertised_wscale, emit_bare, emit_reset_of, first_window
from ustack.tcp.ending cimport connection_end
from ustack.tcp.receive.sack_blocks cimport sack_blocks
from ustack.tcp.receive.window cimport tcb_receive_window
from ustack.tcp.records.configuration cimport ECN_OFFER
from ustack.tcp.records.deadlines cimport deadline_is_set, deadline_set
from ustack.tcp.records.duplicates cimport duplicate_of
from ustack.tcp.records.flight cimport (
    FLIGHT_PROBE, FLIGHT_PROBED, FLIGHT_PROBE_AGAIN, FLIGHT_SEND_ONE, REPAIR_FAST, REPAIR_NONE, REPAIR_RTO, TX_LOST,
    TX_RETRANSMITTED, flight_pipe, flight_raw, flight_t, transmission_at, transmission_bytes, transmission_t)
from ustack.tcp.records.marks cimport note_writable
from ustack.tcp.records.rx_queue cimport rx_queue_t
from ustack.tcp.records.state cimport (
    CLOSED, CLOSE_ABORTED, CLOSE_NET_UNREACHABLE, SYN_RECEIVED, SYN_SENT, close_reason_t)
from ustack.tcp.records.tcb cimport (
    DEADLINE_ACK, DEADLINE_REXMIT, OPT_SACK, OPT_TIMESTAMPS, OPT_WSCALE, TCB_ABORT, TCB_ACK_DELAYED, TCB_ACK_NOW,
    TCB_ECN, TCB_ECN_SAYS, TCB_FIN_QUEUED, TCB_FIN_SENT, TCB_PERSIST, TCB_PROBE, TCB_PROBE_UNMEASURED, TCB_REXMIT,
    rx_queue_of, snd_short_end, tcb_bare_seq)
from ustack.tcp.records.timestamps cimport timestamp_for
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.control cimport control_sent
from ustack.tcp.recovery.ecn cimport ecn_say
from ustack.tcp.recovery.invariants cimport flight_check
from ustack.tcp.recovery.losses cimport transmission_lose_first
from ustack.tcp.recovery.pacing cimport pacing_allows, pacing_quantum, pacing_sent
from ustack.tcp.recovery.path cimport (
    path_probe_begin, path_probe_cancel, path_probe_due, path_probe_sent, path_refresh, path_resent)
from ustack.tcp.recovery.repair cimport repair_note_sent
from ustack.tcp.recovery.rtt cimport rexmit_start
from ustack.tcp.recovery.transmissions cimport (
    flight_of, transmission_cancel, transmission_merge, transmission_prepare, transmission_resent, transmission_sent,
    transmission_split)
from ustack.tcp.send.allowance cimport (
    beyond_window, largest_segment, lost_window, may_send_new, override_due, segment_length, usable_window)
from ustack.tcp.send.progress cimport await_pace, await_window, begin_sending, note_sent, note_unsent
from ustack.tcp.send.segment cimport (
    SEND_BLOCKED, SEND_FAILED, SEND_HELD, SEND_OK, fill_header, send_record, send_segment, send_t, unmarkable)
from ustack.wire.seq cimport seq_gt, seq_lt
from ustack.wire.tcp cimport (
    ACK, CWR, ECE, FIN, HAS_MSS, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, PSH, SYN, header_t)


cdef enum:
    SACK_BLOCKS_WITH_TIMESTAMPS = 3
    SACK_BLOCKS_MAX = 4
    MAX_DUPLICATE_ACKS_AT_ONCE = 3          # what a peer without SACK needs to start its repair


cdef output_t tcp_output(tcp_t *tcp, tcb_t *tcb, uint64_t now_ns) noexcept nogil:
    cdef const flight_t *flight
    cdef send_t sent
    tcp.now_ns = now_ns
    if tcb.state == CLOSED:
        return OUTPUT_DONE
    if tcb.flags & TCB_ABORT:
        return OUTPUT_BLOCKED if abort(tcp, tcb) == SEND_BLOCKED else OUTPUT_DONE
    if tcb.state == SYN_SENT or tcb.state == SYN_RECEIVED:
        return OUTPUT_BLOCKED if send_syn(tcp, tcb) == SEND_BLOCKED else OUTPUT_DONE
    if tcb.extra:
        path_refresh(tcp, tcb)
    if tcb.flight:
        flight = flight_raw(tcp, tcb)
        if flight.to_resend.first or flight.flags & FLIGHT_PROBE:
            sent = send_again(tcp, tcb, flight_of(tcp, tcb))
            if sent != SEND_OK:
                return finish(tcp, tcb, sent)
    elif tcb.flags & TCB_REXMIT:
        sent = retransmit_unrecorded(tcp, tcb)
        if sent != SEND_OK:
            return finish(tcp, tcb, sent)
    if tcb.flags & TCB_PROBE:
        sent = send_probe(tcp, tcb)
        if sent != SEND_OK:
            return finish(tcp, tcb, sent)
    sent = send_data(tcp, tcb)
    if sent != SEND_OK:
        return finish(tcp, tcb, sent)
    return finish(tcp, tcb, send_acks(tcp, tcb))


cdef inline output_t finish(tcp_t *tcp, tcb_t *tcb, send_t sent) noexcept nogil:
    ensure(flight_check(tcp, tcb))
    note_writable(tcp, tcb)                 # what went out for the first time is not unsent any more
    if sent == SEND_BLOCKED:
        return OUTPUT_BLOCKED
    if sent == SEND_FAILED and tcb.flags & TCB_ABORT and abort(tcp, tcb) == SEND_BLOCKED:
        return OUTPUT_BLOCKED
    return OUTPUT_DONE


cdef send_t abort(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Section 3.10.5: RST in every synchronized state; what was queued is gone. A peer in SYN-SENT has nothing to
    reset."""
    if tcb.state != SYN_SENT and emit_reset_of(tcp, tcb) == IP_RING_FULL:
        return SEND_BLOCKED
    connection_end(tcp, tcb, <close_reason_t>tcb.close_reason if tcb.close_reason else CLOSE_ABORTED)
    return SEND_OK


cdef send_t send_syn(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """SYN, or SYN-ACK after a simultaneous open. Offers everything; in SYN-RECEIVED only what the peer offered too."""
    cdef header_t header
    cdef ip_status_t status
    cdef bint answering = tcb.state == SYN_RECEIVED
    cdef uint32_t index
    # Again: after a timeout, or because the peer's SYN has come again, so that our SYN-ACK was lost.
    if tcb.snd_nxt != tcb.snd_una and not tcb.flags & TCB_REXMIT and not (tcb.flags & TCB_ACK_NOW and answering):
        return SEND_OK
    memset(&header, 0, sizeof(header))
    header.seq = tcb.snd_una
    header.flags = SYN
    if answering and tcb.flags & TCB_ECN:
        header.flags |= ECE
    elif not answering and tcp.config.ecn == ECN_OFFER and tcb.backoff == 0:
        header.flags |= ECE | CWR           # not again: what dropped it may do so for them (RFC 3168 section 6.1.1.1)
    header.window = first_window(tcp)
    header.has = HAS_MSS
    header.mss = advertised_mss(tcp)
    if tcp.config.sack and (not answering or tcb.options & OPT_SACK):
        header.has |= HAS_SACK_PERMITTED
    if tcp.config.timestamps and (not answering or tcb.options & OPT_TIMESTAMPS):
        header.has |= HAS_TIMESTAMPS
        header.ts_val = timestamp_for(tcp, &tcb.key)
        header.ts_ecr = tcb.ts_recent if answering else 0
    if tcp.config.window_scaling and (not answering or tcb.options & OPT_WSCALE):
        header.has |= HAS_WSCALE
        header.wscale = advertised_wscale(tcp)
    if answering:
        header.flags |= ACK
        header.ack = tcb.rcv_nxt
        tcb.flags &= ~TCB_ACK_NOW
    status = emit_bare(tcp, &tcb.key, &header, tcb.ttl, tcb.tos, &tcb.neighbour)
    if status == IP_NO_ROUTE:
        connection_end(tcp, tcb, CLOSE_NET_UNREACHABLE)
        return SEND_FAILED
    if status == IP_RING_FULL:
        return SEND_BLOCKED
    if status != IP_OK:                     # the timer will try again
        rexmit_start(tcp, tcb)
        return SEND_FAILED
    tcb.flags &= ~TCB_REXMIT
    if tcb.snd_nxt == tcb.snd_una:
        index = transmission_prepare(tcp, tcb)
        if index:
            transmission_sent(tcp, tcb, index, tcb.snd_una + 1)
        rexmit_start(tcp, tcb)
    else:
        count(tcp.counters, SEGMENTS_RETRANSMITTED)
        if tcb.flight:
            transmission_resent(tcp, tcb, flight_of(tcp, tcb), flight_of(tcp, tcb).head)
    tcb.snd_nxt = tcb.snd_una + 1
    tcb.snd_max = tcb.snd_nxt
    return SEND_OK


cdef send_t send_data(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t largest
    cdef uint32_t unsent, length, index, most
    cdef uint64_t rate = 0
    cdef uint8_t tos = tcb.tos
    cdef send_t sent
    cdef bint fin
    if not may_send_new(tcp, tcb):
        return SEND_OK
    largest = tcb.smss
    if tcb.snd_end - tcb.snd_una > largest:
        if tcb.extra:
            sent = send_size_probe(tcp, tcb)
            if sent != SEND_OK:
                return sent if sent != SEND_HELD else SEND_OK
        largest = largest_segment(tcp, tcb)
    while True:
        unsent = tcb.snd_end - tcb.snd_nxt if seq_lt(tcb.snd_nxt, tcb.snd_end) else 0
        if unsent == 0:
            if not tcb.flags & TCB_FIN_QUEUED or tcb.snd_nxt != tcb.snd_end:
                return SEND_OK
            tos = unmarkable(tcb)                       # a FIN alone
        if unsent > 0 and tcb.snd_nxt == tcb.snd_una and tcb.snd_nxt == tcb.snd_max:
            rate = begin_sending(tcp, tcb)
        most = largest
        if rate:
            most = pacing_quantum(rate, tcb.smss, largest)
        elif tcb.flight:
            most = pacing_allows(&flight_raw(tcp, tcb).pacer, tcp.now_ns, tcb.smss, largest)
            if most == 0 and not override_due(tcb):
                if unsent == 0 or segment_length(tcp, tcb, unsent, largest):
                    await_pace(tcp, tcb)
                return SEND_OK
        length = segment_length(tcp, tcb, unsent, most if most else largest)
        if length == 0 and unsent > 0:
            if not override_due(tcb):
                await_window(tcp, tcb)
                return SEND_OK
            length = tcb.snd_wnd if tcb.snd_wnd < unsent else unsent
            count(tcp.counters, WINDOW_OVERRIDES)
        fin = tcb.flags & TCB_FIN_QUEUED and length == unsent
        index = transmission_prepare(tcp, tcb)
        if index == 0 and (tcb.flight or tcb.snd_nxt != tcb.snd_una):
            return SEND_OK                              # an ACK gives a record back, or there is no flight (see there)
        sent = send_segment(tcp, tcb, tcb.snd_nxt, length,
                            (PSH if length == unsent and length > 0 else 0) | (FIN if fin else 0),
                            tos)
        if sent != SEND_OK:
            return note_unsent(tcp, tcb, index, sent)
        note_sent(tcp, tcb, index, length, fin)
        if index:
            if rate:
                flight_raw(tcp, tcb).pacer.rate = rate
                flight_raw(tcp, tcb).pacer.next_ns = tcp.now_ns
                rate = 0
            pacing_sent(&flight_raw(tcp, tcb).pacer, tcp.now_ns, length, tcb.smss, largest)
        if fin:
            tcb.flags |= TCB_FIN_SENT
            return SEND_OK
        if tcp.turn.budget.stage_left <= 0:
            work_add(tcp, tcb)              # a wide window is not one turn's work: others come first
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
    return SEND_OK


cdef send_t send_again(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    cdef send_t sent = send_lost(tcp, tcb, flight)
    if sent == SEND_OK and flight.flags & FLIGHT_PROBE:
        if flight.sacked_bytes or flight.to_resend.first or flight.repair != REPAIR_NONE or tcb.snd_wnd == 0:
            flight.flags &= ~FLIGHT_PROBE   # asked for before a busy turn or a full ring, and answered since
            return SEND_OK
        return send_tail_probe(tcp, tcb, flight)
    return sent


cdef send_t send_lost(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """What is lost goes again, in the order in which it was found lost, as the window allows: whole segments, and
    super-frames of them. A record of which only a part may go is split; without memory for that its first segments go
    and the record counts as sent again: the rest will be found lost again."""
    cdef uint32_t largest = largest_segment(tcp, tcb), index, length, data, room, most
    cdef transmission_t *record
    cdef send_t sent
    while flight.to_resend.first:
        index = flight.to_resend.first
        record = transmission_at(tcp, flight, index)
        room = lost_window(tcb, flight, record.seq)
        most = largest
        if not flight.flags & FLIGHT_SEND_ONE:
            most = pacing_allows(&flight.pacer, tcp.now_ns, tcb.smss, largest)
        if most == 0:
            if room >= tcb.smss:
                await_pace(tcp, tcb)
            return SEND_OK
        if room > most:
            room = most
        if room > transmission_bytes(record):
            join_lost(tcp, tcb, flight, index, room)
        length = transmission_bytes(record)
        data = length - (1 if seq_gt(record.end, tcb.snd_end) else 0)       # a FIN takes no room
        if data > room or room == 0:
            if room < tcb.smss:
                if beyond_window(tcp, tcb, flight, index):
                    transmission_lose_first(tcp, flight)
                    continue
                return SEND_OK
            length = room - room % tcb.smss
            transmission_split(tcp, flight, index, record.seq + length)
        sent = send_record(tcp, tcb, record.seq, length)
        if sent != SEND_OK:
            return sent
        note_resent(tcp, tcb, flight, index, length)
        pacing_sent(&flight.pacer, tcp.now_ns, length, tcb.smss, largest)
        if tcp.turn.budget.stage_left <= 0:
            work_add(tcp, tcb)
            return SEND_OK
    return SEND_OK


cdef void join_lost(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index, uint32_t room) noexcept nogil:
    """What follows and is lost, too, goes in the same frame, as far as there is room: small writes become whole
    segments (RFC 9293 section 3.8.1 allows to repacketize), segments a super-frame."""
    cdef transmission_t *record = transmission_at(tcp, flight, index)
    while transmission_bytes(record) < room and record.next:
        if not transmission_at(tcp, flight, record.next).flags & TX_LOST:
            return
        transmission_merge(tcp, flight, index)


cdef void note_resent(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index, uint32_t length) noexcept nogil:
    cdef bint of_probe = tcb.extra and path_resent(tcp, tcb, transmission_at(tcp, flight, index).seq, length)
    flight.flags &= ~FLIGHT_SEND_ONE
    if flight.repair == REPAIR_FAST:
        count(tcp.counters, RETRANSMITTED_FAST)
    elif flight.repair == REPAIR_RTO:
        count(tcp.counters, RETRANSMITTED_RTO)
    transmission_resent(tcp, tcb, flight, index)
    repair_note_sent(tcp, flight, length, True)
    if (index == flight.head and (flight.repair == REPAIR_FAST or of_probe)
            or not deadline_is_set(tcb, DEADLINE_REXMIT)):
        rexmit_start(tcp, tcb)              # it has a whole RTO from now on
    control_sent(tcp, tcb, length)


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
    else:
        index = flight.tail
        record = transmission_at(tcp, flight, index)
        size = record.segment_bytes if record.segment_bytes < tcb.smss else tcb.smss
        fin = 1 if seq_gt(record.end, tcb.snd_end) else 0
        data = transmission_bytes(record) - fin
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
        control_sent(tcp, tcb, length)
    flight.tlp_end = tcb.snd_nxt
    tcb.flags |= TCB_PROBE_UNMEASURED
    count(tcp.counters, TAIL_PROBES_OUT)
    rexmit_start(tcp, tcb)
    return SEND_OK


cdef send_t retransmit_unrecorded(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """The segment at SND.UNA, of a frame for which there was no flight (transmissions.pxd). SND.NXT stays."""
    cdef uint32_t length = tcb.snd_nxt - tcb.snd_una
    cdef send_t sent
    if length > tcb.smss:
        length = tcb.smss
    if length:
        sent = send_record(tcp, tcb, tcb.snd_una, length)
        if sent != SEND_OK:
            return sent
        control_sent(tcp, tcb, length)
    tcb.flags &= ~TCB_REXMIT
    return SEND_OK


cdef send_t send_probe(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """A closed window: one byte at SND.UNA, which stays unsent for the books, or the FIN that alone is outstanding
    ("or retransmit", section 3.8.6.1: it needs no room, a receiver that has none may take it). Otherwise a keep-alive:
    nothing at SND.NXT - 1, which the peer must answer (SHLD-12)."""
    cdef bint data = tcb.flags & TCB_PERSIST and seq_lt(tcb.snd_una, tcb.snd_end)
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
    if data:
        count(tcp.counters, WINDOW_PROBES_OUT)
        if tcb.snd_max == tcb.snd_una:
            tcb.snd_max = tcb.snd_una + 1               # the peer may take and acknowledge it
    elif fin:
        count(tcp.counters, SEGMENTS_RETRANSMITTED)
    return SEND_OK


# ---------------------------------------------------------------- acknowledgments

cdef send_t send_acks(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """What no data segment has carried. Segments out of order get one ACK each, up to three (RFC 5681 section 4.2)."""
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef uint32_t owed = 1
    cdef uint32_t not_acknowledged
    if rx != NULL and rx.duplicate_acks_owed:
        owed = rx.duplicate_acks_owed
        rx.duplicate_acks_owed = 0
        if owed > MAX_DUPLICATE_ACKS_AT_ONCE:
            owed = MAX_DUPLICATE_ACKS_AT_ONCE
        tcb.flags |= TCB_ACK_NOW
    if duplicate_of(tcp, tcb) != NULL:
        tcb.flags |= TCB_ACK_NOW            # no segment with data has carried it
    if not tcb.flags & TCB_ACK_NOW:
        not_acknowledged = tcb.rcv_nxt - tcb.last_ack_sent
        # SHLD-19, where the window that the peer knows has room for a second segment: otherwise none can come.
        if (tcb.flags & TCB_ACK_DELAYED and not_acknowledged < 2 * <uint32_t>tcb.smss
                and tcb.rcv_adv - tcb.rcv_nxt >= tcb.smss):
            if not deadline_is_set(tcb, DEADLINE_ACK):
                deadline_set(tcp, tcb, DEADLINE_ACK, tcp.config.delayed_ack_ns)              # SHLD-18, MUST-40
            return SEND_OK
        if not tcb.flags & TCB_ACK_DELAYED and not window_opened(tcp, tcb):
            return SEND_OK
    while owed > 0:
        if pure_ack(tcp, tcb) == IP_RING_FULL:
            tcb.flags |= TCB_ACK_NOW
            if owed > 1:
                rx.duplicate_acks_owed = <uint16_t>owed
            return SEND_BLOCKED
        owed -= 1
    return SEND_OK


cdef inline bint window_opened(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """The peer is held back by a window that its application has made room in since: tell it without being asked."""
    cdef uint32_t left = tcb.rcv_adv - tcb.rcv_nxt
    cdef uint32_t worth = tcp.config.rcv_buffer_bytes // 2
    if worth > 0xFFFF // 2:
        worth = 0xFFFF // 2
    if left >= worth:
        return False
    if worth > 2 * <uint32_t>tcb.smss:
        worth = 2 * <uint32_t>tcb.smss
    return tcb_receive_window(tcp, tcb) >= left + worth


cdef ip_status_t pure_ack(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef header_t header
    cdef ip_status_t status
    fill_header(tcp, tcb, &header, tcb_bare_seq(tcb), 0)
    if tcb.flags & TCB_ECN_SAYS:
        ecn_say(tcp, tcb, &header, False)
    if tcb.options & OPT_SACK and (tcb.rx or tcp.duplicates_waiting):
        header.sack_count = <uint8_t>sack_blocks(
            tcp, tcb, header.sack,
            SACK_BLOCKS_WITH_TIMESTAMPS if tcb.options & OPT_TIMESTAMPS else SACK_BLOCKS_MAX)
    status = emit_bare(tcp, &tcb.key, &header, tcb.ttl, tcb.tos, &tcb.neighbour)
    if status == IP_OK:
        count(tcp.counters, PURE_ACKS_OUT)
    return status
