# SPDX-License-Identifier: MIT
# A link that records another link's frames. Body: tee.pyx.

from libc.stdint cimport uint8_t

from ustack.link.capture cimport Capture, capture_t
from ustack.link.device cimport Link, link_t
from ustack.link.use cimport LinkUse

ctypedef struct tee_t:
    link_t *inner
    uint8_t *reserved                # the inner link's slot, between tx_reserve and tx_commit
    capture_t *capture


cdef class TeeLink(Link):
    cdef readonly Link inner
    cdef LinkUse inner_use
    cdef tee_t tee
    cdef Capture capture
    cdef int close_all(self) except -1
