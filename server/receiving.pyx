# SPDX-License-Identifier: MIT
"""Requests as they arrive (contract: receiving.pxd)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy

from ustack.application cimport conn_t, transport_t
from ustack.base.prng cimport siphash13
from ustack.buf.lent cimport lent_ref
from ustack.server.chunks cimport chunks_read
from ustack.server.connection cimport connection_abort, connection_idle, exchange_begin
from ustack.server.exchange cimport (
    exchange_at, exchange_end, exchange_of, request_note, request_release, waiting_bytes)
from ustack.server.filetable cimport decision_valid
from ustack.server.headscan cimport head_end, line_fault, starts_no_request
from ustack.server.headtable cimport decision_free, head_drop, head_lookup
from ustack.server.plainheads cimport decide_plain
from ustack.server.records cimport (
    CLOSING, DECISION_CHUNKED, DECISION_CONTINUE, DECISION_FULL, DECISION_REMEMBERED, EXCHANGE_BODY_READ,
    EXCHANGE_CONTINUE, EXCHANGE_GENERAL, EXCHANGE_LINE, EXCHANGE_UNLEARNED, PHASE_BODY, PHASE_HEAD, PHASE_LOADING,
    PHASE_SENDING, PHASE_UNDECIDED, decision_t, exchange_t, phase_t, server_t)
from ustack.server.refusals cimport refusal_decide
from ustack.server.sending cimport respond, send_more


# ---------------------------------------------------------------- answers

cdef void request_hold(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                       uint32_t more_bytes) noexcept nogil:
    """Count what is kept of a request, after others have made room for it."""
    cdef exchange_t *oldest
    while server.request_bytes + more_bytes > server.max_request_bytes and server.request_order.first:
        oldest = exchange_at(server, server.request_order.first)
        if oldest == exchange:
            break                       # it alone fits, by the bounds on a head
        server.stats.requests_displaced += 1
        if oldest.phase == PHASE_HEAD or oldest.phase == PHASE_BODY:
            refuse_held(server, transport, oldest.conn, oldest, 503)
        else:
            connection_abort(server, transport, oldest.conn)      # a 100 is half sent: nothing can follow it
    request_note(server, conn, exchange, more_bytes)


cdef void answer(server_t *server, const transport_t *transport, conn_t *conn, decision_t *decision) noexcept nogil:
    if not decision.flags & DECISION_CHUNKED and decision.request_body == 0:
        respond(server, transport, conn, decision)
        if not decision.flags & DECISION_REMEMBERED:
            decision_free(decision)
        return
    cdef exchange_t *exchange = exchange_of(server, conn)
    if exchange == NULL:
        exchange = exchange_begin(server, transport, conn, PHASE_BODY)
        if exchange == NULL:
            decision_free(decision)
            return
    exchange.phase = PHASE_BODY
    exchange.left = decision.request_body
    exchange.chunks.left = server.max_body_bytes
    exchange.pending = decision
    request_hold(server, transport, conn, exchange, sizeof(decision_t) + decision.head_length)
    transport.set_timeout(transport, conn, server.head_timeout_ns)
    if decision.flags & DECISION_CONTINUE:
        exchange.phase = PHASE_SENDING
        exchange.flags = EXCHANGE_CONTINUE
        exchange.first = lent_ref(server.continue_100)
        exchange.first_left = exchange.first.length
        send_more(server, transport, conn, exchange)


cdef void answer_head(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *head,
                      size_t length) noexcept nogil:
    """One complete head: from memory, as a plain one, or kept for the hand-over."""
    cdef uint64_t hashed
    cdef decision_t *decision
    if length > server.max_head_bytes:
        refuse(server, transport, conn, 431, head, length)
        return
    hashed = siphash13(server.hash_key, head, length)
    decision = recall(server, head, length, hashed)
    if decision == NULL:
        server.transport = transport
        decision = decide_plain(server, head, length, hashed)
        if decision == NULL and server.awaited:
            head_wait(server, transport, conn, head, length, EXCHANGE_UNLEARNED)
            return
        if decision == NULL:
            head_ask(server, transport, conn, head, length, (EXCHANGE_UNLEARNED if server.unlearned else 0)
                     | (EXCHANGE_GENERAL if server.skip_file_open else 0))
            return
        server.stats.head_misses += 1
    answer(server, transport, conn, decision)


cdef decision_t *recall(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept nogil:
    cdef decision_t *decision
    if server.finishing:
        return NULL
    decision = head_lookup(server, head, length, hashed)
    if decision == NULL:
        return NULL
    if not decision_valid(server, decision):
        head_drop(server, decision)
        return NULL
    server.stats.head_hits += 1
    decision.referenced = 1
    server.last = decision
    return decision


cdef void head_ask(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *head, size_t length,
                   uint8_t flags) noexcept nogil:
    """Keep a complete head until the hand-over. The connection has no record."""
    if head_keep(server, transport, conn, head, length, flags, PHASE_UNDECIDED):
        server.stats.heads_asked += 1
        transport.want_hand_over(transport, server.app)


cdef void head_wait(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *head, size_t length,
                    uint8_t flags) noexcept nogil:
    head_keep(server, transport, conn, head, length, flags, PHASE_LOADING)


cdef bint head_keep(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *head, size_t length,
                    uint8_t flags, phase_t phase) noexcept nogil:
    """False: it was turned away, or there was no memory."""
    cdef exchange_t *exchange
    if waiting_bytes(server, phase)[0] + length > server.max_request_bytes >> 2:
        server.stats.heads_turned_away += 1
        refuse(server, transport, conn, 503, head, length)
        return False
    exchange = exchange_begin(server, transport, conn, phase)
    if exchange == NULL:
        return False
    exchange.load = server.awaited
    exchange.head = <uint8_t *>malloc(length)
    if exchange.head == NULL:
        connection_abort(server, transport, conn)
        return False
    memcpy(exchange.head, head, length)
    exchange.head_length = <uint32_t>length
    exchange.flags = flags
    request_hold(server, transport, conn, exchange, <uint32_t>length)
    return True


cdef void refuse(server_t *server, const transport_t *transport, conn_t *conn, int status, const uint8_t *head,
                 size_t length) noexcept nogil:
    """End the connection with an error for what is not, or not yet, a complete head."""
    cdef decision_t *decision = refusal_decide(server, status, head, length)
    if decision == NULL:
        connection_abort(server, transport, conn)
        return
    answer(server, transport, conn, decision)


cdef void refuse_held(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                      int status) noexcept nogil:
    cdef uint8_t *head = exchange.head
    cdef decision_t *pending = exchange.pending
    exchange.head = NULL
    exchange.pending = NULL
    request_release(server, exchange)
    if pending != NULL:
        refuse(server, transport, conn, status, pending.head, pending.head_length)
        decision_free(pending)
    else:
        refuse(server, transport, conn, status, head, exchange.head_length)
    free(head)


# ---------------------------------------------------------------- heads

cdef int length_fault(server_t *server, const uint8_t *head, size_t length) noexcept nogil:
    """Is a head beyond a limit before it is complete? A status, or 0."""
    if (length > server.max_request_line_bytes
            and memchr(head, c'\n', server.max_request_line_bytes + 1) == NULL):
        return 414
    return 431 if length > server.max_head_bytes else 0


cdef size_t request_unlike(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *data,
                           size_t length) noexcept nogil:
    cdef size_t end
    cdef bint broken
    if length >= 2 and data[0] == c'\r' and data[1] == c'\n':
        return 2                        # an empty line before a request is passed over (RFC 9112 section 2.2)
    if starts_no_request(data[0]) and (data[0] != c'\r' or length >= 2):
        refuse(server, transport, conn, 400, data, length)
        return length
    end = head_end(data, length, 0, &broken)
    if broken:
        refuse(server, transport, conn, 400, data, length)
        return length
    if end:
        answer_head(server, transport, conn, data, end)
        return end
    return head_first(server, transport, conn, data, length)


cdef size_t head_first(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *data,
                       size_t length) noexcept nogil:
    """The first part of a head that is not complete: keep it, if a head may begin like this."""
    cdef bint complete = False
    cdef int fault = 0
    cdef exchange_t *exchange
    if data[0] != c'\r':
        fault = line_fault(data, length, server.max_request_line_bytes, &complete)
    if fault == 0:
        fault = length_fault(server, data, length)
    if fault:
        refuse(server, transport, conn, fault, data, length)
        return length
    exchange = exchange_begin(server, transport, conn, PHASE_HEAD)
    if exchange == NULL:
        return length
    if complete:
        exchange.flags |= EXCHANGE_LINE
    transport.set_timeout(transport, conn, server.head_timeout_ns)
    return head_append(server, transport, conn, exchange, data, length)


cdef size_t head_append(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                        const uint8_t *data, size_t length) noexcept nogil:
    """Keep the bytes of a head that is not complete. Returns how many were kept: all, or up to the limit."""
    cdef size_t wanted = exchange.head_length + length
    cdef uint32_t capacity
    cdef uint8_t *grown
    if wanted > server.max_head_bytes + 1ULL:
        wanted = server.max_head_bytes + 1ULL
        length = wanted - exchange.head_length
    if wanted > exchange.head_capacity:
        capacity = <uint32_t>(wanted * 2 if wanted > 256 else 512)
        if capacity > server.max_head_bytes + 1:
            capacity = server.max_head_bytes + 1
        request_hold(server, transport, conn, exchange, capacity - exchange.head_capacity)
        exchange.head_capacity = capacity
        grown = <uint8_t *>realloc(exchange.head, capacity)
        if grown == NULL:
            connection_abort(server, transport, conn)
            return length
        exchange.head = grown
    memcpy(exchange.head + exchange.head_length, data, length)
    exchange.head_length += <uint32_t>length
    return length


cdef size_t head_more(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                      const uint8_t *data, size_t length) noexcept nogil:
    cdef size_t before = exchange.head_length
    cdef size_t used = head_append(server, transport, conn, exchange, data, length), end
    cdef uint8_t *head
    cdef bint broken
    if conn.user_data & CLOSING:
        return length
    if exchange.head[0] == c'\r':
        return empty_line_more(server, transport, conn, exchange, before, length)
    end = head_end(exchange.head, exchange.head_length, before, &broken)
    if broken:
        refuse_held(server, transport, conn, exchange, 400)
        return length
    if end == 0:
        return used if head_may_go_on(server, transport, conn, exchange) else length
    # The head leaves the record before it is answered: the record may go away meanwhile.
    head = exchange.head
    exchange.head = NULL
    exchange_end(server, transport, conn)
    conn.user_data = 0
    answer_head(server, transport, conn, head, end)
    free(head)
    return end - before


cdef size_t empty_line_more(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                            size_t before, size_t length) noexcept nogil:
    """What is kept begins with a carriage return: an empty line that came in two parts, or no request at all.
    before: bytes that were kept before these, at least one."""
    if exchange.head[1] != c'\n':
        refuse_held(server, transport, conn, exchange, 400)
        return length
    exchange_end(server, transport, conn)
    connection_idle(server, transport, conn)
    return 2 - before


cdef bint head_may_go_on(server_t *server, const transport_t *transport, conn_t *conn,
                         exchange_t *exchange) noexcept nogil:
    """It has not ended yet. False: it was refused, because no head begins like this or it is too long."""
    cdef bint complete = False
    cdef int fault
    if not exchange.flags & EXCHANGE_LINE:
        fault = line_fault(exchange.head, exchange.head_length, server.max_request_line_bytes, &complete)
        if fault:
            refuse_held(server, transport, conn, exchange, fault)
            return False
        if complete:
            exchange.flags |= EXCHANGE_LINE
    fault = length_fault(server, exchange.head, exchange.head_length)
    if fault:
        refuse_held(server, transport, conn, exchange, fault)
    return fault == 0


# ---------------------------------------------------------------- bodies

cdef size_t body_more(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                      const uint8_t *data, size_t length) noexcept nogil:
    cdef decision_t *pending
    cdef size_t used = length if length < exchange.left else exchange.left
    cdef int verdict = 0
    if exchange.pending.flags & DECISION_CHUNKED:
        verdict = chunks_read(&exchange.chunks, data, length, &used)
    else:
        exchange.left -= used
        if exchange.left == 0:
            verdict = 1
    if verdict == 0:
        return used
    if verdict != 1:
        refuse_held(server, transport, conn, exchange, verdict)
        return length
    pending = exchange.pending
    exchange.pending = NULL
    pending.flags &= ~DECISION_CHUNKED
    pending.request_body = 0
    if pending.flags & DECISION_FULL or pending.body_length:
        if not decision_valid(server, pending):
            # The file changed while the body came: decide again. What was parsed once parses again.
            answer_again(server, transport, conn, pending)
            return used
    exchange_end(server, transport, conn)
    conn.user_data = 0
    answer(server, transport, conn, pending)
    return used


cdef void answer_again(server_t *server, const transport_t *transport, conn_t *conn, decision_t *stale) noexcept nogil:
    exchange_end(server, transport, conn)
    conn.user_data = 0
    head_ask(server, transport, conn, stale.head, stale.head_length, EXCHANGE_BODY_READ)
    decision_free(stale)
