# SPDX-License-Identifier: MIT
# The transmit operations of an AF_PACKET link (device.pxd): link.impl is a packet_ring_t. Body: packet_transmit.pyx.

from libc.stdint cimport uint8_t, uint32_t

from ustack.base.posix cimport iovec
from ustack.link.device cimport link_t, offload_t
from ustack.link.packet_ring cimport packet_ring_t

cdef enum:
    TX_RETRY_NS = 1000000               # when the device refuses frames, come back this soon

cdef uint8_t *packet_tx_reserve(link_t *link, uint32_t length) noexcept nogil
cdef void packet_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil
cdef int packet_tx_gather(link_t *link, uint32_t length, uint32_t head_bytes, const offload_t *offload,
                          const iovec *pieces, uint32_t count) noexcept nogil
cdef int packet_tx_submit(link_t *link) noexcept nogil
# -ENXIO for good when the interface has been removed, -error when it has not.
cdef int note_error(packet_ring_t *ring, int error) noexcept nogil
