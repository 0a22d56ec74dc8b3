# SPDX-License-Identifier: MIT
# One segment of a synchronized connection: its header, its bytes from the send queue, a frame of the link.
#
# The bytes are copied from the lent buffers straight into the transmit slot. More than SMSS of them make a super-frame,
# which the link cuts; many of them stay where they are, if the link can gather a frame. It must not: decide whether or
# how much may go, move SND.NXT, touch a record or a timer of retransmission (progress and resend do).
#
# Inline is what every segment with data needs: output's plain path makes no call for it. Read first: RFC 9293 sections
# 3.1, 3.10.7.4 (ACK and window of every segment); RFC 7323 section 3.2; RFC 3168 section 6.1. Above: progress, resend,
# probes, output. Below: ip, path, ecn, receive/window, records.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from ustack.base.counters cimport SEGMENTS_OUT, SEGMENTS_RETRANSMITTED, count
from ustack.buf.lent cimport lent_guard
from ustack.ip.layer cimport IP_PROTO_TCP, IP_RING_FULL, ip_can_gather, ip_commit, ip_reserve, ip_route_t
from ustack.tcp.receive.window cimport tcb_receive_window
from ustack.tcp.records.deadlines cimport deadline_clear_ack
from ustack.tcp.records.measures cimport note_segments_out
from ustack.tcp.records.state cimport CLOSE_ABORTED
from ustack.tcp.records.tcb cimport (
    OPT_TIMESTAMPS, TCB_ABORT, TCB_ACK_DELAYED, TCB_ACK_NOW, TCB_ECN, TCB_ECN_SAYS, TCB_REORDERED,
    send_piece_at, send_piece_t, tcb_header_bytes, tcb_t, tcp_t)
from ustack.tcp.records.timestamps cimport timestamp_for, timestamp_slowed
from ustack.tcp.records.turn cimport UNIT_BYTES_SHIFT
from ustack.tcp.records.work cimport turn_charge
from ustack.tcp.recovery.accecn cimport accecn_say
from ustack.tcp.recovery.ecn cimport ecn_say
from ustack.tcp.recovery.path cimport path_is_probe
from ustack.tcp.urgent cimport urgent_say
from ustack.wire.ipv4 cimport IPV4_ECN_MASK
from ustack.wire.seq cimport seq_gt
from ustack.wire.tcp cimport ACK, FIN, HAS_TIMESTAMPS, PSH, TCP_CHECKSUM_OFFSET, header_t, segment_emit

cdef enum send_t:
    SEND_OK = 0
    SEND_BLOCKED = 1                        # ring full
    SEND_FAILED = 2                         # nothing was sent; the connection ends, or the timer will try again
    SEND_HELD = 3                           # nothing may go before a probe of the path's MTU

cdef enum:
    # From here on a frame of its own for the link (tx_gather) is cheaper than a copy of its bytes.
    GATHER_BYTES_MIN = 16384
    SEGMENT_UNITS = 2                       # of a turn's work (turn_t), beside what its bytes cost

# What few connections have: DF clear (path), an option more (accecn). Returns the option's bytes. Only with tcb.extra.
cdef uint32_t dress(tcp_t *tcp, const tcb_t *tcb, ip_route_t *route, uint32_t seq, uint32_t length) noexcept nogil
# copy_out from a queue of several pieces.
cdef bint copy_out_pieces(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint8_t *out, uint32_t length) noexcept nogil


# Bytes of the send queue from `seq`. False: a lent file was cut short; what was read must not be sent.
cdef inline bint copy_out(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint8_t *out, uint32_t length) noexcept nogil:
    cdef send_piece_t *piece
    if tcb.snd_head != tcb.snd_tail:
        return copy_out_pieces(tcp, tcb, seq, out, length)
    piece = send_piece_at(tcp, tcb.snd_head)            # a response that was queued whole
    lent_guard(piece.lent, tcp.now_ns)
    memcpy(out, piece.data + <uint32_t>(seq - piece.seq), length)
    return not piece.lent.damaged


# Every segment of a synchronized connection carries the newest ACK and window.
cdef inline void fill_header(tcp_t *tcp, tcb_t *tcb, header_t *header, uint32_t seq, uint8_t flags) noexcept nogil:
    cdef uint32_t field = tcb_receive_window(tcp, tcb) >> tcb.rcv_wscale
    cdef uint32_t edge
    header.seq = seq
    header.ack = tcb.rcv_nxt
    header.sport = tcb.key.lport
    header.dport = tcb.key.rport
    header.flags = flags | ACK
    header.window = <uint16_t>(field if field < 0xFFFF else 0xFFFF)
    header.has = 0
    if tcb.options & OPT_TIMESTAMPS:
        header.has = HAS_TIMESTAMPS
        header.ts_val = timestamp_for(tcp, &tcb.key)
        if tcb.flags & TCB_REORDERED:
            header.ts_val = timestamp_slowed(header.ts_val)
        header.ts_ecr = tcb.ts_recent
    edge = tcb.rcv_nxt + (<uint32_t>header.window << tcb.rcv_wscale)
    if seq_gt(edge, tcb.rcv_adv):
        tcb.rcv_adv = edge
    if tcb.urgent:
        urgent_say(tcp, tcb, header)
    tcb.last_ack_sent = tcb.rcv_nxt
    tcb.flags &= ~(TCB_ACK_NOW | TCB_ACK_DELAYED)
    deadline_clear_ack(tcb)


# What a header says of congestion while TCB_ECN_SAYS has something. fresh: it carries new data that may be marked.
# bare: it is an ACK without data.
cdef inline void say_feedback(tcp_t *tcp, tcb_t *tcb, header_t *header, bint fresh, bint bare) noexcept nogil:
    if tcb.flags & TCB_ECN:
        ecn_say(tcp, tcb, header, fresh)
    else:
        accecn_say(tcp, tcb, header, bare)


# ip_commit of a super-frame whose header is at `out`, by tx_gather where that works. False: as copy_out.
cdef bint commit_gathered(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length, uint8_t *out, uint16_t header_bytes,
                          uint16_t gso_size) noexcept nogil


# A file that was cut must not be sent on with made-up bytes: the connection ends.
cdef inline send_t give_up(tcb_t *tcb) noexcept nogil:
    tcb.close_reason = CLOSE_ABORTED
    tcb.flags |= TCB_ABORT
    return SEND_FAILED


# One frame: `length` bytes from `seq`, as a super-frame if they are more than SMSS. tos: the tcb's, or unmarkable.
cdef inline send_t send_segment(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length, uint8_t flags,
                                uint8_t tos) noexcept nogil:
    cdef header_t header
    cdef ip_route_t route
    cdef int status = 0
    cdef uint8_t *out
    cdef uint32_t header_bytes = tcb_header_bytes(tcb)
    cdef uint16_t gso_size
    cdef bint gathers
    route.src = &tcb.key.laddr
    route.dst = &tcb.key.raddr
    route.neighbour = &tcb.neighbour
    route.protocol = IP_PROTO_TCP
    route.tos = tos
    route.ttl = tcb.ttl
    route.may_fragment = 0
    if tcb.extra:
        header_bytes += dress(tcp, tcb, &route, seq, length)
    out = ip_reserve(tcp.ip, &route, header_bytes + length, &status, tcp.now_ns)
    if out == NULL:
        return SEND_BLOCKED if status == IP_RING_FULL else SEND_FAILED
    gso_size = 0
    if length > tcb.smss and not (tcb.extra and path_is_probe(tcp, tcb, seq)):
        gso_size = tcb.smss
        if tcp.config.push_frames:
            flags |= PSH
    gathers = length >= GATHER_BYTES_MIN and gso_size and ip_can_gather(tcp.ip)
    if length > 0 and not gathers and not copy_out(tcp, tcb, seq, out + header_bytes, length):
        return give_up(tcb)
    fill_header(tcp, tcb, &header, seq, flags)
    if tcb.flags & TCB_ECN_SAYS:
        say_feedback(tcp, tcb, &header, tos & IPV4_ECN_MASK, False)
    segment_emit(out, &header)
    if not gathers:
        ip_commit(tcp.ip, header_bytes + length, TCP_CHECKSUM_OFFSET, <uint16_t>header_bytes, gso_size)
    elif not commit_gathered(tcp, tcb, seq, length, out, <uint16_t>header_bytes, gso_size):
        return give_up(tcb)
    turn_charge(tcp, SEGMENT_UNITS + (length >> UNIT_BYTES_SHIFT))
    count(tcp.counters, SEGMENTS_OUT)
    if tcp.config.measure:
        note_segments_out(tcp, tcb.index, length, gso_size)
    return SEND_OK


# The TOS of all but new data (RFC 3168 sections 6.1.4 to 6.1.6): what is sent again, probes, a FIN alone.
cdef inline uint8_t unmarkable(const tcb_t *tcb) noexcept nogil:
    return tcb.tos & <uint8_t>~IPV4_ECN_MASK


# Bytes of data among `length` sequence numbers from `seq`, which our FIN may end.
cdef inline uint32_t without_fin(const tcb_t *tcb, uint32_t seq, uint32_t length) noexcept nogil:
    return length - 1 if seq_gt(seq + length, tcb.snd_end) else length


# `length` sequence numbers from `seq` again, our FIN among them if they reach it.
cdef inline send_t send_record(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length) noexcept nogil:
    cdef uint32_t data = without_fin(tcb, seq, length)
    cdef send_t sent = send_segment(tcp, tcb, seq, data, (PSH if data and seq + data == tcb.snd_end else 0)
                                    | (FIN if data < length else 0), unmarkable(tcb))
    if sent == SEND_OK:
        count(tcp.counters, SEGMENTS_RETRANSMITTED)
    return sent
