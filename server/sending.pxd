# SPDX-License-Identifier: MIT
# Responses on their way to TCP: queued at once where it takes them whole, else piece by piece as it takes more.
#
# A ready-made response is lent as it is, with the file's body behind it where that is not part of it. A response from a
# mapped file is followed until it is acknowledged (PHASE_DRAIN): segments are still built from the mapping, and if the
# file is cut meanwhile, the end must not look like success.
#
# Above: receiving, http. Below: connection, exchange, filetable, ready, logring; application.

from libc.stdint cimport uint8_t

from ustack.application cimport conn_t, transport_t
from ustack.server.connection cimport connection_close, connection_idle, connection_linger
from ustack.server.exchange cimport exchange_end
from ustack.server.records cimport EXCHANGE_CLOSE, EXCHANGE_EOF, decision_t, exchange_t, server_t

# Queue the response. The decision is only borrowed, and may be freed afterwards.
cdef void respond(server_t *server, const transport_t *transport, conn_t *conn, decision_t *decision) noexcept nogil
# PHASE_SENDING: hand over what TCP takes.
cdef void send_more(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange) noexcept nogil
# PHASE_DRAIN, after on_writable or a timeout: little or nothing is unacknowledged.
cdef void drain(server_t *server, const transport_t *transport, conn_t *conn, exchange_t *exchange) noexcept nogil
# Was the mapped file cut under this response? Looks at the disk only for what no fault has told.
cdef bint damaged(server_t *server, exchange_t *exchange) noexcept nogil


# The response is TCP's now. flags: exchange_flags_t.
cdef inline void response_end(server_t *server, const transport_t *transport, conn_t *conn,
                              uint8_t flags) noexcept nogil:
    if flags & EXCHANGE_EOF:
        connection_close(server, transport, conn)         # the client sends nothing any more
    elif flags & EXCHANGE_CLOSE or server.finishing:
        connection_linger(server, transport, conn)
    else:
        exchange_end(server, transport, conn)
        connection_idle(server, transport, conn)
