# SPDX-License-Identifier: MIT
# TCP segments: bytes to fields and back (RFC 9293 section 3.1, options of RFC 7323, RFC 2018 and RFC 9768, flags of RFC
# 3168 and RFC 9768).
#
# It must not: know any state, or trust any length. Neighbours: above, tcp; below, nothing.
#
#      0                   1                   2                   3
#      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
#     +-------------------------------+-------------------------------+
#  0  |          source port          |       destination port        |
#  4  |                        sequence number                        |
#  8  |                     acknowledgment number                     |
# 12  | offset| res |A|     flags     |            window             |      A: AE, read by segment_ace alone
# 16  |           checksum            |         urgent pointer        |
# 20  |                      options, then data                       |

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.base.counters cimport DROP_TCP_DATA_OFFSET, DROP_TCP_TRUNCATED
from ustack.wire.octets cimport read_u16, read_u32, write_u16, write_u32

cdef enum:
    TCP_HEADER_BYTES = 20
    TCP_MAX_OPTION_BYTES = 40
    TCP_CHECKSUM_OFFSET = 16
    TCP_WSCALE_MAX = 14                 # RFC 7323 section 2.3
    TCP_TIMESTAMP_BYTES = 12            # option and its two NOPs, as every sender pads it
    SEGMENT_SACK_BLOCKS = 4
    ACCECN_FIELDS = 3
    # NOP, NOP, timestamps, length 10: how every modern sender begins a segment's options
    PADDED_TIMESTAMPS = 0x0101080A
    # Kinds of the AccECN option (RFC 9768 section 3.2.3): its fields are EE0B, ECEB, EE1B, or the other way round
    OPTION_ACCECN0 = 172
    OPTION_ACCECN1 = 174

cdef enum tcp_header_flags_t:
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80
    # Not of the header. What the IP header around says of ECN (RFC 3168), one of the three or none. writer: tcp/input
    CE = 0x100
    ECT0 = 0x200
    ECT1 = 0x400
    ACCURATE = 0x800                    # ... and its connection counts all that (RFC 9768)

cdef enum segment_has_t:                # which options were there, or are to be written
    HAS_MSS = 1
    HAS_WSCALE = 2
    HAS_SACK_PERMITTED = 4
    HAS_TIMESTAMPS = 8
    HAS_ACCECN = 16
    HAS_SACK = 32                       # of a header_t: sack_count is valid
    HAS_AE = 64                         # of a header_t: the flag AE
    HAS_URGENT = 128                    # of a header_t: urgent is valid

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
    const uint8_t *header
    const uint8_t *accecn               # with HAS_ACCECN: the option, of any length (segment_accecn)
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
    uint16_t urgent                     # with HAS_URGENT, and URG among the flags
    uint8_t has
    uint8_t wscale
    uint8_t sack_count                  # with HAS_SACK: at least 1
    uint8_t accecn_kind                 # with HAS_ACCECN: OPTION_ACCECN0 or 1, its fields in the order of the wire
    uint8_t accecn_fields
    uint32_t accecn[ACCECN_FIELDS]      # 24 bits of each
    sack_block_t sack[SEGMENT_SACK_BLOCKS]

# The AccECN option of a segment that has one: as many whole fields as are there, the rest of it is padding (RFC 9768
# section 3.2.3). Returns how many, 0 to 3.
cdef uint32_t segment_accecn(const segment_t *segment, uint32_t *fields) noexcept nogil
cdef int segment_parse_options(const uint8_t *at, uint32_t left, segment_t *out) noexcept nogil
cdef uint32_t segment_emit_options(uint8_t *out, const header_t *header) noexcept nogil


# 0, or the counter_t to drop it under.
cdef inline int segment_parse(const uint8_t *header, uint32_t length, segment_t *out) noexcept nogil:
    cdef uint32_t header_bytes
    if length < TCP_HEADER_BYTES:
        return DROP_TCP_TRUNCATED
    header_bytes = <uint32_t>(header[12] >> 4) * 4
    if header_bytes < TCP_HEADER_BYTES or header_bytes > length:
        return DROP_TCP_DATA_OFFSET
    out.sport = read_u16(header)
    out.dport = read_u16(header + 2)
    out.seq = read_u32(header + 4)
    out.ack = read_u32(header + 8)
    out.flags = header[13]
    out.window = read_u16(header + 14)
    out.urgent = read_u16(header + 18)
    out.has = 0
    out.sack_count = 0
    out.header = header
    out.data = header + header_bytes
    out.length = length - header_bytes
    if header_bytes == TCP_HEADER_BYTES:
        return 0
    if (header_bytes == TCP_HEADER_BYTES + TCP_TIMESTAMP_BYTES
            and read_u32(header + TCP_HEADER_BYTES) == PADDED_TIMESTAMPS):
        out.has = HAS_TIMESTAMPS
        out.ts_val = read_u32(header + 24)
        out.ts_ecr = read_u32(header + 28)
        return 0
    return segment_parse_options(header + TCP_HEADER_BYTES, header_bytes - TCP_HEADER_BYTES, out)


# Writes header and options, zero in the checksum field, and in the urgent one but for HAS_URGENT. Returns their length
# (a multiple of 4, at most 60).
cdef inline uint32_t segment_emit(uint8_t *out, const header_t *header) noexcept nogil:
    write_u16(out, header.sport)
    write_u16(out + 2, header.dport)
    write_u32(out + 4, header.seq)
    write_u32(out + 8, header.ack)
    write_u16(out + 14, header.window)
    out[13] = <uint8_t>header.flags
    write_u32(out + 16, 0)                                  # checksum: ip_commit; urgent pointer: seldom
    if header.has & ~HAS_TIMESTAMPS:
        return segment_emit_options(out, header)
    if not header.has:
        out[12] = <uint8_t>(TCP_HEADER_BYTES << 2)          # offset in words, in the upper four bits
        return TCP_HEADER_BYTES
    out[12] = <uint8_t>((TCP_HEADER_BYTES + TCP_TIMESTAMP_BYTES) << 2)
    write_u32(out + TCP_HEADER_BYTES, PADDED_TIMESTAMPS)
    write_u32(out + 24, header.ts_val)
    write_u32(out + 28, header.ts_ecr)
    return TCP_HEADER_BYTES + TCP_TIMESTAMP_BYTES


# AE, CWR and ECE as one number: on a SYN they negotiate, later they are the ACE counter (RFC 9768 sections 3.1, 3.2.2).
cdef inline uint8_t segment_ace(const segment_t *segment) noexcept nogil:
    return <uint8_t>((segment.header[12] & 1) << 2 | segment.header[13] >> 6)


# The same to be written.
cdef inline void header_say_ace(header_t *header, uint32_t ace) noexcept nogil:
    header.flags |= <uint16_t>((ace & 3) << 6)
    if ace & 4:
        header.has |= HAS_AE


# Bytes that the option takes, padding included.
cdef inline uint32_t accecn_option_bytes(uint32_t fields) noexcept nogil:
    return (2 + 3 * fields + 3) & ~3u
