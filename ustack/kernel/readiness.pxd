# SPDX-License-Identifier: MIT
# How it is learnt which descriptors are ready: the contract between the sockets' side and a strategy.
#
#     add, modify, remove     what is asked about a descriptor
#     wait                    what is told, at most `most` at once
#
# A strategy knows descriptors and tokens, and nothing of connections. Its own record begins with its readiness_t, so
# that `<own_t *>readiness` is all it takes to come back to it. A token is what `add` or `modify` said last. One may be
# told whose descriptor has been removed since (or closed, and its number given to another): who is told asks whether
# the token still names somebody.
#
# Above: turns, connections, accepting. Below: base, buf's lent_t. Read first: epoll(7), poll(2), select(2).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.posix cimport iovec, sockaddr_in
from ustack.buf.lent cimport lent_t

# What is asked for (the first two), and told.
cdef enum ready_events_t:
    READY_IN = 1                # bytes, the peer's FIN, a connection to accept
    READY_OUT = 2
    READY_ERROR = 4             # the connection has failed. Told unasked, by the strategies that can
    READY_HANGUP = 8            # both directions have ended. Told unasked, again and again
    READY_EOF = 16              # with READY_IN: the peer's FIN or an urgent byte is among what can be read
    # With `add`: other processes wait for the same socket, and one of them will do. Who cannot say so wakes all.
    READY_ONE_OF_US = 32
    READY_LISTENS = 64          # with `add` and READY_IN: what comes is connections

cdef enum serves_t:
    SERVES_ALL = 0              # the thread that waits
    SERVES_IN_THREADS           # one thread for each connection
    SERVES_IN_PROCESSES         # one process for each connection

ctypedef struct ready_t:
    uint64_t token
    uint32_t events

ctypedef struct readiness_t:
    const readiness_ops_t *ops
    uint64_t overflows          # times that what was to be told was lost, and everything was asked about instead
    uint64_t shortages          # times that every buffer to receive into was in use (a strategy that completes)

ctypedef struct readiness_ops_t:
    const char *name
    # What can be read or written is told when that becomes so, not while it is so: whoever is told goes on until
    # nothing is left. What is asked for with `add` is everything, and nobody calls `modify`.
    bint edge
    bint tells_eof              # READY_EOF is told with the last bytes: a short read is the end of what can be read
    bint forgets_closed         # closing a descriptor removes it
    uint32_t most_fd            # descriptors from here on cannot be watched; 0: any can
    serves_t serves             # who reads and writes on a connection. Not SERVES_ALL: listeners alone are watched
    bint tells_errors           # READY_ERROR, as soon as it is so
    bint reads_files            # applications' files are read while others go on (aio.pxd)
    # NULL without memory or descriptors: *error is a negative errno.
    readiness_t *(*begin)(int *error) noexcept nogil
    # 0, or a negative errno: -EINVAL for a descriptor that this strategy cannot watch.
    int (*add)(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil
    int (*modify)(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil
    void (*remove)(readiness_t *readiness, int fd) noexcept nogil
    # How many are ready, 0 after timeout_ns (rounded up to what the call can say; UINT64_MAX: for ever) or a signal.
    int (*wait)(readiness_t *readiness, ready_t *out, int most, uint64_t timeout_ns) noexcept nogil
    void (*end)(readiness_t *readiness) noexcept nogil
    # What begin's error means here, beyond its errno; NULL: that says it. The whole entry may be NULL.
    const char *(*explain)(int error) noexcept nogil
    # Buffers to receive into that are in use now; NULL: it has none of its own.
    uint32_t (*buffers_in_use)(readiness_t *readiness) noexcept nogil
    # ---- A strategy that completes has system calls of its own: what it tells has been done already. All of these, or
    # NULL: accept4, recv, sendmsg, close. `fd` was added. What was asked goes out with the next wait, or flush.
    #
    # A connection's descriptor and its peer, or a negative errno: -EAGAIN: nobody is there.
    int (*accept)(readiness_t *readiness, int fd, sockaddr_in *peer) noexcept nogil
    # As recv (out NULL: consume alone): bytes, 0 at the peer's FIN, or a negative errno.
    ssize_t (*receive)(readiness_t *readiness, int fd, uint8_t *out, size_t length) noexcept nogil
    uint32_t (*receivable)(readiness_t *readiness, int fd) noexcept nogil
    # Send one vector, of up to COMPLETING_RANGES; READY_OUT is told when that is over. References are kept as long as
    # the kernel may read what was lent. 0, or -ENOMEM. Not while another is under way.
    int (*send)(readiness_t *readiness, int fd, const iovec *vector, lent_t **lent, uint32_t count) noexcept nogil
    # What the last one has come to: bytes, told once, and whether that was all of it; 0: there was none; -EAGAIN: it is
    # under way; a negative errno.
    ssize_t (*sent)(readiness_t *readiness, int fd, bint *whole) noexcept nogil
    # Close it, and forget it. What it still has in the kernel comes back by itself.
    void (*close)(readiness_t *readiness, int fd) noexcept nogil
    void (*flush)(readiness_t *readiness) noexcept nogil

cdef enum:
    COMPLETING_RANGES = 64


# A timeout in whole milliseconds, rounded up: nobody is woken before his time to find nothing due.
cdef inline int milliseconds_of(uint64_t timeout_ns) noexcept nogil:
    if timeout_ns >= 0x7FFFFFFFULL * 1000000:
        return -1
    return <int>((timeout_ns + 999999) / 1000000)
