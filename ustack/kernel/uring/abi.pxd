# SPDX-License-Identifier: MIT
# What the kernel says about io_uring: the header's records and numbers, and the two orderings that its rings need.
#
# It must not: do anything. Above: ring, buffers, requests, completions. Below: nothing. Read first: io_uring(7).

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<linux/io_uring.h>" nogil:
    cdef struct io_uring_sqe:
        uint8_t opcode
        uint8_t flags
        uint16_t ioprio
        int32_t fd
        uint64_t addr
        uint32_t len
        uint32_t poll32_events
        uint32_t accept_flags
        uint32_t cancel_flags
        uint32_t msg_flags
        uint64_t user_data
        uint16_t buf_group
    cdef struct io_uring_cqe:
        uint64_t user_data
        int32_t res
        uint32_t flags
    cdef struct io_sqring_offsets:
        uint32_t head
        uint32_t tail
        uint32_t ring_mask
        uint32_t flags
        uint32_t array
    cdef struct io_cqring_offsets:
        uint32_t head
        uint32_t tail
        uint32_t ring_mask
        uint32_t cqes
    cdef struct io_uring_params:
        uint32_t sq_entries
        uint32_t cq_entries
        uint32_t flags
        uint32_t features
        io_sqring_offsets sq_off
        io_cqring_offsets cq_off
    cdef struct io_uring_getevents_arg:
        uint64_t ts
    cdef struct io_uring_buf:
        uint64_t addr
        uint32_t len
        uint16_t bid
        uint16_t resv               # of the first one: where the kernel reads the tail of the ring
    cdef struct io_uring_buf_reg:
        uint64_t ring_addr
        uint32_t ring_entries
        uint16_t bgid
    const uint32_t IORING_SETUP_CQSIZE, IORING_SETUP_R_DISABLED, IORING_SETUP_SUBMIT_ALL, IORING_SETUP_TASKRUN_FLAG
    const uint32_t IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_DEFER_TASKRUN
    const uint32_t IORING_FEAT_SINGLE_MMAP, IORING_FEAT_NODROP, IORING_FEAT_EXT_ARG, IORING_FEAT_CQE_SKIP
    const uint64_t IORING_OFF_SQ_RING, IORING_OFF_SQES
    const uint32_t IORING_SQ_CQ_OVERFLOW, IORING_SQ_TASKRUN
    const uint32_t IORING_ENTER_GETEVENTS, IORING_ENTER_EXT_ARG
    const unsigned int IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_PBUF_RING
    const uint8_t IORING_OP_ACCEPT, IORING_OP_ASYNC_CANCEL, IORING_OP_CLOSE, IORING_OP_POLL_ADD, IORING_OP_RECV
    const uint8_t IORING_OP_SEND, IORING_OP_SENDMSG, IORING_OP_SEND_ZC, IORING_OP_SENDMSG_ZC
    const uint8_t IOSQE_BUFFER_SELECT, IOSQE_CQE_SKIP_SUCCESS
    const uint16_t IORING_ACCEPT_MULTISHOT, IORING_RECV_MULTISHOT
    const uint32_t IORING_ASYNC_CANCEL_ALL, IORING_ASYNC_CANCEL_ANY, IORING_ASYNC_CANCEL_FD
    const uint32_t IORING_CQE_F_BUFFER, IORING_CQE_F_MORE, IORING_CQE_F_NOTIF
    const int IORING_CQE_BUFFER_SHIFT

cdef extern from *:
    """
    #define ustack_uring_acquire(address) __atomic_load_n((address), __ATOMIC_ACQUIRE)
    #define ustack_uring_release(address, value) __atomic_store_n((address), (value), __ATOMIC_RELEASE)
    """
    uint32_t ring_load "ustack_uring_acquire"(const uint32_t *address) noexcept nogil
    void ring_store "ustack_uring_release"(uint32_t *address, uint32_t value) noexcept nogil
    void ring_store_16 "ustack_uring_release"(uint16_t *address, uint16_t value) noexcept nogil
