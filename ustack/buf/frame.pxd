# SPDX-License-Identifier: MIT
# A view of one received Ethernet frame. It owns nothing: the bytes belong to the link and are borrowed
# from rx_burst until rx_release.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum checksum_status_t:
    CHECKSUM_UNKNOWN = 0     # verify it in software
    CHECKSUM_VERIFIED = 1    # the device has verified it
    CHECKSUM_PARTIAL = 2     # a local sender left it for a device to fill in: only the pseudo-header sum is there

ctypedef struct frame_t:
    uint8_t *data            # first byte of the Ethernet header; writable by its reader, gone after release
    uint32_t length          # bytes at data; never more than the medium delivered
    uint32_t wire_length     # what the sender sent; larger than length when the slot was too small
    uint16_t gso_size        # payload bytes of each segment of a super-frame, 0 for an ordinary frame
    uint16_t vlan_id         # of a tag that the medium has taken out of the frame; 0: none, or a priority alone
    uint8_t checksum         # checksum_status_t of the transport checksum
