# SPDX-License-Identifier: MIT
"""What the kernel has done, and what of it is told. See completions.pxd."""

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM
from libc.stdint cimport int16_t, int32_t, uint32_t, uint64_t

from ustack.base.debug cimport ensure
from ustack.base.posix cimport ECANCELED, POLLERR, POLLHUP, POLLIN, POLLOUT, close_descriptor
from ustack.kernel.readiness cimport READY_EOF, READY_ERROR, READY_IN, READY_OUT, ready_t
from ustack.kernel.uring.abi cimport (
    IORING_CQE_BUFFER_SHIFT, IORING_CQE_F_BUFFER, IORING_CQE_F_MORE, IORING_CQE_F_NOTIF, io_uring_cqe)
from ustack.kernel.uring.buffers cimport buffers_grow, buffers_return, buffers_take
from ustack.kernel.uring.records cimport (
    ACCEPTED_MOST, BY_HAND, CANCELLING, CLOSED, FAILED, HUNG_UP, KIND_ACCEPT, KIND_POLL, KIND_RECEIVE, KIND_SEND,
    KIND_SILENT, POLLING, QUEUE_MOST, RECEIVING, SAW_EOF, SEND_WAITS, SENDING, SENT_SHORT, SOMEBODY, TOLD_ERROR,
    TOLD_OUT, outgoing_t, slot_t, uring_t)
from ustack.kernel.uring.ring cimport ring_advance, ring_peek
from ustack.kernel.uring.slots cimport (
    item_append, items_copy, outgoing_at, outgoing_free, ready_add, ready_take, slot_at, slot_has_news, todo_add)


cdef uint32_t completions_take(uring_t *self, uint32_t most) noexcept nogil:
    cdef io_uring_cqe *cqe
    cdef io_uring_cqe told
    cdef uint32_t taken = 0
    while taken < most:
        cqe = ring_peek(&self.ring)
        if cqe == NULL:
            break
        told = cqe[0]
        ring_advance(&self.ring)
        taken += 1
        complete(self, &told)
    return taken


cdef void complete(uring_t *self, const io_uring_cqe *told) noexcept nogil:
    cdef uint32_t kind = <uint32_t>(told.user_data >> 60)
    cdef uint32_t generation = <uint32_t>(told.user_data >> 32) & 0xFFFFFFF
    cdef slot_t *slot
    if kind == KIND_SILENT:
        return                      # a cancel that found nobody
    if kind == KIND_SEND:
        if outgoing_at(self, <uint32_t>told.user_data).generation != generation:
            return
        slot = slot_at(self, outgoing_at(self, <uint32_t>told.user_data).slot)
    else:
        slot = slot_at(self, <uint32_t>told.user_data)
    ensure(slot.generation == generation)
    if slot.generation != generation:
        return
    if not told.flags & IORING_CQE_F_MORE:
        slot.in_flight -= 1
        self.requests -= 1
    if kind == KIND_RECEIVE:
        receive_done(self, slot, told)
    elif kind == KIND_ACCEPT:
        accept_done(self, slot, told)
    elif kind == KIND_POLL:
        poll_done(self, slot, told.res)
    else:
        send_done(self, slot, <uint32_t>told.user_data, told)
    if slot.flags & CLOSED and slot.in_flight == 0:
        todo_add(self, slot)        # its record may go
    elif slot_has_news(slot) and not slot.flags & CLOSED:
        ready_add(self, slot)


cdef void came_back(uring_t *self, slot_t *slot, uint32_t flags) noexcept nogil:
    """A multishot request that is over is made again, if it is still wanted."""
    if not flags & IORING_CQE_F_MORE:
        slot.flags &= ~<uint32_t>(RECEIVING | CANCELLING)
        todo_add(self, slot)


cdef void fail(slot_t *slot, int32_t error) noexcept nogil:
    slot.flags |= FAILED
    slot.error = <int16_t>error


cdef void receive_done(uring_t *self, slot_t *slot, const io_uring_cqe *told) noexcept nogil:
    cdef uint32_t number = told.flags >> IORING_CQE_BUFFER_SHIFT
    came_back(self, slot, told.flags)
    if told.flags & IORING_CQE_F_BUFFER:
        buffers_take(&self.buffers, number)
        if told.res <= 0 or slot.flags & (CLOSED | FAILED):      # behind a hole nothing is told any more
            buffers_return(&self.buffers, number)
        elif item_append(self, slot, <int32_t>number, <uint32_t>told.res) < 0:
            buffers_return(&self.buffers, number)
            fail(slot, -ENOMEM)
        elif not slot.interest & READY_IN:
            items_copy(self, slot)  # nobody reads: it was under way when its reader stopped, and the buffers are all's
        elif slot.queued >= QUEUE_MOST:
            todo_add(self, slot)    # no more before some of it was read
    if told.res == 0:
        slot.flags |= SAW_EOF
    elif told.res == -ENOBUFS:      # every buffer is in use: nothing is lost, the bytes are in the socket
        self.readiness.shortages += 1
        buffers_grow(&self.buffers)
    elif told.res < 0 and told.res != -ECANCELED and told.res != -EINTR and told.res != -EAGAIN:
        fail(slot, told.res)


cdef void accept_done(uring_t *self, slot_t *slot, const io_uring_cqe *told) noexcept nogil:
    came_back(self, slot, told.flags)
    if told.res >= 0:
        if slot.flags & CLOSED or item_append(self, slot, told.res, 1) < 0:
            close_descriptor(told.res)
        elif slot.queued >= ACCEPTED_MOST:
            todo_add(self, slot)
    elif told.res != -ECANCELED and told.res != -EINTR and told.res != -EAGAIN:
        slot.flags |= BY_HAND
        fail(slot, told.res)


cdef void poll_done(uring_t *self, slot_t *slot, int32_t events) noexcept nogil:
    slot.flags &= ~<uint32_t>POLLING
    if events < 0:                  # cancelled: another is made if it is wanted
        todo_add(self, slot)
        return
    if events & POLLERR:
        slot.flags |= TOLD_ERROR
    if events & POLLHUP:
        slot.flags |= HUNG_UP
    if events & (POLLOUT | POLLHUP) and slot.interest & READY_OUT:
        slot.flags |= TOLD_OUT
    if events & POLLIN and slot.flags & BY_HAND:
        slot.flags |= SOMEBODY


cdef void send_done(uring_t *self, slot_t *slot, uint32_t index, const io_uring_cqe *told) noexcept nogil:
    cdef outgoing_t *outgoing = outgoing_at(self, index)
    if told.flags & IORING_CQE_F_NOTIF:
        outgoing_free(self, index)
        return
    if (told.res == -ENOMEM or told.res == -ENOBUFS) and self.zerocopy and not (
            outgoing.plain or told.flags & IORING_CQE_F_MORE or slot.flags & CLOSED):
        outgoing.plain = True       # no memory may be pinned (RLIMIT_MEMLOCK)
        slot.flags |= SEND_WAITS
        todo_add(self, slot)
        return
    if slot.outgoing == index:
        slot.outgoing = 0
        slot.flags &= ~<uint32_t>SENDING
        slot.flags |= TOLD_OUT
        slot.sent = told.res
        if told.res >= 0 and <uint64_t>told.res < outgoing.bytes:
            slot.flags |= SENT_SHORT
        else:
            slot.flags &= ~<uint32_t>SENT_SHORT
    if told.flags & IORING_CQE_F_MORE:
        outgoing.notice = True
    else:
        outgoing_free(self, index)


# ---------------------------------------------------------------- what is told

cdef void ready_prune(uring_t *self) noexcept nogil:
    cdef uint32_t last = self.ready.last
    cdef slot_t *slot
    while last:
        slot = ready_take(self)
        if slot.index == last:
            last = 0
        if slot.flags & CLOSED:
            todo_add(self, slot)    # it may have waited for this to go
        elif slot_has_news(slot):
            ready_add(self, slot)


cdef int ready_tell(uring_t *self, ready_t *out, int most) noexcept nogil:
    cdef uint32_t last = self.ready.last, events
    cdef slot_t *slot
    cdef int found = 0
    while last and found < most:
        slot = ready_take(self)
        if slot.index == last:
            last = 0
        if slot.flags & CLOSED:
            todo_add(self, slot)
            continue
        events = 0
        if slot.flags & TOLD_OUT:
            events |= READY_OUT
        if slot.flags & TOLD_ERROR:
            events |= READY_ERROR
        slot.flags &= ~<uint32_t>(TOLD_OUT | TOLD_ERROR)
        if slot_has_news(slot):
            events |= READY_IN
            if slot.flags & (SAW_EOF | FAILED):
                events |= READY_EOF
            ready_add(self, slot)
        if events:
            out[found].token = slot.token
            out[found].events = events
            found += 1
    return found
