# SPDX-License-Identifier: MIT
"""The virtio_net header for tests: what the inline functions of vnet.pxd read and write."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from ustack.base.bytestring cimport bytes_from, data_of
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_VERIFIED, frame_t
from ustack.link.device cimport offload_t
from ustack.link.packet_abi cimport virtio_net_hdr


def parsed(header: bytes) -> tuple[str, int]:
    """What a received header says: (checksum status, gso size)."""
    cdef frame_t frame
    if len(header) != sizeof(virtio_net_hdr):
        raise ValueError(f"a header of {len(header)} bytes: it has {sizeof(virtio_net_hdr)}")
    memset(&frame, 0xFF, sizeof(frame_t))
    vnet_parse(data_of(header), &frame)
    status = "partial" if frame.checksum == CHECKSUM_PARTIAL else (
        "verified" if frame.checksum == CHECKSUM_VERIFIED else "unknown")
    return status, frame.gso_size


def emitted(linear_bytes: int, *, csum_start: int = 0, csum_offset: int = 0, gso_size: int = 0, gso_family: int = 0,
            shortened_to: int | None = None) -> bytes:
    """The header of a frame to send; shortened_to: most_bytes of vnet_shorten_linear, None: it is not called."""
    cdef uint8_t at[16]
    cdef offload_t offload
    memset(&offload, 0, sizeof(offload_t))
    offload.csum_start = csum_start
    offload.csum_offset = csum_offset
    offload.gso_size = gso_size
    offload.gso_family = gso_family
    vnet_emit(at, &offload, linear_bytes)
    if shortened_to is not None:
        vnet_shorten_linear(at, shortened_to)
    return bytes_from(at, sizeof(virtio_net_hdr))
