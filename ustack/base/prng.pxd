# SPDX-License-Identifier: MIT
# Seeded generator and keyed hash. No randomness is ever read from the system by the stack itself: a
# seed is a parameter, so that the same seed gives the same run.
#
# Neighbours: above, everybody; below, nothing. Sources: Blackman and Vigna, "Scrambled linear
# pseudorandom number generators" (xoshiro256**, splitmix64); Aumasson and Bernstein, "SipHash".

from libc.stdint cimport uint8_t, uint32_t, uint64_t


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
# SipHash-1-3 of twelve bytes that are in registers: `word` and then `half`, each as if stored little-endian.
cdef uint64_t siphash13_of_12(const uint8_t *key, uint64_t word, uint32_t half) noexcept nogil
