# SPDX-License-Identifier: MIT
# A kernel_t from its first descriptor to its last, and what becomes of its copy in a child of fork(). Body: life.pyx.
#
# Above: transport. Below: turns, connections, base/forks.

from libc.stdint cimport uint32_t

from ustack.base.forks cimport Forked
from ustack.kernel.readiness cimport readiness_ops_t
from ustack.kernel.records cimport kernel_t
from ustack.link.gate cimport Gate

# Nothing is open yet: before anything else.
cdef void kernel_clear(kernel_t *kernel) noexcept
# Memory, and the strategy's descriptor. kernel.now_ns is set. Raises MemoryError, OSError; kernel_free then, too.
cdef int kernel_begin(kernel_t *kernel, const readiness_ops_t *ops, uint32_t max_connections) except -1
# Listeners, the strategy and memory; every connection has ended. Idempotent.
cdef void kernel_free(kernel_t *kernel) noexcept
# The same with connections in it: closed, and nobody is called.
cdef void kernel_discard(kernel_t *kernel) noexcept


# Closes the copy in a child: its descriptors are others of the same sockets, so that nothing may be said on them.
cdef class Copy(Forked):
    cdef kernel_t *kernel                   # NULL: nothing is open
    cdef bint *alive
    cdef bint *come_up
    cdef Gate gate
