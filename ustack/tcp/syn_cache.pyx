# SPDX-License-Identifier: MIT
"""Half-open records that had to make room. See syn_cache.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memmove, memset

from ustack.base.prng cimport siphash24
from ustack.tcp.records.demux cimport isn_age_ns
from ustack.tcp.records.tcb cimport SYN_CACHE_WAYS, syn_cache_entry_t, syn_retries


ctypedef struct handshake_t:                # what is hashed: all that both ends must agree on
    flow_key_t key
    uint32_t irs
    uint32_t iss


cdef inline uint64_t handshake_hash(const tcp_t *tcp, const flow_key_t *key, uint32_t irs, uint32_t iss) noexcept nogil:
    cdef handshake_t handshake
    handshake.key = key[0]
    handshake.irs = irs
    handshake.iss = iss
    return siphash24(tcp.secret, <const uint8_t *>&handshake, sizeof(handshake))


cdef inline syn_cache_entry_t *bucket_of(const tcp_t *tcp, uint64_t hash) noexcept nogil:
    return tcp.syn_cache + (<uint32_t>(hash >> 32) & tcp.syn_cache_mask) * SYN_CACHE_WAYS


cdef inline uint32_t tag_of(uint64_t hash) noexcept nogil:
    cdef uint32_t tag = <uint32_t>hash
    return tag if tag != 0 else 1           # 0: empty


cdef void make_table(tcp_t *tcp) noexcept nogil:
    cdef uint32_t buckets = 1
    while buckets <= tcp.config.syn_queue // 2:
        buckets *= 2
    tcp.syn_cache = <syn_cache_entry_t *>calloc(buckets, SYN_CACHE_WAYS * sizeof(syn_cache_entry_t))
    tcp.syn_cache_mask = buckets - 1


cdef void syn_cache_insert(tcp_t *tcp, const syn_received_t *syn) noexcept nogil:
    cdef uint64_t hash
    cdef syn_cache_entry_t *bucket
    tcp.syn_overflowed = True
    tcp.syn_overflow_ns = tcp.now_ns
    if tcp.syn_cache == NULL:
        make_table(tcp)
        if tcp.syn_cache == NULL:
            return                          # then it is forgotten
    hash = handshake_hash(tcp, &syn.key, syn.irs, syn.iss)
    bucket = bucket_of(tcp, hash)
    memmove(bucket + 1, bucket, (SYN_CACHE_WAYS - 1) * sizeof(syn_cache_entry_t))
    bucket.tag = tag_of(hash)
    bucket.peer_mss = syn.peer_mss
    bucket.options_wscale = syn.options_wscale
    bucket.repeated = syn_retries(syn) > 0


cdef bint syn_cache_is_ours(const tcp_t *tcp, const flow_key_t *key, uint32_t iss) noexcept nogil:
    return (tcp.syn_overflowed and tcp.now_ns - tcp.syn_overflow_ns <= tcp.config.syn_ack_timeout_ns
            and isn_age_ns(tcp, key, iss) <= tcp.config.syn_ack_timeout_ns)


cdef inline syn_cache_entry_t *entry_of(const tcp_t *tcp, uint64_t hash) noexcept nogil:
    cdef syn_cache_entry_t *bucket
    cdef int i
    if tcp.syn_cache == NULL:
        return NULL
    bucket = bucket_of(tcp, hash)
    for i in range(SYN_CACHE_WAYS):
        if bucket[i].tag == tag_of(hash):
            return &bucket[i]
    return NULL


cdef bint syn_cache_find(const tcp_t *tcp, const flow_key_t *key, uint32_t irs, uint32_t iss,
                         syn_received_t *out) noexcept nogil:
    cdef syn_cache_entry_t *entry = entry_of(tcp, handshake_hash(tcp, key, irs, iss))
    if entry == NULL:
        return False
    memset(out, 0, sizeof(syn_received_t))
    out.key = key[0]
    out.irs = irs
    out.iss = iss
    out.peer_mss = entry.peer_mss
    out.options_wscale = entry.options_wscale
    out.retries_answers = entry.repeated
    return True


cdef void syn_cache_remove(tcp_t *tcp, const syn_received_t *syn) noexcept nogil:
    cdef syn_cache_entry_t *entry = entry_of(tcp, handshake_hash(tcp, &syn.key, syn.irs, syn.iss))
    if entry != NULL:
        entry.tag = 0
