# SPDX-License-Identifier: MIT
# The virtio_net header that stands before each frame on a packet socket and on a TAP device, to and from what the link
# contract says about a frame. Inline: one header is read or written for each frame.
#
# It must not trust a header that it reads: an unknown gso_type is a super-frame like any other, because the segment
# size is what the stack checks. Read first: virtio 1.2 section 5.1.6; include/linux/virtio_net.h of Linux.
# Above: packet_receive, packet_transmit, tap. Below: packet_abi.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.link.device cimport offload_t
from ustack.link.packet_abi cimport (
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, virtio_net_hdr)

cdef enum:
    TCP_HEADER_MAX = 60


# Write frame.gso_size and frame.checksum. at: sizeof(virtio_net_hdr) bytes, at any address.
cdef inline void vnet_parse(const uint8_t *at, frame_t *frame) noexcept nogil:
    cdef virtio_net_hdr vnet
    memcpy(&vnet, at, sizeof(virtio_net_hdr))
    frame.gso_size = vnet.gso_size if vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE else 0
    if vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        frame.checksum = CHECKSUM_PARTIAL
    elif vnet.flags & VIRTIO_NET_HDR_F_DATA_VALID:
        frame.checksum = CHECKSUM_VERIFIED
    else:
        frame.checksum = CHECKSUM_UNKNOWN


# linear_bytes: how much of the frame the kernel should have in one piece (hdr_len); 0: it decides.
cdef inline void vnet_emit(uint8_t *at, const offload_t *offload, uint32_t linear_bytes) noexcept nogil:
    cdef virtio_net_hdr vnet
    memset(&vnet, 0, sizeof(virtio_net_hdr))
    vnet.gso_type = VIRTIO_NET_HDR_GSO_NONE
    vnet.hdr_len = <uint16_t>linear_bytes
    if offload.csum_start != 0:
        vnet.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM
        vnet.csum_start = offload.csum_start
        vnet.csum_offset = offload.csum_offset
    if offload.gso_size != 0:
        vnet.gso_type = VIRTIO_NET_HDR_GSO_TCPV6 if offload.gso_family == 6 else VIRTIO_NET_HDR_GSO_TCPV4
        vnet.gso_size = offload.gso_size
    memcpy(at, &vnet, sizeof(virtio_net_hdr))


# Of a header that vnet_emit has written: ask for the protocol headers alone in one piece, when it asked for more than
# `most_bytes`. A frame whose checksum is complete says nothing about where its headers end: it stays as it is.
cdef inline void vnet_shorten_linear(uint8_t *at, uint32_t most_bytes) noexcept nogil:
    cdef virtio_net_hdr vnet
    memcpy(&vnet, at, sizeof(virtio_net_hdr))
    if vnet.csum_start != 0 and vnet.hdr_len > most_bytes:
        vnet.hdr_len = vnet.csum_start + TCP_HEADER_MAX
        memcpy(at, &vnet, sizeof(virtio_net_hdr))
