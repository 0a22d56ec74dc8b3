# SPDX-License-Identifier: MIT
# Readiness by real-time signals (F_SETSIG, sigtimedwait). Body: rtsig.pyx.

from ustack.kernel.readiness cimport readiness_ops_t

cdef const readiness_ops_t *rtsig_ops() noexcept nogil
