# SPDX-License-Identifier: MIT
# A link that is nothing but memory (memory_ring.pxd), whose far end is driven by calls. Body: memory.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.link.device cimport Link
from ustack.link.memory_ring cimport memory_t


cdef class MemoryLink(Link):
    cdef memory_t memory
    cdef uint8_t far_mac[6]
    cdef int require_open(self, str call) except -1
    cdef bint put(self, bytes frame, int checksum, int gso_size, uint32_t wire_length, int vlan_id) noexcept
    cdef bint put_packet(self, bytes packet, uint16_t ethertype) noexcept
    cdef void answer_arp(self, bytes frame) noexcept
