# SPDX-License-Identifier: MIT
# Numbers as HTTP and the access log write them. Inline leaves.
#
# Above: logring, plainheads. Below: nothing.

from libc.stdint cimport uint8_t, uint64_t


cdef inline size_t write_digits(uint8_t *out, uint64_t value, uint64_t base) noexcept nogil:
    """Without leading zeros; returns how many digits."""
    cdef uint8_t digits[20]
    cdef size_t count = 0, i
    while True:
        digits[count] = b"0123456789abcdef"[value % base]
        value //= base
        count += 1
        if value == 0:
            break
    for i in range(count):
        out[i] = digits[count - 1 - i]
    return count


cdef inline size_t write_decimal(uint8_t *out, uint64_t value) noexcept nogil:
    """At most 20 bytes; returns how many."""
    return write_digits(out, value, 10)


cdef inline size_t write_hex(uint8_t *out, uint64_t value) noexcept nogil:
    """At most 16 bytes; returns how many."""
    return write_digits(out, value, 16)
