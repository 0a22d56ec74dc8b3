# SPDX-License-Identifier: MIT
"""Seeded generator (xoshiro256**, seeded by splitmix64) and keyed hash (SipHash-2-4 and -1-3).

It must not read the system's randomness: the seed is a parameter. The generator is not for secrets; what an
outsider must not predict goes through siphash24 under a secret key.

Sources: Blackman and Vigna, "Scrambled linear pseudorandom number generators" (2019); Lemire, "Fast random integer
generation in an interval" (2019); Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef void prng_seed(prng_t *prng, uint64_t seed) noexcept nogil:
    # splitmix64: neighbouring seeds give unrelated states, and no seed gives the all-zero state, which
    # xoshiro would never leave (its four outputs are a bijection of four different counters).
    cdef uint64_t z
    cdef int i
    for i in range(4):
        seed += 0x9E3779B97F4A7C15ULL
        z = seed
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL
        prng.s[i] = z ^ (z >> 31)


cdef uint64_t prng_next(prng_t *prng) noexcept nogil:
    cdef uint64_t result = rotl(prng.s[1] * 5, 7) * 9
    cdef uint64_t t = prng.s[1] << 17
    prng.s[2] ^= prng.s[0]
    prng.s[3] ^= prng.s[1]
    prng.s[1] ^= prng.s[2]
    prng.s[0] ^= prng.s[3]
    prng.s[2] ^= t
    prng.s[3] = rotl(prng.s[3], 45)
    return result


cdef uint32_t prng_below(prng_t *prng, uint32_t bound) noexcept nogil:
    # Lemire: the upper half of a 32x32-bit product is uniform once the few lower halves that would be counted
    # once too often, 2^32 mod bound of them, are drawn again.
    cdef uint64_t product = (prng_next(prng) >> 32) * bound
    cdef uint32_t low = <uint32_t>product
    cdef uint32_t threshold
    if low < bound:
        threshold = (0 - bound) % bound
        while low < threshold:
            product = (prng_next(prng) >> 32) * bound
            low = <uint32_t>product
    return <uint32_t>(product >> 32)


cdef double prng_unit(prng_t *prng) noexcept nogil:
    # 53 bits, as many as a double's mantissa holds, so every value is equally likely and 1.0 is never reached.
    return <double>(prng_next(prng) >> 11) * (1.0 / 9007199254740992.0)


cdef inline uint64_t _siphash(const uint8_t *key, const void *message, size_t length,
                              int block_rounds, int final_rounds) noexcept nogil:
    cdef sip_t s
    cdef uint64_t word
    cdef uint64_t last = <uint64_t>length << 56
    cdef const uint8_t *data = <const uint8_t *>message
    cdef size_t i
    sip_begin(&s, key)
    while length >= 8:
        memcpy(&word, data, 8)
        sip_word(&s, le64(word), block_rounds)
        data += 8
        length -= 8
    for i in range(length):
        last |= <uint64_t>data[i] << (8 * i)
    sip_word(&s, last, block_rounds)
    return sip_end(&s, final_rounds)


cdef uint64_t siphash24(const uint8_t *key, const void *data, size_t length) noexcept nogil:
    return _siphash(key, data, length, 2, 4)


cdef uint64_t siphash13(const uint8_t *key, const void *data, size_t length) noexcept nogil:
    return _siphash(key, data, length, 1, 3)


# -- Python face, for tests and for tools that want the same numbers as the stack

cdef class Prng:
    """The generator behind a seed: the same seed gives the same numbers."""

    cdef prng_t c

    def __cinit__(self, seed: int) -> None:
        prng_seed(&self.c, <uint64_t>(seed & 0xFFFFFFFFFFFFFFFF))

    def next(self) -> int:
        """64 random bits."""
        return prng_next(&self.c)

    def below(self, uint32_t bound) -> int:
        """0 <= value < bound, every value equally likely."""
        if bound == 0:
            raise ValueError("bound must be positive")
        return prng_below(&self.c, bound)

    def unit(self) -> float:
        """0.0 <= value < 1.0."""
        return prng_unit(&self.c)


def siphash(key: bytes, data: bytes, rounds: str = "24") -> int:
    """SipHash-2-4 (rounds="24") or SipHash-1-3 ("13") of `data` under a key of 16 bytes."""
    if len(key) != 16:
        raise ValueError("a SipHash key has 16 bytes")
    if rounds == "24":
        return siphash24(<const uint8_t *>key, <const uint8_t *>data, <size_t>len(data))
    if rounds == "13":
        return siphash13(<const uint8_t *>key, <const uint8_t *>data, <size_t>len(data))
    raise ValueError(f"no SipHash-{rounds} here")
