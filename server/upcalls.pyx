# SPDX-License-Identifier: MIT
"""What happens on connections, as the transport tells it. See upcalls.pxd; the contract is in application.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_TAKEN, CONN_ACTIVE, OPTION_LOW_WATER, OPTION_NODELAY, application_t, close_reason_t, conn_t,
    transport_t, turn_charge, turn_spent)
from ustack.buf.lent cimport lent_t
from ustack.server.asking cimport decide_waiting
from ustack.server.connection cimport (
    connection_abort, connection_close, connection_idle, connection_linger, linger_data, linger_timeout)
from ustack.server.exchange cimport exchange_end, exchange_of, exchange_waits
from ustack.server.fetching cimport any_waiting, file_came
from ustack.server.logring cimport log_drain, log_half_full
from ustack.server.receiving cimport body_more, head_more, refuse_held, request
from ustack.server.records cimport (
    BODY_BYTES_UNIT_SHIFT, CLOSING, EXCHANGE_EOF, EXCHANGE_MASK, EXCHANGE_TAIL, PHASE_BODY, PHASE_DRAIN, PHASE_HEAD,
    PHASE_LINGER, PHASE_SENDING, REQUEST_UNITS, SEEN_MASK, SEEN_SHIFT, TAKE_GIL_UNITS, exchange_t, server_t)
from ustack.server.sending cimport damaged, drain, response_end, send_more
from ustack.server.tables cimport tables_end
from ustack.server.wallclock cimport begin_burst

cdef extern from "Python.h":
    int PyGILState_Check() nogil


cdef void upcalls_fill(application_t *app) noexcept:
    app.on_accept = on_accept
    app.on_data = on_data
    app.on_writable = on_writable
    app.on_eof = on_eof
    app.on_timeout = on_timeout
    app.on_closed = on_closed
    app.on_burst_begin = on_burst_begin
    app.on_burst_end = on_burst_end
    app.on_hand_over = on_hand_over
    app.on_file_read = on_file_read


cdef inline server_t *server_of(application_t *app) noexcept nogil:
    return <server_t *>app.context


cdef int on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = server_of(app)
    if transport.status(transport, conn) & CONN_ACTIVE or server.closing or server.finishing:
        return ACCEPT_REFUSED
    server.stats.connections += 1
    server.stats.connections_open += 1
    # Every response is queued whole: waiting to fill a segment gains nothing.
    transport.set_option(transport, conn, OPTION_NODELAY, 1)
    connection_idle(server, transport, conn)
    return ACCEPT_TAKEN


cdef inline void charge(server_t *server, const transport_t *transport, uint32_t units) noexcept nogil:
    """Charge what was done to the turn."""
    turn_charge(transport, units + server.units)
    server.units = 0


cdef inline bint asks_faster_than_it_reads(server_t *server, const transport_t *transport,
                                           conn_t *conn) noexcept nogil:
    cdef uint64_t queued = transport.send_queued(transport, conn)
    return queued > server.max_queued_bytes and queued > transport.option(transport, conn, OPTION_LOW_WATER)


cdef size_t on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                    size_t length) noexcept nogil:
    cdef server_t *server = server_of(app)
    cdef exchange_t *exchange
    cdef size_t used = 0, before
    if server.closing:
        connection_abort(server, transport, conn)
    while used < length:
        if conn.user_data & CLOSING:
            return length
        if turn_spent(transport):
            server.stats.put_off += 1
            transport.resume(transport, conn)       # others have their turn first
            return used
        exchange = exchange_of(server, conn)
        if exchange == NULL:
            if asks_faster_than_it_reads(server, transport, conn):
                transport.want_writable(transport, conn)        # the rest is left to the receive window
                return used
            used += request(server, transport, conn, data + used, length - used)
            charge(server, transport, REQUEST_UNITS)
        elif exchange.phase == PHASE_HEAD:
            used += head_more(server, transport, conn, exchange, data + used, length - used)
            charge(server, transport, REQUEST_UNITS)
        elif exchange.phase == PHASE_BODY:
            before = used
            used += body_more(server, transport, conn, exchange, data + used, length - used)
            charge(server, transport, REQUEST_UNITS + <uint32_t>(used - before >> BODY_BYTES_UNIT_SHIFT))
        elif exchange.phase == PHASE_SENDING or exchange_waits(exchange):
            return used
        elif exchange.phase == PHASE_DRAIN:
            if not exchange.flags & EXCHANGE_TAIL and transport.send_queued(transport, conn):
                return used
            if damaged(server, exchange):
                server.stats.damaged_aborted += 1
                connection_abort(server, transport, conn)
                return length
            response_end(server, transport, conn, exchange.flags)
        else:
            return used + linger_data(server, transport, conn, exchange, length - used)
    return used


cdef void on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = server_of(app)
    cdef exchange_t *exchange = exchange_of(server, conn)
    if server.closing:
        connection_abort(server, transport, conn)
    if conn.user_data & CLOSING:
        return
    conn.user_data &= EXCHANGE_MASK         # what was seen queued is no measure of a stall any more
    if exchange == NULL:
        transport.resume(transport, conn)
    elif exchange.phase == PHASE_SENDING:
        transport.set_timeout(transport, conn, server.send_timeout_ns)
        send_more(server, transport, conn, exchange)
        if not conn.user_data & CLOSING:
            transport.resume(transport, conn)       # what came meanwhile was left in the receive queue
    elif exchange.phase == PHASE_DRAIN:
        drain(server, transport, conn, exchange)
    charge(server, transport, 0)


cdef void on_eof(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = server_of(app)
    cdef exchange_t *exchange = exchange_of(server, conn)
    if exchange != NULL and exchange_waits(exchange) and not server.closing:
        exchange.flags |= EXCHANGE_EOF  # it counts when the head is decided
    elif exchange != NULL and (exchange.phase == PHASE_SENDING or exchange.phase == PHASE_DRAIN) and not server.closing:
        exchange.flags |= EXCHANGE_EOF  # a half-closed client still gets its response
        if exchange.flags & EXCHANGE_TAIL:
            drain(server, transport, conn, exchange)
    elif exchange == NULL or exchange.phase != PHASE_LINGER or transport.send_queued(transport, conn) == 0:
        connection_close(server, transport, conn)


cdef void on_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = server_of(app)
    cdef exchange_t *exchange = exchange_of(server, conn)
    cdef uint64_t queued = transport.send_queued(transport, conn), seen = conn.user_data >> SEEN_SHIFT & SEEN_MASK
    if server.closing:
        connection_abort(server, transport, conn)
    elif exchange != NULL and (exchange.phase == PHASE_HEAD or exchange.phase == PHASE_BODY):
        server.stats.head_timeouts += 1
        refuse_held(server, transport, conn, exchange, 408)
    elif exchange != NULL and exchange.phase == PHASE_LINGER:
        linger_timeout(server, transport, conn, exchange)
    elif exchange != NULL and exchange_waits(exchange):
        transport.set_timeout(transport, conn, server.send_timeout_ns)      # it waits for us, not for its client
    elif queued and (seen == 0 or queued < seen):
        # Something was acknowledged since the last look, or this is the first: wait on.
        conn.user_data = conn.user_data & (EXCHANGE_MASK | CLOSING) | (queued & SEEN_MASK) << SEEN_SHIFT
        transport.set_timeout(transport, conn, server.send_timeout_ns)
    elif queued:
        server.stats.stalled_aborted += 1
        connection_abort(server, transport, conn)
    elif exchange != NULL and exchange.phase == PHASE_DRAIN:
        drain(server, transport, conn, exchange)
    else:
        server.stats.idle_closed += 1
        connection_close(server, transport, conn)
    charge(server, transport, 0)


cdef uint32_t on_hand_over(application_t *app, const transport_t *transport) noexcept nogil:
    cdef server_t *server = server_of(app)
    cdef uint32_t decided
    if not any_waiting(server):
        return 0
    server.stats.hand_overs += 1
    if not PyGILState_Check():
        server.stats.gil_taken += 1
    server.units += TAKE_GIL_UNITS
    with gil:
        decided = decide_waiting(server, transport)
    if log_half_full(&server.log):
        log_drain(&server.log)
    return decided


cdef void on_file_read(application_t *app, const transport_t *transport, uint32_t token, int fd, lent_t *into,
                       int64_t taken) noexcept nogil:
    cdef server_t *server = server_of(app)
    file_came(server, transport, token, fd, into, taken)
    charge(server, transport, REQUEST_UNITS)


cdef void on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                    close_reason_t reason) noexcept nogil:
    cdef server_t *server = server_of(app)
    server.stats.connections_open -= 1
    if conn.user_data & CLOSING:
        server.stats.connections_ending -= 1
    exchange_end(server, transport, conn)
    conn.user_data = 0
    if server.closing and server.stats.connections_open == 0:
        tables_end(server)


cdef void on_burst_begin(application_t *app, uint64_t now_ns) noexcept nogil:
    cdef server_t *server = server_of(app)
    server.units = 0                    # housekeeping's is no connection's
    begin_burst(server, now_ns)


cdef void on_burst_end(application_t *app, uint64_t now_ns) noexcept nogil:
    cdef server_t *server = server_of(app)
    if log_half_full(&server.log):
        log_drain(&server.log)


cdef void finish_idle(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = server_of(app)
    if conn.user_data & (EXCHANGE_MASK | CLOSING) == 0 and transport.receivable(transport, conn) == 0:
        server.stats.idle_closed += 1
        connection_linger(server, transport, conn)
