# SPDX-License-Identifier: MIT
"""What ends an engine's sleep besides frames and deadlines. See waking.pxd."""

from libc.stdint cimport uint64_t

from ustack.base.posix cimport write

import os
import select
from collections import deque


cdef class Waker:
    """An eventfd and foreign descriptors behind one epoll descriptor, and the callbacks that belong to them."""

    def __cinit__(self) -> None:
        self.event_fd = -1
        self.calls = deque()
        self.readers = {}

    cdef int fd(self) except -1:
        if self.poller is None:
            poller = select.epoll()
            self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            poller.register(self.event_fd, select.EPOLLIN)
            self.poller = poller
        return self.poller.fileno()

    cdef int watch(self, int fd, object callback, tuple arguments) except -1:
        self.fd()
        if fd not in self.readers:
            self.poller.register(fd, select.EPOLLIN)
        self.readers[fd] = (callback, arguments)
        return 0

    cdef bint watch_no_more(self, object fd) except -1:
        if self.readers.pop(fd, None) is None:
            return False
        self.poller.unregister(fd)
        return True

    cdef int ring(self) except -1:
        cdef uint64_t one = 1
        if self.event_fd >= 0:
            # With the GIL kept: the thread of run(), woken before the mark is there, would find nothing to serve and
            # sleep on a descriptor that can still be read, again and again. A counter that is full wakes as well.
            write(self.event_fd, &one, sizeof(one))
            self.rung = True
        return 0

    cdef bint due(self) noexcept:
        return self.rung or bool(self.calls) or bool(self.readers)

    cdef int serve(self) except -1:
        cdef Py_ssize_t due_calls = len(self.calls), _i
        if self.rung:
            self.rung = False
            try:
                os.eventfd_read(self.event_fd)
                self.wakeups += 1
            except BlockingIOError:
                pass
        for _i in range(due_calls):         # what they add waits for the next turn
            if not self.calls:
                break
            callback, arguments = self.calls.popleft()
            callback(*arguments)
        if self.readers and self.poller is not None:
            for ready, _events in self.poller.poll(0):
                found = self.readers.get(ready)
                if found is not None:       # else the eventfd, or one that a callback has just removed
                    found[0](*found[1])
        return 0

    cdef void close(self) noexcept:
        if self.poller is not None:
            self.poller.close()
            self.poller = None
        if self.event_fd >= 0:
            os.close(self.event_fd)
            self.event_fd = -1

    def __dealloc__(self) -> None:
        if self.event_fd >= 0:
            os.close(self.event_fd)
