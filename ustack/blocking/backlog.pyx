# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""What a Listener and the upcalls share: who listens where, and which connections wait for accept()."""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp

from ustack.application cimport endpoints_t
from ustack.base.posix cimport EPOLLIN
from ustack.base.types cimport ip_addr_t
from ustack.blocking.watched cimport Watched

from collections import OrderedDict


cdef const listening_t *listening_find(const listening_t *first, const endpoints_t *ends) noexcept nogil:
    cdef const listening_t *found = NULL
    cdef const listening_t *each = first
    while each != NULL:
        if each.port == ends.lport:
            if each.any_address:
                if found == NULL:
                    found = each
            elif memcmp(&each.address, &ends.laddr, sizeof(ip_addr_t)) == 0:
                return each
        each = each.next
    return found


cdef class Backlog(Watched):
    """What a Listener and the upcalls share."""

    def __cinit__(self) -> None:
        self.waiting = OrderedDict()

    cdef uint32_t events_now(self) noexcept:
        return EPOLLIN if len(self.waiting) > 0 else 0

    cdef void link(self, listening_t **first, const ip_addr_t *address, uint16_t port) noexcept:
        self.c.any_address = address == NULL
        if address != NULL:
            self.c.address = address[0]
        self.c.port = port
        self.c.backlog = <void *>self
        self.c.next = first[0]
        first[0] = &self.c

    cdef void unlink(self, listening_t **first) noexcept:
        cdef listening_t **at = first
        while at[0] != NULL and at[0] != &self.c:
            at = &at[0].next
        if at[0] != NULL:
            at[0] = self.c.next

    cdef void inherit(self, int option, uint32_t value) noexcept:
        cdef uint32_t at
        for at in range(self.c.inherited_count):
            if self.c.inherited[at].option == option:
                self.c.inherited[at].value = value
                return
        at = self.c.inherited_count
        if at < <uint32_t>INHERITED_MAX:
            self.c.inherited[at].option = option
            self.c.inherited[at].value = value
            self.c.inherited_count += 1
