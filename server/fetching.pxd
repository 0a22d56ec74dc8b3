# SPDX-License-Identifier: MIT
# Files on their way into memory: where the transport reads files while others go on (transport.files.read), who asks
# for one that is not in the table waits for it, and nobody else does.
#
#     head ─▶ file_fetch, file_warm ── in nobody's hands ──▶ load_t: read ─▶ read ─▶ ... ─▶ done
#                                   ── being read ─────────▶ the same load_t: one read for all
#                                   ── LOADS are under way ─▶ a queue
#     PHASE_LOADING: the head is kept; nothing more of its connection is read. When the load is done its heads are
#     decided in the hand-over, like those that need Python (asking).
#
# A small file is read into the buffer that is lent later, and is in the table when it has come (file_check then
# compares it with the disk: one that has changed meanwhile is dropped). A larger one, and whatever files.py opens, is
# mapped later: its first bytes, WARM_MOST of each variant, are read only to have them in the page cache. Whoever waited
# is answered from the table, or from a read at once if the file is not there after all (changed, cut, failed,
# displaced): nobody waits twice. What is not read this way: names and stat(2), for which POSIX AIO has no call, and the
# rest of a larger file.
#
# Bounds: LOADS at once, each of FETCH_MOST bytes; heads that wait have a quarter of max_request_bytes. Larger files
# have at most WARM_LOADS of them, and a queue of their own: whoever has them all read leaves small ones their share,
# and the other way round. Who goes away while he waits leaves his list; a small file's load goes on, for the next one,
# a larger one's ends with the read that is under way.
#
# With every other transport all of this is one look at a pointer where a file has to be opened anyway.
#
# Above: loading, plainheads, asking, upcalls, tables. Below: filetable, records; application (file_calls_t).

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ustack.application cimport transport_t
from ustack.base.posix cimport stat_t
from ustack.buf.lent cimport lent_t
from ustack.server.records cimport server_t

cdef enum:
    LOADS = 64                          # at once
    WARM_LOADS = 3 * LOADS // 4         # of larger files
    LOADS_QUEUE = 1                     # the numbers of those that are none: who waits for a free one,
    WARM_QUEUE = 2                      # ... for a larger file
    LOADS_FIRST = 3
    LOADS_END = LOADS_FIRST + LOADS
    FETCH_MOST = 1 << 20                # bytes of a file that is read into a buffer of its own
    WARM_BYTES = 1 << 17                # in one read of a larger one
    WARM_MOST = 1 << 24                 # of each, in all
    FILE_AWAITED = 2                    # file_fetch: server.awaited says for what

# As file_open, with FILE_AWAITED where the file is being read now. name begins with the request's path.
cdef int file_fetch(server_t *server, size_t path_length, uint64_t hashed, const char *name, stat_t *found,
                    lent_t **body) noexcept nogil
# The same for what files.py has opened. True: server.awaited; the descriptors stay the caller's. False: read at once.
cdef bint file_warm(server_t *server, size_t path_length, uint64_t hashed, const char *name, int fd,
                    int gzip_fd) noexcept nogil
# on_file_read.
cdef void file_came(server_t *server, const transport_t *transport, uint32_t token, int fd, lent_t *into,
                    int64_t taken) noexcept nogil
# The exchange whose head is decided next: of those that wait for Python, or of those whose load is done or may begin,
# which come first if loads_first. 0: none.
cdef uint32_t next_waiting(server_t *server) noexcept nogil
# Idempotent. What the transport still reads comes back to file_came.
cdef void loads_end(server_t *server) noexcept nogil


cdef inline bint fetches(const server_t *server) noexcept nogil:
    """Does whoever asks now wait for files?"""
    return (server.transport != NULL and server.transport.files != NULL and server.transport.files.read != NULL
            and not server.read_at_once)


cdef inline bint any_waiting(server_t *server) noexcept nogil:
    return server.undecided.first != 0 or (server.loads != NULL and next_waiting(server) != 0)
