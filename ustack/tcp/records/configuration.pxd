# SPDX-License-Identifier: MIT
# Every limit and time of one TCP. engine/settings gives them names, units and bounds for Python.
#
# They are set before tcp_init and constant afterwards. Below: nothing. Above: tcb.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    # config.ecn, numbered as Linux numbers net.ipv4.tcp_ecn: what is agreed on with who offers it (in), and what we
    # offer (out). Classic: RFC 3168; accurate: RFC 9768, which is classic with a peer that knows no more
    ECN_OFF = 0
    ECN_OFFER = 1                           # in classic, out classic
    ECN_ACCEPT = 2                          # in classic, out none
    ECN_ACCURATE_OFFER = 3                  # in accurate, out accurate
    ECN_ACCURATE_OFFER_CLASSIC = 4          # in accurate, out classic
    ECN_ACCURATE_ACCEPT = 5                 # in accurate, out none
    # The first SYN that goes again makes the offer of RFC 9768 again (section 3.1.4.1): congestion is a likelier reason
    # than its flags for there being no answer
    ACCURATE_SYNS_AGAIN = 1
    # config.pacing, where the control says no rate
    PACING_OFF = 0
    PACING_OF_SLOW_START = 1                # where one ACK lets go of many segments at once (recovery/control.pxd)
    PACING_ALWAYS = 2
    # config.window_growth: when an ACK lets the window grow (recovery/control.pxd)
    GROWTH_BY_ACK = 0                       # what was in flight when it came filled the window, or half of it
    GROWTH_BY_ROUND = 1                     # ... at the latest sending

ctypedef struct tcp_config_t:
    uint32_t max_connections
    uint32_t syn_queue                      # half-open records. Beyond: cookies, or the oldest makes room
    uint8_t syn_cookies                     # SYN_COOKIES_OFF, ..._UNDER_PRESSURE, ..._ALWAYS (tcp/cookies.pxd)
    uint32_t admission_frames               # so many wait in the link: no new connections. 0: as many as it thinks
    uint8_t admission                       # ADMISSION_OFF, ..._DROPS, ..._RESETS (tcp/admission.pxd)
    uint32_t time_wait_limit
    uint32_t rcv_buffer_bytes               # bytes a connection may hold unread: its window, at first
    uint32_t rcv_buffer_max_bytes           # ... and what it may grow to (receive/autotune). Not less than the first
    uint8_t whole_first_window              # ... and the first one said is whole segments of it (emit, first_window)
    uint32_t rx_memory_bytes                # memory behind what all connections hold together, in pages of 4096
    uint32_t snd_queue_bytes                # unacknowledged bytes a connection may queue
    uint32_t snd_low_water_bytes            # on_writable's marks, of connections that have none of their own
    uint32_t snd_unsent_low_water_bytes     # (marks.pxd). tcp_init makes them usable
    uint16_t initial_window_segments        # RFC 6928
    uint16_t mss                            # 0: from the link's MTU
    uint16_t mtu_probe_base_bytes           # the packet that any path is believed to carry (RFC 4821 section 7.2)
    uint8_t mtu_probing                     # MTU_PROBING_OFF, ..._SUSPECTED, ..._ALWAYS (recovery/path.pxd)
    uint64_t rto_initial_ns
    uint64_t rto_min_ns                     # RFC 6298 (2.4); why less than a second: recovery/rtt.pxd
    uint64_t rto_variance_min_ns            # G of RFC 6298 (2.3): the least that the timeout is beyond SRTT
    uint64_t tail_probe_min_ns              # recovery/tlp.pxd
    uint64_t rto_max_ns
    uint64_t delayed_ack_ns                 # < 0.5 s (MUST-40)
    uint8_t quick_acks                      # so many do not wait while we sent no data: first, after pauses (output)
    uint8_t ack_second_segment              # whatever its size, once both have been read
    uint64_t msl_ns                         # TIME-WAIT lasts twice as long
    uint64_t user_timeout_ns                # R2 for data (SHLD-11)
    uint64_t syn_timeout_ns                 # R2 for a SYN (MUST-23)
    uint64_t syn_ack_timeout_ns             # a half-open passive connection's life
    uint64_t fin_wait_2_timeout_ns          # a connection its application has closed waits this long for the peer's FIN
    uint64_t path_mtu_expires_ns            # a smaller path MTU is forgotten after this (RFC 1191 section 6.3)
    uint64_t orphan_timeout_ns              # R2 of a connection that its application has closed, from the last progress
    # Connections that applications have closed and peers have not: one more is reset instead; above half of it, one
    uint32_t max_orphans                    # that is not answered twice ends
    uint64_t keepalive_idle_ns              # MUST-28
    uint64_t keepalive_interval_ns
    uint8_t keepalive_probes
    uint8_t window_probe_bytes              # of a probe of a closed window: the next one, or none at SND.UNA - 1
    uint32_t holder_bytes_per_second        # who takes less may be ended when connections run short. 0: nobody
    uint64_t holder_interval_ns             # on the average of so long (holders.pxd)
    uint32_t challenge_acks_per_second      # for all connections, on the average (RFC 5961 section 7)
    uint64_t corrective_interval_ns         # from a corrective or challenge ACK of a connection to its next (throttle)
    uint8_t probe_answers_limited           # ... and to an answer to a keep-alive
    uint32_t backlog_extra                  # connections that a listener holds beyond its backlog
    uint8_t ttl
    uint8_t timestamps
    uint8_t sack
    uint8_t window_scaling
    uint8_t ecn                             # ECN_OFF and so on
    uint8_t cc                              # number of the default congestion control
    uint8_t measure                         # connections keep what measures.pxd has
    uint8_t push_frames                     # PSH ends whatever goes at once in several segments, too
    uint8_t pacing                          # PACING_OFF, PACING_OF_SLOW_START, PACING_ALWAYS: by the window
    uint8_t window_growth                   # GROWTH_BY_ACK, GROWTH_BY_ROUND
    uint32_t cc_records                     # records that one control keeps for connections; one more has the first
    uint32_t extra_records                  # connections with options, a path, a window or a history of their own
    uint32_t flights                        # connections with something in flight (flight_t)
    uint32_t transmissions                  # frames in flight beside each connection's first

cdef void tcp_config_defaults(tcp_config_t *config) noexcept nogil


# A low-water mark at or above the whole queue would call a full queue writable: half of it is used instead.
cdef inline uint32_t usable_low_water(const tcp_config_t *config, uint32_t wanted_bytes) noexcept nogil:
    return wanted_bytes if wanted_bytes < config.snd_queue_bytes else config.snd_queue_bytes // 2


# One for unsent bytes may be as large as the queue, and is no mark then.
cdef inline uint32_t usable_unsent_low_water(const tcp_config_t *config, uint32_t wanted_bytes) noexcept nogil:
    return wanted_bytes if wanted_bytes < config.snd_queue_bytes else config.snd_queue_bytes


# A peer's offer of accurate feedback is taken.
cdef inline bint ecn_takes_accurate(const tcp_config_t *config) noexcept nogil:
    return config.ecn >= ECN_ACCURATE_OFFER


# Our SYN makes the offer of RFC 3168.
cdef inline bint ecn_offers_classic(const tcp_config_t *config) noexcept nogil:
    return config.ecn == ECN_OFFER or config.ecn == ECN_ACCURATE_OFFER_CLASSIC
