# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Blocking sockets: listeners and connections of a Stack, in the caller's thread.

A blocking call drives the engine until it can return; with a manual clock it does what it can at once. Upcalls note
events in C; Python gets those of a turn at once, between receiving and output (events). It must not: know the protocol,
nor what carries its bytes. Above: stack. Below: events, application.

A Connection has a socket's methods under a socket's names (recv, sendall, makefile, settimeout, ...), so that code
written for sockets takes it: http.client works on one. It has no descriptor: fileno() says so.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_TAKEN, ACCEPT_WAITING, CALL_BAD_ADDRESS, CALL_IN_USE, CALL_NO_MEMORY, CALL_NO_PORT,
    CALL_NO_ROUTE, CALL_OK, CALL_STATE, CALL_UNSUPPORTED, CLOSE_ABORTED, CLOSE_NORMAL, CLOSE_NO_MEMORY, CONN_ABORTED,
    CONN_ACTIVE, CONN_EOF, OPTION_CC, OPTION_KEEPALIVE, OPTION_LOW_WATER, OPTION_NODELAY, OPTION_TOS, OPTION_TTL,
    OPTION_UNSENT_LOW_WATER, OPTION_USER_TIMEOUT_S)
from ustack.base.address cimport ip_addr_from_text, ip_addr_text
from ustack.base.arguments cimport timeout_ns, whole
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.types cimport ip_addr_t
from ustack.blocking.events cimport (
    EVENT_ACCEPTED, EVENT_CLOSED, EventApplication, event_conn, event_hold, event_release, event_t, events_t)
from ustack.buf.lent cimport lent_from_object, lent_release_pending, lent_t, lent_unref
from ustack.link.gate cimport warn_unclosed

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

from collections import OrderedDict
import errno
import io

from ustack.application import reason_name
from ustack.blocking.streams import open_stream
from ustack.errors import AddressInUse, SendAfterEnd, StackError, Unreachable, WouldBlock, error_of


cdef object error_of_status(int status, str what):
    if status == CALL_IN_USE:
        return AddressInUse("in_use", f"{what}: the address is in use", errno.EADDRINUSE)
    if status == CALL_NO_MEMORY:
        return StackError("no_memory", f"{what}: a limit of the stack was reached", errno.ENOBUFS)
    if status == CALL_BAD_ADDRESS:
        return StackError("bad_address", f"{what}: not an address that this stack can use there", errno.EADDRNOTAVAIL)
    if status == CALL_NO_ROUTE:
        return Unreachable("no_route", f"{what}: no route to that address", errno.ENETUNREACH)
    if status == CALL_NO_PORT:
        return StackError("no_port", f"{what}: no port is free", errno.EADDRNOTAVAIL)
    if status == CALL_UNSUPPORTED:
        return StackError("unsupported", f"{what}: this transport has no such option", errno.EOPNOTSUPP)
    return SendAfterEnd("state", f"{what}: the connection is closing or closed", errno.EPIPE)


# ---------------------------------------------------------------- events

cdef class SocketApplication(EventApplication):
    """The events of all blocking sockets of one stack."""

    def __cinit__(self, Transport stack) -> None:
        self.stack = stack
        self.backlogs = set()
        self.closing = set()
        self.events.wanted = EVENT_ACCEPTED | EVENT_CLOSED      # blocking calls look at the rest themselves
        self.events.admit = socket_admit
        self.events.listeners = &self.listening

    cdef void listen(self, Backlog backlog, const ip_addr_t *address, uint16_t port) except *:
        self.backlogs.add(backlog)
        backlog.c.any_address = address == NULL
        if address != NULL:
            backlog.c.address = address[0]
        backlog.c.port = port
        backlog.c.backlog = <void *>backlog
        backlog.c.next = self.listening
        self.listening = &backlog.c

    cdef void unlisten(self, Backlog backlog) noexcept:
        cdef listening_t **at = &self.listening
        while at[0] != NULL and at[0] != &backlog.c:
            at = &at[0].next
        if at[0] != NULL:
            at[0] = backlog.c.next
        self.backlogs.discard(backlog)

    cdef void happened(self, const transport_t *transport, event_t *event, uint32_t kinds) noexcept:
        """No bytecode runs here: a signal handler could raise in the middle of it."""
        cdef Connection connection          # holds it: its end may be the end of its last other reference
        cdef bint kept = False
        if kinds & EVENT_ACCEPTED:
            if event.object != NULL:
                connection = <Connection>event.object
                connection.established = True
            elif event.listener != NULL:
                if event.conn == NULL:              # it ended in the same turn: nobody has to see it
                    (<Backlog>event.listener).lost += 1
                else:
                    let_wait(self, event, &kept)
                    if not kept:
                        refuse(transport, event)
        if kinds & EVENT_CLOSED and event.object != NULL:
            connection = <Connection>event.object
            connection.unbind(event)


cdef int socket_admit(events_t *events, const transport_t *transport, conn_t *conn, event_t *event) noexcept nogil:
    """Whose listener is it? That of its own address comes before that of any."""
    cdef listening_t *found = NULL
    cdef listening_t *each
    cdef const endpoints_t *ends
    if transport.status(transport, conn) & CONN_ACTIVE:
        return ACCEPT_TAKEN if event.object != NULL else ACCEPT_REFUSED
    ends = transport.endpoints(transport, conn)
    each = (<listening_t **>events.listeners)[0]
    while each != NULL:
        if each.port == ends.lport:
            if each.any_address:
                if found == NULL:
                    found = each
            elif memcmp(&each.address, &ends.laddr, sizeof(ip_addr_t)) == 0:
                found = each
                break
        each = each.next
    if found == NULL:
        return ACCEPT_REFUSED
    event.listener = found.backlog
    return ACCEPT_WAITING


cdef void let_wait(SocketApplication application, event_t *event, bint *kept) noexcept:
    """A Connection for the backlog. Without memory *kept stays what it is. (No `except` here or below: where there is
    no memory for a traceback either, Cython's would release NULL.)"""
    cdef Backlog backlog = <Backlog>event.listener
    cdef Connection connection = Connection.__new__(Connection)
    connection.backlog = backlog
    connection.bind(application, event)
    connection.established = True
    backlog.waiting[connection] = None
    kept[0] = True


cdef void refuse(const transport_t *transport, event_t *event) noexcept nogil:
    """There is no Connection for it: it is reset, and waits for nobody."""
    if event.waiting:
        event.waiting = False
        transport.taken(transport, event.conn)
    transport.abort(transport, event.conn)


# ---------------------------------------------------------------- Listener

cdef class Backlog:
    """What a Listener and the upcalls share."""

    def __cinit__(self) -> None:
        self.waiting = OrderedDict()


cdef class Listener:
    """A port in LISTEN. Made by Stack.listen().

    Dropped without close() it stops listening, with a ResourceWarning; one whose connections an Application takes goes
    on: nobody needs the object.
    """

    def __init__(self):
        raise TypeError("use Stack.listen()")

    cdef void bind(self, Transport stack, SocketApplication sockets, uint16_t port, object address) except *:
        self.stack = stack
        self.sockets = sockets
        self.port = port
        self.address = address
        if sockets is not None:
            self.backlog = Backlog()
        self.open = True

    @property
    def pending(self) -> int:
        """Connections that wait for accept(): all of them are open."""
        return 0 if self.backlog is None else len(self.backlog.waiting)

    @property
    def lost(self) -> int:
        """Connections that ended before accept() took them.

        They are not handed out. Their data went with them (RFC 9293 section 3.10.7.4: a RST flushes all queues), so
        accept() would give a connection that can only fail, and a client that resets in a loop would fill the backlog
        with them; Linux hands them out.
        """
        return 0 if self.backlog is None else self.backlog.lost

    def accept(self, timeout: float | None = None) -> Connection:
        """The next connection.

        timeout: seconds; None: wait for ever; 0: BlockingIOError if there is none now. Raises TimeoutError after it,
        ValueError when the listener or the stack is closed.
        """
        cdef Connection connection
        if not self.open:
            raise ValueError("accept(): the listener is closed")
        what = f"accept() on port {self.port}: no connection came"
        self.stack.enter("accept()")
        try:
            if self.backlog is None:
                raise WouldBlock("would_block", f"accept() on port {self.port}: its application takes the connections",
                                 errno.EAGAIN)
            if not self.backlog.waiting:
                if timeout is not None and timeout == 0:
                    self.stack.push()
                    if not self.stack.manual_clock:
                        self.stack.turn(clock_monotonic_ns())
                    if not self.backlog.waiting:
                        raise WouldBlock("would_block", what, errno.EAGAIN)
                else:
                    self.stack.wait_until(lambda: self.backlog.waiting or not self.open, timeout, what)
                    if not self.open:
                        raise ValueError("accept(): the listener is closed")
            connection, _ = self.backlog.waiting.popitem(False)
            connection.take()
            return connection
        finally:
            self.stack.leave()

    def close(self) -> None:
        """Stop listening; connections that nobody has accepted are reset. Idempotent."""
        if not self.open:
            return
        if not self.stack.alive:
            self.open = False
            return
        self.stack.enter("Listener.close()")
        try:
            self.end()
            self.stack.push()
        finally:
            self.stack.leave()

    cdef void end(self) except *:
        cdef ip_addr_t local
        cdef Connection connection
        if not self.open or not self.stack.alive:
            return
        self.open = False
        if self.address is not None:
            ip_addr_from_text(self.address, &local)
        self.stack.table.unlisten(self.stack.table, &local if self.address is not None else NULL, self.port)
        if self.sockets is not None:
            self.sockets.unlisten(self.backlog)
            self.stack.now()
            for connection in list(self.backlog.waiting):
                connection.backlog = None   # the count went with the listener; another may listen there already
                connection.event.waiting = False
                if connection.conn != NULL:
                    self.sockets.closing.add(connection)
                    connection.closed = True
                    self.stack.table.abort(self.stack.table, connection.conn)
            self.backlog.waiting.clear()

    def __del__(self) -> None:
        if self.open and self.backlog is not None and self.stack is not None and self.stack.alive:
            warn_unclosed(self)
            self.stack.gate.defer(self._end_dropped)

    def _end_dropped(self) -> None:
        self.end()
        self.stack.push_with_gil()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.stack is None:
            return "<Listener that nobody made>"
        state = "LISTEN" if self.open and self.stack.alive else "closed"
        return f"<Listener {self.address or '*'}:{self.port} {state}, {self.pending} waiting>"


# ---------------------------------------------------------------- Connection

cdef class Connection:
    """One TCP connection. Made by Listener.accept() and Stack.connect().

    Its methods are those of a socket, in a socket's words (recv, sendall) or the stack's (receive, send). Every
    exception is an OSError with a socket's errno, and has the stack's `reason`. Dropped without close() it is closed,
    with a ResourceWarning.
    """

    def __cinit__(self) -> None:
        self.end = CLOSE_ABORTED            # until it is bound to a conn_t, which the stack alone does
        self.rest = b""

    def __init__(self):
        raise TypeError("use Stack.connect() or Listener.accept()")

    cdef void bind(self, SocketApplication sockets, event_t *event) except *:
        """event.object points here; while nobody else keeps us alive, __del__ has the connection closed."""
        self.sockets = sockets
        self.stack = sockets.stack
        self.transport = self.stack.table
        self.conn = event.conn
        self.key = event.ends
        self.event = event
        event_hold(event)
        event.object = <void *>self

    cdef void unbind(self, event_t *event) noexcept:
        """The connection has ended: what its record holds for us is kept."""
        self.end = CLOSE_NO_MEMORY          # unless the rest is kept
        self.keep_rest(event)
        if self.backlog is not None:
            self.backlog.lost += 1
            self.leave_backlog()
            self.backlog = None
        self.conn = NULL
        self.sockets.closing.discard(self)

    cdef void keep_rest(self, event_t *event) noexcept:
        if event.rest != NULL:
            self.rest = PyBytes_FromStringAndSize(<const char *>event.rest, <Py_ssize_t>event.rest_bytes)
        self.end = event.reason

    cdef void leave_backlog(self) noexcept:
        self.backlog.waiting.pop(self, None)

    cdef void take(self) noexcept:
        """It waits for accept() no longer."""
        if self.backlog is not None:
            self.backlog = None
            if self.conn != NULL and self.event.waiting:
                self.event.waiting = False
                self.transport.taken(self.transport, self.conn)

    def __del__(self) -> None:
        if self.conn != NULL and not self.closed and self.backlog is None:
            warn_unclosed(self)
            self.stack.gate.defer(self._finish_dropped)     # which keeps us alive until then

    def __dealloc__(self) -> None:
        if self.event != NULL:
            self.event.object = NULL        # its end may be told later (__del__ could not, for want of memory)
            event_release(self.event)

    def _finish_dropped(self) -> None:
        if self.conn != NULL and self.stack.alive:
            self.finish()
            self.stack.push_with_gil()

    cdef Transport enter(self, str call):
        """The stack, entered."""
        if self.stack is None:
            raise error_of("aborted", call)
        if not self.stack.alive and self.conn == NULL:
            self.stack.gate.enter(call)     # what was received before the end can still be read
        else:
            self.stack.enter(call)
        return self.stack

    cdef object patience(self, object timeout):
        return self.timeout if timeout is None else timeout

    cdef str where(self):
        return f"{ip_addr_text(&self.key.raddr)}:{self.key.rport}"

    cdef object failure(self):
        return error_of(self.reason, self.where())

    # ------------------------------------------------------------ receiving

    cdef bint readable(self) except -1:
        return (self.conn == NULL or self.transport.receivable(self.transport, self.conn) > 0
                or self.transport.status(self.transport, self.conn) & CONN_EOF != 0)

    cdef bint wait_readable(self, object timeout) except -1:
        """Whether there is something, or nothing more will come: then False. Raises the connection's end."""
        timeout = self.patience(timeout)
        if not self.readable():
            what = f"receive() from {self.where()}: nothing came"
            if timeout is not None and timeout == 0:
                raise WouldBlock("would_block", what, errno.EAGAIN)
            self.stack.wait_until(lambda: self.readable(), timeout, what)
        if self.conn != NULL:
            if self.transport.receivable(self.transport, self.conn) > 0:
                return True
            if self.transport.status(self.transport, self.conn) & CONN_ABORTED:
                # What was unread is gone: this is no end of the stream.
                raise error_of(reason_name(self.transport.reason(self.transport, self.conn)), self.where())
            return False
        if self.rest:
            return True
        if self.end == CLOSE_NORMAL:
            return False
        raise self.failure()

    def receive(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        """Up to `max_bytes` bytes, at least one; b"" when the peer has closed its side.

        timeout: seconds; None: that of settimeout(), for ever at first; 0: BlockingIOError if there is nothing now.
        Raises the connection's end (ConnectionReset, ConnectionTimeout, ...) unless it was a normal one.
        """
        cdef size_t length, wanted = whole("max_bytes", max_bytes, 1, PY_SSIZE_T_MAX)
        cdef Transport stack = self.enter("receive()")
        try:
            if not self.wait_readable(timeout):
                return b""
            if self.conn == NULL:
                out, self.rest = self.rest[:wanted], self.rest[wanted:]
                return out
            length = self.transport.receivable(self.transport, self.conn)
            stack.now()
            out = take_bytes(self.transport, self.conn, length if length < wanted else wanted)
            stack.push()                    # the window may be worth an announcement
            return out
        finally:
            stack.leave()

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """receive() as a socket has it: at most bufsize bytes, b"" at the end. flags: 0, there are no others."""
        no_flags("recv()", flags)
        return b"" if whole("bufsize", bufsize, 0, PY_SSIZE_T_MAX) == 0 else self.receive(bufsize)

    def recv_into(self, buffer: object, nbytes: int = 0, flags: int = 0) -> int:
        """Receive straight into a writable buffer: at most nbytes (0: its size). The number of bytes, 0 at the end."""
        cdef Py_buffer view
        cdef Transport stack
        cdef size_t room, length
        no_flags("recv_into()", flags)
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)   # may run the exporter's code: before we enter
        try:
            room = <size_t>view.len
            if nbytes != 0:
                room = whole("nbytes", nbytes, 0, view.len)
            if room == 0:
                return 0
            stack = self.enter("recv_into()")
            try:
                if not self.wait_readable(None):
                    return 0
                if self.conn == NULL:
                    length = min(room, <size_t>len(self.rest))
                    memcpy(view.buf, PyBytes_AS_STRING(self.rest), length)
                    self.rest = self.rest[length:]
                    return length
                stack.now()
                length = self.transport.receive(self.transport, self.conn, <uint8_t *>view.buf, room)
                stack.push()
                return length
            finally:
                stack.leave()
        finally:
            PyBuffer_Release(&view)

    # ------------------------------------------------------------ sending

    def send(self, data: object, timeout: float | None = None) -> int:
        """Lend `data` (any contiguous buffer; do not change it until it is acknowledged) to the send queue.

        Returns its length when all of it is queued, which waits for room if the queue is full; with a manual clock, or
        timeout 0, what was accepted at once. timeout: seconds; None: that of settimeout(). After a TimeoutError a part
        may have been queued. Raises the connection's end, or BrokenPipeError after shutdown() or close().
        """
        cdef lent_t *lent
        cdef uint64_t total, sent = 0
        cdef int64_t accepted
        cdef Transport stack
        if self.conn == NULL:
            self.need_conn("send()")
        lent = lent_from_object(data)       # may run the exporter's code: before we enter
        try:
            stack = self.enter("send()")
        except BaseException:
            lent_unref(lent)
            lent_release_pending()
            raise
        try:
            self.need_conn("send()")
            timeout = self.patience(timeout)
            total = lent.length
            while True:
                stack.now()
                accepted = self.transport.send(self.transport, self.conn, lent, sent, total - sent)
                if accepted < 0:
                    raise error_of_status(<int>accepted, f"send() to {self.where()}")
                sent += <uint64_t>accepted
                stack.push()
                if sent == total or stack.manual_clock or (timeout is not None and timeout == 0):
                    return sent
                stack.wait_until(lambda: self.has_room(), timeout,
                                 f"send() to {self.where()}: {sent} of {total} bytes queued, the peer took no more")
                self.need_conn("send()")
        finally:
            lent_unref(lent)
            stack.leave()

    def sendall(self, data: object, flags: int = 0) -> None:
        """Queue all of `data` as send() does, within the time of settimeout().

        Raises BlockingIOError with `characters_written` if it may not wait and not all of it has room.
        """
        no_flags("sendall()", flags)
        cdef uint64_t total = memoryview(data).nbytes
        cdef uint64_t sent = self.send(data)
        if sent < total:
            error = WouldBlock("would_block", f"sendall() to {self.where()}: {sent} of {total} bytes queued",
                               errno.EAGAIN)
            error.characters_written = sent
            raise error

    cdef bint has_room(self) except -1:
        if self.conn == NULL:
            return True
        cdef uint32_t room = self.transport.send_room(self.transport, self.conn)    # 0 above the mark of unsent bytes
        cdef uint32_t queued = self.transport.send_queued(self.transport, self.conn)
        # Half of the queue, so that a long path never runs dry while Python wakes; or the mark, if that is more.
        return room > queued or (
            room > 0 and queued <= self.transport.option(self.transport, self.conn, OPTION_LOW_WATER))

    cdef int need_conn(self, str call) except -1:
        if self.conn != NULL:
            return 0
        if self.end == CLOSE_NORMAL:
            raise SendAfterEnd("state", f"{call}: the connection with {self.where()} is closed", errno.EPIPE)
        raise self.failure()

    # ------------------------------------------------------------ the end

    def shutdown(self, how: int = 1) -> None:
        """No more data from us: a FIN follows what is queued. Receiving goes on (half-close).

        how: socket.SHUT_WR (1) or SHUT_RDWR (2), which is the same here: TCP has no way to refuse data but a reset.
        SHUT_RD (0) does nothing.
        """
        cdef Transport stack
        if whole("how", how, 0, 2) == 0:
            return
        stack = self.enter("shutdown()")
        try:
            self.need_conn("shutdown()")
            stack.now()
            self.transport.shutdown(self.transport, self.conn)
            stack.push()
        finally:
            stack.leave()

    def close(self) -> None:
        """Done with both directions. What is queued is still delivered; unread data makes it a reset (SHLD-3).

        Files of makefile() that are open keep the connection open until the last of them is closed. Idempotent.
        """
        if self.conn == NULL:
            self.closed = True
            return
        cdef Transport stack = self.enter("close()")
        try:
            if self.files > 0:
                self.close_later = True
            elif self.conn != NULL:
                self.rest = b""
                self.finish()
                stack.push()
        finally:
            stack.leave()

    cdef int finish(self) except -1:
        """close() inside the gate; the caller pushes."""
        self.sockets.closing.add(self)
        self.closed = True
        self.stack.now()
        self.transport.close(self.transport, self.conn)
        return 0

    cdef int give_up(self) except -1:
        """abort() inside the gate."""
        if self.conn != NULL and self.stack.alive:
            self.sockets.closing.add(self)
            self.closed = True
            self.stack.now()
            self.transport.abort(self.transport, self.conn)
            self.stack.push()
        return 0

    def abort(self) -> None:
        """Reset the connection now. Idempotent."""
        if self.conn == NULL:
            return
        cdef Transport stack = self.enter("abort()")
        try:
            self.give_up()
        finally:
            stack.leave()

    def detach(self) -> int:
        """Raise io.UnsupportedOperation: there is no descriptor to detach."""
        return self.fileno()

    # ------------------------------------------------------------ as sockets have it

    def fileno(self) -> int:
        """Raise io.UnsupportedOperation: a connection inside this process has no descriptor.

        To wait in an event loop, wait for Link.fileno() until Stack.next_deadline_ns, and poll() the stack.
        """
        raise io.UnsupportedOperation(
            "fileno(): a connection of this stack lives in the process and has no descriptor; wait for Link.fileno() "
            "and call Stack.poll()")

    def makefile(self, mode: str = "r", buffering: int | None = None, *, encoding: str | None = None,
                 errors: str | None = None, newline: str | None = None) -> object:
        """A file object on the connection, with socket.makefile()'s arguments. close() waits for it (see there)."""
        if self.closed or self.close_later:
            raise SendAfterEnd("state", f"makefile(): the connection with {self.where()} is closed", errno.EBADF)
        file = open_stream(self, mode, buffering, encoding, errors, newline)
        return file

    def _file_opened(self) -> None:
        self.files += 1

    def _file_closed(self) -> None:
        if self.files > 0:
            self.files -= 1
        if self.files == 0 and self.close_later:
            self.close_later = False
            self.close()

    def settimeout(self, timeout: float | None) -> None:
        """Seconds that receive(), send() and their like wait when they are not told otherwise. None: for ever.

        0: BlockingIOError instead of waiting.
        """
        timeout_ns(timeout)
        self.timeout = None if timeout is None else float(timeout)

    def gettimeout(self) -> float | None:
        """What settimeout() has set; None at first."""
        return self.timeout

    def setblocking(self, flag: bool) -> None:
        """settimeout(None) or settimeout(0)."""
        self.timeout = None if flag else 0.0

    def getsockname(self) -> tuple[str, int]:
        """Our address and port."""
        return self.local

    def getpeername(self) -> tuple[str, int]:
        """The peer's address and port."""
        return self.remote

    @property
    def local(self) -> tuple[str, int]:
        """Our address and port."""
        return ip_addr_text(&self.key.laddr), self.key.lport

    @property
    def remote(self) -> tuple[str, int]:
        """The peer's address and port."""
        return ip_addr_text(&self.key.raddr), self.key.rport

    # ------------------------------------------------------------ state and settings

    @property
    def reason(self) -> str | None:
        """Why the connection ended ("normal", "reset", "timeout", ...); None while it lives."""
        return None if self.conn != NULL else reason_name(self.end)

    @property
    def state(self) -> str:
        """RFC 9293's name; CLOSED once the stack has forgotten the connection (TIME-WAIT goes on without it)."""
        # Without the gate, for any thread: a turn that runs without the GIL may end the connection under our eyes.
        cdef conn_t *conn = NULL if self.conn == NULL else event_conn(self.event)
        if conn == NULL:
            return "CLOSED"
        found = self.transport.state(self.transport, conn)
        return found if event_conn(self.event) == conn else "CLOSED"

    def info(self) -> dict[str, object]:
        """A snapshot of the connection's variables, as in Stack.connections()."""
        cdef Transport stack = self.enter("info()")
        try:
            self.need_conn("info()")
            return self.transport.info(self.transport, self.conn)
        finally:
            stack.leave()

    cdef uint32_t option(self, str call, int option) except? 0xFFFFFFFF:
        """Without the gate, as state."""
        cdef conn_t *conn
        cdef uint32_t value = 0
        self.need_conn(call)
        conn = event_conn(self.event)
        if conn != NULL:
            value = self.transport.option(self.transport, conn, option)
        if conn == NULL or event_conn(self.event) != conn:
            raise error_of_status(CALL_STATE, call)
        return value

    @property
    def nodelay(self) -> bool:
        """Nagle's algorithm is off (MUST-17)."""
        return bool(self.option("nodelay", OPTION_NODELAY))

    @nodelay.setter
    def nodelay(self, bint on):
        cdef Transport stack = self.enter("nodelay")
        try:
            self.need_conn("nodelay")
            self.transport.set_option(self.transport, self.conn, OPTION_NODELAY, on)
            stack.push()
        finally:
            stack.leave()

    @property
    def keepalive(self) -> bool:
        """Keep-alive probes are sent when the connection is idle (MUST-24); off at first."""
        return bool(self.option("keepalive", OPTION_KEEPALIVE))

    @keepalive.setter
    def keepalive(self, bint on):
        cdef Transport stack = self.enter("keepalive")
        try:
            self.need_conn("keepalive")
            stack.now()
            self.transport.set_option(self.transport, self.conn, OPTION_KEEPALIVE, on)
        finally:
            stack.leave()

    @property
    def cc(self) -> str:
        """The name of the congestion control. Another one can be given to a live connection: it begins with the window
        as it is."""
        self.need_conn("cc")
        name = self.transport.info(self.transport, self.conn).get("cc")
        if name is None:
            raise error_of_status(CALL_UNSUPPORTED, "cc")
        return name

    @cc.setter
    def cc(self, name: str):
        cdef int status
        cdef Transport stack = self.enter("cc")
        try:
            self.need_conn("cc")
            stack.now()
            status = self.transport.set_option(self.transport, self.conn, OPTION_CC, stack.control_number(name))
            if status != 0:
                raise error_of_status(status, f"cc={name!r} for {self.where()}")
            stack.push()
        finally:
            stack.leave()

    def set_user_timeout(self, seconds: int) -> None:
        """Give up after this long without an answer to data (R2, MUST-21); 0: the stack's default."""
        cdef uint16_t value = whole("seconds", seconds, 0, 65535)
        cdef Transport stack = self.enter("set_user_timeout()")
        try:
            self.need_conn("set_user_timeout()")
            self.transport.set_option(self.transport, self.conn, OPTION_USER_TIMEOUT_S, value)
        finally:
            stack.leave()

    def set_low_water(self, size: int) -> None:
        """A send() that waits for a full queue goes on when at most `size` bytes of it are unacknowledged. At first the
        stack's snd_low_water_bytes; as much as the queue holds, or more: half of it."""
        self.set_mark("set_low_water()", OPTION_LOW_WATER, whole("size", size, 0, 1 << 30))

    def set_unsent_low_water(self, size: int) -> None:
        """send() takes nothing while more than `size` bytes were never sent (Linux's TCP_NOTSENT_LOWAT): for what is
        better decided late. At first the stack's snd_unsent_low_water_bytes; as much as the queue holds: no mark."""
        self.set_mark("set_unsent_low_water()", OPTION_UNSENT_LOW_WATER, whole("size", size, 0, 1 << 30))

    cdef int set_mark(self, str call, int option, uint32_t size) except -1:
        cdef int status
        cdef Transport stack = self.enter(call)
        try:
            self.need_conn(call)
            status = self.transport.set_option(self.transport, self.conn, option, size)
            if status != CALL_OK:
                raise error_of_status(status, f"{call} for {self.where()}")
        finally:
            stack.leave()
        return 0

    def set_tos(self, tos: int) -> None:
        """The byte of DiffServ and ECN bits in every IP header from now on (MUST-48, SHLD-21)."""
        cdef uint8_t value = whole("tos", tos, 0, 255)
        cdef Transport stack = self.enter("set_tos()")
        try:
            self.need_conn("set_tos()")
            self.transport.set_option(self.transport, self.conn, OPTION_TOS, value)
        finally:
            stack.leave()

    def set_ttl(self, ttl: int) -> None:
        """Time to live of every packet from now on (MUST-49)."""
        cdef uint8_t value = whole("ttl", ttl, 1, 255)
        cdef Transport stack = self.enter("set_ttl()")
        try:
            self.need_conn("set_ttl()")
            self.transport.set_option(self.transport, self.conn, OPTION_TTL, value)
        finally:
            stack.leave()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.stack is None:
            return "<Connection that nobody made>"
        local, port = self.local
        ended = "" if self.conn != NULL else f" ({self.reason})"
        return f"<Connection {local}:{port} to {self.where()}, {self.state}{ended}>"


cdef bytes take_bytes(const transport_t *transport, conn_t *conn, size_t length):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    transport.receive(transport, conn, <uint8_t *>PyBytes_AS_STRING(out), length)
    return out


cdef int no_flags(str call, object flags) except -1:
    if flags != 0:
        raise StackError("flags", f"{call}: flags {flags!r}: this stack has none, pass 0", errno.EOPNOTSUPP)
    return 0
