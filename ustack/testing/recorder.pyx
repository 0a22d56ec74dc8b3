# SPDX-License-Identifier: MIT
"""An application that writes every upcall down, and does inside it what a test has asked for.

    recorder = Recorder()
    recorder.on("data", "close")            # close in every on_data
    stack.listen(80, application=recorder)
    ...
    assert recorder.names() == ["accept", "data", "closed"]

Connections are named by the peer's port. What act() does between two polls leaves work behind, as any application's
calls do. Read first: application.pxd. Above: tests. Below: application.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_TAKEN, ACCEPT_WAITING, CALL_OK, CALL_UNSUPPORTED, CONN_ACTIVE, OPTION_LOW_WATER,
    OPTION_UNSENT_LOW_WATER, OPTION_URGENT, OPTION_URGENT_UNREAD, Application, application_t, close_reason_t, conn_t,
    transport_t, turn_charge, turn_spent)
from ustack.base.address cimport ip_addr_from_text
from ustack.base.bytestring cimport bytes_from
from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_from_object, lent_t, lent_unfilled, lent_unref

from ustack.application import reason_name
from ustack.errors import is_interruption


cdef class Recorder(Application):
    """Records upcalls as tuples in `log`: ("accept", port), ("data", port, bytes offered), ("writable", port),
    ("eof", port), ("timeout", port), ("urgent", port, bytes still to be read), ("closed", port, reason),
    ("burst_begin", now_ns), ("burst_end", now_ns), ("file_read", descriptor, bytes or a negative errno).

    consume: most bytes that one on_data uses; None: all that is offered. charge: units of the turn that each byte
    costs; with it on_data stops when its share is spent and asks for the rest in the next turn. received: bytes used,
    by port.
    """

    cdef readonly list log
    cdef readonly dict received
    cdef public object consume
    cdef public uint32_t charge
    cdef readonly list errors               # what an upcall raised; tests assert that it is empty
    cdef dict actions                       # event name -> list of actions
    cdef dict live                          # port -> address of the conn_t

    def __cinit__(self) -> None:
        self.log = []
        self.received = {}
        self.errors = []
        self.actions = {}
        self.live = {}
        self.c.context = <void *>self
        self.c.on_accept = recorder_on_accept
        self.c.on_data = recorder_on_data
        self.c.on_writable = recorder_on_writable
        self.c.on_eof = recorder_on_eof
        self.c.on_timeout = recorder_on_timeout
        self.c.on_closed = recorder_on_closed
        self.c.on_burst_begin = recorder_on_burst_begin
        self.c.on_burst_end = recorder_on_burst_end
        self.c.on_file_read = recorder_on_file_read
        self.c.on_urgent = recorder_on_urgent

    def on(self, str event not None, *actions) -> None:
        """Do these in every upcall of that name: "refuse" and "wait" (accept only), "close", "abort", "shutdown",
        "resume", "take", "want_writable", "urgent" (what is queued is), ("send", bytes), ("timeout", ns), ("low_water",
        bytes), ("unsent_low_water", bytes), ("option", (number, value)), a callable (port). None: nothing."""
        self.actions[event] = list(actions)

    def names(self, port: int | None = None) -> list[str]:
        """Names of the upcalls for connections (of one port, or of all), in order."""
        return [entry[0] for entry in self.log
                if not entry[0].startswith("burst") and (port is None or entry[1] == port)]

    def clear(self) -> None:
        """Forget what was recorded."""
        self.log.clear()

    @property
    def attached(self) -> bool:
        """Whether anything here still points at a transport."""
        return self.transport != NULL or self.come_up != NULL

    @property
    def ports(self) -> list[int]:
        """Peers' ports of the connections that have not been told closed."""
        return sorted(self.live)

    cdef int peer_port(self, const conn_t *conn) noexcept:
        return self.transport.endpoints(self.transport, conn).rport

    cdef conn_t *conn(self, int port) except NULL:
        if port not in self.live:
            raise KeyError(f"no connection to port {port}")
        return <conn_t *><size_t>self.live[port]

    def act(self, int port, object action) -> int:
        """Do one action (see on) between two polls; what the call returned."""
        return self.do(self.conn(port), action)

    def queued(self, int port) -> int:
        """Bytes sent and not acknowledged."""
        return self.transport.send_queued(self.transport, self.conn(port))

    def unsent(self, int port) -> int:
        """Bytes queued and never sent."""
        return self.transport.info(self.transport, self.conn(port))["snd_unsent_bytes"]

    def room(self, int port) -> int:
        """Bytes that send would accept."""
        return self.transport.send_room(self.transport, self.conn(port))

    def marks(self, int port) -> tuple[int, int]:
        """The low-water marks: of queued bytes, of unsent ones."""
        cdef conn_t *conn = self.conn(port)
        return (self.transport.option(self.transport, conn, OPTION_LOW_WATER),
                self.transport.option(self.transport, conn, OPTION_UNSENT_LOW_WATER))

    def option(self, int port, int number) -> int:
        """The value of an option (conn_option_t) by its number."""
        return self.transport.option(self.transport, self.conn(port), number)

    def receivable(self, int port) -> int:
        """Bytes that wait in the receive queue."""
        return self.transport.receivable(self.transport, self.conn(port))

    def read(self, int port, size_t length) -> bytes:
        """Copy bytes out of the receive queue."""
        cdef bytearray room = bytearray(length)
        cdef uint8_t[::1] out = room
        return bytes(room[:self.transport.receive(self.transport, self.conn(port), &out[0], length)])

    def peek(self, int port, uint32_t skip=0) -> bytes:
        """The bytes behind the first `skip` of the receive queue that lie in one piece; they stay there."""
        cdef uint32_t length = 0
        cdef const uint8_t *found = self.transport.peek(self.transport, self.conn(port), skip, &length)
        return b"" if found == NULL else found[:length]

    def read_file(self, int descriptor, uint64_t length) -> int:
        """Have the transport read the first bytes of a file; what the call returned (call_status_t). The descriptor is
        the caller's again with "file_read"."""
        cdef lent_t *into
        cdef int status = CALL_UNSUPPORTED
        if self.transport.files != NULL and self.transport.files.read != NULL:
            into = lent_unfilled(length)
            if into == NULL:
                raise MemoryError
            status = self.transport.files.read(self.transport, &self.c, descriptor, into, 0, length, 0, 0)
            if status != CALL_OK:
                lent_unref(into)
        return status

    def listen(self, uint16_t port) -> int:
        """Listen on a port; what the call returned (call_status_t)."""
        return self.transport.listen(self.transport, NULL, port, &self.c, 16)

    def connect(self, str address not None, uint16_t port) -> None:
        """Open a connection to there. Actions may be done on it at once, before its on_accept ("connected")."""
        cdef ip_addr_t remote
        cdef int status = CALL_OK
        cdef conn_t *conn
        ip_addr_from_text(address, &remote)
        conn = self.transport.connect(self.transport, &remote, port, 0, &self.c, &status)
        if conn == NULL:
            raise OSError(status, f"connect() to {address}:{port} is refused")
        self.live[port] = <size_t>conn

    cdef int64_t do(self, conn_t *conn, object action) except? -99:
        cdef lent_t *lent
        cdef int64_t result = 0
        name, argument = action if isinstance(action, tuple) else (action, None)
        if callable(name):
            name(self.peer_port(conn))
        elif name == "close":
            self.transport.close(self.transport, conn)
        elif name == "abort":
            self.transport.abort(self.transport, conn)
        elif name == "shutdown":
            self.transport.shutdown(self.transport, conn)
        elif name == "resume":
            self.transport.resume(self.transport, conn)
        elif name == "take":
            self.transport.taken(self.transport, conn)
        elif name == "want_writable":
            self.transport.want_writable(self.transport, conn)
        elif name == "low_water":
            result = self.transport.set_option(self.transport, conn, OPTION_LOW_WATER, argument)
        elif name == "unsent_low_water":
            result = self.transport.set_option(self.transport, conn, OPTION_UNSENT_LOW_WATER, argument)
        elif name == "option":
            result = self.transport.set_option(self.transport, conn, <int>argument[0], <uint32_t>argument[1])
        elif name == "timeout":
            self.transport.set_timeout(self.transport, conn, <uint64_t>argument)
        elif name == "urgent":
            result = self.transport.set_option(self.transport, conn, OPTION_URGENT, 1)
        elif name == "send":
            lent = lent_from_object(argument)
            result = self.transport.send(self.transport, conn, lent, 0, lent.length)
            lent_unref(lent)
        elif name not in ("refuse", "wait"):
            raise ValueError(f"no such action: {name}")
        return result

    cdef void record(self, str event, const transport_t *transport, conn_t *conn, object detail) noexcept:
        """Write it down, then do what was asked for. What goes wrong is kept in `errors`."""
        port = self.peer_port(conn)
        try:
            self.log.append((event, port) if detail is None else (event, port, detail))
            for action in self.actions.get(event, ()):
                self.do(conn, action)
        except BaseException as error:
            if is_interruption(error):
                self.park(error)
            else:
                self.errors.append(error)


cdef inline Recorder recorder_of(const application_t *app):
    return <Recorder>app.context


cdef int recorder_on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    with gil:
        return accept_with_gil(recorder_of(app), transport, conn)


cdef int accept_with_gil(Recorder recorder, const transport_t *transport, conn_t *conn) noexcept:
    wanted = recorder.actions.get("accept", ())
    if "refuse" not in wanted:
        recorder.live[recorder.peer_port(conn)] = <size_t>conn
    recorder.record("connected" if transport.status(transport, conn) & CONN_ACTIVE else "accept", transport, conn, None)
    if "refuse" in wanted:
        return ACCEPT_REFUSED
    return ACCEPT_WAITING if "wait" in wanted else ACCEPT_TAKEN


cdef size_t recorder_on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                             size_t length) noexcept nogil:
    with gil:
        return data_with_gil(recorder_of(app), transport, conn, data, length)


cdef size_t data_with_gil(Recorder recorder, const transport_t *transport, conn_t *conn, const uint8_t *data,
                          size_t length) noexcept:
    cdef size_t used = length
    cdef bytes octets = bytes_from(data, length)
    if recorder.consume is not None and recorder.consume < length:
        used = recorder.consume
    if recorder.charge:
        used = afford(transport, conn, recorder.charge, used)
    port = recorder.peer_port(conn)
    recorder.received[port] = recorder.received.get(port, b"") + octets[:used]
    recorder.record("data", transport, conn, octets)
    return used


cdef size_t afford(const transport_t *transport, conn_t *conn, uint32_t units, size_t wanted) noexcept:
    """How many of the wanted bytes, at so many units each, this turn can pay for."""
    cdef size_t used = 0
    while used < wanted:
        if turn_spent(transport):
            transport.resume(transport, conn)
            break
        used += 1
        turn_charge(transport, units)
    return used


cdef void recorder_on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    with gil:
        recorder_of(app).record("writable", transport, conn, None)


cdef void recorder_on_eof(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    with gil:
        recorder_of(app).record("eof", transport, conn, None)


cdef void recorder_on_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    with gil:
        recorder_of(app).record("timeout", transport, conn, None)


cdef void recorder_on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                             close_reason_t reason) noexcept nogil:
    with gil:
        recorder = recorder_of(app)
        recorder.record("closed", transport, conn, reason_name(reason))
        recorder.live.pop(recorder.peer_port(conn), None)


cdef void recorder_on_file_read(application_t *app, const transport_t *transport, uint32_t token, int fd, lent_t *into,
                                int64_t taken) noexcept nogil:
    with gil:
        recorder_of(app).log.append(("file_read", fd, bytes_from(into.data, <size_t>taken) if taken >= 0 else taken))
        lent_unref(into)


cdef void recorder_on_urgent(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    with gil:
        recorder_of(app).record("urgent", transport, conn, transport.option(transport, conn, OPTION_URGENT_UNREAD))


cdef void recorder_on_burst_begin(application_t *app, uint64_t now_ns) noexcept nogil:
    with gil:
        recorder_of(app).log.append(("burst_begin", now_ns))


cdef void recorder_on_burst_end(application_t *app, uint64_t now_ns) noexcept nogil:
    with gil:
        recorder_of(app).log.append(("burst_end", now_ns))
