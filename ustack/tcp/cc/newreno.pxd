# SPDX-License-Identifier: MIT
# NewReno (RFC 5681, RFC 6582).

from libc.stdint cimport uint32_t

from ustack.tcp.cc.contract cimport cc_ops_t
from ustack.tcp.cc.validation cimport validation_t

ctypedef struct newreno_t:                  # 28 bytes
    uint32_t acked                          # bytes, toward the next increase in congestion avoidance
    validation_t validation

# For the registry.
cdef cc_ops_t *newreno_ops() noexcept nogil
