# SPDX-License-Identifier: MIT
"""SYN-SENT, and the end of a handshake that we began. See active.pxd for the contract."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.base.counters cimport DROP_TCP_ACK, DROP_TCP_FLAGS, DROP_TCP_RST, ECN_AGREED, count
from ustack.tcp.arrival.text cimport accept_text
from ustack.tcp.emit cimport default_mss, emit_reset_for, first_window
from ustack.tcp.ending cimport connection_end
from ustack.tcp.opening cimport apply_negotiated, offered_options
from ustack.tcp.records.configuration cimport ECN_OFFER
from ustack.tcp.records.moves cimport set_state
from ustack.tcp.records.state cimport CLOSE_REFUSED, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT_1, SYN_RECEIVED
from ustack.tcp.records.tcb cimport (
    OPT_TIMESTAMPS, TCB_ACK_DELAYED, TCB_ACK_NOW, TCB_ECN, TCB_EV_ACCEPT, TCB_EV_DATA, TCB_EV_EOF, TCB_FIN_QUEUED,
    TCB_FIN_RECEIVED, TCB_REXMIT, tcb_heard)
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.ack cimport ack_input, ack_set_window, ack_start
from ustack.tcp.recovery.ecn cimport ecn_agree
from ustack.wire.seq cimport seq_gt, seq_le
from ustack.wire.tcp cimport ACK, CWR, ECE, FIN, HAS_MSS, RST, SYN


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
    tcb.rcv_nxt = seg.seq + 1                                           # fourth
    tcb.last_ack_sent = tcb.rcv_nxt
    tcb.rcv_adv = tcb.rcv_nxt + first_window(tcp)
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
        accept_text(tcp, tcb, seg.seq + 1, seg, delivery)               # kept until ESTABLISHED
        tcb.rcv_adv = tcb.rcv_nxt + first_window(tcp)
        tcb.flags &= ~(TCB_ACK_NOW | TCB_ACK_DELAYED)         # the SYN-ACK says it
        return
    tcb.flags |= TCB_ACK_NOW
    established(tcp, tcb, seg, seg.window)
    ack_input(tcp, tcb, seg, seg.window)
    accept_text(tcp, tcb, seg.seq + 1, seg, delivery)


cdef void agree_on_ecn(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """The answer to an offer of ours: ECE alone on a SYN-ACK. Both flags come from who reflects what it got (RFC 3168
    section 6.1.1.2), or are the offer of a simultaneous open.

    Where our SYN went again without the offer, what answers the first one commits us to report marks, but our own data
    must not ask for them (section 6.1.1). A simultaneous open is then without ECN.
    """
    cdef uint16_t expected = ECE if seg.flags & ACK else ECE | CWR
    if tcp.config.ecn != ECN_OFFER or seg.flags & (ECE | CWR) != expected:
        return
    if tcb.backoff == 0 or seg.flags & ACK:
        ecn_agree(tcb, tcb.backoff == 0)


cdef void established(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, uint32_t window) noexcept nogil:
    """An active open is complete. A close that waited for it goes on (section 3.10.4, SYN-RECEIVED)."""
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
    ack_start(tcp, tcb, tcb.backoff > 0, 0)
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
    seg.flags &= ~(SYN | ECE | CWR)         # ECE of a SYN-ACK is no echo
    seg.seq = tcb.rcv_nxt
    seg.data += cut
    seg.length -= cut
    seg.window >>= tcb.snd_wscale           # a SYN's window is not scaled (RFC 7323 section 2.2)
