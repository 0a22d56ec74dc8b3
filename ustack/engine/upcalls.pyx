# SPDX-License-Identifier: MIT
"""Who tells the application what, and in which order. See upcalls.pxd.

It holds no protocol: it reads the events that the layers below have noted on a connection, and calls its application.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from ustack.application cimport ACCEPT_NO_MEMORY, ACCEPT_REFUSED, ACCEPT_WAITING, application_t
from ustack.base.counters cimport (
    ACCEPTS_WITHOUT_MEMORY, DROP_NO_MEMORY, EVENTS_HANDED_OVER, count, count_add, counter_t)
from ustack.engine.records cimport engine_t
from ustack.engine.transport cimport conn_of
from ustack.tcp.arrival.text cimport delivery_t
from ustack.tcp.calls cimport tcp_abort, tcp_receivable, tcp_resume, tcp_waiting, tcp_want_writable
from ustack.tcp.receive.reassembly cimport reassembly_consume, reassembly_keep, reassembly_peek
from ustack.tcp.records.life cimport tcb_release
from ustack.tcp.records.marks cimport tcb_is_writable
from ustack.tcp.records.state cimport CLOSE_NORMAL, CLOSE_NO_MEMORY, SYN_SENT, close_reason_t
from ustack.tcp.records.tcb cimport (
    TCB_ABORT, TCB_ACCEPTED, TCB_ACTIVE, TCB_CLOSED_BY_APP, TCB_EV_ACCEPT, TCB_EV_DATA, TCB_EV_EOF, TCB_EV_TIMEOUT,
    TCB_EV_URGENT, TCB_EV_WRITABLE, TCB_LISTED, TCB_PAUSED, TCB_WANT_WRITABLE, tcb_at, tcb_t, tcp_t)
from ustack.tcp.records.turn cimport TURN_UPCALL_UNITS, UNIT_BYTES_SHIFT, turn_t
from ustack.tcp.records.urgent cimport URGENT_UNTOLD, urgent_of, urgent_t, urgent_unread
from ustack.tcp.records.work cimport turn_charge, work_remove

cdef enum:
    UPCALL_UNITS = 1                        # charged for each call, measured with cold caches (turn_t)
    LOOK_UNITS = 1                          # for a connection of the work list, before output
    LOOKS_IN_VAIN = 256                     # most in one turn: what lies behind is called before its own output
    CLOSE_UNITS = 7                         # more if its record is given back: CONNECTION_UNITS (poll) in all


cdef extern from *:
    uint32_t lowest_bit "__builtin_ctzll"(uint64_t bits) nogil


cdef inline application_t *upcall_begin(engine_t *engine, const tcb_t *conn) noexcept nogil:
    """The connection's application, its burst begun, with its share of the turn."""
    cdef application_t *app = engine.applications[conn.app]
    cdef turn_t *turn = &engine.tcp.turn
    turn.upcalls += 1
    turn.budget.stage_left -= UPCALL_UNITS
    turn.budget.upcall_floor = turn.budget.stage_left - TURN_UPCALL_UNITS
    if turn.budget.upcall_floor < 0:
        # The rest of the stage; every upcall makes some progress.
        turn.budget.upcall_floor = 0 if turn.budget.stage_left > 0 else turn.budget.stage_left - 1
    if not engine.open_applications & (1ULL << conn.app):
        engine.open_applications |= 1ULL << conn.app
        if app.on_burst_begin != NULL:
            app.on_burst_begin(app, engine.now_ns)
    return app


cdef void upcalls_end_bursts(engine_t *engine) noexcept nogil:
    cdef uint64_t left = engine.open_applications
    cdef application_t *app
    engine.open_applications = 0
    while left:
        app = engine.applications[lowest_bit(left)]
        left &= left - 1
        if app.on_burst_end != NULL:
            app.on_burst_end(app, engine.now_ns)


cdef void upcalls_hand_over(engine_t *engine, counter_t count_as) noexcept nogil:
    cdef uint64_t left = engine.hand_overs
    cdef application_t *app
    engine.hand_overs = 0                   # who asks again gets it the next time
    while left:
        app = engine.applications[lowest_bit(left)]
        left &= left - 1
        if app.on_hand_over != NULL:
            count(&engine.counters, count_as)
            count_add(&engine.counters, EVENTS_HANDED_OVER, app.on_hand_over(app, &engine.transport))


cdef void upcalls_gather(engine_t *engine, int32_t floor_units) noexcept nogil:
    cdef tcp_t *tcp = &engine.tcp
    cdef uint32_t last = tcp.work_tail      # what upcalls add behind it has its turn later
    cdef uint32_t at = tcp.work_head
    cdef tcb_t *conn
    cdef tcb_t *before = NULL
    cdef uint32_t in_vain = 0
    while at and in_vain < LOOKS_IN_VAIN and tcp.turn.budget.stage_left > floor_units:
        conn = tcb_at(tcp, at)
        turn_charge(tcp, LOOK_UNITS)
        if conn.flags & EVENTS and engine.gathers >> conn.app & 1:
            upcalls_make(engine, conn)
            if conn.flags & TCB_EV_CLOSED and not upcalls_reads_on(engine, conn):
                turn_charge(tcp, CLOSE_UNITS)
                at = 0 if conn.index == last else conn.work_next
                work_remove(tcp, before, conn)
                upcalls_finish(engine, conn)
                continue
        else:
            in_vain += 1
        before = conn
        at = 0 if conn.index == last else conn.work_next
    if in_vain > engine.turns.looks_in_vain_max:
        engine.turns.looks_in_vain_max = in_vain


cdef inline bint wants_upcalls(const tcb_t *conn) noexcept nogil:
    return conn.flags & TCB_ACCEPTED and not conn.flags & (TCB_ABORT | TCB_CLOSED_BY_APP)


cdef bint accept(engine_t *engine, tcb_t *conn) noexcept nogil:
    """False: the application does not want it."""
    cdef application_t *app = upcall_begin(engine, conn)
    cdef int answer
    conn.flags &= ~TCB_EV_ACCEPT
    conn.flags |= TCB_ACCEPTED
    answer = app.on_accept(app, &engine.transport, conn_of(conn))
    if answer == ACCEPT_REFUSED or answer == ACCEPT_NO_MEMORY:
        if answer == ACCEPT_NO_MEMORY:
            count(&engine.counters, ACCEPTS_WITHOUT_MEMORY)
        conn.flags &= ~(TCB_ACCEPTED | TCB_ACTIVE)
        tcp_abort(&engine.tcp, conn)
        return False
    if answer == ACCEPT_WAITING:
        tcp_waiting(&engine.tcp, conn)
    engine.tcp.established += 1
    if conn.flags & TCB_WANT_WRITABLE:      # a wish from before it was established
        tcp_want_writable(&engine.tcp, conn)
    return True


cdef bint greet(engine_t *engine, tcb_t *conn, uint32_t in_frame) noexcept nogil:
    """What comes before data: on_accept, on_urgent. in_frame: bytes that on_data gets next, and RCV.NXT counts. False:
    the application does not want the connection."""
    cdef bint wanted
    if in_frame:
        engine.tcp.offering = conn.index
        engine.tcp.offered_bytes = in_frame
    wanted = conn.flags & TCB_ACCEPTED or accept(engine, conn)
    conn.flags &= ~TCB_EV_URGENT
    if conn.urgent and wanted:
        tell_urgent(engine, conn)
    engine.tcp.offering = 0
    return wanted


cdef void tell_urgent(engine_t *engine, tcb_t *conn) noexcept nogil:
    """Unless it has been read since the event, or nobody wants to know."""
    cdef application_t *app = engine.applications[conn.app]
    cdef urgent_t *own = urgent_of(&engine.tcp, conn)
    if not own.flags & URGENT_UNTOLD:
        return
    own.flags &= ~URGENT_UNTOLD
    if app.on_urgent != NULL and wants_upcalls(conn) and urgent_unread(&engine.tcp, conn):
        upcall_begin(engine, conn)
        app.on_urgent(app, &engine.transport, conn_of(conn))


cdef void upcalls_deliver(engine_t *engine, const delivery_t *delivery) noexcept nogil:
    """What one segment has for the application, while its frame is still lent to us."""
    cdef tcb_t *conn = delivery.conn
    cdef application_t *app
    cdef size_t consumed
    cdef bint joined = False
    if conn.flags & TCB_EV_ACCEPT and not greet(engine, conn, delivery.length):
        return
    if delivery.length > 0:
        consumed = 0
        if wants_upcalls(conn):
            joined = conn.flags & TCB_EV_DATA           # a hole has closed: what lay behind it waits in the queue
            conn.flags &= ~TCB_EV_DATA
            app = upcall_begin(engine, conn)
            engine.tcp.offering = conn.index
            engine.tcp.offered_bytes = delivery.length
            consumed = app.on_data(app, &engine.transport, conn_of(conn), delivery.data, delivery.length)
            engine.tcp.offering = 0
        if consumed < delivery.length:
            conn.flags |= TCB_PAUSED
            keep_rest(engine, conn, delivery.data + consumed, <uint32_t>(delivery.length - consumed))
        elif conn.flags & TCB_CLOSED_BY_APP and tcp_receivable(&engine.tcp, conn) > 0:
            tcp_abort(&engine.tcp, conn)                # closed with data unread (SHLD-3)
        elif joined:
            offer_queue(engine, conn)
    elif conn.flags & TCB_EV_DATA and not conn.flags & TCB_PAUSED:
        offer_queue(engine, conn)           # a hole has closed. One that was resumed is offered after the burst
    elif delivery.more:
        tell_more(engine, conn)


cdef void tell_more(engine_t *engine, tcb_t *conn) noexcept nogil:
    cdef application_t *app
    if wants_upcalls(conn) and engine.applications[conn.app].on_more != NULL:
        app = upcall_begin(engine, conn)
        app.on_more(app, &engine.transport, conn_of(conn))


cdef void keep_rest(engine_t *engine, tcb_t *conn, const uint8_t *data, uint32_t length) noexcept nogil:
    """What cannot be kept has not been received and comes again, unless a FIN behind it was taken."""
    cdef uint32_t rcv_nxt = conn.rcv_nxt
    if conn.flags & (TCB_ABORT | TCB_CLOSED_BY_APP):
        tcp_abort(&engine.tcp, conn)        # closed with data unread (SHLD-3)
    elif not reassembly_keep(&engine.tcp, conn, data, length):
        tcp_abort(&engine.tcp, conn)
        conn.close_reason = CLOSE_NO_MEMORY
    elif conn.rcv_nxt != rcv_nxt:
        count(&engine.counters, DROP_NO_MEMORY)
        if tcp_receivable(&engine.tcp, conn) == 0:
            conn.flags &= ~TCB_PAUSED         # there is no rest


cdef void offer_queue(engine_t *engine, tcb_t *conn) noexcept nogil:
    """What is held in order, chunk after chunk, until the application leaves a rest or has had its share of the
    turn."""
    cdef application_t *app
    cdef const uint8_t *data
    cdef uint32_t length
    cdef size_t consumed
    cdef int32_t floor_units = engine.tcp.turn.budget.stage_left - TURN_UPCALL_UNITS
    conn.flags &= ~(TCB_EV_DATA | TCB_PAUSED)
    while wants_upcalls(conn):
        data = reassembly_peek(&engine.tcp, conn, 0, &length)
        if data == NULL:
            return
        app = upcall_begin(engine, conn)
        turn_charge(&engine.tcp, length >> UNIT_BYTES_SHIFT)
        engine.tcp.offering = conn.index
        engine.tcp.offered_bytes = 0        # they stay in the queue until they are consumed
        consumed = app.on_data(app, &engine.transport, conn_of(conn), data, length)
        engine.tcp.offering = 0
        reassembly_consume(&engine.tcp, conn, <uint32_t>consumed)
        if conn.flags & TCB_CLOSED_BY_APP and tcp_receivable(&engine.tcp, conn) > 0:
            tcp_abort(&engine.tcp, conn)    # closed with data unread (SHLD-3)
        if consumed < length:
            conn.flags |= TCB_PAUSED
            return
        if engine.tcp.turn.budget.stage_left <= 0 or engine.tcp.turn.budget.stage_left < floor_units:
            if tcp_receivable(&engine.tcp, conn) > 0:
                conn.flags |= TCB_PAUSED
                tcp_resume(&engine.tcp, conn)       # the next chunk in the next turn
            return


cdef void upcalls_make(engine_t *engine, tcb_t *conn) noexcept nogil:
    """Every event on the connection but its end, in the order in which they can have happened."""
    cdef application_t *app
    if conn.flags & TCB_EV_ACCEPT and not greet(engine, conn, 0):
        return
    if conn.flags & TCB_EV_DATA:
        offer_queue(engine, conn)
    if not wants_upcalls(conn):
        if conn.flags & TCB_EV_TIMEOUT and conn.flags & TCB_ACTIVE and conn.state == SYN_SENT:
            app = upcall_begin(engine, conn)
            app.on_timeout(app, &engine.transport, conn_of(conn))   # of a connection that is still being opened
        conn.flags &= ~(EVENTS_AGAIN | TCB_EV_EOF)
        return
    if conn.flags & TCB_EV_WRITABLE:
        tell_writable(engine, conn)
    if conn.flags & TCB_EV_EOF:
        tell_eof(engine, conn)
    if conn.flags & TCB_EV_TIMEOUT and wants_upcalls(conn):
        conn.flags &= ~TCB_EV_TIMEOUT
        app = upcall_begin(engine, conn)
        app.on_timeout(app, &engine.transport, conn_of(conn))
        if conn.flags & TCB_EV_EOF:
            tell_eof(engine, conn)          # it may have read the rest


cdef void tell_writable(engine_t *engine, tcb_t *conn) noexcept nogil:
    """Unless more was queued, or the marks were lowered, since the event: then it is waited for again."""
    cdef application_t *app
    conn.flags &= ~TCB_EV_WRITABLE
    if not tcb_is_writable(&engine.tcp, conn):
        conn.flags |= TCB_WANT_WRITABLE
        return
    app = upcall_begin(engine, conn)
    app.on_writable(app, &engine.transport, conn_of(conn))


cdef void tell_eof(engine_t *engine, tcb_t *conn) noexcept nogil:
    """Unless something before it is unread."""
    cdef application_t *app
    if tcp_receivable(&engine.tcp, conn) == 0 and wants_upcalls(conn):
        conn.flags &= ~TCB_EV_EOF
        app = upcall_begin(engine, conn)
        app.on_eof(app, &engine.transport, conn_of(conn))


cdef bint upcalls_reads_on(const engine_t *engine, const tcb_t *conn) noexcept nogil:
    """Its stream ended as it should, and the application has asked for the rest in the next turn: all of it was
    acknowledged, so on_closed waits."""
    if not conn.flags & TCB_EV_DATA or conn.close_reason != CLOSE_NORMAL or engine.ending:
        return False
    return wants_upcalls(conn) and tcp_receivable(&engine.tcp, conn) > 0


cdef void upcalls_finish(engine_t *engine, tcb_t *conn) noexcept nogil:
    """The last upcall; then the record is free, so what the upcall asks of it must not put it on the work list."""
    cdef application_t *app
    conn.flags |= TCB_LISTED
    if conn.flags & (TCB_ACCEPTED | TCB_ACTIVE):
        app = upcall_begin(engine, conn)
        app.on_closed(app, &engine.transport, conn_of(conn), <close_reason_t>conn.close_reason)
    if conn.flags & TCB_ACCEPTED:
        engine.tcp.established -= 1
    tcb_release(&engine.tcp, conn)
