# SPDX-License-Identifier: MIT
"""A link whose sleeps have no deadline: what does not end them by itself never ends them.

A test of what wakes an engine would pass without any waking as well, because an engine comes up ten times per second.
On this link it does not: wait() goes to the other link with no deadline, so a frame, the wake descriptor or a signal
ends it, or the test hangs. Before each sleep it tells a descriptor, so that a test knows of one before it ends it.

Below: link/device. Not for the data path.
"""

from libc.stdint cimport UINT64_MAX, uint64_t

from ustack.base.posix cimport POLLIN, write
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, link_ops_t, link_t
from ustack.link.use cimport LinkUse, link_use
from ustack.link.interface cimport sleep_on

ctypedef struct endless_t:
    link_ops_t ops                          # first: link.ops points here, and this is found by it
    int (*wait)(link_t *link, uint64_t deadline_ns) noexcept nogil
    int asleep_fd
    uint64_t sleeps
    uint64_t woken                          # of them: the wake descriptor could be read at their end


cdef int endless_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    cdef endless_t *endless = <endless_t *>link.ops
    cdef uint64_t one = 1
    cdef short revents = 0
    cdef int status
    endless.sleeps += 1
    write(endless.asleep_fd, &one, sizeof(one))
    status = endless.wait(link, UINT64_MAX)
    if link.wake_fd >= 0:
        sleep_on(link.wake_fd, POLLIN, 0, &revents)
        endless.woken += revents & POLLIN != 0
    return status


cdef class EndlessLink(Link):
    """`inner`, which stays open as long as this does. asleep_fd: an eventfd, written before each sleep."""

    cdef Link inner
    cdef LinkUse inner_use
    cdef endless_t endless

    def __cinit__(self, *args: object) -> None:
        self.c.ops = closed_link_ops()

    def __init__(self, Link inner not None, asleep_fd: int) -> None:
        self.inner_use = link_use(inner)
        self.inner = inner
        self.gate = inner.gate
        self.endless.ops = inner.c.ops[0]
        self.endless.wait = self.endless.ops.wait
        self.endless.ops.wait = endless_wait
        self.endless.asleep_fd = asleep_fd
        self.c = inner.c                    # its memory, and counters that go on from there
        self.c.ops = &self.endless.ops

    cpdef void close(self) except *:
        """Close the inner link."""
        if not self.closed:
            self.gate.check("close()")
            self.closed = True
            self.c.ops = closed_link_ops()
            self.inner_use = None
            if self.inner is not None:
                self.inner.close()

    @property
    def sleeps(self) -> int:
        """Times that the engine slept."""
        return self.endless.sleeps

    @property
    def woken(self) -> int:
        """Sleeps at whose end the wake descriptor could be read."""
        return self.endless.woken
