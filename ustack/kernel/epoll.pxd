# SPDX-License-Identifier: MIT
# Readiness by epoll(7), level-triggered and edge-triggered. Body: epoll.pyx.

from ustack.kernel.readiness cimport readiness_ops_t

cdef const readiness_ops_t *epoll_level_ops() noexcept nogil
cdef const readiness_ops_t *epoll_edge_ops() noexcept nogil
