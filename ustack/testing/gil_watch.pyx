# SPDX-License-Identifier: MIT
"""Who holds the GIL while a link sends: looks at every tx_submit and tx_gather of one link.

    with GilWatch(stack.link) as watch:
        stack.poll(...)
    assert watch.holding == 0

It stands between the engine and the link's own table of operations. One link is watched at a time. Above: tests.
Below: link's contract.
"""

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.posix cimport iovec
from ustack.link.device cimport Link, link_ops_t, link_t, offload_t

cdef extern from "Python.h":
    int PyGILState_Check() nogil

ctypedef struct watch_t:
    link_t *link                # NULL: none is watched
    const link_ops_t *own       # the link's
    link_ops_t ops              # the same with a submit of ours
    uint64_t without
    uint64_t holding

cdef watch_t watch


cdef void look() noexcept nogil:
    if PyGILState_Check():
        watch.holding += 1
    else:
        watch.without += 1


cdef int watched_submit(link_t *link) noexcept nogil:
    look()
    return watch.own.tx_submit(link)


cdef int watched_gather(link_t *link, uint32_t length, uint32_t head_bytes, const offload_t *offload,
                        const iovec *pieces, uint32_t count) noexcept nogil:
    look()
    return watch.own.tx_gather(link, length, head_bytes, offload, pieces, count)


cdef class GilWatch:
    """Counts the submits of a link: `holding` the GIL, or `without` it."""

    cdef Link link

    def __init__(self, Link link not None) -> None:
        self.link = link

    @property
    def without(self) -> int:
        """Submits without the GIL."""
        return watch.without

    @property
    def holding(self) -> int:
        """Submits by a thread that holds the GIL."""
        return watch.holding

    def __enter__(self) -> GilWatch:
        if watch.link != NULL:
            raise RuntimeError("another link is watched")
        watch.link = &self.link.c
        watch.own = self.link.c.ops
        watch.ops = watch.own[0]
        watch.ops.tx_submit = watched_submit
        if watch.own.tx_gather != NULL:
            watch.ops.tx_gather = watched_gather
        watch.without = 0
        watch.holding = 0
        self.link.c.ops = &watch.ops
        return self

    def __exit__(self, *exc: object) -> None:
        self.link.c.ops = watch.own
        watch.link = NULL
