# SPDX-License-Identifier: MIT
"""Blocking sockets: listeners and connections of a Stack, in the caller's thread.

A blocking call drives the engine until it can return; with a manual clock it does what it can at once. Upcalls take
the GIL here: for the fast path write an Application. It must not: know the protocol. Above: stack. Below: driver,
tcp/calls.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_from_object, lent_t, lent_unref
from ustack.engine cimport ACCEPT_REFUSED, ACCEPT_TAKEN, ACCEPT_WAITING, application_t
from ustack.ip.address cimport ip_addr_from_text, ip_addr_text
from ustack.tcp.calls cimport (
    TCP_ERR_BAD_ADDRESS, TCP_ERR_IN_USE, TCP_ERR_NO_MEMORY, TCP_ERR_NO_PORT, TCP_ERR_NO_ROUTE, tcp_abort, tcp_close,
    tcp_receivable, tcp_receive, tcp_send, tcp_send_queued, tcp_set_keepalive, tcp_set_nodelay, tcp_set_tos,
    tcp_set_ttl, tcp_set_user_timeout, tcp_shutdown, tcp_taken, tcp_unlisten)
from ustack.tcp.state cimport CLOSE_ABORTED, CLOSE_NO_MEMORY, CLOSE_NORMAL
from ustack.tcp.status cimport connection_status
from ustack.tcp.tcb cimport TCB_ACTIVE, TCB_FIN_RECEIVED, TCB_KEEPALIVE, TCB_NODELAY

from collections import deque

from ustack.errors import AddressInUse, StackError, Unreachable, error_of
from ustack.tcp.state import reason_name, state_name


cdef object error_of_status(int status):
    if status == TCP_ERR_IN_USE:
        return AddressInUse("in_use", "the address is in use")
    if status == TCP_ERR_NO_MEMORY:
        return StackError("no_memory", "a limit of the stack was reached")
    if status == TCP_ERR_BAD_ADDRESS:
        return StackError("bad_address", "not an address that this stack can use there")
    if status == TCP_ERR_NO_ROUTE:
        return Unreachable("no_route", "no route to that address")
    if status == TCP_ERR_NO_PORT:
        return StackError("no_port", "no port is free")
    return StackError("state", "the connection is closing or closed")


# ---------------------------------------------------------------- upcalls

cdef class SocketApplication(Application):
    """The upcalls of all blocking sockets of one stack."""

    def __cinit__(self, Engine stack) -> None:
        self.stack = stack
        self.listeners = {}
        self.references = set()
        self.c.context = <void *>self
        self.c.on_accept = socket_on_accept
        self.c.on_data = socket_on_data
        self.c.on_writable = socket_on_event
        self.c.on_eof = socket_on_event
        self.c.on_timeout = socket_on_event
        self.c.on_closed = socket_on_closed


cdef int socket_on_accept(application_t *app, tcp_t *tcp, tcb_t *conn) noexcept nogil:
    with gil:                               # no bytecode runs here: a signal handler could raise in the middle of it
        try:
            return accept_with_gil(<SocketApplication>app.context, conn)
        except MemoryError:
            return ACCEPT_REFUSED


cdef bytes address_key(const ip_addr_t *address):
    return PyBytes_FromStringAndSize(<const char *>address.octets, 16)


cdef int accept_with_gil(SocketApplication application, tcb_t *conn) except -1:
    cdef Connection connection
    cdef Listener listener
    if conn.flags & TCB_ACTIVE:
        connection = <Connection><object><void *>conn.user_data
        connection.established = True
        return ACCEPT_TAKEN
    listener = application.listeners.get((address_key(&conn.key.laddr), conn.key.lport))
    if listener is None:
        listener = application.listeners.get((None, conn.key.lport))
    if listener is None:
        return ACCEPT_REFUSED
    connection = Connection.__new__(Connection)
    connection.bind(application, conn)
    connection.established = True
    connection.waiting = True
    listener.queue.append(connection)
    return ACCEPT_WAITING


cdef size_t socket_on_data(application_t *app, tcp_t *tcp, tcb_t *conn, const uint8_t *data,
                           size_t length) noexcept nogil:
    return 0                                # stays in the receive queue until receive() asks


cdef void socket_on_event(application_t *app, tcp_t *tcp, tcb_t *conn) noexcept nogil:
    pass                                    # blocking calls look at the tcb themselves


cdef void socket_on_closed(application_t *app, tcp_t *tcp, tcb_t *conn, close_reason_t reason) noexcept nogil:
    with gil:
        closed_with_gil(tcp, conn, reason)


cdef void closed_with_gil(tcp_t *tcp, tcb_t *conn, close_reason_t reason) noexcept:
    cdef Connection connection = <Connection><object><void *>conn.user_data
    connection.unbind(tcp, reason)


# ---------------------------------------------------------------- Listener

cdef class Listener:
    """A port in LISTEN. Made by Stack.listen()."""

    def __init__(self):
        raise TypeError("use Stack.listen()")

    cdef void bind(self, Engine stack, SocketApplication sockets, uint16_t port, object address) except *:
        self.stack = stack
        self.sockets = sockets
        self.port = port
        self.address = address
        self.queue = deque()
        self.open = True

    @property
    def pending(self) -> int:
        """Connections that wait for accept()."""
        return len(self.queue)

    def accept(self, timeout: float | None = None) -> Connection:
        """The next connection. timeout: seconds; None: wait for ever; 0: BlockingIOError if there is none now."""
        cdef Connection connection
        if not self.open:
            raise ValueError("the listener is closed")
        self.stack.ensure_alive()
        if not self.queue:
            if timeout == 0:
                self.stack.push()
                if not self.stack.manual_clock:
                    self.stack.poll()
                if not self.queue:
                    raise BlockingIOError("no connection waits")
            else:
                self.stack.wait_until(lambda: self.queue, timeout)
        connection = self.queue.popleft()
        connection.take()
        return connection

    def close(self) -> None:
        """Stop listening; connections that nobody has accepted are reset. Idempotent."""
        cdef ip_addr_t local
        if not self.open:
            return
        self.open = False
        if not self.stack.alive:
            return
        if self.address is not None:
            ip_addr_from_text(self.address, &local)
        tcp_unlisten(&self.stack.c.tcp, &local if self.address is not None else NULL, self.port)
        if self.sockets is not None:
            self.sockets.listeners.pop((address_key(&local) if self.address is not None else None, self.port), None)
        for connection in self.queue:
            connection.abort()
        self.queue.clear()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# ---------------------------------------------------------------- Connection

cdef class Connection:
    """One TCP connection. Made by Listener.accept() and Stack.connect()."""

    def __cinit__(self) -> None:
        self.end = CLOSE_ABORTED            # until it is bound to a tcb, which the stack alone does

    def __init__(self):
        raise TypeError("use Stack.connect() or Listener.accept()")

    cdef void bind(self, SocketApplication sockets, tcb_t *conn) except *:
        """The tcb's user_data points here; `references` keeps us alive until unbind."""
        self.sockets = sockets
        self.stack = sockets.stack
        self.conn = conn
        self.rest = b""
        self.key = conn.key
        sockets.references.add(self)
        conn.user_data = <uint64_t><void *>self

    cdef void unbind(self, tcp_t *tcp, close_reason_t reason) noexcept:
        """on_closed: the tcb goes away; what it still holds for us is kept."""
        self.end = reason
        try:
            if reason == CLOSE_NORMAL:
                self.rest = self.take_bytes(tcp, tcp_receivable(tcp, self.conn))
        except MemoryError:
            self.end = CLOSE_NO_MEMORY
        self.take()
        self.conn = NULL
        self.sockets.references.discard(self)

    cdef void take(self) noexcept:
        if self.waiting:
            self.waiting = False
            if self.conn != NULL:
                tcp_taken(&self.stack.c.tcp, self.conn)

    cdef bytes take_bytes(self, tcp_t *tcp, size_t length):
        cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
        tcp_receive(tcp, self.conn, <uint8_t *>PyBytes_AS_STRING(out), length)
        return out

    cdef bint readable(self) except -1:
        return (self.conn == NULL or tcp_receivable(&self.stack.c.tcp, self.conn) > 0
                or self.conn.flags & TCB_FIN_RECEIVED != 0)

    def receive(self, Py_ssize_t max_bytes=65536, timeout: float | None = None) -> bytes:
        """Up to `max_bytes` octets, at least one; b"" when the peer has closed its side.

        timeout: seconds; None: wait for ever; 0: BlockingIOError if there is nothing now. Raises the connection's end
        (ConnectionReset, ConnectionTimeout, ...) unless it was a normal one.
        """
        cdef size_t length
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if not self.readable():
            if timeout == 0:
                raise BlockingIOError("nothing has been received")
            self.stack.wait_until(lambda: self.readable(), timeout)
        if self.conn != NULL:
            length = tcp_receivable(&self.stack.c.tcp, self.conn)
            if length == 0:
                return b""
            self.stack.now()
            out = self.take_bytes(&self.stack.c.tcp, length if length < <size_t>max_bytes else <size_t>max_bytes)
            self.stack.push()               # the window may be worth an announcement
            return out
        if self.rest:
            out, self.rest = self.rest[:max_bytes], self.rest[max_bytes:]
            return out
        if self.reason == "normal":
            return b""
        raise error_of(self.reason)

    def send(self, data: object, timeout: float | None = None) -> int:
        """Lend `data` (any contiguous buffer; do not change it until it is acknowledged) to the send queue.

        Returns its length when all of it is queued, which waits for room if the queue is full; with a manual clock, or
        timeout 0, what was accepted at once. Raises the connection's end, or StackError after shutdown() or close().
        """
        cdef lent_t *lent
        cdef uint64_t total, sent = 0
        cdef int64_t accepted
        self.need_conn()
        lent = lent_from_object(data)
        try:
            total = lent.length
            while True:
                self.stack.now()
                accepted = tcp_send(&self.stack.c.tcp, self.conn, lent, sent, total - sent)
                if accepted < 0:
                    raise error_of_status(<int>accepted)
                sent += <uint64_t>accepted
                self.stack.push()
                if sent == total or self.stack.manual_clock or timeout == 0:
                    return sent
                self.stack.wait_until(lambda: self.has_room(), timeout)
                self.need_conn()
        finally:
            lent_unref(lent)

    cdef bint has_room(self) except -1:
        return self.conn == NULL or tcp_send_queued(self.conn) < self.stack.c.tcp.config.snd_queue_bytes // 2

    cdef void need_conn(self) except *:
        if self.conn == NULL:
            if self.reason == "normal":
                raise StackError("state", "the connection is closed")
            raise error_of(self.reason)

    def shutdown(self) -> None:
        """No more data from us: a FIN follows what is queued. Receiving goes on (half-close)."""
        self.need_conn()
        self.stack.now()
        tcp_shutdown(&self.stack.c.tcp, self.conn)
        self.stack.push()

    def close(self) -> None:
        """Done with both directions. What is queued is still delivered; unread data makes it a reset (SHLD-3).
        Idempotent."""
        if self.conn != NULL:
            self.stack.now()
            self.rest = b""
            tcp_close(&self.stack.c.tcp, self.conn)
            self.stack.push()

    def abort(self) -> None:
        """Reset the connection now. Idempotent."""
        if self.conn != NULL:
            self.stack.now()
            tcp_abort(&self.stack.c.tcp, self.conn)
            self.stack.push()

    @property
    def local(self) -> tuple[str, int]:
        """Our address and port."""
        return ip_addr_text(&self.key.laddr), self.key.lport

    @property
    def remote(self) -> tuple[str, int]:
        """The peer's address and port."""
        return ip_addr_text(&self.key.raddr), self.key.rport

    @property
    def reason(self) -> str | None:
        """Why the connection ended ("normal", "reset", "timeout", ...); None while it lives."""
        return None if self.conn != NULL else reason_name(self.end)

    @property
    def state(self) -> str:
        """RFC 9293's name; CLOSED once the stack has forgotten the connection (TIME-WAIT goes on without it)."""
        return "CLOSED" if self.conn == NULL else state_name(self.conn.state)

    def info(self) -> dict[str, object]:
        """A snapshot of the connection's variables, as in Stack.connections()."""
        self.need_conn()
        return connection_status(&self.stack.c.tcp, self.conn)

    @property
    def nodelay(self) -> bool:
        """Nagle's algorithm is off (MUST-17)."""
        self.need_conn()
        return bool(self.conn.flags & TCB_NODELAY)

    @nodelay.setter
    def nodelay(self, bint on):
        self.need_conn()
        tcp_set_nodelay(&self.stack.c.tcp, self.conn, on)
        self.stack.push()

    @property
    def keepalive(self) -> bool:
        """Keep-alive probes are sent when the connection is idle (MUST-24); off at first."""
        self.need_conn()
        return bool(self.conn.flags & TCB_KEEPALIVE)

    @keepalive.setter
    def keepalive(self, bint on):
        self.need_conn()
        self.stack.now()
        tcp_set_keepalive(&self.stack.c.tcp, self.conn, on)

    def set_user_timeout(self, int seconds) -> None:
        """Give up after this long without an answer to data (R2, MUST-21); 0: the stack's default."""
        self.need_conn()
        if not 0 <= seconds <= 65535:
            raise ValueError("seconds must be from 0 to 65535")
        tcp_set_user_timeout(self.conn, <uint16_t>seconds)

    def set_tos(self, int tos) -> None:
        """The octet of DiffServ and ECN bits in every IP header from now on (MUST-48, SHLD-21)."""
        self.need_conn()
        if not 0 <= tos <= 255:
            raise ValueError("tos must be from 0 to 255")
        tcp_set_tos(self.conn, <uint8_t>tos)

    def set_ttl(self, int ttl) -> None:
        """Time to live of every packet from now on (MUST-49)."""
        self.need_conn()
        if not 1 <= ttl <= 255:
            raise ValueError("ttl must be from 1 to 255")
        tcp_set_ttl(self.conn, <uint8_t>ttl)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
