# SPDX-License-Identifier: MIT
"""A connection and its congestion control. See control.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.counters cimport CONTROLS_REPLACED, count
from ustack.base.ilist cimport ilist_append, ilist_hook_t, ilist_remove
from ustack.base.wheel cimport WHEEL_TICK_SHIFT
from ustack.buf.slab cimport slab_alloc, slab_at, slab_init, slab_release, slab_t
from ustack.tcp.cc.contract cimport loss_sample_t
from ustack.tcp.cc.registry cimport CC_FIRST, cc_default_table, cc_table
from ustack.tcp.records.deadlines cimport tcp_tick, tick_after, tick_reached
from ustack.tcp.records.flight cimport (
    FLIGHT_MARKED, REPAIR_FAST, TX_APP_LIMITED, TX_SIZE_PROBE, transmission_at, transmission_bytes, transmission_t)
from ustack.tcp.records.tcb cimport CC_PACED, CC_USED, CC_WAITING, TCP_MAX_CC, tcb_at
from ustack.tcp.recovery.pacing cimport PACING_RTT_MIN_US, pacing_rate_of_window
from ustack.tcp.recovery.rtt cimport rtt_min_us
from ustack.tcp.recovery.transmissions cimport flight_of


cdef enum:
    RECORDS_A_TURN = 256                    # that are looked at

cdef uint64_t CONTROL_REST_NS = 10000000000

# At the end of a record whose control has a `rest`.
ctypedef struct resting_t:                  # 16 bytes
    ilist_hook_t order                      # in tcp.cc_orders
    uint32_t owner                          # tcb
    uint32_t due_tick                       # to be looked at


cdef uint32_t record_bytes(const cc_ops_t *ops) noexcept nogil:
    """What a slab takes: a power of two up to a cache line, then whole ones."""
    cdef uint32_t state_bytes = ops.state_bytes + <uint32_t>(sizeof(resting_t) if ops.rest != NULL else 0)
    cdef uint32_t size = 8
    while size < state_bytes and size < 64:
        size *= 2
    return size if size >= state_bytes else (state_bytes + 63) // 64 * 64


cdef int control_provide(tcp_t *tcp, int number) noexcept nogil:
    cdef const cc_ops_t *ops = cc_table(number)
    if tcp.cc[number] != NULL and (number != CC_FIRST or tcp.cc_records[number].record_bytes != 0):
        return 0                            # CC_FIRST is there from the beginning, without records
    if ops.state_bytes > STATE_IN_PLACE and slab_init(
            &tcp.cc_records[number], record_bytes(ops), tcp.config.cc_records) != 0:
        return -1
    tcp.cc[number] = ops
    tcp.cc[CC_WAITING + number] = cc_default_table(ops.begins_late)
    return 0


cdef void control_choose(tcb_t *tcb, int number) noexcept nogil:
    tcb.cc = <uint8_t>(number | CC_WAITING | (tcb.cc & CC_PACED))


cdef int control_number(const tcb_t *tcb) noexcept nogil:
    return tcb.cc & (CC_MAX - 1)


cdef const char *control_name(const tcb_t *tcb) noexcept nogil:
    return cc_table(control_number(tcb)).name


cdef bint take_record(tcp_t *tcp, int number, uint32_t *word) noexcept nogil:
    """A zeroed record. False: there is none to be had."""
    word[0] = 0
    if tcp.cc[number].state_bytes > STATE_IN_PLACE:
        word[0] = slab_alloc(&tcp.cc_records[number])
        return word[0] != 0
    return True


cdef inline resting_t *resting_at(const void *slab, uint32_t index) noexcept nogil:
    return <resting_t *>(<uint8_t *>slab_at(<const slab_t *>slab, index) + (<const slab_t *>slab).record_bytes
                         - sizeof(resting_t))


cdef inline ilist_hook_t *resting_hook(const void *slab, uint32_t index) noexcept nogil:
    return &resting_at(slab, index).order


cdef void list_record(tcp_t *tcp, int number, uint32_t word) noexcept nogil:
    """At the end: every record is looked at equally long after."""
    resting_at(&tcp.cc_records[number], word).due_tick = tick_after(tcp, CONTROL_REST_NS)
    ilist_append(&tcp.cc_orders[number], resting_hook, &tcp.cc_records[number], word)
    tcp.cc_listed |= 1u << number


cdef void unlist_record(tcp_t *tcp, int number, uint32_t word) noexcept nogil:
    ilist_remove(&tcp.cc_orders[number], resting_hook, &tcp.cc_records[number], word)
    if tcp.cc_orders[number].first == 0:
        tcp.cc_listed &= ~(1u << number)


cdef inline bint is_listed(const cc_ops_t *ops) noexcept nogil:
    return ops.rest != NULL and ops.state_bytes > STATE_IN_PLACE


cdef void begin_with(tcp_t *tcp, tcb_t *tcb, int number, uint32_t word, uint32_t kept) noexcept nogil:
    cdef cc_view_t view
    cdef const cc_ops_t *ops = tcp.cc[number]
    tcb.cc = <uint8_t>(number | (tcb.cc & CC_PACED) | (CC_HEARS_SENT if ops.hears_sent else 0)
                       | (CC_HEARS_MORE if ops.hears_start or ops.hears_lost or ops.owns_repair else 0))
    tcb.cc_word = word
    if is_listed(ops) and word:
        resting_at(&tcp.cc_records[number], word).owner = tcb.index
        list_record(tcp, number, word)
    view_load(tcp, tcb, &view)
    view.seed = (tcb.index * 2654435761u) ^ tcp.transmission_seed
    if not ops.paces:
        view.pacing_rate = 0                # of the control before
    if kept:
        ops.wake(control_state(tcp, tcb, ops), &view, kept)
    else:
        ops.init(control_state(tcp, tcb, ops), &view)
    view_store(tcb, &view)
    view_store_rate(tcp, tcb, &view)


cdef bint control_begin(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef int number = control_number(tcb)
    cdef uint32_t word, kept = tcb.cc_word
    cdef bint waking = kept != 0
    if not take_record(tcp, number, &word):
        count(tcp.counters, CONTROLS_REPLACED)
        number = CC_FIRST
        kept = 0
    begin_with(tcp, tcb, number, word, kept)
    return waking


cdef void control_end(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    if tcb.cc & CC_WAITING:
        return
    ops.release(control_state(tcp, tcb, ops))
    if is_listed(ops) and tcb.cc_word:
        unlist_record(tcp, control_number(tcb), tcb.cc_word)
    if ops.state_bytes > STATE_IN_PLACE and tcb.cc_word:
        slab_release(&tcp.cc_records[control_number(tcb)], tcb.cc_word)
    tcb.cc_word = 0
    control_choose(tcb, control_number(tcb))


cdef void take_over(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """The control before had windows of its own for losses and marks, and no ssthresh, which a repair ends with
    (repair_end): this one hears of the loss that is being repaired, and what a mark was the answer to is no excuse for
    the next (repair_begin)."""
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef uint32_t outstanding = tcb.snd_nxt - tcb.snd_una
    cdef cc_view_t view
    flight.flags &= ~FLIGHT_MARKED
    if flight.repair != REPAIR_FAST:
        return
    flight.prr_delivered = 0
    flight.prr_out = 0
    view_load(tcp, tcb, &view)
    ops.on_loss(control_state(tcp, tcb, ops), &view,
                outstanding if outstanding < flight.cwnd_before else flight.cwnd_before)
    view_store(tcb, &view)


cdef int control_change(tcp_t *tcp, tcb_t *tcb, int number) noexcept nogil:
    cdef bint late = tcp.cc[number].begins_late, owned = control_owns_repair(tcp, tcb)
    cdef uint32_t word
    if number == control_number(tcb):
        return 0
    if tcb.cc & CC_WAITING and (late or not tcb.cc & CC_USED or tcb.snd_una == tcb.snd_max):
        tcb.cc = <uint8_t>(number | CC_WAITING | (tcb.cc & CC_PACED) | (tcb.cc & CC_USED if late else 0))
        tcb.cc_word = 0                     # the other one's
        return 0
    if not take_record(tcp, number, &word):
        return -1
    control_end(tcp, tcb)
    begin_with(tcp, tcb, number, word, 0)
    if owned and tcb.flight and not control_owns_repair(tcp, tcb):
        take_over(tcp, tcb, flight_of(tcp, tcb))
    return 0


# ---------------------------------------------------------------- rest

cdef void look_at(tcp_t *tcp, int number, uint32_t word) noexcept nogil:
    """A record that is due: its connection is idle, or it comes round again."""
    cdef tcb_t *tcb = tcb_at(tcp, resting_at(&tcp.cc_records[number], word).owner)
    cdef const cc_ops_t *ops = tcp.cc[number]
    cdef uint32_t kept
    if tcb.snd_una != tcb.snd_max or tcb.cc & CC_USED:
        tcb.cc &= <uint8_t>~CC_USED
        unlist_record(tcp, number, word)
        list_record(tcp, number, word)
        return
    kept = ops.rest(control_state(tcp, tcb, ops))
    control_end(tcp, tcb)
    tcb.cc_word = kept


cdef uint32_t controls_rest(tcp_t *tcp) noexcept nogil:
    cdef int number
    cdef uint32_t looked = 0, word, now_tick = tcp_tick(tcp)
    if tcp.cc_listed == 0:
        return 0
    for number in range(TCP_MAX_CC):
        while looked < RECORDS_A_TURN:
            word = tcp.cc_orders[number].first
            if word == 0 or not tick_reached(resting_at(&tcp.cc_records[number], word).due_tick, now_tick):
                break
            look_at(tcp, number, word)
            looked += 1
    return looked


cdef uint64_t controls_rest_ns(const tcp_t *tcp) noexcept nogil:
    cdef uint64_t due_ns = 0xFFFFFFFFFFFFFFFFULL, one_ns
    cdef uint32_t now_tick = tcp_tick(tcp), word, ticks
    cdef int number
    if tcp.cc_listed == 0:
        return due_ns
    for number in range(TCP_MAX_CC):
        word = tcp.cc_orders[number].first
        if word == 0:
            continue
        ticks = resting_at(&tcp.cc_records[number], word).due_tick - now_tick
        one_ns = tcp.now_ns + (<uint64_t>ticks << WHEEL_TICK_SHIFT) if ticks < 0x80000000u else tcp.now_ns
        if one_ns < due_ns:
            due_ns = one_ns
    return due_ns


cdef uint32_t control_records_in_use(const tcp_t *tcp) noexcept nogil:
    cdef uint32_t records = 0
    cdef int number
    for number in range(TCP_MAX_CC):
        records += tcp.cc_records[number].in_use
    return records


cdef void control_hears_sent(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    ops.on_sent(control_state(tcp, tcb, ops), length, tcb.snd_nxt - tcb.snd_una, tcp.now_ns)


cdef void control_hears_lost(tcp_t *tcp, tcb_t *tcb, const flight_t *flight, uint32_t index) noexcept nogil:
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef const transmission_t *sent = transmission_at(tcp, flight, index)
    cdef cc_view_t view
    cdef loss_sample_t lost
    if not ops.hears_lost or sent.flags & TX_SIZE_PROBE:
        return
    lost.seq = sent.seq
    lost.bytes = transmission_bytes(sent)
    lost.in_flight = sent.in_flight
    lost.lost = flight.lost - sent.lost
    lost.delivered_total = tcb.delivered
    lost.app_limited = sent.flags & TX_APP_LIMITED
    lost.selective = tcb.options & OPT_SACK
    view_load(tcp, tcb, &view)
    ops.on_lost(control_state(tcp, tcb, ops), &view, &lost)
    view_store_rate(tcp, tcb, &view)


cdef uint64_t control_hears_start(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef cc_view_t view
    view_load(tcp, tcb, &view)
    if ops.hears_start:
        ops.on_start(control_state(tcp, tcb, ops), &view)
        view_store(tcb, &view)
    if tcb.cc & CC_PACED:
        pace_by_window(tcp, tcb, &view)
    return view.pacing_rate


cdef void pace_by_window(tcp_t *tcp, tcb_t *tcb, cc_view_t *view) noexcept nogil:
    cdef uint32_t window = view.cwnd, rtt_us = tcb.srtt_us
    if control_of(tcp, tcb).paces:
        return
    if tcb.snd_nxt - tcb.snd_una > window:  # just reduced: what is out was sent by the one before (Linux: packets_out)
        window = tcb.snd_nxt - tcb.snd_una
    # In slow start the queue is short, and an srtt that a timeout or a lost ACK has stretched would hold growth back.
    if view.cwnd < view.ssthresh and rtt_us and tcb.min_rtt:
        rtt_us = rtt_min_us(tcb)
    view.pacing_rate = pacing_rate_of_window(window, view.ssthresh, rtt_us)


cdef void pace_slow_start(tcp_t *tcp, tcb_t *tcb, cc_view_t *view) noexcept nogil:
    if control_of(tcp, tcb).paces:
        return
    if view.cwnd >= view.ssthresh:
        tcb.cc &= <uint8_t>~CC_PACED
        view.pacing_rate = 0
    elif tcb.cc & CC_PACED or rtt_min_us(tcb) >= PACING_RTT_MIN_US:
        tcb.cc |= CC_PACED
        pace_by_window(tcp, tcb, view)


cdef void window_widen(tcb_t *tcb) noexcept nogil:
    tcb.cwnd = tcb.smss
