# SPDX-License-Identifier: MIT
"""Reader of unfinished request heads (contract: headscan.pxd)."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from ustack.server.grammar cimport is_request_target, is_token


cdef size_t head_end(const uint8_t *data, size_t length, size_t start, bint *broken) noexcept nogil:
    cdef const uint8_t *found
    cdef size_t at = start
    broken[0] = False
    while at < length:
        found = <const uint8_t *>memchr(data + at, c'\n', length - at)
        if found == NULL:
            return 0
        at = <size_t>(found - data)
        if at == 0 or data[at - 1] != c'\r':
            broken[0] = True
            return at + 1
        if at >= 2 and data[at - 2] == c'\n':
            return at + 1
        at += 1
    return 0


cdef int line_fault(const uint8_t *data, size_t length, uint32_t max_line_bytes, bint *complete) noexcept nogil:
    """The grammar is that of request.py's _REQUEST_LINE; waiting for the rest of a head whose first line is none would
    only end in a 408."""
    cdef size_t at = 0, line_length
    cdef const uint8_t *end
    complete[0] = False
    while at < length and is_token(data[at]):
        at += 1
        if at > MAX_METHOD_BYTES:
            return 501                  # longer than every method (RFC 9112 section 3)
    if at == length:
        return 0
    if at == 0 or data[at] != c' ':
        return 400
    end = <const uint8_t *>memchr(data, c'\n', length)
    if end == NULL:
        return 0
    line_length = <size_t>(end - data) + 1
    if line_length > <size_t>max_line_bytes + 2:
        return 414
    complete[0] = True
    if line_length < at + 1 + VERSION_BYTES + 1:
        return 400
    end = data + line_length - VERSION_BYTES
    if (memcmp(end, b" HTTP/", 6) != 0 or not c'0' <= end[6] <= c'9' or end[7] != c'.' or not c'0' <= end[8] <= c'9'
            or end[9] != c'\r'):
        return 400
    if not is_request_target(data + at + 1, line_length - VERSION_BYTES - at - 1):
        return 400
    return 0 if end[6] == c'1' else 505
