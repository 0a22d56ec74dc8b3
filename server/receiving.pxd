# SPDX-License-Identifier: MIT
# Requests as they arrive: whole heads, parts of heads, bodies; each ends in an answer or a refusal.
#
#     request ── the same head as last time, or a remembered one ──▶ respond (sending)
#             ── unseen and plain ──▶ decide_plain (plainheads) ──▶ answer
#             ── unseen           ──▶ PHASE_UNDECIDED: kept for the hand-over (asking: the GIL) ──▶ answer
#             ── its file is read ──▶ PHASE_LOADING: kept until it is (fetching), decided in a hand-over ──▶ answer
#             ── not complete     ──▶ PHASE_HEAD: head_more, until it is or a limit refuses it
#     answer  ── the request has a body ──▶ PHASE_BODY: body_more discards it, then the answer goes out
#
# A head that has not ended, and a head whose body is awaited, stay in memory for up to head_timeout_ns: at most
# max_head_bytes for a connection, and max_request_bytes for all of them. When those are used up, the request that is
# unfinished for longest makes room (503), as the oldest half-open connection does in TCP (RFC 4987 section 3.2): an
# honest request is unfinished for a round trip or two, and is overtaken only by a flood that fills all of it in that
# time.
#
# A head that Python has to decide waits for the hand-over, which is in the same turn unless many wait. Until then
# nothing more of the connection is read, so that its requests are answered in order. These heads count as well, and
# have at most a quarter of max_request_bytes, and those that wait for a file (fetching) another; one more than fits is
# turned away (503).
#
# Each call returns how many of the bytes belong to it; the connection may be CLOSING afterwards.
#
# Read first: RFC 9112 section 2.2, 3, 6 and 7.1. Above: asking, http. Below: plainheads, refusals, sending, connection,
# exchange, headscan, chunks.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

from ustack.application cimport conn_t, transport_t
from ustack.server.filetable cimport decision_valid
from ustack.server.records cimport decision_t, exchange_t, server_t
from ustack.server.sending cimport respond

# Respond, at once or after the request's body. Takes a decision that is not remembered.
cdef void answer(server_t *server, const transport_t *transport, conn_t *conn, decision_t *decision) noexcept nogil
# Keep a complete head until its file has been read (server.awaited). The connection has no record.
cdef void head_wait(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *head, size_t length,
                    uint8_t flags) noexcept nogil
# What is remembered of a complete head, if it still holds. NULL: nothing.
cdef decision_t *recall(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept nogil
# request, of one whose head is not the same as last time.
cdef size_t request_unlike(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *data,
                           size_t length) noexcept nogil
# PHASE_HEAD: the next bytes. Returns how many belong to this head.
cdef size_t head_more(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                      const uint8_t *data, size_t length) noexcept nogil
# PHASE_BODY: discard the request's body, then answer. Returns the bytes that belong to it.
cdef size_t body_more(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                      const uint8_t *data, size_t length) noexcept nogil
# PHASE_HEAD, PHASE_BODY: refuse what has been kept of a request. Nothing of it is kept then, however much of the
# response TCP takes.
cdef void refuse_held(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                      int status) noexcept nogil


# Nothing is going on: data begins a request. Returns the bytes used, never 0.
cdef inline size_t request(server_t *server, const transport_t *transport, conn_t *conn, const uint8_t *data,
                           size_t length) noexcept nogil:
    cdef decision_t *last = server.last
    if (last != NULL and length >= last.head_length and memcmp(data, last.head, last.head_length) == 0
            and decision_valid(server, last)):
        # The same head as before, as clients in a hurry send it. It ends with its first empty line, so this one does.
        server.stats.head_hits += 1
        last.referenced = 1
        length = last.head_length
        respond(server, transport, conn, last)
        return length
    return request_unlike(server, transport, conn, data, length)
