# SPDX-License-Identifier: MIT
# The Internet checksum: RFC 1071, incremental update by RFC 1624.
#
# A sum is 32 bits wide, in the machine's byte order, and not yet folded; sums of parts add up with
# checksum_add. The one's complement sum does not depend on byte order (RFC 1071 section 2, B): 16-bit words are
# loaded as they lie in memory, and a folded sum stored with a native 16-bit store lies in memory in network
# order. So nothing is ever swapped, and a value that is summed by hand must be in network order (`_be`).
#
#     sum = checksum_add(source_be, destination_be)                     a pseudo-header, for example
#     sum = checksum_partial(segment, length, sum)
#
#     verify:  checksum_fold(sum) == 0xFFFF        with the received checksum field included in the sum
#     emit:    field = checksum_emit(sum)          with the field zero, or left out of the sum
#     offload: field = checksum_fold(sum)          of the pseudo-header alone: a device adds the rest
#
# Neighbours: above, every file of wire/ and what builds segments; below, nothing.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# Add `length` bytes at any alignment to `sum`. An odd last byte counts as the high half of a word whose other
# half is zero, so only the last part of a message may have an odd length (an even offset starts every part).
cdef uint32_t checksum_partial(const uint8_t *data, size_t length, uint32_t sum) noexcept nogil


# Add two sums, or a 32-bit word in network order, or a 16-bit word in network order, to a sum.
cdef inline uint32_t checksum_add(uint32_t sum, uint32_t more) noexcept nogil:
    cdef uint64_t wide = <uint64_t>sum + more
    return <uint32_t>(wide + (wide >> 32))              # end-around carry


# The sum in 16 bits, not complemented, in the order in which a native 16-bit store puts it on the wire. Zero only
# if everything summed was zero.
cdef inline uint16_t checksum_fold(uint32_t sum) noexcept nogil:
    sum = (sum & 0xFFFF) + (sum >> 16)
    return <uint16_t>(sum + (sum >> 16))


# The value of a checksum field.
cdef inline uint16_t checksum_emit(uint32_t sum) noexcept nogil:
    return <uint16_t>~checksum_fold(sum)


# A checksum field after one aligned 16-bit word under it changed (all three as they lie in memory). RFC 1624
# section 3, equation 3: HC' = ~(~HC + ~m + m'), which unlike RFC 1141's never yields 0xFFFF where 0x0000 is due.
cdef inline uint16_t checksum_update16(uint16_t old, uint16_t before, uint16_t after) noexcept nogil:
    return <uint16_t>~checksum_fold(<uint32_t><uint16_t>~old + <uint16_t>~before + after)
