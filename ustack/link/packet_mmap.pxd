# SPDX-License-Identifier: MIT
# An Ethernet interface through AF_PACKET rings (packet_ring.pxd) as a link. Body: packet_mmap.pyx.

from ustack.link.interface_link cimport InterfaceLink
from ustack.link.packet_ring cimport packet_ring_t


cdef class PacketMmapLink(InterfaceLink):
    cdef packet_ring_t *ring
    cdef object watch                # an epoll of both sockets, made when somebody wants a descriptor
    cdef tuple last_drops            # of a link that was closed
