# SPDX-License-Identifier: MIT
# Files read by POSIX AIO, while the sockets are asked about by epoll: the strategy `aio`. Body: aio.pyx.
#
#     files.read (application) ─▶ aio_read ─▶ a thread of the C library's reads ─▶ signal ─▶ its handler writes to an
#     eventfd ─▶ the strategy tells of it as of any descriptor ─▶ reads_tell ─▶ on_file_read
#
# A disk may never answer. Nobody can take back a read that the kernel has begun: it goes on, from the descriptor into
# the memory, when the disk is there again. So a transport that goes waits for two seconds at most; what has not ended
# by then is left behind, memory and descriptor, for the next transport of this kind that begins or ends after it has.
# Its application is told at once (-ECANCELED), and KernelTransport.close() warns.
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
# Nobody waits for anything any more when this returns: what has not been begun is taken back, the rest waited for, or
# given up. Each ends with on_file_read.
cdef void reads_finish(kernel_t *kernel) noexcept nogil
# The same, and nobody is called; in a child, nobody is waited for: they are the parent's. Idempotent. As reads_begin
# with the GIL held: what is left behind is everybody's.
cdef void reads_end(kernel_t *kernel) noexcept nogil
# on_file_read for those that have ended, if it is known or to be expected that any has. How many.
cdef uint32_t reads_tell(kernel_t *kernel) noexcept nogil
# With a manual clock: until all that are under way have ended, for a minute at most. The turn goes on without those
# that have not, which is counted.
cdef void reads_settle(kernel_t *kernel) noexcept nogil


# How long a wait may be.
cdef inline uint64_t reads_timeout(const kernel_t *kernel, uint64_t timeout_ns) noexcept nogil:
    if kernel.reads == NULL or kernel.reads.in_flight == 0 or timeout_ns < READS_LOOK_NS:
        return timeout_ns
    return READS_LOOK_NS
