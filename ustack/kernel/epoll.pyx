# SPDX-License-Identifier: MIT
"""Readiness by epoll(7). `epoll-lt` tells what is so as long as it is so, `epoll-et` what has become so.

Level-triggered, a descriptor is asked about what is wanted now, one epoll_ctl for each change of mind. Edge-triggered,
everything is asked for once. It must not: know what a descriptor is. Above: strategies. Below: readiness, base.
"""

from libc.errno cimport ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from ustack.base.posix cimport (
    EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLL_CLOEXEC,
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, close_descriptor, epoll_create1, epoll_ctl, epoll_event, epoll_wait)
from ustack.kernel.readiness cimport (
    READY_EOF, READY_ERROR, READY_HANGUP, READY_IN, READY_ONE_OF_US, READY_OUT, milliseconds_of, readiness_ops_t,
    readiness_t, ready_t)

cdef enum:
    EVENTS_MOST = 256           # in one call

ctypedef struct epoll_t:
    readiness_t readiness       # first: see readiness_t
    int fd
    epoll_event events[EVENTS_MOST]


cdef readiness_t *begin(const readiness_ops_t *ops, int *error) noexcept nogil:
    cdef epoll_t *epoll = <epoll_t *>calloc(1, sizeof(epoll_t))
    if epoll == NULL:
        error[0] = -ENOMEM
        return NULL
    epoll.fd = epoll_create1(EPOLL_CLOEXEC)
    if epoll.fd < 0:
        error[0] = -errno
        free(epoll)
        return NULL
    epoll.readiness.ops = ops
    return &epoll.readiness


cdef readiness_t *level_begin(int *error) noexcept nogil:
    return begin(&LEVEL, error)


cdef readiness_t *edge_begin(int *error) noexcept nogil:
    return begin(&EDGE, error)


cdef int control(readiness_t *readiness, int operation, int fd, uint64_t token, uint32_t events) noexcept nogil:
    cdef epoll_event event
    event.events = 0
    if events & READY_IN:
        event.events |= EPOLLIN
    if events & READY_OUT:
        event.events |= EPOLLOUT
    if events & READY_ONE_OF_US:            # epoll_ctl(2): not together with EPOLLRDHUP
        event.events |= EPOLLEXCLUSIVE | (EPOLLET if readiness.ops.edge else 0)
    elif readiness.ops.edge:
        event.events |= EPOLLET | EPOLLRDHUP | EPOLLPRI
    event.data.u64 = token
    return -errno if epoll_ctl((<epoll_t *>readiness).fd, operation, fd, &event) < 0 else 0


cdef int add(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil:
    return control(readiness, EPOLL_CTL_ADD, fd, token, events)


cdef int modify(readiness_t *readiness, int fd, uint64_t token, uint32_t events) noexcept nogil:
    return control(readiness, EPOLL_CTL_MOD, fd, token, events)


cdef void remove(readiness_t *readiness, int fd) noexcept nogil:
    control(readiness, EPOLL_CTL_DEL, fd, 0, 0)


cdef int wait(readiness_t *readiness, ready_t *out, int most, uint64_t timeout_ns) noexcept nogil:
    cdef epoll_t *epoll = <epoll_t *>readiness
    cdef uint32_t told, events
    cdef int index, found
    found = epoll_wait(epoll.fd, epoll.events, most if most < EVENTS_MOST else EVENTS_MOST, milliseconds_of(timeout_ns))
    if found < 0:
        return 0                # a signal: the caller looks whether it should end
    for index in range(found):
        told = epoll.events[index].events
        events = 0
        if told & (EPOLLIN | EPOLLRDHUP):
            events |= READY_IN
        if told & EPOLLOUT:
            events |= READY_OUT
        if told & EPOLLERR:
            events |= READY_ERROR
        if told & EPOLLHUP:
            events |= READY_HANGUP
        if told & (EPOLLRDHUP | EPOLLHUP | EPOLLPRI):       # a read ends at an urgent byte, too, and is short
            events |= READY_EOF
        out[index].token = epoll.events[index].data.u64
        out[index].events = events
    return found


cdef void end(readiness_t *readiness) noexcept nogil:
    close_descriptor((<epoll_t *>readiness).fd)
    free(readiness)


cdef readiness_ops_t LEVEL, EDGE
LEVEL.name = b"epoll-lt"
LEVEL.edge = False
LEVEL.tells_eof = False
LEVEL.tells_errors = True
LEVEL.forgets_closed = True
LEVEL.most_fd = 0
LEVEL.begin = level_begin
LEVEL.add = add
LEVEL.modify = modify
LEVEL.remove = remove
LEVEL.wait = wait
LEVEL.end = end
EDGE = LEVEL
EDGE.name = b"epoll-et"
EDGE.edge = True
EDGE.tells_eof = True
EDGE.begin = edge_begin


cdef const readiness_ops_t *epoll_level_ops() noexcept nogil:
    return &LEVEL


cdef const readiness_ops_t *epoll_edge_ops() noexcept nogil:
    return &EDGE
