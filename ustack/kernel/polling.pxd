# SPDX-License-Identifier: MIT
# Readiness by poll(2) and by select(2): every descriptor is asked about in every call. Body: polling.pyx.

from ustack.kernel.readiness cimport readiness_ops_t

cdef const readiness_ops_t *poll_ops() noexcept nogil
cdef const readiness_ops_t *select_ops() noexcept nogil
