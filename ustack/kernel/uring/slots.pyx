# SPDX-License-Identifier: MIT
"""The records' life. See slots.pxd.

Slots and outgoing_t are never given back to their slabs: lists of their own keep them, so that the generation of one
that is in no use can be looked at.
"""

from libc.errno cimport ENOBUFS
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from ustack.base.debug cimport ensure
from ustack.base.iqueue cimport iqueue_append, iqueue_take
from ustack.base.posix cimport close_descriptor, iovec
from ustack.buf.lent cimport lent_ref, lent_t, lent_unref
from ustack.buf.slab cimport slab_alloc, slab_at, slab_release
from ustack.kernel.readiness cimport READY_IN
from ustack.kernel.uring.buffers cimport buffer_at, buffers_left, buffers_return
from ustack.kernel.uring.records cimport (
    FAILED, IN_READY, IN_TODO, LISTENS, SAW_EOF, SOMEBODY, STARVED, TOLD_ERROR, TOLD_OUT, item_t, outgoing_t, slot_t,
    uring_t)

cdef enum:
    FDS_FIRST = 64

cdef uint64_t COPIED_MOST = 1 << 28         # bytes, of all connections


# ---------------------------------------------------------------- slots

cdef slot_t *slot_at(const uring_t *self, uint32_t index) noexcept nogil:
    return <slot_t *>slab_at(&self.slots, index)


cdef slot_t *slot_of(const uring_t *self, int fd) noexcept nogil:
    if fd < 0 or <uint32_t>fd >= self.fds or self.slot_of[fd] == 0:
        return NULL
    return slot_at(self, self.slot_of[fd])


cdef int grow(uring_t *self, int fd) noexcept nogil:
    cdef uint32_t wanted = self.fds if self.fds else FDS_FIRST
    cdef uint32_t *grown
    while wanted <= <uint32_t>fd:
        wanted *= 2
    if wanted == self.fds:
        return 0
    grown = <uint32_t *>realloc(self.slot_of, wanted * sizeof(uint32_t))
    if grown == NULL:
        return -1
    memset(grown + self.fds, 0, (wanted - self.fds) * sizeof(uint32_t))
    self.slot_of = grown
    self.fds = wanted
    return 0


cdef slot_t *slot_new(uring_t *self, int fd) noexcept nogil:
    cdef uint32_t index = self.slots_free
    cdef slot_t *slot
    if grow(self, fd) < 0:
        return NULL
    if index:
        self.slots_free = slot_at(self, index).next_todo
    else:
        index = slab_alloc(&self.slots)
        if index == 0:
            return NULL
        if index > self.slots_high:
            self.slots_high = index
    slot = slot_at(self, index)
    memset(slot, 0, sizeof(slot_t))
    self.generation = self.generation % 0xFFFFFFF + 1
    slot.generation = self.generation
    slot.index = index
    slot.fd = fd
    self.slot_of[fd] = index
    self.slots_in_use += 1
    return slot


cdef void slot_forget(uring_t *self, slot_t *slot) noexcept nogil:
    if self.slot_of[slot.fd] == slot.index:
        self.slot_of[slot.fd] = 0


cdef void slot_free(uring_t *self, slot_t *slot) noexcept nogil:
    ensure(slot.in_flight == 0 and slot.items.first == 0 and not slot.flags & (IN_READY | IN_TODO | STARVED))
    slot.generation = 0
    slot.next_todo = self.slots_free
    self.slots_free = slot.index
    self.slots_in_use -= 1


# ---------------------------------------------------------------- lists

cdef inline uint32_t *todo_link(const void *self, uint32_t index) noexcept nogil:
    return &slot_at(<const uring_t *>self, index).next_todo


cdef inline uint32_t *ready_link(const void *self, uint32_t index) noexcept nogil:
    return &slot_at(<const uring_t *>self, index).next_ready


cdef inline uint32_t *starved_link(const void *self, uint32_t index) noexcept nogil:
    return &slot_at(<const uring_t *>self, index).next_starved


cdef void todo_add(uring_t *self, slot_t *slot) noexcept nogil:
    if slot.flags & IN_TODO:
        return
    slot.flags |= IN_TODO
    iqueue_append(&self.todo, todo_link, self, slot.index)


cdef slot_t *todo_take(uring_t *self) noexcept nogil:
    cdef slot_t *slot
    if self.todo.first == 0:
        return NULL
    slot = slot_at(self, iqueue_take(&self.todo, todo_link, self))
    slot.flags &= ~<uint32_t>IN_TODO
    return slot


cdef void ready_add(uring_t *self, slot_t *slot) noexcept nogil:
    if slot.flags & IN_READY:
        return
    slot.flags |= IN_READY
    iqueue_append(&self.ready, ready_link, self, slot.index)


cdef slot_t *ready_take(uring_t *self) noexcept nogil:
    cdef slot_t *slot
    if self.ready.first == 0:
        return NULL
    slot = slot_at(self, iqueue_take(&self.ready, ready_link, self))
    slot.flags &= ~<uint32_t>IN_READY
    return slot


cdef void starved_add(uring_t *self, slot_t *slot) noexcept nogil:
    slot.flags |= STARVED
    iqueue_append(&self.starved, starved_link, self, slot.index)


cdef void starved_release(uring_t *self) noexcept nogil:
    cdef uint32_t left = buffers_left(&self.buffers)
    cdef slot_t *slot
    while self.starved.first and left > 0:
        slot = slot_at(self, iqueue_take(&self.starved, starved_link, self))
        slot.flags &= ~<uint32_t>STARVED
        todo_add(self, slot)
        left -= 1


cdef bint slot_has_news(const slot_t *slot) noexcept nogil:
    if slot.flags & (TOLD_OUT | TOLD_ERROR):
        return True
    return slot.interest & READY_IN != 0 and (slot.items.first != 0 or slot.flags & (SAW_EOF | FAILED | SOMEBODY) != 0)


# ---------------------------------------------------------------- what has come

cdef inline item_t *item_at(const uring_t *self, uint32_t index) noexcept nogil:
    return <item_t *>slab_at(&self.items, index)


cdef inline uint32_t *item_link(const void *self, uint32_t index) noexcept nogil:
    return &item_at(<const uring_t *>self, index).next


cdef int item_append(uring_t *self, slot_t *slot, int32_t number, uint32_t length) noexcept nogil:
    cdef uint32_t index = slab_alloc(&self.items)
    cdef item_t *item
    if index == 0:
        return -1
    item = item_at(self, index)
    item.number = number
    item.length = length
    iqueue_append(&slot.items, item_link, self, index)
    slot.queued += length
    return 0


cdef void item_pop(uring_t *self, slot_t *slot) noexcept nogil:
    """The first one goes, with its buffer or its copy."""
    cdef uint32_t index = iqueue_take(&slot.items, item_link, self)
    cdef item_t *item = item_at(self, index)
    slot.queued -= item.length - item.start
    if item.copy != NULL:
        self.copied_bytes -= item.length
        free(item.copy)
    elif not slot.flags & LISTENS:
        buffers_return(&self.buffers, <uint32_t>item.number)
    slab_release(&self.items, index)


cdef uint32_t items_read(uring_t *self, slot_t *slot, uint8_t *out, size_t length) noexcept nogil:
    cdef item_t *item
    cdef const uint8_t *data
    cdef uint32_t taken = 0, step
    while slot.items.first and taken < length:
        item = item_at(self, slot.items.first)
        step = item.length - item.start
        if step > length - taken:
            step = <uint32_t>(length - taken)
        if out != NULL:
            data = item.copy
            if data == NULL:
                data = buffer_at(&self.buffers, <uint32_t>item.number)
            memcpy(out + taken, data + item.start, step)
        taken += step
        item.start += step
        slot.queued -= step
        if item.start == item.length:
            item_pop(self, slot)
    return taken


cdef int item_accepted(uring_t *self, slot_t *slot) noexcept nogil:
    cdef int fd
    if slot.items.first == 0:
        return -1
    fd = item_at(self, slot.items.first).number
    item_pop(self, slot)
    return fd


cdef void items_copy(uring_t *self, slot_t *slot) noexcept nogil:
    cdef uint32_t index = slot.items.first
    cdef item_t *item
    while index:
        item = item_at(self, index)
        index = item.next
        if item.copy != NULL:
            continue
        item.copy = <uint8_t *>malloc(item.length) if self.copied_bytes + item.length <= COPIED_MOST else NULL
        if item.copy == NULL:
            items_drop(self, slot)
            slot.flags |= FAILED
            slot.error = -ENOBUFS
            return
        self.copied_bytes += item.length
        memcpy(item.copy, buffer_at(&self.buffers, <uint32_t>item.number), item.length)
        buffers_return(&self.buffers, <uint32_t>item.number)


cdef void items_drop(uring_t *self, slot_t *slot) noexcept nogil:
    while slot.items.first:
        if slot.flags & LISTENS:
            close_descriptor(item_at(self, slot.items.first).number)
        item_pop(self, slot)


# ---------------------------------------------------------------- what goes out

cdef outgoing_t *outgoing_at(const uring_t *self, uint32_t index) noexcept nogil:
    return <outgoing_t *>slab_at(&self.outgoings, index)


cdef uint32_t outgoing_new(uring_t *self, slot_t *slot, const iovec *vector, lent_t **lent,
                           uint32_t count) noexcept nogil:
    cdef uint32_t index = self.outgoings_free, at
    cdef outgoing_t *outgoing
    if index:
        self.outgoings_free = outgoing_at(self, index).next_free
    else:
        index = slab_alloc(&self.outgoings)
        if index == 0:
            return 0
        if index > self.outgoings_high:
            self.outgoings_high = index
    outgoing = outgoing_at(self, index)
    memset(&outgoing.message, 0, sizeof(outgoing.message))
    outgoing.message.msg_iov = outgoing.vector
    outgoing.message.msg_iovlen = count
    outgoing.slot = slot.index
    outgoing.generation = slot.generation
    outgoing.count = count
    outgoing.submitted = outgoing.notice = outgoing.plain = False
    outgoing.bytes = 0
    for at in range(count):
        outgoing.vector[at] = vector[at]
        outgoing.lent[at] = lent_ref(lent[at])
        outgoing.bytes += vector[at].iov_len
    return index


cdef void outgoing_free(uring_t *self, uint32_t index) noexcept nogil:
    cdef outgoing_t *outgoing = outgoing_at(self, index)
    cdef uint32_t at
    for at in range(outgoing.count):
        lent_unref(outgoing.lent[at])
    outgoing.generation = 0
    outgoing.next_free = self.outgoings_free
    self.outgoings_free = index
