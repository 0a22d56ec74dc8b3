# SPDX-License-Identifier: MIT
# The packets of one frame, as they travel on a wire: a super-frame is cut, an ordinary frame is one packet.
#
#     cutter_begin ─▶ [ cutter_length ─▶ cutter_write, or not ─▶ cutter_step ] until cutter_length is 0
#
# Whoever carries the packets decides about each by its length alone, and has it written only if it is to go on.
#
# Checksums that a local sender has left to a device stay partial, with the place told in offload_t; so do those of the
# packets that a super-frame is cut into. packet_complete fills one in for a device that does not.
#
# It must not: trust a length of the frame's, or what a device says about it. Read first: RFC 9293 section 3.1, RFC 791,
# RFC 8200 section 4; Documentation/networking/segmentation-offloads.rst of Linux. Above: direction. Below: buf, wire.
#
# Not done: packets inside of tunnels; fragments of UDP (UFO, which Linux no longer has): UDP is cut into datagrams.
# A tag that a device has taken out comes back as a customer's tag (IEEE 802.1Q) without its priority. CWR stays on the
# first packet alone, as RFC 3168 wants it: where it is a bit of a counter (RFC 9768), super-frames lose it.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.buf.frame cimport frame_t
from ustack.link.device cimport offload_t

cdef enum:
    GSO_BYTES_MIN = 8                # as Linux has it (TCP_MIN_GSO_SIZE): smaller ones would be too many packets

ctypedef struct cutter_t:
    const uint8_t *frame
    uint32_t length                  # bytes that count: an Ethernet header and, of a super-frame, no padding
    uint32_t at                      # data bytes before the current packet
    uint32_t data_bytes              # of the super-frame
    uint16_t tag                     # to be put back; 0: none
    uint16_t gso_size                # 0: the frame is one packet
    uint16_t network                 # from the frame's first byte to the IP header; 0: there is none
    uint16_t transport               # to the TCP or UDP header; 0: there is none
    uint16_t header_bytes            # to the data
    uint16_t number                  # of the current packet
    uint8_t family                   # 4, 6; 0: neither
    uint8_t protocol                 # of the transport header
    uint8_t is_partial               # the checksum is to be filled in
    uint8_t is_done

# False: the frame cannot be what the device says it is, and is to be dropped.
cdef bint cutter_begin(cutter_t *cutter, const frame_t *frame) noexcept nogil
# Bytes of the current packet, Ethernet header and tag included; 0: there is none.
cdef uint32_t cutter_length(const cutter_t *cutter) noexcept nogil
# Write the current packet, cutter_length bytes.
cdef void cutter_write(const cutter_t *cutter, uint8_t *packet, offload_t *offload) noexcept nogil
cdef void cutter_step(cutter_t *cutter) noexcept nogil
# Set Congestion Experienced in the packet just written, if it says that its transport knows ECN (RFC 3168 section 5).
# Returns whether it is set now.
cdef bint packet_mark(const cutter_t *cutter, uint8_t *packet) noexcept nogil
# Fill in the checksum, and ask no device for anything.
cdef void packet_complete(uint8_t *packet, uint32_t length, offload_t *offload) noexcept nogil
