# SPDX-License-Identifier: MIT
# How a connection rests and how it ends: idle, abort, close, linger.
#
# RFC 9112 section 9.6: a server that closes at once risks that the client's next bytes are answered with a RST, which
# destroys the response that the client has not read. So: FIN behind the response, then read and discard until the
# client's FIN, or for linger_ns after the last byte was acknowledged. How long the acknowledgements may take is bounded
# by send_timeout_ns since the last one that brought something, not by how long the response is.
#
# After connection_abort or connection_leave the connection is CLOSING: the rest is TCP's, and no upcall but on_closed
# means anything any more. Any call here may end that way; who goes on with the connection looks at conn.user_data.
#
# Above: sending, receiving, http. Below: exchange, application.

from libc.stdint cimport uint8_t

from ustack.application cimport conn_t, transport_t
from ustack.server.records cimport exchange_t, phase_t, server_t

# A record for the connection. NULL at the limit: the connection is then aborted.
cdef exchange_t *exchange_begin(server_t *server, const transport_t *transport, conn_t *conn,
                                phase_t phase) noexcept nogil
cdef void connection_abort(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil
# What is queued is delivered, then it ends.
cdef void connection_close(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil
cdef void connection_linger(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil
# PHASE_LINGER: discard. Returns length.
cdef size_t linger_data(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange,
                        size_t length) noexcept nogil
cdef void linger_timeout(server_t *server, const transport_t *transport, conn_t *conn,
                         exchange_t *exchange) noexcept nogil


cdef inline void connection_idle(server_t *server, const transport_t *transport, conn_t *conn) noexcept nogil:
    conn.user_data = 0
    transport.set_timeout(transport, conn, server.idle_timeout_ns)
