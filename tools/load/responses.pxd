# SPDX-License-Identifier: MIT
# HTTP/1.1 responses as a client reads them: bytes in, in pieces of any size; out comes when one is complete, what it
# said, or what is wrong with it. Nothing about a server is believed: every length is bounded and every byte is looked
# at once, however they are cut.
#
# A head that comes whole is read where it lies. One that comes in pieces is copied, HEAD_BYTES_MOST of it at most, and
# HELD_BYTES_MOST for all connections together. The last head is kept: one with the same bytes means the same.
#
# Read first: RFC 9112 sections 4 (status line), 5 (fields), 6 (where a body ends), 7.1 (chunks). It must not: know a
# connection, or what was asked for beyond HEAD or not. Above: client. Below: nothing.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    HEAD_BYTES_MOST = 16384
    HELD_BYTES_MOST = 64 << 20
    KNOWN_HEAD_BYTES = 512                  # a longer one is read anew each time
    LINE_BYTES_MOST = 1024                  # a chunk's size with its extensions; a trailer field
    TRAILER_BYTES_MOST = 8192
    BODY_DIGITS_MOST = 17                   # of a Content-Length
    CHUNK_DIGITS_MOST = 14                  # of a chunk's size

# What response_read answers.
cdef enum reading_t:
    READ_MORE = 0                           # all of the data is used, and more has to come
    READ_COMPLETE = 1
    READ_MALFORMED = -1                     # no HTTP/1.x response, or one that answers no request of ours
    READ_HEAD_TOO_LONG = -2                 # or a trailer, or a line of a chunk
    READ_BAD_LENGTH = -3                    # two lengths that differ, a length and a coding, one that is no number
    READ_NO_MEMORY = -4                     # for heads in pieces

cdef enum phase_t:
    PHASE_HEAD = 0                          # nothing, or a part, of a head has come
    PHASE_BODY                              # `left` bytes are to come
    PHASE_UNTIL_CLOSE
    PHASE_CHUNK_SIZE
    PHASE_CHUNK_EXTENSION
    PHASE_CHUNK_SIZE_LF
    PHASE_CHUNK_DATA
    PHASE_CHUNK_DATA_CR
    PHASE_CHUNK_DATA_LF
    PHASE_TRAILER                           # at the start of a line
    PHASE_TRAILER_FIELD
    PHASE_TRAILER_FIELD_LF
    PHASE_TRAILER_LF

cdef enum response_flag_t:
    RESPONSE_TO_HEAD = 1                    # writer: who asked. No body follows, whatever the head says
    RESPONSE_HASHED = 2                     # writer: who asked. `hash` is the body's
    RESPONSE_LAST = 4                       # the server closes after this one
    RESPONSE_BEGUN = 8                      # a byte of it has come

# One response under way. Zeroed, but for the two flags of who asked, it expects the next one.
ctypedef struct response_t:
    uint64_t left                           # bytes of the body, or of the chunk
    uint64_t body_bytes                     # so far
    uint64_t hash                           # FNV-1a, of the body so far
    uint8_t *held                           # a head in pieces; NULL: none
    uint16_t held_bytes
    uint16_t held_room
    uint16_t line_bytes                     # of a chunk's line or of a trailer field; digits first
    uint16_t trailer_bytes
    uint16_t status
    uint8_t phase
    uint8_t flags

# What a head says.
ctypedef struct head_t:
    uint64_t length
    uint16_t status
    uint8_t phase                           # of the body that follows; PHASE_HEAD: none does
    bint last

# What the responses of one client share.
ctypedef struct reader_t:
    uint64_t held_bytes                     # of all heads in pieces
    uint64_t interim                        # 1xx responses read over
    uint64_t heads_known                    # heads that had the last one's bytes
    uint32_t known_bytes
    head_t known
    uint8_t known_head[KNOWN_HEAD_BYTES]


# Begin to expect the next response. flags: of who asked.
cdef inline void response_begin(response_t *response, uint8_t flags) noexcept nogil:
    response.body_bytes = 0
    response.hash = FNV_OFFSET
    response.line_bytes = 0
    response.trailer_bytes = 0
    response.phase = PHASE_HEAD
    response.flags = flags


cdef enum:
    FNV_OFFSET = 0xCBF29CE484222325
    FNV_PRIME = 0x100000001B3

# Take `length` bytes (1 at least) that follow the ones before; *used of them belong to this response. reading_t.
cdef int response_read(reader_t *reader, response_t *response, const uint8_t *data, size_t length,
                       size_t *used) noexcept nogil
# The server has closed in order. READ_COMPLETE where that ends the body, else READ_MORE: it is cut.
cdef int response_end(const response_t *response) noexcept nogil
# Give back what is held of it.
cdef void response_forget(reader_t *reader, response_t *response) noexcept nogil
cdef uint64_t body_hash(uint64_t hash, const uint8_t *data, size_t length) noexcept nogil
