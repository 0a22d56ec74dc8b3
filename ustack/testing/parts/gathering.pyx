# SPDX-License-Identifier: MIT
"""tx_gather for a link that has none, as a kernel's would do it, and a link that refuses every one.

    with Gathering(pair.network.a) as gathering:
        ...
    assert gathering.taken

The frames on the wire are the same in all three cases; what differs is who copies. It stands between the engine and the
link's own table of operations. One link at a time. Above: tests. Below: link's contract.
"""

from libc.errno cimport EAGAIN
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ustack.base.posix cimport iovec
from ustack.link.device cimport Link, link_ops_t, link_t, offload_t

ctypedef struct between_t:
    link_t *link                # NULL: none is driven
    const link_ops_t *own       # the link's
    link_ops_t ops              # the same with ours
    uint8_t *slot               # the latest reservation
    uint64_t taken
    uint64_t refused
    bint refuses

cdef between_t between


cdef uint8_t *noted_reserve(link_t *link, uint32_t length) noexcept nogil:
    between.slot = between.own.tx_reserve(link, length)
    return between.slot


cdef int copying_gather(link_t *link, uint32_t length, uint32_t head_bytes, const offload_t *offload,
                        const iovec *pieces, uint32_t count) noexcept nogil:
    cdef uint32_t at = head_bytes
    cdef uint32_t i
    if between.refuses:
        between.refused += 1
        return -EAGAIN
    for i in range(count):
        memcpy(between.slot + at, pieces[i].iov_base, pieces[i].iov_len)
        at += <uint32_t>pieces[i].iov_len
    between.own.tx_commit(link, length, offload)
    between.taken += 1
    return 0


cdef class Gathering:
    """refuses: every frame; the caller has to copy."""

    cdef Link link
    cdef bint refuses

    def __init__(self, Link link not None, *, refuses: bool = False) -> None:
        self.link = link
        self.refuses = refuses

    @property
    def taken(self) -> int:
        """Frames that were gathered."""
        return between.taken

    @property
    def refused(self) -> int:
        """Frames that were not."""
        return between.refused

    def __enter__(self) -> Gathering:
        if between.link != NULL:
            raise RuntimeError("another link is driven")
        between.link = &self.link.c
        between.own = self.link.c.ops
        between.ops = between.own[0]
        between.ops.tx_reserve = noted_reserve
        between.ops.tx_gather = copying_gather
        between.refuses = self.refuses
        between.taken = between.refused = 0
        self.link.c.ops = &between.ops
        return self

    def __exit__(self, *exc: object) -> None:
        self.link.c.ops = between.own
        between.link = NULL
