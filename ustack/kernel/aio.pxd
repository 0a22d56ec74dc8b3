# SPDX-License-Identifier: MIT
# Files read by POSIX AIO, while the sockets are asked about by epoll: the strategy `aio`. Body: aio.pyx.
#
#     files.read (application) ─▶ aio_read ─▶ a thread of the C library's reads ─▶ signal ─▶ its handler writes to an
#     eventfd ─▶ the strategy tells of it as of any descriptor ─▶ reads_tell ─▶ on_file_read
#
# At most READS_MOST are under way. A signal can be lost (RLIMIT_SIGPENDING): while anything is under way nobody sleeps
# for longer than READS_LOOK_NS, and then all are looked at.
#
# Above: life, turns, transport, strategies. Below: records, epoll, upcalls. Read first: aio(7), sigevent(3type).

from libc.stdint cimport uint32_t, uint64_t

from ustack.kernel.readiness cimport readiness_ops_t
from ustack.kernel.records cimport kernel_t

cdef enum:
    READS_LOOK_NS = 100000000

cdef const readiness_ops_t *aio_ops() noexcept nogil

# 0, or a negative errno.
cdef int reads_begin(kernel_t *kernel) noexcept nogil
# Nothing is under way any more when this returns: what has not been begun is taken back, the rest waited for. Each ends
# with on_file_read.
cdef void reads_finish(kernel_t *kernel) noexcept nogil
# The same, and nobody is called; in a child, nobody is waited for: they are the parent's. Idempotent.
cdef void reads_end(kernel_t *kernel) noexcept nogil
# on_file_read for those that have ended, if it is known or to be expected that any has. How many.
cdef uint32_t reads_tell(kernel_t *kernel) noexcept nogil
# With a manual clock: until all that are under way have ended.
cdef void reads_settle(kernel_t *kernel) noexcept nogil


# How long a wait may be.
cdef inline uint64_t reads_timeout(const kernel_t *kernel, uint64_t timeout_ns) noexcept nogil:
    if kernel.reads == NULL or kernel.reads.in_flight == 0 or timeout_ns < READS_LOOK_NS:
        return timeout_ns
    return READS_LOOK_NS
