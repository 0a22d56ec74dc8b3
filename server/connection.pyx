# SPDX-License-Identifier: MIT
"""How connections rest and end (contract: connection.pxd)."""

from libc.stdint cimport uint32_t

from ustack.application cimport conn_t, transport_t
from ustack.server.exchange cimport exchange_clear, exchange_drop, exchange_end, exchange_of, exchange_take
from ustack.server.records cimport CLOSING, EXCHANGE_MASK, PHASE_DRAIN, PHASE_LINGER, exchange_t, phase_t, server_t


cdef exchange_t *exchange_begin(server_t *server, const transport_t *transport, conn_t *conn,
                                phase_t phase) noexcept nogil:
    cdef exchange_t *exchange = exchange_take(server, conn, phase)
    if exchange == NULL:
        connection_abort(server, transport, conn)
    return exchange


cdef void mark_closing(server_t *server, conn_t *conn) noexcept nogil:
    """The rest is TCP's: no upcall but on_closed means anything any more."""
    if not conn.user_data & CLOSING:
        server.stats.connections_ending += 1
    conn.user_data = CLOSING


cdef void connection_abort(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil:
    exchange_end(server, transport, conn)
    mark_closing(server, conn)
    transport.abort(transport, conn)


cdef void connection_leave(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil:
    """tcp_close: nothing of ours is left to deliver, or nobody can be waited for."""
    exchange_end(server, transport, conn)
    mark_closing(server, conn)
    transport.close(transport, conn)
    if transport.send_queued(transport, conn):
        # No upcall comes any more. A peer that keeps its window shut must not keep the rest for ever (RFC 6429).
        transport.set_timeout(transport, conn, server.send_timeout_ns)


cdef void connection_close(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil:
    """End it; what is queued is still delivered."""
    if transport.send_queued(transport, conn):
        connection_linger(server, transport, conn)
    else:
        connection_leave(server, transport, conn)


# ---------------------------------------------------------------- lingering (RFC 9112 section 9.6)

cdef void connection_linger(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef exchange_t *exchange = exchange_of(server, conn)
    if exchange != NULL and exchange.phase == PHASE_DRAIN:
        exchange_drop(server, transport, conn)
        exchange = NULL
    if exchange != NULL:
        exchange_clear(server, transport, conn, exchange)
    else:
        exchange = exchange_take(server, conn, PHASE_LINGER)
        if exchange == NULL:
            connection_leave(server, transport, conn)
            return
    exchange.phase = PHASE_LINGER
    exchange.left = server.linger_bytes
    exchange.seen_queued = transport.send_queued(transport, conn)
    exchange.progress_ns = server.now_ns
    conn.user_data &= EXCHANGE_MASK
    transport.shutdown(transport, conn)
    transport.set_timeout(transport, conn, server.linger_ns)
    if transport.receivable(transport, conn):
        transport.resume(transport, conn)


cdef size_t linger_data(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                        size_t length) noexcept nogil:
    """The bound in bytes counts once the response has arrived: until then a RST could destroy
    it, and the time is bounded all the same."""
    exchange.left = exchange.left - length if length < exchange.left else 0
    if exchange.left == 0 and transport.send_queued(transport, conn) == 0:
        connection_leave(server, transport, conn)
    return length


cdef void linger_timeout(server_t *server, const transport_t *transport, conn_t *conn,
                         exchange_t *exchange) noexcept nogil:
    """PHASE_LINGER, once in linger_ns: has the rest been acknowledged, or a part of it?"""
    cdef uint32_t queued = transport.send_queued(transport, conn)
    if queued == 0 and exchange.seen_queued == 0:
        connection_leave(server, transport, conn)         # acknowledged for at least linger_ns
        return
    if queued < exchange.seen_queued:
        exchange.seen_queued = queued
        exchange.progress_ns = server.now_ns
    elif server.now_ns - exchange.progress_ns >= server.send_timeout_ns:
        server.stats.stalled_aborted += 1
        connection_abort(server, transport, conn)
        return
    transport.set_timeout(transport, conn, server.linger_ns)
