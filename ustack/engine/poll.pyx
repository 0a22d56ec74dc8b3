# SPDX-License-Identifier: MIT
"""THE MAP: one frame's way in, one burst's way out. See poll.pxd for the contract.

    engine_poll
      rx_burst ─▶ for each frame:  ip_input ─▶ tcp_input ─▶ upcalls_deliver (on_data: a view of the ring slot)
      rx_release                   until 64 frames are taken, none is left, or the stage's budget is spent
      ip_timers, tcp_timers
      hand_over ─▶ upcalls_gather, upcalls_hand_over: applications that need Python take the GIL, once
      serve_work ─▶ for each connection with work:  upcalls_make ─▶ tcp_output, until the stage's budget is spent
                      tx_submit: one system call

It holds no protocol: which layer is called when is all there is. Read first: ARCHITECTURE.md.
"""

from libc.errno cimport ENETDOWN
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.application cimport application_t
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.counters cimport BYTES_OUT, FRAMES_OUT, HAND_OVERS, HAND_OVERS_AT_RETURN
from ustack.engine.ahead cimport ahead_is_worth, look_ahead
from ustack.engine.upcalls cimport (
    EVENTS, EVENTS_AGAIN, upcalls_deliver, upcalls_end_bursts, upcalls_finish, upcalls_gather, upcalls_hand_over,
    upcalls_make, upcalls_reads_on)
from ustack.ip.layer cimport (
    IP_TCP, IP_TCP_ERROR, ip_input, ip_next_deadline, ip_take_unreached, ip_timers, ip_verdict_t, packet_t)
from ustack.tcp.admission cimport ADMISSION_OFF, admission_drops, admission_note, admission_passes
from ustack.tcp.arrival.text cimport delivery_t
from ustack.tcp.calls cimport tcp_abort
from ustack.tcp.ending cimport connection_end, syn_received_remove, time_wait_remove
from ustack.tcp.input cimport tcp_input
from ustack.tcp.network_errors cimport tcp_error, tcp_unreached
from ustack.tcp.output cimport OUTPUT_BLOCKED, tcp_output
from ustack.tcp.records.demux cimport flow_connection, flow_slot_count, flow_turn
from ustack.tcp.records.life cimport tcb_release
from ustack.tcp.records.state cimport CLOSED, CLOSE_ABORTED, FIN_WAIT_2
from ustack.tcp.records.tcb cimport (
    TCB_ABORT, TCB_CLOSED_BY_APP, TCB_EV_CLOSED, TCB_LISTED, flow_memo_t, tcb_at, tcb_t, tcp_t)
from ustack.tcp.records.turn cimport TURN_STAGE_UNITS, TURN_UPCALL_UNITS, UNIT_BYTES_SHIFT, turn_t
from ustack.tcp.records.work cimport turn_charge, work_add, work_return, work_take
from ustack.tcp.timers cimport tcp_next_deadline, tcp_timers

from ustack.link.device cimport link_t

cdef enum:
    END_SLOTS = 16384                       # of the flow table looked at in a turn of ending
    END_RECORDS = 512                       # of a kind that a turn ends
    END_PATIENCE = 64                       # turns in which nothing can be sent before peers are left untold
    TX_RETRY_NS = 50000                     # a device that is full is asked again after this long
    # What the engine charges for its own work (turn_t), measured with cold caches.
    FRAME_UNITS = 2
    CONNECTION_UNITS = 8                    # taken from the work list


# ---------------------------------------------------------------- one poll

cdef uint32_t engine_poll(engine_t *engine, uint64_t now_ns) noexcept nogil:
    cdef link_t *link = engine.link
    cdef uint32_t taken = 0, wanted, n
    cdef packet_t packet
    cdef bint left = True                   # as far as we know, frames wait behind those that were taken
    engine.now_ns = now_ns
    link.now_ns = now_ns
    stage_begin(&engine.tcp)
    while taken < ENGINE_BURST and engine.tcp.turn.budget.stage_left > 0:
        # No more at once than the rest of the budget surely pays for: what is not taken stays in the ring.
        wanted = <uint32_t>engine.tcp.turn.budget.stage_left / (2 * TURN_UPCALL_UNITS)
        if wanted == 0:
            wanted = 1
        if wanted > ENGINE_BURST - taken:
            wanted = ENGINE_BURST - taken
        n = link.ops.rx_burst(link, engine.frames, wanted)
        if n > 0:
            if engine.tcp.admission.behind:
                take_frames(engine, n, now_ns, True)
            else:
                take_frames(engine, n, now_ns, False)
            link.ops.rx_release(link, n)
            taken += n
        if n < wanted:
            left = False
            break
    if left or engine.tcp.admission.behind:
        look_behind(engine)
    engine.tcp.turn.frames = taken
    stage_end(&engine.tcp)
    ip_timers(&engine.ip, now_ns)
    while ip_take_unreached(&engine.ip, &packet):
        tcp_unreached(&engine.tcp, &packet, now_ns)
    tcp_timers(&engine.tcp, now_ns)
    flow_turn(&engine.tcp)
    stage_begin(&engine.tcp)
    if engine.gathers | engine.hand_overs:
        hand_over(engine)
    serve_work(engine, now_ns)
    turn_end(engine)
    return taken


cdef void look_behind(engine_t *engine) noexcept nogil:
    """After a receive stage that left frames where they are, or when there were too many: how many? What keeps up is
    never asked. (That a burst was short tells nothing: a slot that is being filled ends it, too.)"""
    cdef link_t *link = engine.link
    admission_note(&engine.tcp, engine.tcp.config.admission != ADMISSION_OFF and link.ops.rx_behind != NULL
                   and link.ops.rx_behind(link, engine.tcp.config.admission_frames, engine.tcp.admission.behind))


cdef inline void take_frames(engine_t *engine, uint32_t n, uint64_t now_ns, bint behind) noexcept nogil:
    """behind: a constant where this is called, so that admission is no part of the way of what keeps up."""
    cdef packet_t packet
    cdef delivery_t delivery
    cdef ip_verdict_t verdict
    cdef flow_memo_t memos[ENGINE_BURST]
    cdef bint ahead = ahead_is_worth(&engine.tcp, n)
    cdef uint32_t i
    if ahead:
        look_ahead(&engine.tcp, engine.frames, n, memos)
    for i in range(n):
        if ahead:
            engine.tcp.flows.memo = memos[i]
        turn_charge(&engine.tcp, FRAME_UNITS + (engine.frames[i].length >> UNIT_BYTES_SHIFT))
        verdict = ip_input(&engine.ip, &engine.frames[i], &packet, now_ns)
        if behind and verdict != IP_TCP:
            admission_passes(&engine.tcp)
        if verdict == IP_TCP:
            if behind and admission_drops(&engine.tcp, &packet):
                continue
            tcp_input(&engine.tcp, &packet, now_ns, &delivery)
            if delivery.conn != NULL:
                upcalls_deliver(engine, &delivery)
        elif verdict == IP_TCP_ERROR:
            tcp_error(&engine.tcp, &packet, now_ns)


cdef void hand_over(engine_t *engine) noexcept nogil:
    """Between receiving and output: applications that need Python get what happened in this turn. Half of the stage is
    output's."""
    if engine.gathers:
        upcalls_gather(engine, TURN_STAGE_UNITS // 2)
    if engine.hand_overs:
        upcalls_hand_over(engine, HAND_OVERS)


cdef void engine_hand_over(engine_t *engine) noexcept nogil:
    upcalls_hand_over(engine, HAND_OVERS_AT_RETURN)


cdef void engine_flush(engine_t *engine, uint64_t now_ns) noexcept nogil:
    stage_begin(&engine.tcp)
    serve_work(engine, now_ns)
    turn_end(engine)


cdef void serve_work(engine_t *engine, uint64_t now_ns) noexcept nogil:
    """The second stage of a turn, begun by the caller: upcalls and output for what is on the work list."""
    cdef tcp_t *tcp = &engine.tcp
    cdef tcb_t *conn
    cdef uint32_t again = 0
    cdef bint submitted = False
    engine.now_ns = now_ns
    engine.link.now_ns = now_ns
    engine.tx_blocked = False
    while tcp.turn.budget.stage_left > 0:
        conn = work_take(tcp)
        if conn == NULL:
            break
        tcp.turn.connections += 1
        turn_charge(tcp, CONNECTION_UNITS)
        if conn.flags & EVENTS:
            conn.flags |= TCB_LISTED        # what its upcalls leave behind is looked at right below
            upcalls_make(engine, conn)
            conn.flags &= ~TCB_LISTED
            if conn.flags & TCB_EV_CLOSED:
                if upcalls_reads_on(engine, conn):
                    conn.flags |= TCB_LISTED
                    conn.work_next = again
                    again = conn.index
                else:
                    upcalls_finish(engine, conn)
                continue
        if tcp_output(tcp, conn, now_ns) == OUTPUT_BLOCKED:
            if submitted:                   # the device takes no more now; others come first next time
                work_add(tcp, conn)
                engine.tx_blocked = True
                break
            work_return(tcp, conn)
            submit(engine)
            submitted = True
            continue
        submitted = False
        if conn.flags & EVENTS_AGAIN and not conn.flags & TCB_LISTED:
            conn.flags |= TCB_LISTED        # what an upcall asks for again it gets in the next poll, not in this one
            conn.work_next = again
            again = conn.index
    while again:
        conn = tcb_at(tcp, again)
        again = conn.work_next
        conn.flags &= ~TCB_LISTED
        work_add(tcp, conn)
    submit(engine)
    if engine.open_applications:
        upcalls_end_bursts(engine)
    stage_end(tcp)


# ---------------------------------------------------------------- the books of a turn

cdef inline void stage_begin(tcp_t *tcp) noexcept nogil:
    tcp.turn.budget.stage_left = TURN_STAGE_UNITS


cdef inline void stage_end(tcp_t *tcp) noexcept nogil:
    tcp.turn.units += <uint32_t>(TURN_STAGE_UNITS - tcp.turn.budget.stage_left)


cdef inline uint32_t larger(uint32_t a, uint32_t b) noexcept nogil:
    return a if a > b else b


cdef void turn_end(engine_t *engine) noexcept nogil:
    cdef turn_t *turn = &engine.tcp.turn
    cdef turn_stats_t *turns = &engine.turns
    turns.turns += 1
    turns.units_max = larger(turns.units_max, turn.units)
    turns.frames_max = larger(turns.frames_max, turn.frames)
    turns.upcalls_max = larger(turns.upcalls_max, turn.upcalls)
    turns.connections_max = larger(turns.connections_max, turn.connections)
    turns.timers_max = larger(turns.timers_max, turn.timers)
    turns.moves_max = larger(turns.moves_max, turn.moves)
    memset(turn, 0, sizeof(turn_t))


# ---------------------------------------------------------------- the link

cdef inline void note_error(engine_t *engine, int error) noexcept nogil:
    """A link that is down is no failure: frames are lost until it is up again, and R2 decides (RFC 9293 section
    3.8.3)."""
    if error != 0 and error != -ENETDOWN:
        engine.link_error = error


cdef inline void submit(engine_t *engine) noexcept nogil:
    note_error(engine, engine.link.ops.tx_submit(engine.link))
    engine.counters.value[<int>FRAMES_OUT] = engine.link.counters.tx_frames
    engine.counters.value[<int>BYTES_OUT] = engine.link.counters.tx_bytes


cdef uint64_t engine_next_deadline(engine_t *engine) noexcept nogil:
    cdef uint64_t tcp_ns, ip_ns
    if engine.hand_overs:                   # asked for in the last one
        return engine.now_ns
    if engine.tcp.work_head:
        return engine.now_ns + (TX_RETRY_NS if engine.tx_blocked else 0)
    tcp_ns = tcp_next_deadline(&engine.tcp)
    ip_ns = ip_next_deadline(&engine.ip)
    return tcp_ns if tcp_ns < ip_ns else ip_ns


cdef void engine_wait(engine_t *engine, uint64_t deadline_ns) noexcept nogil:
    note_error(engine, engine.link.ops.wait(engine.link, deadline_ns))


cdef void engine_run(engine_t *engine, uint64_t until_ns, const bint *stop) noexcept nogil:
    cdef uint64_t now_ns = clock_monotonic_ns()
    cdef uint64_t deadline_ns, slept
    while not stop[0] and now_ns < until_ns and engine.link_error == 0:
        if engine_poll(engine, now_ns) == 0 and engine.link_error == 0:
            deadline_ns = engine_next_deadline(engine)
            if deadline_ns > now_ns:
                slept = engine.link.counters.waits
                engine_wait(engine, deadline_ns if deadline_ns < until_ns else until_ns)
                if slept != engine.link.counters.waits:
                    return
        now_ns = clock_monotonic_ns()


# ---------------------------------------------------------------- who is called

cdef uint16_t engine_add_application(engine_t *engine, application_t *app) noexcept nogil:
    if engine.application_count + 1 >= ENGINE_APPLICATIONS:
        return 0
    engine.application_count += 1
    engine.applications[engine.application_count] = app
    if app.on_hand_over != NULL and app.gather:
        engine.gathers |= 1ULL << engine.application_count
    return engine.application_count


# ---------------------------------------------------------------- ending everything

cdef bint engine_end_some(engine_t *engine, uint64_t now_ns) noexcept nogil:
    cdef tcp_t *tcp = &engine.tcp
    cdef uint32_t left = tcp.tcbs.in_use
    cdef int _i
    tcp.now_ns = now_ns
    if not engine.ending:
        engine.ending = True
        memset(tcp.listeners, 0, sizeof(tcp.listeners))
        tcp.tcbs.limit = 0                  # what on_closed opens again would never end
    end_connections(engine)
    engine_poll(engine, now_ns)
    if tcp.tcbs.in_use < left or not tcp.work_head:
        engine.fruitless = 0
    else:
        engine.fruitless += 1
        if engine.fruitless == END_PATIENCE:
            engine.untold = True            # the device takes nothing any more
    for _i in range(END_RECORDS):
        if tcp.syn_order.first:
            syn_received_remove(tcp, tcp.syn_order.first, False)
        if tcp.time_wait_order.first:
            time_wait_remove(tcp, tcp.time_wait_order.first)
    return tcp.syn_order.first or tcp.time_wait_order.first or (tcp.tcbs.in_use and (tcp.work_head or tcp.flows.used))


cdef void end_connections(engine_t *engine) noexcept nogil:
    """Walk on through the flow table, around and around: removals may move an entry past us."""
    cdef tcp_t *tcp = &engine.tcp
    cdef uint64_t look = flow_slot_count(tcp)
    cdef uint32_t ended = 0
    cdef tcb_t *conn
    if look > END_SLOTS:
        look = END_SLOTS
    while look > 0 and ended < END_RECORDS:
        look -= 1
        if engine.end_at >= flow_slot_count(tcp):
            engine.end_at = 0
        conn = flow_connection(tcp, engine.end_at)
        engine.end_at += 1
        if conn == NULL or (conn.flags & TCB_ABORT and not engine.untold):
            continue
        ended += 1
        # In FIN-WAIT-2 after tcp_close everything was delivered and nothing is aborted. As on Linux, where such an
        # orphan ends in silence, the peer is not told: its application may not have read everything yet.
        if engine.untold or (conn.flags & TCB_CLOSED_BY_APP and conn.state == FIN_WAIT_2):
            connection_end(tcp, conn, CLOSE_ABORTED)
        else:
            tcp_abort(tcp, conn)


cdef void engine_discard_all(engine_t *engine) noexcept nogil:
    cdef tcp_t *tcp = &engine.tcp
    cdef tcb_t *conn
    cdef uint64_t at = 0
    while tcp.tcbs.in_use:
        if at >= flow_slot_count(tcp):
            at = 0                          # removals move entries: until none is left
        conn = flow_connection(tcp, at)
        at += 1
        if conn != NULL:
            connection_end(tcp, conn, CLOSE_ABORTED)
        conn = work_take(tcp)
        while conn != NULL:
            if conn.state == CLOSED:
                tcb_release(tcp, conn)
            conn = work_take(tcp)
