# SPDX-License-Identifier: MIT
"""Segments for what is not (or no longer) a connection. See opening.pxd for sources and neighbours.

A passive open costs one cache line until its handshake is complete; the queue of such records is bounded, and at the
bound the oldest makes room, so that a flood cannot keep new peers out.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

from ustack.base.counters cimport (
    ACCEPT_QUEUE_OVERFLOW, CONNECTIONS_ACCEPTED, DROP_NO_MEMORY, DROP_TCP_ACK, DROP_TCP_DUPLICATE, DROP_TCP_FLAGS,
    DROP_TCP_NO_LISTENER, DROP_TCP_PAWS, DROP_TCP_RST, DROP_TCP_SEQUENCE, DROP_TCP_SYN, DROP_TCP_SYN_QUEUE,
    SYN_QUEUE_EVICTED, TIME_WAIT_REUSED, count)
from ustack.base.wheel cimport wheel_arm
from ustack.buf.slab cimport slab_alloc
from ustack.ip.layer cimport ip_payload_mtu
from ustack.tcp.ack cimport ack_set_window, ack_start
from ustack.tcp.demux cimport (
    FLOW_CONNECTION, FLOW_SYN_RECEIVED, flow_insert, flow_retarget, initial_sequence_number, listener_find)
from ustack.tcp.emit cimport (
    advertised_wscale, challenge_allowed, emit_reset_for, emit_syn_ack, emit_syn_received_ack, emit_time_wait_ack,
    first_edge, first_window)
from ustack.tcp.ending cimport syn_received_remove, time_wait_remove, time_wait_restart
from ustack.tcp.state cimport ESTABLISHED
from ustack.tcp.tcb cimport (
    OPT_SACK, OPT_TIMESTAMPS, OPT_WSCALE, TCB_EV_ACCEPT, TIMER_SYN_RECEIVED, flow_key_t, listener_t, syn_at,
    syn_received_t, tcb_alloc, time_wait_at, time_wait_t, work_add)
from ustack.wire.seq cimport seq_gt, seq_le
from ustack.wire.tcp cimport (
    ACK, FIN, HAS_MSS, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, RST, SYN, TCP_HEADER_BYTES, TCP_TIMESTAMP_BYTES,
    segment_t)


cdef enum:
    DEFAULT_MSS_V4 = 536                    # MUST-15
    MINIMUM_MSS = 64                        # below, a peer could make us send headers alone
    MAX_WINDOW_UNSCALED = 0xFFFF


# ---------------------------------------------------------------- CLOSED, LISTEN (sections 3.10.7.1 and 3.10.7.2)

cdef void listen_arrives(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, uint32_t iss_after) noexcept nogil:
    """iss_after: not 0: our ISN must lie beyond it (a TIME-WAIT record gave way)."""
    cdef listener_t *listener = listener_find(tcp, &key.laddr, key.lport)
    if listener == NULL:
        count(tcp.counters, DROP_TCP_NO_LISTENER)
        emit_reset_for(tcp, key, seg)
    elif seg.flags & RST:                                               # first
        count(tcp.counters, DROP_TCP_RST)
    elif seg.flags & ACK:                                               # second
        count(tcp.counters, DROP_TCP_ACK)
        emit_reset_for(tcp, key, seg)
    elif not seg.flags & SYN or seg.flags & FIN:                        # fourth; SYN with FIN is a scanner's
        count(tcp.counters, DROP_TCP_FLAGS)
    elif listener.waiting >= listener.backlog:
        count(tcp.counters, DROP_TCP_SYN_QUEUE)                         # the peer will ask again
    else:
        half_open(tcp, key, seg, iss_after)                             # third


cdef inline bint would_accept(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef listener_t *listener = listener_find(tcp, &key.laddr, key.lport)
    return listener != NULL and listener.waiting < listener.backlog


cdef void half_open(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, uint32_t iss_after) noexcept nogil:
    """A SYN for a listener: a mini-record and a SYN-ACK. At the limit the oldest record makes room."""
    cdef syn_received_t *syn
    cdef uint8_t options = offered_options(tcp, seg)
    cdef uint32_t index = slab_alloc(&tcp.syns)
    if index == 0 and tcp.syn_oldest:
        syn_received_remove(tcp, tcp.syn_oldest, False)
        count(tcp.counters, SYN_QUEUE_EVICTED)
        index = slab_alloc(&tcp.syns)
    if index == 0:
        count(tcp.counters, DROP_TCP_SYN_QUEUE)
        return
    syn = syn_at(tcp, index)
    syn.key = key[0]
    if flow_insert(tcp, &syn.key, FLOW_SYN_RECEIVED, index) != 0:
        count(tcp.counters, DROP_NO_MEMORY)
        link_newest(tcp, index)
        syn_received_remove(tcp, index, True)
        return
    link_newest(tcp, index)
    syn.irs = seg.seq
    syn.iss = initial_sequence_number(tcp, key)
    if iss_after != 0 and seq_le(syn.iss, iss_after):
        syn.iss = iss_after + 1
    if options & OPT_TIMESTAMPS:
        syn.ts_recent = seg.ts_val
    syn.options_wscale = <uint8_t>(options << 4 | (seg.wscale if options & OPT_WSCALE else 0))
    syn.peer_mss = seg.mss if seg.has & HAS_MSS else DEFAULT_MSS_V4
    syn.timer = wheel_arm(&tcp.wheel, tcp.now_ns + tcp.config.rto_initial_ns, TIMER_SYN_RECEIVED, index)
    emit_syn_ack(tcp, syn)


cdef inline void link_newest(tcp_t *tcp, uint32_t index) noexcept nogil:
    cdef syn_received_t *syn = syn_at(tcp, index)
    syn.older = tcp.syn_newest
    syn.newer = 0
    if tcp.syn_newest:
        syn_at(tcp, tcp.syn_newest).newer = index
    else:
        tcp.syn_oldest = index
    tcp.syn_newest = index


# ---------------------------------------------------------------- SYN-RECEIVED of a passive open

cdef tcb_t *syn_received_arrives(tcp_t *tcp, uint32_t index, const segment_t *seg) noexcept nogil:
    """Section 3.10.7.4 for the mini-record; the ACK of our SYN makes it a connection and goes on there."""
    cdef syn_received_t *syn = syn_at(tcp, index)
    cdef uint32_t rcv_nxt = syn.irs + 1
    cdef uint32_t window = first_window(tcp)
    cdef bint in_window = seg.seq - rcv_nxt < window or seg.seq == rcv_nxt
    if seg.flags & SYN and not seg.flags & (ACK | RST) and seg.seq == syn.irs:
        count(tcp.counters, DROP_TCP_DUPLICATE)                         # its SYN again: our SYN-ACK was lost
        if seg.has & HAS_TIMESTAMPS:
            syn.ts_recent = seg.ts_val
        emit_syn_ack(tcp, syn)
        return NULL
    if ((syn.options_wscale >> 4) & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS and not seg.flags & RST
            and <int32_t>(seg.ts_val - syn.ts_recent) < 0):
        count(tcp.counters, DROP_TCP_PAWS)
        emit_syn_received_ack(tcp, syn)
        return NULL
    if seg.flags & RST:
        if seg.seq == rcv_nxt:
            syn_received_remove(tcp, index, False)                      # back to LISTEN, nobody needs to know
        elif in_window and challenge_allowed(tcp):
            emit_syn_received_ack(tcp, syn)
        count(tcp.counters, DROP_TCP_RST)
        return NULL
    if not in_window or seg.flags & SYN:
        count(tcp.counters, DROP_TCP_SYN if seg.flags & SYN else DROP_TCP_SEQUENCE)
        if challenge_allowed(tcp):
            emit_syn_received_ack(tcp, syn)
        return NULL
    if not seg.flags & ACK:
        count(tcp.counters, DROP_TCP_FLAGS)
        return NULL
    if seg.ack != syn.iss + 1:
        count(tcp.counters, DROP_TCP_ACK)
        emit_reset_for(tcp, &syn.key, seg)
        return NULL
    return handshake_complete(tcp, index, seg)


cdef tcb_t *handshake_complete(tcp_t *tcp, uint32_t index, const segment_t *seg) noexcept nogil:
    cdef syn_received_t *syn = syn_at(tcp, index)
    cdef listener_t *listener = listener_find(tcp, &syn.key.laddr, syn.key.lport)
    cdef uint8_t options = syn.options_wscale >> 4
    cdef tcb_t *tcb
    if listener == NULL:
        count(tcp.counters, DROP_TCP_NO_LISTENER)
        emit_reset_for(tcp, &syn.key, seg)
        syn_received_remove(tcp, index, False)
        return NULL
    if listener.waiting >= listener.backlog:
        count(tcp.counters, ACCEPT_QUEUE_OVERFLOW)                      # SYN-ACK and this ACK will be repeated
        return NULL
    tcb = tcb_alloc(tcp)
    if tcb == NULL:
        count(tcp.counters, DROP_NO_MEMORY)
        return NULL
    tcb.key = syn.key
    tcb.app = <uint8_t>listener.app
    tcb.state = <uint8_t>ESTABLISHED
    tcb.snd_una = syn.iss + 1
    tcb.snd_nxt = tcb.snd_una
    tcb.snd_max = tcb.snd_una
    tcb.snd_end = tcb.snd_una
    tcb.rcv_nxt = syn.irs + 1
    tcb.last_ack_sent = tcb.rcv_nxt
    tcb.rcv_adv = tcb.rcv_nxt + first_edge(tcp, advertised_wscale(tcp) if options & OPT_WSCALE else 0)
    tcb.ts_recent = syn.ts_recent
    agree(tcp, tcb, options, syn.peer_mss, syn.options_wscale & 0x0F)
    ack_set_window(tcb, seg, <uint32_t>seg.window << tcb.snd_wscale)
    flow_retarget(tcp, &tcb.key, FLOW_CONNECTION, tcb.index)
    ack_start(tcp, tcb, syn.retries > 0)
    syn_received_remove(tcp, index, True)
    tcb.flags |= TCB_EV_ACCEPT
    work_add(tcp, tcb)
    count(tcp.counters, CONNECTIONS_ACCEPTED)
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


cdef void agree(tcp_t *tcp, tcb_t *tcb, uint8_t options, uint16_t peer_mss, uint8_t peer_wscale) noexcept nogil:
    """What both ends offered. Effective send MSS: MUST-16, less the options that every segment carries."""
    cdef uint32_t mss = peer_mss if peer_mss > MINIMUM_MSS else MINIMUM_MSS
    cdef uint32_t room = ip_payload_mtu(tcp.ip) - TCP_HEADER_BYTES
    tcb.options = options
    if room < mss:
        mss = room
    if options & OPT_TIMESTAMPS:
        mss -= TCP_TIMESTAMP_BYTES
    tcb.smss = <uint16_t>mss
    tcb.snd_wscale = peer_wscale if options & OPT_WSCALE else 0
    tcb.rcv_wscale = advertised_wscale(tcp) if options & OPT_WSCALE else 0


# ---------------------------------------------------------------- TIME-WAIT

cdef void time_wait_arrives(tcp_t *tcp, uint32_t index, const segment_t *seg) noexcept nogil:
    cdef time_wait_t *record = time_wait_at(tcp, index)
    cdef flow_key_t key = record.key
    cdef uint32_t iss_after
    cdef bint stamped = record.options & OPT_TIMESTAMPS and seg.has & HAS_TIMESTAMPS
    cdef bint newer = stamped and <int32_t>(seg.ts_val - record.ts_recent) > 0
    cdef bint older = stamped and <int32_t>(seg.ts_val - record.ts_recent) < 0
    if seg.flags & SYN and not seg.flags & (RST | ACK | FIN):
        # MAY-2 and SHLD-4 (RFC 6191): provably not a duplicate of the old connection's.
        if (newer or (not older and seq_gt(seg.seq, record.rcv_nxt))) and would_accept(tcp, &key):
            iss_after = record.snd_nxt + MAX_WINDOW_UNSCALED + 1
            time_wait_remove(tcp, index)
            count(tcp.counters, TIME_WAIT_REUSED)
            listen_arrives(tcp, &key, seg, iss_after)
            return
    if seg.flags & RST:
        if seg.seq == record.rcv_nxt:
            time_wait_remove(tcp, index)
        count(tcp.counters, DROP_TCP_RST)
        return
    if not older and seg.flags & FIN and seg.seq + seg.length + 1 == record.rcv_nxt:
        time_wait_restart(tcp, index)                                   # its FIN again: our ACK was lost
        count(tcp.counters, DROP_TCP_DUPLICATE)
        emit_time_wait_ack(tcp, record)
        return
    count(tcp.counters, DROP_TCP_SEQUENCE)
    if (seg.length > 0 or seg.flags & (SYN | FIN) or seg.seq != record.rcv_nxt) and challenge_allowed(tcp):
        emit_time_wait_ack(tcp, record)
