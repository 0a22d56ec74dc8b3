# SPDX-License-Identifier: MIT
"""Who is traced, and the rings that their records go to. See tracing.pxd.

FORMAT is one record for `struct`, FIELDS the names of its parts, in their order; EVENTS, CAUSES, STATES and REPAIRS are
the names of the numbers in four of them, and REASONS of those in the `detail` of who is closed.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from ustack.base.posix cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from ustack.tcp.records.flight cimport (
    FLIGHT_LONE, REPAIR_FAST, REPAIR_NONE, REPAIR_RTO, REPAIR_SIZE, REXMIT_FAST, REXMIT_NONE, REXMIT_PROBE,
    REXMIT_RACK, REXMIT_RTO, REXMIT_SIZE, flight_pipe, flight_raw, flight_t)
from ustack.tcp.records.state cimport CLOSED, CLOSE_PARAMETER_PROBLEM, STATE_COUNT, SYN_SENT
from ustack.tcp.records.tcb cimport TCB_ACTIVE
from ustack.tcp.records.trace cimport (
    TRACE_ACKED, TRACE_ACKED_ALL, TRACE_ACK_SENT, TRACE_CLOSED, TRACE_LAST_SENT, TRACE_LOST, TRACE_MARKED,
    TRACE_OPENED, TRACE_PROBED, TRACE_RECOVERED, TRACE_RECOVERY, TRACE_RETRANSMITTED, TRACE_SACKED, TRACE_SENT,
    TRACE_STATE, TRACE_TIMEOUT, TRACE_UNDONE, TRACE_WINDOW)
from ustack.tcp.recovery.control cimport control_number
from ustack.tcp.recovery.rtt cimport rtt_rto_ns

from ustack.application import reason_name
from ustack.tcp.records.state import state_name


cdef enum:
    SLOTS_AT_FIRST = 16                     # a power of two

FORMAT = "=QI4B10IQ"
FIELDS = ("time_ns", "connection", "event", "cause", "state", "repair", "seq", "length", "cwnd", "ssthresh", "flight",
          "srtt_us", "rto_us", "snd_wnd", "rcv_wnd", "detail", "pacing_rate")
EVENTS = {
    <int>TRACE_SENT: "sent", <int>TRACE_RETRANSMITTED: "retransmitted", <int>TRACE_ACK_SENT: "ack_sent",
    <int>TRACE_PROBED: "probed", <int>TRACE_ACKED: "acked", <int>TRACE_SACKED: "sacked", <int>TRACE_WINDOW: "window",
    <int>TRACE_MARKED: "marked", <int>TRACE_LOST: "lost", <int>TRACE_RECOVERY: "recovery",
    <int>TRACE_RECOVERED: "recovered", <int>TRACE_UNDONE: "undone", <int>TRACE_TIMEOUT: "timeout",
    <int>TRACE_OPENED: "opened", <int>TRACE_STATE: "state", <int>TRACE_CLOSED: "closed",
}
CAUSES = {
    <int>REXMIT_NONE: "none", <int>REXMIT_FAST: "fast", <int>REXMIT_RACK: "rack", <int>REXMIT_PROBE: "probe",
    <int>REXMIT_RTO: "rto", <int>REXMIT_SIZE: "size",
}
REPAIRS = {
    <int>REPAIR_NONE: "none", <int>REPAIR_FAST: "fast", <int>REPAIR_RTO: "rto", <int>REPAIR_SIZE: "size",
}
STATES = {state: state_name(state) for state in range(STATE_COUNT)}
CONNECTIONS_MAX = <int>TRACE_CONNECTIONS_MAX     # of a ring, in all
REASONS = {reason: reason_name(reason) for reason in range(CLOSE_PARAMETER_PROBLEM + 1)}


# ---------------------------------------------------------------- rings

cdef int trace_ring_init(trace_ring_t *ring, uint32_t capacity, uint32_t most) noexcept nogil:
    cdef void *records
    memset(ring, 0, sizeof(trace_ring_t))
    ring.capacity = TRACE_RECORDS_MIN
    while ring.capacity < capacity and ring.capacity < TRACE_RECORDS_MAX:
        ring.capacity *= 2
    ring.most = most
    ring.full = UINT64_MAX
    records = mmap(NULL, ring.capacity * sizeof(trace_record_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0)
    if records == MAP_FAILED:
        return -1
    ring.records = <trace_record_t *>records
    ring.connections = <trace_connection_t *>calloc(most, sizeof(trace_connection_t))
    if ring.connections == NULL:
        trace_ring_free(ring)
        return -1
    return 0


cdef void trace_ring_free(trace_ring_t *ring) noexcept nogil:
    if ring.records != NULL:
        munmap(ring.records, ring.capacity * sizeof(trace_record_t))
    free(ring.connections)
    memset(ring, 0, sizeof(trace_ring_t))


cdef uint64_t trace_waiting(trace_ring_t *ring) noexcept nogil:
    cdef uint64_t waiting = ring.written - ring.read
    if waiting > ring.capacity:
        ring.missed += waiting - ring.capacity
        ring.read = ring.written - ring.capacity
        waiting = ring.capacity
    return waiting


cdef uint64_t trace_peek(trace_ring_t *ring, trace_record_t *out, uint64_t most) noexcept nogil:
    cdef uint64_t waiting = trace_waiting(ring)
    cdef uint64_t taken = waiting if waiting < most else most
    cdef uint64_t at = ring.read & (ring.capacity - 1)
    cdef uint64_t before_end = ring.capacity - at
    if taken == 0:
        return 0
    if before_end > taken:
        before_end = taken
    memcpy(out, &ring.records[at], before_end * sizeof(trace_record_t))
    memcpy(out + before_end, ring.records, (taken - before_end) * sizeof(trace_record_t))
    return taken


cdef uint64_t trace_lend(trace_ring_t *ring) noexcept nogil:
    cdef uint64_t waiting = trace_waiting(ring)
    ring.full = ring.read + ring.capacity
    return waiting


cdef void trace_leave_behind(trace_ring_t *ring, uint64_t count) noexcept nogil:
    ring.read += count
    if ring.full != UINT64_MAX:
        ring.full = ring.read + ring.capacity


# ---------------------------------------------------------------- who is traced

cdef inline tracing_t *tracing_of(const tcp_t *tcp) noexcept nogil:
    return <tracing_t *>tcp.trace


cdef inline uint32_t slot_of(const tracing_t *tracing, uint32_t index) noexcept nogil:
    return (index * 0x9E3779B1u >> 7) & tracing.mask


cdef inline traced_t *find(const tracing_t *tracing, uint32_t index) noexcept nogil:
    """The slot of this tcb, or the empty one where it would be."""
    cdef uint32_t at = slot_of(tracing, index)
    while tracing.slots[at].index != index and tracing.slots[at].index != 0:
        at = (at + 1) & tracing.mask
    return &tracing.slots[at]


cdef void leave(tracing_t *tracing, traced_t *slot) noexcept nogil:
    """Who is behind the gap and could not be found over it moves into it, until a gap is the end of a row."""
    cdef uint32_t gap = <uint32_t>(slot - tracing.slots), at = gap, wanted
    slot.ring.users -= 1
    tracing.used -= 1
    while True:
        at = (at + 1) & tracing.mask
        if tracing.slots[at].index == 0:
            break
        wanted = slot_of(tracing, tracing.slots[at].index)
        if (at - wanted & tracing.mask) >= (at - gap & tracing.mask):
            tracing.slots[gap] = tracing.slots[at]
            gap = at
    memset(&tracing.slots[gap], 0, sizeof(traced_t))


cdef int grow(tracing_t *tracing, uint32_t slots) noexcept nogil:
    cdef traced_t *before = tracing.slots
    cdef uint32_t at, count = tracing.mask + 1
    cdef traced_t *grown = <traced_t *>calloc(slots, sizeof(traced_t))
    if grown == NULL:
        return -1
    tracing.slots = grown
    tracing.mask = slots - 1
    if before != NULL:
        for at in range(count):
            if before[at].index:
                find(tracing, before[at].index)[0] = before[at]
        free(before)
    return 0


cdef tracing_t *tracing_make(tcp_t *tcp) noexcept nogil:
    cdef tracing_t *tracing = tracing_of(tcp)
    if tracing != NULL:
        return tracing
    tracing = <tracing_t *>calloc(1, sizeof(tracing_t))
    if tracing == NULL:
        return NULL
    if grow(tracing, SLOTS_AT_FIRST) != 0:
        free(tracing)
        return NULL
    tracing.table.note = note
    tracing.table.opened = opened
    tracing.table.closed = closed
    tcp.trace = &tracing.table
    return tracing


cdef void settle(tcp_t *tcp) noexcept nogil:
    """Nobody is left: the hooks cost nothing again."""
    cdef tracing_t *tracing = tracing_of(tcp)
    if tracing.used == 0 and tracing.everybody == NULL:
        tcp.trace = NULL
        free(tracing.slots)
        free(tracing)


cdef uint32_t trace_begin(tcp_t *tcp, const tcb_t *tcb, trace_ring_t *ring) noexcept nogil:
    cdef tracing_t *tracing
    cdef traced_t *slot
    cdef trace_connection_t *known
    if ring.known == ring.most or tcb.state == CLOSED:
        return 0
    tracing = tracing_make(tcp)
    if tracing == NULL:
        return 0
    slot = find(tracing, tcb.index)
    if slot.index != 0:
        return 0
    if 2 * (tracing.used + 1) > tracing.mask + 1:
        if grow(tracing, 2 * (tracing.mask + 1)) != 0:
            settle(tcp)
            return 0
        slot = find(tracing, tcb.index)
    tracing.used += 1
    ring.users += 1
    slot.ring = ring
    slot.index = tcb.index
    slot.snd_base = tcb.snd_una if tcb.state == SYN_SENT else tcb.snd_una - 1
    slot.knows_irs = tcb.state != SYN_SENT
    slot.rcv_base = tcb.rcv_nxt - 1
    known = &ring.connections[ring.known]
    ring.known += 1
    slot.number = ring.known
    known.key = tcb.key
    known.snd_base = slot.snd_base
    known.rcv_base = slot.rcv_base
    known.active = 1 if tcb.flags & TCB_ACTIVE else 0
    known.began_ns = tcp.now_ns
    known.smss = tcb.smss
    known.cc = <uint32_t>control_number(tcb)
    write(tcp, tcb, slot, TRACE_OPENED, tcb.snd_una, tcb.snd_nxt - tcb.snd_una, 0)
    return slot.number


cdef bint trace_end(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef tracing_t *tracing = tracing_of(tcp)
    cdef traced_t *slot
    if tracing == NULL:
        return False
    slot = find(tracing, tcb.index)
    if slot.index == 0:
        return False
    leave(tracing, slot)
    settle(tcp)
    return True


cdef int trace_everybody(tcp_t *tcp, trace_ring_t *ring) noexcept nogil:
    cdef tracing_t *tracing = tracing_make(tcp)
    if tracing == NULL or tracing.everybody != NULL:
        return -1
    tracing.everybody = ring
    ring.users += 1
    return 0


cdef void trace_ring_stop(tcp_t *tcp, trace_ring_t *ring) noexcept nogil:
    cdef tracing_t *tracing = tracing_of(tcp)
    cdef uint32_t at = 0
    if tracing == NULL or ring.users == 0:
        return
    if tracing.everybody == ring:
        tracing.everybody = NULL
        ring.users -= 1
    while ring.users and at <= tracing.mask:
        if tracing.slots[at].ring == ring:
            leave(tracing, &tracing.slots[at])          # another one may be in its place now
        else:
            at += 1
    settle(tcp)


cdef void tracing_end(tcp_t *tcp) noexcept nogil:
    cdef tracing_t *tracing = tracing_of(tcp)
    cdef uint32_t at
    if tracing == NULL:
        return
    for at in range(tracing.mask + 1):
        if tracing.slots[at].index:
            tracing.slots[at].ring.users -= 1
    if tracing.everybody != NULL:
        tracing.everybody.users -= 1
        tracing.everybody = NULL
    tracing.used = 0
    settle(tcp)


# ---------------------------------------------------------------- the hooks

cdef inline trace_record_t *write(const tcp_t *tcp, const tcb_t *tcb, traced_t *slot, uint32_t what, uint32_t seq,
                                  uint32_t length, uint32_t detail) noexcept nogil:
    cdef trace_ring_t *ring = slot.ring
    cdef trace_record_t *record = &ring.records[ring.written & (ring.capacity - 1)]
    cdef const flight_t *flight
    if ring.written == ring.full:
        ring.missed += 1
        record = &ring.nowhere
    else:
        ring.written += 1
    if not slot.knows_irs and tcb.state != SYN_SENT:
        slot.knows_irs = 1
        slot.rcv_base = tcb.rcv_nxt - 1
        ring.connections[slot.number - 1].rcv_base = slot.rcv_base
        ring.connections[slot.number - 1].smss = tcb.smss
    record.time_ns = tcp.now_ns
    record.connection = slot.number
    record.event = <uint8_t>what
    record.cause = <uint8_t>(what >> 8)
    record.state = tcb.state
    record.seq = seq - slot.snd_base
    record.length = length
    record.cwnd = tcb.cwnd
    record.ssthresh = tcb.ssthresh
    record.srtt_us = tcb.srtt_us
    record.rto_us = <uint32_t>(rtt_rto_ns(tcp, tcb) // 1000)
    record.snd_wnd = tcb.snd_wnd
    record.rcv_wnd = tcb.rcv_adv - tcb.rcv_nxt
    record.detail = detail
    if record.event <= TRACE_LAST_SENT:
        record.detail = tcb.rcv_nxt - slot.rcv_base if slot.knows_irs else 0
    record.flight = tcb.snd_nxt - tcb.snd_una
    record.repair = REPAIR_NONE
    record.pacing_rate = 0
    if record.event == TRACE_ACKED_ALL:
        record.event = TRACE_ACKED
        record.flight = 0
    elif tcb.flight:
        flight = flight_raw(tcp, tcb)       # a lone one stays lone
        record.repair = flight.repair
        record.pacing_rate = flight.pacer.rate
        if flight.flags != FLIGHT_LONE:
            record.flight = flight_pipe(flight)
    return record


cdef void note(tcp_t *tcp, const tcb_t *tcb, uint32_t what, uint32_t seq, uint32_t length,
               uint32_t detail) noexcept nogil:
    cdef traced_t *slot = find(tracing_of(tcp), tcb.index)
    if slot.index:
        write(tcp, tcb, slot, what, seq, length, detail)


cdef void opened(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef tracing_t *tracing = tracing_of(tcp)
    if tracing.everybody == NULL:
        return
    trace_begin(tcp, tcb, tracing.everybody)
    if tracing.everybody.known == tracing.everybody.most:
        tracing.everybody.users -= 1        # nobody else will be: who is ends it
        tracing.everybody = NULL
        settle(tcp)


cdef void closed(tcp_t *tcp, const tcb_t *tcb, uint8_t became, uint8_t reason) noexcept nogil:
    cdef tracing_t *tracing = tracing_of(tcp)
    cdef traced_t *slot = find(tracing, tcb.index)
    if slot.index == 0:
        return
    write(tcp, tcb, slot, TRACE_CLOSED, tcb.snd_una, 0, reason).state = became
    leave(tracing, slot)
    settle(tcp)
