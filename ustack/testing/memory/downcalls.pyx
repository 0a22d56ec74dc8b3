# SPDX-License-Identifier: MIT
"""The downcalls of a transport in memory: each notes on the record what the next turn does. None makes an upcall.

It must not: know a protocol, or wait. Read first: application.pxd (transport_t says what each promises).
Below: records, application, buf. Above: memory_transport.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from ustack.application cimport (
    CALL_BAD_ADDRESS, CALL_IN_USE, CALL_NO_MEMORY, CALL_NO_ROUTE, CALL_OK, CALL_STATE, CALL_UNSUPPORTED,
    CLOSE_ABORTED, CONN_ABORTED, CONN_EOF, OPTION_CC, OPTION_LOW_WATER, OPTION_NODELAY, OPTION_UNSENT_LOW_WATER,
    application_t, close_reason_t, conn_t, endpoints_t, transport_t, visit_t)
from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_ref, lent_t
from ustack.testing.memory.records cimport (
    ABORT, ACCEPTED, CLOSED_BY_APP, ENDED, FIN_QUEUED, FIN_TAKEN, MEMORY_LISTENERS, MEMORY_READS, PAUSED, PEER_FIN,
    RESUMED, WAITING, WANT_WRITABLE, memory_conn_t, memory_listener_t, memory_of, memory_read_t, memory_t, own, piece_t)


cdef uint32_t send_queued(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return own(conn).queued


cdef uint32_t send_room(const transport_t *transport, const conn_t *conn) noexcept nogil:
    if own(conn).queued > own(conn).options[<int>OPTION_UNSENT_LOW_WATER]:
        return 0
    return memory_of(transport).send_queue_bytes - own(conn).queued


cdef int64_t send(const transport_t *transport, conn_t *conn, lent_t *lent, uint64_t offset,
                  uint64_t length) noexcept nogil:
    cdef memory_conn_t *record = own(conn)
    cdef uint64_t room = send_room(transport, conn)
    cdef uint64_t accepted = length if length < room else room
    cdef piece_t *piece
    if record.flags & (FIN_QUEUED | ABORT | ENDED):
        return CALL_STATE
    if offset > lent.length or length > lent.length - offset:
        return CALL_BAD_ADDRESS
    if accepted == 0:
        return 0
    piece = <piece_t *>calloc(1, sizeof(piece_t))
    if piece == NULL:
        return CALL_NO_MEMORY
    piece.lent = lent_ref(lent)
    piece.data = lent.data + offset
    piece.length = accepted
    if record.tail != NULL:
        record.tail.next = piece
    else:
        record.head = piece
    record.tail = piece
    record.queued += <uint32_t>accepted
    return <int64_t>accepted


cdef void want_writable(const transport_t *transport, conn_t *conn) noexcept nogil:
    own(conn).flags |= WANT_WRITABLE


cdef void want_hand_over(const transport_t *transport, application_t *app) noexcept nogil:
    memory_of(transport).hand_overs |= 1ULL << app.index


cdef uint32_t receivable(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return <uint32_t>(own(conn).end - own(conn).start)


cdef size_t receive(const transport_t *transport, conn_t *conn, uint8_t *out, size_t length) noexcept nogil:
    cdef memory_conn_t *record = own(conn)
    if record.offering:
        return 0
    if length > record.end - record.start:
        length = record.end - record.start
    if out != NULL:
        memcpy(out, record.unread + record.start, length)
    record.start += length
    if length > 0:
        record.flags &= ~<uint32_t>PAUSED
    return length


cdef const uint8_t *peek(const transport_t *transport, conn_t *conn, uint32_t skip, uint32_t *length) noexcept nogil:
    cdef memory_conn_t *record = own(conn)
    if record.offering or skip >= record.end - record.start:
        return NULL
    length[0] = <uint32_t>(record.end - record.start) - skip
    return record.unread + record.start + skip


cdef void resume(const transport_t *transport, conn_t *conn) noexcept nogil:
    if own(conn).end > own(conn).start or own(conn).offering:
        own(conn).flags |= RESUMED


cdef void shutdown(const transport_t *transport, conn_t *conn) noexcept nogil:
    own(conn).flags |= FIN_QUEUED


cdef void close(const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef memory_conn_t *record = own(conn)
    if record.flags & CLOSED_BY_APP:
        return
    if record.end > record.start and not record.offering:
        abort(transport, conn)          # unread data is lost, say so
        return
    record.flags |= CLOSED_BY_APP | FIN_QUEUED
    record.timeout_at_ns = 0


cdef void abort(const transport_t *transport, conn_t *conn) noexcept nogil:
    own(conn).flags |= ABORT
    own(conn).reason = CLOSE_ABORTED


cdef void set_timeout(const transport_t *transport, conn_t *conn, uint64_t after_ns) noexcept nogil:
    own(conn).timeout_at_ns = memory_of(transport).now_ns + after_ns if after_ns else 0


cdef inline bint has_option(int option) noexcept nogil:
    return OPTION_NODELAY <= option <= OPTION_UNSENT_LOW_WATER and option != OPTION_CC


cdef int set_option(const transport_t *transport, conn_t *conn, int option, uint32_t value) noexcept nogil:
    cdef uint32_t queue_bytes = memory_of(transport).send_queue_bytes
    if option == OPTION_LOW_WATER or option == OPTION_UNSENT_LOW_WATER:
        if own(conn).flags & ENDED:
            return CALL_STATE
        if value >= queue_bytes:
            value = queue_bytes // 2 if option == OPTION_LOW_WATER else queue_bytes
    elif not has_option(option):
        return CALL_UNSUPPORTED
    own(conn).options[option] = value
    return CALL_OK


cdef uint32_t get_option(const transport_t *transport, const conn_t *conn, int option) noexcept nogil:
    return own(conn).options[option] if has_option(option) else 0


cdef const endpoints_t *endpoints(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return &own(conn).ends


cdef uint32_t status(const transport_t *transport, const conn_t *conn) noexcept nogil:
    cdef uint32_t bits = 0
    if own(conn).flags & PEER_FIN:
        bits |= CONN_EOF
    if own(conn).flags & ABORT:
        bits |= CONN_ABORTED
    return bits


cdef close_reason_t reason(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return own(conn).reason


cdef object state(const transport_t *transport, const conn_t *conn):
    cdef uint32_t flags = own(conn).flags
    if flags & (ABORT | ENDED):
        return "CLOSED"
    if flags & FIN_QUEUED:
        return "LAST-ACK" if flags & PEER_FIN else "FIN-WAIT-2" if flags & FIN_TAKEN else "FIN-WAIT-1"
    return "CLOSE-WAIT" if flags & PEER_FIN else "ESTABLISHED"


cdef object info(const transport_t *transport, const conn_t *conn):
    return {"state": state(transport, conn), "snd_queued_bytes": own(conn).queued,
            "snd_unsent_bytes": own(conn).queued, "rcv_queued_bytes": own(conn).end - own(conn).start}


cdef void each(const transport_t *transport, application_t *app, visit_t visit) noexcept nogil:
    cdef memory_t *memory = memory_of(transport)
    cdef uint32_t index
    for index in range(memory.count):
        if memory.conns[index] != NULL and memory.conns[index].app == app and memory.conns[index].flags & ACCEPTED:
            visit(app, transport, <conn_t *>memory.conns[index])


cdef memory_listener_t *listener_of(memory_t *memory, uint16_t port) noexcept nogil:
    cdef int index
    for index in range(MEMORY_LISTENERS):
        if memory.listeners[index].port == port:
            return &memory.listeners[index]
    return NULL


cdef int listen(const transport_t *transport, const ip_addr_t *address, uint16_t port, application_t *app,
                uint32_t backlog) noexcept nogil:
    cdef memory_listener_t *listener = listener_of(memory_of(transport), port)
    if listener != NULL:
        return CALL_IN_USE
    listener = listener_of(memory_of(transport), 0)
    if listener == NULL:
        return CALL_NO_MEMORY
    listener.port = port
    listener.app = app
    listener.backlog = backlog
    listener.waiting = 0
    return CALL_OK


cdef int unlisten(const transport_t *transport, const ip_addr_t *address, uint16_t port) noexcept nogil:
    cdef memory_listener_t *listener = listener_of(memory_of(transport), port)
    if listener == NULL or port == 0:
        return CALL_STATE
    memset(listener, 0, sizeof(memory_listener_t))
    return CALL_OK


cdef conn_t *connect(const transport_t *transport, const ip_addr_t *address, uint16_t port, uint16_t local_port,
                     application_t *app, int *outcome) noexcept nogil:
    outcome[0] = CALL_NO_ROUTE
    return NULL


cdef void taken(const transport_t *transport, const conn_t *conn) noexcept nogil:
    cdef memory_listener_t *listener = listener_of(memory_of(transport), own(conn).ends.lport)
    if own(conn).flags & WAITING and listener != NULL:
        listener.waiting -= 1
    own(conn).flags &= ~<uint32_t>WAITING


cdef int read_file(const transport_t *transport, application_t *app, int fd, lent_t *into, uint64_t at,
                   uint64_t length, uint64_t offset, uint32_t token) noexcept nogil:
    """It ends when the test says so."""
    cdef memory_t *memory = memory_of(transport)
    cdef memory_read_t *asked
    if memory.read_count == <uint32_t>MEMORY_READS or app.on_file_read == NULL:
        return CALL_NO_MEMORY
    asked = &memory.reads[memory.read_count]
    memory.read_count += 1
    memset(asked, 0, sizeof(memory_read_t))
    asked.app = app
    asked.fd = fd
    asked.into = into
    asked.at = at
    asked.length = length
    asked.offset = offset
    asked.token = token
    return CALL_OK


cdef void files_fill(transport_t *table) noexcept:
    memory_of(table).files.read = read_file
    table.files = &memory_of(table).files


cdef void downcalls_fill(transport_t *table) noexcept:
    table.send = send
    table.send_queued = send_queued
    table.send_room = send_room
    table.want_writable = want_writable
    table.want_hand_over = want_hand_over
    table.receivable = receivable
    table.receive = receive
    table.peek = peek
    table.resume = resume
    table.shutdown = shutdown
    table.close = close
    table.abort = abort
    table.set_timeout = set_timeout
    table.set_option = set_option
    table.option = get_option
    table.endpoints = endpoints
    table.status = status
    table.reason = reason
    table.state = state
    table.info = info
    table.each = each
    table.listen = listen
    table.unlisten = unlisten
    table.connect = connect
    table.taken = taken
