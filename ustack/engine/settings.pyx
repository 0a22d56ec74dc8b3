# SPDX-License-Identifier: MIT
"""Settings of a Stack by name: Stack(link, "198.18.0.2/24", mss=1400, keepalive_idle_ns=60_000_000_000).

One table says everything about a setting: its field, its bounds, what it is for. The default is the field's own, from
tcp_config_defaults and ip_config_defaults; a profile (engine/profiles) has others for some. `settings()` gives the
table to Python, help("ustack.engine.settings") prints it.

To add a setting: a field in tcp_config_t or ip_config_t, its default in *_config_defaults, a line in fill_table().
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.ip.layer cimport ip_config_defaults
from ustack.tcp.records.configuration cimport tcp_config_defaults

from typing import NamedTuple

from ustack.engine.profiles import profile_settings


class Setting(NamedTuple):
    """One setting: whole numbers from `low` to `high`; times in nanoseconds where the name ends in _ns."""

    name: str
    default: int
    low: int
    high: int
    text: str


ctypedef struct place_t:
    size_t offset                           # of the field in its struct
    size_t size                             # bytes of the field: 1, 2, 4 or 8
    bint of_ip                              # in ip_config_t, else in tcp_config_t
    uint64_t low
    uint64_t high

cdef enum:
    SETTINGS_MAX = 128

cdef uint64_t MS = 1000000ULL
cdef uint64_t DAY_NS = 86400ULL * 1000000000ULL
cdef uint64_t INDEX_MAX = 1ULL << 28        # records of a slab are named by 28 bits at most

cdef place_t PLACES[SETTINGS_MAX]
cdef dict NUMBERS = {}                      # name -> index in PLACES
cdef list TABLE = []                        # Setting, by the same index
cdef tcp_config_t TCP                       # defaults, and what offsets are measured in
cdef ip_config_t IP


cdef uint64_t load(const void *field, size_t size) noexcept:
    if size == 1:
        return (<const uint8_t *>field)[0]
    if size == 2:
        return (<const uint16_t *>field)[0]
    if size == 4:
        return (<const uint32_t *>field)[0]
    return (<const uint64_t *>field)[0]


cdef void store(void *field, size_t size, uint64_t value) noexcept:
    if size == 1:
        (<uint8_t *>field)[0] = <uint8_t>value
    elif size == 2:
        (<uint16_t *>field)[0] = <uint16_t>value
    elif size == 4:
        (<uint32_t *>field)[0] = <uint32_t>value
    else:
        (<uint64_t *>field)[0] = value


cdef void add(bint of_ip, str name, const void *field, size_t size, uint64_t low, uint64_t high, str text) except *:
    cdef size_t number = <size_t>len(TABLE)
    cdef place_t *place = &PLACES[number]
    if number >= SETTINGS_MAX or name in NUMBERS:
        raise AssertionError(f"{name}: the table is full or has it twice")
    place.offset = <size_t>(<const char *>field - (<const char *>&IP if of_ip else <const char *>&TCP))
    place.size = size
    place.of_ip = of_ip
    place.low = low
    place.high = high
    if size < 8 and high >> (8 * size):
        raise AssertionError(f"{name}: its field cannot hold {high}")
    NUMBERS[name] = number
    TABLE.append(Setting(name, load(field, size), low, high, text))


cdef inline void tcp(str name, const void *field, size_t size, uint64_t low, uint64_t high, str text) except *:
    add(False, name, field, size, low, high, text)


cdef inline void ip(str name, const void *field, size_t size, uint64_t low, uint64_t high, str text) except *:
    add(True, name, field, size, low, high, text)


cdef void fill_table() except *:
    tcp_config_defaults(&TCP)
    ip_config_defaults(&IP)
    # Bounds of memory and of numbers.
    tcp("max_connections", &TCP.max_connections, sizeof(TCP.max_connections), 1, INDEX_MAX,
        "connections that exist at once, half-open and TIME-WAIT ones not counted")
    tcp("syn_queue", &TCP.syn_queue, sizeof(TCP.syn_queue), 1, INDEX_MAX,
        "half-open connections that are remembered; what comes beyond them: syn_cookies")
    tcp("syn_cookies", &TCP.syn_cookies, sizeof(TCP.syn_cookies), 0, 2,
        "SYN cookies (RFC 4987): 0 never (the oldest half-open one makes room), 1 while syn_queue is full, 2 always")
    tcp("admission", &TCP.admission, sizeof(TCP.admission), 0, 2,
        "while too many frames wait in the link, SYNs are 0 taken, 1 dropped, 2 answered with a RST, but for a trickle")
    tcp("admission_frames", &TCP.admission_frames, sizeof(TCP.admission_frames), 0, 1 << 20,
        "frames that are too many for admission, three quarters of the link's slots at most; 0: half of an interface's "
        "receive ring, and none on links in memory")
    tcp("time_wait_limit", &TCP.time_wait_limit, sizeof(TCP.time_wait_limit), 1, INDEX_MAX,
        "TIME-WAIT records; at the limit the oldest makes room")
    tcp("rcv_buffer_bytes", &TCP.rcv_buffer_bytes, sizeof(TCP.rcv_buffer_bytes), 1, 1 << 29,
        "bytes that a connection holds for its application: its receive window at first, and for good if it is set")
    tcp("rcv_buffer_max_bytes", &TCP.rcv_buffer_max_bytes, sizeof(TCP.rcv_buffer_max_bytes), 1, 1 << 29,
        "largest receive window of a connection whose peer fills it; window scaling is offered for it")
    tcp("whole_first_window", &TCP.whole_first_window, sizeof(TCP.whole_first_window), 0, 1,
        "the window of our SYNs and SYN-ACKs is rcv_buffer_bytes 0 as they are, 1 rounded down to whole segments")
    tcp("rx_memory_bytes", &TCP.rx_memory_bytes, sizeof(TCP.rx_memory_bytes), 1, 0xFFFFFFFF,
        "bytes that all connections hold together for their applications")
    tcp("snd_queue_bytes", &TCP.snd_queue_bytes, sizeof(TCP.snd_queue_bytes), 1, 1 << 30,
        "unacknowledged bytes that a connection queues")
    tcp("snd_low_water_bytes", &TCP.snd_low_water_bytes, sizeof(TCP.snd_low_water_bytes), 0, 1 << 30,
        "on_writable is called when at most this many bytes are unacknowledged; always below snd_queue_bytes")
    tcp("snd_unsent_low_water_bytes", &TCP.snd_unsent_low_water_bytes, sizeof(TCP.snd_unsent_low_water_bytes), 0,
        1 << 30, "and at most this many were never sent; more are queued only then. From snd_queue_bytes on: no mark")
    tcp("initial_window_segments", &TCP.initial_window_segments, sizeof(TCP.initial_window_segments), 1, 1000,
        "segments in the first flight (RFC 6928)")
    tcp("mss", &TCP.mss, sizeof(TCP.mss), 64, 65495,
        "largest segment offered to peers, in bytes; the default 0 takes it from the link's MTU")
    tcp("mtu_probe_base_bytes", &TCP.mtu_probe_base_bytes, sizeof(TCP.mtu_probe_base_bytes), 552, 65535,
        "packet that any path is believed to carry, headers included: where mtu_probing begins")
    tcp("cc_records", &TCP.cc_records, sizeof(TCP.cc_records), 0, INDEX_MAX,
        "records of one congestion control (cubic: 192 bytes); a connection that gets none has newreno")
    tcp("measure", &TCP.measure, sizeof(TCP.measure), 0, 1,
        "1: connections count segments, waits and rates for ConnectionInfo as well, in 128 bytes each")
    tcp("push_frames", &TCP.push_frames, sizeof(TCP.push_frames), 0, 1,
        "PSH ends 0 what is queued, 1 each frame of several segments as well, and what Linux would put into one")
    tcp("pacing", &TCP.pacing, sizeof(TCP.pacing), 0, 2,
        "a window is spread over its round trip: 0 never, 1 in a slow start that bursts, 2 always (bbr has its rate)")
    tcp("window_growth", &TCP.window_growth, sizeof(TCP.window_growth), 0, 1,
        "cwnd grows where 0 what an ACK found in flight filled it (in slow start half of it), 1 the latest flight did")
    tcp("extra_records", &TCP.extra_records, sizeof(TCP.extra_records), 0, INDEX_MAX,
        "connections with low-water marks, a path MTU or a window of their own; one more gets none")
    tcp("flights", &TCP.flights, sizeof(TCP.flights), 0, INDEX_MAX,
        "connections with something in flight whose transmissions are recorded; one more sends frame by frame")
    tcp("transmissions", &TCP.transmissions, sizeof(TCP.transmissions), 0, INDEX_MAX,
        "frames in flight that are recorded, beside each connection's first; new data waits for one")
    # Times.
    tcp("rto_initial_ns", &TCP.rto_initial_ns, sizeof(TCP.rto_initial_ns), MS, DAY_NS,
        "retransmission timeout before the first measurement (RFC 6298)")
    tcp("rto_min_ns", &TCP.rto_min_ns, sizeof(TCP.rto_min_ns), MS, DAY_NS, "smallest retransmission timeout")
    tcp("rto_variance_min_ns", &TCP.rto_variance_min_ns, sizeof(TCP.rto_variance_min_ns), 0, DAY_NS,
        "least time from SRTT to the retransmission timeout (G of RFC 6298), beside rto_min_ns for the whole")
    tcp("tail_probe_min_ns", &TCP.tail_probe_min_ns, sizeof(TCP.tail_probe_min_ns), 0, DAY_NS,
        "shortest silence before a tail loss probe (RFC 8985), however short the round trip")
    tcp("rto_max_ns", &TCP.rto_max_ns, sizeof(TCP.rto_max_ns), MS, DAY_NS, "largest retransmission timeout")
    tcp("delayed_ack_ns", &TCP.delayed_ack_ns, sizeof(TCP.delayed_ack_ns), 0, 499999999,
        "how long an ACK may wait for company (RFC 9293 MUST-40: less than 0.5 s)")
    tcp("quick_acks", &TCP.quick_acks, sizeof(TCP.quick_acks), 0, 255,
        "so many ACKs do not wait for company while we have sent no data: at first, after a pause, after old data")
    tcp("ack_second_segment", &TCP.ack_second_segment, sizeof(TCP.ack_second_segment), 0, 1,
        "every second segment is acknowledged at once, 0 of full ones, 1 of any size when the application has read it")
    tcp("msl_ns", &TCP.msl_ns, sizeof(TCP.msl_ns), 0, DAY_NS, "maximum segment lifetime: TIME-WAIT lasts twice this")
    tcp("user_timeout_ns", &TCP.user_timeout_ns, sizeof(TCP.user_timeout_ns), MS, 5 * DAY_NS,
        "a connection ends when its data is not acknowledged for this long (R2)")
    tcp("syn_timeout_ns", &TCP.syn_timeout_ns, sizeof(TCP.syn_timeout_ns), MS, 5 * DAY_NS,
        "connect() gives up after this long without an answer (R2 for a SYN)")
    tcp("syn_ack_timeout_ns", &TCP.syn_ack_timeout_ns, sizeof(TCP.syn_ack_timeout_ns), MS, DAY_NS,
        "life of a half-open connection from a peer")
    tcp("fin_wait_2_timeout_ns", &TCP.fin_wait_2_timeout_ns, sizeof(TCP.fin_wait_2_timeout_ns), MS, DAY_NS,
        "a closed connection waits this long for the peer's FIN")
    tcp("path_mtu_expires_ns", &TCP.path_mtu_expires_ns, sizeof(TCP.path_mtu_expires_ns), 300000 * MS, DAY_NS,
        "a smaller path MTU is forgotten after this long (RFC 1191: not before 5 minutes)")
    tcp("orphan_timeout_ns", &TCP.orphan_timeout_ns, sizeof(TCP.orphan_timeout_ns), MS, 5 * DAY_NS,
        "a closed connection gives its peer up after this long without an answer")
    tcp("max_orphans", &TCP.max_orphans, sizeof(TCP.max_orphans), 0, INDEX_MAX,
        "closed connections whose peers have not closed; one more is reset instead")
    tcp("keepalive_idle_ns", &TCP.keepalive_idle_ns, sizeof(TCP.keepalive_idle_ns), MS, 5 * DAY_NS,
        "silence before the first keep-alive probe, on connections that have keepalive on")
    tcp("keepalive_interval_ns", &TCP.keepalive_interval_ns, sizeof(TCP.keepalive_interval_ns), MS, DAY_NS,
        "time between two keep-alive probes")
    tcp("keepalive_probes", &TCP.keepalive_probes, sizeof(TCP.keepalive_probes), 1, 255,
        "keep-alive probes without an answer that end a connection")
    tcp("window_probe_bytes", &TCP.window_probe_bytes, sizeof(TCP.window_probe_bytes), 0, 1,
        "what probes a closed window: 1 the next byte, 0 none, one before SND.UNA, as a keep-alive")
    tcp("holder_bytes_per_second", &TCP.holder_bytes_per_second, sizeof(TCP.holder_bytes_per_second), 0, 1 << 20,
        "a peer that takes less of what waits for it is reset when 7/8 of max_connections are there; 0: never")
    tcp("holder_interval_ns", &TCP.holder_interval_ns, sizeof(TCP.holder_interval_ns), MS, DAY_NS,
        "time over which holder_bytes_per_second is measured")
    tcp("challenge_acks_per_second", &TCP.challenge_acks_per_second, sizeof(TCP.challenge_acks_per_second), 1, 1 << 24,
        "challenge ACKs (RFC 5961) per second for all peers, on the average; one peer may have an eighth")
    tcp("corrective_interval_ns", &TCP.corrective_interval_ns, sizeof(TCP.corrective_interval_ns), 0, 60000 * MS,
        "least time between two corrective or challenge ACKs of one connection, which has a tick of 17 ms; 0: none")
    tcp("probe_answers_limited", &TCP.probe_answers_limited, sizeof(TCP.probe_answers_limited), 0, 1,
        "corrective_interval_ns holds for answers to keep-alives and window probes without data, too")
    tcp("backlog_extra", &TCP.backlog_extra, sizeof(TCP.backlog_extra), 0, 1 << 16,
        "connections that wait for the application beyond the backlog that listen() was given")
    # Switches and header fields.
    tcp("ttl", &TCP.ttl, sizeof(TCP.ttl), 1, 255, "time to live of every packet")
    tcp("timestamps", &TCP.timestamps, sizeof(TCP.timestamps), 0, 1, "offer and accept timestamps (RFC 7323)")
    tcp("sack", &TCP.sack, sizeof(TCP.sack), 0, 1, "offer and accept selective acknowledgements (RFC 2018)")
    tcp("window_scaling", &TCP.window_scaling, sizeof(TCP.window_scaling), 0, 1,
        "offer and accept window scaling (RFC 7323)")
    tcp("mtu_probing", &TCP.mtu_probing, sizeof(TCP.mtu_probing), 0, 2,
        "look for the path's MTU without ICMP (RFC 4821): 0 never, 1 when full segments stop arriving, 2 always")
    tcp("ecn", &TCP.ecn, sizeof(TCP.ecn), 0, 5,
        "Explicit Congestion Notification. RFC 3168: 0 never, 1 offer and accept, 2 accept when a peer offers it. "
        "RFC 9768, falling back to that: 3 offer and accept, 4 accept and offer RFC 3168, 5 accept")
    # Neighbours (ARP).
    ip("neighbour_reachable_ns", &IP.neighbour_reachable_ns, sizeof(IP.neighbour_reachable_ns), MS, DAY_NS,
       "a confirmed neighbour is used without asking again for this long")
    ip("neighbour_retry_ns", &IP.neighbour_retry_ns, sizeof(IP.neighbour_retry_ns), MS, DAY_NS,
       "time between two requests for one neighbour's address")
    ip("neighbour_tries", &IP.neighbour_tries, sizeof(IP.neighbour_tries), 1, 255,
       "requests without an answer after which a neighbour is unreachable")
    ip("neighbour_queue", &IP.neighbour_queue, sizeof(IP.neighbour_queue), 1, 255,
       "packets that wait for one neighbour's address")
    ip("neighbour_limit", &IP.neighbour_limit, sizeof(IP.neighbour_limit), 2, 65534, "neighbours that are remembered")


cdef void configure_all(ip_config_t *ip_config, tcp_config_t *tcp_config, object profile, dict config) except *:
    for name, value in profile_settings(profile).items():
        configure(ip_config, tcp_config, name, value)
    for name, value in config.items():
        configure(ip_config, tcp_config, name, value)
    settle_window(tcp_config, "rcv_buffer_bytes" in config, "rcv_buffer_max_bytes" in config)
    if tcp_config.rto_min_ns > tcp_config.rto_max_ns:
        raise ValueError("rto_min_ns is larger than rto_max_ns")


cdef void configure(ip_config_t *ip_config, tcp_config_t *tcp_config, str name, object value) except *:
    cdef place_t *place
    cdef char *base
    number = NUMBERS.get(name)
    if number is None:
        raise ValueError(f"{name}: there is no such setting (Stack.settings() lists them)")
    place = &PLACES[<size_t>number]
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, int) or not place.low <= value <= place.high:
        raise ValueError(f"{name}={value!r}: must be a whole number from {place.low} to {place.high}")
    base = <char *>ip_config if place.of_ip else <char *>tcp_config
    store(base + place.offset, place.size, <uint64_t>value)
    if name == "ttl":                       # what the IP layer sends by itself has the same
        ip_config.ttl = tcp_config.ttl


cdef void settle_window(tcp_config_t *tcp_config, bint first_said, bint largest_said) except *:
    if first_said and not largest_said:
        tcp_config.rcv_buffer_max_bytes = tcp_config.rcv_buffer_bytes
    elif tcp_config.rcv_buffer_bytes > tcp_config.rcv_buffer_max_bytes:
        if first_said:
            raise ValueError("rcv_buffer_bytes is larger than rcv_buffer_max_bytes")
        tcp_config.rcv_buffer_bytes = tcp_config.rcv_buffer_max_bytes


def settings() -> dict[str, Setting]:
    """Every setting by name, in the order of the table: default, bounds, and what it is for."""
    return {setting.name: setting for setting in TABLE}


def settings_text() -> str:
    """The table as text: a setting a paragraph."""
    lines = []
    for name, default, low, high, text in TABLE:
        lines.append(f"{name} = {default}   ({low} to {high})")
        lines.append(f"    {text}")
    return "\n".join(lines)


fill_table()
__doc__ += "\n" + settings_text() + "\n"
