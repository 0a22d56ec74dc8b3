# SPDX-License-Identifier: MIT
# The end of a chunked body (RFC 9112 section 7.1). What the body carries is discarded.
#
# llhttp parses heads here, but it does not say where a message ended, and finding that out by feeding it up to each
# line feed cost 25 to 47 ms for 60 KB of line feeds. This reader looks at each byte of the framing once and skips the
# data. It accepts no less than the grammar, and nothing that two readers could understand differently: no bare CR or
# LF, no whitespace around a size, no more than 15 digits. A test compares it with llhttp.
#
# Above: records (an exchange holds a chunks_t), requests. Below: grammar, response (.py).

from libc.stdint cimport uint8_t, uint64_t

cdef enum chunk_state_t:
    CHUNK_SIZE = 0                  # at the first digit
    CHUNK_DIGITS
    CHUNK_EXTENSION                 # behind a semicolon (RFC 9112 section 7.1.1), without whitespace as in llhttp
    CHUNK_EXTENSION_NAME
    CHUNK_EXTENSION_EQUALS
    CHUNK_EXTENSION_VALUE
    CHUNK_QUOTED
    CHUNK_QUOTED_PAIR
    CHUNK_QUOTED_END
    CHUNK_SIZE_LF
    CHUNK_DATA
    CHUNK_DATA_CR
    CHUNK_DATA_LF
    CHUNK_TRAILER                   # at the first byte of a line behind the last chunk
    CHUNK_TRAILER_NAME
    CHUNK_TRAILER_VALUE
    CHUNK_TRAILER_LF
    CHUNK_END_LF

# All zero but `left`: at the beginning of a body.
ctypedef struct chunks_t:
    uint64_t size                   # of the chunk: bytes still to come
    uint64_t left                   # bytes that the body may still have, framing and trailers included
    uint8_t state                   # chunk_state_t
    uint8_t digits                  # of the size, so far

# 0: more is to come; 1: the body has ended, after `used` bytes; else the status that it is refused with.
cdef int chunks_read(chunks_t *chunks, const uint8_t *data, size_t length, size_t *used) noexcept nogil
