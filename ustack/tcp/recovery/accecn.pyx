# SPDX-License-Identifier: MIT
"""Accurate ECN feedback (RFC 9768). See accecn.pxd for the rules and the sources."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

from ustack.base.counters cimport (
    ACCECN_AGREED, ACCECN_MARKS_IN, ACCECN_NO_RECORD, ACCECN_OPTIONS_ENDED, ACCECN_OPTIONS_IGNORED_IN, ACCECN_STOPPED,
    CE_IN, ECN_AGREED, count, count_add)
from ustack.ip.layer cimport ip_payload_mtu
from ustack.tcp.records.accecn cimport (
    ACCECN_AWAITS_ACK, ACCECN_BYTES_AT_FIRST, ACCECN_CEP_AT_FIRST, ACCECN_DEAF, ACCECN_FIELD_MASK, ACCECN_OPTIONS_BAD,
    ACCECN_OPTIONS_COME, ACCECN_OPTIONS_FIRST, ACCECN_OPTIONS_OFF, ACCECN_OPTION_AGAIN, ACCECN_OPTION_WAITS,
    ACCECN_OWES_ACK, ACCECN_PLAN_1, ACCECN_PROVEN, ACCECN_STAMPED, ACCECN_UNTESTED, accecn_of, accecn_t,
    ace_of_handshake, tcb_is_accurate)
from ustack.tcp.records.life cimport accecn_make
from ustack.tcp.records.state cimport SYN_RECEIVED
from ustack.tcp.records.tcb cimport (
    OPT_TIMESTAMPS, TCB_ACK_NOW, TCB_CWR_OWED, TCB_ECE_OWED, TCB_ECN, rx_queue_of, tcb_option_bytes)
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.ecn cimport ECN_NOTHING, ECN_REDUCED, ecn_marks_arrive
from ustack.wire.ipv4 cimport IPV4_ECN_MASK
from ustack.wire.seq cimport seq_lt
from ustack.wire.tcp cimport (
    ACCECN_FIELDS, HAS_ACCECN, HAS_SACK, HAS_TIMESTAMPS, OPTION_ACCECN0, OPTION_ACCECN1, TCP_HEADER_BYTES,
    TCP_MAX_OPTION_BYTES, accecn_option_bytes, header_say_ace, segment_accecn, segment_ace)


cdef enum:
    ACE_CE = 6                              # tables 2 to 4: it arrived marked
    ACE_NOT_ECT = 2                         # ... as it left
    NEGATIVE = 1 << 23                      # of a difference of 24 bits


# ---------------------------------------------------------------- the mode

cdef void accecn_agree(tcp_t *tcp, tcb_t *tcb, bint sends, uint16_t flags) noexcept nogil:
    """Section 3.2.1: the first values of the counters."""
    cdef accecn_t *own = accecn_make(tcp, tcb)
    if own == NULL:
        count(tcp.counters, ACCECN_NO_RECORD)
        return
    own.r_cep = ACCECN_CEP_AT_FIRST
    own.r_e0b = ACCECN_BYTES_AT_FIRST
    own.r_e1b = ACCECN_BYTES_AT_FIRST
    own.told_e0b = ACCECN_BYTES_AT_FIRST
    own.told_e1b = ACCECN_BYTES_AT_FIRST
    own.s_cep = ACCECN_CEP_AT_FIRST
    own.s_e0b = ACCECN_BYTES_AT_FIRST
    own.s_e1b = ACCECN_BYTES_AT_FIRST
    own.cep_at_option = ACCECN_CEP_AT_FIRST
    own.flags = flags | ACCECN_UNTESTED | ACCECN_OPTIONS_FIRST
    tcb.flags = (tcb.flags & ~(TCB_ECN | TCB_CWR_OWED)) | TCB_ECE_OWED
    if sends:
        tcb.tos |= IPV4_ECN_ECT0
    count(tcp.counters, ECN_AGREED)
    count(tcp.counters, ACCECN_AGREED)


cdef void stop_asking(tcp_t *tcp, tcb_t *tcb, accecn_t *own, uint16_t flags) noexcept nogil:
    """Our data says Not-ECT from now on; what the peer tells of marks is answered all the same, but for ACCECN_DEAF.
    What arrives is reported as before ("MUST continue", sections 3.2.2.3, 3.2.2.4)."""
    if tcb.tos & IPV4_ECN_MASK or flags & ~own.flags:
        count(tcp.counters, ACCECN_STOPPED)
    tcb.tos &= <uint8_t>~IPV4_ECN_MASK
    own.flags |= flags


cdef void handshake_feedback(tcp_t *tcp, tcb_t *tcb, accecn_t *own, uint8_t ace) noexcept nogil:
    """How our SYN, or SYN-ACK, has arrived: it left as Not-ECT, and what is Not-ECT must not change (section 3.2.2.3,
    RFC 3168 section 18). If it was marked, that is congestion all the same: one segment to begin with, as after the
    loss of one (RFC 5681 section 3.1; RFC 5562 section 3.2 for a SYN-ACK)."""
    if ace == ACE_CE:
        tcb.cwnd = tcb.smss
    if ace == ACE_CE or ace == ACE_NOT_ECT + IPV4_ECN_ECT1 or ace == ACE_NOT_ECT + IPV4_ECN_ECT0:
        stop_asking(tcp, tcb, own, 0)


cdef void accecn_syn_ack_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """Table 2: the flags tell of our SYN. Reserved (1,0,1) counts as unchanged (section 3.1.3). A mark of the SYN-ACK
    is counted, and once (section 3.2.2.2), a mark of our SYN is not: the peer does not count it, either."""
    cdef accecn_t *own = accecn_of(tcp, tcb)
    own.syn_ip_ecn = ip_ecn_of(seg)
    own.ip_ecn = own.syn_ip_ecn
    own.flags |= ACCECN_OWES_ACK | ACCECN_OPTION_AGAIN
    if own.syn_ip_ecn == IPV4_ECN_CE:
        note_cep(tcb, own, 1)
    handshake_feedback(tcp, tcb, own, segment_ace(seg))
    take_option(tcp, tcb, own, seg)


cdef void accecn_syn_ack_again(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """"The TCP Client MUST also use the handshake encoding for the pure ACK of any retransmitted SYN/ACK that confirms
    that the TCP Server supports AccECN" (section 3.2.2.1), of the latest (section 3.1.5)."""
    cdef accecn_t *own = accecn_of(tcp, tcb)
    cdef uint8_t ace = segment_ace(seg)
    if ace <= 1 or ace == ACE_MASK:
        return
    own.syn_ip_ecn = ip_ecn_of(seg)
    own.flags |= ACCECN_OWES_ACK
    if own.syn_ip_ecn == IPV4_ECN_CE and own.r_cep == ACCECN_CEP_AT_FIRST:
        note_cep(tcb, own, 1)


# ---------------------------------------------------------------- the receiver

cdef inline void note_cep(tcb_t *tcb, accecn_t *own, uint32_t segments) noexcept nogil:
    own.r_cep += segments
    tcb.flags = (tcb.flags & ~TCB_CWR_OWED) | (TCB_CWR_OWED if own.r_cep & 2 else 0)


cdef inline uint32_t segments_in(const tcp_t *tcp, const segment_t *seg) noexcept nogil:
    """A frame that a device has made of several segments is longer than any that we allow a peer to send."""
    cdef uint32_t most = ip_payload_mtu(tcp.ip) - TCP_HEADER_BYTES
    if tcp.config.mss and tcp.config.mss < most:
        most = tcp.config.mss
    return (seg.length + most - 1) // most if seg.length > most else 1


cdef void count_segment(tcp_t *tcp, tcb_t *tcb, accecn_t *own, const segment_t *seg) noexcept nogil:
    """Section 3.2: "every Acceptable packet", with data or without, and all bytes of its payload, new or not. When that
    is acknowledged at once: section 3.2.2.5.1. A burst of frames that are taken together has one ACK, as it allows.
    """
    cdef uint8_t ip_ecn = ip_ecn_of(seg)
    cdef uint32_t segments, enough
    if seg.length and own.flags & ACCECN_OPTION_WAITS:      # the peer goes on: our ACK with the option was there
        own.flags &= <uint16_t>~ACCECN_OPTION_WAITS
        own.option_losses = 0
    if ip_ecn == IPV4_ECN_CE:
        segments = segments_in(tcp, seg)
        count_add(tcp.counters, CE_IN, segments)
        note_cep(tcb, own, segments)
        segments += own.ce_waiting
        own.ce_waiting = <uint8_t>(segments if segments < 0xFF else 0xFF)
        enough = 2 if seg.length or tcb.rcv_nxt != tcb.last_ack_sent else 3
        if (seg.length and own.ip_ecn != IPV4_ECN_CE) or own.ce_waiting >= enough:
            tcb.flags |= TCB_ACK_NOW
            work_add(tcp, tcb)
        own.r_ceb += seg.length
    elif ip_ecn == IPV4_ECN_ECT0:
        own.r_e0b += seg.length
    elif ip_ecn == IPV4_ECN_ECT1:
        own.r_e1b += seg.length
    own.ip_ecn = ip_ecn


# ---------------------------------------------------------------- the sender

cdef inline bint counter_moved(uint32_t *counter, uint32_t field) noexcept nogil:
    """24 bits of a counter that only grows (section 3.2.3.1). False: it has gone back."""
    cdef uint32_t moved = (field - counter[0]) & ACCECN_FIELD_MASK
    if moved >= <uint32_t>NEGATIVE:
        return False
    counter[0] += moved
    return True


cdef bint take_option(tcp_t *tcp, tcb_t *tcb, accecn_t *own, const segment_t *seg) noexcept nogil:
    """The peer's byte counters. False: there are none to go by in this segment.

    The first option may be zeroed by a middlebox; then none is read (section 3.2.3.2.4). One that comes later than
    where the first belongs says that they get through after all (section 3.2.3.2.3).
    """
    cdef uint32_t fields[ACCECN_FIELDS]
    cdef uint32_t there, e0b = own.s_e0b, e1b = own.s_e1b, ceb = own.s_ceb
    cdef bint first = own.flags & ACCECN_OPTIONS_FIRST
    cdef bint order_0
    own.flags &= <uint16_t>~ACCECN_OPTIONS_FIRST
    if not seg.has & HAS_ACCECN or own.flags & ACCECN_OPTIONS_BAD:
        return False
    order_0 = seg.accecn[0] == OPTION_ACCECN0
    there = segment_accecn(seg, fields)
    if first and ((there > 0 and fields[0] == 0) or (there > 2 and fields[2] == 0)):
        own.flags |= ACCECN_OPTIONS_BAD
        count(tcp.counters, ACCECN_OPTIONS_IGNORED_IN)
        return False
    if not ((there < 1 or counter_moved(&e0b if order_0 else &e1b, fields[0]))
            and (there < 2 or counter_moved(&ceb, fields[1]))
            and (there < 3 or counter_moved(&e1b if order_0 else &e0b, fields[2]))):
        count(tcp.counters, ACCECN_OPTIONS_IGNORED_IN)
        return False
    own.s_e0b = e0b
    own.s_e1b = e1b
    own.s_ceb = ceb
    own.flags |= ACCECN_OPTIONS_COME
    return True


cdef uint32_t marks_of(tcp_t *tcp, tcb_t *tcb, accecn_t *own, const segment_t *seg, uint32_t segments) noexcept nogil:
    """How many segments has the counter moved on by? Sections 3.2.2.2, 3.2.2.5.2 and 3.2.3.2.5.

    The three bits may have come round where an ACK covers more than seven segments. With the option its bytes tell.
    Without it, the most that is possible; but where ACKs of many segments are the usual thing (a receiver that
    coalesces, a path that thins them) that would make marks of nothing all the time, so there it is the least (appendix
    A.2.1).
    """
    cdef uint32_t least = marks_least(segment_ace(seg), own.s_cep), marks = least, ceb = own.s_ceb
    cdef bint told = take_option(tcp, tcb, own, seg)
    if segments > ACE_MASK:
        if told:
            marks = marks_by_bytes(least, marks_most(least, segments), own.s_ceb - ceb, tcb.smss)
        elif own.stretch < STRETCHED:
            marks = marks_most(least, segments)
    own.s_cep += marks
    if told:
        if own.s_ceb != ceb and own.s_cep == own.cep_at_option and segments <= ACE_MASK:
            stop_asking(tcp, tcb, own, 0)   # marked bytes in no marked segment: feedback is mangled, "MUST disable"
        own.cep_at_option = own.s_cep
    return marks


cdef inline void note_stretch(accecn_t *own, uint32_t segments) noexcept nogil:
    """An average over eight ACKs or so."""
    cdef int32_t step
    if segments > 0xFF:
        segments = 0xFF
    step = <int32_t>(segments << STRETCH_SHIFT) - <int32_t>own.stretch
    own.stretch = <uint16_t>(<int32_t>own.stretch + step // 8)


cdef ecn_heard_t feedback_arrives(tcp_t *tcp, tcb_t *tcb, accecn_t *own, const segment_t *seg) noexcept nogil:
    """Section 3.2.2.2: unless a newer ACK has been here before. Which is the newer of two that acknowledge the same,
    only timestamps tell (appendix A.1); what one without them says comes again with the next that acknowledges more."""
    cdef uint8_t ace = segment_ace(seg)
    cdef uint32_t acked = seg.ack - tcb.snd_una, segments, marks
    cdef bint stamped = tcb.options & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS
    cdef ecn_heard_t heard
    if seq_lt(seg.ack, tcb.snd_una):
        return ECN_NOTHING
    if own.flags & ACCECN_AWAITS_ACK:       # of the SYN-ACK: it has left SYN-RECEIVED by this segment (table 4)
        own.flags &= <uint16_t>~ACCECN_AWAITS_ACK
        if seg.length == 0 and seg.sack_count == 0:
            take_option(tcp, tcb, own, seg)
            if stamped:
                note_stamp(own, seg)
            if ace == 0:                    # note 1: "MUST NOT set ECT", "MUST NOT respond to AccECN feedback"
                stop_asking(tcp, tcb, own, ACCECN_DEAF)
            elif ace == ACE_CE:
                own.s_cep = ACCECN_CEP_AT_FIRST + 1
                own.cep_at_option = own.s_cep
            handshake_feedback(tcp, tcb, own, ace)
            return ECN_NOTHING
    elif acked == 0 and not (stamped and is_newer(own, seg)):
        return ECN_NOTHING
    if stamped:
        note_stamp(own, seg)
    if own.flags & ACCECN_UNTESTED:
        own.flags &= <uint16_t>~ACCECN_UNTESTED
        if ace == 0:
            stop_asking(tcp, tcb, own, ACCECN_DEAF)
    segments = (acked + tcb.smss - 1) // tcb.smss
    marks = marks_of(tcp, tcb, own, seg, segments)
    if acked:
        note_stretch(own, segments)
    if marks < segments:
        own.flags |= ACCECN_PROVEN
    if marks == 0 or own.flags & ACCECN_DEAF:
        return ECN_NOTHING
    if tcb.state == SYN_RECEIVED:           # simultaneous open: there is no window yet that a mark could shrink
        return ECN_NOTHING
    own.newly_marked = <uint16_t>(marks if marks < 0xFFFF else 0xFFFF)
    count_add(tcp.counters, ACCECN_MARKS_IN, marks)
    heard = ecn_marks_arrive(tcp, tcb, seg)
    if heard >= ECN_REDUCED and not own.flags & ACCECN_PROVEN:
        own.marked_rounds += 1
        if own.marked_rounds >= ROUNDS_ALL_MARKED:
            stop_asking(tcp, tcb, own, ACCECN_DEAF)
    return heard


cdef inline bint is_newer(const accecn_t *own, const segment_t *seg) noexcept nogil:
    return not own.flags & ACCECN_STAMPED or <int32_t>(seg.ts_val - own.ts_seen) > 0


cdef inline void note_stamp(accecn_t *own, const segment_t *seg) noexcept nogil:
    if is_newer(own, seg):
        own.ts_seen = seg.ts_val
        own.flags |= ACCECN_STAMPED


cdef ecn_heard_t accecn_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    cdef accecn_t *own = accecn_of(tcp, tcb)
    count_segment(tcp, tcb, own, seg)
    return feedback_arrives(tcp, tcb, own, seg)


# ---------------------------------------------------------------- what we say

cdef inline bint e0b_due(const accecn_t *own) noexcept nogil:
    return own.r_e0b != own.told_e0b


cdef inline bint e1b_due(const accecn_t *own) noexcept nogil:
    return own.r_e1b != own.told_e1b


cdef inline bint ceb_due(const accecn_t *own) noexcept nogil:
    return own.r_ceb != own.told_ceb


cdef bint accecn_wants_ack(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """Section 3.2.2.1, of our first; and "at least once for every 2^22 bytes" (section 3.2.3.3), where full segments
    carry all our ACKs."""
    cdef const accecn_t *own
    if not tcb_is_accurate(tcb):
        return False
    own = accecn_of(tcp, tcb)
    if own.flags & ACCECN_OWES_ACK:
        return True
    # Behind a hole every segment is acknowledged at once anyway, and SACK blocks may leave no room for what is due.
    return not own.flags & ACCECN_OPTIONS_OFF and (tcb.rx == 0 or rx_queue_of(tcp, tcb).sack_count == 0) and (
        own.r_e0b - own.told_e0b >= <uint32_t>OPTION_DUE_BYTES or own.r_ceb - own.told_ceb >= <uint32_t>OPTION_DUE_BYTES
        or own.r_e1b - own.told_e1b >= <uint32_t>OPTION_DUE_BYTES)


cdef uint8_t fields_due(const accecn_t *own, bint all_of_them, uint32_t most) noexcept nogil:
    """Which fields go (section 3.2.3.3, "recommended simple scheme"): every counter that has ever changed, if one of
    them has since our latest option. Where only `most` fit, those that have changed since then, or no option at all.

    Both orders have ECEB in the middle, and the one that has never changed is better last.
    """
    cdef bint has_e0b = own.r_e0b != ACCECN_BYTES_AT_FIRST, has_e1b = own.r_e1b != ACCECN_BYTES_AT_FIRST
    cdef bint order_1 = has_e1b and not has_e0b
    cdef uint32_t fields = 3 if has_e0b and has_e1b else 2 if own.r_ceb else 1
    if own.flags & ACCECN_OPTIONS_OFF:
        return 0
    if all_of_them:
        return ACCECN_FIELDS if most >= ACCECN_FIELDS else 0
    if not e0b_due(own) and not e1b_due(own) and not ceb_due(own):
        return 0
    if fields > most:
        if e0b_due(own) and e1b_due(own):
            return 0
        order_1 = e1b_due(own)
        fields = 2 if ceb_due(own) else 1
        if fields > most:
            return 0
    return <uint8_t>(fields | (ACCECN_PLAN_1 if order_1 else 0))


cdef void write_option(accecn_t *own, header_t *header, uint8_t planned) noexcept nogil:
    cdef bint order_1 = planned & ACCECN_PLAN_1
    header.has |= HAS_ACCECN
    header.accecn_kind = OPTION_ACCECN1 if order_1 else OPTION_ACCECN0
    header.accecn_fields = planned & 3
    header.accecn[0] = own.r_e1b if order_1 else own.r_e0b
    header.accecn[1] = own.r_ceb
    header.accecn[2] = own.r_e0b if order_1 else own.r_e1b
    if not order_1 or header.accecn_fields > 2:
        own.told_e0b = own.r_e0b
    if order_1 or header.accecn_fields > 2:
        own.told_e1b = own.r_e1b
    if header.accecn_fields > 1:
        own.told_ceb = own.r_ceb


cdef uint32_t accecn_plan(const tcp_t *tcp, const tcb_t *tcb, uint32_t seq, uint32_t length) noexcept nogil:
    """In what SMSS leaves of a segment; what is sent again has none (section 3.2.3.2.2: "it SHOULD fall back to no
    AccECN Option on the retransmission")."""
    cdef accecn_t *own
    if not tcb_is_accurate(tcb):
        return 0
    own = accecn_of(tcp, tcb)
    own.planned = 0
    if seq != tcb.snd_nxt or length == 0 or length > tcb.smss:
        return 0
    own.planned = fields_due(own, own.flags & ACCECN_OPTION_AGAIN, ACCECN_FIELDS)
    if own.planned and length + accecn_option_bytes(own.planned & 3) > tcb.smss:
        own.planned = 0
    return accecn_option_bytes(own.planned & 3) if own.planned else 0


cdef void add_option(const tcb_t *tcb, accecn_t *own, header_t *header, bint all_of_them) noexcept nogil:
    """Of an ACK without data. Two SACK blocks come first, the option before any more of them (section 3.2.3.3)."""
    cdef uint32_t left = TCP_MAX_OPTION_BYTES - tcb_option_bytes(tcb), blocks = 0, most = ACCECN_FIELDS
    cdef uint8_t planned
    if header.has & HAS_SACK:
        blocks = header.sack_count if header.sack_count < SACK_BLOCKS_FIRST else SACK_BLOCKS_FIRST
        left -= 4 + 8 * blocks
    while most and accecn_option_bytes(most) > left:
        most -= 1
    planned = fields_due(own, all_of_them, most)
    if planned == 0:
        return
    write_option(own, header, planned)
    own.flags |= ACCECN_OPTION_WAITS
    left -= accecn_option_bytes(planned & 3)
    if header.has & HAS_SACK and header.sack_count > blocks + left // 8:
        header.sack_count = <uint8_t>(blocks + left // 8)


cdef void accecn_repeated(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Section 3.2.3.2.2: "detecting whether the acknowledged data always reappears as a retransmission". The ACK of a
    repetition has no option, as no counter has changed, so it gets through where one with an option does not."""
    cdef accecn_t *own = accecn_of(tcp, tcb)
    if not own.flags & ACCECN_OPTION_WAITS:
        return
    own.flags &= <uint16_t>~ACCECN_OPTION_WAITS
    own.option_losses += 1
    if own.option_losses >= OPTION_LOSSES and not own.flags & ACCECN_OPTIONS_OFF:
        own.flags |= ACCECN_OPTIONS_OFF
        count(tcp.counters, ACCECN_OPTIONS_ENDED)


cdef void accecn_say(tcp_t *tcp, tcb_t *tcb, header_t *header, bint bare) noexcept nogil:
    """ACE: r.cep, or in the ACK of a SYN-ACK how that arrived (table 3). An ACK of either kind: no mark waits for
    one."""
    cdef accecn_t *own = accecn_of(tcp, tcb)
    cdef uint32_t ace = own.r_cep & ACE_MASK
    cdef bint owes = bare and own.flags & ACCECN_OWES_ACK, handshake = owes and not header.has & HAS_SACK
    if owes:                                # one with SACK blocks pays it, too: else, behind a hole, each ACK would owe
        own.flags &= <uint16_t>~ACCECN_OWES_ACK
    if handshake:
        ace = ace_of_handshake(own.syn_ip_ecn)
    header_say_ace(header, ace)
    own.ce_waiting = 0
    if bare:
        add_option(tcb, own, header, handshake)
    elif own.planned:
        write_option(own, header, own.planned)
        own.planned = 0
        own.flags &= <uint16_t>~ACCECN_OPTION_AGAIN
