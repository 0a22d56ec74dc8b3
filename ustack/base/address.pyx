# SPDX-License-Identifier: MIT
"""Addresses as text, both ways, through the standard library's ipaddress."""

import ipaddress

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from ustack.base.bytestring cimport data_of
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t


cdef int _write(object address, ip_addr_t *out) except -1:
    cdef uint32_t address_be
    cdef bytes packed = address.packed
    memcpy(&address_be, data_of(packed), 4)
    ip_addr_set_v4(out, address_be)
    return 0


cdef int ip_addr_from_text(str text, ip_addr_t *out) except -1:
    return _write(ipaddress.IPv4Address(text), out)


cdef int ip_interface_from_text(str text, ip_addr_t *out, int *prefix_length) except -1:
    interface = ipaddress.IPv4Interface(text)
    prefix_length[0] = interface.network.prefixlen
    return _write(interface.ip, out)


cdef str ip_addr_text(const ip_addr_t *a):
    return str(ipaddress.IPv4Address(<bytes>(<const char *>&a.octets[12])[:4]))


def roundtrip(text: str) -> tuple[str, int]:
    """The canonical spelling of an address with or without a prefix length, and that length (test shim)."""
    cdef ip_addr_t address
    cdef int prefix_length = 0
    ip_interface_from_text(text, &address, &prefix_length)
    cdef ip_addr_t alone
    ip_addr_from_text(text.partition("/")[0], &alone)
    if ip_addr_text(&alone) != ip_addr_text(&address):
        raise AssertionError(f"two spellings of {text}")
    return ip_addr_text(&address), prefix_length
