# SPDX-License-Identifier: MIT
# CUBIC (RFC 9438) with HyStart++ (RFC 9406).

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.cc.contract cimport cc_ops_t

# For the registry.
cdef cc_ops_t *cubic_ops() noexcept nogil
# The whole part of the cube root. For the control, and for who proves it.
cdef uint32_t cube_root(uint64_t value) noexcept nogil
