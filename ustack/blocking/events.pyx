# SPDX-License-Identifier: MIT
"""Events of a turn, noted without the GIL and handed over with it, once. The rules are in events.pxd."""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from ustack.application cimport (
    ACCEPT_NO_MEMORY, ACCEPT_REFUSED, ACCEPT_TAKEN, ACCEPT_WAITING, CLOSE_NORMAL, CLOSE_NO_MEMORY, OPTION_URGENT_UNREAD,
    Application, application_t, close_reason_t, conn_t, transport_t, turn_charge)

cdef extern from "Python.h":
    int PyGILState_Check() nogil

cdef extern from *:
    """
    #define ustack_event_conn(event) __atomic_load_n(&(event)->conn, __ATOMIC_SEQ_CST)
    #define ustack_event_end(event) __atomic_store_n(&(event)->conn, NULL, __ATOMIC_SEQ_CST)
    """
    conn_t *ustack_event_conn(const event_t *event) nogil
    void ustack_event_end(event_t *event) nogil

cdef enum:
    # Charged to the turn, as application.pxd has it.
    HAND_OVER_UNITS = 300
    TOLD_UNITS = 10                         # when it is noted: whoever gathers events stops in time
    REST_UNIT_BYTES_SHIFT = 9               # a unit for each 512 bytes that are kept: they are copied twice


# ---------------------------------------------------------------- records

cdef event_t *event_new(events_t *events) noexcept nogil:
    cdef event_t *event
    if events.records >= events.limit:
        return NULL
    event = <event_t *>calloc(1, sizeof(event_t))
    if event == NULL:
        return NULL
    event.events = events
    event.holders = 1
    event.older = events.newest
    if events.newest != NULL:
        events.newest.newer = event
    events.newest = event
    events.records += 1
    return event


cdef void event_bind(event_t *event, const transport_t *transport, conn_t *conn) noexcept nogil:
    event.conn = conn
    event.ends = transport.endpoints(transport, conn)[0]
    conn.user_data = <uint64_t>event


cdef inline void let_go(event_t *event, uint32_t holders) noexcept nogil:
    """So many of its holders go."""
    event.holders -= holders
    if event.holders == 0:
        free(event.rest)
        free(event)


cdef inline void unlist(event_t *event) noexcept nogil:
    """Off the list of all records, which stays a holder."""
    cdef events_t *events = event.events
    if event.newer != NULL:
        event.newer.older = event.older
    else:
        events.newest = event.older
    if event.older != NULL:
        event.older.newer = event.newer
    events.records -= 1
    event.events = NULL
    event.conn = NULL


cdef void event_forget(event_t *event) noexcept nogil:
    unlist(event)
    let_go(event, 1)


cdef void event_hold(event_t *event) noexcept nogil:
    event.holders += 1


cdef void event_release(event_t *event) noexcept nogil:
    let_go(event, 1)


cdef conn_t *event_conn(const event_t *event) noexcept nogil:
    return ustack_event_conn(event)


# ---------------------------------------------------------------- upcalls

cdef inline void note(const transport_t *transport, application_t *app, event_t *event, uint32_t kind) noexcept nogil:
    cdef events_t *events = <events_t *>app.context
    if event == NULL or not (events.wanted | event.wanted) & kind:
        return
    if event.kinds == 0:
        turn_charge(transport, TOLD_UNITS)
        event_hold(event)                   # the ring is a holder: a connection may be forgotten before it is told
        event.next = NULL
        if events.first == NULL:
            events.first = event
            transport.want_hand_over(transport, app)
        else:
            events.last.next = event
        events.last = event
    event.kinds |= kind


cdef int event_on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef events_t *events = <events_t *>app.context
    cdef event_t *event = <event_t *>conn.user_data         # whoever opened it has made one
    cdef int answer = ACCEPT_TAKEN
    if event == NULL:
        event = event_new(events)
        if event == NULL:
            return ACCEPT_NO_MEMORY
        event_bind(event, transport, conn)
    if events.admit != NULL:
        answer = events.admit(events, transport, conn, event)
    if answer == ACCEPT_REFUSED:
        conn.user_data = 0                                  # on_closed does not come
        event_forget(event)
        return answer
    event.waiting = answer == ACCEPT_WAITING
    note(transport, app, event, EVENT_ACCEPTED)
    return answer


cdef size_t event_on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                          size_t length) noexcept nogil:
    note(transport, app, <event_t *>conn.user_data, EVENT_DATA)
    return 0                                # stays in the receive queue until somebody asks


cdef void event_on_urgent(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    note(transport, app, <event_t *>conn.user_data, EVENT_URGENT)


cdef void event_on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    note(transport, app, <event_t *>conn.user_data, EVENT_WRITABLE)


cdef void event_on_eof(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    note(transport, app, <event_t *>conn.user_data, EVENT_EOF)


cdef void event_on_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    note(transport, app, <event_t *>conn.user_data, EVENT_TIMEOUT)


cdef void event_on_more(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    note(transport, app, <event_t *>conn.user_data, EVENT_MORE)


cdef void event_on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                          close_reason_t reason) noexcept nogil:
    cdef event_t *event = <event_t *>conn.user_data
    if event == NULL:
        return
    event.reason = reason
    if reason == CLOSE_NORMAL and not keep_rest(transport, conn, event):
        event.reason = CLOSE_NO_MEMORY
    if event.waiting:
        event.waiting = False
        transport.taken(transport, conn)
    conn.user_data = 0
    ustack_event_end(event)                 # before the transport gives the record to another connection
    note(transport, app, event, EVENT_CLOSED)


cdef bint keep_rest(const transport_t *transport, conn_t *conn, event_t *event) noexcept nogil:
    cdef uint32_t length = transport.receivable(transport, conn)
    if length == 0:
        return True
    turn_charge(transport, length >> REST_UNIT_BYTES_SHIFT)
    event.rest = <uint8_t *>malloc(length)
    if event.rest == NULL:
        return False
    event.rest_urgent = transport.option(transport, conn, OPTION_URGENT_UNREAD)
    event.rest_bytes = transport.receive(transport, conn, event.rest, length)
    return True


# ---------------------------------------------------------------- hand-over

cdef uint32_t event_on_hand_over(application_t *app, const transport_t *transport) noexcept nogil:
    cdef events_t *events = <events_t *>app.context
    cdef event_t *event = events.first
    cdef uint32_t told = 0
    if event == NULL:
        return 0
    events.first = NULL
    events.last = NULL
    events.hand_overs += 1
    if not PyGILState_Check():
        events.gil_taken += 1
    turn_charge(transport, HAND_OVER_UNITS)
    with gil:
        told = deliver(<EventApplication>events.application, transport, event)
    events.told += told
    return told


cdef uint32_t deliver(EventApplication application, const transport_t *transport, event_t *event) noexcept:
    """Tell every connection's events, from the first of the ring on."""
    cdef event_t *following
    cdef uint32_t kinds, holders, told = 0
    while event != NULL:
        following = event.next              # held by the ring
        kinds = event.kinds
        event.kinds = 0
        holders = 1
        if event.events != NULL:            # not forgotten
            told += bits_of(kinds)
            application.happened(transport, event, kinds)
            if kinds & EVENT_CLOSED:
                unlist(event)
                holders = 2
        let_go(event, holders)
        event = following
    return told


cdef inline uint32_t bits_of(uint32_t kinds) noexcept nogil:
    cdef uint32_t found = 0
    while kinds:
        kinds &= kinds - 1
        found += 1
    return found


cdef class EventApplication(Application):
    """Base class of applications whose work needs Python. See events.pxd."""

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.events.application = <void *>self
        self.events.limit = UINT32_MAX
        self.events.wanted = EVENT_CLOSED
        self.c.context = &self.events
        self.c.on_accept = event_on_accept
        self.c.on_data = event_on_data
        self.c.on_writable = event_on_writable
        self.c.on_eof = event_on_eof
        self.c.on_timeout = event_on_timeout
        self.c.on_closed = event_on_closed
        self.c.on_more = event_on_more
        self.c.on_hand_over = event_on_hand_over
        self.c.on_urgent = event_on_urgent
        self.c.gather = True

    def __dealloc__(self) -> None:
        cdef event_t *event = self.events.first
        cdef event_t *following
        while self.events.newest != NULL:   # of a transport that ended without a word
            event_forget(self.events.newest)
        while event != NULL:
            following = event.next
            event_release(event)
            event = following

    cdef void happened(self, const transport_t *transport, event_t *event, uint32_t kinds) noexcept:
        pass
