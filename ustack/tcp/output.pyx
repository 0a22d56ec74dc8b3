# SPDX-License-Identifier: MIT
"""What a connection sends, decided once a burst, after everything that arrived has been processed (MUST-58, MUST-59).

    tcp_output ──┬── TCB_ABORT                abort: RST, CLOSED
                 ├── SYN-SENT, SYN-RECEIVED   send_syn (send/handshake)
                 ├── what is lost             send_again (send/resend): as much of it as the window has room for; then
                 │                            a quiet tail, send_tail_probe (RFC 8985 section 7.3)
                 ├── TCB_PROBE                send_probe (send/probes): closed window or keep-alive
                 ├── the send queue           send_data: new data, FIN; first send_size_probe, if one is due
                 └── an ACK still owed        send_acks

How much may go is send/allowance, one frame of it send/segment, what follows from it send/progress: all three are
inline here, where a response makes its way. Where the link segments, one frame carries up to 64 KB; its length is then
a multiple of SMSS unless it ends the queue.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.counters cimport PURE_ACKS_OUT, WINDOW_OVERRIDES, count
from ustack.base.debug cimport ensure
from ustack.base.wheel cimport WHEEL_TICK_SHIFT
from ustack.ip.layer cimport IP_OK, IP_RING_FULL, ip_status_t
from ustack.tcp.emit cimport emit_bare, emit_reset_of
from ustack.tcp.ending cimport connection_end
from ustack.tcp.receive.sack_blocks cimport sack_blocks
from ustack.tcp.receive.window cimport tcb_receive_window
from ustack.tcp.records.accecn cimport accecn_of, accecn_t, tcb_is_accurate
from ustack.tcp.records.deadlines cimport deadline_is_set, deadline_set, deadline_tick, tcp_tick
from ustack.tcp.records.duplicates cimport duplicate_of
from ustack.tcp.records.flight cimport FLIGHT_PROBE, REXMIT_NONE, flight_raw, flight_t
from ustack.tcp.records.marks cimport note_writable
from ustack.tcp.records.measures cimport note_segments_out, note_wait
from ustack.tcp.records.rx_queue cimport rx_queue_t
from ustack.tcp.records.sockopts cimport OWN_QUICKACK, sockopts_flags
from ustack.tcp.records.state cimport CLOSED, CLOSE_ABORTED, SYN_RECEIVED, SYN_SENT, close_reason_t
from ustack.tcp.records.tcb cimport (
    ACK_IN_COMPANY, DEADLINE_ACK, OPT_SACK, OPT_TIMESTAMPS, TCB_ABORT, TCB_ACK_DELAYED, TCB_ACK_NOW, TCB_ECN_SAYS,
    TCB_FIN_QUEUED, TCB_FIN_SENT, TCB_PROBE, TCB_REXMIT, rx_queue_of, tcb_bare_seq, tcb_max_window)
from ustack.tcp.records.trace cimport TRACE_ACK_SENT, TRACE_SENT, trace_note
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.accecn cimport accecn_wants_ack
from ustack.tcp.recovery.invariants cimport flight_check
from ustack.tcp.recovery.pacing cimport pacing_allows, pacing_quantum, pacing_rate_of_window, pacing_sent
from ustack.tcp.recovery.path cimport path_refresh
from ustack.tcp.recovery.rtt cimport rtt_min_us, rtt_rto_ns
from ustack.tcp.recovery.transmissions cimport flight_of, transmission_prepare
from ustack.tcp.send.allowance cimport largest_segment, may_send_new, override_due, segment_length, usable_window
from ustack.tcp.send.handshake cimport send_syn
from ustack.tcp.send.probes cimport send_probe, send_size_probe
from ustack.tcp.send.progress cimport await_pace, await_window, begin_sending, note_sent, note_unsent
from ustack.tcp.send.resend cimport retransmit_unrecorded, send_again
from ustack.tcp.send.segment cimport (
    SEND_BLOCKED, SEND_FAILED, SEND_HELD, SEND_OK, fill_header, say_feedback, send_segment, send_t, unmarkable)
from ustack.wire.seq cimport seq_lt
from ustack.wire.tcp cimport FIN, HAS_SACK, PSH, header_t


cdef enum:
    SACK_BLOCKS_WITH_TIMESTAMPS = 3
    SACK_BLOCKS_MAX = 4
    MAX_DUPLICATE_ACKS_AT_ONCE = 3          # what a peer without SACK needs to start its repair
    LINUX_FRAME_MAX = 65536                 # sk_gso_max_size, sk_pacing_shift, tcp_tso_rtt_log
    LINUX_PACING_SHIFT = 10
    LINUX_TSO_RTT_LOG = 9


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
        if accecn_wants_ack(tcp, tcb) and pure_ack(tcp, tcb) == IP_RING_FULL:
            tcb.flags |= TCB_ACK_NOW
            return finish(tcp, tcb, SEND_BLOCKED)
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
    if tcp.config.measure:
        note_wait(tcp, tcb)
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


cdef send_t send_data(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t largest
    cdef uint32_t unsent, length, index, most
    cdef uint64_t rate = 0
    cdef uint8_t tos = tcb.tos
    cdef send_t sent
    cdef bint fin, push
    cdef uint32_t since_push = 0, push_every = 0        # bytes; used with config.push_frames alone
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
        push = length == unsent and length > 0          # SHLD-27, MUST-61
        if length < unsent and tcp.config.push_frames:
            if push_every == 0:
                push_every = frame_bytes_as_linux(tcp, tcb)
            since_push += length
            if since_push >= push_every or usable_window(tcp, tcb) < length + tcb.smss:
                push = since_push > tcb.smss
                since_push = 0
        index = transmission_prepare(tcp, tcb)
        if index == 0 and (tcb.flight or tcb.snd_nxt != tcb.snd_una):
            return SEND_OK                              # an ACK gives a record back, or there is no flight (see there)
        sent = send_segment(tcp, tcb, tcb.snd_nxt, length,
                            (PSH if push else 0) | (FIN if fin else 0), tos)
        if sent != SEND_OK:
            return note_unsent(tcp, tcb, index, sent)
        note_sent(tcp, tcb, index, length, fin)
        if index:
            if rate:
                flight_raw(tcp, tcb).pacer.rate = rate
                flight_raw(tcp, tcb).pacer.next_ns = tcp.now_ns
                rate = 0
            pacing_sent(&flight_raw(tcp, tcb).pacer, tcp.now_ns, length, tcb.smss, largest)
        trace_note(tcp, tcb, TRACE_SENT, REXMIT_NONE, tcb.snd_nxt - length - fin, length + fin, 0)
        if fin:
            tcb.flags |= TCB_FIN_SENT
            return SEND_OK
        if tcp.turn.budget.stage_left <= 0:
            work_add(tcp, tcb)              # a wide window is not one turn's work: others come first
            return SEND_OK


cdef uint32_t frame_bytes_as_linux(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """What goes between two PSH of a write: where Linux cuts it into frames, each of which ends with one unless it is a
    single segment (__tcp_transmit_skb). A frame has what its rate brings in a 1,024th of a second, and 64 KB halved for
    each 512 us of the path (tcp_tso_autosize), two segments at least; half of the window at most (tcp_cwnd_test); and
    half of the largest window of the peer, where PSH is forced as well (tcp_bound_to_half_wnd, forced_push)."""
    cdef uint64_t rate = pacing_rate_of_window(tcb.cwnd, tcb.ssthresh, tcb.srtt_us)
    cdef uint32_t shortest_us = rtt_min_us(tcb) if rtt_min_us(tcb) else tcb.srtt_us     # of the handshake
    cdef uint32_t halvings = shortest_us >> LINUX_TSO_RTT_LOG
    cdef uint32_t least = 2u * tcb.smss
    cdef uint64_t most = rate >> LINUX_PACING_SHIFT if rate else LINUX_FRAME_MAX
    if halvings < 32:
        most += LINUX_FRAME_MAX >> halvings
    if most > tcb_max_window(tcb) // 2:
        most = tcb_max_window(tcb) // 2
    if most < least:
        most = least
    if most > tcb.cwnd // 2:
        most = tcb.cwnd // 2
    return <uint32_t>most - <uint32_t>most % tcb.smss if most > tcb.smss else tcb.smss


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
        if (tcb.flags & TCB_ACK_DELAYED and not_acknowledged < 2u * tcb.smss
                and tcb.rcv_adv - tcb.rcv_nxt >= tcb.smss and not is_quick(tcp, tcb)
                and not (tcb.armed & ACK_IN_COMPANY and is_second_read(tcp, rx))
                and not sockopts_flags(tcp, tcb) & OWN_QUICKACK):
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


cdef inline bint is_quick(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """One of a connection's first ACKs, config.quick_acks of them, or of the first after a pause, as long as we have
    sent nothing but a SYN: whoever asks gets his ACK with the answer. They are counted in the tick of a deadline that
    has never been set; one that has been is a larger number."""
    cdef uint32_t *quick = &tcb.deadlines[<int>DEADLINE_ACK]
    if tcp.config.quick_acks == 0 or tcb.delivered > 1 or tcb.snd_nxt != tcb.snd_una:
        return False
    if quick[0] >= tcp.config.quick_acks:
        if quick[0] == tcp.config.quick_acks or not is_after_pause(tcp, tcb):
            return False
        quick[0] = 0
    quick[0] += 1
    return True


cdef inline bint is_second_read(const tcp_t *tcp, const rx_queue_t *rx) noexcept nogil:
    """More than one segment waits for an ACK, and the application has them all. Linux takes what segments have been
    like for a full one (tcp_measure_rcv_mss), and acknowledges the second as soon as the right edge moves by what has
    come (__tcp_ack_snd_check, tcp_cleanup_rbuf). RFC 9293 SHLD-19 asks for no less."""
    return tcp.config.ack_second_segment and (rx == NULL or rx.queued_bytes == 0)


cdef inline bint is_after_pause(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """The last data that an ACK has waited for is older than the retransmission timeout: a peer that begins anew, from
    a small window, needs each ACK (Linux: tcp_event_data_recv)."""
    cdef uint32_t ticks = tcp_tick(tcp) - deadline_tick(tcp, tcb, DEADLINE_ACK)
    return not deadline_is_set(tcb, DEADLINE_ACK) and ticks < 0x80000000u and (
        (<uint64_t>ticks << WHEEL_TICK_SHIFT) + tcp.config.delayed_ack_ns > rtt_rto_ns(tcp, tcb))


cdef inline bint window_opened(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """The peer is held back by a window that its application has made room in since: tell it without being asked."""
    cdef uint32_t left = tcb.rcv_adv - tcb.rcv_nxt
    cdef uint32_t worth = tcp.config.rcv_buffer_bytes // 2
    if worth > 0xFFFF // 2:
        worth = 0xFFFF // 2
    if left >= worth:
        return False
    if worth > 2u * tcb.smss:
        worth = 2u * tcb.smss
    return tcb_receive_window(tcp, tcb) >= left + worth


cdef ip_status_t pure_ack(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef header_t header
    cdef ip_status_t status
    cdef accecn_t unsaid
    fill_header(tcp, tcb, &header, tcb_bare_seq(tcb), 0)
    if tcb_is_accurate(tcb):
        unsaid = accecn_of(tcp, tcb)[0]
    if tcb.options & OPT_SACK and (tcb.rx or tcp.duplicates_waiting):
        header.sack_count = <uint8_t>sack_blocks(
            tcp, tcb, header.sack,
            SACK_BLOCKS_WITH_TIMESTAMPS if tcb.options & OPT_TIMESTAMPS else SACK_BLOCKS_MAX)
        if header.sack_count:
            header.has |= HAS_SACK
    if tcb.flags & TCB_ECN_SAYS:
        say_feedback(tcp, tcb, &header, False, True)
    status = emit_bare(tcp, &tcb.key, &header, tcb.ttl, tcb.tos, &tcb.neighbour)
    if status == IP_OK:
        count(tcp.counters, PURE_ACKS_OUT)
        if tcp.config.measure:
            note_segments_out(tcp, tcb.index, 0, 0)
        trace_note(tcp, tcb, TRACE_ACK_SENT, REXMIT_NONE, tcb_bare_seq(tcb), 0, 0)
    elif tcb_is_accurate(tcb):
        accecn_of(tcp, tcb)[0] = unsaid
    return status
