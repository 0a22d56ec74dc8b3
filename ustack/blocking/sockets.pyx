# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""The application behind a Stack's blocking sockets: a turn's events, put where blocking calls look.

Upcalls note events in C; Python gets those of a turn at once, between receiving and output (events). It must not: know
the protocol, nor what carries its bytes. Above: listener, stack. Below: connection, backlog, events.
"""

from libc.stdint cimport uint16_t, uint32_t

from ustack.application cimport (
    ACCEPT_NO_MEMORY, ACCEPT_REFUSED, ACCEPT_TAKEN, ACCEPT_WAITING, CALL_OK, CONN_ACTIVE, CONN_EOF, Transport,
    conn_t, transport_t)
from ustack.base.posix cimport EPOLLIN, EPOLLOUT, EPOLLPRI
from ustack.base.types cimport ip_addr_t
from ustack.blocking.backlog cimport Backlog, listening_find, listening_t
from ustack.blocking.connection cimport Connection
from ustack.blocking.events cimport (
    EVENT_ACCEPTED, EVENT_CLOSED, EVENT_DATA, EVENT_MORE, EVENT_URGENT, EVENT_WRITABLE, EventApplication, event_t,
    events_t)
from ustack.blocking.watched cimport watches_wake


cdef class SocketApplication(EventApplication):
    """The events of all blocking sockets of one stack."""

    def __cinit__(self, Transport stack) -> None:
        self.stack = stack
        self.backlogs = set()
        self.closing = set()
        # Blocking calls look at the rest themselves.
        self.events.wanted = EVENT_ACCEPTED | EVENT_URGENT | EVENT_CLOSED
        self.events.admit = socket_admit
        self.events.listeners = &self.listening

    cdef void listen(self, Backlog backlog, const ip_addr_t *address, uint16_t port) except *:
        self.backlogs.add(backlog)
        backlog.link(&self.listening, address, port)

    cdef void unlisten(self, Backlog backlog) noexcept:
        backlog.unlink(&self.listening)
        self.backlogs.discard(backlog)

    cdef void happened(self, const transport_t *transport, event_t *event, uint32_t kinds) noexcept:
        """No bytecode runs here: a signal handler could raise in the middle of it."""
        cdef Connection connection          # holds it: its end may be the end of its last other reference
        cdef bint kept = False
        if kinds & EVENT_ACCEPTED:
            if event.object != NULL:
                connection = <Connection>event.object
                connection.established = True
                watches_wake(connection.watches, 0)
            elif event.listener != NULL:
                if event.conn == NULL:              # it ended in the same turn: nobody has to see it
                    (<Backlog>event.listener).lost += 1
                else:
                    let_wait(self, event, &kept)
                    if not kept:
                        refuse(transport, event)
        if event.object == NULL:
            return
        connection = <Connection>event.object
        if kinds & EVENT_URGENT and connection.urgent_handler is not None:
            self.stack.call_later(call_urgent, connection)
        if kinds & EVENT_CLOSED:
            connection.unbind(event)
            watches_wake(connection.watches, 0)
        elif connection.watches != NULL:
            wake(transport, event, connection, kinds)


def call_urgent(Connection connection not None) -> None:
    """on_urgent as it is by now: whoever has taken it away is not called."""
    if connection.urgent_handler is not None:
        connection.urgent_handler(connection)


cdef int socket_admit(events_t *events, const transport_t *transport, conn_t *conn, event_t *event) noexcept nogil:
    cdef const listening_t *found
    cdef uint32_t at
    if transport.status(transport, conn) & CONN_ACTIVE:
        return ACCEPT_TAKEN if event.object != NULL else ACCEPT_REFUSED
    found = listening_find((<listening_t **>events.listeners)[0], transport.endpoints(transport, conn))
    if found == NULL:
        return ACCEPT_REFUSED
    for at in range(found.inherited_count):
        if transport.set_option(transport, conn, found.inherited[at].option, found.inherited[at].value) != CALL_OK:
            return ACCEPT_NO_MEMORY         # better none than one without what its listener has promised
    event.listener = found.backlog
    return ACCEPT_WAITING


cdef void wake(const transport_t *transport, event_t *event, Connection connection, uint32_t kinds) noexcept:
    """With the kernel's keys: data is news for who waits for it, the peer's FIN for everybody."""
    if kinds & (EVENT_DATA | EVENT_MORE):
        watches_wake(connection.watches, 0 if transport.status(transport, event.conn) & CONN_EOF
                     else EPOLLIN | EPOLLPRI)
    if kinds & EVENT_URGENT:
        watches_wake(connection.watches, EPOLLPRI)
    if kinds & EVENT_WRITABLE:
        watches_wake(connection.watches, EPOLLOUT)


cdef void let_wait(SocketApplication application, event_t *event, bint *kept) noexcept:
    """A Connection for the backlog. Without memory *kept stays what it is. (No `except` here or below: where there is
    no memory for a traceback either, Cython's would release NULL.)"""
    cdef Backlog backlog = <Backlog>event.listener
    cdef Connection connection = Connection.__new__(Connection)
    connection.backlog = backlog
    connection.linger = backlog.linger
    connection.bind(application.stack, application.closing, event)
    connection.established = True
    backlog.waiting[connection] = None
    watches_wake(backlog.watches, EPOLLIN)
    kept[0] = True


cdef void refuse(const transport_t *transport, event_t *event) noexcept nogil:
    """There is no Connection for it: it is reset, and waits for nobody."""
    if event.waiting:
        event.waiting = False
        transport.taken(transport, event.conn)
    transport.abort(transport, event.conn)
