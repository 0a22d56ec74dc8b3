# SPDX-License-Identifier: MIT
"""Who drives a link. See use.pxd."""

from cython cimport no_gc

from ustack.base.forks cimport Forked
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link


@no_gc      # its end must find the link: the collector would clear that first. A link holds no reference to its users.
cdef class LinkUse(Forked):
    def __dealloc__(self) -> None:
        if self.link is not None:
            self.link.in_use = False

    cdef void forked(self) noexcept:
        if self.ends_in_child and self.link is not None:
            self.link.c.ops = closed_link_ops()


cdef LinkUse link_use(Link link):
    cdef LinkUse use
    if link.closed or link.c.ops == NULL:
        raise ValueError("the link is closed")
    if link.in_use:
        raise ValueError("the link is in use: it carries one stack at a time, or a capture that carries it")
    use = LinkUse.__new__(LinkUse)
    use.link = link
    link.in_use = True
    return use
