# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""The Python face: a stack on a link.

    with PacketMmapLink("veth1") as link, Stack(link, "198.18.0.2/24") as stack:
        listener = stack.listen(80)
        connection = listener.accept()
        request = connection.receive()
        connection.send(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
        connection.close()

The stack starts no thread: it processes packets only while one of its calls runs (accept, receive, send, connect, run),
in the caller's thread. One thread at a time may be inside; another one gets an OwnershipError, and so does Python code
that the stack itself runs. Between calls the stack may pass from thread to thread. stop(), counters(), leaks() and the
states of connections are for every thread at any time. A stack with a manual clock (simulation) never waits: its calls
do what they can at once, and poll(now_ns) moves it.

Above: users. Below: poller, listener, connection, sockets; engine.owner.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.application cimport CALL_NO_MEMORY, OPTION_CC, Application, conn_t
from ustack.base.address cimport ip_addr_from_text, ip_addr_text
from ustack.base.arguments cimport timeout_ns, whole
from ustack.base.types cimport ip_addr_t
from ustack.blocking.connection cimport Connection
from ustack.blocking.endpoint cimport error_of_status
from ustack.blocking.events cimport event_bind, event_forget, event_new, event_t
from ustack.blocking.listener cimport Listener
from ustack.blocking.options cimport ensure_option
from ustack.blocking.poller cimport Poller
from ustack.blocking.sockets cimport SocketApplication
from ustack.engine.addresses cimport refuse_ipv6
from ustack.engine.owner cimport Engine
from ustack.engine.trace cimport (
    TRACE_CONNECTIONS_MAX, TRACE_RECORDS_MAX, TRACE_RECORDS_MIN, Trace, trace_of_connection, trace_of_everybody)
from ustack.link.device cimport Link
from ustack.tcp.records.demux cimport flow_connection, flow_slot_count
from ustack.tcp.records.state cimport CLOSING, FIN_WAIT_1, LAST_ACK
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.status cimport status_rows

import re
import socket

from ustack.engine.settings import settings
from ustack.tcp.status import KINDS as STATUS_KINDS


cdef object HOST_NAME = re.compile(r"(?=.{1,254}$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*"
                                   r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?", re.ASCII)

cdef enum:
    BACKLOG_MAX = 1 << 28                   # more connections than that cannot exist


cdef enum:
    SLOTS_A_LOOK = 65536                    # of the flow table, between two turns


cdef inline bint is_closing(const tcb_t *conn) noexcept nogil:
    return conn != NULL and (conn.state == FIN_WAIT_1 or conn.state == LAST_ACK
                             or conn.state == CLOSING)


cdef class Stack(Engine):
    """Stack(link, address='198.18.0.2/24', gateway=None, *, sources=None, cc='cubic', profile='rfc', seed=None,
now_ns=None, **config)
--

    A TCP/IP stack on one link.

    link: an open Link; it must outlive the stack. address: ours, with prefix length ("198.18.0.2/24"). gateway: next
    hop for everything off that prefix; None: on-link only. sources: more addresses of ours in that prefix
    ("198.18.1.0-198.18.4.255, 198.18.0.9"), which are answered for as the first one is; where there are any, connect()
    takes its local address from them, in turn. cc: the congestion control of its
    connections, by name (ustack.tcp.cc.registry.names() has them). profile: defaults of settings, by name: "rfc", or
    "linux", which does what the kernel's TCP does where the RFCs leave it open (ustack.engine.profiles has the tables).
    seed: makes ISNs, ports and hashes repeatable; None:
    from the system. now_ns: a start time, and with it a manual clock. config: settings by name, whole numbers:
    Stack.settings() has each with its default and bounds, `ustack info --settings` prints them. Raises ValueError for
    bad arguments, MemoryError.
    """

    cdef SocketApplication sockets
    cdef uint64_t closing_at                # where still_closing goes on in the flow table

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.sockets = SocketApplication(self)

    def __init__(self, link: Link, address: str = "198.18.0.2/24", gateway: str | None = None, *,
                 sources: str | None = None, cc: str = "cubic", profile: str = "rfc", seed: int | None = None,
                 now_ns: int | None = None, **config: int) -> None:
        Engine.__init__(self, link, address, gateway, seed, now_ns, config, cc, sources, profile)

    def listen(self, port: int, *, address: str | None = None, backlog: int = 128,
               application: Application | None = None, cc: str | None = None,
               options: dict[str, object] | None = None) -> Listener:
        """Passive OPEN on `port` (1..65535) of `address` (None: any of ours).

        application: gets the connections' upcalls; None: they wait for Listener.accept(), at most `backlog` of them.
        cc: the congestion control of its connections, by name; None: the stack's. options: what they begin with
        (Listener.set_option). Raises AddressInUse, StackError, ValueError.
        """
        cdef ip_addr_t local
        cdef Listener listener
        cdef Application target = self.sockets if application is None else application
        cdef uint16_t number = whole("port", port, 1, 65535)
        cdef int control
        cdef uint32_t waiting = whole("backlog", backlog, 1, BACKLOG_MAX)
        if address is not None:
            address_from_text(address, &local)
        self.enter("listen()")
        try:
            control = self.control_number(cc)
            self.register(target)
            status = self.table.listen(self.table, &local if address is not None else NULL, number, &target.c, waiting)
            if status != 0:
                raise error_of_status(status, f"listen() on {address or '*'}:{number}")
            self.set_listener_control(&local if address is not None else NULL, number, control)
            listener = Listener.__new__(Listener)
            listener.bind(self, self.sockets if application is None else None, number, address)
            if application is None:
                self.sockets.listen(listener.backlog, &local if address is not None else NULL, number)
        finally:
            self.leave()
        try:
            for name, value in (options or {}).items():
                listener.set_option(name, value)
        except BaseException:
            listener.close()
            raise
        return listener

    def connect(self, address: str, port: int, *, local_port: int = 0, timeout: float | None = None,
                wait: bool = True, cc: str | None = None,
                options: dict[str, object] | None = None) -> Connection:
        """Active OPEN. Returns when established; with wait=False (or a manual clock) at once, in SYN-SENT.

        address: an IPv4 address, or a host name, which the system's resolver (not this stack) looks up; its first IPv4
        address is used. timeout: seconds; None: the stack's own R2 for a SYN. A neighbour that does not answer ARP ends
        it with EHOSTUNREACH after three seconds. cc: the congestion control, by name; None: the stack's.
        options: set before the SYN goes (Connection.set_option).
        Raises ConnectionRefused, ConnectionTimeout, Unreachable, socket.gaierror for an unknown name, ...
        """
        cdef ip_addr_t remote
        cdef int status = 0
        cdef conn_t *conn
        cdef event_t *event
        cdef Connection connection
        cdef int control
        cdef uint16_t number = whole("port", port, 1, 65535)
        cdef uint16_t local_number = whole("local_port", local_port, 0, 65535)
        timeout_ns(timeout)
        for name in options or ():
            ensure_option(f"connect(): option {name!r}", name, False, True)
        self.ensure_alive()
        resolve(address, number, &remote)
        self.enter("connect()")
        try:
            self.now()
            control = self.control_number(cc)
            connection = Connection.__new__(Connection)         # before there is a record that points to it
            self.register(self.sockets)
            event = event_new(&self.sockets.events)
            if event == NULL:
                raise error_of_status(CALL_NO_MEMORY, f"connect() to {address}:{number}")
            conn = self.table.connect(self.table, &remote, number, local_number, &self.sockets.c, &status)
            if conn == NULL:
                event_forget(event)
                raise error_of_status(status, f"connect() to {address}:{number}")
            self.table.set_option(self.table, conn, OPTION_CC, control)     # nothing has flowed: it cannot fail
            event_bind(event, self.table, conn)
            connection.bind(self, self.sockets.closing, event)
            try:
                for name, value in (options or {}).items():
                    connection.set_number(f"connect(): option {name!r}", name, value)
            except BaseException:
                connection.give_up()
                raise
            self.push()
            if wait and not self.manual_clock:
                try:
                    self.wait_until(lambda: connection.established or connection.conn == NULL, timeout,
                                    f"connect() to {address}:{number}: no answer")
                except BaseException:
                    connection.give_up()
                    raise
                if not connection.established:
                    raise connection.failure()
            return connection
        finally:
            self.leave()

    def poller(self) -> Poller:
        """A Poller for connections and listeners of this stack: epoll's readiness, level- and edge-triggered."""
        cdef Poller made
        self.ensure_alive()
        made = Poller.__new__(Poller)
        made.bind(self)
        return made

    def close(self, *, linger: float = 5.0) -> None:
        """End the stack. Connections that close() was called on get `linger` seconds to deliver what they have queued;
        all others are reset. Idempotent."""
        timeout_ns(linger)
        if not self.alive:
            return
        self.enter("close()")
        try:
            if not self.manual_clock and linger > 0:
                try:
                    self.wait_until(lambda: not self.still_closing(), linger, "close(): peers took no more")
                except OSError:
                    pass                    # the peers are gone: reset them
            self.destroy()                  # nothing if a callback has done it meanwhile
        finally:
            self.leave()

    cdef bint still_closing(self) noexcept:
        """Is there a connection that closing_connections() would count? Looked for from where the last one was, with
        turns between parts of a large table."""
        cdef tcp_t *tcp = &self.c.tcp
        cdef uint64_t count, look
        if not self.alive:                  # a callback has closed it
            return False
        count = flow_slot_count(tcp)
        for look in range(count):
            if self.closing_at >= flow_slot_count(tcp):
                self.closing_at = 0
            if is_closing(flow_connection(tcp, self.closing_at)):
                return True
            self.closing_at += 1
            if look % SLOTS_A_LOOK == SLOTS_A_LOOK - 1:
                self.turn(self.now())
        return False

    cdef uint32_t lingering(self) noexcept:
        cdef uint64_t at
        cdef uint32_t found = 0
        cdef tcb_t *conn
        for at in range(flow_slot_count(&self.c.tcp)):
            conn = flow_connection(&self.c.tcp, at)
            if is_closing(conn):
                found += 1
        return found

    def closing_connections(self) -> int:
        """Connections closed by their owner that still have data or a FIN to deliver."""
        self.enter("closing_connections()")
        try:
            return self.lingering()
        finally:
            self.leave()

    def connections(self, *kinds: str) -> list[dict[str, object]]:
        """A snapshot of what the stack holds, a dict each: all of it, or of these kinds alone.

        Every row has `kind`, `state` (RFC 9293's), `local` and `remote` (address, port). By kind:

        "listener"    backlog: connections that may wait for accept(); waiting: those that do; cc
        "half-open"   a passive open before the end of its handshake: age_ns, retransmissions {"rto": SYN-ACKs sent
                      again}, timers (nanoseconds left until the next one)
        "connection"  age_ns, bytes_acked and bytes_received, retransmissions by cause (fast, rack, tlp, rto, size,
                      and spurious: repairs that were none), cc, timers, and RFC 9293's and the recovery's variables by
                      their names. Connection.info() has most of them typed and described
        "time-wait"   age_ns, timers
        """
        wanted = kinds or STATUS_KINDS
        for kind in wanted:
            if kind not in STATUS_KINDS:
                raise ValueError(f"connections({kind!r}): the kinds are {', '.join(STATUS_KINDS)}")
        self.enter("connections()")
        try:
            return status_rows(&self.c.tcp, wanted)
        finally:
            self.leave()

    def trace(self, *, connections: int = 64, capacity: int = 65536) -> Trace:
        """Record what happens to the next `connections` connections that open (docs/trace.md), all into one Trace with
        room for the latest `capacity` records. Until its stop(), or their end.

        One such trace at a time; connections that are there already have Connection.trace(). Raises StackError.
        """
        cdef uint32_t most = whole("connections", connections, 1, TRACE_CONNECTIONS_MAX)
        cdef uint32_t room = whole("capacity", capacity, TRACE_RECORDS_MIN, TRACE_RECORDS_MAX)
        self.enter("trace()")
        try:
            return trace_of_everybody(self, most, room)
        finally:
            self.leave()

    cdef object trace_of(self, conn_t *conn, uint32_t capacity):
        return trace_of_connection(self, conn, capacity)

    @staticmethod
    def settings() -> dict[str, object]:
        """The settings that the constructor takes by name: {name: (name, default, low, high, text)}."""
        return settings()

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.link is None:
            return "<Stack that was never opened>"
        state = f"{self.established} connections" if self.alive else "closed"
        return f"<Stack {ip_addr_text(&self.c.ip.config.address)}/{self.c.ip.config.prefix_length}, {state}>"


# ---------------------------------------------------------------- addresses

cdef int address_from_text(object text, ip_addr_t *out) except -1:
    """An IPv4 address. Raises ValueError, which says what is wrong with it, and TypeError."""
    if not isinstance(text, str):
        raise TypeError(f"address {text!r}: must be a str such as '198.18.0.1'")
    refuse_ipv6(text)
    try:
        ip_addr_from_text(text, out)
    except ValueError as error:
        raise ValueError(f"address {text!r}: {error}") from None
    return 0


cdef int resolve(object host, uint16_t port, ip_addr_t *out) except -1:
    """A host's first IPv4 address. The kernel's network answers for names: this stack has no resolver."""
    if not isinstance(host, str):
        raise TypeError(f"address {host!r}: must be a str: an IPv4 address or a host name")
    if not is_host_name(host):
        return address_from_text(host, out)
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{host}: {error.strerror}") from None
    ip_addr_from_text(found[0][4][0], out)
    return 0


cdef bint is_host_name(str text) except -1:
    """Labels of letters, digits and hyphens; the last one no number, or it is meant to be an address (RFC 1123 section
    2.1)."""
    return HOST_NAME.fullmatch(text) is not None and not text.rstrip(".").rpartition(".")[2].isdigit()
