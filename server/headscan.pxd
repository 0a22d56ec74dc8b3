# SPDX-License-Identifier: MIT
# Where a request head ends, and what is wrong with one that has not ended yet.
#
# request.py judges whole heads; this file only spares a client the wait for the rest of what can never be one. It keeps
# nothing, and looks at each line of a head that comes in parts once.
#
# Read first: RFC 9112 section 2.2 (line ends) and 3 (request line). Above: plainheads, receiving. Below: grammar.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    MAX_METHOD_BYTES = 32               # as request.py has it
    VERSION_BYTES = 11                  # " HTTP/1.1" and its line end

# Bytes up to and including the first empty line; 0 if it has not come. Lines before `start` were looked at.
#
# broken: a line ends without a carriage return there (a recipient may accept it, RFC 9112 section 2.2, and two that
# differ in this can be played off against each other: it is refused).
cdef size_t head_end(const uint8_t *data, size_t length, size_t start, bint *broken) noexcept nogil

# What is wrong with the first line of an unfinished head, as a status; 0: nothing that can be seen yet.
# complete: the line has come, and needs no other look.
cdef int line_fault(const uint8_t *data, size_t length, uint32_t max_line_bytes, bint *complete) noexcept nogil


cdef inline bint starts_no_request(uint8_t first) noexcept nogil:
    """No method begins with it: TLS, noise. Nothing is waited for then."""
    return first <= 0x20 or first >= 0x7f
