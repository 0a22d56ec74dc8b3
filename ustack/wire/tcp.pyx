# SPDX-License-Identifier: MIT
"""TCP segments: bytes to fields and back. See tcp.pxd for the layout and the contract.

Read first: RFC 9293 sections 3.1 and 3.2, RFC 7323 sections 2.2 and 3.2, RFC 2018 sections 2 and 3, RFC 9768 section
3.2.3.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from ustack.base.counters cimport DROP_TCP_OPTION
from ustack.wire.octets cimport read_u16, read_u32, write_u16, write_u32


cdef enum:
    OPTION_EOL = 0
    OPTION_NOP = 1
    OPTION_MSS = 2
    OPTION_WSCALE = 3
    OPTION_SACK_PERMITTED = 4
    OPTION_SACK = 5
    OPTION_TIMESTAMPS = 8


cdef int segment_parse_options(const uint8_t *at, uint32_t left, segment_t *out) noexcept nogil:
    """Options in any order, at any alignment (MUST-64), unknown ones skipped by their length (MUST-6)."""
    cdef uint32_t size
    while left > 0:
        if at[0] == OPTION_EOL:
            return 0
        if at[0] == OPTION_NOP:
            at += 1
            left -= 1
            continue
        if left < 2 or at[1] < 2 or at[1] > left:
            return DROP_TCP_OPTION                     # MUST-7
        size = at[1]
        if at[0] == OPTION_MSS and size == 4:
            out.has |= HAS_MSS
            out.mss = read_u16(at + 2)
        elif at[0] == OPTION_WSCALE and size == 3:
            out.has |= HAS_WSCALE
            out.wscale = at[2] if at[2] <= TCP_WSCALE_MAX else TCP_WSCALE_MAX
        elif at[0] == OPTION_SACK_PERMITTED and size == 2:
            out.has |= HAS_SACK_PERMITTED
        elif at[0] == OPTION_TIMESTAMPS and size == 10:
            out.has |= HAS_TIMESTAMPS
            out.ts_val = read_u32(at + 2)
            out.ts_ecr = read_u32(at + 6)
        elif at[0] == OPTION_SACK and size >= 10 and (size - 2) % 8 == 0:
            parse_sack(at + 2, (size - 2) // 8, out)
        elif at[0] == OPTION_ACCECN0 or at[0] == OPTION_ACCECN1:
            out.has |= HAS_ACCECN
            out.accecn = at
        at += size
        left -= size
    return 0


cdef void parse_sack(const uint8_t *at, uint32_t blocks, segment_t *out) noexcept nogil:
    """RFC 2018 section 3: left edge and right edge of each block, at most 4 fit."""
    cdef uint32_t i
    out.sack_count = <uint8_t>(blocks if blocks < SEGMENT_SACK_BLOCKS else SEGMENT_SACK_BLOCKS)
    for i in range(out.sack_count):
        out.sack[i].left = read_u32(at + 8 * i)
        out.sack[i].right = read_u32(at + 8 * i + 4)


cdef uint32_t segment_emit_options(uint8_t *out, const header_t *header) noexcept nogil:
    """MSS, window scale and SACK-permitted of SYNs; what few segments have (the urgent pointer, emit_rest)."""
    cdef uint8_t *at = out + TCP_HEADER_BYTES
    cdef uint32_t header_bytes
    if header.has & HAS_URGENT:
        write_u16(out + 18, header.urgent)
    if header.has & HAS_MSS:
        at[0] = OPTION_MSS
        at[1] = 4
        write_u16(at + 2, header.mss)
        at += 4
    if header.has & HAS_SACK_PERMITTED:
        if header.has & HAS_TIMESTAMPS:                     # fills the two bytes that NOPs would
            at[0] = OPTION_SACK_PERMITTED
            at[1] = 2
            at[2] = OPTION_TIMESTAMPS
            at[3] = 10
        else:
            write_u32(at, 0x01010402)
        at += 4
    elif header.has & HAS_TIMESTAMPS:
        write_u32(at, PADDED_TIMESTAMPS)
        at += 4
    if header.has & HAS_TIMESTAMPS:
        write_u32(at, header.ts_val)
        write_u32(at + 4, header.ts_ecr)
        at += 8
    if header.has & HAS_WSCALE:
        at[0] = OPTION_NOP
        at[1] = OPTION_WSCALE
        at[2] = 3
        at[3] = header.wscale
        at += 4
    if header.has & (HAS_SACK | HAS_ACCECN | HAS_AE):
        return emit_rest(out, at, header)
    header_bytes = <uint32_t>(at - out)
    out[12] = <uint8_t>(header_bytes << 2)                  # offset in words, in the upper four bits
    return header_bytes


cdef uint32_t emit_rest(uint8_t *out, uint8_t *at, const header_t *header) noexcept nogil:
    """What few segments have: the feedback of RFC 9768, SACK blocks."""
    cdef uint32_t i, header_bytes
    if header.has & HAS_ACCECN:
        at[0] = header.accecn_kind
        at[1] = <uint8_t>(2 + 3 * header.accecn_fields)
        for i in range(header.accecn_fields):
            at[2 + 3 * i] = <uint8_t>(header.accecn[i] >> 16)
            at[3 + 3 * i] = <uint8_t>(header.accecn[i] >> 8)
            at[4 + 3 * i] = <uint8_t>header.accecn[i]
        for i in range(2 + 3 * header.accecn_fields, accecn_option_bytes(header.accecn_fields)):
            at[i] = OPTION_NOP
        at += accecn_option_bytes(header.accecn_fields)
    if header.has & HAS_SACK:
        at[0] = OPTION_NOP
        at[1] = OPTION_NOP
        at[2] = OPTION_SACK
        at[3] = <uint8_t>(2 + 8 * header.sack_count)
        at += 4
        for i in range(header.sack_count):
            write_u32(at, header.sack[i].left)
            write_u32(at + 4, header.sack[i].right)
            at += 8
    header_bytes = <uint32_t>(at - out)
    out[12] = <uint8_t>(header_bytes << 2 | (1 if header.has & HAS_AE else 0))
    return header_bytes


cdef uint32_t segment_accecn(const segment_t *segment, uint32_t *fields) noexcept nogil:
    cdef const uint8_t *at = segment.accecn
    cdef uint32_t i, there = (<uint32_t>at[1] - 2) // 3
    if there > ACCECN_FIELDS:
        there = ACCECN_FIELDS
    for i in range(there):
        fields[i] = <uint32_t>at[2 + 3 * i] << 16 | <uint32_t>at[3 + 3 * i] << 8 | at[4 + 3 * i]
    return there


# ---------------------------------------------------------------- for tests

def parse(bytes header: bytes) -> dict[str, object]:
    """Fields of one segment; raises ValueError with the counter's number for a malformed one."""
    cdef segment_t segment
    cdef uint32_t[ACCECN_FIELDS] fields
    cdef uint32_t there = 0
    memset(&segment, 0, sizeof(segment))
    cdef int reason = segment_parse(header, <uint32_t>len(header), &segment)
    if reason:
        raise ValueError(reason)
    if segment.has & HAS_ACCECN:
        there = segment_accecn(&segment, fields)
    return {
        "sport": segment.sport, "dport": segment.dport, "seq": segment.seq, "ack": segment.ack,
        "flags": segment.flags, "window": segment.window, "urgent": segment.urgent,
        "mss": segment.mss if segment.has & HAS_MSS else None,
        "wscale": segment.wscale if segment.has & HAS_WSCALE else None,
        "sack_permitted": bool(segment.has & HAS_SACK_PERMITTED),
        "timestamps": (segment.ts_val, segment.ts_ecr) if segment.has & HAS_TIMESTAMPS else None,
        "sack": [(segment.sack[i].left, segment.sack[i].right) for i in range(segment.sack_count)],
        "ace": segment_ace(&segment),
        "accecn": (segment.accecn[0], [fields[i] for i in range(there)]) if segment.has & HAS_ACCECN else None,
        "data": header[len(header) - segment.length:],
    }


def emit(
    int sport, int dport, uint32_t seq, uint32_t ack, int flags, int window, *,
    mss: int | None = None, wscale: int | None = None, sack_permitted: bool = False,
    timestamps: tuple[int, int] | None = None, sack: tuple[tuple[int, int], ...] = (), ace: int = 0,
    accecn: tuple[int, tuple[int, ...]] | None = None, urgent: int | None = None,
) -> bytes:
    """Header and options of one segment, checksum zero."""
    cdef header_t header
    cdef uint8_t[TCP_HEADER_BYTES + TCP_MAX_OPTION_BYTES] out
    memset(&header, 0, sizeof(header))
    header.sport, header.dport, header.seq, header.ack = sport, dport, seq, ack
    header.flags, header.window = flags, window
    if mss is not None:
        header.has |= HAS_MSS
        header.mss = mss
    if wscale is not None:
        header.has |= HAS_WSCALE
        header.wscale = wscale
    if sack_permitted:
        header.has |= HAS_SACK_PERMITTED
    if timestamps is not None:
        header.has |= HAS_TIMESTAMPS
        header.ts_val, header.ts_ecr = timestamps
    if len(sack) > (3 if timestamps is not None else 4):
        raise ValueError("more SACK blocks than the option space holds")
    for left, right in sack:
        header.sack[header.sack_count].left = left
        header.sack[header.sack_count].right = right
        header.sack_count += 1
        header.has |= HAS_SACK
    header_say_ace(&header, ace)
    if urgent is not None:
        header.has |= HAS_URGENT
        header.urgent = urgent
    if accecn is not None:
        header.has |= HAS_ACCECN
        header.accecn_kind = accecn[0]
        for value in accecn[1]:
            header.accecn[header.accecn_fields] = value
            header.accecn_fields += 1
    size = segment_emit(out, &header)
    return bytes(out[:size])
