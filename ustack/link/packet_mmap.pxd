# SPDX-License-Identifier: MIT
# An Ethernet interface through AF_PACKET rings (packet_ring.pxd) as a link. Body: packet_mmap.pyx.

from ustack.link.device cimport Link
from ustack.link.interface cimport interface_t
from ustack.link.packet_ring cimport packet_ring_t


cdef class PacketMmapLink(Link):
    cdef packet_ring_t *ring
    cdef readonly str ifname
    cdef void describe(self, const interface_t *interface, bint own_mac) noexcept
