# SPDX-License-Identifier: MIT
# Readiness of many connections and listeners at once. Body: poller.pyx. Made by Stack.poller(). Above: stack. Below:
# watched, connection, listener, application.

from libc.stdint cimport uint32_t, uint64_t

from ustack.application cimport Transport
from ustack.blocking.watched cimport Watch, Watched, ready_t


cdef class Poller:
    cdef Transport stack
    cdef ready_t ready
    cdef dict registered                    # what was registered -> Watch
    cdef readonly bint closed
    cdef readonly uint64_t looks
    cdef void bind(self, Transport stack) noexcept
    cdef int enter(self, str call) except -1
    cdef int ensure_open(self, str call) except -1
    cdef Watched watched_of(self, str call, object target)
    cdef Watch watch_of(self, str call, object target)
    cdef int drive(self) except -1
    cdef bint wait(self, uint64_t until_ns) except -1
    cdef uint32_t look(self, Watch watch) noexcept
    cdef void look_anew(self, Watch watch) noexcept
    cdef bint any_ready(self) noexcept
    cdef int collect(self, list found, Py_ssize_t most) except -1
    cdef void take(self, ready_t *told) noexcept
    cdef list leave_all(self)
