# SPDX-License-Identifier: MIT
# The end of a chunked body (RFC 9112 section 7.1). Included by http.pyx. What the body carries is discarded.
#
# llhttp parses heads here, but it does not say where a message ended, and finding that out by feeding it up to each
# line feed cost 25 to 47 ms for 60 KB of line feeds. This reader looks at each byte of the framing once and skips the
# data. It accepts no less than the grammar, and nothing that two readers could understand differently: no bare CR or
# LF, no whitespace around a size, no more than 15 digits. A test compares it with llhttp.

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

ctypedef struct chunks_t:
    uint64_t size                   # of the chunk: still to come
    uint64_t left                   # bytes that the body may still have, framing and trailers included
    uint8_t state
    uint8_t digits


cdef inline int hex_digit(uint8_t octet) noexcept nogil:
    if c'0' <= octet <= c'9':
        return octet - c'0'
    if c'a' <= octet | 0x20 <= c'f':
        return (octet | 0x20) - c'a' + 10
    return -1


cdef inline bint is_token(uint8_t octet) noexcept nogil:
    """tchar, RFC 9110 section 5.6.2."""
    if c'a' <= octet | 0x20 <= c'z' or c'0' <= octet <= c'9':
        return True
    return octet != 0 and strchr(b"!#$%&'*+-.^_`|~", octet) != NULL


cdef inline bint is_text(uint8_t octet) noexcept nogil:
    """What a field's value and an extension may hold (RFC 9110 section 5.5)."""
    return octet == c'\t' or (octet >= 0x20 and octet != 0x7f)


cdef bint extension_read(chunks_t *chunks, uint8_t octet) noexcept nogil:
    """One byte of *( ";" name [ "=" ( token / quoted-string ) ] ). False: it has no place there."""
    cdef uint8_t state = chunks.state
    if state == CHUNK_QUOTED:
        if octet == c'"':
            chunks.state = CHUNK_QUOTED_END
        elif octet == c'\\':
            chunks.state = CHUNK_QUOTED_PAIR
        else:
            return is_text(octet)
        return True
    if state == CHUNK_QUOTED_PAIR:
        chunks.state = CHUNK_QUOTED
        return is_text(octet)
    if is_token(octet) and state != CHUNK_QUOTED_END:
        if state == CHUNK_EXTENSION:
            chunks.state = CHUNK_EXTENSION_NAME
        elif state == CHUNK_EXTENSION_EQUALS:
            chunks.state = CHUNK_EXTENSION_VALUE
        return True
    if state == CHUNK_EXTENSION_EQUALS and octet == c'"':
        chunks.state = CHUNK_QUOTED
    elif state == CHUNK_EXTENSION_NAME and octet == c'=':
        chunks.state = CHUNK_EXTENSION_EQUALS
    elif state == CHUNK_EXTENSION or state == CHUNK_EXTENSION_EQUALS:
        return False
    elif octet == c';':
        chunks.state = CHUNK_EXTENSION
    elif octet == c'\r':
        chunks.state = CHUNK_SIZE_LF
    else:
        return False
    return True


cdef int chunks_read(chunks_t *chunks, const uint8_t *data, size_t length, size_t *used) noexcept nogil:
    """0: more is to come; 1: the body has ended, after `used` bytes; else the status that it is refused with."""
    cdef size_t at = 0, step
    cdef uint8_t octet
    cdef int digit
    while at < length:
        if chunks.left == 0:
            return 413
        if chunks.state == CHUNK_DATA:
            step = length - at
            if step > chunks.size:
                step = <size_t>chunks.size
            if step > chunks.left:
                return 413
            at += step
            chunks.left -= step
            chunks.size -= step
            if chunks.size == 0:
                chunks.state = CHUNK_DATA_CR
            continue
        octet = data[at]
        at += 1
        chunks.left -= 1
        if chunks.state == CHUNK_SIZE or chunks.state == CHUNK_DIGITS:
            digit = hex_digit(octet)
            if digit >= 0:
                if chunks.digits == 15:
                    return 413
                chunks.digits += 1
                chunks.size = chunks.size << 4 | <uint64_t>digit
                chunks.state = CHUNK_DIGITS
            elif chunks.state == CHUNK_SIZE:
                return 400
            elif octet == c'\r':
                chunks.state = CHUNK_SIZE_LF
            elif octet == c';':
                chunks.state = CHUNK_EXTENSION
            else:
                return 400
        elif CHUNK_EXTENSION <= chunks.state <= CHUNK_QUOTED_END:
            if not extension_read(chunks, octet):
                return 400
        elif chunks.state == CHUNK_SIZE_LF:
            if octet != c'\n':
                return 400
            if chunks.size > chunks.left:
                return 413
            chunks.state = CHUNK_DATA if chunks.size else CHUNK_TRAILER
            chunks.digits = 0
        elif chunks.state == CHUNK_DATA_CR:
            if octet != c'\r':
                return 400
            chunks.state = CHUNK_DATA_LF
        elif chunks.state == CHUNK_DATA_LF:
            if octet != c'\n':
                return 400
            chunks.state = CHUNK_SIZE
        elif chunks.state == CHUNK_TRAILER:
            if octet == c'\r':
                chunks.state = CHUNK_END_LF
            elif is_token(octet):
                chunks.state = CHUNK_TRAILER_NAME
            else:
                return 400
        elif chunks.state == CHUNK_TRAILER_NAME:
            if octet == c':':
                chunks.state = CHUNK_TRAILER_VALUE
            elif not is_token(octet):
                return 400
        elif chunks.state == CHUNK_TRAILER_VALUE:
            if octet == c'\r':
                chunks.state = CHUNK_TRAILER_LF
            elif not is_text(octet):
                return 400
        elif chunks.state == CHUNK_TRAILER_LF:
            if octet != c'\n':
                return 400
            chunks.state = CHUNK_TRAILER
        else:
            if octet != c'\n':
                return 400
            used[0] = at
            return 1
    used[0] = at
    return 0
