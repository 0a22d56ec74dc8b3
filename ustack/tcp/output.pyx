# SPDX-License-Identifier: MIT
"""What a connection sends, decided once a burst, after everything that arrived has been processed (MUST-58, MUST-59).

    tcp_output ──┬── TCB_ABORT                abort: RST, CLOSED
                 ├── SYN-SENT, SYN-RECEIVED   send_syn
                 ├── TCB_REXMIT               retransmit_one: the segment at SND.UNA
                 ├── TCB_PROBE                send_probe: closed window or keep-alive
                 ├── the send queue           send_data: new data, data after a timeout, FIN
                 └── an ACK still owed        send_acks

A data segment is built from the lent buffers straight into the transmit slot. Where the link segments, one frame
carries up to 64 KB; its length is then a multiple of SMSS unless it ends the queue.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.base.counters cimport (
    PURE_ACKS_OUT, SEGMENTS_OUT, SEGMENTS_RETRANSMITTED, SEND_PIECES_SKIPPED, WINDOW_OVERRIDES, WINDOW_PROBES_OUT,
    count)
from ustack.buf.lent cimport lent_guard
from ustack.ip.layer cimport (
    IP_NO_ROUTE, IP_OK, IP_PROTO_TCP, IP_RING_FULL, ip_commit, ip_payload_max, ip_reserve, ip_route_t, ip_status_t)
from ustack.tcp.cc.contract cimport cc_ops_t, cc_view_t
from ustack.tcp.emit cimport advertised_mss, advertised_wscale, emit_bare, emit_reset_of, first_window
from ustack.tcp.ending cimport connection_end
from ustack.tcp.receive.sack_blocks cimport sack_blocks
from ustack.tcp.receive.window cimport tcb_receive_window
from ustack.tcp.records.deadlines cimport (
    deadline_clear, deadline_is_set, deadline_set, deadline_tick, tcb_needs_refresh, tcb_refresh, tcp_tick,
    tick_reached)
from ustack.tcp.records.marks cimport note_writable
from ustack.tcp.records.rx_queue cimport rx_queue_t
from ustack.tcp.records.state cimport (
    CLOSED, CLOSE_ABORTED, CLOSE_NET_UNREACHABLE, SYN_RECEIVED, SYN_SENT, close_reason_t)
from ustack.tcp.records.tcb cimport (
    CC_USED, CC_WAITING, DEADLINE_ACK, DEADLINE_REXMIT, OPT_SACK, OPT_TIMESTAMPS, OPT_WSCALE, TCB_ABORT,
    TCB_ACK_DELAYED, TCB_ACK_NOW, TCB_FIN_QUEUED, TCB_FIN_SENT, TCB_NODELAY, TCB_PERSIST, TCB_PROBE, TCB_RECOVERY,
    TCB_REXMIT, TCB_RTT_FULL, TCB_RTT_TIMING, rx_queue_of, send_piece_at, send_piece_t, snd_cursor, snd_cursor_set,
    snd_short_end, tcb_bare_seq, tcb_header_bytes, tcb_max_window)
from ustack.tcp.records.timestamps cimport timestamp_for
from ustack.tcp.records.turn cimport UNIT_BYTES_SHIFT
from ustack.tcp.records.work cimport turn_charge, work_add
from ustack.tcp.recovery.ack cimport initial_window
from ustack.tcp.recovery.control cimport control_begin, control_of, control_sent, control_state, view_load, view_store
from ustack.tcp.recovery.path cimport path_fragments, path_identification, path_refresh
from ustack.tcp.recovery.rtt cimport rexmit_start, rtt_now_us, rtt_spoil
from ustack.wire.seq cimport seq_gt, seq_le, seq_lt
from ustack.wire.tcp cimport (
    ACK, FIN, HAS_MSS, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, PSH, SYN, TCP_CHECKSUM_OFFSET, header_t,
    segment_emit)


cdef enum:
    SACK_BLOCKS_WITH_TIMESTAMPS = 3
    SACK_BLOCKS_MAX = 4
    SEGMENT_UNITS = 2                       # of a turn's work (turn_t), beside what its bytes cost
    MAX_DUPLICATE_ACKS_AT_ONCE = 3          # what a peer without SACK needs to start its repair
    OVERRIDE_NS = 200000000                 # RFC 9293 section 3.8.6.2.1: 0.1 to 1.0 s


cdef enum send_t:
    SEND_OK = 0
    SEND_BLOCKED = 1                        # ring full
    SEND_FAILED = 2                         # nothing was sent; the connection ends, or the timer will try again


cdef output_t tcp_output(tcp_t *tcp, tcb_t *tcb, uint64_t now_ns) noexcept nogil:
    cdef send_t sent
    tcp.now_ns = now_ns
    if tcb.state == CLOSED:
        return OUTPUT_DONE
    if tcb.flags & TCB_ABORT:
        return OUTPUT_BLOCKED if abort(tcp, tcb) == SEND_BLOCKED else OUTPUT_DONE
    if tcb.state == SYN_SENT or tcb.state == SYN_RECEIVED:
        return OUTPUT_BLOCKED if send_syn(tcp, tcb) == SEND_BLOCKED else OUTPUT_DONE
    if tcb.flags & TCB_REXMIT:
        sent = retransmit_one(tcp, tcb)
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


# ---------------------------------------------------------------- headers

cdef inline void fill_header(tcp_t *tcp, tcb_t *tcb, header_t *header, uint32_t seq, uint8_t flags) noexcept nogil:
    """Every segment of a synchronized connection carries the newest ACK and window."""
    cdef uint32_t field = tcb_receive_window(tcp, tcb) >> tcb.rcv_wscale
    cdef uint32_t edge
    header.seq = seq
    header.ack = tcb.rcv_nxt
    header.sport = tcb.key.lport
    header.dport = tcb.key.rport
    header.flags = flags | ACK
    header.window = <uint16_t>(field if field < 0xFFFF else 0xFFFF)
    header.has = 0
    header.sack_count = 0
    if tcb.options & OPT_TIMESTAMPS:
        header.has = HAS_TIMESTAMPS
        header.ts_val = timestamp_for(tcp, &tcb.key)
        header.ts_ecr = tcb.ts_recent
    edge = tcb.rcv_nxt + (<uint32_t>header.window << tcb.rcv_wscale)
    if seq_gt(edge, tcb.rcv_adv):
        tcb.rcv_adv = edge
    tcb.last_ack_sent = tcb.rcv_nxt
    tcb.flags &= ~(TCB_ACK_NOW | TCB_ACK_DELAYED)
    deadline_clear(tcb, DEADLINE_ACK)


cdef send_t send_syn(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """SYN, or SYN-ACK after a simultaneous open. Offers everything; in SYN-RECEIVED only what the peer offered too."""
    cdef header_t header
    cdef ip_status_t status
    cdef bint answering = tcb.state == SYN_RECEIVED
    if tcb.snd_nxt != tcb.snd_una:
        if not tcb.flags & TCB_ACK_NOW or not answering:
            return SEND_OK
        tcb.snd_nxt = tcb.snd_una           # its SYN again: our SYN-ACK was lost
    memset(&header, 0, sizeof(header))
    header.seq = tcb.snd_una
    header.flags = SYN
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
    if tcb.snd_max == tcb.snd_una:
        tcb.flags |= TCB_RTT_TIMING
        tcb.rtt_seq = tcb.snd_una + 1
        tcb.rtt_sent_us = rtt_now_us(tcp)
        rexmit_start(tcp, tcb)
    else:
        count(tcp.counters, SEGMENTS_RETRANSMITTED)
    tcb.snd_nxt = tcb.snd_una + 1
    tcb.snd_max = tcb.snd_nxt
    return SEND_OK


# ---------------------------------------------------------------- segments with data

cdef inline bint copy_out(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint8_t *out, uint32_t length) noexcept nogil:
    """Bytes of the send queue from `seq`. False: a lent file was cut short; what was read must not be sent."""
    cdef send_piece_t *piece
    if tcb.snd_head != tcb.snd_tail:
        return copy_out_pieces(tcp, tcb, seq, out, length)
    piece = send_piece_at(tcp, tcb.snd_head)            # a response that was queued whole
    lent_guard(piece.lent, tcp.now_ns)
    memcpy(out, piece.data + <uint32_t>(seq - piece.seq), length)
    return not piece.lent.damaged


cdef bint copy_out_pieces(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint8_t *out, uint32_t length) noexcept nogil:
    """copy_out from a queue of several pieces.

    The search begins at the cursor, where the segment before ended, or at the head for what lies before it: a
    retransmission begins in the first piece or near it. So a queue of many small pieces costs a segment no walk, and
    after SND.NXT was pulled back the cursor follows it.
    """
    cdef uint32_t index = snd_cursor(tcp, tcb)
    cdef send_piece_t *piece = send_piece_at(tcp, index)
    cdef bint newest = seq == tcb.snd_nxt
    cdef uint32_t skip, step
    if seq_lt(seq, piece.seq):
        index = tcb.snd_head
        piece = send_piece_at(tcp, index)
    while seq_le(piece.seq + piece.length, seq):
        index = piece.next
        piece = send_piece_at(tcp, index)
        count(tcp.counters, SEND_PIECES_SKIPPED)
    while True:
        skip = seq - piece.seq
        step = piece.length - skip
        if step > length:
            step = length
        lent_guard(piece.lent, tcp.now_ns)
        memcpy(out, piece.data + skip, step)
        if piece.lent.damaged:
            return False
        length -= step
        if length == 0:
            if newest:
                snd_cursor_set(tcp, tcb, index)
            return True
        out += step
        seq += step
        index = piece.next
        piece = send_piece_at(tcp, index)


cdef send_t send_segment(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length, uint8_t flags) noexcept nogil:
    """One frame: `length` bytes from `seq`, as a super-frame if they are more than SMSS."""
    cdef header_t header
    cdef ip_route_t route
    cdef int status = 0
    cdef uint8_t *out
    cdef uint32_t header_bytes = tcb_header_bytes(tcb)
    route.src = &tcb.key.laddr
    route.dst = &tcb.key.raddr
    route.neighbour = &tcb.neighbour
    route.protocol = IP_PROTO_TCP
    route.tos = tcb.tos
    route.ttl = tcb.ttl
    route.may_fragment = 0
    if path_fragments(tcp, tcb):
        route.may_fragment = 1
        route.identification = path_identification(tcp, tcb)
    out = ip_reserve(tcp.ip, &route, header_bytes + length, &status, tcp.now_ns)
    if out == NULL:
        return SEND_BLOCKED if status == IP_RING_FULL else SEND_FAILED
    if length > 0 and not copy_out(tcp, tcb, seq, out + header_bytes, length):
        tcb.close_reason = CLOSE_ABORTED
        tcb.flags |= TCB_ABORT
        return SEND_FAILED
    fill_header(tcp, tcb, &header, seq, flags)
    segment_emit(out, &header)
    ip_commit(tcp.ip, header_bytes + length, TCP_CHECKSUM_OFFSET, <uint16_t>header_bytes,
              tcb.smss if length > tcb.smss else 0)
    turn_charge(tcp, SEGMENT_UNITS + (length >> UNIT_BYTES_SHIFT))
    count(tcp.counters, SEGMENTS_OUT)
    return SEND_OK


cdef inline uint32_t largest_segment(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """Bytes of data in one frame: SMSS, or a whole number of them where the link segments (which numbers the packets by
    itself: not where DF is clear)."""
    cdef uint32_t header_bytes = tcb_header_bytes(tcb)
    cdef uint32_t room = ip_payload_max(tcp.ip) - header_bytes
    if not tcp.ip.link.caps.tx_segmentation or room < 2 * <uint32_t>tcb.smss or path_fragments(tcp, tcb):
        return tcb.smss
    return room - room % tcb.smss


cdef inline uint32_t usable_window(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """min(SND.WND, cwnd) less what is in flight; two segments more of what was never sent while duplicates are few (RFC
    3042). After a timeout the window is one segment (RFC 5681 section 3.1, MUST), whatever comes twice."""
    cdef uint32_t window = tcb.cwnd
    cdef uint32_t in_flight = tcb.snd_nxt - tcb.snd_una
    if not tcb.flags & TCB_RECOVERY and tcb.duplicate_acks and tcb.snd_nxt == tcb.snd_max:
        window += (tcb.duplicate_acks if tcb.duplicate_acks < 2 else 2) * <uint32_t>tcb.smss
    if tcb.snd_wnd < window:
        window = tcb.snd_wnd
    return window - in_flight if in_flight < window else 0


cdef send_t send_data(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t largest
    cdef uint32_t unsent, length
    cdef send_t sent
    cdef bint fin
    if tcb.extra:
        path_refresh(tcp, tcb)
    largest = tcb.smss
    if tcb.snd_end - tcb.snd_una > largest:
        largest = largest_segment(tcp, tcb)
    while True:
        unsent = tcb.snd_end - tcb.snd_nxt if seq_lt(tcb.snd_nxt, tcb.snd_end) else 0
        if unsent == 0 and not (tcb.flags & TCB_FIN_QUEUED and tcb.snd_nxt == tcb.snd_end):
            return SEND_OK
        if unsent > 0 and tcb.snd_nxt == tcb.snd_una and tcb.snd_nxt == tcb.snd_max:
            begin_sending(tcp, tcb)
        length = segment_length(tcp, tcb, unsent, largest)
        if length == 0 and unsent > 0:
            if not override_due(tcb):
                await_window(tcp, tcb)
                return SEND_OK
            length = tcb.snd_wnd if tcb.snd_wnd < unsent else unsent
            count(tcp.counters, WINDOW_OVERRIDES)
        fin = tcb.flags & TCB_FIN_QUEUED and length == unsent
        sent = send_segment(tcp, tcb, tcb.snd_nxt, length,
                            (PSH if length == unsent and length > 0 else 0) | (FIN if fin else 0))
        if sent != SEND_OK:
            if sent == SEND_FAILED and not deadline_is_set(tcb, DEADLINE_REXMIT):
                rexmit_start(tcp, tcb)
            return sent
        note_sent(tcp, tcb, length, fin)
        if fin:
            tcb.flags |= TCB_FIN_SENT
            return SEND_OK
        if tcp.turn.budget.stage_left <= 0:
            work_add(tcp, tcb)              # a wide window is not one turn's work: others come first
            return SEND_OK


cdef inline bint short_in_flight(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint32_t in_flight = tcb.snd_nxt - tcb.snd_una
    return in_flight != 0 and snd_short_end(tcp, tcb)[0] - tcb.snd_una - 1 < in_flight


cdef inline uint32_t segment_length(const tcp_t *tcp, const tcb_t *tcb, uint32_t unsent,
                                    uint32_t largest) noexcept nogil:
    """How much of the queue goes into the next frame; 0: wait. RFC 9293 sections 3.7.4 (SHLD-7) and 3.8.6.2.1.

    Nagle's algorithm in Minshall's form (RFC 9293 appendix A.3), as Linux has it: the short end of what was written
    waits only while a short segment sent before is not acknowledged. As section 3.7.4 is written it would wait for any
    data in flight, so the last part of every write of several segments would wait a round trip, or for the peer's
    delayed ACK. A stream of small writes is held together all the same: one short segment per round trip.
    """
    cdef uint32_t usable = usable_window(tcp, tcb)
    cdef uint32_t length = unsent if unsent < usable else usable
    cdef bint again = seq_lt(tcb.snd_nxt, tcb.snd_max)
    cdef bint hold_tail = not (tcb.flags & (TCB_NODELAY | TCB_FIN_QUEUED) or again) and short_in_flight(tcp, tcb)
    if length >= tcb.smss:
        if length > largest:
            return largest
        if length < unsent or hold_tail:
            return length - length % tcb.smss           # whole segments; a short one only ends the queue
        return length
    if length == unsent:                                # the end of the queue, less than a segment
        return 0 if hold_tail else length
    if again:
        return length
    if tcb.snd_nxt == tcb.snd_una and length >= tcb_max_window(tcb) // 2:
        return length                                   # a peer with a small buffer (rule 3)
    return 0


cdef inline void note_sent(tcp_t *tcp, tcb_t *tcb, uint32_t length, bint fin) noexcept nogil:
    """SND.NXT after a frame; a retransmission is counted and spoils the measurement (Karn)."""
    cdef uint32_t seg_len = length + (1 if fin else 0)
    if seq_lt(tcb.snd_nxt, tcb.snd_max):
        count(tcp.counters, SEGMENTS_RETRANSMITTED)
        if tcb.flags & TCB_RTT_TIMING:
            rtt_spoil(tcp, tcb)
    else:
        if not tcb.flags & TCB_RTT_TIMING:
            tcb.flags = (tcb.flags & ~TCB_RTT_FULL) | TCB_RTT_TIMING
            if length >= tcb.smss:
                tcb.flags |= TCB_RTT_FULL
            tcb.rtt_seq = tcb.snd_nxt + seg_len
            tcb.rtt_sent_us = rtt_now_us(tcp)
        if not tcb.flags & TCB_NODELAY and length and (length < tcb.smss or length % tcb.smss):
            snd_short_end(tcp, tcb)[0] = tcb.snd_nxt + length
    tcb.snd_nxt += seg_len
    if seq_gt(tcb.snd_nxt, tcb.snd_max):
        tcb.snd_max = tcb.snd_nxt
    if not deadline_is_set(tcb, DEADLINE_REXMIT) or tcb.flags & TCB_PERSIST:
        tcb.flags &= ~(TCB_PERSIST | TCB_PROBE)
        rexmit_start(tcp, tcb)                          # RFC 6298 (5.1)
    control_sent(tcp, tcb, seg_len)


cdef inline void begin_sending(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Nothing is in flight. The first data begins the connection's control. Later, an RTO after the last data, the ACK
    clock has stopped: begin with the restart window (RFC 5681 section 4.1).

    The tick of DEADLINE_REXMIT is that moment: the timer was last started with the last data or its ACK, one RTO
    before. (What the peer has sent since does not count: a request that wakes an idle connection is no ACK clock.)
    """
    if tcb_needs_refresh(tcp, tcb):
        tcb_refresh(tcp, tcb)
    if tcb.cc & CC_WAITING and not control_begin(tcp, tcb):
        return
    tcb.cc |= CC_USED
    if (deadline_is_set(tcb, DEADLINE_REXMIT)
            or not tick_reached(deadline_tick(tcb, DEADLINE_REXMIT), tcp_tick(tcp))):
        return
    congestion_on_idle(tcp, tcb)


cdef void congestion_on_idle(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef cc_view_t view
    view_load(tcp, tcb, &view)
    ops.on_idle(control_state(tcp, tcb, ops), &view, initial_window(tcp, tcb))
    view_store(tcb, &view)


cdef inline bint override_due(const tcb_t *tcb) noexcept nogil:
    """Section 3.8.6.2.1 rule (4): min(D, U) goes all the same. That is the window: of less data, or more room,
    segment_length makes a segment."""
    return (tcb.flags & (TCB_PROBE | TCB_PERSIST) == (TCB_PROBE | TCB_PERSIST) and tcb.snd_wnd > 0
            and tcb.snd_una == tcb.snd_max)


cdef inline void await_window(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Data waits and nothing in flight will bring an ACK. A closed window: only a probe finds out when it opens
    (MUST-36), the first after one RTO (SHLD-29). One that is open, but too small for a segment worth sending: the
    override timer of section 3.8.6.2.1, between 0.1 and 1 s."""
    if tcb.snd_max == tcb.snd_una and not deadline_is_set(tcb, DEADLINE_REXMIT):
        tcb.flags |= TCB_PERSIST
        tcb.backoff = 0
        if tcb.snd_wnd == 0:
            rexmit_start(tcp, tcb)
        else:
            deadline_set(tcp, tcb, DEADLINE_REXMIT, OVERRIDE_NS)


cdef send_t retransmit_one(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """The segment at SND.UNA (fast retransmit, or the next hole of a partial ACK). SND.NXT stays."""
    cdef uint32_t length = tcb.snd_end - tcb.snd_una if seq_lt(tcb.snd_una, tcb.snd_end) else 0
    cdef uint32_t sent_octets = tcb.snd_max - tcb.snd_una
    cdef bint fin
    cdef send_t sent
    if sent_octets == 0:
        tcb.flags &= ~TCB_REXMIT
        return SEND_OK
    if length > sent_octets:
        length = sent_octets
    if length > tcb.smss:
        length = tcb.smss
    fin = tcb.flags & TCB_FIN_SENT and tcb.snd_una + length == tcb.snd_end
    sent = send_segment(tcp, tcb, tcb.snd_una, length, (PSH if length else 0) | (FIN if fin else 0))
    if sent != SEND_OK:
        return sent
    tcb.flags &= ~TCB_REXMIT
    count(tcp.counters, SEGMENTS_RETRANSMITTED)
    control_sent(tcp, tcb, length + (1 if fin else 0))
    return SEND_OK


cdef send_t send_probe(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """A closed window: one byte at SND.UNA, which stays unsent for the books, or the FIN that alone is outstanding
    ("or retransmit", section 3.8.6.1: it needs no room, a receiver that has none may take it). Otherwise a keep-alive:
    nothing at SND.NXT - 1, which the peer must answer (SHLD-12)."""
    cdef bint data = tcb.flags & TCB_PERSIST and seq_lt(tcb.snd_una, tcb.snd_end)
    cdef bint fin = tcb.flags & TCB_PERSIST and tcb.flags & TCB_FIN_SENT and tcb.snd_una == tcb.snd_end
    cdef send_t sent
    if override_due(tcb):
        return SEND_OK                                  # send_data's work
    if data:
        sent = send_segment(tcp, tcb, tcb.snd_una, 1, 0)
    elif fin:
        sent = send_segment(tcp, tcb, tcb.snd_una, 0, FIN)
    else:
        sent = send_segment(tcp, tcb, tcb.snd_una - 1, 0, 0)
    if sent != SEND_OK:
        return sent
    tcb.flags &= ~TCB_PROBE
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
    if tcb.options & OPT_SACK and tcb.rx:
        header.sack_count = <uint8_t>sack_blocks(
            tcp, tcb, header.sack,
            SACK_BLOCKS_WITH_TIMESTAMPS if tcb.options & OPT_TIMESTAMPS else SACK_BLOCKS_MAX)
    status = emit_bare(tcp, &tcb.key, &header, tcb.ttl, tcb.tos, &tcb.neighbour)
    if status == IP_OK:
        count(tcp.counters, PURE_ACKS_OUT)
    return status
