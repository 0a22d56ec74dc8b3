# SPDX-License-Identifier: MIT
# Half-open records that had to make room, in eight bytes each: a SYN cache (RFC 4987 section 3.3) behind the queue.
#
# A flood fills the queue of half-open records; the oldest makes room for the next. Its peer, if it is honest, has our
# SYN-ACK by then or gets it soon, and is in ESTABLISHED: its next segment must still find us. What that segment repeats
# (4-tuple, IRS + 1, ISS + 1) need not be kept, only hashed; what it does not (MSS, window scale, permissions) is four
# bytes. The table costs as much memory as the queue and remembers eight times as many; it is made when a record is
# first evicted. RFC 4987 calls for cookies where even that is too little: they would be asked after it.
#
#     bucket (one cache line):   [ newest | ... | oldest ]   8 entries, a new one pushes the oldest out
#
# Above: opening. Below: demux, tcb.

from libc.stdint cimport uint32_t

from ustack.tcp.records.tcb cimport flow_key_t, syn_received_t, tcp_t

# The record is about to be recycled.
cdef void syn_cache_insert(tcp_t *tcp, const syn_received_t *syn) noexcept nogil
# Whether <SEQ=IRS+1><ACK=ISS+1> may answer a SYN-ACK that we sent on this 4-tuple and whose record has since been
# recycled: records were lately, and the ISS is one that we chose within the life of a half-open record (the ISN clock
# tells, RFC 6528: a guess has 1 chance in 280).
cdef bint syn_cache_is_ours(const tcp_t *tcp, const flow_key_t *key, uint32_t iss) noexcept nogil
# True: out is the record as it was, but for what only a live one needs (timer, list, TS.Recent).
cdef bint syn_cache_find(const tcp_t *tcp, const flow_key_t *key, uint32_t irs, uint32_t iss,
                         syn_received_t *out) noexcept nogil
# It has become a connection: the same segment opens no second one.
cdef void syn_cache_remove(tcp_t *tcp, const syn_received_t *syn) noexcept nogil
