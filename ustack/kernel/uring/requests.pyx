# SPDX-License-Identifier: MIT
"""What is wanted of a slot becomes requests. See requests.pxd.

A slot is brought to what is wanted, whatever was asked of it meanwhile: a receive is in the kernel while its owner
reads, comes back when he stops or has too much waiting, and so on. Nothing is asked twice.

    listener        accept, multishot: one request for all connections. After an error (no descriptor is left): poll,
                    and accept4 by hand until nobody waits, since accept looks for a descriptor before it looks whether
                    anybody is there, and would fail again and again
    connection      recv, multishot, into the registered buffers; where nobody reads, poll for errors alone
    connecting      poll, until it can be written to
    a send          send or sendmsg, one at a time: they would overtake each other. Long ones without copying, if asked
    the end         cancel what is in the kernel, which holds the socket open, and close
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.posix cimport MSG_NOSIGNAL, POLLIN, POLLOUT, SOCK_CLOEXEC, SOCK_NONBLOCK
from ustack.kernel.readiness cimport READY_IN, READY_OUT
from ustack.kernel.uring.abi cimport (
    IORING_ACCEPT_MULTISHOT, IORING_ASYNC_CANCEL_ALL, IORING_ASYNC_CANCEL_ANY, IORING_ASYNC_CANCEL_FD, IORING_OP_ACCEPT,
    IORING_OP_ASYNC_CANCEL, IORING_OP_CLOSE, IORING_OP_POLL_ADD, IORING_OP_RECV, IORING_OP_SEND, IORING_OP_SEND_ZC,
    IORING_OP_SENDMSG, IORING_OP_SENDMSG_ZC, IORING_RECV_MULTISHOT, IOSQE_BUFFER_SELECT, IOSQE_CQE_SKIP_SUCCESS,
    io_uring_sqe)
from ustack.kernel.uring.buffers cimport BUFFERS_GROUP, buffers_left
from ustack.kernel.uring.records cimport (
    ACCEPTED_MOST, BY_HAND, CANCELLING, CLOSE_ASKED, CLOSED, FAILED, HUNG_UP, IN_READY, KIND_ACCEPT, KIND_POLL,
    KIND_RECEIVE, KIND_SEND, LISTENS, POLLING, QUEUE_MOST, RECEIVING, SAW_EOF, SEND_WAITS, SOMEBODY, STARVED, kind_t,
    outgoing_t, slot_t, uring_t, user_data)
from ustack.kernel.uring.ring cimport ring_enter, ring_next, ring_room
from ustack.kernel.uring.slots cimport outgoing_at, slot_free, starved_add, starved_release, todo_take

cdef enum:
    SLOTS_AT_ONCE = 4096            # in a turn
    REQUESTS_OF_A_SLOT = 4          # at most, at once

cdef uint64_t ZEROCOPY_FROM = 16384         # bytes in a send: below, pages cost more than a copy


cdef bint requests_make(uring_t *self) noexcept nogil:
    cdef uint32_t left = SLOTS_AT_ONCE
    starved_release(self)
    while self.todo.first and left > 0:
        if ring_room(&self.ring) < REQUESTS_OF_A_SLOT and (
                ring_enter(&self.ring, 0, 0) < 0 or ring_room(&self.ring) < REQUESTS_OF_A_SLOT):
            break
        make(self, todo_take(self))
        left -= 1
    return self.todo.first == 0


cdef io_uring_sqe *request(uring_t *self, slot_t *slot, kind_t kind, uint32_t index) noexcept nogil:
    """One that will have a completion."""
    cdef io_uring_sqe *sqe = ring_next(&self.ring)
    sqe.fd = slot.fd
    sqe.user_data = user_data(kind, slot.generation, index)
    slot.in_flight += 1
    self.requests += 1
    return sqe


cdef io_uring_sqe *silent(uring_t *self) noexcept nogil:
    cdef io_uring_sqe *sqe = ring_next(&self.ring)
    sqe.flags = IOSQE_CQE_SKIP_SUCCESS
    return sqe


cdef void make(uring_t *self, slot_t *slot) noexcept nogil:
    cdef bint reads
    if slot.flags & CLOSED:
        end(self, slot)
        return
    if slot.flags & SEND_WAITS:
        send(self, slot)
    reads = slot.interest & READY_IN != 0 and not slot.flags & (SAW_EOF | FAILED | SOMEBODY)
    if reads and slot.queued >= <uint32_t>(ACCEPTED_MOST if slot.flags & LISTENS else QUEUE_MOST):
        reads = False
    if slot.flags & RECEIVING:
        if not reads and not slot.flags & CANCELLING:
            cancel(self, slot)
    elif reads and slot.flags & BY_HAND:
        poll(self, slot, POLLIN)
    elif reads and slot.flags & LISTENS:
        accept(self, slot)
    elif reads:
        receive(self, slot)
    if slot.interest & READY_OUT:
        poll(self, slot, POLLOUT)
    elif not slot.interest & READY_IN and not slot.flags & (LISTENS | HUNG_UP):
        poll(self, slot, 0)


cdef void receive(uring_t *self, slot_t *slot) noexcept nogil:
    cdef io_uring_sqe *sqe
    if slot.flags & STARVED:
        return
    if buffers_left(&self.buffers) == 0:
        starved_add(self, slot)
        return
    sqe = request(self, slot, KIND_RECEIVE, slot.index)
    sqe.opcode = IORING_OP_RECV
    sqe.ioprio = IORING_RECV_MULTISHOT
    sqe.flags = IOSQE_BUFFER_SELECT
    sqe.buf_group = BUFFERS_GROUP
    slot.flags |= RECEIVING


cdef void accept(uring_t *self, slot_t *slot) noexcept nogil:
    cdef io_uring_sqe *sqe = request(self, slot, KIND_ACCEPT, slot.index)
    sqe.opcode = IORING_OP_ACCEPT
    sqe.ioprio = IORING_ACCEPT_MULTISHOT
    sqe.accept_flags = <uint32_t>(SOCK_NONBLOCK | SOCK_CLOEXEC)
    slot.flags |= RECEIVING


cdef void cancel(uring_t *self, slot_t *slot) noexcept nogil:
    cdef io_uring_sqe *sqe = silent(self)
    sqe.opcode = IORING_OP_ASYNC_CANCEL
    sqe.fd = -1
    sqe.addr = user_data(KIND_ACCEPT if slot.flags & LISTENS else KIND_RECEIVE, slot.generation, slot.index)
    slot.flags |= CANCELLING


cdef void poll(uring_t *self, slot_t *slot, uint16_t events) noexcept nogil:
    """Once. Errors and the end of both directions are told in any case."""
    cdef io_uring_sqe *sqe
    if slot.flags & POLLING:
        if events & ~slot.polled:           # it asks too little: it comes back, and is made again
            sqe = silent(self)
            sqe.opcode = IORING_OP_ASYNC_CANCEL
            sqe.fd = -1
            sqe.addr = user_data(KIND_POLL, slot.generation, slot.index)
        return
    sqe = request(self, slot, KIND_POLL, slot.index)
    sqe.opcode = IORING_OP_POLL_ADD
    sqe.poll32_events = events
    slot.polled = <uint8_t>events
    slot.flags |= POLLING


cdef void send(uring_t *self, slot_t *slot) noexcept nogil:
    cdef outgoing_t *outgoing = outgoing_at(self, slot.outgoing)
    cdef io_uring_sqe *sqe = request(self, slot, KIND_SEND, slot.outgoing)
    cdef bint whole = self.zerocopy and not outgoing.plain and outgoing.bytes >= ZEROCOPY_FROM
    if outgoing.count == 1:
        sqe.opcode = IORING_OP_SEND_ZC if whole else IORING_OP_SEND
        sqe.addr = <uint64_t>outgoing.vector[0].iov_base
        sqe.len = <uint32_t>outgoing.vector[0].iov_len
    else:
        sqe.opcode = IORING_OP_SENDMSG_ZC if whole else IORING_OP_SENDMSG
        sqe.addr = <uint64_t>&outgoing.message
        sqe.len = 1
    sqe.msg_flags = <uint32_t>MSG_NOSIGNAL
    outgoing.submitted = True
    slot.flags &= ~<uint32_t>SEND_WAITS


cdef void end(uring_t *self, slot_t *slot) noexcept nogil:
    cdef io_uring_sqe *sqe
    if not slot.flags & CLOSE_ASKED:
        slot.flags |= CLOSE_ASKED
        if slot.in_flight:
            sqe = silent(self)
            sqe.opcode = IORING_OP_ASYNC_CANCEL
            sqe.fd = slot.fd
            sqe.cancel_flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL
        sqe = silent(self)
        sqe.opcode = IORING_OP_CLOSE
        sqe.fd = slot.fd
    if slot.in_flight == 0 and not slot.flags & (IN_READY | STARVED):
        slot_free(self, slot)


cdef void requests_cancel(uring_t *self) noexcept nogil:
    cdef io_uring_sqe *sqe
    if ring_room(&self.ring) > 0:
        sqe = silent(self)
        sqe.opcode = IORING_OP_ASYNC_CANCEL
        sqe.fd = -1
        sqe.cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL
