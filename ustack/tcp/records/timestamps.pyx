# SPDX-License-Identifier: MIT
"""What our timestamp clock says to whom. See timestamps.pxd."""


from ustack.base.prng cimport siphash24
from ustack.base.types cimport ip_addr_t
from ustack.tcp.records.demux cimport flow_hash
from ustack.tcp.records.tcb cimport OPT_TIMESTAMPS, SLOW_ENDS, TCB_REORDERED, slow_end_t
from ustack.wire.seq cimport seq_gt


cdef enum:
    SEVERAL = 2                             # tags of connections are odd


ctypedef struct addresses_t:                # 32 bytes, hashed whole; nothing else that the secret hashes is as long
    ip_addr_t laddr
    ip_addr_t raddr


cdef uint32_t timestamp_offset_of(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef uint64_t pair = <uint64_t>key.laddr.words_be[3] << 32 | key.raddr.words_be[3]
    cdef timestamp_pair_t *entry = &tcp.timestamp_pairs[(pair * 0x9E3779B97F4A7C15ULL) >> 54]
    cdef addresses_t addresses
    cdef uint32_t offset
    addresses.laddr = key.laddr
    addresses.raddr = key.raddr
    offset = <uint32_t>siphash24(tcp.secret, &addresses, sizeof(addresses))
    if ip_addr_is_v4(&key.raddr):
        entry.pair = pair
        entry.offset = offset
    return offset


# ---------------------------------------------------------------- after slow ticks

cdef inline uint32_t tag_of(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    return flow_hash(tcp, key) | 1


cdef inline uint32_t left_ms(const tcp_t *tcp, const slow_end_t *place) noexcept nogil:
    """Until our clock is beyond what it has shown; 0: it is."""
    cdef uint32_t ahead = place.shown - tcp_timestamp(tcp)
    return ahead + 1 if place.tag and ahead <= SLOW_TICK_MASK else 0


cdef void timestamp_note_end(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint32_t tag, offset, shown
    cdef slow_end_t *place
    if not tcb.flags & TCB_REORDERED or not tcb.options & OPT_TIMESTAMPS:
        return
    tag = tag_of(tcp, &tcb.key)
    place = &tcp.slow_ends[(tag >> 1) % SLOW_ENDS]
    offset = timestamp_offset(tcp, &tcb.key)
    shown = timestamp_slowed(tcp_timestamp(tcp) + offset) - offset
    if place.tag != tag and left_ms(tcp, place):
        tag = SEVERAL
        if seq_gt(place.shown, shown):
            shown = place.shown
    place.tag = tag
    place.shown = shown


cdef uint32_t timestamp_wait_ms(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef uint32_t tag = tag_of(tcp, key)
    cdef const slow_end_t *place = &tcp.slow_ends[(tag >> 1) % SLOW_ENDS]
    return left_ms(tcp, place) if place.tag == tag or place.tag == SEVERAL else 0
