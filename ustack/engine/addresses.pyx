# SPDX-License-Identifier: MIT
"""Which addresses a stack may be given. See addresses.pxd."""

from libc.stdint cimport uint8_t

from ustack.base.address cimport ip_addr_from_text, ip_interface_from_text
from ustack.ip.layer cimport ip_config_t
from ustack.ip.ranges cimport IP_RANGES_MOST, ip_range_t

import ipaddress


cdef void configure_addresses(ip_config_t *ip_config, str address, str gateway, str sources) except *:
    cdef int prefix_length
    cdef ip_range_t *more
    check_addresses(address, gateway)
    ip_interface_from_text(address, &ip_config.address, &prefix_length)
    ip_config.prefix_length = <uint8_t>prefix_length
    if gateway is not None:
        ip_addr_from_text(gateway, &ip_config.gateway)
    ip_config.range_count = 0
    for first, last in [] if sources is None else ranges_of(sources, address, gateway):
        more = &ip_config.ranges[ip_config.range_count]
        ip_addr_from_text(str(first), &more.first)
        ip_addr_from_text(str(last), &more.last)
        ip_config.range_count += 1


cdef list ranges_of(str sources, str address, str gateway):
    """(first, last) of each range, in order, with neighbours joined. Raises ValueError."""
    network = ipaddress.IPv4Interface(address).network
    hop = None if gateway is None else ipaddress.IPv4Address(gateway)
    found = []
    for text in sources.split(","):
        first, last = ends_of(text.strip())
        if first > last:
            raise ValueError(f"sources {text.strip()!r}: from the smaller address to the larger one")
        if first not in network or last not in network:
            raise ValueError(f"sources {text.strip()!r}: not in {network}, where neighbours look for them")
        if network.prefixlen < 31 and (first == network.network_address or last == network.broadcast_address):
            raise ValueError(f"sources {text.strip()!r}: the network's or the broadcast address of {network} is in it")
        if hop is not None and first <= hop <= last:
            raise ValueError(f"sources {text.strip()!r}: the gateway {hop} is in it")
        found.append((first, last))
    joined = []
    for first, last in sorted(found):
        if joined and first <= end + 1:
            first, last = joined.pop()[0], max(last, end)
        joined.append((first, last))
        end = last
    if len(joined) > IP_RANGES_MOST:
        raise ValueError(f"sources: {len(joined)} ranges, of {IP_RANGES_MOST} at most")
    return joined


cdef tuple ends_of(str text):
    """A-B, or one address."""
    refuse_ipv6(text)
    first, dash, last = text.partition("-")
    try:
        return ipaddress.IPv4Address(first.strip()), ipaddress.IPv4Address((last if dash else first).strip())
    except ValueError:
        raise ValueError(f"sources {text!r}: ADDRESS or ADDRESS-ADDRESS, and commas between") from None


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
