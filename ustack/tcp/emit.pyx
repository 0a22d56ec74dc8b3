# SPDX-License-Identifier: MIT
"""Segments without data that are sent at once. See emit.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from ustack.base.counters cimport PURE_ACKS_OUT, RESETS_OUT, SEGMENTS_OUT, count
from ustack.ip.layer cimport (
    IP_OK, IP_PROTO_TCP, ip_commit, ip_default_packet_bytes, ip_header_bytes, ip_payload_mtu, ip_reserve, ip_route_t)
from ustack.tcp.records.accecn cimport (
    ACCECN_BYTES_AT_FIRST, ACCECN_CEP_AT_FIRST, accecn_ace, ace_of_handshake, tcb_is_accurate)
from ustack.tcp.records.demux cimport listener_find
from ustack.tcp.records.sockopts cimport sockopts_of, sockopts_t
from ustack.tcp.records.tcb cimport (
    OPT_ACE_SHIFT, OPT_ECN, OPT_SACK, OPT_SLOW_TICKS, OPT_TIMESTAMPS, OPT_WSCALE, listener_t, syn_ip_ecn,
    syn_is_accurate, tcb_bare_seq, tcp_timestamp)
from ustack.tcp.records.timestamps cimport timestamp_for, timestamp_offset, timestamp_slowed
from ustack.wire.ipv4 cimport IPV4_ECN_MASK
from ustack.wire.tcp cimport (
    ACCECN_FIELDS, ACK, ECE, FIN, HAS_ACCECN, HAS_MSS, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, OPTION_ACCECN0,
    RST, SYN, TCP_CHECKSUM_OFFSET, TCP_HEADER_BYTES, TCP_MAX_OPTION_BYTES, TCP_TIMESTAMP_BYTES, TCP_WSCALE_MAX,
    header_say_ace, segment_emit)


cdef ip_status_t emit_bare(tcp_t *tcp, const flow_key_t *key, header_t *header, uint8_t ttl, uint8_t tos,
                           uint16_t *neighbour) noexcept nogil:
    cdef ip_route_t route
    cdef int status = 0
    cdef uint8_t *out
    cdef uint32_t length
    route.src = &key.laddr
    route.dst = &key.raddr
    route.neighbour = neighbour
    route.protocol = IP_PROTO_TCP
    route.tos = tos & <uint8_t>~IPV4_ECN_MASK       # RFC 3168 sections 6.1.1 and 6.1.4: none of these is new data
    route.ttl = ttl
    route.may_fragment = 0                  # 80 bytes at most: less than any MTU in use
    out = ip_reserve(tcp.ip, &route, TCP_HEADER_BYTES + TCP_MAX_OPTION_BYTES, &status, tcp.now_ns)
    if out == NULL:
        return <ip_status_t>status
    header.sport = key.lport
    header.dport = key.rport
    length = segment_emit(out, header)
    ip_commit(tcp.ip, length, TCP_CHECKSUM_OFFSET, <uint16_t>length, 0)
    count(tcp.counters, SEGMENTS_OUT)
    return IP_OK


cdef inline void stamp(tcp_t *tcp, const flow_key_t *key, header_t *header, uint8_t options,
                       uint32_t ts_recent) noexcept nogil:
    if options & OPT_TIMESTAMPS:
        header.has |= HAS_TIMESTAMPS
        header.ts_val = timestamp_for(tcp, key)
        header.ts_ecr = ts_recent


cdef void emit_reset_for(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, uint8_t options,
                         uint32_t ts_recent) noexcept nogil:
    cdef header_t header
    cdef uint16_t neighbour = 0
    if seg.flags & RST:
        return
    memset(&header, 0, sizeof(header))
    if seg.flags & ACK:
        header.seq = seg.ack
        header.flags = RST
    else:
        header.ack = seg.seq + seg.length + (1 if seg.flags & SYN else 0) + (1 if seg.flags & FIN else 0)
        header.flags = RST | ACK
    stamp(tcp, key, &header, options, ts_recent)
    if emit_bare(tcp, key, &header, tcp.config.ttl, 0, &neighbour) == IP_OK:
        count(tcp.counters, RESETS_OUT)


cdef ip_status_t emit_reset_of(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef header_t header
    cdef ip_status_t status
    memset(&header, 0, sizeof(header))
    header.seq = tcb_bare_seq(tcb)
    header.ack = tcb.rcv_nxt
    header.flags = RST | ACK
    if tcb_is_accurate(tcb):
        header_say_ace(&header, accecn_ace(tcp, tcb))
    stamp(tcp, &tcb.key, &header, tcb.options, tcb.ts_recent)                     # a SHOULD of RFC 7323 section 3.2
    status = emit_bare(tcp, &tcb.key, &header, tcb.ttl, tcb.tos, &tcb.neighbour)
    if status == IP_OK:
        count(tcp.counters, RESETS_OUT)
    return status


# ---------------------------------------------------------------- half-open records

cdef uint16_t default_mss(const ip_addr_t *raddr) noexcept nogil:
    return <uint16_t>(ip_default_packet_bytes(raddr) - ip_header_bytes(raddr) - TCP_HEADER_BYTES)


cdef uint16_t advertised_mss(const tcp_t *tcp) noexcept nogil:
    """MMS_R - 20 (MUST-67), whatever options later segments carry (RFC 6691)."""
    cdef uint32_t mss = ip_payload_mtu(tcp.ip) - TCP_HEADER_BYTES
    if tcp.config.mss and tcp.config.mss < mss:
        mss = tcp.config.mss
    return <uint16_t>(mss if mss < 0xFFFF else 0xFFFF)


cdef uint16_t tcb_advertised_mss(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    cdef uint16_t mss = advertised_mss(tcp)
    return own.mss if own != NULL and own.mss and own.mss < mss else mss


cdef uint16_t syn_ack_mss(tcp_t *tcp, const syn_received_t *syn) noexcept nogil:
    cdef uint16_t mss = advertised_mss(tcp)
    cdef const listener_t *listener = listener_find(tcp, &syn.key.laddr, syn.key.lport) if tcp.own_mss else NULL
    return listener.mss if listener != NULL and listener.mss and listener.mss < mss else mss


cdef uint8_t advertised_wscale(const tcp_t *tcp) noexcept nogil:
    cdef uint8_t shift = 0
    while shift < TCP_WSCALE_MAX and tcp.config.rcv_buffer_max_bytes >> shift > 0xFFFF:
        shift += 1
    return shift


cdef uint16_t first_window(const tcp_t *tcp, uint8_t options) noexcept nogil:
    cdef uint32_t window = tcp.config.rcv_buffer_bytes
    cdef uint32_t segment
    if tcp.config.whole_first_window:
        segment = advertised_mss(tcp) - (TCP_TIMESTAMP_BYTES if options & OPT_TIMESTAMPS else 0)
        if window >= segment:
            window -= window % segment
    return <uint16_t>(window if window < 0xFFFF else 0xFFFF)


cdef uint32_t first_edge(const tcp_t *tcp, uint8_t options) noexcept nogil:
    cdef uint32_t unit = 1u << (advertised_wscale(tcp) if options & OPT_WSCALE else 0)
    return (first_window(tcp, options) + unit - 1) & ~(unit - 1)


cdef ip_status_t emit_syn_ack(tcp_t *tcp, const syn_received_t *syn, uint32_t again) noexcept nogil:
    return emit_cookie(tcp, syn, tcp_timestamp(tcp), again)


cdef void say_accurate(header_t *header, const syn_received_t *syn, uint32_t again) noexcept nogil:
    """RFC 9768 table 2: that we count, and how the SYN arrived. The option tests the path: the first time alone, and
    the third time nothing of all this is there, in case that is why there was no answer (section 3.2.3.2.2)."""
    if again > 1:
        return
    header_say_ace(header, ace_of_handshake(syn_ip_ecn(syn)))
    if again == 0:
        header.has |= HAS_ACCECN
        header.accecn_kind = OPTION_ACCECN0
        header.accecn_fields = ACCECN_FIELDS
        header.accecn[0] = ACCECN_BYTES_AT_FIRST
        header.accecn[1] = 0
        header.accecn[2] = ACCECN_BYTES_AT_FIRST


cdef ip_status_t emit_cookie(tcp_t *tcp, const syn_received_t *syn, uint32_t ts_val, uint32_t again) noexcept nogil:
    cdef header_t header
    cdef uint16_t neighbour = 0
    cdef uint8_t options = syn.options_wscale >> 4
    memset(&header, 0, sizeof(header))
    header.seq = syn.iss
    header.ack = syn.irs + 1
    header.flags = SYN | ACK
    header.has = HAS_MSS
    if syn_is_accurate(syn):
        say_accurate(&header, syn, again)
    elif options & OPT_ECN:
        header.flags |= ECE
    header.window = first_window(tcp, options)
    header.mss = syn_ack_mss(tcp, syn)
    if options & OPT_SACK:
        header.has |= HAS_SACK_PERMITTED
    if options & OPT_TIMESTAMPS:
        header.has |= HAS_TIMESTAMPS
        header.ts_val = ts_val + timestamp_offset(tcp, &syn.key)
        header.ts_ecr = syn.ts_recent
    if options & OPT_WSCALE:
        header.has |= HAS_WSCALE
        header.wscale = advertised_wscale(tcp)
    return emit_bare(tcp, &syn.key, &header, tcp.config.ttl, 0, &neighbour)


cdef void emit_syn_received_ack(tcp_t *tcp, const syn_received_t *syn) noexcept nogil:
    cdef uint8_t options = syn.options_wscale >> 4
    cdef header_t header
    cdef uint16_t neighbour = 0
    memset(&header, 0, sizeof(header))
    header.seq = syn.iss + 1
    header.ack = syn.irs + 1
    header.flags = ACK
    header.window = first_window(tcp, options)
    if options & OPT_WSCALE:
        header.window = <uint16_t>(first_edge(tcp, options) >> advertised_wscale(tcp))
    if syn_is_accurate(syn):
        header_say_ace(&header, ACCECN_CEP_AT_FIRST)
    stamp(tcp, &syn.key, &header, options, syn.ts_recent)
    emit_bare(tcp, &syn.key, &header, tcp.config.ttl, 0, &neighbour)


cdef void emit_time_wait_ack(tcp_t *tcp, const time_wait_t *record) noexcept nogil:
    cdef header_t header
    cdef uint16_t neighbour = 0
    memset(&header, 0, sizeof(header))
    header.seq = record.snd_nxt
    header.ack = record.rcv_nxt
    header.flags = ACK
    header.window = record.rcv_wnd
    header_say_ace(&header, record.options >> OPT_ACE_SHIFT)
    stamp(tcp, &record.key, &header, record.options, record.ts_recent)
    if record.options & OPT_SLOW_TICKS:
        header.ts_val = timestamp_slowed(header.ts_val)
    if emit_bare(tcp, &record.key, &header, tcp.config.ttl, 0, &neighbour) == IP_OK:
        count(tcp.counters, PURE_ACKS_OUT)
