# SPDX-License-Identifier: MIT
"""Life of TCP's records: defaults, allocation, release, the one timer node of a connection.

It decides nothing about the protocol: that is the event files' work (calls, input, timers, output). Layouts and their
writers are in tcb.pxd. Read first: RFC 9293 section 3.3.1.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from ustack.base.posix cimport (
    MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, madvise, mmap, munmap)
from ustack.base.prng cimport prng_next, prng_seed, prng_t
from ustack.base.wheel cimport (
    TIMER_NONE, WHEEL_TICK_SHIFT, tick_before, wheel_arm, wheel_cancel, wheel_deadline_tick, wheel_free, wheel_init,
    wheel_move)
from ustack.buf.slab cimport slab_alloc, slab_destroy, slab_init, slab_release
from ustack.tcp.cc.newreno cimport newreno_ops
from ustack.tcp.records.rx_queue cimport (
    rx_memory_destroy, rx_memory_init, rx_memory_short, rx_queue_free, rx_queue_t, rx_window_share)
from ustack.tcp.records.state cimport ESTABLISHED


cdef enum:
    FLOW_SLOTS_AT_FIRST = 1024              # a power of two

cdef uint64_t MS = 1000000
cdef uint64_t SECOND = 1000000000


cdef void tcp_config_defaults(tcp_config_t *config) noexcept nogil:
    memset(config, 0, sizeof(tcp_config_t))
    config.max_connections = 16u << 20
    config.syn_queue = 16384
    config.time_wait_limit = 4u << 20
    config.rcv_buffer_bytes = 512 * 1024
    config.rx_memory_bytes = 512u << 20
    config.snd_queue_bytes = 1u << 30
    config.snd_low_water_bytes = 128 * 1024
    config.initial_window_segments = 10
    config.rto_initial_ns = SECOND             # RFC 6298 (2.1)
    config.rto_min_ns = SECOND                 # RFC 6298 (2.4); Linux uses 200 ms
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
    config.ttl = 64
    config.timestamps = 1
    config.sack = 1
    config.window_scaling = 1
    config.cc = 0


cdef int tcp_init(tcp_t *tcp, ip_t *ip, counters_t *counters, const tcp_config_t *config, uint64_t seed,
                  uint64_t now_ns) noexcept nogil:
    cdef prng_t prng
    cdef uint64_t word[2]
    cdef int i
    memset(tcp, 0, sizeof(tcp_t))
    tcp.ip = ip
    tcp.counters = counters
    tcp.config = config[0]
    if tcp.config.snd_low_water_bytes >= tcp.config.snd_queue_bytes:    # or a full queue would count as writable
        tcp.config.snd_low_water_bytes = tcp.config.snd_queue_bytes // 2
    tcp.now_ns = now_ns
    tcp.cc[0] = newreno_ops()
    prng_seed(&prng, seed)
    word[0] = prng_next(&prng)
    word[1] = prng_next(&prng)
    memcpy(tcp.secret, word, 16)
    word[0] = prng_next(&prng)
    word[1] = prng_next(&prng)
    memcpy(tcp.flows.hash_key, word, 16)
    tcp.timestamp_offset = <uint32_t>prng_next(&prng)
    for i in range(TCP_EPHEMERAL_COUNTERS):
        tcp.ephemeral_next[i] = <uint16_t>prng_next(&prng)
    tcp.identification_next = <uint16_t>prng_next(&prng)
    if (flow_table_init(&tcp.flows, FLOW_SLOTS_AT_FIRST) != 0
            or wheel_init(&tcp.wheel, now_ns) != 0
            or slab_init(&tcp.tcbs, sizeof(tcb_t), config.max_connections) != 0
            or slab_init(&tcp.syns, sizeof(syn_received_t), config.syn_queue) != 0
            or slab_init(&tcp.time_waits, sizeof(time_wait_t), config.time_wait_limit) != 0
            or slab_init(&tcp.send_pieces, sizeof(send_piece_t), 0x7FFFFFFF) != 0
            or slab_init(&tcp.paths, sizeof(path_t), config.max_connections) != 0
            or rx_memory_init(&tcp.rx, config.rx_memory_bytes, prng_next(&prng)) != 0):
        tcp_destroy(tcp)
        return -1
    return 0


cdef void tcp_destroy(tcp_t *tcp) noexcept nogil:
    slab_destroy(&tcp.tcbs)
    slab_destroy(&tcp.syns)
    slab_destroy(&tcp.time_waits)
    slab_destroy(&tcp.send_pieces)
    slab_destroy(&tcp.paths)
    rx_memory_destroy(&tcp.rx)
    wheel_free(&tcp.wheel)
    flow_table_free(&tcp.flows)
    free(tcp.syn_cache)
    tcp.syn_cache = NULL


# ---------------------------------------------------------------- memory of the flow table

cdef flow_slot_t *flow_slots_map(uint32_t count) noexcept nogil:
    """Empty slots, NULL without memory. Not in huge pages: the first touch of one would clear 2 MiB."""
    cdef size_t size = <size_t>count * sizeof(flow_slot_t)
    cdef void *slots = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if slots == MAP_FAILED:
        return NULL
    madvise(slots, size, MADV_NOHUGEPAGE)
    return <flow_slot_t *>slots


cdef int flow_table_init(flow_table_t *flows, uint32_t slots) noexcept nogil:
    flows.slots = flow_slots_map(slots)
    flows.mask = slots - 1
    flows.mask_at_first = slots - 1
    return 0 if flows.slots != NULL else -1


cdef void flow_table_free(flow_table_t *flows) noexcept nogil:
    if flows.slots != NULL:
        munmap(flows.slots, (<size_t>flows.mask + 1) * sizeof(flow_slot_t))
    if flows.old_slots != NULL:
        munmap(flows.old_slots, (<size_t>flows.old_mask + 1) * sizeof(flow_slot_t))
    if flows.retired != NULL:
        munmap(flows.retired, flows.retired_bytes)
    flows.slots = NULL
    flows.old_slots = NULL
    flows.retired = NULL


# ---------------------------------------------------------------- connections

cdef tcb_t *tcb_alloc(tcp_t *tcp) noexcept nogil:
    cdef uint32_t index = slab_alloc(&tcp.tcbs)
    cdef tcb_t *tcb
    if index == 0:
        return NULL
    tcb = tcb_at(tcp, index)
    tcb.index = index
    tcb.ttl = tcp.config.ttl
    tcb.cc = tcp.config.cc
    return tcb


cdef void tcb_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    send_queue_release(tcp, tcb)
    rx_queue_release(tcp, tcb)
    if tcb.timer != TIMER_NONE:
        wheel_cancel(&tcp.wheel, tcb.timer)
    if tcb.path:
        slab_release(&tcp.paths, tcb.path)
    slab_release(&tcp.tcbs, tcb.index)


cdef void send_queue_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Give every lent buffer back."""
    cdef uint32_t index = tcb.snd_head, next_index
    tcb.snd_head = 0
    tcb.snd_tail = 0
    while index:
        next_index = send_piece_at(tcp, index).next
        piece_release(tcp, index)
        index = next_index


cdef void rx_queue_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Drop what was received and not consumed, in order and out of order."""
    if tcb.rx:
        rx_queue_free(&tcp.rx, tcb.rx)
        tcb.rx = 0


# ---------------------------------------------------------------- the timer node

cdef void tcb_arm(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t now_tick = tcp_tick(tcp)
    cdef uint32_t earliest = 0, tick
    cdef uint64_t deadline_ns
    cdef bint any_deadline = False
    if tcb.flags & TCB_REXMIT_ARMED:
        earliest = tcb.rexmit_tick
        any_deadline = True
    if tcb.flags & TCB_ACK_ARMED:
        if not any_deadline or <int32_t>(tcb.ack_tick - earliest) < 0:
            earliest = tcb.ack_tick
        any_deadline = True
    if tcb.flags & TCB_APP_TIMEOUT:
        if not any_deadline or <int32_t>(tcb.app_tick - earliest) < 0:
            earliest = tcb.app_tick
        any_deadline = True
    if tcb.flags & TCB_KEEPALIVE and tcb.state >= <uint8_t>ESTABLISHED and tcb.snd_una == tcb.snd_max:
        tick = keepalive_tick(tcp, tcb)
        if not any_deadline or <int32_t>(tick - earliest) < 0:
            earliest = tick
        any_deadline = True
    if not any_deadline:
        return                              # a node that is still armed fires once for nothing
    if tcb.timer != TIMER_NONE and not tick_before(earliest, wheel_deadline_tick(&tcp.wheel, tcb.timer)):
        return
    if tick_reached(earliest, now_tick):
        earliest = now_tick + 1
    deadline_ns = tcp.wheel.base_ns + ((<uint64_t>(earliest - now_tick)
                                        + ((tcp.now_ns - tcp.wheel.base_ns) >> WHEEL_TICK_SHIFT))
                                       << WHEEL_TICK_SHIFT)
    if tcb.timer != TIMER_NONE:
        wheel_move(&tcp.wheel, tcb.timer, deadline_ns)
    else:
        tcb.timer = wheel_arm(&tcp.wheel, deadline_ns, TIMER_CONNECTION, tcb.index)


cdef inline uint32_t keepalive_tick(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """When the next keep-alive probe is due: counted from the last segment received (MUST-26)."""
    cdef uint64_t silent_ms = <uint32_t>(tcp.now_ns // MS) - tcb.last_received_ms
    cdef uint64_t due_ms = (tcp.config.keepalive_idle_ns
                            + tcb.keepalive_probes * tcp.config.keepalive_interval_ns) // MS
    return tick_after(tcp, (due_ms - silent_ms) * MS if due_ms > silent_ms else 0)


cdef uint32_t tcb_receive_window(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef uint32_t queued = rx.queued_bytes if rx != NULL else 0
    cdef uint32_t limit = tcp.config.rcv_buffer_bytes
    cdef uint32_t worth = tcp.config.rcv_buffer_bytes // 2
    cdef uint32_t advertised = tcb.rcv_adv - tcb.rcv_nxt
    cdef uint32_t unit = 1u << tcb.rcv_wscale
    cdef uint32_t scaled_max = <uint32_t>0xFFFF << tcb.rcv_wscale
    cdef uint32_t room, rounded
    if rx_memory_short(&tcp.rx):            # windows grow less, but never to less than what keeps a reader going
        limit = window_under_pressure(tcp, tcb)
    room = limit - queued if queued < limit else 0
    if room > scaled_max:
        room = scaled_max
    if <int32_t>advertised < 0:             # cannot be: what was accepted was inside
        advertised = 0
    if worth > tcb.smss:
        worth = tcb.smss
    # RFC 9293 section 3.8.6.2.2: the right edge moves by min(buffer/2, MSS) at least, or not at all.
    if room >= advertised + worth and room & ~(unit - 1) >= advertised:
        return room & ~(unit - 1)
    # The edge that was announced lies between two that the scaled field can say now. Both of RFC 7323 section 2.4's
    # ways out are bad: promise beyond the buffer, or move the edge to the left. Round up, as Linux does, while that
    # overdraws the buffer by an eighth at most. A bound there must be: a peer that sends less than a unit for each ACK
    # would never see the window close. Beyond it the edge is said to be less than a unit lower, and what lies up to
    # rcv_adv is accepted all the same, as that section asks (MUST).
    rounded = (advertised + unit - 1) & ~(unit - 1)
    if queued + rounded <= tcp.config.rcv_buffer_bytes + (tcp.config.rcv_buffer_bytes >> 3):
        return rounded
    return advertised & ~(unit - 1)


cdef uint32_t window_under_pressure(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint64_t share = rx_window_share(&tcp.rx)
    if share < 2 * <uint32_t>tcb.smss:
        share = 2 * <uint32_t>tcb.smss
    return <uint32_t>share if share < tcp.config.rcv_buffer_bytes else tcp.config.rcv_buffer_bytes


def record_sizes() -> dict[str, int]:
    """Octets of each per-connection record.

    flow_bytes is a connection's share of the flow table at its worst: a table of twice the size takes over when one is
    3/4 full, and while slots move from one to the other a connection pays for 8/3 and 4/3 slots. Its timer node (16
    bytes) is counted with it.
    """
    return {
        "tcb_bytes": sizeof(tcb_t),
        "flow_bytes": (sizeof(flow_slot_t) * 8 + 2) // 3 + (sizeof(flow_slot_t) * 4 + 2) // 3 + 16,
        "time_wait_bytes": sizeof(time_wait_t),
        "syn_received_bytes": sizeof(syn_received_t),
        "send_piece_bytes": sizeof(send_piece_t),
        "path_bytes": sizeof(path_t),
        "rx_queue_bytes": sizeof(rx_queue_t),
    }
