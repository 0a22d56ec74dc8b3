# SPDX-License-Identifier: MIT
"""ICMP for IPv4: bytes to fields and back."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from ustack.base.bytestring cimport data_of
from ustack.base.counters cimport counter_t
from ustack.wire.checksum cimport checksum_emit, checksum_fold, checksum_partial
from ustack.wire.octets cimport read_u32_be, write_u16_be, write_u32_be


cdef int icmp_parse(const uint8_t *message, uint32_t length, icmp_t *out) noexcept nogil:
    if length < ICMP_HEADER_BYTES:
        return counter_t.DROP_ICMP_TRUNCATED
    if checksum_fold(checksum_partial(message, length, 0)) != 0xFFFF:
        return counter_t.DROP_ICMP_CHECKSUM
    out.type = message[0]
    out.code = message[1]
    out.rest_be = read_u32_be(message + 4)
    return 0


cdef void icmp_emit(uint8_t *out, uint32_t length, const icmp_t *fields) noexcept nogil:
    out[0] = fields.type
    out[1] = fields.code
    write_u16_be(out + 2, 0)
    write_u32_be(out + 4, fields.rest_be)
    write_u16_be(out + 2, checksum_emit(checksum_partial(out, length, 0)))


# ---------------------------------------------------------------- for tests
def parse(message: bytes) -> dict[str, object] | int:
    """Fields by name, or the counter_t that the packet is dropped under."""
    cdef icmp_t fields
    cdef const uint8_t *data = data_of(message)
    cdef int reason = icmp_parse(data, <uint32_t>len(message), &fields)
    if reason:
        return reason
    return {
        "type": fields.type, "code": fields.code, "rest": (<const char *>&fields.rest_be)[:4],
        "next_hop_mtu": icmp_next_hop_mtu(data),
    }


def emit(type: int, code: int, rest: bytes, data: bytes) -> bytes:
    """A whole message, checksum included."""
    cdef icmp_t fields
    if len(rest) != 4:
        raise ValueError("bytes 4 to 7 are four")
    message = bytearray(ICMP_HEADER_BYTES) + data
    fields.type, fields.code = <uint8_t>type, <uint8_t>code
    memcpy(&fields.rest_be, data_of(rest), 4)
    icmp_emit(<uint8_t *><char *>message, <uint32_t>len(message), &fields)
    return bytes(message)
