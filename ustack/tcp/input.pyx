# SPDX-License-Identifier: MIT
"""SEGMENT ARRIVES: RFC 9293 section 3.10.7, its chapters in its order.

    tcp_input ── parse, checksum, which record? ──┬── none            listen_arrives         section 3.10.7.1, .2
                                                  ├── SYN-SENT        syn_sent_arrives       section 3.10.7.3
                                                  ├── a mini-record   syn_received_arrives, time_wait_arrives
                                                  └── the others      synchronized_arrives   section 3.10.7.4

What has no tcb is in opening, SYN-SENT in arrival/active. The steps of section 3.10.7.4 are functions named after them:
check_timestamps (RFC 7323 section 5.3), check_sequence, check_reset and check_syn (RFC 5961; arrival/doubt), check_ack
and take_ack, urgent_arrives (urgent), accept_text and accept_fin (arrival/text). See input.pxd for what is left to
whom.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.counters cimport (
    DROP_TCP_ACK, DROP_TCP_AFTER_CLOSE, DROP_TCP_BROADCAST, DROP_TCP_CHECKSUM, DROP_TCP_DUPLICATE, DROP_TCP_PAWS,
    DROP_TCP_RST, DROP_TCP_SEQUENCE, SEGMENTS_IN, TIMESTAMPS_MISSING_IN, count, counter_t)
from ustack.base.types cimport ip_addr_is_v4
from ustack.buf.frame cimport CHECKSUM_UNKNOWN
from ustack.ip.layer cimport IP_PROTO_TCP, ip_confirm
from ustack.tcp.arrival.active cimport confirms_feedback, established, syn_sent_arrives, trim_syn_ack
from ustack.tcp.arrival.doubt cimport challenge, correct, unusual_arrives
from ustack.tcp.arrival.text cimport accept_text, is_next_text, take_next_text
from ustack.tcp.emit cimport emit_reset_for
from ustack.tcp.ending cimport connection_end, connection_time_wait
from ustack.tcp.opening cimport listen_arrives, syn_received_arrives, time_wait_arrives
from ustack.tcp.receive.autotune cimport autotune_note
from ustack.tcp.records.accecn cimport tcb_is_accurate
from ustack.tcp.records.deadlines cimport ask_for_quick_acks, deadline_set, tcb_needs_refresh, tcb_refresh
from ustack.tcp.records.demux cimport FLOW_CONNECTION, FLOW_SYN_RECEIVED, FLOW_TIME_WAIT, flow_find, flow_t
from ustack.tcp.records.duplicates cimport duplicate_note
from ustack.tcp.records.measures cimport note_segments_in
from ustack.tcp.records.moves cimport set_state
from ustack.tcp.records.sockopts cimport tcb_fin_wait_2_ns
from ustack.tcp.records.state cimport CLOSE_NORMAL, CLOSING, FIN_WAIT_1, FIN_WAIT_2, LAST_ACK, SYN_RECEIVED, SYN_SENT
from ustack.tcp.records.tcb cimport (
    DEADLINE_APPLICATION, OPT_TIMESTAMPS, OPT_TS_STALE, TCB_ABORT, TCB_ACK_NOW, TCB_ACTIVE, TCB_CLOSED_BY_APP,
    TCB_ECE_OWED, TCB_FIN_SENT, TCB_PERSIST, flow_key_t, tcb_at, tcb_heard, tcb_max_window, tcb_t)
from ustack.tcp.records.timestamps cimport timestamp_echoed
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.accecn cimport accecn_arrives, accecn_repeated, accecn_syn_ack_again
from ustack.tcp.recovery.ack cimport ack_input
from ustack.tcp.recovery.ecn cimport ECN_NOTHING, ecn_arrives, ecn_heard_t, ecn_settle
from ustack.tcp.throttle cimport repeated_syn_allowed
from ustack.tcp.urgent cimport urgent_arrives
from ustack.wire.checksum cimport checksum_add, checksum_fold, checksum_partial
from ustack.wire.ipv4 cimport IPV4_ECN_CE, IPV4_ECN_ECT0, IPV4_ECN_MASK
from ustack.wire.octets cimport htons
from ustack.wire.seq cimport seq_ge, seq_gt, seq_le, seq_lt
from ustack.wire.tcp cimport (
    ACCURATE, ACK, CE, CWR, ECE, ECT0, ECT1, FIN, HAS_TIMESTAMPS, RST, SYN, URG, segment_parse, segment_t)


# ---------------------------------------------------------------- which record

cdef void tcp_input(tcp_t *tcp, const packet_t *packet, uint64_t now_ns, delivery_t *delivery) noexcept nogil:
    cdef segment_t seg
    cdef flow_key_t key
    cdef flow_t flow
    cdef tcb_t *conn
    cdef int reason
    tcp.now_ns = now_ns
    delivery.conn = NULL
    delivery.length = 0
    delivery.more = False
    count(tcp.counters, SEGMENTS_IN)
    reason = segment_parse(packet.payload, packet.payload_length, &seg)
    if reason != 0:
        count(tcp.counters, <counter_t>reason)
        return
    if packet.checksum == CHECKSUM_UNKNOWN and not checksum_is_right(packet):
        count(tcp.counters, DROP_TCP_CHECKSUM)                          # MUST-3
        return
    if packet.broadcast:
        count(tcp.counters, DROP_TCP_BROADCAST)                         # MUST-57
        return
    if packet.tos & IPV4_ECN_MASK:
        note_ip_ecn(&seg, packet.tos)
    key.laddr = packet.dst
    key.raddr = packet.src
    key.lport = seg.dport
    key.rport = seg.sport
    if seg.has & HAS_TIMESTAMPS:
        seg.ts_ecr = timestamp_echoed(tcp, &key, seg.ts_ecr)
    flow = flow_find(tcp, &key)
    if flow.kind == FLOW_CONNECTION:
        if tcp.config.measure:
            note_segments_in(tcp, flow.index, seg.length, packet.gso_size)
        connection_arrives(tcp, tcb_at(tcp, flow.index), &seg, delivery)
    elif flow.kind == FLOW_SYN_RECEIVED:
        conn = syn_received_arrives(tcp, flow.index, &seg)
        if conn != NULL:
            first_arrives(tcp, conn, packet, &seg, delivery)
    elif flow.kind == FLOW_TIME_WAIT:
        time_wait_arrives(tcp, flow.index, &seg)
    else:
        conn = listen_arrives(tcp, &key, &seg, 0)
        if conn != NULL:
            first_arrives(tcp, conn, packet, &seg, delivery)


cdef inline void first_arrives(tcp_t *tcp, tcb_t *tcb, const packet_t *packet, segment_t *seg,
                               delivery_t *delivery) noexcept nogil:
    """The last segment of a handshake is the first of ESTABLISHED."""
    delivery.conn = tcb
    if tcp.config.measure:
        note_segments_in(tcp, tcb.index, seg.length, packet.gso_size)
    note_accurate(tcb, seg)
    synchronized_arrives(tcp, tcb, seg, delivery)


cdef inline void note_ip_ecn(segment_t *seg, uint8_t tos) noexcept nogil:
    """What the IP header says of ECN (RFC 3168 section 5)."""
    tos &= IPV4_ECN_MASK
    seg.flags |= CE if tos == IPV4_ECN_CE else ECT0 if tos == IPV4_ECN_ECT0 else ECT1


cdef inline void note_accurate(const tcb_t *tcb, segment_t *seg) noexcept nogil:
    """Every segment is a report there: none takes the straight way (synchronized_arrives)."""
    if tcb_is_accurate(tcb):
        seg.flags |= ACCURATE


cdef bint checksum_is_right(const packet_t *packet) noexcept nogil:
    cdef uint32_t sum = htons(IP_PROTO_TCP)
    sum = checksum_add(sum, htons(<uint16_t>packet.payload_length))
    if ip_addr_is_v4(&packet.src):
        sum = checksum_add(checksum_add(sum, packet.src.words_be[3]), packet.dst.words_be[3])
    else:
        sum = checksum_partial(packet.src.octets, 16, sum)
        sum = checksum_partial(packet.dst.octets, 16, sum)
    return checksum_fold(checksum_partial(packet.payload, packet.payload_length, sum)) == 0xFFFF


cdef void connection_arrives(tcp_t *tcp, tcb_t *tcb, segment_t *seg, delivery_t *delivery) noexcept nogil:
    if tcb.flags & (TCB_ABORT | TCB_ECE_OWED):
        if tcb.flags & TCB_ABORT:
            count(tcp.counters, DROP_TCP_AFTER_CLOSE)                   # its RST is on the way
            return
        note_accurate(tcb, seg)
    delivery.conn = tcb
    if tcb.state == SYN_SENT:
        syn_sent_arrives(tcp, tcb, seg, delivery)
    else:
        synchronized_arrives(tcp, tcb, seg, delivery)


# ---------------------------------------------------------------- section 3.10.7.4: all other states

cdef void synchronized_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, delivery_t *delivery) noexcept nogil:
    """Process one segment for a synchronized connection.

    tcb: any state but CLOSED, LISTEN, SYN-SENT.   seg: a view, valid until the frame is released.
    Leaves what is to be sent and told on the tcb; in-order bytes in delivery. Every refused segment is counted.
    Source: RFC 9293 section 3.10.7.4, RFC 7323 section 5.3, RFC 5961 sections 3 to 5.
    """
    cdef segment_t trimmed
    if tcb.state == SYN_RECEIVED and seg.flags & SYN and not seg.flags & RST and seg.seq == tcb.snd_wl1:
        if not seg.flags & ACK:             # simultaneous open: its SYN again, our SYN-ACK was lost
            count(tcp.counters, DROP_TCP_DUPLICATE)
            if repeated_syn_allowed(tcp, tcb):
                tcb.flags |= TCB_ACK_NOW
                work_add(tcp, tcb)
            return
        if not confirms_feedback(tcp, tcb, seg):
            return
        trimmed = seg[0]
        trim_syn_ack(tcb, &trimmed)
        seg = &trimmed
    if tcb_needs_refresh(tcp, tcb):
        tcb_refresh(tcp, tcb)
    if not check_timestamps(tcp, tcb, seg):
        return
    if not check_sequence(tcp, tcb, seg):
        return
    if seg.flags & (RST | SYN | ACK) != ACK:
        unusual_arrives(tcp, tcb, seg)
        return
    if not check_ack(tcp, tcb, seg):
        return
    take_timestamp(tcb, seg)
    tcb_heard(tcp, tcb)
    tcb.keepalive_probes = 0
    if not (take_ack(tcp, tcb, seg) if not seg.flags & (ECE | CWR | CE | ACCURATE | URG)
            else take_signs(tcp, tcb, seg)):
        return
    if seg.length >= tcb.smss:
        autotune_note(tcp, tcb, seg)
    if is_next_text(tcb, seg):
        take_next_text(tcp, tcb, seg.data, seg.length, delivery)
    elif seg.length > 0 or seg.flags & FIN:
        accept_text(tcp, tcb, seg.seq, seg, delivery)


cdef bint take_signs(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """Fifth, of a segment that says something of congestion (RFC 3168, RFC 9768); sixth, of urgent data. What is
    outside of the window, or acknowledges nothing of ours, is not heard (RFC 3168 section 6.1.5)."""
    cdef ecn_heard_t heard = ECN_NOTHING
    if seg.flags & ACCURATE:
        heard = accecn_arrives(tcp, tcb, seg)
    elif seg.flags & (ECE | CWR | CE):
        heard = ecn_arrives(tcp, tcb, seg)
    if not take_ack(tcp, tcb, seg):
        return False
    if heard != ECN_NOTHING:
        ecn_settle(tcp, tcb, heard)
    if seg.flags & URG:
        urgent_arrives(tcp, tcb, seg)
    return True


cdef inline bint check_timestamps(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """PAWS (RFC 7323 section 5.3 R1), except for RSTs (section 5.2) and while TS.Recent proves nothing (section 5.5).

    A segment without the agreed timestamps is taken. RFC 7323 section 3.2 would rather have it dropped in silence
    (SHOULD); but then the keep-alives of some systems, which lack them, would find us dead, and a peer whose timestamps
    a middlebox begins to strip would send the same bytes until it gives up. PAWS loses nothing that it had: a peer
    that stamps its segments stamps their duplicates, too, so an old one has a timestamp to be refused by, and an
    outsider still has to guess numbers that check_sequence and check_ack know. TS.Recent never learns from such a
    segment. Linux takes them, too.
    """
    if not tcb.options & OPT_TIMESTAMPS or seg.flags & RST:
        return True
    if not seg.has & HAS_TIMESTAMPS:
        count(tcp.counters, TIMESTAMPS_MISSING_IN)
        return True
    if seq_lt(seg.ts_val, tcb.ts_recent) and not tcb.options & OPT_TS_STALE:
        refuse_as_old(tcp, tcb, seg)
        return False
    return True


cdef void refuse_as_old(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """The acknowledgment that R1 wants says of data that is here already that it has come twice (RFC 2883): a segment
    that was late, and sent again for nothing. As in Linux."""
    cdef uint32_t right = seg.seq + seg.length
    if not correct(tcp, tcb, seg, DROP_TCP_PAWS) or not seg.flags & ACK or not ack_is_possible(tcb, seg.ack):
        return
    if seq_lt(seg.seq, tcb.rcv_nxt):
        duplicate_note(tcp, tcb, seg.seq, right if seq_lt(right, tcb.rcv_nxt) else tcb.rcv_nxt)


cdef inline bint check_sequence(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """First: the four cases of table 6, with the window that was advertised."""
    cdef uint32_t window = tcb.rcv_adv - tcb.rcv_nxt
    cdef uint32_t seg_len = seg.length + (1 if seg.flags & FIN else 0) + (1 if seg.flags & SYN else 0)
    cdef uint32_t last
    if seg_len == 0:
        if seg.seq == tcb.rcv_nxt or seg.seq - tcb.rcv_nxt < window:
            return True
        # The edge itself is SND.NXT of a peer that has filled the window. While a hole is open at its beginning all the
        # peer's ACKs would be refused, and what it has received be sent again after a timeout. Linux takes them, too.
        if seg.seq == tcb.rcv_adv and not seg.flags & RST:
            return True
    else:
        last = seg.seq + seg_len - 1
        if seg.seq - tcb.rcv_nxt < window or last - tcb.rcv_nxt < window:
            return True
        # Window zero: valid ACKs and RSTs are taken all the same (MUST-66); accept_text finds no room for the rest.
        if window == 0 and seg.seq == tcb.rcv_nxt:
            return True
        if window > 0 and tcb.rcv_nxt - seg.seq < seg_len:
            return True                     # covers the whole window and more on both sides
    if seg.flags & RST:
        count(tcp.counters, DROP_TCP_RST)
    else:
        if seg_len == 0 or not seq_lt(last, tcb.rcv_nxt):
            correct(tcp, tcb, seg, DROP_TCP_SEQUENCE)
        elif correct(tcp, tcb, seg, DROP_TCP_DUPLICATE) and seg.flags & ACK and ack_is_possible(tcb, seg.ack):
            duplicate_note(tcp, tcb, seg.seq, seg.seq + seg.length)     # not what somebody off the path made up
            if tcp.config.quick_acks:
                ask_for_quick_acks(tcb)
            if seg.flags & ACCURATE and not seg.flags & SYN:
                accecn_repeated(tcp, tcb)
        if (seg.flags & (SYN | ACK) == (SYN | ACK) and seg.seq == tcb.rcv_nxt - 1 and tcb_is_accurate(tcb)
                and tcb.flags & TCB_ACTIVE and ack_is_possible(tcb, seg.ack)):
            accecn_syn_ack_again(tcp, tcb, seg)
        if seg.seq == tcb.rcv_nxt - 1 and seg.length <= 1 and seg.flags & (ACK | SYN | FIN) == ACK:
            take_ack_of_probe(tcp, tcb, seg)
    return False


cdef void take_ack_of_probe(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """While we probe a closed window, what the peer's probe acknowledges counts, though we have its byte already.

    RFC 9293 appendix A.2, "simultaneous window probes": both ends have taken the other's byte, and both ACKs were
    lost. All that either sends until its byte is acknowledged lies one before the other's window, which it may not
    pass; if that were refused whole, neither would learn anything more from the other, a window that opens included.
    """
    if tcb.flags & TCB_PERSIST and seq_gt(seg.ack, tcb.snd_una) and seq_le(seg.ack, tcb.snd_max):
        tcb.keepalive_probes = 0
        take_ack(tcp, tcb, seg)


cdef inline bint check_ack(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """Fifth, what makes it acceptable: an ACK of what was sent, and of no long ago (RFC 5961 section 5.2, MAY-12)."""
    if tcb.state == SYN_RECEIVED:
        if seq_gt(seg.ack, tcb.snd_una) and seq_le(seg.ack, tcb.snd_max):
            return True
        count(tcp.counters, DROP_TCP_ACK)
        emit_reset_for(tcp, &tcb.key, seg, tcb.options, tcb.ts_recent)
        return False
    if seg.ack - tcb.snd_una <= tcb.snd_max - tcb.snd_una:
        return True
    if not ack_is_possible(tcb, seg.ack):
        challenge(tcp, tcb, DROP_TCP_ACK)
        return False
    return True


cdef inline bint ack_is_possible(const tcb_t *tcb, uint32_t ack) noexcept nogil:
    """RFC 5961 section 5.2: SND.UNA - MAX.SND.WND =< SEG.ACK =< SND.NXT."""
    return not seq_gt(ack, tcb.snd_max) and not seq_lt(ack, tcb.snd_una - tcb_max_window(tcb))


cdef inline void take_timestamp(tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """RFC 7323 section 5.3 R3 by section 4.3 (2): TS.Recent, only from a segment that is acceptable, its ACK included,
    and that the last ACK sent does not cover: else one forged segment could refuse the peer's for 24 days.

    One that is stale is replaced by whatever comes first (section 5.5); until then it stays stale, whoever was heard.
    """
    if not tcb.options & OPT_TIMESTAMPS or not seg.has & HAS_TIMESTAMPS:
        return
    if tcb.options & OPT_TS_STALE:
        tcb.options &= ~OPT_TS_STALE
        tcb.ts_recent = seg.ts_val
    elif seq_ge(seg.ts_val, tcb.ts_recent) and seq_le(seg.seq, tcb.last_ack_sent):
        tcb.ts_recent = seg.ts_val


cdef inline bint take_ack(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """Fifth, by state. False: nothing more to do with this segment."""
    cdef uint32_t window = <uint32_t>seg.window << tcb.snd_wscale
    cdef uint32_t una = tcb.snd_una
    if tcb.state == SYN_RECEIVED:
        established(tcp, tcb, seg, window)
        ack_input(tcp, tcb, seg, window)
        return True
    ack_input(tcp, tcb, seg, window)
    if tcb.snd_una != una:
        ip_confirm(tcp.ip, tcb.neighbour, &tcb.key.raddr, tcp.now_ns)
        if tcb.flags & TCB_FIN_SENT and tcb.snd_una == tcb.snd_end + 1:
            return fin_acknowledged(tcp, tcb)
    return True


cdef bint fin_acknowledged(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """The peer has our FIN. False: that was the end."""
    if tcb.state == FIN_WAIT_1:
        set_state(tcp, tcb, FIN_WAIT_2)
        if tcb.flags & TCB_CLOSED_BY_APP:
            deadline_set(tcp, tcb, DEADLINE_APPLICATION, tcb_fin_wait_2_ns(tcp, tcb))
        return True
    if tcb.state == CLOSING:
        connection_time_wait(tcp, tcb)
        return False
    if tcb.state == LAST_ACK:
        connection_end(tcp, tcb, CLOSE_NORMAL)
        return False
    return True
