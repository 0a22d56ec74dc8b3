# SPDX-License-Identifier: MIT
"""What has been received and not consumed: in order, and beyond a hole.

Bounds, for each connection: what its window admits (rcv_limit, and an eighth where a scaled window is rounded),
a block of 4096 bytes at each end, and RUN_BYTES of window for each run beyond a hole; for all together, and when that
is short, see pressure.pxd. A segment costs O(log n) steps among n runs, and one removal for each run that it covers or
joins, which the segment that made that run has paid for (REASSEMBLY_STEPS counts them).

A segment beyond a hole that would make one run too many is refused and comes again; one that touches a run never is.
With 64 bytes of window for each run that meets nobody who loses fewer than every second segment of 32 bytes (windows
beyond 2 MiB: RUNS_MAX runs in all).

Read first: RFC 9293 section 3.10.7.4, seventh step; rx_queue.pxd.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t

from ustack.base.counters cimport DROP_NO_MEMORY, DROP_TCP_REASSEMBLY_FULL, REASSEMBLY_STEPS, count_add
from ustack.base.types cimport ms_of
from ustack.buf.chunks cimport chunk_free_bytes
from ustack.tcp.receive.pressure cimport pressure_allow, pressure_allow_beyond
from ustack.tcp.receive.window cimport rcv_limit
from ustack.tcp.records.duplicates cimport duplicate_note
from ustack.tcp.records.life cimport rx_queue_release
from ustack.tcp.records.runs cimport (
    RUNS_MAX, run_t, runs_above, runs_add, runs_floor, runs_growth_bytes, runs_highest, runs_lowest, runs_memory_bytes,
    runs_remove, runs_view_t)
from ustack.tcp.records.rx_queue cimport (
    RX_SACK_RECENT, rx_memory_short, rx_queue_fit, rx_queue_forget_runs, rx_queue_move_head, rx_queue_new,
    rx_queue_note, rx_queue_put, rx_queue_t, rx_queue_view, rx_runs_view)
from ustack.tcp.records.tally cimport rcv_nxt_advance, rcv_nxt_retreat
from ustack.tcp.records.tcb cimport TCB_FIN_RECEIVED, rx_queue_of
from ustack.tcp.records.work cimport turn_charge
from ustack.wire.seq cimport seq_between, seq_gt, seq_le, seq_lt


cdef enum:
    RUN_BYTES = 64                          # of window for each run
    RUNS_AT_LEAST = 256
    MOST_BESIDE_DATA = 3 * 4096             # a block begun at each end, and a table
    STEPS_UNIT_SHIFT = 3                    # a unit of a turn for eight steps, with cold caches


cdef inline uint32_t now_ms(const tcp_t *tcp) noexcept nogil:
    return ms_of(tcp.now_ns)


cdef inline void note_steps(tcp_t *tcp, const runs_view_t *view) noexcept nogil:
    """Who made the runs has paid for them, but long before: many segments that each join hundreds of runs can come at
    once, and a turn takes only as many of them as it has time for."""
    count_add(tcp.counters, REASSEMBLY_STEPS, view.steps)
    turn_charge(tcp, view.steps >> STEPS_UNIT_SHIFT)


cdef rx_queue_t *queue_get(tcp_t *tcp, tcb_t *tcb, uint32_t seq) noexcept nogil:
    if tcb.rx == 0:
        tcb.rx = rx_queue_new(&tcp.rx, tcb.index, seq, now_ms(tcp))
    return rx_queue_of(tcp, tcb)


cdef void settle(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """After a change: into the list that fits, or away. An idle connection holds nothing."""
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    if rx == NULL:
        return
    if rx.queued_bytes == 0 and rx.runs.count == 0 and not rx.fin_ooo:
        rx_queue_release(tcp, tcb)
    else:
        rx_queue_note(&tcp.rx, rx, tcb.rx)


# ---------------------------------------------------------------- in order

cdef uint32_t make_fit(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length) noexcept nogil:
    """How many bytes in order from `seq` there is memory for. May give up what lies beyond a hole, the record too."""
    cdef rx_queue_t *rx = queue_get(tcp, tcb, seq)
    cdef uint64_t cost = 0, allowed
    if rx == NULL:
        return 0
    rx_queue_fit(rx, seq, length, UINT64_MAX, &cost)
    if cost == 0:
        return length
    allowed = pressure_allow(tcp, tcb, cost)
    rx = queue_get(tcp, tcb, seq)           # it may have given up what it held beyond a hole
    return rx_queue_fit(rx, seq, length, allowed, &cost) if rx != NULL else 0


cdef bint put_in_order(tcp_t *tcp, tcb_t *tcb, uint32_t seq, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef rx_queue_t *rx = queue_get(tcp, tcb, seq)
    if rx == NULL or rx_queue_put(&tcp.rx, rx, seq, data, length) != 0:
        return False
    if rx.queued_bytes == 0:
        note_read(tcp, rx, seq)
    rx.queued_bytes += length
    return True


cdef inline void note_read(const tcp_t *tcp, rx_queue_t *rx, uint32_t seq) noexcept nogil:
    rx.read_ms = now_ms(tcp)
    rx.read_seq = seq


cdef uint32_t reassembly_append(tcp_t *tcp, tcb_t *tcb, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t kept = make_fit(tcp, tcb, tcb.rcv_nxt, length)
    if kept > 0 and not put_in_order(tcp, tcb, tcb.rcv_nxt, data, kept):
        kept = 0
    settle(tcp, tcb)
    return kept


cdef bint reassembly_sure(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    cdef bint sure
    if not rx_memory_short(&tcp.rx) and chunk_free_bytes(&tcp.rx.chunks) > <uint64_t>length + MOST_BESIDE_DATA:
        return True
    sure = make_fit(tcp, tcb, tcb.rcv_nxt, length) == length
    settle(tcp, tcb)
    return sure


cdef bint reassembly_keep(tcp_t *tcp, tcb_t *tcb, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef bint fin = tcb.flags & TCB_FIN_RECEIVED
    cdef uint32_t seq, kept
    if rx != NULL:
        seq = rx.head_seq - length          # what its segment has joined lies behind
    else:
        seq = tcb.rcv_nxt - length - (1 if fin else 0)
    kept = make_fit(tcp, tcb, seq, length)
    if fin:                                 # reassembly_sure has promised it; since then the blocks of the runs that
        kept = length                       # the segment covers were given back, and count against the share once more
    rx = rx_queue_of(tcp, tcb)
    if kept < length and rx != NULL and rx.queued_bytes:
        rx_queue_release(tcp, tcb)          # what was joined lies behind a hole again, and goes with it
    if kept > 0 and not put_in_order(tcp, tcb, seq, data, kept):
        rx_queue_release(tcp, tcb)
        if fin:
            return False
        kept = 0
    rx = rx_queue_of(tcp, tcb)
    if rx != NULL:
        rx.head_seq = seq
    if kept < length:
        rcv_nxt_retreat(tcp, tcb, seq + kept)
    settle(tcp, tcb)
    return True


cdef const uint8_t *reassembly_peek(tcp_t *tcp, tcb_t *tcb, uint32_t skip, uint32_t *length) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    if rx == NULL:
        length[0] = 0
        return NULL
    return rx_queue_view(&tcp.rx, rx, skip, length)


cdef void reassembly_consume(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    if rx == NULL or length == 0:
        return
    if length > rx.queued_bytes:
        length = rx.queued_bytes
    # A byte now and then is no reading: who holds much must take a part of it to be left alone (pressure.pxd).
    if rx.head_seq + length - rx.read_seq >= rx.queued_bytes >> 3:
        note_read(tcp, rx, rx.head_seq + length)
    rx_queue_move_head(&tcp.rx, rx, rx.head_seq + length)
    rx.queued_bytes -= length
    settle(tcp, tcb)


# ---------------------------------------------------------------- out of order

cdef inline uint32_t runs_allowed(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint32_t allowed = rcv_limit(tcp, tcb) // RUN_BYTES
    if allowed < RUNS_AT_LEAST:
        return RUNS_AT_LEAST
    return allowed if allowed < RUNS_MAX else RUNS_MAX


cdef int reassembly_insert(tcp_t *tcp, tcb_t *tcb, uint32_t seq, const uint8_t *data, uint32_t length,
                           bint fin) noexcept nogil:
    cdef rx_queue_t *rx = queue_get(tcp, tcb, tcb.rcv_nxt)
    cdef runs_view_t view
    cdef int reason = 0
    if rx == NULL:
        return DROP_NO_MEMORY
    rx_runs_view(&tcp.rx, rx, &view)
    if rx.fin_ooo and seq_gt(seq + length, rx.fin_seq):     # nothing can follow a FIN
        length = rx.fin_seq - seq if seq_lt(seq, rx.fin_seq) else 0
    elif fin and not rx.fin_ooo and not held_beyond(&view, seq + length):
        rx.fin_ooo = 1                      # a FIN below data already received is bogus: ignore it
        rx.fin_seq = seq + length
    if length > 0:
        reason = add_bytes(tcp, tcb, rx, &view, seq, data, length)
        if reason == 0:
            remember_recent(rx, &view, seq)
    note_steps(tcp, &view)
    settle(tcp, tcb)
    return reason


cdef bint held_beyond(runs_view_t *view, uint32_t seq) noexcept nogil:
    cdef run_t *highest = runs_highest(view)
    return highest != NULL and seq_gt(highest.right, seq)


cdef int add_bytes(tcp_t *tcp, tcb_t *tcb, rx_queue_t *rx, runs_view_t *view, uint32_t seq, const uint8_t *data,
                   uint32_t length) noexcept nogil:
    """One segment into the set: fill the gaps between the runs that it covers, and make one run of them all."""
    cdef uint32_t end = seq + length, at = seq, gap
    cdef uint64_t cost
    cdef uint32_t runs_before = runs_memory_bytes(view.runs)
    cdef run_t *joined = runs_floor(view, seq)
    cdef run_t *following
    cdef int reason = 0
    if joined != NULL and seq_lt(joined.right, seq):
        joined = NULL                       # it ends before
    if joined != NULL:
        if seq_le(end, joined.right):
            duplicate_note(tcp, tcb, seq, end)
            return 0                        # all of it is held
        duplicate_note(tcp, tcb, seq, joined.right)
        at = joined.right
    rx_queue_fit(rx, at, end - at, UINT64_MAX, &cost)
    if joined == NULL:
        following = runs_above(view, seq)
        if following == NULL or seq_gt(following.left, end):
            cost += runs_growth_bytes(view.runs)
            if view.runs.count >= runs_allowed(tcp, tcb):
                return DROP_TCP_REASSEMBLY_FULL
    if cost > 0 and cost > pressure_allow_beyond(tcp, tcb):
        return DROP_TCP_REASSEMBLY_FULL
    while True:
        following = runs_above(view, at)
        gap = end - at
        if following != NULL and seq_le(following.left, end):
            gap = following.left - at
        else:
            following = NULL
        if gap > 0 and rx_queue_put(&tcp.rx, rx, at, data + (at - seq), gap) != 0:
            reason = DROP_NO_MEMORY
            break
        at += gap
        if joined != NULL:
            joined.right = at
        elif following == NULL:
            if runs_add(view, seq, at) == NULL:
                reason = DROP_NO_MEMORY
            break
        if following == NULL:
            break
        if joined == NULL:
            joined = following
            joined.left = seq
            at = joined.right
        else:
            at = following.right
            runs_remove(view, following.left)
            joined.right = at
        if not seq_lt(at, end):
            break
    rx.held_bytes += runs_memory_bytes(view.runs) - runs_before
    return reason


cdef void remember_recent(rx_queue_t *rx, runs_view_t *view, uint32_t seq) noexcept nogil:
    """RFC 2018 section 4: the first block tells of the latest segment, the others of the runs reported before."""
    cdef run_t *run = runs_floor(view, seq)
    cdef uint32_t i, kept = 1
    cdef uint32_t recent[RX_SACK_RECENT]
    if run == NULL or not seq_lt(seq, run.right):
        return
    recent[0] = seq
    for i in range(rx.sack_count):
        if kept < RX_SACK_RECENT and not seq_between(rx.sack_recent[i], run.left, run.right):
            recent[kept] = rx.sack_recent[i]
            kept += 1
    for i in range(kept):
        rx.sack_recent[i] = recent[i]
    rx.sack_count = <uint8_t>kept


cdef bint reassembly_advance(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef runs_view_t view
    cdef run_t *run
    cdef uint32_t left, right, runs_before
    cdef bint fin
    if rx == NULL:
        return False
    if rx.queued_bytes == 0:                # what came was used straight from the ring
        rx_queue_move_head(&tcp.rx, rx, tcb.rcv_nxt)
    rx_runs_view(&tcp.rx, rx, &view)
    runs_before = runs_memory_bytes(&rx.runs)
    while rx.runs.count and not (rx.fin_ooo and rx.fin_seq == tcb.rcv_nxt):
        run = runs_lowest(&view)
        left = run.left
        right = run.right
        if seq_gt(left, tcb.rcv_nxt):
            break
        runs_remove(&view, left)
        if seq_gt(right, tcb.rcv_nxt):
            if rx.queued_bytes == 0:
                note_read(tcp, rx, rx.head_seq)
            rx.queued_bytes += right - tcb.rcv_nxt
            rcv_nxt_advance(tcp, tcb, right - tcb.rcv_nxt)
    rx.held_bytes += runs_memory_bytes(&rx.runs) - runs_before
    if rx.runs.count == 0:
        rx.sack_count = 0
    fin = rx.fin_ooo and rx.fin_seq == tcb.rcv_nxt
    if fin:
        rx.fin_ooo = 0
    note_steps(tcp, &view)
    settle(tcp, tcb)
    return fin


cdef void reassembly_forget(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    if rx == NULL:
        return
    rx_queue_forget_runs(&tcp.rx, rx)
    settle(tcp, tcb)
