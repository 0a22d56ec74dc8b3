# SPDX-License-Identifier: MIT
"""Objects that a child of fork() must not go on with as if it were its parent. See forks.pxd."""

import os

# Not a WeakSet: the collector takes an object out of it before __del__, which may bring it back.
cdef void *newest = NULL


cdef class Forked:
    def __cinit__(self, *args: object, **kwargs: object) -> None:
        global newest
        self.older = newest
        if newest != NULL:
            (<Forked>newest).newer = <void *>self
        newest = <void *>self

    def __dealloc__(self) -> None:
        global newest
        if self.older != NULL:
            (<Forked>self.older).newer = self.newer
        if self.newer != NULL:
            (<Forked>self.newer).older = self.older
        elif newest == <void *>self:
            newest = self.older

    cdef void forked(self) noexcept:
        pass


def _in_child() -> None:
    cdef void *at = newest
    while at != NULL:
        (<Forked>at).forked()
        at = (<Forked>at).older


os.register_at_fork(after_in_child=_in_child)
