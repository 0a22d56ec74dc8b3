# SPDX-License-Identifier: MIT
# The layers of an engine, on its link: begun together, ended together.
#
# Above: owner. Below: ip/layer, tcp/records/life, tcp/recovery/control.

from libc.stdint cimport uint64_t

from ustack.engine.records cimport engine_t
from ustack.ip.layer cimport ip_config_t
from ustack.tcp.records.configuration cimport tcp_config_t

# IP, TCP on it, and the records of the configured congestion control. Raises MemoryError, and has begun none then.
# engine: its link and its time are set.
cdef void begin_layers(engine_t *engine, const ip_config_t *ip_config, const tcp_config_t *tcp_config,
                       uint64_t seed) except *
# No connection is left.
cdef void end_layers(engine_t *engine) noexcept
