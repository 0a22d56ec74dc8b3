# SPDX-License-Identifier: MIT
"""The engine's TCP as a transport. See transport.pxd; what each call promises is in application.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport (
    CALL_OK, CONN_ABORTED, CONN_ACTIVE, CONN_EOF, OPTION_CC, OPTION_KEEPALIVE, OPTION_LOW_WATER,
    OPTION_NODELAY, OPTION_PATH_MTU, OPTION_TOS, OPTION_TTL, OPTION_UNSENT, OPTION_UNSENT_LOW_WATER, OPTION_URGENT,
    OPTION_URGENT_UNREAD, application_t, close_reason_t, conn_t, endpoints_t, transport_t, visit_t)
from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_t
from ustack.tcp.calls cimport (
    tcp_abort, tcp_close, tcp_connect, tcp_listen, tcp_peek, tcp_receivable, tcp_receive, tcp_resume, tcp_send,
    tcp_send_queued, tcp_send_room, tcp_set_cc, tcp_set_keepalive, tcp_set_low_water, tcp_set_nodelay, tcp_set_timeout,
    tcp_set_tos, tcp_set_ttl, tcp_set_unsent_low_water, tcp_shutdown, tcp_taken, tcp_unlisten,
    tcp_want_writable)
from ustack.tcp.options cimport tcp_option, tcp_option_set
from ustack.tcp.records.demux cimport flow_connection, flow_slot_count
from ustack.tcp.records.marks cimport tcb_low_water, tcb_unsent, tcb_unsent_low_water
from ustack.tcp.records.state cimport SYN_RECEIVED
from ustack.tcp.records.tcb cimport (
    TCB_ABORT, TCB_ACCEPTED, TCB_ACTIVE, TCB_FIN_RECEIVED, TCB_KEEPALIVE, TCB_NODELAY, tcb_t, tcp_t)
from ustack.tcp.records.urgent cimport urgent_is_out, urgent_unread
from ustack.tcp.recovery.control cimport control_number
from ustack.tcp.recovery.path cimport path_mtu
from ustack.tcp.status cimport connection_status
from ustack.tcp.urgent cimport urgent_queued
from ustack.wire.ipv4 cimport IPV4_ECN_MASK

from ustack.tcp.records.state import state_name


cdef inline tcp_t *tcp_of(const transport_t *transport) noexcept nogil:
    return &engine_of(transport).tcp


# ---------------------------------------------------------------- bytes

cdef int64_t send(const transport_t *transport, conn_t *conn, lent_t *lent, uint64_t offset,
                  uint64_t length) noexcept nogil:
    return tcp_send(tcp_of(transport), tcb_of(conn), lent, offset, length)


cdef uint32_t send_queued(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return tcp_send_queued(tcb_of(conn))


cdef uint32_t send_room(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return tcp_send_room(tcp_of(transport), tcb_of(conn))


cdef void want_writable(const transport_t *transport, conn_t *conn) noexcept nogil:
    tcp_want_writable(tcp_of(transport), tcb_of(conn))


cdef uint32_t receivable(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return tcp_receivable(tcp_of(transport), tcb_of(conn))


cdef size_t receive(const transport_t *transport, conn_t *conn, uint8_t *out, size_t length) noexcept nogil:
    return tcp_receive(tcp_of(transport), tcb_of(conn), out, length)


cdef const uint8_t *peek(const transport_t *transport, conn_t *conn, uint32_t skip, uint32_t *length) noexcept nogil:
    return tcp_peek(tcp_of(transport), tcb_of(conn), skip, length)


cdef void resume(const transport_t *transport, conn_t *conn) noexcept nogil:
    tcp_resume(tcp_of(transport), tcb_of(conn))


# ---------------------------------------------------------------- the end

cdef void shutdown(const transport_t *transport, conn_t *conn) noexcept nogil:
    tcp_shutdown(tcp_of(transport), tcb_of(conn))


cdef void close(const transport_t *transport, conn_t *conn) noexcept nogil:
    tcp_close(tcp_of(transport), tcb_of(conn))


cdef void abort(const transport_t *transport, conn_t *conn) noexcept nogil:
    tcp_abort(tcp_of(transport), tcb_of(conn))


cdef void want_hand_over(const transport_t *transport, application_t *app) noexcept nogil:
    engine_of(transport).hand_overs |= 1ULL << app.index


# ---------------------------------------------------------------- settings

cdef void set_timeout(const transport_t *transport, conn_t *conn, uint64_t after_ns) noexcept nogil:
    tcp_set_timeout(tcp_of(transport), tcb_of(conn), after_ns)


cdef int set_option(const transport_t *transport, conn_t *conn, int option, uint32_t value) noexcept nogil:
    if option == OPTION_NODELAY:
        tcp_set_nodelay(tcp_of(transport), tcb_of(conn), value != 0)
    elif option == OPTION_KEEPALIVE:
        tcp_set_keepalive(tcp_of(transport), tcb_of(conn), value != 0)
    elif option == OPTION_TOS:
        tcp_set_tos(tcb_of(conn), <uint8_t>value)
    elif option == OPTION_TTL:
        tcp_set_ttl(tcb_of(conn), <uint8_t>value)
    elif option == OPTION_CC:
        return tcp_set_cc(tcp_of(transport), tcb_of(conn), value)
    elif option == OPTION_LOW_WATER:
        return tcp_set_low_water(tcp_of(transport), tcb_of(conn), value)
    elif option == OPTION_UNSENT_LOW_WATER:
        return tcp_set_unsent_low_water(tcp_of(transport), tcb_of(conn), value)
    elif option == OPTION_URGENT:
        return urgent_queued(tcp_of(transport), tcb_of(conn)) if value else CALL_OK
    else:
        return tcp_option_set(tcp_of(transport), tcb_of(conn), option, value)
    return CALL_OK


cdef uint32_t get_option(const transport_t *transport, const conn_t *conn, int option) noexcept nogil:
    cdef const tcb_t *tcb = tcb_of(conn)
    if option == OPTION_NODELAY:
        return tcb.flags & TCB_NODELAY != 0
    if option == OPTION_KEEPALIVE:
        return tcb.flags & TCB_KEEPALIVE != 0
    if option == OPTION_TOS:
        return tcb.tos & ~IPV4_ECN_MASK
    if option == OPTION_TTL:
        return tcb.ttl
    if option == OPTION_CC:
        return control_number(tcb)
    if option == OPTION_LOW_WATER:
        return tcb_low_water(tcp_of(transport), tcb)
    if option == OPTION_UNSENT_LOW_WATER:
        return tcb_unsent_low_water(tcp_of(transport), tcb)
    if option == OPTION_URGENT:
        return urgent_is_out(tcp_of(transport), tcb)
    if option == OPTION_URGENT_UNREAD:
        return urgent_unread(tcp_of(transport), tcb)
    if option == OPTION_UNSENT:
        return tcb_unsent(tcb)
    if option == OPTION_PATH_MTU:
        return path_mtu(tcb)
    return tcp_option(tcp_of(transport), tcb, option)


# ---------------------------------------------------------------- looking

cdef const endpoints_t *endpoints(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return &tcb_of(conn).key


cdef uint32_t status(const transport_t *transport, const conn_t *conn) noexcept nogil:
    cdef const tcb_t *tcb = tcb_of(conn)
    cdef uint32_t bits = 0
    if tcb.flags & TCB_ACTIVE:
        bits |= CONN_ACTIVE
    if tcb.flags & TCB_FIN_RECEIVED and tcb.state != SYN_RECEIVED:
        bits |= CONN_EOF
    if tcb.flags & TCB_ABORT:
        bits |= CONN_ABORTED
    return bits


cdef close_reason_t reason(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return <close_reason_t>tcb_of(conn).close_reason


cdef object state(const transport_t *transport, const conn_t *conn):
    return state_name(tcb_of(conn).state)


cdef object info(const transport_t *transport, const conn_t *conn):
    return connection_status(tcp_of(transport), tcb_of(conn))


cdef void each(const transport_t *transport, application_t *app, visit_t visit) noexcept nogil:
    cdef tcp_t *tcp = tcp_of(transport)
    cdef uint64_t at
    cdef tcb_t *tcb
    for at in range(flow_slot_count(tcp)):
        tcb = flow_connection(tcp, at)
        if tcb != NULL and tcb.app == app.index and tcb.flags & TCB_ACCEPTED:
            visit(app, transport, conn_of(tcb))


# ---------------------------------------------------------------- opening

cdef int listen(const transport_t *transport, const ip_addr_t *address, uint16_t port, application_t *app,
                uint32_t backlog) noexcept nogil:
    return tcp_listen(tcp_of(transport), address, port, app.index, backlog)


cdef int unlisten(const transport_t *transport, const ip_addr_t *address, uint16_t port) noexcept nogil:
    return tcp_unlisten(tcp_of(transport), address, port)


cdef conn_t *connect(const transport_t *transport, const ip_addr_t *address, uint16_t port, uint16_t local_port,
                     application_t *app, int *outcome) noexcept nogil:
    return conn_of(tcp_connect(tcp_of(transport), address, port, local_port, app.index, outcome))


cdef void taken(const transport_t *transport, const conn_t *conn) noexcept nogil:
    tcp_taken(tcp_of(transport), tcb_of(conn))


cdef void engine_transport_init(engine_t *engine) noexcept nogil:
    cdef transport_t *table = &engine.transport
    table.budget = &engine.tcp.turn.budget
    table.send = send
    table.send_queued = send_queued
    table.send_room = send_room
    table.want_writable = want_writable
    table.receivable = receivable
    table.receive = receive
    table.peek = peek
    table.resume = resume
    table.shutdown = shutdown
    table.close = close
    table.abort = abort
    table.want_hand_over = want_hand_over
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
