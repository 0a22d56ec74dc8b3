# SPDX-License-Identifier: MIT
# BBR, version 3 (draft-ietf-ccwg-bbr-06).

from ustack.tcp.cc.contract cimport cc_ops_t

# For the registry.
cdef cc_ops_t *bbr_ops() noexcept nogil
