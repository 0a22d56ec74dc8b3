# SPDX-License-Identifier: MIT
# What is wanted of a slot becomes requests. Body: requests.pyx.
#
# It must not: look at completions. Above: strategy. Below: slots, ring, buffers.

from ustack.kernel.uring.records cimport uring_t

# Fill requests for those on the todo list, as many as a turn may. False: some are left.
cdef bint requests_make(uring_t *self) noexcept nogil
# Everything that is in the kernel shall come back.
cdef void requests_cancel(uring_t *self) noexcept nogil
