# SPDX-License-Identifier: MIT
"""Defaults of TCP's limits and times, each with the requirement that it meets."""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from ustack.base.wheel cimport WHEEL_TICK_SHIFT
from ustack.tcp.cc.registry cimport CC_FIRST

cdef uint64_t MS = 1000000
cdef uint64_t SECOND = 1000000000


cdef void tcp_config_defaults(tcp_config_t *config) noexcept nogil:
    memset(config, 0, sizeof(tcp_config_t))
    config.max_connections = 16u << 20
    config.syn_queue = 16384
    config.syn_cookies = 1                     # RFC 4987 section 3.6: only when nothing else helps
    config.admission = 1                       # a peer that asks again is better than one that knows at once, and does
    config.time_wait_limit = 4u << 20
    config.rcv_buffer_bytes = 512 * 1024
    config.rcv_buffer_max_bytes = 16u << 20    # 1 Gb/s over 100 ms are 12.5 MB
    config.rx_memory_bytes = 512u << 20
    config.snd_queue_bytes = 1u << 30
    config.snd_low_water_bytes = 128 * 1024
    config.snd_unsent_low_water_bytes = 1u << 30   # the largest queue: no mark, as on Linux (tcp_notsent_lowat)
    config.initial_window_segments = 10
    config.mtu_probe_base_bytes = 1024         # RFC 4821 section 7.2
    # RFC 2923 section 2.1: a path that drops large packets in silence lets connections open, and then they hang until
    # they time out. To look for the size only where a connection stands still costs nothing anywhere else, and there
    # nothing is left to lose. (Linux: tcp_mtu_probing, 0 by default.)
    config.mtu_probing = 1
    config.rto_initial_ns = SECOND             # RFC 6298 (2.1)
    # RFC 6298 (2.4) says one second (SHOULD), for clocks of 500 ms and peers that delay ACKs so long. RFC 8961 section
    # 4 takes another minimum where there is experience with it: 200 ms is above the delayed ACKs of today's systems (40
    # to 200 ms), Linux has had it since before RFC 6298, and a timeout that was none is found and undone (F-RTO,
    # Eifel).
    config.rto_min_ns = 200 * MS
    config.rto_variance_min_ns = 1u << WHEEL_TICK_SHIFT     # timers tick so
    config.tail_probe_min_ns = 2 * MS
    config.rto_max_ns = 60 * SECOND            # RFC 6298 (2.5)
    config.delayed_ack_ns = 40 * MS
    config.msl_ns = 30 * SECOND             # TIME-WAIT of 60 s, as Linux; RFC 9293 section 3.4.2 has 2 min for MSL
    config.user_timeout_ns = 900 * SECOND      # SHLD-11: at least 100 s
    config.syn_timeout_ns = 180 * SECOND       # MUST-23: at least 3 minutes
    config.syn_ack_timeout_ns = 63 * SECOND    # five repetitions
    config.fin_wait_2_timeout_ns = 60 * SECOND
    config.path_mtu_expires_ns = 600 * SECOND  # RFC 1191 section 6.3
    config.orphan_timeout_ns = 120 * SECOND    # seven repetitions of a FIN; Linux: 100 to 130 s (tcp_orphan_retries)
    config.max_orphans = 1u << 20              # as many as may be closed in one go: they cost no more than open ones
    config.keepalive_idle_ns = 7200 * SECOND   # MUST-28
    config.keepalive_interval_ns = 75 * SECOND
    config.keepalive_probes = 9
    config.window_probe_bytes = 1              # RFC 9293 section 3.8.6.1: "at least one octet of new data"
    config.holder_bytes_per_second = 100       # a page of 100 KB in a quarter of an hour; people give up before
    config.holder_interval_ns = 30 * SECOND    # several windows of such a reader
    config.challenge_acks_per_second = 1000    # what Linux had before it gave up the total
    config.corrective_interval_ns = 500 * MS   # as Linux (tcp_invalid_ratelimit)
    config.ttl = 64
    config.timestamps = 1
    config.sack = 1
    config.window_scaling = 1
    # Who offers ECN knows its path; whoever else offers it to all may wait a second more for a host behind equipment
    # that drops such a SYN (RFC 3168 section 6.1.1.1). Linux has the same default.
    config.ecn = ECN_ACCEPT
    config.cc = CC_FIRST
    # Afterwards ACKs pace, a burst costs this machine less, and most queues hold it.
    config.pacing = PACING_OF_SLOW_START
    config.cc_records = 16u << 20              # every connection may have one
    config.extra_records = 16u << 20
    config.flights = 16u << 20
    config.transmissions = 16u << 20           # 1 GiB
