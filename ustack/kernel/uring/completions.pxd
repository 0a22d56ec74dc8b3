# SPDX-License-Identifier: MIT
# What the kernel has done, and what of it is told. Body: completions.pyx.
#
# It must not: make requests. Above: strategy. Below: slots, ring, buffers.

from libc.stdint cimport uint32_t

from ustack.kernel.readiness cimport ready_t
from ustack.kernel.uring.records cimport uring_t

# Take up to `most` completions from the ring. How many.
cdef uint32_t completions_take(uring_t *self, uint32_t most) noexcept nogil
# Those on the ready list that have nothing to tell any more go from it.
cdef void ready_prune(uring_t *self) noexcept nogil
# Up to `most` of the others are told. They stay on the list: what is not read is told again.
cdef int ready_tell(uring_t *self, ready_t *out, int most) noexcept nogil
