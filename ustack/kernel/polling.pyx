# SPDX-License-Identifier: MIT
"""Readiness by poll(2) and select(2): the whole list of descriptors goes to the kernel with every call, and every entry
is looked at after it.

    entries   dense: pollfd for poll, the same record for select, which makes its sets from it
    slot_of   by descriptor: where its entry is, so that adding, changing and removing take one step

select's sets have FD_SETSIZE bits. A descriptor beyond them would be written outside of the set: it is refused. Nor
does select tell of an error or the end of a connection about which nothing is asked. It must not: know what a
descriptor is. Above: strategies. Below: readiness, base.
"""

from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from ustack.base.posix cimport (
    FD_ISSET, FD_SET, FD_SETSIZE, FD_ZERO, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, fd_set, pollfd, ppoll, pselect,
    timespec)
from ustack.kernel.readiness cimport (
    READY_ERROR, READY_HANGUP, READY_IN, READY_OUT, readiness_ops_t, readiness_t, ready_t)

ctypedef struct list_t:
    readiness_t readiness       # first: see readiness_t
    pollfd *entries
    uint64_t *tokens            # of each entry
    uint32_t count
    uint32_t capacity
    uint32_t *slot_of           # by descriptor: the entry's number, and one; 0: none
    uint32_t fds
    uint32_t first              # entry that the next call tells of first, so that none is always the last


cdef readiness_t *begin(const readiness_ops_t *ops, int *error) noexcept nogil:
    cdef list_t *self = <list_t *>calloc(1, sizeof(list_t))
    if self == NULL:
        error[0] = -ENOMEM
        return NULL
    self.readiness.ops = ops
    return &self.readiness


cdef readiness_t *poll_begin(int *error) noexcept nogil:
    return begin(&POLL, error)


cdef readiness_t *select_begin(int *error) noexcept nogil:
    return begin(&SELECT, error)


cdef int grow(list_t *self, int fd) noexcept nogil:
    """Room for one more entry, and for this descriptor."""
    cdef uint32_t wanted
    cdef void *grown
    if self.count == self.capacity:
        wanted = 2 * self.capacity if self.capacity else 64
        grown = realloc(self.entries, wanted * sizeof(pollfd))
        if grown == NULL:
            return -ENOMEM
        self.entries = <pollfd *>grown
        grown = realloc(self.tokens, wanted * sizeof(uint64_t))
        if grown == NULL:
            return -ENOMEM
        self.tokens = <uint64_t *>grown
        self.capacity = wanted
    if <uint32_t>fd >= self.fds:
        wanted = self.fds if self.fds else 64
        while wanted <= <uint32_t>fd:
            wanted *= 2
        grown = realloc(self.slot_of, wanted * sizeof(uint32_t))
        if grown == NULL:
            return -ENOMEM
        self.slot_of = <uint32_t *>grown
        memset(self.slot_of + self.fds, 0, (wanted - self.fds) * sizeof(uint32_t))
        self.fds = wanted
    return 0


cdef int add(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil:
    cdef list_t *self = <list_t *>readiness
    cdef int failed
    if readiness.ops.most_fd and <uint32_t>fd >= readiness.ops.most_fd:
        return -EINVAL
    failed = grow(self, fd)
    if failed != 0:
        return failed
    self.entries[self.count].fd = fd
    self.count += 1
    self.slot_of[fd] = self.count
    return modify(readiness, fd, token, events)


cdef int modify(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil:
    cdef list_t *self = <list_t *>readiness
    cdef uint32_t slot
    if <uint32_t>fd >= self.fds or self.slot_of[fd] == 0:
        return -EINVAL
    slot = self.slot_of[fd] - 1
    self.tokens[slot] = token
    self.entries[slot].events = (POLLIN if events & READY_IN else 0) | (POLLOUT if events & READY_OUT else 0)
    return 0


cdef void remove(readiness_t *readiness, int fd) noexcept nogil:
    """The last entry takes its place."""
    cdef list_t *self = <list_t *>readiness
    cdef uint32_t slot
    if <uint32_t>fd >= self.fds or self.slot_of[fd] == 0:
        return
    slot = self.slot_of[fd] - 1
    self.slot_of[fd] = 0
    self.count -= 1
    if slot != self.count:
        self.entries[slot] = self.entries[self.count]
        self.tokens[slot] = self.tokens[self.count]
        self.slot_of[self.entries[slot].fd] = slot + 1


cdef timespec *time_of(timespec *out, uint64_t timeout_ns) noexcept nogil:
    if timeout_ns == UINT64_MAX:
        return NULL
    out.tv_sec = <long>(timeout_ns // 1000000000)
    out.tv_nsec = <long>(timeout_ns % 1000000000)
    return out


cdef int collect(list_t *self, ready_t *out, int most, int found) noexcept nogil:
    """What is in revents, from where the last call stopped."""
    cdef uint32_t step, slot
    cdef short told
    cdef int number = 0
    for step in range(self.count):
        if number == most or found == 0:
            break
        slot = (self.first + step) % self.count
        told = self.entries[slot].revents
        if told == 0:
            continue
        found -= 1
        out[number].token = self.tokens[slot]
        out[number].events = (
            (READY_IN if told & POLLIN else 0) | (READY_OUT if told & POLLOUT else 0)
            | (READY_ERROR if told & (POLLERR | POLLNVAL) else 0) | (READY_HANGUP if told & POLLHUP else 0))
        number += 1
        if number == most:
            self.first = (slot + 1) % self.count
    return number


cdef int poll_wait(readiness_t *readiness, ready_t *out, int most, uint64_t timeout_ns) noexcept nogil:
    cdef list_t *self = <list_t *>readiness
    cdef timespec limit
    cdef int found = ppoll(self.entries, self.count, time_of(&limit, timeout_ns), NULL)
    return collect(self, out, most, found) if found > 0 else 0


cdef int select_wait(readiness_t *readiness, ready_t *out, int most, uint64_t timeout_ns) noexcept nogil:
    cdef list_t *self = <list_t *>readiness
    cdef fd_set reading, writing
    cdef timespec limit
    cdef pollfd *entry
    cdef uint32_t slot
    cdef int highest = -1, found, ready = 0
    FD_ZERO(&reading)
    FD_ZERO(&writing)
    for slot in range(self.count):
        entry = &self.entries[slot]
        if entry.events & POLLIN:
            FD_SET(entry.fd, &reading)
        if entry.events & POLLOUT:
            FD_SET(entry.fd, &writing)
        if entry.events and entry.fd > highest:
            highest = entry.fd
    found = pselect(highest + 1, &reading, &writing, NULL, time_of(&limit, timeout_ns), NULL)
    if found <= 0:
        return 0
    for slot in range(self.count):
        entry = &self.entries[slot]
        entry.revents = (POLLIN if FD_ISSET(entry.fd, &reading) else 0) | (
            POLLOUT if FD_ISSET(entry.fd, &writing) else 0)
        ready += entry.revents != 0
    return collect(self, out, most, ready)


cdef void end(readiness_t *readiness) noexcept nogil:
    cdef list_t *self = <list_t *>readiness
    free(self.entries)
    free(self.tokens)
    free(self.slot_of)
    free(self)


cdef readiness_ops_t POLL, SELECT
POLL.name = b"poll"
POLL.edge = False
POLL.tells_eof = False
POLL.tells_errors = True
POLL.forgets_closed = False
POLL.most_fd = 0
POLL.begin = poll_begin
POLL.add = add
POLL.modify = modify
POLL.remove = remove
POLL.wait = poll_wait
POLL.end = end
SELECT = POLL
SELECT.tells_errors = False     # it says that there is something to read
SELECT.name = b"select"
SELECT.most_fd = FD_SETSIZE
SELECT.begin = select_begin
SELECT.wait = select_wait


cdef const readiness_ops_t *poll_ops() noexcept nogil:
    return &POLL


cdef const readiness_ops_t *select_ops() noexcept nogil:
    return &SELECT
