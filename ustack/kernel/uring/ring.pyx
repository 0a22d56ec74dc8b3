# SPDX-License-Identifier: MIT
"""The two rings that a process shares with the kernel: three system calls and two mappings. See ring.pxd."""

from libc.errno cimport EBADFD, EINTR, EINVAL, ETIME, errno
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.posix cimport (
    MAP_FAILED, MAP_POPULATE, MAP_SHARED, PROT_READ, PROT_WRITE, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_io_uring_setup, close_descriptor, getpid, mmap, munmap, syscall, timespec)
from ustack.kernel.uring.abi cimport (
    IORING_ENTER_EXT_ARG, IORING_ENTER_GETEVENTS, IORING_FEAT_CQE_SKIP, IORING_FEAT_EXT_ARG, IORING_FEAT_NODROP,
    IORING_FEAT_SINGLE_MMAP, IORING_OFF_SQ_RING, IORING_OFF_SQES, IORING_REGISTER_ENABLE_RINGS, IORING_SETUP_CQSIZE,
    IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_R_DISABLED, IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_TASKRUN_FLAG, io_uring_cqe, io_uring_getevents_arg, io_uring_params, io_uring_sqe,
    ring_store)

# One mapping for both rings (5.4), no completion lost (5.5), a timeout of the wait (5.11), requests that complete in
# silence (5.17). The setup flags below need 6.1.
cdef uint32_t FEATURES = (
    IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP)


cdef int ring_open(ring_t *ring, uint32_t entries, uint32_t completions) noexcept nogil:
    cdef io_uring_params params
    memset(ring, 0, sizeof(ring_t))
    memset(&params, 0, sizeof(params))
    params.flags = (
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED
        | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE)
    params.cq_entries = completions
    ring.process = getpid()
    ring.fd = <int>syscall(SYS_io_uring_setup, entries, &params)
    if ring.fd < 0:
        ring.fd = -1
        return -errno
    if params.features & FEATURES != FEATURES:
        ring_close(ring)
        return -EINVAL
    return map_rings(ring, &params)


cdef int map_rings(ring_t *ring, const io_uring_params *params) noexcept nogil:
    cdef size_t requests = params.sq_off.array + params.sq_entries * sizeof(uint32_t)
    cdef uint8_t *base
    cdef uint32_t *array
    cdef uint32_t index
    cdef void *mapped
    cdef int failed
    ring.rings_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe)
    if requests > ring.rings_bytes:
        ring.rings_bytes = requests
    mapped = mmap(NULL, ring.rings_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd,
                  <long>IORING_OFF_SQ_RING)
    if mapped == MAP_FAILED:
        failed = -errno
        ring_close(ring)
        return failed
    ring.rings = mapped
    ring.sqes_bytes = params.sq_entries * sizeof(io_uring_sqe)
    mapped = mmap(NULL, ring.sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd,
                  <long>IORING_OFF_SQES)
    if mapped == MAP_FAILED:
        failed = -errno
        ring_close(ring)
        return failed
    ring.sqes = <io_uring_sqe *>mapped
    base = <uint8_t *>ring.rings
    ring.sq_kernel_head = <uint32_t *>(base + params.sq_off.head)
    ring.sq_kernel_tail = <uint32_t *>(base + params.sq_off.tail)
    ring.sq_kernel_flags = <uint32_t *>(base + params.sq_off.flags)
    ring.sq_mask = (<uint32_t *>(base + params.sq_off.ring_mask))[0]
    ring.cq_kernel_head = <uint32_t *>(base + params.cq_off.head)
    ring.cq_kernel_tail = <uint32_t *>(base + params.cq_off.tail)
    ring.cq_mask = (<uint32_t *>(base + params.cq_off.ring_mask))[0]
    ring.cqes = <io_uring_cqe *>(base + params.cq_off.cqes)
    array = <uint32_t *>(base + params.sq_off.array)
    for index in range(params.sq_entries):      # requests are handed over in the order of their entries
        array[index] = index
    return 0


cdef void ring_close(ring_t *ring) noexcept nogil:
    if ring.sqes != NULL:
        munmap(ring.sqes, ring.sqes_bytes)
    if ring.rings != NULL:
        munmap(ring.rings, ring.rings_bytes)
    if ring.fd >= 0:
        close_descriptor(ring.fd)
    ring.sqes = NULL
    ring.rings = NULL
    ring.fd = -1


cdef io_uring_sqe *ring_next(ring_t *ring) noexcept nogil:
    cdef io_uring_sqe *sqe
    if ring_filled(ring) > ring.sq_mask:
        return NULL
    sqe = &ring.sqes[ring.sq_tail & ring.sq_mask]
    ring.sq_tail += 1
    memset(sqe, 0, sizeof(io_uring_sqe))
    return sqe


cdef int enter(ring_t *ring, uint32_t wait_for, const io_uring_getevents_arg *until) noexcept nogil:
    ring.enters += 1
    if syscall(SYS_io_uring_enter, ring.fd, ring_filled(ring), wait_for,
               IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, until, sizeof(io_uring_getevents_arg)) < 0:
        return -errno
    return 0


cdef int ring_enter(ring_t *ring, uint32_t wait_for, uint64_t timeout_ns) noexcept nogil:
    cdef io_uring_getevents_arg until
    cdef timespec limit
    cdef int failed
    memset(&until, 0, sizeof(until))
    if wait_for and timeout_ns != UINT64_MAX:
        limit.tv_sec = <long>(timeout_ns // 1000000000)
        limit.tv_nsec = <long>(timeout_ns % 1000000000)
        until.ts = <uint64_t>&limit
    ring_store(ring.sq_kernel_tail, ring.sq_tail)
    failed = enter(ring, wait_for, &until)
    if failed == -EBADFD and not ring.enabled:      # nobody's yet: this thread's from now on
        failed = ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0)
        ring.enabled = failed >= 0
        if failed >= 0:
            failed = enter(ring, wait_for, &until)
    return 0 if failed == -EINTR or failed == -ETIME else failed


cdef int ring_register(ring_t *ring, unsigned int what, void *argument, unsigned int count) noexcept nogil:
    cdef long answer = syscall(SYS_io_uring_register, ring.fd, what, argument, count)
    return <int>answer if answer >= 0 else -errno
