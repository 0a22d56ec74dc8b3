# SPDX-License-Identifier: MIT
"""The Python face: a stack on a link, listeners and blocking connections.

    with PacketMmapLink("veth1") as link, Stack(link, "198.18.0.2/24") as stack:
        listener = stack.listen(80)
        connection = listener.accept()
        request = connection.receive()
        connection.send(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
        connection.close()

There is no thread: the stack moves while one of its calls waits (accept, receive, send, connect, run), in the caller's thread.
A stack with a manual clock (simulation) never waits: its calls do what they can at once, and poll(now_ns) moves it.

It must not: know the protocol. Above: users. Below: engine, tcp/calls. Upcalls take the GIL: for the fast path write an Application.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_from_object, lent_t, lent_unref
from ustack.engine cimport (ACCEPT_REFUSED, ACCEPT_TAKEN, ACCEPT_WAITING, Application, Engine, application_t, connection_snapshot,
                            engine_flush, engine_next_deadline, engine_poll)
from ustack.ip.address cimport ip_addr_from_text, ip_addr_text
from ustack.link.device cimport Link
from ustack.tcp.calls cimport (
    TCP_ERR_BAD_ADDRESS, TCP_ERR_IN_USE, TCP_ERR_NO_MEMORY, TCP_ERR_NO_PORT, TCP_ERR_NO_ROUTE, tcp_abort, tcp_close,
    tcp_connect, tcp_listen, tcp_receivable, tcp_receive, tcp_send, tcp_send_queued, tcp_set_keepalive,
    tcp_set_nodelay, tcp_set_tos, tcp_set_ttl, tcp_set_user_timeout, tcp_shutdown, tcp_taken, tcp_unlisten)
from ustack.tcp.state cimport CLOSE_NORMAL, close_reason_t
from ustack.tcp.tcb cimport TCB_ACTIVE, TCB_FIN_RECEIVED, TCB_KEEPALIVE, TCB_NODELAY, tcb_t, tcp_t
from collections import deque

from ustack.errors import AddressInUse, StackError, Unreachable, error_of
from ustack.tcp.state import reason_name, state_name


cdef object error_of_status(int status):
    """The exception for a negative tcp_status_t."""
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


# ---------------------------------------------------------------- upcalls of blocking sockets

cdef class SocketApplication(Application):
    """Turns upcalls into state that blocking calls look at. Received data stays in the stack's queue (backpressure)."""

    cdef object listeners               # port -> Listener

    def __cinit__(self) -> None:
        self.listeners = {}
        self.c.context = <void *>self
        self.c.on_accept = socket_on_accept
        self.c.on_data = socket_on_data
        self.c.on_writable = socket_on_event
        self.c.on_eof = socket_on_event
        self.c.on_timeout = socket_on_event
        self.c.on_closed = socket_on_closed


cdef int socket_on_accept(application_t *app, tcp_t *tcp, tcb_t *conn) noexcept nogil:
    with gil:
        return accept_with_gil(<SocketApplication>app.context, conn)


cdef int accept_with_gil(SocketApplication application, tcb_t *conn) noexcept:
    cdef Connection connection
    cdef Listener listener
    if conn.flags & TCB_ACTIVE:
        connection = <Connection><object><void *>conn.user_data
        connection.established = True
        return ACCEPT_TAKEN
    listener = application.listeners.get(conn.key.lport)
    if listener is None:
        return ACCEPT_REFUSED
    connection = Connection.__new__(Connection)
    connection.bind(listener.stack, conn)
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


# ---------------------------------------------------------------- Stack

cdef class Stack(Engine):
    """A TCP/IP stack on one link.

    link: an open Link; it must outlive the stack. address: ours, with prefix length ("198.18.0.2/24"). gateway: next hop for
    everything off that prefix; None: on-link only. seed: makes ISNs, ports and hashes repeatable; None: from the system.
    now_ns: a start time, and with it a manual clock. config: settings by their names in tcp_config_t and ip_config_t.
    Raises ValueError for bad arguments, MemoryError.
    """

    cdef SocketApplication sockets
    cdef set references                     # Connections that a tcb points to

    def __init__(self, Link link not None, str address not None="198.18.0.2/24", str gateway=None, *,
                 object seed=None, object now_ns=None, **config):
        Engine.__init__(self, link, address, gateway, seed, now_ns, config)
        self.sockets = SocketApplication()
        self.references = set()

    def listen(self, int port, *, str address=None, int backlog=128, Application application=None) -> Listener:
        """Passive OPEN on `port` (1..65535) of `address` (None: any of ours).

        application: gets the connections' upcalls; None: they wait for Listener.accept(), at most `backlog` of them.
        Raises AddressInUse, StackError, ValueError.
        """
        cdef ip_addr_t local
        cdef Application target = self.sockets if application is None else application
        self.ensure_alive()
        if not 0 < port < 65536:
            raise ValueError(f"port {port}: must be from 1 to 65535")
        if backlog < 1:
            raise ValueError("backlog must be at least 1")
        if address is not None:
            ip_addr_from_text(address, &local)
        status = tcp_listen(&self.c.tcp, &local if address is not None else NULL, <uint16_t>port,
                            self.register(target), <uint32_t>backlog)
        if status != 0:
            raise error_of_status(status)
        listener = Listener.__new__(Listener)
        (<Listener>listener).bind(self, <uint16_t>port, address)
        if application is None:
            self.sockets.listeners[port] = listener
        return listener

    def connect(self, str address not None, int port, *, int local_port=0, object timeout=None,
                bint wait=True) -> Connection:
        """Active OPEN. Returns when established; with wait=False (or a manual clock) at once, in SYN-SENT.

        timeout: seconds; None: the stack's own R2 for a SYN. Raises ConnectionRefused, ConnectionTimeout, Unreachable, ...
        """
        cdef ip_addr_t remote
        cdef int status = 0
        cdef tcb_t *conn
        cdef Connection connection
        self.ensure_alive()
        if not 0 < port < 65536 or not 0 <= local_port < 65536:
            raise ValueError(f"port {port}: must be from 1 to 65535")
        ip_addr_from_text(address, &remote)
        self.now()
        conn = tcp_connect(&self.c.tcp, &remote, <uint16_t>port, <uint16_t>local_port, self.register(self.sockets),
                           &status)
        if conn == NULL:
            raise error_of_status(status)
        connection = Connection.__new__(Connection)
        connection.bind(self, conn)
        self.push()
        if wait and not self.manual_clock:
            try:
                self.wait_until(lambda: connection.established or connection.conn == NULL, timeout)
            except TimeoutError:
                connection.abort()
                raise
            if not connection.established:
                raise error_of(connection.reason)
        return connection

    cdef void push(self) except *:
        """Send what a call has left behind; with a manual clock the next poll does."""
        cdef uint64_t now_ns
        if not self.manual_clock and self.alive:
            now_ns = self.now()
            with nogil:
                engine_flush(&self.c, now_ns)

    cdef void wait_until(self, object condition, object timeout) except *:
        """Drive the engine until condition() holds. timeout: seconds, None: for ever. Raises TimeoutError."""
        cdef uint64_t until_ns = UINT64_MAX, now_ns, deadline_ns
        cdef uint32_t frames
        cdef int error
        if self.manual_clock:
            raise BlockingIOError("a stack with a manual clock does not wait: poll it")
        if timeout is not None:
            until_ns = clock_monotonic_ns() + <uint64_t>(max(timeout, 0) * 1e9)
        while not condition():
            now_ns = clock_monotonic_ns()
            if now_ns >= until_ns:
                raise TimeoutError(f"nothing happened within {timeout} s")
            with nogil:
                frames = engine_poll(&self.c, now_ns)
                deadline_ns = engine_next_deadline(&self.c)
            if frames == 0 and self.c.link_error == 0 and deadline_ns > now_ns and not condition():
                with nogil:
                    self.c.link_error = self.c.link.ops.wait(
                        self.c.link, deadline_ns if deadline_ns < until_ns else until_ns)
            if self.c.link_error != 0:
                self.raise_link_error()

    def close(self, *, float linger=5.0) -> None:
        """End the stack. Connections that close() was called on get `linger` seconds to deliver what they have queued;
        all others are reset. Idempotent."""
        if not self.alive:
            return
        if not self.manual_clock and linger > 0:
            try:
                self.wait_until(lambda: not self.closing_connections(), linger)
            except (TimeoutError, OSError):
                pass                        # the peers are gone: reset them
        self.destroy()

    def closing_connections(self) -> int:
        """Connections closed by their owner that still have data or a FIN to deliver."""
        return sum(1 for c in self.connections()
                   if c["state"] in ("FIN-WAIT-1", "LAST-ACK", "CLOSING"))

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# ---------------------------------------------------------------- Listener

cdef class Listener:
    """A port in LISTEN. Made by Stack.listen()."""

    cdef Stack stack
    cdef readonly uint16_t port
    cdef readonly object address
    cdef object queue
    cdef bint open

    def __init__(self):
        raise TypeError("use Stack.listen()")

    cdef void bind(self, Stack stack, uint16_t port, object address) except *:
        self.stack = stack
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
        self.stack.sockets.listeners.pop(self.port, None)
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

    cdef Stack stack
    cdef tcb_t *conn                        # NULL once it has ended
    cdef readonly bint established
    cdef bint waiting                       # counted against the listener's backlog
    cdef readonly object reason             # why it ended (reason_name), None while it lives
    cdef object rest                        # received before the end and not yet read
    cdef readonly tuple local               # (address, port)
    cdef readonly tuple remote

    def __init__(self):
        raise TypeError("use Stack.connect() or Listener.accept()")

    cdef void bind(self, Stack stack, tcb_t *conn) except *:
        """The tcb's user_data is a strong reference, given back in unbind."""
        self.stack = stack
        self.conn = conn
        self.rest = b""
        self.local = (ip_addr_text(&conn.key.laddr), conn.key.lport)
        self.remote = (ip_addr_text(&conn.key.raddr), conn.key.rport)
        stack.references.add(self)
        conn.user_data = <uint64_t><void *>self

    cdef void unbind(self, tcp_t *tcp, close_reason_t reason) noexcept:
        """on_closed: the tcb goes away; what it still holds for us is kept."""
        self.reason = reason_name(reason)
        if reason == CLOSE_NORMAL:
            self.rest = self.take_bytes(tcp, tcp_receivable(tcp, self.conn))
        self.take()
        self.conn = NULL
        self.stack.references.discard(self)

    cdef void take(self) noexcept:
        if self.waiting:
            self.waiting = False
            if self.conn != NULL:
                tcp_taken(&self.stack.c.tcp, self.conn)

    cdef bytes take_bytes(self, tcp_t *tcp, size_t length):
        cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
        tcp_receive(tcp, self.conn, <uint8_t *>PyBytes_AS_STRING(out), length)
        return out

    cdef bint readable(self):
        return self.conn == NULL or tcp_receivable(&self.stack.c.tcp, self.conn) > 0 or self.at_eof()

    cdef bint at_eof(self):
        return self.conn.flags & TCB_FIN_RECEIVED != 0

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

    cdef bint has_room(self):
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
        """Done with both directions. What is queued is still delivered; unread data makes it a reset (SHLD-3). Idempotent."""
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
    def state(self) -> str:
        """RFC 9293's name; CLOSED once the stack has forgotten the connection (TIME-WAIT goes on without it)."""
        return "CLOSED" if self.conn == NULL else state_name(self.conn.state)

    def info(self) -> dict[str, object]:
        """A snapshot of the connection's variables, as in Stack.connections()."""
        self.need_conn()
        return connection_snapshot(&self.stack.c.tcp, self.conn)

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
