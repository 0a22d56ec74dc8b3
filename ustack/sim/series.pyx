# SPDX-License-Identifier: MIT
"""Samples at equal intervals. See series.pxd."""

from array import array

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from ustack.engine.transport cimport tcb_of
from ustack.sim.records cimport column_t, flow_t, hop_t
from ustack.tcp.records.flight cimport flight_raw
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.recovery.rtt cimport rtt_rto_ns
from ustack.wire.seq cimport seq_diff

cdef enum:
    ROWS_MIN = 256

cdef tuple FLOW_NAMES = ("cwnd", "ssthresh", "flight", "srtt_us", "rto_us", "pacing_bps", "acked_bytes",
                         "received_bytes", "retransmitted", "state")
cdef tuple HOP_NAMES = ("queue_bytes", "queue_frames", "dropped", "marked", "sent_bytes")


# ---------------------------------------------------------------- columns
cdef uint64_t *new_row(column_t *column) noexcept nogil:
    """Zeroed by nobody. NULL without memory."""
    cdef uint64_t capacity = column.capacity * 2 if column.capacity else ROWS_MIN
    cdef uint64_t *grown
    if column.rows == column.capacity:
        grown = <uint64_t *>realloc(column.values, capacity * column.width * sizeof(uint64_t))
        if grown == NULL:
            return NULL
        column.values = grown
        column.capacity = capacity
    column.rows += 1
    return column.values + (column.rows - 1) * column.width


cdef void take_flow(net_t *net, const flow_t *flow, uint64_t *row) noexcept nogil:
    cdef const tcp_t *tcp
    cdef const tcb_t *tcb
    cdef uint32_t i, unacknowledged
    for i in range(FLOW_COLUMNS):
        row[i] = 0
    row[<int>FLOW_RECEIVED] = flow.received
    row[<int>FLOW_AGAIN] = flow.segments_again
    row[<int>FLOW_ACKED] = flow.queued
    if flow.sender == NULL or net.nodes[flow.begin].engine == NULL:
        return
    tcp = &net.nodes[flow.begin].engine.tcp
    tcb = tcb_of(flow.sender)
    row[<int>FLOW_CWND] = tcb.cwnd
    row[<int>FLOW_SSTHRESH] = tcb.ssthresh
    row[<int>FLOW_FLIGHT] = <uint32_t>(tcb.snd_max - tcb.snd_una)
    row[<int>FLOW_SRTT] = tcb.srtt_us
    row[<int>FLOW_RTO] = rtt_rto_ns(tcp, tcb) // 1000
    row[<int>FLOW_PACING] = flight_raw(tcp, tcb).pacer.rate * 8 if tcb.flight else 0
    unacknowledged = tcb.snd_end - tcb.snd_una
    if seq_diff(tcb.snd_end, tcb.snd_una) > 0:                      # (a SYN is no byte of the flow's)
        row[<int>FLOW_ACKED] = flow.queued - unacknowledged if flow.queued > unacknowledged else 0
    row[<int>FLOW_STATE] = tcb.state


cdef void take_hop(const hop_t *hop, uint64_t *row) noexcept nogil:
    row[<int>HOP_QUEUE_BYTES] = hop.queue.bytes
    row[<int>HOP_QUEUE_FRAMES] = hop.queue.frames
    row[<int>HOP_DROPPED] = hop.queue.tail_dropped + hop.queue.early_dropped
    row[<int>HOP_MARKED] = hop.queue.marked
    row[<int>HOP_SENT_BYTES] = hop.counters.sent_bytes


cdef uint64_t sampler_take(net_t *net) noexcept nogil:
    cdef sampler_t *sampler = &net.sampler
    cdef uint64_t *row
    cdef uint32_t i
    if sampler.every_ns == 0:
        return UINT64_MAX
    if net.now_ns < sampler.next_ns:
        return sampler.next_ns
    sampler.next_ns += sampler.every_ns
    if sampler.missed or sampler.times.rows >= sampler.rows_max:
        sampler.missed += 1
        return sampler.next_ns
    for i in range(sampler.flow_count):
        row = new_row(&sampler.flows[i])
        if row == NULL:
            sampler.missed += 1
            return sampler.next_ns
        take_flow(net, net.flows[i], row)
    for i in range(sampler.hop_count):
        row = new_row(&sampler.hops[i])
        if row == NULL:
            sampler.missed += 1
            return sampler.next_ns
        take_hop(net.hops[i], row)
    row = new_row(&sampler.times)           # last: a row whose time is there is whole
    if row == NULL:
        sampler.missed += 1
        return sampler.next_ns
    row[0] = net.now_ns - net.start_ns
    return sampler.next_ns


# ---------------------------------------------------------------- life
cdef int sampler_start(net_t *net, uint64_t every_ns, uint64_t rows_max) noexcept nogil:
    cdef sampler_t *sampler = &net.sampler
    cdef uint32_t i
    sampler_free(sampler)
    sampler.flows = <column_t *>calloc(net.flow_count + 1, sizeof(column_t))
    sampler.hops = <column_t *>calloc(net.hop_count + 1, sizeof(column_t))
    if sampler.flows == NULL or sampler.hops == NULL:
        sampler_free(sampler)
        return -1
    sampler.flow_count = net.flow_count
    sampler.hop_count = net.hop_count
    sampler.times.width = 1
    for i in range(net.flow_count):
        sampler.flows[i].width = FLOW_COLUMNS
    for i in range(net.hop_count):
        sampler.hops[i].width = HOP_COLUMNS
    sampler.every_ns = every_ns
    sampler.rows_max = rows_max
    sampler.missed = 0
    sampler.next_ns = net.now_ns
    return 0


cdef void sampler_free(sampler_t *sampler) noexcept nogil:
    cdef uint32_t i
    for i in range(sampler.flow_count):
        free(sampler.flows[i].values)
    for i in range(sampler.hop_count):
        free(sampler.hops[i].values)
    free(sampler.times.values)
    free(sampler.flows)
    free(sampler.hops)
    sampler.flows = sampler.hops = NULL
    sampler.flow_count = sampler.hop_count = 0
    sampler.times.values = NULL
    sampler.times.rows = sampler.times.capacity = 0
    sampler.every_ns = 0


cdef object column_array(const column_t *column, uint32_t at, uint64_t rows):
    whole = array("Q", (<const char *>column.values)[:rows * column.width * sizeof(uint64_t)])
    return whole[at::column.width]


cdef dict columns(const column_t *column, tuple names, uint64_t rows):
    return {name: column_array(column, at, rows) for at, name in enumerate(names)}


cdef dict sampler_arrays(const sampler_t *sampler):
    cdef uint64_t rows = sampler.times.rows
    cdef uint32_t i
    return {
        "times_ns": column_array(&sampler.times, 0, rows) if rows else array("Q"),
        "flows": [columns(&sampler.flows[i], FLOW_NAMES, rows) if rows else {} for i in range(sampler.flow_count)],
        "hops": [columns(&sampler.hops[i], HOP_NAMES, rows) if rows else {} for i in range(sampler.hop_count)],
    }
