# SPDX-License-Identifier: MIT
"""Settings by name, with the bounds within which the stack works.

The names are those of tcp_config_t (tcp/tcb.pxd) and ip_config_t (ip/state.pxd), where each is explained; defaults are
in tcp_config_defaults and ip_config_defaults.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef uint64_t DAY_NS = 86400ULL * 1000000000ULL


cdef uint64_t bounded(str name, object value, uint64_t low, uint64_t high) except? 0xFFFFFFFFFFFFFFFF:
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be a whole number from {low} to {high}")
    return value


cdef void configure(ip_config_t *ip, tcp_config_t *tcp, str name, object value) except *:
    if name == "max_connections":
        tcp.max_connections = <uint32_t>bounded(name, value, 1, 1 << 28)
    elif name == "syn_queue":
        tcp.syn_queue = <uint32_t>bounded(name, value, 1, 1 << 28)
    elif name == "time_wait_limit":
        tcp.time_wait_limit = <uint32_t>bounded(name, value, 1, 1 << 28)
    elif name == "rcv_buffer_bytes":
        tcp.rcv_buffer_bytes = <uint32_t>bounded(name, value, 1, 1 << 29)
    elif name == "rx_memory_bytes":
        tcp.rx_memory_bytes = <uint32_t>bounded(name, value, 1, 0xFFFFFFFF)
    elif name == "snd_queue_bytes":
        tcp.snd_queue_bytes = <uint32_t>bounded(name, value, 1, 1 << 30)
    elif name == "snd_low_water_bytes":
        tcp.snd_low_water_bytes = <uint32_t>bounded(name, value, 0, 1 << 30)
    elif name == "initial_window_segments":
        tcp.initial_window_segments = <uint16_t>bounded(name, value, 1, 1000)
    elif name == "mss":
        tcp.mss = <uint16_t>bounded(name, value, 64, 65495)
    elif name == "rto_initial_ns":
        tcp.rto_initial_ns = bounded(name, value, 1000000, DAY_NS)
    elif name == "rto_min_ns":
        tcp.rto_min_ns = bounded(name, value, 1000000, DAY_NS)
    elif name == "rto_max_ns":
        tcp.rto_max_ns = bounded(name, value, 1000000, DAY_NS)
    elif name == "delayed_ack_ns":
        tcp.delayed_ack_ns = bounded(name, value, 0, 499999999)
    elif name == "msl_ns":
        tcp.msl_ns = bounded(name, value, 0, DAY_NS)
    elif name == "user_timeout_ns":
        tcp.user_timeout_ns = bounded(name, value, 1000000, 5 * DAY_NS)
    elif name == "syn_timeout_ns":
        tcp.syn_timeout_ns = bounded(name, value, 1000000, 5 * DAY_NS)
    elif name == "syn_ack_timeout_ns":
        tcp.syn_ack_timeout_ns = bounded(name, value, 1000000, DAY_NS)
    elif name == "fin_wait_2_timeout_ns":
        tcp.fin_wait_2_timeout_ns = bounded(name, value, 1000000, DAY_NS)
    elif name == "keepalive_idle_ns":
        tcp.keepalive_idle_ns = bounded(name, value, 1000000, 5 * DAY_NS)
    elif name == "keepalive_interval_ns":
        tcp.keepalive_interval_ns = bounded(name, value, 1000000, DAY_NS)
    elif name == "keepalive_probes":
        tcp.keepalive_probes = <uint8_t>bounded(name, value, 1, 255)
    elif name == "ttl":
        tcp.ttl = <uint8_t>bounded(name, value, 1, 255)
        ip.ttl = tcp.ttl
    elif name == "timestamps":
        tcp.timestamps = <uint8_t>bounded(name, value, 0, 1)
    elif name == "sack":
        tcp.sack = <uint8_t>bounded(name, value, 0, 1)
    elif name == "window_scaling":
        tcp.window_scaling = <uint8_t>bounded(name, value, 0, 1)
    elif name == "neighbour_reachable_ns":
        ip.neighbour_reachable_ns = bounded(name, value, 1000000, DAY_NS)
    elif name == "neighbour_retry_ns":
        ip.neighbour_retry_ns = bounded(name, value, 1000000, DAY_NS)
    elif name == "neighbour_tries":
        ip.neighbour_tries = <uint8_t>bounded(name, value, 1, 255)
    elif name == "neighbour_queue":
        ip.neighbour_queue = <uint8_t>bounded(name, value, 1, 255)
    elif name == "neighbour_limit":
        ip.neighbour_limit = <uint16_t>bounded(name, value, 2, 65534)
    else:
        raise ValueError(f"{name}: there is no such setting")
