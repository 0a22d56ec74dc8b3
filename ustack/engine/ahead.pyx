# SPDX-License-Identifier: MIT
"""A look ahead over the frames of a burst. See ahead.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.prefetch cimport prefetch, prefetch_lines
from ustack.engine.records cimport ENGINE_BURST
from ustack.ip.layer cimport IP_PROTO_TCP
from ustack.tcp.records.demux cimport (
    FLOW_CONNECTION, FLOW_INDEX_BITS, FLOW_INDEX_MASK, FLOW_SYN_RECEIVED, flow_guess, flow_hash_of, flow_prefetch)
from ustack.tcp.records.flight cimport flight_raw
from ustack.tcp.records.tcb cimport send_piece_at, syn_at, tcb_at, tcb_t, time_wait_at
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4
from ustack.wire.ipv4 cimport IPV4_HEADER_BYTES
from ustack.wire.octets cimport read_u16, read_u32_be
from ustack.wire.tcp cimport TCP_HEADER_BYTES

cdef enum:
    PLAIN_BYTES = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + TCP_HEADER_BYTES
    PLAIN_IPV4 = 0x45                       # version 4, a header without options


cdef inline bint is_plain(const frame_t *frame) noexcept nogil:
    return (frame.length >= PLAIN_BYTES and read_u16(frame.data + 12) == ETHERTYPE_IPV4
            and frame.data[ETHERNET_HEADER_BYTES] == PLAIN_IPV4
            and frame.data[ETHERNET_HEADER_BYTES + 9] == IP_PROTO_TCP)


cdef inline void memo_make(const tcp_t *tcp, const frame_t *frame, flow_memo_t *memo) noexcept nogil:
    """The hash of the key that tcp_input will make of these headers."""
    cdef const uint8_t *ip = frame.data + ETHERNET_HEADER_BYTES
    cdef const uint8_t *ports = ip + IPV4_HEADER_BYTES
    memo.addresses = <uint64_t>read_u32_be(ip + 16) << 32 | read_u32_be(ip + 12)
    memo.ports = <uint32_t>read_u16(ports + 2) << 16 | read_u16(ports)
    memo.tag = flow_hash_of(&tcp.flows, memo.addresses, memo.ports)


cdef inline const tcb_t *record_prefetch(const tcp_t *tcp, uint32_t target) noexcept nogil:
    """The record of a flow slot. A connection's is returned."""
    cdef uint32_t index = target & FLOW_INDEX_MASK
    cdef uint32_t kind = target >> FLOW_INDEX_BITS
    if target == 0:
        return NULL
    if kind != FLOW_CONNECTION:
        prefetch(<const void *>syn_at(tcp, index) if kind == FLOW_SYN_RECEIVED else time_wait_at(tcp, index))
        return NULL
    prefetch_lines(tcb_at(tcp, index), sizeof(tcb_t))
    return tcb_at(tcp, index)


cdef inline void rest_prefetch(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """What a connection's record names. Of a lone flight the first line and the last two (flight.pxd, L)."""
    cdef const uint8_t *flight
    prefetch(&tcp.wheel.nodes[tcb.timer])
    if tcb.flight:
        flight = <const uint8_t *>flight_raw(tcp, tcb)
        prefetch(flight)
        prefetch(flight + 128)
        prefetch(flight + 192)
    if tcb.snd_head:
        prefetch(send_piece_at(tcp, tcb.snd_head))


cdef void look_ahead(const tcp_t *tcp, const frame_t *frames, uint32_t n, flow_memo_t *memos) noexcept nogil:
    cdef uint32_t tags[ENGINE_BURST]
    cdef const tcb_t *tcbs[ENGINE_BURST]
    cdef const tcb_t *tcb
    cdef uint32_t plain = 0, found = 0, i
    for i in range(n):
        if is_plain(&frames[i]):
            memo_make(tcp, &frames[i], &memos[i])
            tags[plain] = memos[i].tag
            flow_prefetch(tcp, tags[plain])
            plain += 1
        else:
            memos[i] = tcp.flows.memo
    for i in range(plain):
        tcb = record_prefetch(tcp, flow_guess(tcp, tags[i]))
        if tcb != NULL:
            tcbs[found] = tcb
            found += 1
    for i in range(found):
        rest_prefetch(tcp, tcbs[i])
