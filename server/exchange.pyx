# SPDX-License-Identifier: MIT
"""Records of connections in the middle of something (contract: exchange.pxd)."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from ustack.application cimport conn_t, transport_t
from ustack.base.ilist cimport ilist_append, ilist_hook_t, ilist_remove, ilist_t
from ustack.buf.lent cimport lent_unref
from ustack.buf.slab cimport slab_alloc, slab_destroy, slab_init, slab_release
from ustack.server.headtable cimport decision_free
from ustack.server.logring cimport log_keep
from ustack.server.records cimport (
    DRAIN_BYTES, DRAINING, EXCHANGE_MASK, NO_FILE, PHASE_DRAIN, PHASE_LOADING, PHASE_SENDING, PHASE_UNDECIDED,
    UNDECIDED_RECORDS, exchange_t, phase_t, server_t)


cdef int exchanges_begin(server_t *server, uint32_t limit) noexcept nogil:
    server.max_busy = limit
    if slab_init(&server.exchanges, (sizeof(exchange_t) + 63) & ~63ULL, limit + UNDECIDED_RECORDS) != 0:
        return -1
    return slab_init(&server.drains, DRAIN_BYTES, limit)


cdef void exchanges_end(server_t *server) noexcept nogil:
    if server.exchanges.record_bytes:
        slab_destroy(&server.exchanges)
        server.exchanges.record_bytes = 0
    if server.drains.record_bytes:
        slab_destroy(&server.drains)
        server.drains.record_bytes = 0


cdef exchange_t *exchange_take(server_t *server, conn_t *conn, phase_t phase) noexcept nogil:
    cdef uint32_t index = 0
    cdef exchange_t *exchange
    if phase == PHASE_UNDECIDED or exchanges_in_use(server) < server.max_busy:
        index = slab_alloc(&server.exchanges)
    if index == 0:
        server.stats.busy_refused += 1
        return NULL
    exchange = exchange_at(server, index)
    exchange.phase = phase
    exchange.file = NO_FILE
    conn.user_data = index
    return exchange


cdef void exchange_clear(server_t *server, const transport_t *transport, conn_t *conn,
                         exchange_t *exchange) noexcept nogil:
    request_release(server, exchange)
    if exchange.phase == PHASE_SENDING:
        # Cut off: what is logged is what was handed to TCP and acknowledged.
        exchange_log(server, transport, conn, exchange, exchange.body_left + transport.send_queued(transport, conn))
    free(exchange.head)
    if exchange.first != NULL:
        lent_unref(exchange.first)
    if exchange.body != NULL:
        lent_unref(exchange.body)
    if exchange.log_text != NULL:
        lent_unref(exchange.log_text)
    if exchange.pending != NULL:
        decision_free(exchange.pending)
    memset(exchange, 0, sizeof(exchange_t))
    exchange.file = NO_FILE


cdef void exchange_shrink(server_t *server, const transport_t *transport, conn_t *conn,
                          exchange_t *exchange) noexcept nogil:
    cdef uint32_t index = slab_alloc(&server.drains)
    cdef exchange_t *drain
    exchange.phase = PHASE_DRAIN
    if index == 0:
        return
    drain = exchange_at(server, index | DRAINING)
    drain.phase = PHASE_DRAIN
    drain.flags = exchange.flags
    drain.file = exchange.file
    drain.generation = exchange.generation
    drain.body = exchange.body
    exchange.body = NULL
    exchange_drop(server, transport, conn)
    conn.user_data |= index | DRAINING


cdef void exchange_drop(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef uint32_t index = exchange_index(conn)
    cdef exchange_t *exchange = exchange_at(server, index)
    if index & DRAINING:
        lent_unref(exchange.body)
        slab_release(&server.drains, index & ~DRAINING)
    else:
        exchange_clear(server, transport, conn, exchange)
        slab_release(&server.exchanges, index)
    conn.user_data &= ~EXCHANGE_MASK


cdef void exchange_log(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                       uint64_t missing) noexcept nogil:
    if exchange.log_text == NULL:
        return
    log_keep(&server.log, server.second, &transport.endpoints(transport, conn).raddr, exchange.log_text,
             exchange.log_split, exchange.status, exchange.body_bytes - missing if missing < exchange.body_bytes else 0)
    lent_unref(exchange.log_text)
    exchange.log_text = NULL


cdef inline ilist_hook_t *request_hook(const void *server, uint32_t index) noexcept nogil:
    return &exchange_at(<const server_t *>server, index).order


cdef inline ilist_t *request_list(server_t *server, const exchange_t *exchange) noexcept nogil:
    if exchange.phase == PHASE_LOADING:
        return &server.loads[exchange.load].waiting
    return &server.undecided if exchange.phase == PHASE_UNDECIDED else &server.request_order


cdef void request_note(server_t *server, conn_t *conn, exchange_t *exchange, uint32_t more_bytes) noexcept nogil:
    cdef uint64_t *waiting = waiting_bytes(server, exchange.phase)
    if exchange.held_bytes == 0:
        exchange.conn = conn
        ilist_append(request_list(server, exchange), request_hook, server, exchange_index(conn))
    if waiting != NULL:
        waiting[0] += more_bytes
    exchange.held_bytes += more_bytes
    server.request_bytes += more_bytes


cdef void request_release(server_t *server, exchange_t *exchange) noexcept nogil:
    cdef uint64_t *waiting = waiting_bytes(server, exchange.phase)
    if exchange.held_bytes == 0:
        return
    server.request_bytes -= exchange.held_bytes
    if waiting != NULL:
        waiting[0] -= exchange.held_bytes
    exchange.held_bytes = 0
    ilist_remove(request_list(server, exchange), request_hook, server,
                 exchange_index(exchange.conn))
