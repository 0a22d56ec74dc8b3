# SPDX-License-Identifier: MIT
"""The SYN of an active open. See handshake.pxd."""

from libc.stdint cimport uint32_t
from libc.string cimport memset

from ustack.base.counters cimport SEGMENTS_RETRANSMITTED, count
from ustack.ip.layer cimport IP_NO_ROUTE, IP_OK, IP_RING_FULL, ip_status_t
from ustack.tcp.emit cimport advertised_wscale, emit_bare, first_window, tcb_advertised_mss
from ustack.tcp.ending cimport connection_end
from ustack.tcp.records.accecn cimport ACE_MASK, accecn_of, ace_of_handshake, tcb_is_accurate
from ustack.tcp.records.configuration cimport ACCURATE_SYNS_AGAIN, ECN_ACCURATE_OFFER, ecn_offers_classic
from ustack.tcp.records.deadlines cimport deadline_is_set, deadline_set
from ustack.tcp.records.flight cimport REXMIT_NONE, REXMIT_RTO, rexmit_cause_t
from ustack.tcp.records.measures cimport note_segments_out
from ustack.tcp.records.state cimport CLOSE_NET_UNREACHABLE, SYN_RECEIVED
from ustack.tcp.records.tally cimport tally_resent
from ustack.tcp.records.tcb cimport (
    DEADLINE_REXMIT, OPT_SACK, OPT_TIMESTAMPS, OPT_WSCALE, TCB_ACK_NOW, TCB_ECN, TCB_REXMIT)
from ustack.tcp.records.timestamps cimport timestamp_for, timestamp_wait_ms
from ustack.tcp.records.trace cimport TRACE_RETRANSMITTED, TRACE_SENT, trace_note
from ustack.tcp.recovery.rtt cimport rexmit_start
from ustack.tcp.recovery.transmissions cimport flight_of, transmission_prepare, transmission_resent, transmission_sent
from ustack.tcp.send.segment cimport SEND_BLOCKED, SEND_FAILED, SEND_OK
from ustack.wire.tcp cimport (
    ACK, CWR, ECE, HAS_MSS, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, SYN, header_say_ace, header_t)


cdef void say_of_feedback(tcp_t *tcp, tcb_t *tcb, header_t *header, bint answering) noexcept nogil:
    """A SYN offers by the setting, but the later ones do not: what dropped the first may do so for its flags (RFC 3168
    section 6.1.1.1, RFC 9768 section 3.1.4.1). A SYN-ACK says what was agreed on."""
    if answering:
        if tcb.flags & TCB_ECN:
            header.flags |= ECE
        elif tcb_is_accurate(tcb):
            header_say_ace(header, ace_of_handshake(accecn_of(tcp, tcb).syn_ip_ecn))
    elif tcp.config.ecn == ECN_ACCURATE_OFFER and tcb.backoff <= ACCURATE_SYNS_AGAIN:
        header_say_ace(header, ACE_MASK)
    elif ecn_offers_classic(&tcp.config) and tcb.backoff == 0:
        header.flags |= ECE | CWR


cdef send_t send_syn(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """SYN, or SYN-ACK after a simultaneous open. Offers everything; in SYN-RECEIVED only what the peer offered too."""
    cdef header_t header
    cdef ip_status_t status
    cdef bint answering = tcb.state == SYN_RECEIVED
    cdef uint32_t index, wait_ms
    cdef rexmit_cause_t cause
    # Again: after a timeout, or because the peer's SYN has come again, so that our SYN-ACK was lost.
    if tcb.snd_nxt != tcb.snd_una and not tcb.flags & TCB_REXMIT and not (tcb.flags & TCB_ACK_NOW and answering):
        return SEND_OK
    if tcp.config.timestamps and not answering and tcb.snd_nxt == tcb.snd_una:
        if deadline_is_set(tcb, DEADLINE_REXMIT):
            return SEND_FAILED              # the timer will try again
        wait_ms = 0 if tcb.flags & TCB_REXMIT else timestamp_wait_ms(tcp, &tcb.key)
        if wait_ms:
            tcb.flags |= TCB_REXMIT         # it waits once, whoever else ends meanwhile
            deadline_set(tcp, tcb, DEADLINE_REXMIT, wait_ms * 1000000ULL)
            return SEND_FAILED
    memset(&header, 0, sizeof(header))
    header.seq = tcb.snd_una
    header.flags = SYN
    header.has = HAS_MSS
    say_of_feedback(tcp, tcb, &header, answering)
    header.window = first_window(tcp, 0)
    header.mss = tcb_advertised_mss(tcp, tcb)
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
    if tcp.config.measure:
        note_segments_out(tcp, tcb.index, 0, 0)
    if tcb.snd_nxt == tcb.snd_una:
        index = transmission_prepare(tcp, tcb)
        if index:
            transmission_sent(tcp, tcb, index, tcb.snd_una + 1)
        rexmit_start(tcp, tcb)
    else:
        count(tcp.counters, SEGMENTS_RETRANSMITTED)
        tally_resent(tcp, tcb, REXMIT_RTO, 1, 0)
        if tcb.flight:
            transmission_resent(tcp, tcb, flight_of(tcp, tcb), flight_of(tcp, tcb).head)
    cause = REXMIT_NONE if tcb.snd_nxt == tcb.snd_una else REXMIT_RTO
    tcb.snd_nxt = tcb.snd_una + 1
    tcb.snd_max = tcb.snd_nxt
    trace_note(tcp, tcb, TRACE_RETRANSMITTED if cause else TRACE_SENT, cause, tcb.snd_una, 1, 0)
    return SEND_OK
