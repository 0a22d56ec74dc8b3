# SPDX-License-Identifier: MIT
"""A transport that carries nothing: a table with holes, for the check that every transport goes through.

Nothing behind the table is ever called. Below: application.
"""

from libc.string cimport memset

from ustack.application cimport Application, Transport, transport_t
from ustack.base.arguments cimport whole
from ustack.link.gate cimport Gate

cdef enum:
    ENTRIES = sizeof(transport_t) // sizeof(void *)


cdef class BareTransport(Transport):
    """The first `holes` entries of its table are NULL."""

    cdef transport_t own

    def __cinit__(self, *, holes: int = ENTRIES) -> None:
        cdef size_t first = whole("holes", holes, 0, ENTRIES)
        memset(&self.own, 0, sizeof(transport_t))
        memset(<char *>&self.own + first * sizeof(void *), 0xFF, (ENTRIES - first) * sizeof(void *))
        self.table = &self.own
        self.gate = Gate()
        self.alive = True

    def register_with(self, application: Application) -> None:
        """What registering is, as far as the application sees it."""
        cdef bint come_up = False
        application.attach(self, 1, &come_up)
        application.detach()
