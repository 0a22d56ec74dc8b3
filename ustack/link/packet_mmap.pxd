# SPDX-License-Identifier: MIT
# An Ethernet interface through AF_PACKET rings (packet_ring.pxd) as a link. Body: packet_mmap.pyx.

from libc.stdint cimport uint32_t

from ustack.buf.frame cimport frame_t
from ustack.link.device cimport Link, link_t
from ustack.link.interface cimport interface_t
from ustack.link.packet_ring cimport packet_ring_t

# Two of the link's operations (device.pxd), for tests: link.impl is a packet_ring_t.
cdef uint32_t mmap_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil
cdef void mmap_rx_release(link_t *link, uint32_t n) noexcept nogil


cdef class PacketMmapLink(Link):
    cdef packet_ring_t *ring
    cdef readonly str ifname
    cdef object watch                # an epoll of both sockets, made when somebody wants a descriptor
    cdef tuple last_drops            # of a link that was closed
    cdef void describe(self, const interface_t *interface, bint own_mac) noexcept
