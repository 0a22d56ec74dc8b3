# SPDX-License-Identifier: MIT
"""IP and TCP of an engine. See layers.pxd."""

from libc.stdint cimport uint64_t

from ustack.engine.records cimport engine_t
from ustack.ip.layer cimport ip_config_t, ip_destroy, ip_init
from ustack.tcp.records.configuration cimport tcp_config_t
from ustack.tcp.records.life cimport tcp_destroy, tcp_init
from ustack.tcp.recovery.control cimport control_provide
from ustack.tcp.tracing cimport tracing_end


cdef void begin_layers(engine_t *engine, const ip_config_t *ip_config, const tcp_config_t *tcp_config,
                       uint64_t seed) except *:
    if ip_init(&engine.ip, engine.link, &engine.counters, ip_config, engine.now_ns) != 0:
        raise MemoryError("no memory for the IP layer")
    if tcp_init(&engine.tcp, &engine.ip, &engine.counters, tcp_config, seed, engine.now_ns) != 0:
        ip_destroy(&engine.ip)
        raise MemoryError("no memory for TCP")
    if control_provide(&engine.tcp, tcp_config.cc) != 0:
        end_layers(engine)
        raise MemoryError("no memory for the congestion control")


cdef void end_layers(engine_t *engine) noexcept:
    tracing_end(&engine.tcp)
    tcp_destroy(&engine.tcp)
    ip_destroy(&engine.ip)
