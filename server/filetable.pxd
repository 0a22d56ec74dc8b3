# SPDX-License-Identifier: MIT
# Open files as the data path sees them: bodies to lend, and whether the disk still agrees.
#
# A file_t never moves; what was remembered about it carries its generation. Dropping one gives back only this table's
# reference: responses in flight keep the bytes they began with. Files are found by the path of a request (decoded,
# below the root), and make room for others by CLOCK (second chance), bounded in number, in bytes, and in bytes that are
# copies.
#
# Above: fetching, loading, decide, plainheads, sending, receiving, http (housekeeping). Below: records, ready,
# headtable, beneath.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.posix cimport stat_t
from ustack.buf.lent cimport lent_t
from ustack.server.records cimport NO_FILE, decision_t, file_t, server_t, variant_t

cdef enum:
    PATH_BYTES = 4096                   # PATH_MAX, path_resolution(7)
    OPEN_IN_GENERAL = 1                 # files.py has to look

cdef int files_begin(server_t *server, uint32_t limit) noexcept nogil       # 0, or -1 without memory
cdef void files_end(server_t *server) noexcept nogil                        # idempotent
cdef bint is_absent(int error) noexcept nogil                               # nothing has that name

# The usual file, with one openat2(2): regular, small, below the root without an absolute link, with no .gz beside it.
# 0: *found and *body (NULL: empty) are it. -errno: is_absent. OPEN_IN_GENERAL: everything else.
cdef int file_open(server_t *server, const char *path, stat_t *found, lent_t **body) noexcept nogil
# Its first half: *opened is the descriptor, nothing has been read.
cdef int file_look(server_t *server, const char *path, stat_t *found, int *opened) noexcept nogil
# Take what file_open found into the table, with body's reference. NULL without memory; body is given back then.
# name: of the file, below the root. It begins with the path that the request has.
cdef file_t *file_take(server_t *server, size_t path_length, uint64_t hashed, const char *name, const stat_t *found,
                       lent_t *body) noexcept nogil

# hashed: SipHash-1-3 of the path under server.hash_key. NULL: no live file has it.
cdef file_t *file_lookup(server_t *server, const uint8_t *path, size_t length, uint64_t hashed) noexcept nogil
# A free slot, to be taken at once (file_appear), after dropping what was not used lately until `bytes_wanted` fit as
# well (or nothing is left). copied_wanted: of them, those that are copies.
cdef uint32_t file_make_room(server_t *server, uint64_t bytes_wanted, uint64_t copied_wanted) noexcept nogil
cdef void file_appear(server_t *server, file_t *file, size_t path_length, uint64_t hashed) noexcept nogil
cdef void file_drop(server_t *server, file_t *file) noexcept nogil
cdef void variant_clear(server_t *server, variant_t *variant) noexcept nogil

cdef bint file_check(server_t *server, file_t *file) noexcept nogil         # against the disk, now. False: dropped
# The next `count` files in turn, each against the disk: once per second, so that one that nobody asks for is let go.
cdef void files_check_some(server_t *server, uint32_t count) noexcept nogil
cdef void files_forget(server_t *server) noexcept nogil                     # drop every one
cdef bint still_missing(server_t *server, decision_t *decision) noexcept nogil

# Will a copy of `wanted` bytes fit in max_response_bytes? What is only remembered makes room: heads, then files.
#
# keep: a file that stays, or NO_FILE. whole: it is the response to a file; an eighth is not for others, so that clients
# who ask for ever other ranges and read none cannot keep out who asks for files.
cdef bint responses_make_room(server_t *server, uint64_t wanted, uint32_t keep, bint whole) noexcept nogil


# Where it is in server.files.
cdef inline uint32_t file_number(const server_t *server, const file_t *file) noexcept nogil:
    return <uint32_t>(file - server.files)


cdef inline bint file_fresh(server_t *server, file_t *file) noexcept nogil:
    """As it is on the disk? Asked with two stat(2), once a burst as long as this second's budget lasts, so that a quiet
    server sees every change at once and a busy one pays a bounded part of its time; after that once in revalidate_ns.
    """
    cdef uint64_t age_ns = server.now_ns - file.checked_ns
    if age_ns == 0 or (age_ns < server.revalidate_ns and server.checks_left == 0):
        return True
    if server.checks_left:
        server.checks_left -= 1
    return file_check(server, file)


cdef inline bint decision_valid(server_t *server, decision_t *decision) noexcept nogil:
    cdef file_t *file
    if decision.file == NO_FILE:
        return decision.missing == NULL or still_missing(server, decision)
    file = &server.files[decision.file]
    if file.generation != decision.generation or not file_fresh(server, file):
        return False
    file.referenced = 1
    return True
