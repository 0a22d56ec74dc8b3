# SPDX-License-Identifier: MIT
"""Heads that wait for Python (contract: asking.pxd)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from ustack.application cimport conn_t, transport_t, turn_charge
from ustack.base.prng cimport siphash13
from ustack.server.connection cimport connection_abort, connection_close
from ustack.server.decide cimport decide_unseen
from ustack.server.exchange cimport exchange_at, exchange_end, exchange_of
from ustack.server.fetching cimport LOADS_FIRST, any_waiting, next_waiting
from ustack.server.plainheads cimport decide_learning
from ustack.server.receiving cimport answer, head_wait, recall
from ustack.server.records cimport (
    CLOSING, DECISION_CHUNKED, DECISION_CONTINUE, EXCHANGE_BODY_READ, EXCHANGE_EOF, EXCHANGE_GENERAL, EXCHANGE_LOADED,
    EXCHANGE_UNLEARNED, PHASE_DRAIN, PHASE_LOADING, PHASE_SENDING, REQUEST_UNITS, decision_t, exchange_t, server_t)

cdef enum:
    HAND_OVER_MAX_UNITS = 4096


cdef uint32_t decide_waiting(server_t *server, const transport_t *transport) noexcept:
    cdef exchange_t *exchange
    cdef uint32_t decided = 0, units = 0
    while any_waiting(server) and units < HAND_OVER_MAX_UNITS:
        exchange = exchange_at(server, next_waiting(server))
        server.loads_first ^= 1         # in turn with those that wait for Python: neither keeps the others waiting
        if server.closing:
            connection_abort(server, transport, exchange.conn)
        else:
            answer_waiting(server, transport, exchange.conn, exchange)
            decided += 1
        server.units += REQUEST_UNITS
        turn_charge(transport, server.units)
        units += server.units
        server.units = 0
    if any_waiting(server):
        transport.want_hand_over(transport, server.app)
    return decided


cdef void answer_waiting(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange) noexcept:
    cdef uint8_t *head = exchange.head
    cdef uint32_t length = exchange.head_length
    cdef uint8_t flags = exchange.flags
    cdef decision_t *decision
    server.admitted = 0
    if exchange.phase == PHASE_LOADING:
        if exchange.load < LOADS_FIRST:
            server.admitted = <uint8_t>exchange.load
        else:
            flags |= EXCHANGE_LOADED
    exchange.head = NULL
    exchange_end(server, transport, conn)
    conn.user_data = 0
    server.transport = transport
    server.read_at_once = flags & EXCHANGE_LOADED != 0
    decision = decide_head(server, head, length, &flags)
    server.read_at_once = server.admitted = 0
    if decision == NULL and server.awaited:
        head_wait(server, transport, conn, head, length, flags)
        free(head)
        return
    free(head)
    if decision == NULL:
        connection_abort(server, transport, conn)
        return
    answer(server, transport, conn, decision)
    if conn.user_data & CLOSING:
        return
    if flags & EXCHANGE_EOF:
        end_of_stream(server, transport, conn)
    elif transport.receivable(transport, conn):
        server.stats.put_off += 1
        transport.resume(transport, conn)


cdef decision_t *decide_head(server_t *server, const uint8_t *head, size_t length, uint8_t *known) noexcept:
    """From memory, if another connection has asked the same in this turn; else by Python. NULL with server.awaited: its
    file is being read, and *known is what is known about it then."""
    cdef uint8_t flags = known[0]
    cdef uint64_t hashed = siphash13(server.hash_key, head, length)
    cdef decision_t *decision = NULL
    server.awaited = 0
    if not flags & EXCHANGE_BODY_READ:
        decision = recall(server, head, length, hashed)
        if decision != NULL:
            return decision
    if flags & EXCHANGE_UNLEARNED:
        decision = decide_learning(server, head, length, hashed)
    else:
        server.skip_file_open = flags & EXCHANGE_GENERAL != 0
    if decision == NULL and server.awaited == 0:
        decision = decide_unseen(server, head, length, hashed)
        known[0] &= ~<uint8_t>EXCHANGE_UNLEARNED       # what it had to teach has been looked at
    if decision == NULL and server.awaited:
        return NULL
    if not flags & EXCHANGE_BODY_READ:
        server.stats.head_misses += 1
    if decision != NULL and flags & EXCHANGE_BODY_READ:
        decision.flags &= ~(DECISION_CHUNKED | DECISION_CONTINUE)
        decision.request_body = 0
    return decision


cdef void end_of_stream(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil:
    """The client's FIN has come while its head waited: a half-closed client still gets its response."""
    cdef exchange_t *exchange = exchange_of(server, conn)
    if exchange != NULL and (exchange.phase == PHASE_SENDING or exchange.phase == PHASE_DRAIN):
        exchange.flags |= EXCHANGE_EOF
    else:
        connection_close(server, transport, conn)
