# SPDX-License-Identifier: MIT
# Settings by name, from the Python face into the structs that the stack reads.

from ustack.ip.layer cimport ip_config_t
from ustack.tcp.records.configuration cimport tcp_config_t

# One setting of tcp_config_t or ip_config_t. Raises ValueError for names and values that do not exist.
cdef void configure(ip_config_t *ip_config, tcp_config_t *tcp_config, str name, object value) except *
# Both ends of the receive window's range, after all settings: which of them the caller has named. A first size alone is
# the largest, too (as with SO_RCVBUF, a size that is set stays). Raises ValueError where they contradict each other.
cdef void settle_window(tcp_config_t *tcp_config, bint first_said, bint largest_said) except *
