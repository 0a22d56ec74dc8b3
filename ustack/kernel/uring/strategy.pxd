# SPDX-License-Identifier: MIT
# The strategy io_uring, and the same with sends that do not copy (io_uring-zc). Body: strategy.pyx.

from ustack.kernel.readiness cimport readiness_ops_t

cdef const readiness_ops_t *uring_ops() noexcept nogil
cdef const readiness_ops_t *uring_zerocopy_ops() noexcept nogil
