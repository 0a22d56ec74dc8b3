# SPDX-License-Identifier: MIT
# What ends an engine's sleep besides frames and deadlines: another thread's word, and foreign descriptors.
#
# One epoll descriptor stands for all of it, so that a link's wait asks about one more descriptor whatever is watched
# (link_t.wake_fd), and a program's own event loop can do the same. The eventfd in it is what ring() writes.
#
# Its callbacks run in the thread of run() or of a blocking call, between two turns, with the gate open: they may use
# the stack. Above: owner.
# Below: nothing.

from libc.stdint cimport uint64_t


cdef class Waker:
    cdef object poller                      # select.epoll; None: not opened yet, or closed
    cdef int event_fd
    cdef bint rung                          # the eventfd has been written since it was read
    cdef object calls                       # deque of (callback, arguments), in order
    cdef dict readers                       # descriptor -> (callback, arguments)
    cdef readonly uint64_t wakeups          # times that the eventfd was read
    # Have callback(*arguments) called whenever the descriptor can be read, instead of what it was watched for before.
    # Raises OSError.
    cdef int watch(self, int fd, object callback, tuple arguments) except -1
    # Whether it was watched.
    cdef bint watch_no_more(self, object fd) except -1
    # The descriptor to sleep on. Raises OSError. Opens it when it is first needed.
    cdef int fd(self) except -1
    # End the present sleep, or the next one. Any thread, a signal handler. Does nothing before fd().
    cdef int ring(self) except -1
    # Something to serve? With readers always: only the kernel knows.
    cdef bint due(self) noexcept
    # Make the calls that are due. What a callback raises comes out; the others are made the next time.
    cdef int serve(self) except -1
    cdef void close(self) noexcept
