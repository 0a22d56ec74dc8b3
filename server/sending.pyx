# SPDX-License-Identifier: MIT
"""Responses on their way to TCP (contract: sending.pxd)."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ustack.application cimport conn_t, transport_t
from ustack.buf.lent cimport lent_ref, lent_t, lent_unref
from ustack.server.connection cimport connection_abort, connection_close, exchange_begin
from ustack.server.exchange cimport exchange_log, exchange_of, exchange_shrink
from ustack.server.filetable cimport file_fresh
from ustack.server.logring cimport log_keep
from ustack.server.ready cimport ready_refresh
from ustack.server.records cimport (
    CLOSING, DECISION_CLOSE, DECISION_FULL, DECISION_HEAD_ONLY, EXCHANGE_CLOSE, EXCHANGE_CONTINUE, EXCHANGE_EOF,
    EXCHANGE_MAPPED, EXCHANGE_TAIL, NO_FILE, PHASE_BODY, PHASE_SENDING, decision_t, exchange_t, ready_t, server_t,
    variant_t)

# What a decision comes to now.
ctypedef struct reply_t:
    ready_t *ready                  # dated for this second
    lent_t *body                    # sent behind it, or NULL
    uint64_t length                 # of the ready-made part
    uint64_t body_bytes             # of the whole response
    bint mapped                     # `body` is a file, not a copy
    uint8_t flags                   # exchange_flags_t


cdef inline void reply_choose(server_t *server, const decision_t *decision, reply_t *reply) noexcept nogil:
    cdef const variant_t *variant
    reply.ready = <ready_t *>&decision.own
    reply.body = NULL
    reply.mapped = False
    if decision.flags & DECISION_FULL:
        reply.ready = &server.files[decision.file].variant[decision.variant].full[decision.form]
    elif decision.shared:
        reply.ready = &server.shared[decision.shared - 1]
    ready_refresh(server, reply.ready)
    reply.length = reply.ready.head_length if decision.flags & DECISION_HEAD_ONLY else reply.ready.lent.length
    reply.body_bytes = reply.length - reply.ready.head_length
    if decision.body_length and not decision.flags & DECISION_HEAD_ONLY:
        variant = &server.files[decision.file].variant[decision.variant]
        reply.body = variant.body
        reply.mapped = variant.mapped
        reply.body_bytes += decision.body_length
    reply.flags = EXCHANGE_CLOSE if decision.flags & DECISION_CLOSE else 0


cdef void respond(server_t *server, const transport_t *transport, conn_t *conn, decision_t *decision) noexcept nogil:
    cdef reply_t reply
    cdef int64_t accepted, followed = 0
    cdef exchange_t *exchange = exchange_of(server, conn)
    reply_choose(server, decision, &reply)
    if exchange != NULL:
        reply.flags |= exchange.flags & EXCHANGE_EOF
    server.stats.requests += 1
    server.stats.responses[decision.status // 100] += 1
    server.stats.bytes_queued += reply.ready.head_length + reply.body_bytes
    accepted = transport.send(transport, conn, reply.ready.lent, 0, reply.length)
    if accepted == <int64_t>reply.length and reply.body != NULL and not reply.mapped:
        followed = transport.send(transport, conn, reply.body, decision.body_at, decision.body_length)
        if followed < 0:
            accepted = followed
    if accepted == <int64_t>reply.length and (reply.body == NULL or followed == <int64_t>decision.body_length):
        if decision.log_text != NULL:
            log_keep(&server.log, server.second, &transport.endpoints(transport, conn).raddr, decision.log_text,
                     decision.log_split, decision.status, reply.body_bytes)
        response_end(server, transport, conn, reply.flags)
    elif accepted < 0:
        connection_abort(server, transport, conn)
    else:
        respond_later(server, transport, conn, decision, &reply, <uint64_t>accepted, <uint64_t>followed)


cdef void respond_later(server_t *server, const transport_t *transport, conn_t *conn, const decision_t *decision,
                        const reply_t *reply, uint64_t accepted, uint64_t followed) noexcept nogil:
    """TCP has taken `accepted` bytes of the ready-made part and `followed` of the body: keep the rest in a record."""
    cdef exchange_t *exchange = exchange_of(server, conn)
    if exchange == NULL:
        exchange = exchange_begin(server, transport, conn, PHASE_SENDING)
        if exchange == NULL:
            return
    exchange.phase = PHASE_SENDING
    exchange.flags = reply.flags
    exchange.status = decision.status
    exchange.body_bytes = reply.body_bytes
    exchange.first = lent_ref(reply.ready.lent)
    exchange.first_at = accepted
    exchange.first_left = reply.length - accepted
    if reply.body != NULL:
        exchange.body = lent_ref(reply.body)
        exchange.body_at = decision.body_at + followed
        exchange.body_left = decision.body_length - followed
        if reply.mapped:
            exchange.flags |= EXCHANGE_MAPPED
        exchange.file = decision.file
        exchange.generation = decision.generation
    if decision.log_text != NULL:
        exchange.log_text = lent_ref(decision.log_text)
        exchange.log_split = decision.log_split
    transport.set_timeout(transport, conn, server.send_timeout_ns)
    send_more(server, transport, conn, exchange)


cdef bint offer(const transport_t *transport, conn_t *conn, lent_t *lent, uint64_t *at, uint64_t *left) noexcept nogil:
    """What is left of one part; the transport may take less. False: it refuses."""
    cdef int64_t accepted
    if left[0] == 0:
        return True
    accepted = transport.send(transport, conn, lent, at[0], left[0])
    if accepted < 0:
        return False
    at[0] += <uint64_t>accepted
    left[0] -= <uint64_t>accepted
    return True


cdef void send_more(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange) noexcept nogil:
    if damaged(server, exchange):
        server.stats.damaged_aborted += 1
        connection_abort(server, transport, conn)
        return
    if not offer(transport, conn, exchange.first, &exchange.first_at, &exchange.first_left) or (
            exchange.first_left == 0
            and not offer(transport, conn, exchange.body, &exchange.body_at, &exchange.body_left)):
        connection_abort(server, transport, conn)
        return
    if exchange.first_left or exchange.body_left:
        transport.want_writable(transport, conn)
        return
    if exchange.flags & EXCHANGE_CONTINUE:
        exchange.flags &= ~EXCHANGE_CONTINUE
        lent_unref(exchange.first)
        exchange.first = NULL
        exchange.phase = PHASE_BODY
        if exchange.flags & EXCHANGE_EOF:
            connection_close(server, transport, conn)
        return
    exchange_log(server, transport, conn, exchange, 0)
    if not exchange.flags & EXCHANGE_MAPPED:
        response_end(server, transport, conn, exchange.flags)
        return
    # Segments will still be built from the mapping; if the file is cut meanwhile, the end must not look like success.
    exchange_shrink(server, transport, conn, exchange)
    transport.want_writable(transport, conn)


cdef bint damaged(server_t *server, exchange_t *exchange) noexcept nogil:
    if not exchange.flags & EXCHANGE_MAPPED:
        return False
    if exchange.file != NO_FILE and server.files[exchange.file].generation == exchange.generation:
        file_fresh(server, &server.files[exchange.file])
    return exchange.body.damaged != 0


cdef void drain(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange) noexcept nogil:
    if damaged(server, exchange):
        server.stats.damaged_aborted += 1
        connection_abort(server, transport, conn)
    elif (transport.send_queued(transport, conn) == 0 or exchange.flags & (EXCHANGE_CLOSE | EXCHANGE_EOF)
            or server.finishing):
        response_end(server, transport, conn, exchange.flags)
        if not conn.user_data & CLOSING:
            transport.resume(transport, conn)
    else:
        exchange.flags |= EXCHANGE_TAIL  # looked at again with the next request, or soon
        transport.set_timeout(transport, conn, server.linger_ns)
        transport.resume(transport, conn)
