# SPDX-License-Identifier: MIT
"""Upcalls of a transport over the kernel's sockets. See upcalls.pxd."""

from libc.errno cimport EAGAIN
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.application cimport (
    ACCEPT_NO_MEMORY, ACCEPT_REFUSED, CLOSE_ABORTED, CLOSE_NO_MEMORY, CLOSE_RESET, CLOSE_TIMEOUT, application_t,
    close_reason_t, conn_t, turn_budget_t)
from ustack.kernel.connections cimport conn_end, out_add, unread_drop, unread_keep, unread_of, work_add
from ustack.kernel.counters cimport (
    ABORTED_CONNECTIONS, CLOSED_CONNECTIONS, EVENTS_HANDED_OVER, HAND_OVERS, OPENED_CONNECTIONS, RESET_CONNECTIONS,
    UNREAD_REFUSED, UPCALLS)
from ustack.kernel.downcalls cimport conn_fail
from ustack.kernel.records cimport (
    ABORT, ACCEPTED, ACTIVE, CLOSED_BY_APP, CONNECTING, ENDED, EOF_TOLD, FIN_WAIT, LAST_READ, OFFER, OFFERING, PAUSED,
    PEER_FIN, READABLE, RECEIVE_BYTES, RESUMED, TIMED_OUT, WANT_WRITABLE, is_writable, kernel_conn_t, kernel_t, tally)
from ustack.kernel.sockets cimport socket_error, socket_is_connected, socket_receive, socket_reset_at_close

cdef enum:
    UPCALL_UNITS = 512          # the share of one upcall in a stage of a turn, as the engine has it: see turn_spent
    READ_UNITS = 8              # of about 100 ns: a recv
    READS_MOST = 4              # of one connection in a turn


cdef extern from *:
    uint32_t lowest_bit "__builtin_ctzll"(uint64_t bits) nogil


cdef application_t *upcall_begin(kernel_t *kernel, const kernel_conn_t *conn) noexcept nogil:
    burst_begin(kernel, conn.app)
    return conn.app


cdef void burst_begin(kernel_t *kernel, application_t *app) noexcept nogil:
    cdef turn_budget_t *budget = &kernel.budget
    tally(kernel, UPCALLS)
    budget.stage_left -= 1
    budget.upcall_floor = budget.stage_left - UPCALL_UNITS
    if budget.upcall_floor < 0:             # the rest of the stage; every upcall makes some progress
        budget.upcall_floor = 0 if budget.stage_left > 0 else budget.stage_left - 1
    if not kernel.open_applications >> app.index & 1:
        kernel.open_applications |= 1ULL << app.index
        if app.on_burst_begin != NULL:
            app.on_burst_begin(app, kernel.now_ns)


cdef void upcalls_end_bursts(kernel_t *kernel) noexcept nogil:
    cdef uint64_t left = kernel.open_applications
    cdef application_t *app
    kernel.open_applications = 0
    while left:
        app = kernel.applications[lowest_bit(left)]
        left &= left - 1
        if app.on_burst_end != NULL:
            app.on_burst_end(app, kernel.now_ns)


cdef uint32_t upcalls_hand_over(kernel_t *kernel) noexcept nogil:
    cdef uint64_t left = kernel.hand_overs
    cdef application_t *app
    cdef uint32_t events = 0
    kernel.hand_overs = 0                   # who asks again gets it the next time
    while left:
        app = kernel.applications[lowest_bit(left)]
        left &= left - 1
        if app.on_hand_over != NULL:
            tally(kernel, HAND_OVERS)
            events += app.on_hand_over(app, &kernel.transport)
    kernel.counters[<int>EVENTS_HANDED_OVER] += events
    return events


# ---------------------------------------------------------------- what has come

cdef uint32_t upcalls_make(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef uint32_t happened = 0
    if conn.flags & CONNECTING:
        return connected(kernel, conn)
    if not conn.flags & (ABORT | ENDED):
        happened = arrive(kernel, conn)
    return happened + call_after_data(kernel, conn)


cdef uint32_t upcalls_make_read(kernel_t *kernel, kernel_conn_t *conn, const uint8_t *data,
                                ssize_t taken) noexcept nogil:
    cdef uint32_t happened = 0
    if conn.flags & CONNECTING:
        return connected(kernel, conn)
    if unread_of(conn) > 0 and conn.flags & OFFER and not conn.flags & (PAUSED | ABORT | ENDED):
        happened += 1
        offer_unread(kernel, conn)
    if unread_of(conn) == 0:
        conn.flags &= ~<uint32_t>OFFER
    if not conn.flags & (ABORT | ENDED):
        happened += arrived(kernel, conn, data, taken)
    return happened + call_after_data(kernel, conn)


cdef bint arrived(kernel_t *kernel, kernel_conn_t *conn, const uint8_t *data, ssize_t taken) noexcept nogil:
    """What recv said. False: nothing."""
    if taken == -EAGAIN:
        return False
    if taken == 0:
        conn.flags |= PEER_FIN
    elif taken < 0:
        conn_fail(kernel, conn, <int>-taken)
    elif conn.flags & CLOSED_BY_APP:        # nobody is there to read it (RFC 9293 section 3.6.1, SHLD-3)
        conn.flags |= ABORT
        conn.reason = CLOSE_ABORTED
    else:
        offer(kernel, conn, data, <uint32_t>taken)
    return True


cdef uint32_t connected(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    """connect has come to an end, READY_OUT or READY_ERROR says; or somebody else wanted a look at it."""
    cdef application_t *app
    cdef int error, answer
    if conn.flags & ABORT:
        return 0
    error = socket_error(conn.fd)
    if error != 0:
        conn_fail(kernel, conn, error)
        return 1
    if not socket_is_connected(conn.fd):
        return tell_timeout(kernel, conn)
    conn.flags &= ~<uint32_t>CONNECTING
    conn.flags |= ACCEPTED
    kernel.established += 1
    tally(kernel, OPENED_CONNECTIONS)
    app = upcall_begin(kernel, conn)
    answer = app.on_accept(app, &kernel.transport, <conn_t *>conn)
    if answer == ACCEPT_REFUSED or answer == ACCEPT_NO_MEMORY:
        kernel.established -= 1
        conn.flags &= ~<uint32_t>(ACCEPTED | ACTIVE)        # it hears nothing more
        conn.flags |= ABORT
        conn.reason = CLOSE_ABORTED
    if kernel.readiness.ops.edge:
        conn.flags |= READABLE              # bytes that were told of together with the end of connect
    if conn.flags & (READABLE | WANT_WRITABLE | TIMED_OUT):
        work_add(kernel, conn)
    out_add(kernel, conn)
    return 1


cdef uint32_t arrive(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    """What waits, then what the kernel has, a read at a time: an on_data for each."""
    cdef uint32_t reads = 0, happened = 0
    cdef ssize_t taken
    if unread_of(conn) > 0 and conn.flags & (OFFER | READABLE) and not conn.flags & PAUSED:
        happened += 1
        offer_unread(kernel, conn)
    if unread_of(conn) == 0:
        conn.flags &= ~<uint32_t>OFFER
    while (conn.flags & READABLE and not conn.flags & (PAUSED | PEER_FIN | ABORT | OFFER) and unread_of(conn) == 0):
        if reads == READS_MOST or kernel.budget.stage_left <= 0:
            work_add(kernel, conn)          # the rest in the next turn, after others
            break
        reads += 1
        kernel.budget.stage_left -= READ_UNITS
        taken = socket_receive(kernel, conn, kernel.buffer, RECEIVE_BYTES)
        if taken <= 0 or (taken < RECEIVE_BYTES and not conn.flags & LAST_READ and (
                not kernel.readiness.ops.edge or kernel.readiness.ops.tells_eof)):
            conn.flags &= ~<uint32_t>READABLE
        happened += arrived(kernel, conn, kernel.buffer, taken)
    return happened


cdef void offer(kernel_t *kernel, kernel_conn_t *conn, const uint8_t *data, uint32_t length) noexcept nogil:
    """on_data with what was just read; what it leaves is kept."""
    cdef uint32_t used = call_on_data(kernel, conn, data, length)
    if used < length and not must_reset(kernel, conn):
        if unread_keep(kernel, conn, data + used, length - used) < 0:
            tally(kernel, UNREAD_REFUSED)
            conn.flags |= ABORT
            conn.reason = CLOSE_NO_MEMORY
            out_add(kernel, conn)
            return
        rest_waits(kernel, conn)


cdef void offer_unread(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef uint32_t length = unread_of(conn)
    cdef uint32_t used
    conn.flags &= ~<uint32_t>OFFER
    used = call_on_data(kernel, conn, conn.unread + conn.start, length)
    unread_drop(kernel, conn, used)
    if used < length and not must_reset(kernel, conn):
        rest_waits(kernel, conn)


cdef uint32_t call_on_data(kernel_t *kernel, kernel_conn_t *conn, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef application_t *app = upcall_begin(kernel, conn)
    cdef size_t used
    conn.flags |= OFFERING
    conn.flags &= ~<uint32_t>RESUMED
    used = app.on_data(app, &kernel.transport, <conn_t *>conn, data, length)
    conn.flags &= ~<uint32_t>OFFERING
    return <uint32_t>used if used < length else length


cdef bint must_reset(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    """It was closed with data unread."""
    if conn.flags & CLOSED_BY_APP and not conn.flags & ABORT:
        conn.flags |= ABORT
        conn.reason = CLOSE_ABORTED
        out_add(kernel, conn)
    return conn.flags & ABORT != 0


cdef void rest_waits(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    if conn.flags & RESUMED:
        conn.flags &= ~<uint32_t>RESUMED
        conn.flags |= OFFER
        work_add(kernel, conn)
    else:
        conn.flags |= PAUSED


# ---------------------------------------------------------------- what is told

cdef uint32_t call_after_data(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    """on_writable, on_eof, on_timeout."""
    cdef application_t *app
    cdef uint32_t happened = 0
    if conn.flags & (ABORT | ENDED):
        return 0
    if conn.flags & CLOSED_BY_APP:
        if conn.flags & FIN_WAIT:           # nor does anybody for the peer's FIN: finish
            return conn.flags & TIMED_OUT != 0
        if conn.flags & TIMED_OUT:          # it was closed, and nobody waits for the rest any longer
            conn.flags |= ABORT
            conn.reason = CLOSE_TIMEOUT
            happened = 1
        return happened
    if conn.flags & WANT_WRITABLE and is_writable(conn):
        conn.flags &= ~<uint32_t>WANT_WRITABLE
        app = upcall_begin(kernel, conn)
        app.on_writable(app, &kernel.transport, <conn_t *>conn)
        happened += 1
    if (conn.flags & (PEER_FIN | EOF_TOLD) == PEER_FIN and unread_of(conn) == 0
            and not conn.flags & (ABORT | CLOSED_BY_APP)):
        conn.flags |= EOF_TOLD
        app = upcall_begin(kernel, conn)
        app.on_eof(app, &kernel.transport, <conn_t *>conn)
        happened += 1
    return happened + tell_timeout(kernel, conn)


cdef uint32_t tell_timeout(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef application_t *app
    if not conn.flags & TIMED_OUT or conn.flags & (ABORT | CLOSED_BY_APP):
        return 0
    conn.flags &= ~<uint32_t>TIMED_OUT
    app = upcall_begin(kernel, conn)
    app.on_timeout(app, &kernel.transport, <conn_t *>conn)
    return 1


cdef void upcall_closed(kernel_t *kernel, kernel_conn_t *conn, close_reason_t reason) noexcept nogil:
    cdef application_t *app
    conn.reason = reason
    conn.flags |= ENDED
    if conn.flags & ABORT and reason != CLOSE_RESET:
        socket_reset_at_close(conn.fd)
    tally(kernel, RESET_CONNECTIONS if reason == CLOSE_RESET else
          ABORTED_CONNECTIONS if conn.flags & ABORT else CLOSED_CONNECTIONS)
    if conn.flags & CLOSED_BY_APP:
        kernel.closing -= 1
    if conn.flags & ACCEPTED:
        kernel.established -= 1
    if conn.flags & (ACCEPTED | ACTIVE):
        app = upcall_begin(kernel, conn)
        app.on_closed(app, &kernel.transport, <conn_t *>conn, reason)
    kernel.transport.taken(&kernel.transport, <const conn_t *>conn)
    conn_end(kernel, conn)
