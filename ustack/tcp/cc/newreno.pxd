# SPDX-License-Identifier: MIT
# NewReno (RFC 5681, RFC 6582).

from ustack.tcp.cc.contract cimport cc_ops_t

# For the registry.
cdef cc_ops_t *newreno_ops() noexcept nogil
