# SPDX-License-Identifier: MIT
"""io_uring(7): the kernel is asked to do things, and says that they are done. `io_uring-zc` has it send long responses
without copying them.

    accept      one request for all connections of a listener
    recv        one request for all bytes of a connection, into registered buffers that all connections share (buffers)
    send        one request for each vector, as sendmsg's; the socket's own buffer, or with zero-copy the peer's
                acknowledgment, ends it
    close       with the next requests, behind a cancel of what the connection has in the kernel

Requests are collected during a turn, and go with the next wait, which is one system call for all of them and for the
sleep. Nothing is ever lost: where no buffer is left, bytes stay in the socket, and the receive is made again when one
comes back; a completion ring that is full makes the kernel keep the rest (counted as an overflow); a reader that stops
has its receive cancelled, and what had come is copied so that his buffers serve others. What one peer can have waiting
is bounded (QUEUE_MOST), and so is what all can (BUFFERS_MOST, COPIED_MOST).

A ring serves one thread (ring.pxd). Where another goes on, there is a new ring: everything is asked again, and since
the old one has stood still since the other thread's last call, nothing is missing or there twice. Sends without copying
that were not acknowledged by then can never be heard of any more: what they were lent is kept for ever.

It needs Linux 6.1. Not used, and why: direct descriptors (the rest of the room makes system calls on the socket:
options, names, half-close); IORING_SETUP_SQPOLL (a kernel thread that spins: another processor's work); bundles and
fixed buffers for sends (what is sent is lent by applications, and is nobody's to register).

It must not: know what a descriptor is, beyond READY_LISTENS. Read first: io_uring(7), io_uring_enter(2). Above:
strategies. Below: requests, completions, slots, buffers, ring.
"""

from libc.errno cimport EAGAIN, EBADF, ECONNABORTED, EINVAL, ENOBUFS, ENOMEM, ENOSYS, EPERM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from ustack.base.posix cimport (
    FIONREAD, MSG_TRUNC, SHUT_RDWR, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, close_descriptor, getpeername, getpid, ioctl,
    iovec, recv, sockaddr, sockaddr_in, socket_shutdown)
from ustack.buf.lent cimport lent_t
from ustack.buf.slab cimport slab_destroy, slab_init
from ustack.kernel.readiness cimport (
    COMPLETING_RANGES, READY_IN, READY_LISTENS, READY_ONE_OF_US, READY_OUT, readiness_ops_t, readiness_t, ready_t)
from ustack.kernel.uring.abi cimport IORING_OP_CLOSE
from ustack.kernel.uring.buffers cimport buffers_begin, buffers_end, buffers_register
from ustack.kernel.uring.completions cimport completions_take, ready_prune, ready_tell
from ustack.kernel.uring.records cimport (
    BY_HAND, CANCELLING, CLOSE_ASKED, CLOSED, FAILED, ITEM_BYTES, ITEMS_MOST, LISTENS, OUTGOING_BYTES, POLLING,
    QUEUE_MOST, RECEIVING, SAW_EOF, SEND_WAITS, SENDING, SENT_SHORT, SHARED, SLOT_BYTES, SLOTS_MOST, SOMEBODY, TOLD_OUT,
    VECTOR_MOST, item_t, outgoing_t, slot_t, uring_of, uring_t)
from ustack.kernel.uring.requests cimport requests_cancel, requests_make
from ustack.kernel.uring.ring cimport (
    ring_close, ring_enter, ring_filled, ring_has_more, ring_open, ring_overflowed, ring_peek, ring_t)
from ustack.kernel.uring.slots cimport (
    item_accepted, items_copy, items_drop, items_read, outgoing_at, outgoing_free, outgoing_new, ready_add, slot_at,
    slot_forget, slot_has_news, slot_new, slot_of, todo_add)

cdef enum:
    REQUESTS_MOST = 1024            # in the ring at once
    COMPLETIONS_MOST = 8192         # the same; and looked at in one wait
    ROUNDS_MOST = 64                # in one wait: the kernel does some twenty pieces of work in a call
    END_ROUNDS = 64

cdef uint64_t END_WAIT_NS = 10000000

cdef extern from *:
    """
    /* A number that no other thread of this process has, or had. */
    static unsigned long long ustack_uring_threads;
    static __thread unsigned long long ustack_uring_thread;
    static inline unsigned long long ustack_uring_self(void)
    {
        if (ustack_uring_thread == 0)
            ustack_uring_thread = __atomic_add_fetch(&ustack_uring_threads, 1, __ATOMIC_RELAXED);
        return ustack_uring_thread;
    }
    """
    uint64_t thread_number "ustack_uring_self"() noexcept nogil


# ---------------------------------------------------------------- the beginning and the end

cdef readiness_t *begin(const readiness_ops_t *ops, bint zerocopy, int *error) noexcept nogil:
    cdef uring_t *self
    if (sizeof(slot_t) > SLOT_BYTES or sizeof(item_t) > ITEM_BYTES or sizeof(outgoing_t) > OUTGOING_BYTES
            or <int>VECTOR_MOST < <int>COMPLETING_RANGES):
        error[0] = -EINVAL          # records.pxd: a record is larger than its slab's
        return NULL
    self = <uring_t *>calloc(1, sizeof(uring_t))
    if self == NULL:
        error[0] = -ENOMEM
        return NULL
    self.readiness.ops = ops
    self.zerocopy = zerocopy
    error[0] = ring_open(&self.ring, REQUESTS_MOST, COMPLETIONS_MOST)
    if error[0] == 0:
        error[0] = buffers_begin(&self.buffers)
    if error[0] == 0:
        error[0] = buffers_register(&self.buffers, &self.ring)
    if error[0] == 0 and (slab_init(&self.slots, SLOT_BYTES, SLOTS_MOST) < 0
                          or slab_init(&self.items, ITEM_BYTES, ITEMS_MOST) < 0
                          or slab_init(&self.outgoings, OUTGOING_BYTES, SLOTS_MOST) < 0):
        error[0] = -ENOMEM
    if error[0] != 0:
        release(self)
        return NULL
    return &self.readiness


cdef readiness_t *copying_begin(int *error) noexcept nogil:
    return begin(&COPYING, False, error)


cdef readiness_t *zerocopy_begin(int *error) noexcept nogil:
    return begin(&ZEROCOPY, True, error)


cdef const char *explain(int error) noexcept nogil:
    if error == -ENOSYS:
        return b"this kernel has no io_uring, or a seccomp filter (of a container) hides it"
    if error == -EPERM:
        return b"io_uring is forbidden here: by the sysctl kernel.io_uring_disabled, or by a seccomp filter"
    if error == -EINVAL:
        return b"this kernel's io_uring is too old: Linux 6.1 is needed (IORING_SETUP_DEFER_TASKRUN)"
    if error == -ENOMEM:
        return b"no memory for the rings (RLIMIT_MEMLOCK, or the limit of a control group)"
    return NULL


cdef void release(uring_t *self) noexcept nogil:
    ring_close(&self.ring)
    buffers_end(&self.buffers)
    slab_destroy(&self.slots)
    slab_destroy(&self.items)
    slab_destroy(&self.outgoings)
    free(self.slot_of)
    free(self)


cdef void end(readiness_t *readiness) noexcept nogil:
    """What was closed is closed when this returns, and nothing is in the kernel any more: the buffers may go."""
    cdef uring_t *self = uring_of(readiness)
    cdef uint32_t index
    cdef int rounds = 0
    cdef bint parents = self.ring.process != getpid(), ours
    if not parents:
        take_over(self)
    ours = not parents and self.thread == thread_number()
    if ours:
        requests_make(self)
        requests_cancel(self)
        while rounds < END_ROUNDS and ring_enter(&self.ring, 1 if self.requests else 0, END_WAIT_NS) == 0:
            rounds += 1
            completions_take(self, COMPLETIONS_MOST)
            ready_prune(self)
            if requests_make(self) and ring_filled(&self.ring) == 0 and self.requests == 0:
                break
    elif not parents:
        close_asked(self)
    for index in range(1, self.slots_high + 1):
        if slot_at(self, index).generation:
            items_drop(self, slot_at(self, index))
            if slot_at(self, index).flags & (CLOSED | CLOSE_ASKED) == CLOSED:
                close_descriptor(slot_at(self, index).fd)
    for index in range(1, self.outgoings_high + 1):
        # A send whose end was not heard of: the kernel may yet send it again. In a child it is the parent's.
        if outgoing_at(self, index).generation and (parents or not outgoing_at(self, index).notice):
            outgoing_free(self, index)
    release(self)


# ---------------------------------------------------------------- threads

cdef void take_over(uring_t *self) noexcept nogil:
    """The calling thread is the one that waits from now on."""
    cdef uint64_t thread = thread_number()
    if self.thread != thread and (self.thread == 0 or renew(self)):
        self.thread = thread


cdef bint renew(uring_t *self) noexcept nogil:
    """A ring for another thread: everything that was in the old one is asked again. False: without memory."""
    cdef ring_t fresh
    cdef bint lost = ring_overflowed(&self.ring)
    cdef uint32_t index
    if ring_open(&fresh, REQUESTS_MOST, COMPLETIONS_MOST) < 0:
        return False
    while completions_take(self, COMPLETIONS_MOST):
        pass
    if buffers_register(&self.buffers, &fresh) < 0:
        ring_close(&fresh)
        return False
    close_asked(self)
    ring_close(&self.ring)
    self.ring = fresh
    self.requests = 0
    for index in range(1, self.slots_high + 1):
        if slot_at(self, index).generation:
            ask_again(self, slot_at(self, index), lost)
    for index in range(1, self.outgoings_high + 1):
        if outgoing_at(self, index).generation and not outgoing_at(self, index).notice and (
                slot_at(self, outgoing_at(self, index).slot).flags & CLOSED):
            outgoing_free(self, index)
    return True


cdef void close_asked(uring_t *self) noexcept nogil:
    """By hand, what the ring's requests would close that were not handed over."""
    cdef uint32_t index
    for index in range(self.ring.sq_tail - ring_filled(&self.ring), self.ring.sq_tail):
        if self.ring.sqes[index & self.ring.sq_mask].opcode == IORING_OP_CLOSE:
            close_descriptor(self.ring.sqes[index & self.ring.sq_mask].fd)


cdef void ask_again(uring_t *self, slot_t *slot, bint lost) noexcept nogil:
    """lost: bytes among the completions that the old ring had no room for are, or it is not known what was sent."""
    if lost and slot.flags & (RECEIVING | SENDING) and not slot.flags & (LISTENS | CLOSED):
        slot.flags |= FAILED
        slot.error = -ENOBUFS
        if slot.flags & (SENDING | SEND_WAITS) == SENDING:
            outgoing_free(self, slot.outgoing)
            slot.outgoing = 0
            slot.sent = -ENOBUFS
            slot.flags = slot.flags & ~<uint32_t>SENDING | TOLD_OUT
        ready_add(self, slot)
    slot.in_flight = 0
    slot.flags &= ~<uint32_t>(RECEIVING | CANCELLING | POLLING)
    if slot.flags & SENDING:
        slot.flags |= SEND_WAITS
    todo_add(self, slot)


# ---------------------------------------------------------------- what is wanted

cdef int add(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil:
    cdef uring_t *self = uring_of(readiness)
    cdef slot_t *slot = slot_of(self, fd)       # a listener that was removed: those that it has accepted wait in it
    if slot == NULL:
        slot = slot_new(self, fd)
        if slot == NULL:
            return -ENOMEM
    if events & READY_LISTENS:
        slot.flags |= LISTENS | (SHARED | BY_HAND if events & READY_ONE_OF_US else 0)
    return modify(readiness, fd, token, events)


cdef int modify(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil:
    cdef uring_t *self = uring_of(readiness)
    cdef slot_t *slot = slot_of(self, fd)
    if slot == NULL:
        return -EBADF
    slot.token = token
    slot.interest = <uint8_t>(events & (READY_IN | READY_OUT))
    if not events & READY_IN and not slot.flags & LISTENS:
        items_copy(self, slot)
    if slot_has_news(slot):
        ready_add(self, slot)
    todo_add(self, slot)
    return 0


cdef void remove(readiness_t *readiness, int fd) noexcept nogil:
    """What has come waits, until it is added again or closed."""
    modify(readiness, fd, 0, 0)


cdef void close(readiness_t *readiness, int fd) noexcept nogil:
    cdef uring_t *self = uring_of(readiness)
    cdef slot_t *slot = slot_of(self, fd)
    if slot == NULL:
        close_descriptor(fd)
        return
    if slot.flags & (LISTENS | SHARED) == LISTENS:
        socket_shutdown(fd, SHUT_RDWR)      # nobody is let in from now on, though the accept holds the socket open
    items_drop(self, slot)
    if slot.flags & SEND_WAITS:
        outgoing_free(self, slot.outgoing)
        slot.flags &= ~<uint32_t>SEND_WAITS
    slot.flags |= CLOSED
    slot_forget(self, slot)
    todo_add(self, slot)


# ---------------------------------------------------------------- waiting

cdef int wait(readiness_t *readiness, ready_t *out, int most, uint64_t timeout_ns) noexcept nogil:
    cdef uring_t *self = uring_of(readiness)
    cdef uint32_t left = COMPLETIONS_MOST
    cdef int rounds = 0
    take_over(self)
    ready_prune(self)
    if not requests_make(self) or self.ready.first or ring_peek(&self.ring) != NULL:
        timeout_ns = 0
    if timeout_ns > 0 or ring_filled(&self.ring) or ring_has_more(&self.ring):
        ring_enter(&self.ring, timeout_ns > 0, timeout_ns)
    while True:
        left -= completions_take(self, left)
        if left == 0 or rounds == ROUNDS_MOST or not ring_has_more(&self.ring):
            break
        rounds += 1
        if ring_overflowed(&self.ring):
            readiness.overflows += 1
        if ring_enter(&self.ring, 0, 0) < 0:
            break
    return ready_tell(self, out, most)


cdef void flush(readiness_t *readiness) noexcept nogil:
    cdef uring_t *self = uring_of(readiness)
    if self.thread in (0, thread_number()) and self.ring.process == getpid():
        take_over(self)
        requests_make(self)
        if ring_filled(&self.ring):
            ring_enter(&self.ring, 0, 0)


# ---------------------------------------------------------------- what has come

cdef int accept(readiness_t *readiness, int fd, sockaddr_in *peer) noexcept nogil:
    cdef uring_t *self = uring_of(readiness)
    cdef slot_t *slot = slot_of(self, fd)
    cdef unsigned int length = sizeof(sockaddr_in)
    cdef int accepted
    if slot == NULL:
        return -EBADF
    accepted = item_accepted(self, slot)
    if accepted >= 0:
        if not slot.flags & RECEIVING:
            todo_add(self, slot)            # so many had been waiting that there was no request for more
        if getpeername(accepted, <sockaddr *>peer, &length) < 0:
            close_descriptor(accepted)      # it has been reset since
            return -ECONNABORTED
        return accepted
    if slot.flags & FAILED:
        slot.flags &= ~<uint32_t>FAILED
        todo_add(self, slot)
        return slot.error
    if not slot.flags & SOMEBODY:
        return -EAGAIN
    accepted = accept4(fd, <sockaddr *>peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if accepted >= 0:
        return accepted
    accepted = -errno
    slot.flags &= ~<uint32_t>SOMEBODY
    if accepted == -EAGAIN and not slot.flags & SHARED:
        slot.flags &= ~<uint32_t>BY_HAND
    todo_add(self, slot)
    return accepted


cdef ssize_t receive(readiness_t *readiness, int fd, uint8_t *out, size_t length) noexcept nogil:
    cdef uring_t *self = uring_of(readiness)
    cdef slot_t *slot = slot_of(self, fd)
    cdef ssize_t taken
    if slot == NULL:
        return -EBADF
    taken = items_read(self, slot, out, length)
    if taken > 0:
        if slot.queued < QUEUE_MOST and not slot.flags & RECEIVING:
            todo_add(self, slot)
        return taken
    if slot.flags & FAILED:
        return slot.error
    if slot.flags & SAW_EOF:
        return 0
    if slot.flags & RECEIVING:
        return -EAGAIN                      # what comes, comes to the request
    taken = recv(fd, out, length, 0 if out != NULL else MSG_TRUNC)
    if taken == 0 and length > 0:
        slot.flags |= SAW_EOF
    return taken if taken >= 0 else -errno


cdef uint32_t receivable(readiness_t *readiness, int fd) noexcept nogil:
    cdef slot_t *slot = slot_of(uring_of(readiness), fd)
    cdef int waiting = 0
    if slot == NULL or ioctl(fd, FIONREAD, &waiting) < 0 or waiting < 0:
        return 0
    return slot.queued + <uint32_t>waiting


cdef uint32_t buffers_in_use(readiness_t *readiness) noexcept nogil:
    return uring_of(readiness).buffers.taken_count


# ---------------------------------------------------------------- what goes out

cdef int send(readiness_t *readiness, int fd, const iovec *vector, lent_t **lent, uint32_t count) noexcept nogil:
    cdef uring_t *self = uring_of(readiness)
    cdef slot_t *slot = slot_of(self, fd)
    if slot == NULL:
        return -EBADF
    slot.outgoing = outgoing_new(self, slot, vector, lent, count)
    if slot.outgoing == 0:
        return -ENOMEM
    slot.flags |= SENDING | SEND_WAITS
    todo_add(self, slot)
    return 0


cdef ssize_t sent(readiness_t *readiness, int fd, bint *whole) noexcept nogil:
    cdef slot_t *slot = slot_of(uring_of(readiness), fd)
    cdef ssize_t result
    if slot == NULL:
        return -EBADF
    if slot.flags & SENDING:
        return -EAGAIN
    result = slot.sent
    whole[0] = not slot.flags & SENT_SHORT
    if result > 0:
        slot.sent = 0
    return result


cdef readiness_ops_t COPYING, ZEROCOPY
COPYING.name = b"io_uring"
COPYING.edge = False
COPYING.tells_eof = True
COPYING.forgets_closed = False
COPYING.most_fd = 0
COPYING.begin = copying_begin
COPYING.add = add
COPYING.modify = modify
COPYING.remove = remove
COPYING.wait = wait
COPYING.end = end
COPYING.explain = explain
COPYING.buffers_in_use = buffers_in_use
COPYING.accept = accept
COPYING.receive = receive
COPYING.receivable = receivable
COPYING.send = send
COPYING.sent = sent
COPYING.close = close
COPYING.flush = flush
ZEROCOPY = COPYING
ZEROCOPY.name = b"io_uring-zc"
ZEROCOPY.begin = zerocopy_begin


cdef const readiness_ops_t *uring_ops() noexcept nogil:
    return &COPYING


cdef const readiness_ops_t *uring_zerocopy_ops() noexcept nogil:
    return &ZEROCOPY
