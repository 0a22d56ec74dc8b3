# SPDX-License-Identifier: MIT
# Seeded generator and keyed hash. No randomness is ever read from the system by the stack itself: a
# seed is a parameter, so that the same seed gives the same run.
#
# Neighbours: above, everybody; below, nothing. Sources: Blackman and Vigna, "Scrambled linear
# pseudorandom number generators" (xoshiro256**, splitmix64); Aumasson and Bernstein, "SipHash".

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


ctypedef struct prng_t:
    uint64_t s[4]


cdef void prng_seed(prng_t *prng, uint64_t seed) noexcept nogil
cdef uint64_t prng_next(prng_t *prng) noexcept nogil
cdef uint32_t prng_below(prng_t *prng, uint32_t bound) noexcept nogil    # 0 <= value < bound; bound > 0
cdef double prng_unit(prng_t *prng) noexcept nogil                       # 0.0 <= value < 1.0

# SipHash-c-d of `length` bytes under a 128-bit key. 2-4 for what an outsider must not predict (ISNs),
# 1-3 for hash tables.
cdef uint64_t siphash24(const uint8_t *key, const void *data, size_t length) noexcept nogil
cdef uint64_t siphash13(const uint8_t *key, const void *data, size_t length) noexcept nogil


# ---- in line: each segment that arrives is hashed
cdef extern from *:
    """
    /* SipHash reads words as little-endian (paper, section 2). */
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
      #define ustack_le64(x) __builtin_bswap64(x)
    #else
      #define ustack_le64(x) (x)
    #endif
    """
    uint64_t le64 "ustack_le64"(uint64_t value) noexcept nogil


cdef inline uint64_t rotl(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


ctypedef struct sip_t:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3


cdef inline void sip_round(sip_t *s) noexcept nogil:
    s.v0 += s.v1
    s.v1 = rotl(s.v1, 13) ^ s.v0
    s.v0 = rotl(s.v0, 32)
    s.v2 += s.v3
    s.v3 = rotl(s.v3, 16) ^ s.v2
    s.v0 += s.v3
    s.v3 = rotl(s.v3, 21) ^ s.v0
    s.v2 += s.v1
    s.v1 = rotl(s.v1, 17) ^ s.v2
    s.v2 = rotl(s.v2, 32)


cdef inline void sip_begin(sip_t *s, const uint8_t *key) noexcept nogil:
    cdef uint64_t k0, k1
    memcpy(&k0, key, 8)
    memcpy(&k1, key + 8, 8)
    k0 = le64(k0)
    k1 = le64(k1)
    s.v0 = k0 ^ 0x736F6D6570736575ULL
    s.v1 = k1 ^ 0x646F72616E646F6DULL
    s.v2 = k0 ^ 0x6C7967656E657261ULL
    s.v3 = k1 ^ 0x7465646279746573ULL


cdef inline void sip_word(sip_t *s, uint64_t word, int block_rounds) noexcept nogil:
    cdef int _round
    s.v3 ^= word
    for _round in range(block_rounds):
        sip_round(s)
    s.v0 ^= word


cdef inline uint64_t sip_end(sip_t *s, int final_rounds) noexcept nogil:
    cdef int _round
    s.v2 ^= 0xFF
    for _round in range(final_rounds):
        sip_round(s)
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3


# SipHash-1-3 of twelve bytes that are in registers: `word` and then `half`, each as if stored little-endian.
cdef inline uint64_t siphash13_of_12(const uint8_t *key, uint64_t word, uint32_t half) noexcept nogil:
    cdef sip_t s
    sip_begin(&s, key)
    sip_word(&s, word, 1)
    sip_word(&s, <uint64_t>12 << 56 | half, 1)
    return sip_end(&s, 3)
