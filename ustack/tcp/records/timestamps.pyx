# SPDX-License-Identifier: MIT
"""What our timestamp clock says to whom. See timestamps.pxd."""


from ustack.base.prng cimport siphash24
from ustack.base.types cimport ip_addr_t


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
