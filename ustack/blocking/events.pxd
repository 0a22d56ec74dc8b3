# SPDX-License-Identifier: MIT
# An application whose work needs Python: its upcalls note events in C, and Python gets those of a turn at once.
#
#     receiving            hand-over          output
#     on_accept   ┐
#     on_data     │ note   on_hand_over       tcp_output, send(): nobody holds the GIL
#     on_eof      ├──────▶ takes the GIL  ──▶
#     on_timeout  │ ring   once, and tells
#     on_more     │        happened()
#     on_closed   ┘
#
# The ring is a list through the records of connections (event_t): each is in it once, whatever its peer does, with one
# bit for each kind of event. So its memory is one record per connection, and a connection's events are told in the
# order in which they can have happened: accepted, urgent, data, writable, end of stream, timeout, closed. Connections
# come in the order of their first event. A record belongs to one connection: it outlives the conn_t, and is never given
# to the next one that uses that memory.
#
# Received bytes are not copied: they stay in the transport's receive queue (on_data uses none), for whoever is told to
# look at them there. What a connection that has ended as it should still held is moved to its record.
#
# It must not: touch a Python object in an upcall. Above: sockets, testing's event recorder. Below: application.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.application cimport Application, close_reason_t, conn_t, endpoints_t, transport_t

cdef enum event_kind_t:
    EVENT_ACCEPTED = 1          # established: accepted, or opened by us
    EVENT_DATA = 2              # there is something in the receive queue
    EVENT_WRITABLE = 4          # after transport.want_writable
    EVENT_EOF = 8
    EVENT_TIMEOUT = 16          # after transport.set_timeout
    EVENT_CLOSED = 32           # the last one. Always told
    EVENT_URGENT = 64           # on_urgent: comes before the data
    EVENT_MORE = 128            # bytes behind unread ones, or the FIN: each arrival (application_t.on_more)

# Named by their addresses, not by indices of a table as base/ilist's: a Connection may hold one longer than anything
# that such a table could belong to.
#
# One connection, from event_new (on_accept, or whoever opens one) until the last holder lets it go.
ctypedef struct event_t:
    conn_t *conn                # NULL: it has ended. Written in upcalls, without the GIL: event_conn for other threads
    endpoints_t ends            # valid without a conn
    uint32_t wanted             # event_kind_t that are noted of this one beside the application's
    event_t *next               # in the ring
    event_t *older              # in the list of all records
    event_t *newer
    events_t *events            # whose list that is; NULL: the application is gone, or knows the connection no longer
    uint32_t kinds              # event_kind_t since the last hand-over; 0: not in the ring
    uint32_t holders            # the list of all records is one, the ring another
    bint waiting                # ACCEPT_WAITING was answered, and transport.taken not called
    close_reason_t reason       # of EVENT_CLOSED. CLOSE_NO_MEMORY as well when there was none for `rest`
    uint8_t *rest               # with CLOSE_NORMAL: received and not consumed, NULL if there is nothing
    size_t rest_bytes
    uint32_t rest_urgent        # ... of them, up to the peer's urgent pointer
    void *object                # the subclass's, NULL at first
    void *listener              # the subclass's answer to whose the connection is (admit)

# An application's ring, and all of its records.
ctypedef struct events_t:
    void *application           # the EventApplication
    event_t *first
    event_t *last
    event_t *newest             # of all records
    uint32_t records
    uint32_t limit              # most records at a time; a connection beyond it is reset
    uint32_t wanted             # event_kind_t that are noted of all; EVENT_CLOSED always is
    uint64_t hand_overs         # with something to tell
    uint64_t gil_taken          # of them, that had to take the GIL: those in the middle of a turn
    uint64_t told               # events, all kinds of all hand-overs
    void *listeners             # the subclass's, for admit
    # What on_accept answers (accept_t).
    int (*admit)(events_t *events, const transport_t *transport, conn_t *conn, event_t *event) noexcept nogil

# A record with one holder, on the application's list; NULL: no memory, or the limit.
cdef event_t *event_new(events_t *events) noexcept nogil
# It is that connection's: conn.user_data points to it. In on_accept, or by who has opened one.
cdef void event_bind(event_t *event, const transport_t *transport, conn_t *conn) noexcept nogil
# Off the list, as if on_closed had been told: nobody is told anything of it. For a connection that could not be opened.
cdef void event_forget(event_t *event) noexcept nogil
cdef void event_hold(event_t *event) noexcept nogil
cdef void event_release(event_t *event) noexcept nogil
# Its conn_t, for threads outside of the gate. Look again after having read from it: what was read counts if it is still
# the same one. (A conn_t's memory lives as long as its transport.)
cdef conn_t *event_conn(const event_t *event) noexcept nogil


# A subclass says in its __cinit__ what it wants (events.wanted), may set events.admit (ACCEPT_TAKEN without), and
# answers happened().
cdef class EventApplication(Application):
    cdef events_t events
    # With the GIL, in the middle of a turn: `kinds` have happened to the connection since it was last told. Every
    # downcall is allowed; what it leaves behind goes out in this turn. conn is NULL with EVENT_CLOSED. The stack is
    # not to be entered. What it raises has to be caught in it (see Application.park).
    cdef void happened(self, const transport_t *transport, event_t *event, uint32_t kinds) noexcept
