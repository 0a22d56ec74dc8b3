# SPDX-License-Identifier: MIT
"""An application in Python: it writes down what each hand-over tells it, and echoes if a test has asked for it.

    recorder = EventRecorder()
    stack.listen(80, application=recorder)
    ...
    assert recorder.names() == [("accepted", "data"), ("eof",), ("closed",)]

Connections are named by the peer's port. Read first: blocking/events.pxd. Above: tests. Below: blocking's events.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from ustack.application cimport ACCEPT_REFUSED, conn_t, transport_t
from ustack.blocking.events cimport (
    EVENT_ACCEPTED, EVENT_CLOSED, EVENT_DATA, EVENT_EOF, EVENT_TIMEOUT, EVENT_URGENT, EVENT_WRITABLE, EventApplication,
    event_new, event_t, events_t)
from ustack.buf.lent cimport lent_from_object, lent_t, lent_unref

from ustack.application import reason_name
from ustack.errors import is_interruption

cdef tuple KINDS = ((EVENT_ACCEPTED, "accepted"), (EVENT_URGENT, "urgent"), (EVENT_DATA, "data"),
                    (EVENT_WRITABLE, "writable"), (EVENT_EOF, "eof"), (EVENT_TIMEOUT, "timeout"),
                    (EVENT_CLOSED, "closed"))


cdef int refuse(events_t *events, const transport_t *transport, conn_t *conn, event_t *event) noexcept nogil:
    return ACCEPT_REFUSED


cdef class EventRecorder(EventApplication):
    """Records what it is handed as tuples in `log`: (number of the hand-over, port, kinds, bytes in the receive queue).

    echo: sends back what has come, and closes after the peer's FIN. shut: sends a FIN when something has come, and
    leaves it unread. timeout_ns: transport.set_timeout for new connections, 0: none. told: called with (port, kinds).
    limit: most records of connections at a time. reasons, rests: of the connections that have ended, and what they
    left unread. reset: aborts when something has come. want_writable: asks
    when there is room, from the beginning. ask_again: asks for another hand-over at each end.
    """

    cdef public list log
    cdef public bint echo
    cdef public bint shut
    cdef public bint reset
    cdef public bint want_writable
    cdef public bint ask_again
    cdef public uint64_t timeout_ns
    cdef public object told
    cdef readonly list reasons
    cdef readonly list rests
    cdef readonly list errors               # what a hand-over raised; tests assert that it is empty

    def __cinit__(self) -> None:
        self.log = []
        self.reasons = []
        self.rests = []
        self.errors = []
        self.events.wanted = (EVENT_ACCEPTED | EVENT_URGENT | EVENT_DATA | EVENT_WRITABLE | EVENT_EOF | EVENT_TIMEOUT
                              | EVENT_CLOSED)

    @property
    def limit(self) -> int:
        """Most records at a time."""
        return self.events.limit

    @limit.setter
    def limit(self, uint32_t records):
        self.events.limit = records

    @property
    def records(self) -> int:
        """Records of connections in use."""
        return self.events.records

    @property
    def hand_overs(self) -> int:
        """How often there was something to tell."""
        return self.events.hand_overs

    @property
    def gil_taken(self) -> int:
        """Hand-overs that took the GIL: those in the middle of a turn."""
        return self.events.gil_taken

    @property
    def events_told(self) -> int:
        """Events of all hand-overs."""
        return self.events.told

    def names(self, port: int | None = None) -> list[tuple[str, ...]]:
        """The kinds of each entry of the log, of one port or of all."""
        return [entry[2] for entry in self.log if port is None or entry[1] == port]

    def refuse_one_that_has_timed_out(self) -> int:
        """A connection whose timeout is noted is refused before that is told; what on_accept has answered."""
        cdef conn_t conn
        cdef event_t *event = event_new(&self.events)
        cdef int answer
        if event == NULL:
            raise MemoryError
        event.conn = &conn
        conn.user_data = <uint64_t>event
        self.events.admit = refuse
        self.c.on_timeout(&self.c, self.transport, &conn)
        answer = self.c.on_accept(&self.c, self.transport, &conn)
        self.events.admit = NULL
        return answer

    cdef void happened(self, const transport_t *transport, event_t *event, uint32_t kinds) noexcept:
        try:
            self.record(transport, event, kinds)
        except BaseException as error:
            if is_interruption(error):
                self.park(error)
            else:
                self.errors.append(error)

    cdef int record(self, const transport_t *transport, event_t *event, uint32_t kinds) except -1:
        names = tuple([name for kind, name in KINDS if kinds & <uint32_t>kind])
        port = event.ends.rport
        waiting = transport.receivable(transport, event.conn) if event.conn != NULL else 0
        self.log.append((self.events.hand_overs, port, names, waiting))
        if kinds & EVENT_CLOSED:
            self.reasons.append(reason_name(event.reason))
            self.rests.append(event.rest[:event.rest_bytes] if event.rest != NULL else b"")
            if self.ask_again:
                transport.want_hand_over(transport, &self.c)
        else:
            self.act(transport, event, kinds)
        if self.told is not None:
            self.told(port, names)
        return 0

    cdef int act(self, const transport_t *transport, event_t *event, uint32_t kinds) except -1:
        if kinds & EVENT_ACCEPTED and self.timeout_ns:
            transport.set_timeout(transport, event.conn, self.timeout_ns)
        if kinds & EVENT_ACCEPTED and self.want_writable:
            transport.want_writable(transport, event.conn)
        if kinds & EVENT_DATA and self.shut:
            transport.shutdown(transport, event.conn)
        if kinds & EVENT_DATA and self.reset:
            transport.abort(transport, event.conn)
        if self.echo:
            self.send_back(transport, event, kinds)
        return 0

    cdef int send_back(self, const transport_t *transport, event_t *event, uint32_t kinds) except -1:
        cdef uint32_t length = transport.receivable(transport, event.conn)
        cdef bytes data
        cdef lent_t *lent
        cdef int64_t accepted
        if length > 0:
            data = PyBytes_FromStringAndSize(NULL, length)
            transport.receive(transport, event.conn, <uint8_t *>PyBytes_AS_STRING(data), length)
            lent = lent_from_object(data)
            accepted = transport.send(transport, event.conn, lent, 0, length)
            lent_unref(lent)
            if accepted != length:
                raise AssertionError(f"{accepted} of {length} bytes were taken")
        if kinds & EVENT_EOF:
            transport.close(transport, event.conn)
        return 0
