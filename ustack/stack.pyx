# SPDX-License-Identifier: MIT
"""The Python face: a stack on a link.

    with PacketMmapLink("veth1") as link, Stack(link, "198.18.0.2/24") as stack:
        listener = stack.listen(80)
        connection = listener.accept()
        request = connection.receive()
        connection.send(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
        connection.close()

There is no thread: the stack moves while one of its calls waits (accept, receive, send, connect, run), in the caller's
thread. A stack with a manual clock (simulation) never waits: its calls do what they can at once, and poll(now_ns)
moves it.

Above: users. Below: sockets, driver.
"""

from libc.stdint cimport uint16_t, uint32_t

from ustack.base.types cimport ip_addr_t
from ustack.driver cimport Engine
from ustack.engine cimport Application
from ustack.ip.address cimport ip_addr_from_text
from ustack.link.device cimport Link
from ustack.sockets cimport Connection, Listener, SocketApplication, address_key, error_of_status
from ustack.tcp.calls cimport tcp_connect, tcp_listen
from ustack.tcp.demux cimport flow_connection
from ustack.tcp.state cimport CLOSING, FIN_WAIT_1, LAST_ACK
from ustack.tcp.status cimport connection_status
from ustack.tcp.tcb cimport tcb_t

from ustack.config import settings
from ustack.errors import error_of


cdef class Stack(Engine):
    """A TCP/IP stack on one link.

    link: an open Link; it must outlive the stack. address: ours, with prefix length ("198.18.0.2/24"). gateway: next
    hop for everything off that prefix; None: on-link only. seed: makes ISNs, ports and hashes repeatable; None: from
    the system. now_ns: a start time, and with it a manual clock. config: settings by name, whole numbers:
    Stack.settings() has each with its default and bounds, help("ustack.config") prints them. Raises ValueError for bad
    arguments, MemoryError.
    """

    cdef SocketApplication sockets

    def __init__(self, Link link not None, str address not None="198.18.0.2/24", str gateway=None, *,
                 object seed=None, object now_ns=None, **config):
        Engine.__init__(self, link, address, gateway, seed, now_ns, config)
        self.sockets = SocketApplication(self)

    def listen(self, int port, *, str address=None, int backlog=128, Application application=None) -> Listener:
        """Passive OPEN on `port` (1..65535) of `address` (None: any of ours).

        application: gets the connections' upcalls; None: they wait for Listener.accept(), at most `backlog` of them.
        Raises AddressInUse, StackError, ValueError.
        """
        cdef ip_addr_t local
        cdef Listener listener
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
        listener.bind(self, self.sockets if application is None else None, <uint16_t>port, address)
        if application is None:
            self.sockets.listeners[(address_key(&local) if address is not None else None, port)] = listener
        return listener

    def connect(self, str address not None, int port, *, int local_port=0, object timeout=None,
                bint wait=True) -> Connection:
        """Active OPEN. Returns when established; with wait=False (or a manual clock) at once, in SYN-SENT.

        timeout: seconds; None: the stack's own R2 for a SYN. Raises ConnectionRefused, ConnectionTimeout, Unreachable,
        ...
        """
        cdef ip_addr_t remote
        cdef int status = 0
        cdef tcb_t *conn
        cdef Connection connection
        self.ensure_alive()
        if not 0 < port < 65536:
            raise ValueError(f"port {port}: must be from 1 to 65535")
        if not 0 <= local_port < 65536:
            raise ValueError(f"local_port {local_port}: must be from 0 to 65535")
        ip_addr_from_text(address, &remote)
        self.now()
        conn = tcp_connect(&self.c.tcp, &remote, <uint16_t>port, <uint16_t>local_port, self.register(self.sockets),
                           &status)
        if conn == NULL:
            raise error_of_status(status)
        connection = Connection.__new__(Connection)
        connection.bind(self.sockets, conn)
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
        cdef uint32_t at, found = 0
        cdef tcb_t *conn
        self.ensure_alive()
        for at in range(self.c.tcp.flows.mask + 1):
            conn = flow_connection(&self.c.tcp, at)
            if conn != NULL and conn.state in (<int>FIN_WAIT_1, <int>LAST_ACK, <int>CLOSING):
                found += 1
        return found

    def connections(self) -> list[dict[str, object]]:
        """A snapshot of every connection: state and RFC 9293's variables."""
        cdef uint32_t at
        cdef tcb_t *conn
        cdef list found = []
        self.ensure_alive()
        for at in range(self.c.tcp.flows.mask + 1):
            conn = flow_connection(&self.c.tcp, at)
            if conn != NULL:
                found.append(connection_status(&self.c.tcp, conn))
        return found

    @staticmethod
    def settings() -> dict[str, object]:
        """The settings that the constructor takes by name: {name: (name, default, low, high, text)}."""
        return settings()

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
