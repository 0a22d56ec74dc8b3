# SPDX-License-Identifier: MIT
# TCP segments: bytes to fields and back (RFC 9293 section 3.1, options of RFC 7323 and RFC 2018, flags of RFC 3168).
#
# It must not: know any state, or trust any length. Neighbours: above, tcp; below, nothing.
#
#      0                   1                   2                   3
#      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
#     +-------------------------------+-------------------------------+
#  0  |          source port          |       destination port        |
#  4  |                        sequence number                        |
#  8  |                     acknowledgment number                     |
# 12  | offset|  res  |     flags     |            window             |
# 16  |           checksum            |         urgent pointer        |
# 20  |                      options, then data                       |

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef enum:
    TCP_HEADER_BYTES = 20
    TCP_MAX_OPTION_BYTES = 40
    TCP_CHECKSUM_OFFSET = 16
    TCP_WSCALE_MAX = 14                 # RFC 7323 section 2.3
    TCP_TIMESTAMP_BYTES = 12            # option and its two NOPs, as every sender pads it
    SEGMENT_SACK_BLOCKS = 4

cdef enum tcp_header_flags_t:
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80
    CE = 0x100                          # not of the header: the packet around was marked (RFC 3168). writer: tcp/input

cdef enum segment_has_t:                # which options were there
    HAS_MSS = 1
    HAS_WSCALE = 2
    HAS_SACK_PERMITTED = 4
    HAS_TIMESTAMPS = 8

ctypedef struct sack_block_t:
    uint32_t left
    uint32_t right

# One segment as it arrived. `data` points into the frame and dies with it.
ctypedef struct segment_t:
    uint32_t seq
    uint32_t ack
    uint32_t ts_val
    uint32_t ts_ecr
    uint16_t sport
    uint16_t dport
    uint16_t window                     # as on the wire, not scaled (MUST-1)
    uint16_t urgent
    uint16_t mss
    uint16_t flags                      # tcp_header_flags_t
    uint8_t has                         # segment_has_t
    uint8_t wscale                      # clamped to TCP_WSCALE_MAX
    uint8_t sack_count
    uint32_t length                     # bytes of data
    const uint8_t *data
    sack_block_t sack[SEGMENT_SACK_BLOCKS]

# Fields of a segment to be written. Options are chosen by `has`; MSS, window scale and SACK-permitted belong on SYNs
# only.
ctypedef struct header_t:
    uint32_t seq
    uint32_t ack
    uint32_t ts_val
    uint32_t ts_ecr
    uint16_t sport
    uint16_t dport
    uint16_t window
    uint16_t mss
    uint16_t flags
    uint8_t has
    uint8_t wscale
    uint8_t sack_count
    sack_block_t sack[SEGMENT_SACK_BLOCKS]

# 0, or the counter_t to drop it under.
cdef int segment_parse(const uint8_t *header, uint32_t length, segment_t *out) noexcept nogil
# Writes header and options, zero in the checksum and urgent fields. Returns their length (a multiple of 4, at most 60).
cdef uint32_t segment_emit(uint8_t *out, const header_t *header) noexcept nogil
