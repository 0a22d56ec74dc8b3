# SPDX-License-Identifier: MIT
# The operations of a link that is closed or was never opened: nothing arrives, nothing can be sent, no crash.
#
# Every link points `c.ops` here until it is open and again when it closes, so that the data path needs no check.

from ustack.link.device cimport link_ops_t

cdef const link_ops_t *closed_link_ops() noexcept nogil
