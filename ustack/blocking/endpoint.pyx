# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Our end of a connection: tied to its record, ended and dropped; its addresses, state and settings.

What reads or writes a byte, or waits, is in connection. Above: connection. Below: backlog, events, application.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


from ustack.application cimport (
    CALL_BAD_ADDRESS, CALL_IN_USE, CALL_NO_MEMORY, CALL_NO_PORT, CALL_NO_ROUTE, CALL_OK, CALL_STATE, CALL_UNSUPPORTED,
    CLOSE_ABORTED, CLOSE_NORMAL, CLOSE_NO_MEMORY, OPTION_CC, OPTION_KEEPALIVE, OPTION_LOW_WATER, OPTION_NODELAY,
    OPTION_TOS, OPTION_TTL, OPTION_UNSENT_LOW_WATER, OPTION_USER_TIMEOUT_S)
from ustack.base.address cimport ip_addr_text
from ustack.base.arguments cimport whole
from ustack.base.bytestring cimport bytes_from
from ustack.blocking.events cimport event_conn, event_hold, event_release, event_t

import errno

from ustack.application import reason_name
from ustack.blocking.info import ConnectionInfo, info_of
from ustack.errors import AddressInUse, SendAfterEnd, StackError, Unreachable, error_of


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
        return StackError("no_port", f"{what}: no free port was found", errno.EADDRNOTAVAIL)
    if status == CALL_UNSUPPORTED:
        return StackError("unsupported", f"{what}: this transport has no such option", errno.EOPNOTSUPP)
    return SendAfterEnd("state", f"{what}: the connection is closing or closed", errno.EPIPE)


cdef class Endpoint:
    """Our end of a connection, whatever is sent and received on it. A Connection is one."""

    def __cinit__(self) -> None:
        self.end = CLOSE_ABORTED            # until it is bound to a conn_t, which the stack alone does
        self.rest = b""

    def __init__(self):
        raise TypeError("use Stack.connect() or Listener.accept()")

    cdef void bind(self, Transport stack, set closing, event_t *event) except *:
        """event.object points here; while nobody else keeps us alive, Connection.__del__ has the connection closed."""
        self.still_closing = closing
        self.stack = stack
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
        self.still_closing.discard(self)

    cdef void keep_rest(self, event_t *event) noexcept:
        if event.rest != NULL:
            self.rest = bytes_from(event.rest, event.rest_bytes)
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

    def __dealloc__(self) -> None:
        if self.event != NULL:
            self.event.object = NULL        # its end may be told later (__del__ could not, for want of memory)
            event_release(self.event)

    cdef Transport enter(self, str call):
        """The stack, entered."""
        if self.stack is None:
            raise error_of("aborted", call)
        if not self.stack.alive and self.conn == NULL:
            self.stack.gate.enter(call)     # what was received before the end can still be read
        else:
            self.stack.enter(call)
        return self.stack

    cdef str where(self):
        return f"{ip_addr_text(&self.key.raddr)}:{self.key.rport}"

    cdef object failure(self):
        return error_of(self.reason, self.where())

    cdef int need_conn(self, str call) except -1:
        if self.conn != NULL:
            return 0
        if self.end == CLOSE_NORMAL:
            raise SendAfterEnd("state", f"{call}: the connection with {self.where()} is closed", errno.EPIPE)
        raise self.failure()

    cdef int finish(self) except -1:
        """close() inside the gate; the caller pushes."""
        self.still_closing.add(self)
        self.closed = True
        self.stack.now()
        self.transport.close(self.transport, self.conn)
        return 0

    cdef int give_up(self) except -1:
        """abort() inside the gate."""
        if self.conn != NULL and self.stack.alive:
            self.still_closing.add(self)
            self.closed = True
            self.stack.now()
            self.transport.abort(self.transport, self.conn)
            self.stack.push()
        return 0

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

    def info(self) -> ConnectionInfo:
        """A snapshot of the connection's variables (Linux's TCP_INFO): see ustack.ConnectionInfo.

        Raises the connection's end once it has ended.
        """
        cdef Transport stack = self.enter("info()")
        try:
            self.need_conn("info()")
            return info_of(self.transport.info(self.transport, self.conn))
        finally:
            stack.leave()

    def trace(self, capacity: int = 65536) -> object:
        """Record what happens to the connection from now on (docs/trace.md): a Trace with room for the latest
        `capacity` records (64 to 2^26; the next power of two) of 64 bytes. Until its stop(), or the connection's end.

        Raises StackError if the connection is traced already, or where its transport keeps no records.
        """
        cdef uint32_t room = whole("capacity", capacity, 64, 1 << 26)
        cdef Transport stack = self.enter("trace()")
        try:
            self.need_conn("trace()")
            stack.now()
            return stack.trace_of(self.conn, room)
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
        name = self.stack.control_name(self.option("cc", OPTION_CC)) if self.stack is not None else None
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
        """The byte of DiffServ bits in every IP header from now on (MUST-48, SHLD-21). Its last two bits are ECN's (RFC
        3168), and not looked at."""
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
