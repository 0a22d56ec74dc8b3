# SPDX-License-Identifier: MIT
"""Life of TCP's records: allocation and release. See life.pxd. Read first: RFC 9293 section 3.3.1."""

from libc.stdint cimport uint8_t, uint16_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from ustack.base.prng cimport prng_next, prng_seed, prng_t
from ustack.base.wheel cimport TIMER_NONE, wheel_cancel, wheel_free, wheel_init
from ustack.buf.slab cimport SLAB_MOST, slab_alloc, slab_back, slab_destroy, slab_init, slab_t
from ustack.tcp.cc.registry cimport CC_FIRST, cc_default_table, cc_table
from ustack.tcp.records.accecn cimport accecn_of
from ustack.tcp.records.configuration cimport PACING_ALWAYS, usable_low_water, usable_unsent_low_water
from ustack.tcp.records.demux cimport flow_set_key, flow_table_free, flow_table_init
from ustack.tcp.records.duplicates cimport duplicate_forget
from ustack.tcp.records.flight cimport flight_t, transmission_t
from ustack.tcp.records.history cimport birth_at, birth_t, birth_time, history_of
from ustack.tcp.records.measures cimport measures_of, measures_t
from ustack.tcp.records.rx_queue cimport rx_memory_destroy, rx_memory_init, rx_queue_free, rx_queue_t
from ustack.tcp.records.sockopts cimport sockopts_of
from ustack.tcp.records.tcb cimport (
    CC_PACED, CC_WAITING, TCP_EPHEMERAL_COUNTERS, TCP_MAX_CC, extra_at, flow_slot_t, send_piece_t, syn_received_t,
    tcb_at, time_wait_t)
from ustack.tcp.records.urgent cimport URGENT_MOST, urgent_of, urgent_t


cdef enum:
    FLOW_SLOTS_AT_FIRST = 1024              # a power of two


cdef int tcp_init(tcp_t *tcp, ip_t *ip, counters_t *counters, const tcp_config_t *config, uint64_t seed,
                  uint64_t now_ns) noexcept nogil:
    cdef prng_t prng
    cdef uint64_t word[2]
    cdef int i
    memset(tcp, 0, sizeof(tcp_t))
    tcp.ip = ip
    tcp.counters = counters
    tcp.config = config[0]
    if tcp.config.rcv_buffer_max_bytes < tcp.config.rcv_buffer_bytes:
        tcp.config.rcv_buffer_max_bytes = tcp.config.rcv_buffer_bytes
    tcp.config.snd_low_water_bytes = usable_low_water(config, config.snd_low_water_bytes)
    tcp.config.snd_unsent_low_water_bytes = usable_unsent_low_water(config, config.snd_unsent_low_water_bytes)
    tcp.now_ns = now_ns
    tcp.cc[CC_FIRST] = cc_table(CC_FIRST)
    for i in range(TCP_MAX_CC):
        tcp.cc[CC_WAITING + i] = cc_default_table(False)
    tcp.cc[CC_WAITING + CC_FIRST] = cc_default_table(tcp.cc[CC_FIRST].begins_late)
    prng_seed(&prng, seed)
    word[0] = prng_next(&prng)
    word[1] = prng_next(&prng)
    memcpy(tcp.secret, word, 16)
    word[0] = prng_next(&prng)
    word[1] = prng_next(&prng)
    flow_set_key(&tcp.flows, <const uint8_t *>word)
    tcp.timestamp_offset = <uint32_t>prng_next(&prng)
    for i in range(TCP_EPHEMERAL_COUNTERS):
        tcp.candidate_next[i] = <uint32_t>prng_next(&prng)
    tcp.identification_next = <uint16_t>prng_next(&prng)
    tcp.transmission_seed = <uint32_t>(word[0] >> 32)
    if (flow_table_init(&tcp.flows, FLOW_SLOTS_AT_FIRST) != 0
            or wheel_init(&tcp.wheel, now_ns) != 0
            or slab_init(&tcp.tcbs, sizeof(tcb_t), config.max_connections) != 0
            or slab_init(&tcp.syns, sizeof(syn_received_t), config.syn_queue) != 0
            or slab_init(&tcp.time_waits, sizeof(time_wait_t), config.time_wait_limit) != 0
            or slab_init(&tcp.send_pieces, sizeof(send_piece_t), SLAB_MOST) != 0
            or slab_init(&tcp.extras, sizeof(extra_t), config.extra_records) != 0
            or slab_init(&tcp.accecns, sizeof(accecn_t), config.extra_records) != 0
            or slab_init(&tcp.sockopts, sizeof(sockopts_t), config.extra_records) != 0
            or slab_init(&tcp.histories, sizeof(history_t), config.extra_records) != 0
            or slab_init(&tcp.urgents, sizeof(urgent_t), min(config.extra_records, <uint32_t>URGENT_MOST)) != 0
            or slab_init(&tcp.births, sizeof(birth_t), config.max_connections) != 0
            or slab_init(&tcp.measures, sizeof(measures_t), config.max_connections) != 0
            or slab_init(&tcp.flights, sizeof(flight_t), config.flights) != 0
            or slab_init(&tcp.transmissions, sizeof(transmission_t), config.transmissions) != 0
            or rx_memory_init(&tcp.rx, config.rx_memory_bytes, prng_next(&prng)) != 0):
        tcp_destroy(tcp)
        return -1
    return 0


cdef void tcp_destroy(tcp_t *tcp) noexcept nogil:
    cdef int i
    slab_destroy(&tcp.tcbs)
    slab_destroy(&tcp.syns)
    slab_destroy(&tcp.time_waits)
    slab_destroy(&tcp.send_pieces)
    slab_destroy(&tcp.extras)
    slab_destroy(&tcp.accecns)
    slab_destroy(&tcp.sockopts)
    slab_destroy(&tcp.histories)
    slab_destroy(&tcp.urgents)
    slab_destroy(&tcp.births)
    slab_destroy(&tcp.measures)
    slab_destroy(&tcp.flights)
    slab_destroy(&tcp.transmissions)
    rx_memory_destroy(&tcp.rx)
    for i in range(TCP_MAX_CC):
        slab_destroy(&tcp.cc_records[i])
    wheel_free(&tcp.wheel)
    flow_table_free(&tcp.flows)
    free(tcp.cookies.spent)
    tcp.cookies.spent = NULL
    free(tcp.holder_marks)
    tcp.holder_marks = NULL


# ---------------------------------------------------------------- connections

cdef tcb_t *tcb_alloc(tcp_t *tcp) noexcept nogil:
    cdef uint32_t index = slab_alloc(&tcp.tcbs)
    cdef tcb_t *tcb
    if index == 0:
        return NULL
    if slab_back(&tcp.births, index) != 0 or (tcp.config.measure and slab_back(&tcp.measures, index) != 0):
        slab_release(&tcp.tcbs, index)
        return NULL
    birth_at(tcp, index).opened = birth_time(tcp)
    tcb = tcb_at(tcp, index)
    tcb.index = index
    if tcp.config.measure:
        memset(measures_of(tcp, tcb), 0, sizeof(measures_t))
        measures_of(tcp, tcb).since_ns = tcp.now_ns
    tcb.ttl = tcp.config.ttl
    tcb.cc = <uint8_t>(tcp.config.cc | CC_WAITING | (CC_PACED if tcp.config.pacing == PACING_ALWAYS else 0))
    return tcb


cdef void tcb_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const extra_t *extra
    send_queue_release(tcp, tcb)
    rx_queue_release(tcp, tcb)
    duplicate_forget(tcp, tcb)
    if tcb.timer != TIMER_NONE:
        wheel_cancel(&tcp.wheel, tcb.timer)
    if tcb.urgent:
        urgent_release(tcp, tcb)
    if tcb.extra:
        extra = extra_at(tcp, tcb.extra)
        if extra.accecn:
            slab_release(&tcp.accecns, extra.accecn)
        if extra.sockopts:
            slab_release(&tcp.sockopts, extra.sockopts)
        if extra.history:
            slab_release(&tcp.histories, extra.history)
        slab_release(&tcp.extras, tcb.extra)
    slab_release(&tcp.tcbs, tcb.index)


cdef extra_t *extra_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.extra:
        return extra_at(tcp, tcb.extra)
    tcb.extra = slab_alloc(&tcp.extras)
    if tcb.extra == 0:
        return NULL
    return extra_at(tcp, tcb.extra)


cdef uint32_t extra_part(tcp_t *tcp, tcb_t *tcb, slab_t *parts) noexcept nogil:
    """A part of few connections' record that is a record of its own, and the record to name it. 0: no room for one of
    both."""
    cdef uint32_t index = slab_alloc(parts)
    if index != 0 and extra_make(tcp, tcb) == NULL:
        slab_release(parts, index)
        return 0
    return index


cdef accecn_t *accecn_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t index = extra_part(tcp, tcb, &tcp.accecns)
    if index == 0:
        return NULL
    extra_at(tcp, tcb.extra).accecn = index
    return accecn_of(tcp, tcb)


cdef inline void fill_usual(const tcp_t *tcp, sockopts_t *own) noexcept nogil:
    own.low_water_bytes = tcp.config.snd_low_water_bytes
    own.unsent_low_water_bytes = tcp.config.snd_unsent_low_water_bytes
    own.snd_queue_bytes = tcp.config.snd_queue_bytes


cdef sockopts_t *sockopts_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint32_t index
    cdef sockopts_t *own = sockopts_of(tcp, tcb)
    if own != NULL:
        return own
    index = extra_part(tcp, tcb, &tcp.sockopts)
    if index == 0:
        return NULL
    extra_at(tcp, tcb.extra).sockopts = index
    own = sockopts_of(tcp, tcb)
    fill_usual(tcp, own)
    return own


cdef void sockopts_settle(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    cdef sockopts_t usual
    memset(&usual, 0, sizeof(usual))
    fill_usual(tcp, &usual)
    if memcmp(own, &usual, sizeof(usual)) != 0:
        return
    slab_release(&tcp.sockopts, extra_at(tcp, tcb.extra).sockopts)
    extra_at(tcp, tcb.extra).sockopts = 0
    extra_settle(tcp, tcb)


cdef history_t *history_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef history_t *own = history_of(tcp, tcb)
    cdef uint32_t index
    if own != NULL:
        return own
    index = extra_part(tcp, tcb, &tcp.histories)
    if index == 0:
        return NULL
    extra_at(tcp, tcb.extra).history = index
    return history_of(tcp, tcb)


cdef urgent_t *urgent_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.urgent == 0:
        tcb.urgent = <uint16_t>slab_alloc(&tcp.urgents)
    return urgent_of(tcp, tcb)


cdef void urgent_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    slab_release(&tcp.urgents, tcb.urgent)
    tcb.urgent = 0


cdef void extra_settle(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const extra_t *extra = extra_at(tcp, tcb.extra)
    if (extra.path.full_smss == 0 and extra.autotune.limit_bytes == 0 and extra.accecn == 0 and extra.sockopts == 0
            and extra.history == 0):
        slab_release(&tcp.extras, tcb.extra)
        tcb.extra = 0


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


def record_sizes() -> dict[str, int]:
    """Bytes of each per-connection record.

    flow_bytes is a connection's share of the flow table at its worst: a table of twice the size takes over when one is
    3/4 full, and while slots move from one to the other a connection pays for 8/3 and 4/3 slots. Its timer node (16
    bytes) is counted with it.
    """
    return {
        "tcb_bytes": sizeof(tcb_t),
        "birth_bytes": sizeof(birth_t),
        "flow_bytes": (sizeof(flow_slot_t) * 8 + 2) // 3 + (sizeof(flow_slot_t) * 4 + 2) // 3 + 16,
        "time_wait_bytes": sizeof(time_wait_t),
        "syn_received_bytes": sizeof(syn_received_t),
        "send_piece_bytes": sizeof(send_piece_t),
        "extra_bytes": sizeof(extra_t),
        "accecn_bytes": sizeof(accecn_t),
        "sockopts_bytes": sizeof(sockopts_t),
        "history_bytes": sizeof(history_t),
        "measures_bytes": sizeof(measures_t),
        "urgent_bytes": sizeof(urgent_t),
        "rx_queue_bytes": sizeof(rx_queue_t),
    }
