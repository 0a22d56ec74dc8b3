# SPDX-License-Identifier: MIT
# Which bytes HTTP allows where. Inline leaves, shared by everything that reads a client's bytes without Python.
#
# Read first: RFC 9110 section 5.5 (field values), 5.6.2 (tokens); RFC 9112 section 3.2 (request-target).
# Above: chunks, headscan. Below: nothing.

from libc.stdint cimport uint8_t
from libc.string cimport strchr


cdef inline int hex_digit(uint8_t byte) noexcept nogil:
    """Its value, -1: it is none."""
    if c'0' <= byte <= c'9':
        return byte - c'0'
    if c'a' <= byte | 0x20 <= c'f':
        return (byte | 0x20) - c'a' + 10
    return -1


cdef inline bint is_token(uint8_t byte) noexcept nogil:
    """tchar, RFC 9110 section 5.6.2."""
    if c'a' <= byte | 0x20 <= c'z' or c'0' <= byte <= c'9':
        return True
    return byte != 0 and strchr(b"!#$%&'*+-.^_`|~", byte) != NULL


cdef inline bint is_text(uint8_t byte) noexcept nogil:
    """What a field's value and a chunk's extension may hold (RFC 9110 section 5.5)."""
    return byte == c'\t' or (byte >= 0x20 and byte != 0x7f)


cdef inline bint is_request_target(const uint8_t *data, size_t length) noexcept nogil:
    """Printable ASCII without a space. target.py judges which of the four forms it is."""
    cdef size_t at
    for at in range(length):
        if data[at] < 0x21 or data[at] > 0x7e:
            return False
    return length > 0
