# SPDX-License-Identifier: MIT
"""Responses, read as they arrive. See responses.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy

from ustack.base.bytestring cimport data_of, size_of

cdef enum:
    HELD_FIRST_BYTES = 512
    STATUS_LINE_BYTES = 13                  # "HTTP/1.1 200" and a space or the end of the line


cdef uint64_t body_hash(uint64_t hash, const uint8_t *data, size_t length) noexcept nogil:
    cdef size_t i
    for i in range(length):
        hash = (hash ^ data[i]) * <uint64_t>FNV_PRIME
    return hash


# ---------------------------------------------------------------- heads

cdef inline bint is_space(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline bint equals(const uint8_t *text, size_t length, const char *word, size_t word_length) noexcept nogil:
    """word: small letters and hyphens. No other byte that a line can hold becomes one of these by the bit of case."""
    cdef size_t i
    if length != word_length:
        return False
    for i in range(length):
        if text[i] | 0x20 != <uint8_t>word[i]:
            return False
    return True


cdef const uint8_t *head_end(const uint8_t *data, size_t length, size_t seen) noexcept nogil:
    """What follows the empty line, or NULL. seen: so many bytes have been looked through before."""
    cdef const uint8_t *end = data + length
    cdef const uint8_t *at = data + (seen - 3 if seen > 3 else 0)
    while end - at >= 4:
        at = <const uint8_t *>memchr(at, c'\r', end - at - 3)
        if at == NULL:
            return NULL
        if at[1] == c'\n' and at[2] == c'\r' and at[3] == c'\n':
            return at + 4
        at += 1
    return NULL


cdef bint status_line(const uint8_t *line, size_t length, head_t *head, bint *old) noexcept nogil:
    """RFC 9112 section 4. Servers that leave out the reason also leave out the space before it."""
    cdef int i
    if length < STATUS_LINE_BYTES - 1 or memcmp(line, b"HTTP/1.", 7) != 0 or line[8] != c' ':
        return False
    if line[7] != c'0' and line[7] != c'1':
        return False
    old[0] = line[7] == c'0'
    if length >= STATUS_LINE_BYTES and line[12] != c' ':
        return False
    head.status = 0
    for i in range(9, 12):
        if not c'0' <= line[i] <= c'9':
            return False
        head.status = head.status * 10 + (line[i] - c'0')
    return 100 <= head.status <= 599


cdef bint content_length(const uint8_t *value, size_t length, bint *given, uint64_t *out) noexcept nogil:
    """Decimal digits alone; a second one must say the same (RFC 9110 section 8.6)."""
    cdef uint64_t number = 0
    cdef size_t i
    if length == 0 or length > BODY_DIGITS_MOST:
        return False
    for i in range(length):
        if not c'0' <= value[i] <= c'9':
            return False
        number = number * 10 + (value[i] - c'0')
    if given[0] and number != out[0]:
        return False
    given[0] = True
    out[0] = number
    return True


cdef bint has_token(const uint8_t *value, size_t length, const char *word, size_t word_length,
                    bint at_end) noexcept nogil:
    """Is the word in a comma-separated list? at_end: is it the last of them?"""
    cdef size_t first = 0, last, end
    cdef bint found = False
    while first <= length:
        end = first
        while end < length and value[end] != c',':
            end += 1
        last = end
        while first < last and is_space(value[first]):
            first += 1
        while last > first and is_space(value[last - 1]):
            last -= 1
        if last > first:
            found = equals(value + first, last - first, word, word_length)
            if found and not at_end:
                return True
        first = end + 1
    return found


cdef bint is_token(const uint8_t *name, size_t length) noexcept nogil:
    """A field's name: no space, no control, no separator of a line (RFC 9110 section 5.6.2, as far as it protects the
    reading of what follows)."""
    cdef size_t i
    for i in range(length):
        if name[i] <= c' ' or name[i] >= 0x7F:
            return False
    return length > 0


cdef int head_parse(const uint8_t *data, size_t length, head_t *head) noexcept nogil:
    """A whole head with its empty line: 0, or a reading_t."""
    cdef const uint8_t *end = data + length - 2         # the empty line's CR
    cdef const uint8_t *line
    cdef const uint8_t *line_end
    cdef const uint8_t *value
    cdef const uint8_t *value_end
    cdef size_t name_bytes
    cdef bint old = False, closes = False, stays = False, given = False, coded = False, chunked = False, framing = False
    head.length = 0
    line_end = <const uint8_t *>memchr(data, c'\r', length)
    if line_end[1] != c'\n' or not status_line(data, line_end - data, head, &old):
        return READ_MALFORMED
    line = line_end + 2
    while line < end:
        line_end = <const uint8_t *>memchr(line, c'\r', end - line)
        if line_end == NULL or line_end[1] != c'\n':
            return READ_MALFORMED                       # a bare CR (RFC 9112 section 2.2)
        if is_space(line[0]):                           # obs-fold (section 5.2): a space, but not in a length
            if framing:
                return READ_MALFORMED
            line = line_end + 2
            continue
        value = <const uint8_t *>memchr(line, c':', line_end - line)
        if value == NULL or not is_token(line, value - line):
            return READ_MALFORMED
        name_bytes = value - line
        value += 1
        value_end = line_end
        while value < value_end and is_space(value[0]):
            value += 1
        while value_end > value and is_space((value_end - 1)[0]):
            value_end -= 1
        framing = False
        if equals(line, name_bytes, b"content-length", 14):
            framing = True
            if not content_length(value, value_end - value, &given, &head.length):
                return READ_BAD_LENGTH
        elif equals(line, name_bytes, b"transfer-encoding", 17):
            framing = True
            coded = True
            chunked = has_token(value, value_end - value, b"chunked", 7, True)
        elif equals(line, name_bytes, b"connection", 10):
            closes |= has_token(value, value_end - value, b"close", 5, False)
            stays |= has_token(value, value_end - value, b"keep-alive", 10, False)
        line = line_end + 2
    head.last = closes or (old and not stays)
    return head_body(head, given, coded, chunked, old)


cdef int head_body(head_t *head, bint given, bint coded, bint chunked, bint old) noexcept nogil:
    """Where the body ends (RFC 9112 section 6.3)."""
    if coded and (given or old):
        return READ_BAD_LENGTH                          # item 3, section 6.1: a smuggler's, or a broken server's
    if head.status < 200:
        head.phase = PHASE_HEAD
        return READ_MALFORMED if head.status == 101 else 0          # nobody asked for another protocol
    if head.status == 204 or head.status == 304 or (given and head.length == 0):
        head.phase = PHASE_HEAD
    elif chunked:
        head.phase = PHASE_CHUNK_SIZE
    elif given:
        head.phase = PHASE_BODY
    else:
        head.phase = PHASE_UNTIL_CLOSE                  # item 8
        head.last = True
    return 0


cdef int hold(reader_t *reader, response_t *response, const uint8_t *data, size_t length) noexcept nogil:
    """Keep a part of a head until more of it comes."""
    cdef size_t wanted = response.held_bytes + length
    cdef size_t room = response.held_room if response.held_room else HELD_FIRST_BYTES
    cdef uint8_t *grown
    while room < wanted:
        room *= 2
    if room > response.held_room:
        if reader.held_bytes + (room - response.held_room) > HELD_BYTES_MOST:
            return READ_NO_MEMORY
        grown = <uint8_t *>realloc(response.held, room)
        if grown == NULL:
            return READ_NO_MEMORY
        reader.held_bytes += room - response.held_room
        response.held = grown
        response.held_room = <uint16_t>room
    memcpy(response.held + response.held_bytes, data, length)
    response.held_bytes = <uint16_t>wanted
    return READ_MORE


cdef void response_forget(reader_t *reader, response_t *response) noexcept nogil:
    if response.held != NULL:
        reader.held_bytes -= response.held_room
        free(response.held)
        response.held = NULL
        response.held_room = 0
        response.held_bytes = 0


cdef inline void remember(reader_t *reader, const uint8_t *data, size_t length, const head_t *head) noexcept nogil:
    if length <= KNOWN_HEAD_BYTES:
        memcpy(reader.known_head, data, length)
        reader.known_bytes = <uint32_t>length
        reader.known = head[0]


cdef int apply(reader_t *reader, response_t *response, const head_t *head) noexcept nogil:
    """What follows this head: READ_MORE, or READ_COMPLETE if nothing does."""
    if head.status < 200:
        reader.interim += 1
        return READ_MORE
    response.status = head.status
    response.left = head.length
    if head.last:
        response.flags |= RESPONSE_LAST
    if head.phase == PHASE_HEAD or response.flags & RESPONSE_TO_HEAD:
        return READ_COMPLETE
    response.phase = head.phase
    return READ_MORE


cdef int read_head(reader_t *reader, response_t *response, const uint8_t *data, size_t length,
                   size_t *used) noexcept nogil:
    cdef const uint8_t *end
    cdef size_t before, step
    cdef head_t head
    cdef int status
    if response.held == NULL:
        if (reader.known_bytes and length >= reader.known_bytes
                and memcmp(data, reader.known_head, reader.known_bytes) == 0):
            reader.heads_known += 1
            used[0] = reader.known_bytes
            return apply(reader, response, &reader.known)
        end = head_end(data, length, 0)
        if end != NULL:
            used[0] = end - data
            if used[0] > HEAD_BYTES_MOST:
                return READ_HEAD_TOO_LONG
            status = head_parse(data, used[0], &head)
            if status == 0:
                remember(reader, data, used[0], &head)
                status = apply(reader, response, &head)
            return status
    # In pieces: no more is copied than a head may be long.
    before = response.held_bytes
    step = length
    if step > HEAD_BYTES_MOST - before:
        step = HEAD_BYTES_MOST - before
    if step == 0:
        return READ_HEAD_TOO_LONG
    status = hold(reader, response, data, step)
    if status < 0:
        return status
    end = head_end(response.held, response.held_bytes, before)
    if end == NULL:
        used[0] = step
        return READ_HEAD_TOO_LONG if response.held_bytes == HEAD_BYTES_MOST else READ_MORE
    used[0] = (end - response.held) - before
    status = head_parse(response.held, end - response.held, &head)
    response_forget(reader, response)
    return apply(reader, response, &head) if status == 0 else status


# ---------------------------------------------------------------- bodies

cdef inline void take_body(response_t *response, const uint8_t *data, size_t length) noexcept nogil:
    response.body_bytes += length
    if response.flags & RESPONSE_HASHED:
        response.hash = body_hash(response.hash, data, length)


cdef inline int digit_of(uint8_t c) noexcept nogil:
    """Of a hexadecimal number; -1: it is none."""
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    return -1


cdef int chunk_step(response_t *response, uint8_t c) noexcept nogil:
    """One byte between the data of two chunks, or behind the last (RFC 9112 section 7.1)."""
    cdef int digit
    if response.phase == PHASE_CHUNK_SIZE:
        digit = digit_of(c)
        if digit >= 0:
            if response.line_bytes == CHUNK_DIGITS_MOST:
                return READ_BAD_LENGTH
            response.left = response.left * 16 + <uint64_t>digit if response.line_bytes else <uint64_t>digit
            response.line_bytes += 1
            return READ_MORE
        if response.line_bytes == 0:
            return READ_BAD_LENGTH                      # no size
        if c == c'\r':
            response.phase = PHASE_CHUNK_SIZE_LF
            return READ_MORE
        if c != c';' and not is_space(c):
            return READ_BAD_LENGTH
        response.phase = PHASE_CHUNK_EXTENSION
        return READ_MORE
    if response.phase == PHASE_CHUNK_EXTENSION:
        response.line_bytes += 1
        if response.line_bytes > LINE_BYTES_MOST:
            return READ_HEAD_TOO_LONG
        if c == c'\n':
            return READ_MALFORMED
        if c == c'\r':
            response.phase = PHASE_CHUNK_SIZE_LF
        return READ_MORE
    if response.phase == PHASE_CHUNK_SIZE_LF:
        response.line_bytes = 0
        response.phase = PHASE_CHUNK_DATA if response.left else PHASE_TRAILER
        return READ_MORE if c == c'\n' else READ_MALFORMED
    if response.phase == PHASE_CHUNK_DATA_CR:
        response.phase = PHASE_CHUNK_DATA_LF
        return READ_MORE if c == c'\r' else READ_BAD_LENGTH         # a chunk longer than it said
    response.phase = PHASE_CHUNK_SIZE
    return READ_MORE if c == c'\n' else READ_MALFORMED


cdef int trailer_step(response_t *response, uint8_t c) noexcept nogil:
    """One byte behind the last chunk: fields that mean nothing here, then an empty line (section 7.1.2)."""
    response.trailer_bytes += 1
    if response.trailer_bytes > TRAILER_BYTES_MOST:
        return READ_HEAD_TOO_LONG
    if response.phase == PHASE_TRAILER_LF:
        return READ_COMPLETE if c == c'\n' else READ_MALFORMED
    if response.phase == PHASE_TRAILER_FIELD_LF:
        response.phase = PHASE_TRAILER
        return READ_MORE if c == c'\n' else READ_MALFORMED
    if c == c'\n':
        return READ_MALFORMED
    if c == c'\r':
        response.phase = PHASE_TRAILER_LF if response.phase == PHASE_TRAILER else PHASE_TRAILER_FIELD_LF
    else:
        response.phase = PHASE_TRAILER_FIELD
    return READ_MORE


cdef int read_chunks(response_t *response, const uint8_t *data, size_t length, size_t *used) noexcept nogil:
    cdef size_t at = 0, step
    cdef int status = READ_MORE
    while at < length and status == READ_MORE:
        if response.phase == PHASE_CHUNK_DATA:
            step = length - at if length - at < response.left else response.left
            take_body(response, data + at, step)
            response.left -= step
            at += step
            if response.left == 0:
                response.phase = PHASE_CHUNK_DATA_CR
        elif response.phase < PHASE_TRAILER:
            status = chunk_step(response, data[at])
            at += 1
        else:
            status = trailer_step(response, data[at])
            at += 1
    used[0] = at
    return status


cdef int response_read(reader_t *reader, response_t *response, const uint8_t *data, size_t length,
                       size_t *used) noexcept nogil:
    cdef size_t head_bytes = 0, step
    cdef int status
    response.flags |= RESPONSE_BEGUN
    while response.phase == PHASE_HEAD:                 # again after an interim response
        used[0] = 0
        status = read_head(reader, response, data + head_bytes, length - head_bytes, used)
        head_bytes += used[0]
        used[0] = head_bytes
        if status != READ_MORE or head_bytes == length:
            return status
    if response.phase == PHASE_BODY:
        step = length - head_bytes
        if step > response.left:
            step = response.left
        take_body(response, data + head_bytes, step)
        response.left -= step
        used[0] = head_bytes + step
        return READ_COMPLETE if response.left == 0 else READ_MORE
    if response.phase == PHASE_UNTIL_CLOSE:
        take_body(response, data + head_bytes, length - head_bytes)
        used[0] = length
        return READ_MORE
    status = read_chunks(response, data + head_bytes, length - head_bytes, used)
    used[0] += head_bytes
    return status


cdef int response_end(const response_t *response) noexcept nogil:
    return READ_COMPLETE if response.phase == PHASE_UNTIL_CLOSE else READ_MORE


# ---------------------------------------------------------------- the Python face, for tests

READINGS = {READ_MORE: "more", READ_COMPLETE: "complete", READ_MALFORMED: "malformed",
            READ_HEAD_TOO_LONG: "head too long", READ_BAD_LENGTH: "bad length", READ_NO_MEMORY: "no memory"}


def hash_of(body: bytes) -> int:
    """The hash that responses are compared by: FNV-1a of 64 bits."""
    return body_hash(<uint64_t>FNV_OFFSET, data_of(body), size_of(body))


cdef class Reader:
    """Reader(*, to_head=False)
--

    One connection's responses, for tests: feed() takes what arrives."""

    cdef reader_t reader
    cdef response_t response
    cdef uint8_t asked

    def __init__(self, *, to_head: bool = False) -> None:
        self.asked = RESPONSE_HASHED | (RESPONSE_TO_HEAD if to_head else 0)
        self.begin()

    def __dealloc__(self) -> None:
        response_forget(&self.reader, &self.response)

    def begin(self) -> None:
        """Expect the next response."""
        response_forget(&self.reader, &self.response)
        response_begin(&self.response, self.asked)

    def feed(self, data: bytes) -> tuple[str, int]:
        """What it has come to, and how many of the bytes were used."""
        cdef size_t used = 0
        cdef int status = response_read(&self.reader, &self.response, data_of(data), size_of(data), &used)
        return READINGS[status], used

    def end(self) -> str:
        """The server has closed."""
        return READINGS[response_end(&self.response)]

    @property
    def status(self) -> int:
        """Of the last response whose head was complete."""
        return self.response.status

    @property
    def body_bytes(self) -> int:
        """Of the body, so far."""
        return self.response.body_bytes

    @property
    def hash(self) -> int:
        """Of the body, so far."""
        return self.response.hash

    @property
    def last(self) -> bool:
        """Does the server close after this one?"""
        return self.response.flags & RESPONSE_LAST != 0

    @property
    def held_bytes(self) -> int:
        """Memory for heads in pieces."""
        return self.reader.held_bytes

    @property
    def heads_known(self) -> int:
        """Heads that had the bytes of the last one."""
        return self.reader.heads_known

    @property
    def interim(self) -> int:
        """Responses of class 1xx that were read over."""
        return self.reader.interim
