# SPDX-License-Identifier: MIT
# The two rings that a process shares with the kernel: requests go in, completions come out. Body: ring.pyx.
#
#     ring_next       an empty request (SQE), to be filled before the next ring_enter
#     ring_enter      hand over what was filled; wait for completions if asked to
#     ring_peek       the oldest completion (CQE), or NULL; ring_advance gives its entry back to the kernel
#
# A ring belongs to one thread (IORING_SETUP_SINGLE_ISSUER): that of the first ring_enter. Completions come into being
# inside ring_enter alone (IORING_SETUP_DEFER_TASKRUN): nothing arrives while the thread does something else, and after
# its last call the ring stands still. Needs Linux 6.1.
#
# It must not: know what a request means. Above: buffers, requests, completions, strategy. Below: abi, base.

from libc.stdint cimport uint32_t, uint64_t

from ustack.kernel.uring.abi cimport (
    IORING_SQ_CQ_OVERFLOW, IORING_SQ_TASKRUN, io_uring_cqe, io_uring_sqe, ring_load, ring_store)

ctypedef struct ring_t:
    int fd                              # -1: there is none
    int process                         # that opened it: in a child of fork() the rings are the parent's
    bint enabled                        # a thread has it
    io_uring_sqe *sqes
    io_uring_cqe *cqes
    uint32_t sq_tail                    # of what was filled; the kernel learns it in ring_enter
    uint32_t sq_mask
    uint32_t cq_head                    # the kernel learns it with each completion taken
    uint32_t cq_mask
    uint32_t *sq_kernel_head            # in the mapping
    uint32_t *sq_kernel_tail
    uint32_t *sq_kernel_flags
    uint32_t *cq_kernel_head
    uint32_t *cq_kernel_tail
    void *rings
    size_t rings_bytes
    size_t sqes_bytes
    uint64_t enters                     # system calls

# 0, or a negative errno: -ENOSYS and -EPERM where io_uring is missing or forbidden, -EINVAL before Linux 6.1.
cdef int ring_open(ring_t *ring, uint32_t entries, uint32_t completions) noexcept nogil
# Its requests are cancelled by and by, behind the caller's back. Idempotent.
cdef void ring_close(ring_t *ring) noexcept nogil
# NULL: the ring is full until the next ring_enter.
cdef io_uring_sqe *ring_next(ring_t *ring) noexcept nogil
# Hand over what was filled, make the completions that are due; wait_for > 0: sleep until there are so many, or
# timeout_ns (UINT64_MAX: for ever) or a signal. 0, or a negative errno: -EEXIST in another thread than the ring's.
cdef int ring_enter(ring_t *ring, uint32_t wait_for, uint64_t timeout_ns) noexcept nogil
# io_uring_register(2): 0 or more, or a negative errno.
cdef int ring_register(ring_t *ring, unsigned int what, void *argument, unsigned int count) noexcept nogil


cdef inline io_uring_cqe *ring_peek(ring_t *ring) noexcept nogil:
    if ring_load(ring.cq_kernel_tail) == ring.cq_head:
        return NULL
    return &ring.cqes[ring.cq_head & ring.cq_mask]


cdef inline void ring_advance(ring_t *ring) noexcept nogil:
    ring.cq_head += 1
    ring_store(ring.cq_kernel_head, ring.cq_head)


# Requests that ring_enter would hand over.
cdef inline uint32_t ring_filled(const ring_t *ring) noexcept nogil:
    return ring.sq_tail - ring_load(ring.sq_kernel_head)


cdef inline uint32_t ring_room(const ring_t *ring) noexcept nogil:
    return ring.sq_mask + 1 - ring_filled(ring)


# Another ring_enter would find completions: work put off for it, or more than the ring had entries for.
cdef inline bint ring_has_more(const ring_t *ring) noexcept nogil:
    return ring_load(ring.sq_kernel_flags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW) != 0


cdef inline bint ring_overflowed(const ring_t *ring) noexcept nogil:
    return ring_load(ring.sq_kernel_flags) & IORING_SQ_CQ_OVERFLOW != 0
