# SPDX-License-Identifier: MIT
"""Reader of chunked bodies, a byte of framing at a time (contract: chunks.pxd)."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from ustack.base.bytestring cimport data_of, size_of
from ustack.server.grammar cimport hex_digit, is_text, is_token

from ustack.server.response import Refusal


cdef bint extension_read(chunks_t *chunks, uint8_t byte) noexcept nogil:
    """One byte of *( ";" name [ "=" ( token / quoted-string ) ] ). False: it has no place there."""
    cdef uint8_t state = chunks.state
    if state == CHUNK_QUOTED:
        if byte == c'"':
            chunks.state = CHUNK_QUOTED_END
        elif byte == c'\\':
            chunks.state = CHUNK_QUOTED_PAIR
        else:
            return is_text(byte)
        return True
    if state == CHUNK_QUOTED_PAIR:
        chunks.state = CHUNK_QUOTED
        return is_text(byte)
    if is_token(byte) and state != CHUNK_QUOTED_END:
        if state == CHUNK_EXTENSION:
            chunks.state = CHUNK_EXTENSION_NAME
        elif state == CHUNK_EXTENSION_EQUALS:
            chunks.state = CHUNK_EXTENSION_VALUE
        return True
    if state == CHUNK_EXTENSION_EQUALS and byte == c'"':
        chunks.state = CHUNK_QUOTED
    elif state == CHUNK_EXTENSION_NAME and byte == c'=':
        chunks.state = CHUNK_EXTENSION_EQUALS
    elif state == CHUNK_EXTENSION or state == CHUNK_EXTENSION_EQUALS:
        return False
    elif byte == c';':
        chunks.state = CHUNK_EXTENSION
    elif byte == c'\r':
        chunks.state = CHUNK_SIZE_LF
    else:
        return False
    return True


cdef int size_read(chunks_t *chunks, uint8_t byte) noexcept nogil:
    """One byte of a chunk's size, and what follows its digits. 0, or the status that the body is refused with."""
    cdef int digit = hex_digit(byte)
    if digit >= 0:
        if chunks.digits == 15:
            return 413
        chunks.digits += 1
        chunks.size = chunks.size << 4 | <uint64_t>digit
        chunks.state = CHUNK_DIGITS
    elif chunks.state == CHUNK_SIZE:
        return 400
    elif byte == c'\r':
        chunks.state = CHUNK_SIZE_LF
    elif byte == c';':
        chunks.state = CHUNK_EXTENSION
    else:
        return 400
    return 0


cdef bint trailer_read(chunks_t *chunks, uint8_t byte) noexcept nogil:
    """One byte of the trailer section (RFC 9112 section 7.1.2). False: it has no place there."""
    if chunks.state == CHUNK_TRAILER:
        chunks.state = CHUNK_END_LF if byte == c'\r' else CHUNK_TRAILER_NAME
        return byte == c'\r' or is_token(byte)
    if chunks.state == CHUNK_TRAILER_NAME:
        if byte != c':':
            return is_token(byte)
        chunks.state = CHUNK_TRAILER_VALUE
        return True
    if chunks.state == CHUNK_TRAILER_VALUE:
        if byte != c'\r':
            return is_text(byte)
        chunks.state = CHUNK_TRAILER_LF
        return True
    chunks.state = CHUNK_TRAILER
    return byte == c'\n'


cdef int framing_read(chunks_t *chunks, uint8_t byte) noexcept nogil:
    """One byte that is not the body's data. 0: go on; 1: it was the last; else a status."""
    if chunks.state == CHUNK_SIZE or chunks.state == CHUNK_DIGITS:
        return size_read(chunks, byte)
    if CHUNK_EXTENSION <= chunks.state <= CHUNK_QUOTED_END:
        return 0 if extension_read(chunks, byte) else 400
    if CHUNK_TRAILER <= chunks.state <= CHUNK_TRAILER_LF:
        return 0 if trailer_read(chunks, byte) else 400
    if byte != (c'\r' if chunks.state == CHUNK_DATA_CR else c'\n'):
        return 400
    if chunks.state == CHUNK_SIZE_LF:
        if chunks.size > chunks.left:
            return 413
        chunks.state = CHUNK_DATA if chunks.size else CHUNK_TRAILER
        chunks.digits = 0
    elif chunks.state == CHUNK_DATA_CR:
        chunks.state = CHUNK_DATA_LF
    elif chunks.state == CHUNK_DATA_LF:
        chunks.state = CHUNK_SIZE
    else:
        return 1                        # CHUNK_END_LF
    return 0


cdef int chunks_read(chunks_t *chunks, const uint8_t *data, size_t length, size_t *used) noexcept nogil:
    cdef size_t at = 0, step
    cdef int verdict
    while at < length:
        if chunks.left == 0:
            return 413
        if chunks.state == CHUNK_DATA:
            step = length - at
            if step > chunks.size:      # which is at most what is left: framing_read
                step = chunks.size
            at += step
            chunks.left -= step
            chunks.size -= step
            if chunks.size == 0:
                chunks.state = CHUNK_DATA_CR
            continue
        at += 1
        chunks.left -= 1
        verdict = framing_read(chunks, data[at - 1])
        if verdict:
            used[0] = at
            return verdict
    used[0] = at
    return 0


cdef class ChunkedBody:
    """chunks_read for Python. limit: bytes of the body, framing and trailers included."""

    cdef chunks_t chunks

    def __init__(self, uint64_t limit):
        memset(&self.chunks, 0, sizeof(chunks_t))
        self.chunks.left = limit

    def feed(self, bytes data not None):
        """(bytes of `data` that belong to the body, has it ended with them). Raises Refusal(413) or Refusal(400)."""
        cdef size_t used = 0
        cdef int verdict = chunks_read(&self.chunks, data_of(data), size_of(data), &used)
        if verdict > 1:
            raise Refusal(verdict, close=True)
        return used, verdict == 1
