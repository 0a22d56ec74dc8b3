# SPDX-License-Identifier: MIT
# Settings by name, from the Python face into the structs that the stack reads.

from ustack.ip.layer cimport ip_config_t
from ustack.tcp.records.configuration cimport tcp_config_t

# The defaults of a profile, and over them all settings that a caller has named. Raises ValueError for names and values
# that do not exist, and for values that contradict each other. A first receive window alone is the largest, too (as
# with SO_RCVBUF, a size that is set stays), whatever the profile says of either.
cdef void configure_all(ip_config_t *ip_config, tcp_config_t *tcp_config, object profile, dict config) except *
