# SPDX-License-Identifier: MIT
"""Segments for what is not (or no longer) a connection. See opening.pxd for sources and neighbours.

A passive open costs one cache line until its handshake is complete. The queue of such records is bounded; beyond the
bound a SYN is answered with a cookie (cookies.pxd) and nothing is kept, so that a flood neither keeps new peers out nor
pushes out those whose handshake is under way.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from ustack.base.counters cimport (
    ACCECN_MIXED_RESETS, ACCEPT_QUEUE_OVERFLOW, CONNECTIONS_ACCEPTED, DROP_NO_MEMORY, DROP_TCP_ACK, DROP_TCP_AFTER_FIN,
    DROP_TCP_BACKLOG, DROP_TCP_DEFERRED, DROP_TCP_DUPLICATE, DROP_TCP_FLAGS, DROP_TCP_FORGOTTEN, DROP_TCP_NO_LISTENER,
    DROP_TCP_PAWS, DROP_TCP_RST, DROP_TCP_SEQUENCE, DROP_TCP_SYN, DROP_TCP_SYN_QUEUE, ECN_AGREED, SYN_COOKIES_ACCEPTED,
    SYN_FIN_IN, SYN_QUEUE_EVICTED, TIME_WAIT_REUSED, count, counter_t)
from ustack.base.ilist cimport ilist_append
from ustack.base.wheel cimport TIMER_NONE, WHEEL_TICK_SHIFT, wheel_arm, wheel_left_ns
from ustack.buf.slab cimport slab_alloc
from ustack.ip.layer cimport ip_payload_mtu
from ustack.tcp.cookies cimport (
    COOKIE_NONE, COOKIE_RIGHT, COOKIE_UNPROVED, SYN_COOKIES_ALWAYS, SYN_COOKIES_OFF, cookie_check, cookie_make,
    cookie_spend, cookie_t)
from ustack.tcp.emit cimport (
    advertised_wscale, default_mss, emit_cookie, emit_reset_for, emit_syn_ack, emit_syn_received_ack,
    emit_time_wait_ack, first_edge, first_window)
from ustack.tcp.ending cimport syn_received_remove, time_wait_remove, time_wait_restart
from ustack.tcp.holders cimport holders_look
from ustack.tcp.records.accecn cimport ACCECN_AWAITS_ACK
from ustack.tcp.records.configuration cimport ECN_OFF, ecn_takes_accurate
from ustack.tcp.records.deadlines cimport TIMER_SYN_RECEIVED
from ustack.tcp.records.demux cimport (
    FLOW_CONNECTION, FLOW_SYN_RECEIVED, flow_insert, flow_retarget, initial_sequence_number, listener_find)
from ustack.tcp.records.life cimport tcb_alloc, tcb_release
from ustack.tcp.records.moves cimport note_move, take_over_state
from ustack.tcp.records.sockopts cimport sockopts_of, sockopts_t
from ustack.tcp.records.state cimport ESTABLISHED, LISTEN, SYN_RECEIVED
from ustack.tcp.records.tally cimport rcv_nxt_begin
from ustack.tcp.records.tcb cimport (
    OPT_AGREED, OPT_ECN, OPT_SACK, OPT_TIMESTAMPS, OPT_WSCALE, TCB_EV_ACCEPT, flow_key_t, listener_t, syn_at,
    syn_answers, syn_hook, syn_is_accurate, syn_note_ip_ecn, syn_peer_mss, syn_received_t, syn_retries,
    syn_set_accurate, tcb_heard, tcb_option_bytes, time_wait_at, time_wait_t)
from ustack.tcp.records.trace cimport trace_opened
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.accecn cimport accecn_agree, ip_ecn_of
from ustack.tcp.recovery.ack cimport ack_set_window, ack_start
from ustack.tcp.recovery.control cimport control_choose
from ustack.tcp.recovery.ecn cimport ecn_agree
from ustack.tcp.recovery.rtt cimport rtt_of_echo_us
from ustack.tcp.throttle cimport syn_received_answer_allowed, time_wait_challenge_allowed, time_wait_corrective_allowed
from ustack.wire.seq cimport seq_diff, seq_gt, seq_le, seq_lt
from ustack.wire.tcp cimport (
    ACK, CWR, ECE, FIN, HAS_MSS, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, RST, SYN, TCP_HEADER_BYTES,
    segment_ace, segment_t)


cdef enum:
    MINIMUM_MSS = 64                        # below, a peer could make us send headers alone
    MAX_WINDOW_UNSCALED = 0xFFFF
    WHEEL_TICK_NS = 1 << WHEEL_TICK_SHIFT
    # AE, CWR and ECE of a SYN (RFC 9768 table 2)
    ACE_NONE = 0
    ACE_CLASSIC = 3


# ---------------------------------------------------------------- CLOSED, LISTEN (sections 3.10.7.1 and 3.10.7.2)

cdef tcb_t *listen_arrives(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, uint32_t iss_after) noexcept nogil:
    cdef listener_t *listener = listener_find(tcp, &key.laddr, key.lport)
    if listener == NULL:
        count(tcp.counters, DROP_TCP_NO_LISTENER)
        emit_reset_for(tcp, key, seg, 0, 0)
    elif seg.flags & RST:                                               # first
        count(tcp.counters, DROP_TCP_RST)
    elif seg.flags & ACK:                                               # second
        return acknowledges_no_record(tcp, key, seg)
    elif not seg.flags & SYN:                                           # fourth
        count(tcp.counters, DROP_TCP_FLAGS)
    elif listener.waiting >= listener.backlog:
        count(tcp.counters, DROP_TCP_SYN_QUEUE)                         # the peer will ask again
    elif tcp.admission.refuses:
        count(tcp.counters, DROP_TCP_BACKLOG)
        emit_reset_for(tcp, key, seg, 0, 0)
    else:
        half_open(tcp, key, seg, iss_after)                             # third
    return NULL


cdef void refuse_ack(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, cookie_t found, uint8_t options,
                     uint32_t ts_recent) noexcept nogil:
    """An ACK that proves no cookie is answered with a RST.

    COOKIE_UNPROVED is not: the peer has probably completed its handshake, and this is not its first segment, which was
    lost or comes late. It will come again. If it does not, the cookie is soon too old to be taken for one, and the
    peer's next segment gets the RST.
    """
    if found == COOKIE_UNPROVED:
        count(tcp.counters, DROP_TCP_FORGOTTEN)
    else:
        count(tcp.counters, DROP_TCP_ACK)
        emit_reset_for(tcp, key, seg, options, ts_recent)


cdef tcb_t *acknowledges_no_record(tcp_t *tcp, const flow_key_t *key, const segment_t *seg) noexcept nogil:
    """An ACK of no SYN-ACK that is remembered: of a cookie, or of nothing."""
    cdef syn_received_t syn
    cdef cookie_t found = COOKIE_NONE
    if not seg.flags & SYN:
        found = cookie_check(tcp, key, seg, &syn)
    if found == COOKIE_RIGHT:
        return handshake_complete(tcp, &syn, 0, seg)
    refuse_ack(tcp, key, seg, found, 0, 0)
    return NULL


cdef tcb_t *acknowledges_another(tcp_t *tcp, uint32_t index, const segment_t *seg) noexcept nogil:
    """SYN-RECEIVED, fifth: not our ISS.

    A peer so far away that its SYN came again before our SYN-ACK was there may have got a cookie for the first and a
    record for the second, and what arrives answers the first.
    """
    cdef syn_received_t *record = syn_at(tcp, index)
    cdef flow_key_t key = record.key
    cdef syn_received_t syn
    cdef cookie_t found = cookie_check(tcp, &key, seg, &syn)
    if found == COOKIE_RIGHT:
        syn_received_remove(tcp, index, False)
        return handshake_complete(tcp, &syn, 0, seg)
    refuse_ack(tcp, &key, seg, found, record.options_wscale >> 4, record.ts_recent)
    return NULL


cdef inline bint would_accept(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef listener_t *listener = listener_find(tcp, &key.laddr, key.lport)
    return listener != NULL and listener.waiting < listener.backlog and not tcp.admission.refuses


cdef void half_open(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, uint32_t iss_after) noexcept nogil:
    """A SYN for a listener: a mini-record and a SYN-ACK. Where there is no record left: a cookie.

    Without cookies the oldest record makes room (RFC 4987 section 3.2). So it does for a SYN that takes over a
    TIME-WAIT record: our ISN must lie beyond the old connection's, and a cookie cannot be chosen. A flood cannot ask
    for many of these: each record is of a connection that there was.

    Text and a FIN on the SYN are not kept, nor acknowledged: they come again when the connection is there, which is the
    same as "queued for processing later", a round trip slower. A SYN with a FIN is a SYN (section 3.10.7.2 says so of
    "any other control"): who filters them does it before they get here. Linux drops it without a word.
    """
    cdef syn_received_t *syn
    cdef uint32_t index = 0
    cdef bint may_forget = tcp.config.syn_cookies != SYN_COOKIES_OFF and iss_after == 0
    if not (may_forget and tcp.config.syn_cookies == SYN_COOKIES_ALWAYS):
        index = slab_alloc(&tcp.syns)
    if index == 0 and may_forget:
        send_cookie(tcp, key, seg)
        return
    if index == 0 and tcp.syn_order.first:
        syn_received_remove(tcp, tcp.syn_order.first, False)
        count(tcp.counters, SYN_QUEUE_EVICTED)
        index = slab_alloc(&tcp.syns)
    if index == 0:
        count(tcp.counters, DROP_TCP_SYN_QUEUE)
        return
    syn = syn_at(tcp, index)
    syn.key = key[0]
    if flow_insert(tcp, &syn.key, FLOW_SYN_RECEIVED, index) != 0:
        count(tcp.counters, DROP_NO_MEMORY)
        ilist_append(&tcp.syn_order, syn_hook, tcp, index)
        syn_received_remove(tcp, index, True)
        return
    note_move(tcp, LISTEN, SYN_RECEIVED)
    ilist_append(&tcp.syn_order, syn_hook, tcp, index)
    note_syn(tcp, syn, seg)
    syn.iss = initial_sequence_number(tcp, key)
    if iss_after != 0 and seq_le(syn.iss, iss_after):
        syn.iss = iss_after + 1
    syn.timer = wheel_arm(&tcp.wheel, tcp.now_ns + tcp.config.rto_initial_ns, TIMER_SYN_RECEIVED, index)
    emit_syn_ack(tcp, syn, 0)


cdef inline bint offers_ecn(const segment_t *seg) noexcept nogil:
    """An ECN-setup SYN has both flags (RFC 3168 section 6.1.1). AE beside them (RFC 9768) takes nothing from it."""
    return seg.flags & (ECE | CWR) == (ECE | CWR)


cdef inline bint offers_accurate(const segment_t *seg) noexcept nogil:
    """RFC 9768 section 3.1.3: all three flags; and any others but none and RFC 3168's, which only its successors
    send."""
    return segment_ace(seg) != ACE_NONE and segment_ace(seg) != ACE_CLASSIC


cdef bint repeats_its_offer(tcp_t *tcp, syn_received_t *syn, const segment_t *seg) noexcept nogil:
    """A SYN has come again. False: it offers another kind of feedback than the first, so that nobody can know which of
    the two the peer will go by: "MUST reset the connection" (RFC 9768 section 3.1.5).

    Without an offer it blames ECN for the silence. RFC 3168 section 6.1.1.1, (3) and (4): so there is none. In accurate
    mode the mode stays, and what tells how the latest SYN came; but our data must not ask for marks (section 3.1.5).
    """
    cdef bint accurate = syn_is_accurate(syn)
    if accurate and segment_ace(seg) != ACE_CLASSIC:
        if segment_ace(seg) == ACE_NONE:
            syn.options_wscale &= <uint8_t>~(OPT_ECN << 4)
        syn_note_ip_ecn(syn, ip_ecn_of(seg))
    elif accurate or (ecn_takes_accurate(&tcp.config) and (syn.options_wscale >> 4) & OPT_ECN and offers_accurate(seg)):
        return False
    elif not offers_ecn(seg):
        syn.options_wscale &= <uint8_t>~(OPT_ECN << 4)
    return True


cdef inline void note_syn(const tcp_t *tcp, syn_received_t *syn, const segment_t *seg) noexcept nogil:
    """What a SYN says."""
    cdef uint8_t options = offered_options(tcp, seg)
    if seg.flags & FIN:
        count(tcp.counters, SYN_FIN_IN)
    syn.irs = seg.seq
    if options & OPT_TIMESTAMPS:
        syn.ts_recent = seg.ts_val
    syn.peer_mss = seg.mss if seg.has & HAS_MSS else default_mss(&syn.key.raddr)
    if ecn_takes_accurate(&tcp.config) and offers_accurate(seg):
        options |= OPT_ECN
        syn_set_accurate(syn, ip_ecn_of(seg))
    elif tcp.config.ecn != ECN_OFF and offers_ecn(seg):
        options |= OPT_ECN
    syn.options_wscale = <uint8_t>(options << 4 | (seg.wscale if options & OPT_WSCALE else 0))


cdef void send_cookie(tcp_t *tcp, const flow_key_t *key, const segment_t *seg) noexcept nogil:
    cdef syn_received_t syn
    memset(&syn, 0, sizeof(syn))
    syn.key = key[0]
    note_syn(tcp, &syn, seg)
    emit_cookie(tcp, &syn, cookie_make(tcp, &syn), 0)


# ---------------------------------------------------------------- SYN-RECEIVED of a passive open

cdef inline bint in_window(const segment_t *seg, uint32_t rcv_nxt, uint32_t window) noexcept nogil:
    """Table 6 of section 3.10.7.4."""
    cdef uint32_t seg_len = seg.length + (1 if seg.flags & FIN else 0) + (1 if seg.flags & SYN else 0)
    if seg_len == 0:
        return seg.seq == rcv_nxt or seg.seq - rcv_nxt < window
    return (seg.seq - rcv_nxt < window or seg.seq + seg_len - 1 - rcv_nxt < window
            or (window > 0 and rcv_nxt - seg.seq < seg_len))


cdef inline void syn_received_answer(tcp_t *tcp, syn_received_t *syn, bint challenge, counter_t reason) noexcept nogil:
    count(tcp.counters, reason)
    if syn_received_answer_allowed(tcp, syn, challenge):
        emit_syn_received_ack(tcp, syn)


cdef tcb_t *syn_received_arrives(tcp_t *tcp, uint32_t index, const segment_t *seg) noexcept nogil:
    """Section 3.10.7.4 for the mini-record; the ACK of our SYN makes it a connection and goes on there."""
    cdef syn_received_t *syn = syn_at(tcp, index)
    cdef uint32_t rcv_nxt = syn.irs + 1
    cdef bint stamped = (syn.options_wscale >> 4) & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS
    cdef bint older = stamped and seq_lt(seg.ts_val, syn.ts_recent)
    if seg.flags & SYN and not seg.flags & (ACK | RST) and seg.seq == syn.irs:
        count(tcp.counters, DROP_TCP_DUPLICATE)                         # its SYN again: our SYN-ACK was lost
        if stamped and not older:
            syn.ts_recent = seg.ts_val
        if not repeats_its_offer(tcp, syn, seg):
            count(tcp.counters, ACCECN_MIXED_RESETS)
            emit_reset_for(tcp, &syn.key, seg, syn.options_wscale >> 4, syn.ts_recent)
            syn_received_remove(tcp, index, False)
        elif syn_received_answer_allowed(tcp, syn, False):
            emit_syn_ack(tcp, syn, syn_retries(syn) if syn_retries(syn) else 1)
        return NULL
    if older and not seg.flags & RST:                                   # RFC 7323 section 5.3 R1
        syn_received_answer(tcp, syn, False, DROP_TCP_PAWS)
        return NULL
    if not in_window(seg, rcv_nxt, first_window(tcp, syn.options_wscale >> 4)):      # first
        if seg.flags & RST:
            count(tcp.counters, DROP_TCP_RST)
        else:
            syn_received_answer(tcp, syn, False, DROP_TCP_SYN if seg.flags & SYN else DROP_TCP_SEQUENCE)
        return NULL
    if seg.flags & RST:                                                 # second, as RFC 5961 section 3.2 has it
        if seg.seq == rcv_nxt:
            count(tcp.counters, DROP_TCP_RST)
            syn_received_remove(tcp, index, False)                      # back to LISTEN, nobody needs to know
        else:
            syn_received_answer(tcp, syn, True, DROP_TCP_RST)
        return NULL
    if seg.flags & SYN:
        # Fourth: "return this connection to the LISTEN state". As in the synchronized states, a challenge instead (RFC
        # 5961 section 4.2): one of 65,000 blind SYNs would else undo somebody's handshake, and his ACK meet a listener.
        # A peer that has restarted answers with a RST that is exact, and is in LISTEN a round trip later.
        syn_received_answer(tcp, syn, True, DROP_TCP_SYN)
        return NULL
    if not seg.flags & ACK:                                             # fifth
        count(tcp.counters, DROP_TCP_FLAGS)
        return NULL
    if seg.ack != syn.iss + 1:
        return acknowledges_another(tcp, index, seg)
    return handshake_complete(tcp, syn, index, seg)


cdef inline uint32_t syn_ack_rtt_us(const tcp_t *tcp, const syn_received_t *syn, const segment_t *seg) noexcept nogil:
    """From our SYN-ACK to its ACK, rounded up to a tick; 0: unknown. RFC 6298 (2.2) for who sends no SYN.

    The record's timer was started with the SYN-ACK. Of one that was sent more than once, the timestamp alone says which
    sending the ACK answers (Karn, MUST-18). So a peer that delays this ACK, or whose first one is lost, makes it too
    long, by less than the initial RTO, which is when the SYN-ACK goes again.
    """
    if syn_retries(syn) or syn_answers(syn) or syn.timer == TIMER_NONE:
        if (syn.options_wscale >> 4) & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS:
            return rtt_of_echo_us(tcp, seg.ts_ecr)
        return 0
    return <uint32_t>((<int64_t>tcp.config.rto_initial_ns + WHEEL_TICK_NS
                       - wheel_left_ns(&tcp.wheel, syn.timer, tcp.now_ns)) // 1000)


cdef tcb_t *handshake_complete(tcp_t *tcp, const syn_received_t *syn, uint32_t index,
                               const segment_t *seg) noexcept nogil:
    """index: of the half-open record, which goes; 0: syn is what a cookie says of one."""
    cdef listener_t *listener = listener_find(tcp, &syn.key.laddr, syn.key.lport)
    cdef uint8_t options = syn.options_wscale >> 4
    cdef uint32_t rtt_us = 0
    cdef tcb_t *tcb
    if listener == NULL:
        count(tcp.counters, DROP_TCP_NO_LISTENER)
        emit_reset_for(tcp, &syn.key, seg, options, syn.ts_recent)
        if index != 0:
            syn_received_remove(tcp, index, False)
        return NULL
    if listener.waiting >= listener.backlog:
        count(tcp.counters, ACCEPT_QUEUE_OVERFLOW)                      # SYN-ACK and this ACK will be repeated
        return NULL
    if index != 0 and seg.length == 0 and not seg.flags & FIN and syn_retries(syn) < listener.deferred_syn_acks:
        # As on Linux: it stays half-open, and its SYN-ACK goes again, until the first data is here (TCP_DEFER_ACCEPT).
        count(tcp.counters, DROP_TCP_DEFERRED)
        return NULL
    holders_look(tcp)
    tcb = tcb_alloc(tcp)
    if tcb == NULL:
        count(tcp.counters, DROP_NO_MEMORY)
        return NULL
    tcb.key = syn.key
    tcb.app = <uint8_t>listener.app
    control_choose(tcb, listener.cc)
    tcb.snd_una = syn.iss + 1
    tcb.snd_nxt = tcb.snd_una
    tcb.snd_max = tcb.snd_una
    tcb.snd_end = tcb.snd_una
    rcv_nxt_begin(tcp, tcb, syn.irs)
    tcb.last_ack_sent = tcb.rcv_nxt
    tcb.rcv_adv = tcb.rcv_nxt + first_edge(tcp, options)
    tcb.ts_recent = syn.ts_recent
    tcb_heard(tcp, tcb)
    apply_negotiated(tcp, tcb, options, syn_peer_mss(syn), syn.options_wscale & 0x0F)
    if listener.mss and listener.mss - tcb_option_bytes(tcb) < tcb.smss:
        tcb.smss = <uint16_t>(listener.mss - tcb_option_bytes(tcb))
    if syn_is_accurate(syn):
        # "MUST NOT set ECT" if a SYN or SYN-ACK, our third, did not say so (RFC 9768 section 3.1.5).
        accecn_agree(tcp, tcb, options & OPT_ECN and syn_retries(syn) < 2, ACCECN_AWAITS_ACK)
    elif options & OPT_ECN:
        ecn_agree(tcb, True)
        count(tcp.counters, ECN_AGREED)
    ack_set_window(tcb, seg, <uint32_t>seg.window << tcb.snd_wscale)
    if index != 0:
        flow_retarget(tcp, &tcb.key, FLOW_CONNECTION, tcb.index)
    elif flow_insert(tcp, &tcb.key, FLOW_CONNECTION, tcb.index) != 0:
        tcb_release(tcp, tcb)
        count(tcp.counters, DROP_NO_MEMORY)
        return NULL
    take_over_state(tcp, tcb, SYN_RECEIVED, ESTABLISHED)
    if listener.deferred_syn_acks == 0:     # else the peer's data may be long after its ACK
        rtt_us = syn_ack_rtt_us(tcp, syn, seg) if index != 0 else tcp.cookies.rtt_us
    ack_start(tcp, tcb, syn_retries(syn), rtt_us)
    if index != 0:
        syn_received_remove(tcp, index, True)
    else:
        cookie_spend(tcp)
        count(tcp.counters, SYN_COOKIES_ACCEPTED)
    tcb.flags |= TCB_EV_ACCEPT
    work_add(tcp, tcb)
    count(tcp.counters, CONNECTIONS_ACCEPTED)
    trace_opened(tcp, tcb)
    return tcb


cdef uint8_t offered_options(const tcp_t *tcp, const segment_t *seg) noexcept nogil:
    cdef uint8_t options = 0
    if seg.has & HAS_WSCALE and tcp.config.window_scaling:
        options |= OPT_WSCALE
    if seg.has & HAS_SACK_PERMITTED and tcp.config.sack:
        options |= OPT_SACK
    if seg.has & HAS_TIMESTAMPS and tcp.config.timestamps:
        options |= OPT_TIMESTAMPS
    return options


cdef void apply_negotiated(tcp_t *tcp, tcb_t *tcb, uint8_t options, uint16_t peer_mss,
                           uint8_t peer_wscale) noexcept nogil:
    """What both ends offered. Effective send MSS: MUST-16, less the options that every segment carries."""
    cdef uint32_t mss = peer_mss if peer_mss > MINIMUM_MSS else MINIMUM_MSS
    cdef uint32_t room = ip_payload_mtu(tcp.ip) - TCP_HEADER_BYTES
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    tcb.options = <uint8_t>((tcb.options & ~OPT_AGREED) | (options & OPT_AGREED))
    if room < mss:
        mss = room
    if own != NULL and own.mss and own.mss < mss:
        mss = own.mss
    tcb.smss = <uint16_t>(mss - tcb_option_bytes(tcb))
    tcb.snd_wscale = peer_wscale if options & OPT_WSCALE else 0
    tcb.rcv_wscale = advertised_wscale(tcp) if options & OPT_WSCALE else 0


# ---------------------------------------------------------------- TIME-WAIT

cdef void time_wait_arrives(tcp_t *tcp, uint32_t index, const segment_t *seg) noexcept nogil:
    """Section 3.10.7.4 for the mini-record: it answers, and nothing moves it but its end.

    A RST with the one number that RFC 5961 section 3.2 asks for ends it, as the section's second step says. RFC 1337
    section 3 (F1) would ignore it, because a peer that has forgotten the connection sends just such a RST when we have
    acknowledged an old duplicate. But so does a peer that wants a new connection from the same port, whose SYN RFC 6191
    cannot prove to be new (its timestamps are older, those of another program or host): our ACK tells it of the old
    one, its RST ends that, and its next SYN is heard, where it would have to wait for the rest of 2 MSL.
    """
    cdef time_wait_t *record = time_wait_at(tcp, index)
    cdef flow_key_t key = record.key
    cdef uint32_t iss_after
    cdef uint32_t window = <uint32_t>record.rcv_wnd << (advertised_wscale(tcp) if record.options & OPT_WSCALE else 0)
    cdef bint stamped = record.options & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS
    cdef bint newer = stamped and seq_diff(seg.ts_val, record.ts_recent) > 0
    cdef bint older = stamped and seq_lt(seg.ts_val, record.ts_recent)
    if seg.flags & SYN and not seg.flags & (RST | ACK | FIN):
        # MAY-2 and SHLD-4 (RFC 6191): provably not a duplicate of the old connection's.
        if (newer or (not older and seq_gt(seg.seq, record.rcv_nxt))) and would_accept(tcp, &key):
            iss_after = record.snd_nxt + MAX_WINDOW_UNSCALED + 1
            time_wait_remove(tcp, index)
            count(tcp.counters, TIME_WAIT_REUSED)
            listen_arrives(tcp, &key, seg, iss_after)
            return
    if older and not seg.flags & RST:                                   # RFC 7323 section 5.3 R1
        time_wait_correct(tcp, record, seg, DROP_TCP_PAWS)
    elif not in_window(seg, record.rcv_nxt, window):                    # first
        if seg.flags & RST:
            count(tcp.counters, DROP_TCP_RST)
        elif seg.flags & FIN and seg.flags & ACK and seg.seq + seg.length + 1 == record.rcv_nxt:
            time_wait_restart(tcp, index)                               # its FIN again: our ACK was lost
            if newer:
                record.ts_recent = seg.ts_val
            time_wait_correct(tcp, record, seg, DROP_TCP_DUPLICATE)
        else:
            time_wait_correct(tcp, record, seg, DROP_TCP_SEQUENCE)
    elif seg.flags & RST:                                               # second
        if seg.seq == record.rcv_nxt:
            count(tcp.counters, DROP_TCP_RST)
            time_wait_remove(tcp, index)
        else:
            time_wait_challenge(tcp, record, DROP_TCP_RST)              # RFC 5961 section 3.2
    elif seg.flags & SYN:                                               # fourth
        time_wait_challenge(tcp, record, DROP_TCP_SYN)
    elif not seg.flags & ACK:                                           # fifth
        count(tcp.counters, DROP_TCP_FLAGS)
    elif seq_gt(seg.ack, record.snd_nxt):
        time_wait_challenge(tcp, record, DROP_TCP_ACK)                  # RFC 5961 section 5.2
    elif seg.length > 0 or seg.flags & FIN:                             # seventh, eighth: nothing follows a FIN
        count(tcp.counters, DROP_TCP_AFTER_FIN)
    else:
        count(tcp.counters, DROP_TCP_SEQUENCE)                          # an ACK: two TIME-WAITs have no more to say


cdef void time_wait_correct(tcp_t *tcp, time_wait_t *record, const segment_t *seg, counter_t reason) noexcept nogil:
    count(tcp.counters, reason)
    if time_wait_corrective_allowed(tcp, record, seg):
        emit_time_wait_ack(tcp, record)


cdef void time_wait_challenge(tcp_t *tcp, time_wait_t *record, counter_t reason) noexcept nogil:
    count(tcp.counters, reason)
    if time_wait_challenge_allowed(tcp, record):
        emit_time_wait_ack(tcp, record)
