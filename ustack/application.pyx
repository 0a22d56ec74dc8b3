# SPDX-License-Identifier: MIT
"""Owner of a table of upcalls, base of every application. See application.pxd for the contract."""

from libc.string cimport memset

from ustack.link.gate cimport Gate


cdef class Application:
    """Base class of applications: a table of nogil upcalls (application_t) and its owner.

    A subclass in Cython fills `self.c` in __cinit__, whole but for the two burst hooks. One Application serves one
    Engine at a time.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.c, 0, sizeof(application_t))
        self.gate = Gate()

    cdef void park(self, object error) noexcept:
        if self.parked is None:
            self.parked = error
        if self.come_up != NULL:
            self.come_up[0] = True

    cdef int enter(self, str call) except -1:
        return self.gate.enter(call)

    cdef int leave(self) except -1:
        self.gate.leave()
        return 0
