# SPDX-License-Identifier: MIT
"""Readiness by real-time signals: each socket sends one when it becomes ready (F_SETSIG, O_ASYNC), with its descriptor
in it; the signal is blocked, and sigtimedwait takes one after the other.

    entries     by descriptor: token, and what poll is asked about it in a sweep
    fresh       descriptors that were added since the last wait: what had come before F_SETSIG has sent no signal
    sweep       the kernel's queue of signals was full (RLIMIT_SIGPENDING): it sends SIGIO instead, once. What the lost
                signals would have said is then asked of all descriptors with poll, some in each call

Signals go to one thread (F_OWNER_TID): that of the last wait. Another thread that waits takes the descriptors over. The
signals stay blocked in a thread that has waited once: their default is to end the process. A signal may speak of a
descriptor that was closed after it was sent: nobody hears it, or the connection that has the number now, which
finds nothing to read. Each transport has a signal of its own; all in one thread share SIGIO.

It must not: know what a descriptor is. Above: strategies. Below: readiness, base. Read first: fcntl(2), signal(7).
"""

from libc.errno cimport EAGAIN, ENOMEM, errno
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from ustack.base.posix cimport (
    F_GETFL, F_OWNER_TID, F_SETFL, F_SETOWN_EX, F_SETSIG, O_ASYNC, POLLERR, POLLHUP, POLLIN, POLLOUT, SIG_BLOCK, SIGIO,
    SIGRTMIN, SYS_gettid, f_owner_ex, fcntl, pollfd, ppoll, pthread_sigmask, sigaddset, sigemptyset, siginfo_t,
    sigset_t, sigtimedwait, syscall, timespec)
from ustack.kernel.readiness cimport (
    READY_ERROR, READY_HANGUP, READY_IN, READY_OUT, readiness_ops_t, readiness_t, ready_t)

cdef enum:
    ENTRIES_FIRST = 64
    SIGNAL_OFFSET = 5           # from SIGRTMIN: the first ones are the C library's and debuggers' favourites
    SIGNALS_MOST = 24           # one for each transport, of the thirty

ctypedef struct entry_t:
    uint64_t token
    bint watched

ctypedef struct signals_t:
    readiness_t readiness       # first: see readiness_t
    entry_t *entries            # by descriptor
    pollfd *asked               # of a sweep, or of those that are fresh: room for one of each descriptor
    int *fresh
    uint32_t capacity           # descriptors from 0 on
    uint32_t fresh_count
    uint32_t sweep_at           # the next descriptor to ask about
    uint32_t sweep_left         # how many from there on, around; 0: none
    int number                  # of the signal
    uint64_t lost               # what `lost` was when this one asked about everything
    int thread                  # that it goes to; 0: none yet
    sigset_t set


# Signals that transports of this process have, and times that SIGIO was taken by any of them: it tells not whose.
cdef uint32_t taken = 0
cdef uint64_t lost = 0


cdef readiness_t *begin(int *error) noexcept nogil:
    global taken
    cdef signals_t *self = <signals_t *>calloc(1, sizeof(signals_t))
    cdef int slot = 0
    if self == NULL:
        error[0] = -ENOMEM
        return NULL
    self.readiness.ops = &OPS
    while slot < SIGNALS_MOST and taken >> slot & 1:
        slot += 1
    if slot == SIGNALS_MOST:
        error[0] = -EAGAIN
        free(self)
        return NULL
    taken |= 1u << slot
    self.lost = lost
    self.number = SIGRTMIN + SIGNAL_OFFSET + slot
    sigemptyset(&self.set)
    sigaddset(&self.set, self.number)
    sigaddset(&self.set, SIGIO)
    take_over(self)
    return &self.readiness


cdef void take_over(signals_t *self) noexcept nogil:
    """The calling thread is the one that waits from now on."""
    cdef int thread = <int>syscall(SYS_gettid)
    cdef uint32_t fd
    if thread == self.thread:
        return
    self.thread = thread
    pthread_sigmask(SIG_BLOCK, &self.set, NULL)
    for fd in range(self.capacity):
        if self.entries[fd].watched:
            own(self, <int>fd)
    sweep(self)                 # what the other thread was told


cdef int own(signals_t *self, int fd) noexcept nogil:
    cdef f_owner_ex owner
    owner.type = F_OWNER_TID
    owner.pid = self.thread
    return fcntl(fd, F_SETOWN_EX, &owner)


cdef void sweep(signals_t *self) noexcept nogil:
    """All of them, from where the last one is: though signals are lost again and again, all have their turn."""
    self.sweep_left = self.capacity


cdef int grow(signals_t *self, int fd) noexcept nogil:
    cdef uint32_t wanted = self.capacity if self.capacity else ENTRIES_FIRST
    cdef void *grown
    while wanted <= <uint32_t>fd:
        wanted *= 2
    if wanted == self.capacity:
        return 0
    grown = realloc(self.asked, wanted * sizeof(pollfd))
    if grown == NULL:
        return -ENOMEM
    self.asked = <pollfd *>grown
    grown = realloc(self.fresh, wanted * sizeof(int))
    if grown == NULL:
        return -ENOMEM
    self.fresh = <int *>grown
    grown = realloc(self.entries, wanted * sizeof(entry_t))
    if grown == NULL:
        return -ENOMEM
    self.entries = <entry_t *>grown
    memset(self.entries + self.capacity, 0, (wanted - self.capacity) * sizeof(entry_t))
    if self.sweep_left:
        self.sweep_left += wanted - self.capacity
    self.capacity = wanted
    return 0


cdef int add(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil:
    cdef signals_t *self = <signals_t *>readiness
    cdef int flags, failed = grow(self, fd)
    if failed != 0:
        return failed
    flags = fcntl(fd, F_GETFL)
    if (flags < 0 or own(self, fd) < 0 or fcntl(fd, F_SETSIG, self.number) < 0
            or fcntl(fd, F_SETFL, flags | O_ASYNC) < 0):
        return -errno
    self.entries[fd].token = token
    self.entries[fd].watched = True
    if self.fresh_count == self.capacity:
        sweep(self)             # it was added and removed again and again, without a wait between
    else:
        self.fresh[self.fresh_count] = fd
        self.fresh_count += 1
    return 0


cdef int modify(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil:
    return 0                    # everything is asked for: edge


cdef void remove(readiness_t *readiness, int fd) noexcept nogil:
    """It is closed next, or hears nothing for a while: its signals find nobody, and are counted."""
    cdef signals_t *self = <signals_t *>readiness
    if <uint32_t>fd < self.capacity:
        self.entries[fd].watched = False


cdef inline uint32_t events_of(long told) noexcept nogil:
    return ((READY_IN if told & POLLIN else 0) | (READY_OUT if told & POLLOUT else 0)
            | (READY_ERROR if told & POLLERR else 0) | (READY_HANGUP if told & POLLHUP else 0))


cdef int ask(signals_t *self, uint32_t count, ready_t *out) noexcept nogil:
    """poll about asked[:count], without waiting; those that are ready."""
    cdef timespec now
    cdef uint32_t index
    cdef int found = 0
    now.tv_sec = now.tv_nsec = 0
    if count == 0 or ppoll(self.asked, count, &now, NULL) <= 0:
        return 0
    for index in range(count):
        if self.asked[index].revents:
            out[found].token = self.entries[self.asked[index].fd].token
            out[found].events = events_of(self.asked[index].revents)
            found += 1
    return found


cdef int ask_fresh(signals_t *self, ready_t *out, int most) noexcept nogil:
    cdef uint32_t count = 0
    cdef int fd
    while self.fresh_count > 0 and count < <uint32_t>most:
        self.fresh_count -= 1
        fd = self.fresh[self.fresh_count]
        if self.entries[fd].watched:
            self.asked[count].fd = fd
            self.asked[count].events = POLLIN | POLLOUT
            count += 1
    return ask(self, count, out)


cdef int ask_some(signals_t *self, ready_t *out, int most) noexcept nogil:
    """The next `most` descriptors of a sweep."""
    cdef uint32_t count = 0
    while self.sweep_left > 0 and count < <uint32_t>most:
        if self.entries[self.sweep_at].watched:
            self.asked[count].fd = <int>self.sweep_at
            self.asked[count].events = POLLIN | POLLOUT
            count += 1
        self.sweep_at = (self.sweep_at + 1) % self.capacity
        self.sweep_left -= 1
    return ask(self, count, out)


cdef void drain(signals_t *self) noexcept nogil:
    """What is queued, the sweep asks about as well. SIGIO may be another transport's."""
    global lost
    cdef siginfo_t told
    cdef timespec now
    now.tv_sec = now.tv_nsec = 0
    while sigtimedwait(&self.set, &told, &now) > 0:
        if told.si_signo == SIGIO:
            lost += 1


cdef int make_up(signals_t *self, ready_t *out, int most) noexcept nogil:
    """Signals were lost, whose nobody knows."""
    self.readiness.overflows += 1
    drain(self)
    self.lost = lost
    sweep(self)
    return ask_some(self, out, most)


cdef int wait(readiness_t *readiness, ready_t *out, int most, uint64_t timeout_ns) noexcept nogil:
    global lost
    cdef signals_t *self = <signals_t *>readiness
    cdef siginfo_t told
    cdef timespec limit
    cdef int found
    take_over(self)
    found = ask_fresh(self, out, most)
    if self.lost != lost and found < most:
        found += make_up(self, out + found, most - found)
    while self.sweep_left > 0 and found == 0:
        found = ask_some(self, out, most)
    if found > 0 or self.fresh_count > 0:
        timeout_ns = 0
    while found < most:
        limit.tv_sec = <long>(timeout_ns // 1000000000)
        limit.tv_nsec = <long>(timeout_ns % 1000000000)
        if sigtimedwait(&self.set, &told, NULL if timeout_ns == UINT64_MAX else &limit) < 0:
            break
        timeout_ns = 0
        if told.si_signo == SIGIO:
            lost += 1
            found += make_up(self, out + found, most - found)
            break
        if <uint32_t>told.si_fd < self.capacity and self.entries[told.si_fd].watched:
            out[found].token = self.entries[told.si_fd].token
            out[found].events = events_of(told.si_band)
            found += 1
    return found


cdef void end(readiness_t *readiness) noexcept nogil:
    global taken
    cdef signals_t *self = <signals_t *>readiness
    if self.thread == <int>syscall(SYS_gettid):
        drain(self)
    taken &= ~(1u << (self.number - SIGRTMIN - SIGNAL_OFFSET))
    free(self.entries)
    free(self.asked)
    free(self.fresh)
    free(self)


cdef readiness_ops_t OPS
OPS.name = b"rtsig"
OPS.edge = True
OPS.tells_eof = False           # the signals of the last bytes and of the FIN may both be taken before either is read
OPS.forgets_closed = False
OPS.most_fd = 0
OPS.begin = begin
OPS.add = add
OPS.modify = modify
OPS.remove = remove
OPS.wait = wait
OPS.end = end


cdef const readiness_ops_t *rtsig_ops() noexcept nogil:
    return &OPS
