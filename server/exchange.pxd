# SPDX-License-Identifier: MIT
# What a connection in the middle of a request or a response holds: an exchange_t in one of seven phases.
#
# A request whose response TCP takes at once leaves nothing behind: no record, conn.user_data 0. Everything else:
#
#     (idle) ──part of a head──▶ HEAD ──▶ (answer)            (answer) ──TCP takes a part──▶ SENDING ──▶ (end)
#            ──head with body──▶ BODY ──▶ (answer)                     ──a mapped file──────▶ DRAIN ───▶ (end)
#            ──head for Python─▶ UNDECIDED ──hand-over──▶ (answer)
#            ──its file is read▶ LOADING ──hand-over──▶ (answer)
#     (end): idle again, or LINGER and then tcp_close; tcp_close at once where nothing is left to deliver
#
# A client that reads slowly is in DRAIN for minutes: its record shrinks to the first part of one, if there is memory
# for that. It is read and written as any other; what lies behind the first part is not there.
#
# This file takes records and gives them back with all that they name; connection, sending and receiving move them from
# phase to phase. What is kept of requests is counted here. The records that keep a part of one are a list in order of
# the first byte kept, so that the oldest can make room (receiving.pyx, request_hold); those that wait for Python are
# another, in the order in which they are decided, and those that wait for a file are one for each (fetching).
#
# Above: connection, sending, receiving, http. Below: records, headtable (decision_free), logring; buf/slab.

from libc.stdint cimport uint32_t, uint64_t

from ustack.application cimport conn_t, transport_t
from ustack.buf.slab cimport slab_at
from ustack.server.records cimport (
    DRAINING, EXCHANGE_MASK, PHASE_LOADING, PHASE_UNDECIDED, exchange_t, phase_t, server_t)

cdef int exchanges_begin(server_t *server, uint32_t limit) noexcept nogil   # 0, or -1 without memory
cdef void exchanges_end(server_t *server) noexcept nogil                    # idempotent
# A record for the connection. NULL at the limit, which lies UNDECIDED_RECORDS higher for PHASE_UNDECIDED: such a record
# is back within a turn or two.
cdef exchange_t *exchange_take(server_t *server, conn_t *conn, phase_t phase) noexcept nogil
# Give back everything that the record names; the record stays, empty.
cdef void exchange_clear(server_t *server, const transport_t *transport, conn_t *conn,
                         exchange_t *exchange) noexcept nogil
# PHASE_DRAIN begins: give back what is behind the first part of the record, if that can be. `exchange` may be gone
# then.
cdef void exchange_shrink(server_t *server, const transport_t *transport, conn_t *conn,
                          exchange_t *exchange) noexcept nogil
# The connection has one: exchange_end looks.
cdef void exchange_drop(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil
# Log the response. missing: bytes of it that were not delivered.
cdef void exchange_log(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                       uint64_t missing) noexcept nogil
cdef void request_note(server_t *server, conn_t *conn, exchange_t *exchange, uint32_t more_bytes) noexcept nogil
cdef void request_release(server_t *server, exchange_t *exchange) noexcept nogil    # it is not kept any more


# What heads that wait in this phase take; NULL: in this one none waits.
cdef inline uint64_t *waiting_bytes(server_t *server, int phase) noexcept nogil:
    if phase == PHASE_LOADING:
        return &server.loading_bytes
    return &server.undecided_bytes if phase == PHASE_UNDECIDED else NULL


# Its head is complete, and waits for Python or for a file.
cdef inline bint exchange_waits(const exchange_t *exchange) noexcept nogil:
    return exchange.phase == PHASE_UNDECIDED or exchange.phase == PHASE_LOADING


cdef inline exchange_t *exchange_at(const server_t *server, uint32_t index) noexcept nogil:
    if index & DRAINING:
        return <exchange_t *>slab_at(&server.drains, index & ~DRAINING)
    return <exchange_t *>slab_at(&server.exchanges, index)


cdef inline uint32_t exchanges_in_use(const server_t *server) noexcept nogil:
    return server.exchanges.in_use + server.drains.in_use


# Which record the connection has; 0: none.
cdef inline uint32_t exchange_index(const conn_t *conn) noexcept nogil:
    return conn.user_data & EXCHANGE_MASK


cdef inline exchange_t *exchange_of(server_t *server, const conn_t *conn) noexcept nogil:
    cdef uint32_t index = exchange_index(conn)
    return exchange_at(server, index) if index else NULL


cdef inline void exchange_end(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil:
    """Give back what the connection holds, if anything."""
    if conn.user_data & EXCHANGE_MASK:
        exchange_drop(server, transport, conn)
