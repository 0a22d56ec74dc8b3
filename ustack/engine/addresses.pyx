# SPDX-License-Identifier: MIT
"""Which addresses a stack may be given. See addresses.pxd."""

from libc.stdint cimport uint8_t

from ustack.base.address cimport ip_addr_from_text, ip_interface_from_text
from ustack.ip.layer cimport ip_config_t

import ipaddress


cdef void configure_addresses(ip_config_t *ip_config, str address, str gateway) except *:
    cdef int prefix_length
    check_addresses(address, gateway)
    ip_interface_from_text(address, &ip_config.address, &prefix_length)
    ip_config.prefix_length = <uint8_t>prefix_length
    if gateway is not None:
        ip_addr_from_text(gateway, &ip_config.gateway)


cdef void check_addresses(str address, str gateway) except *:
    refuse_ipv6(address)
    if gateway is not None:
        refuse_ipv6(gateway)
    own = ipaddress.IPv4Interface(address)
    if "/" not in address:
        raise ValueError(f"address {address!r}: has no prefix length; write {address}/24 if its network is "
                         f"{ipaddress.IPv4Interface(f'{address}/24').network}, {address}/32 if it has no neighbours")
    network = own.network
    if own.ip.is_multicast or own.ip.is_loopback or own.ip.is_unspecified or int(own.ip) == 0xFFFFFFFF:
        raise ValueError(f"{own.ip} cannot be a host's address")
    if network.prefixlen < 31 and own.ip in (network.network_address, network.broadcast_address):
        raise ValueError(f"{own.ip} is the network's or the broadcast address of {network}")
    if gateway is not None:
        hop = ipaddress.IPv4Address(gateway)
        if hop == own.ip or hop not in network:
            raise ValueError(f"the gateway {hop} is not another host of {network}")


cdef int refuse_ipv6(str address) except -1:
    try:
        ipaddress.IPv6Interface(address)
    except ValueError:
        return 0
    raise ValueError(f"address {address!r}: IPv6 is not supported yet, only IPv4")
