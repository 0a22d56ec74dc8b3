# SPDX-License-Identifier: MIT
# The receive operations of an AF_PACKET link (device.pxd): link.impl is a packet_ring_t. Body: packet_receive.pyx.

from libc.stdint cimport uint32_t

from ustack.buf.frame cimport frame_t
from ustack.link.device cimport link_t

cdef uint32_t packet_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil
cdef bint packet_rx_behind(link_t *link, uint32_t frames, bint still) noexcept nogil
cdef void packet_rx_release(link_t *link, uint32_t n) noexcept nogil
