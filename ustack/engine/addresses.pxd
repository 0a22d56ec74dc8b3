# SPDX-License-Identifier: MIT
# Which addresses a stack may be given, as text. Read first: RFC 1122 section 3.2.1.3. Above: owner, blocking/stack.

from ustack.ip.layer cimport ip_config_t

# The stack's own address with its prefix length, and its gateway (or None). Raises ValueError for what no host can
# have, and for a gateway that is not a neighbour. sources: more addresses of the same network ("A-B, C"), or None.
cdef void configure_addresses(ip_config_t *ip_config, str address, str gateway, str sources) except *
# Raises ValueError for an IPv6 address, with or without prefix.
cdef int refuse_ipv6(str address) except -1
