# SPDX-License-Identifier: MIT
"""SYN-SENT, and the end of a handshake that we began. See active.pxd for the contract."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.base.counters cimport (
    ACCECN_MIXED_RESETS, DROP_TCP_ACK, DROP_TCP_FLAGS, DROP_TCP_RST, ECN_AGREED, count)
from ustack.tcp.arrival.text cimport accept_text
from ustack.tcp.emit cimport default_mss, emit_reset_for, first_window
from ustack.tcp.ending cimport connection_end
from ustack.tcp.opening cimport apply_negotiated, offered_options
from ustack.tcp.records.accecn cimport ACE_MASK, accecn_of, tcb_is_accurate
from ustack.tcp.records.configuration cimport ACCURATE_SYNS_AGAIN, ECN_ACCURATE_OFFER, ecn_offers_classic
from ustack.tcp.records.moves cimport set_state
from ustack.tcp.records.state cimport (
    CLOSE_ABORTED, CLOSE_REFUSED, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT_1, SYN_RECEIVED)
from ustack.tcp.records.tally cimport rcv_nxt_begin
from ustack.tcp.records.tcb cimport (
    OPT_TIMESTAMPS, TCB_ABORT, TCB_ACK_DELAYED, TCB_ACK_NOW, TCB_ECN, TCB_EV_ACCEPT, TCB_EV_DATA, TCB_EV_EOF,
    TCB_FIN_QUEUED, TCB_FIN_RECEIVED, TCB_REXMIT, tcb_heard)
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.accecn cimport accecn_agree, accecn_syn_ack_arrives, ip_ecn_of
from ustack.tcp.recovery.ack cimport ack_input, ack_set_window, ack_start
from ustack.tcp.recovery.ecn cimport ecn_agree, ecn_refuse
from ustack.tcp.recovery.rtt cimport rtt_of_echo_us
from ustack.tcp.urgent cimport urgent_arrives
from ustack.wire.ipv4 cimport IPV4_ECN_MASK
from ustack.wire.seq cimport seq_gt, seq_le
from ustack.wire.tcp cimport ACCURATE, ACK, CWR, ECE, FIN, HAS_MSS, HAS_TIMESTAMPS, RST, SYN, URG, segment_ace


cdef enum:
    # AE, CWR and ECE of a SYN that offers RFC 3168, and of its SYN-ACK (RFC 9768 table 2)
    ACE_CLASSIC = 3
    ACE_CLASSIC_ANSWER = 1


cdef void syn_sent_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, delivery_t *delivery) noexcept nogil:
    cdef uint8_t options = offered_options(tcp, seg)
    cdef bint acceptable = seg.flags & ACK and seq_gt(seg.ack, tcb.snd_una) and seq_le(seg.ack, tcb.snd_max)
    if seg.flags & ACK and not acceptable:                              # first
        count(tcp.counters, DROP_TCP_ACK)
        emit_reset_for(tcp, &tcb.key, seg, 0, 0)
        return
    if seg.flags & RST:                                                 # second
        if acceptable:
            connection_end(tcp, tcb, CLOSE_REFUSED)
        count(tcp.counters, DROP_TCP_RST)
        return
    if not seg.flags & SYN:                                             # fifth
        count(tcp.counters, DROP_TCP_FLAGS)
        return
    rcv_nxt_begin(tcp, tcb, seg.seq)                                    # fourth
    tcb.last_ack_sent = tcb.rcv_nxt
    tcb.rcv_adv = tcb.rcv_nxt + first_window(tcp, 0)
    if options & OPT_TIMESTAMPS:
        tcb.ts_recent = seg.ts_val
    apply_negotiated(tcp, tcb, options, seg.mss if seg.has & HAS_MSS else default_mss(&tcb.key.raddr), seg.wscale)
    agree_on_ecn(tcp, tcb, seg)
    tcb_heard(tcp, tcb)
    work_add(tcp, tcb)
    if not acceptable:                                                  # simultaneous open (MUST-10)
        set_state(tcp, tcb, SYN_RECEIVED)
        tcb.flags |= TCB_REXMIT                                         # our SYN again, now with an ACK
        ack_set_window(tcb, seg, seg.window)                            # SND.WL1 <- IRS
        if seg.flags & URG:
            urgent_arrives(tcp, tcb, seg)
        accept_text(tcp, tcb, seg.seq + 1, seg, delivery)               # kept until ESTABLISHED, as the pointer is
        tcb.rcv_adv = tcb.rcv_nxt + first_window(tcp, 0)
        tcb.flags &= ~(TCB_ACK_NOW | TCB_ACK_DELAYED)         # the SYN-ACK says it
        return
    tcb.flags |= TCB_ACK_NOW
    established(tcp, tcb, seg, seg.window)
    if tcb_is_accurate(tcb):
        accecn_syn_ack_arrives(tcp, tcb, seg)
    ack_input(tcp, tcb, seg, seg.window)
    if seg.flags & URG:                                                 # "continue processing at the sixth step"
        urgent_arrives(tcp, tcb, seg)
    accept_text(tcp, tcb, seg.seq + 1, seg, delivery)


cdef void agree_on_ecn(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """The answer to an offer of ours: ECE alone on a SYN-ACK. Both flags come from who reflects what it got (RFC 3168
    section 6.1.1.2), or are the offer of a simultaneous open.

    Where our SYN went again without the offer, what answers the first one commits us to report marks, but our own data
    must not ask for them (section 6.1.1). A simultaneous open is then without ECN.
    """
    cdef uint16_t expected = ECE if seg.flags & ACK else ECE | CWR
    cdef bint offered = tcb.backoff == 0
    if tcp.config.ecn == ECN_ACCURATE_OFFER:
        offered = tcb.backoff <= ACCURATE_SYNS_AGAIN
        if agree_on_accurate(tcp, tcb, seg, offered):
            return
    elif not ecn_offers_classic(&tcp.config):
        return
    if seg.flags & (ECE | CWR) == expected and (offered or seg.flags & ACK):
        ecn_agree(tcb, offered)


cdef bint agree_on_accurate(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, bint offered) noexcept nogil:
    """RFC 9768 table 2, after an offer of all three flags. False: it is not for this mode.

    A SYN-ACK with none of the flags is a peer without ECN, one with all of them reflects ours, and (0,0,1) is RFC
    3168's. Any other means it, the reserved (1,0,1) too (section 3.1.3), whether or not a later SYN of ours went
    without the offer: who answers the first counts already, and our data may be marked (section 3.1.4.1). At a
    simultaneous open the peer's SYN is taken as a listener takes it.
    """
    cdef uint8_t ace = segment_ace(seg)
    if seg.flags & ACK:
        if ace <= 1 or ace == ACE_MASK:
            return False
        accecn_agree(tcp, tcb, True, 0)
        return True
    if ace == 0 or ace == ACE_CLASSIC or not offered:
        return False
    accecn_agree(tcp, tcb, True, 0)
    if tcb_is_accurate(tcb):
        accecn_of(tcp, tcb).syn_ip_ecn = ip_ecn_of(seg)
    return True


cdef bint confirms_feedback(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """Classic after a SYN for accurate feedback: nobody can know by which of the two the peer will go (RFC 9768 section
    3.1.5, "MUST reset the connection")."""
    if not tcb_is_accurate(tcb):
        if seg.flags & (ECE | CWR) != ECE:  # RFC 3168 section 6.1.1: "SHOULD NOT set ECT on data packets"
            ecn_refuse(tcb)
        return True
    if segment_ace(seg) == ACE_CLASSIC_ANSWER:
        count(tcp.counters, ACCECN_MIXED_RESETS)
        tcb.close_reason = CLOSE_ABORTED
        tcb.flags |= TCB_ABORT
        work_add(tcp, tcb)
        return False
    if segment_ace(seg) == 0:               # it has fallen back, and may not count what it receives
        tcb.tos &= <uint8_t>~IPV4_ECN_MASK
    return True


cdef void established(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    """An active open is complete. A close that waited for it goes on (section 3.10.4, SYN-RECEIVED)."""
    cdef uint32_t rtt_us = 0
    set_state(tcp, tcb, ESTABLISHED)
    if tcb.flags & TCB_FIN_QUEUED:
        set_state(tcp, tcb, FIN_WAIT_1)
    if tcb.flags & TCB_FIN_RECEIVED:        # on the SYN of a simultaneous open
        set_state(tcp, tcb, CLOSING if tcb.flags & TCB_FIN_QUEUED else CLOSE_WAIT)
        tcb.flags |= TCB_EV_EOF
    if tcb.rx != 0:
        tcb.flags |= TCB_EV_DATA
    if tcb.flags & TCB_ECN:
        count(tcp.counters, ECN_AGREED)
    ack_set_window(tcb, seg, window)
    if tcb.backoff and tcb.options & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS:
        rtt_us = rtt_of_echo_us(tcp, seg.ts_ecr)            # a SYN that went once is measured by ack_input
    ack_start(tcp, tcb, tcb.backoff, rtt_us)
    tcb.backoff = 0
    tcb.flags |= TCB_EV_ACCEPT
    work_add(tcp, tcb)


cdef void trim_syn_ack(const tcb_t *tcb, segment_t *seg) noexcept nogil:
    """The SYN-ACK of a simultaneous open: its SYN is known, and so is what came with the SYN before; the rest is news.

    "One could tailor actual segments by trimming off any portions that lie outside the window (including SYN and FIN)":
    what is left begins at RCV.NXT and is acceptable, though only its ACK may be left.
    """
    cdef uint32_t known = tcb.rcv_nxt - (seg.seq + 1)
    cdef uint32_t cut = known if known < seg.length else seg.length
    if known > seg.length:                  # as far as its FIN
        seg.flags &= ~FIN
    seg.flags &= ~(SYN | ECE | CWR | ACCURATE)          # ECE of a SYN-ACK is no echo, and its flags are no ACE field
    if seg.urgent > known + 1:              # it counts from the SYN
        seg.urgent -= <uint16_t>(known + 1)
    else:
        seg.flags &= ~URG
    seg.seq = tcb.rcv_nxt
    seg.data += cut
    seg.length -= cut
    seg.window >>= tcb.snd_wscale           # a SYN's window is not scaled (RFC 7323 section 2.2)
