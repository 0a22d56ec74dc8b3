# SPDX-License-Identifier: MIT
"""Ethernet II headers: bytes to fields and back."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.base.bytestring cimport bytes_from, data_of
from ustack.base.counters cimport counter_t
from ustack.wire.octets cimport read_u16


cdef int vlan_tag_parse(const uint8_t *tag, uint32_t length, vlan_tag_t *out) noexcept nogil:
    if length < VLAN_TAG_BYTES:
        return counter_t.DROP_FRAME_TRUNCATED
    out.vlan_id = read_u16(tag) & VLAN_ID_MASK
    out.ethertype = read_u16(tag + 2)
    return 0


# ---------------------------------------------------------------- for tests
def parse(frame: bytes) -> dict[str, object] | int:
    """Fields by name, or the counter_t that the frame is dropped under."""
    cdef ethernet_t fields
    cdef int reason = ethernet_parse(data_of(frame), <uint32_t>len(frame), &fields)
    if reason:
        return reason
    return {
        "destination": bytes_from(fields.destination, 6),
        "source": bytes_from(fields.source, 6),
        "ethertype": fields.ethertype,
    }


def emit(destination: bytes, source: bytes, ethertype: int) -> bytes:
    """The 14 bytes of a header."""
    cdef uint8_t out[ETHERNET_HEADER_BYTES]
    if len(destination) != MAC_BYTES or len(source) != MAC_BYTES:
        raise ValueError("a station address has 6 bytes")
    ethernet_emit(out, data_of(destination), data_of(source),
                  <uint16_t>ethertype)
    return bytes_from(out, ETHERNET_HEADER_BYTES)
