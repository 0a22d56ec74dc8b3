# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Our end of a connection: tied to its record, ended and dropped; its addresses, state and settings.

What reads or writes a byte, or waits, is in connection. Above: connection. Below: watched, backlog, events,
application.
"""

from libc.stdint cimport uint32_t


from ustack.application cimport (
    CALL_BAD_ADDRESS, CALL_IN_USE, CALL_NO_MEMORY, CALL_NO_PORT, CALL_NO_ROUTE, CALL_OK, CALL_STATE, CALL_UNSUPPORTED,
    CLOSE_ABORTED, CLOSE_NORMAL, CLOSE_NO_MEMORY, CONN_ABORTED, CONN_EOF, OPTION_CC, OPTION_KEEPALIVE, OPTION_LOW_WATER,
    OPTION_NODELAY, OPTION_MAY_FRAGMENT, OPTION_MSS, OPTION_PATH_MTU, OPTION_TOS, OPTION_TTL, OPTION_UNSENT,
    OPTION_UNSENT_LOW_WATER, OPTION_URGENT_UNREAD, OPTION_USER_TIMEOUT_MS)
from ustack.base.address cimport ip_addr_text
from ustack.base.arguments cimport whole
from ustack.base.bytestring cimport bytes_from
from ustack.base.posix cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from ustack.blocking.events cimport (
    EVENT_DATA, EVENT_MORE, EVENT_WRITABLE, event_conn, event_hold, event_release, event_t)
from ustack.blocking.options cimport ensure_option, option_code, option_name, option_number
from ustack.blocking.watched cimport Watched, is_armed, watch_t

import errno
import struct
import sys

from ustack.application import reason_name
from ustack.blocking.info import ConnectionInfo, info_of
from ustack.errors import AddressInUse, SendAfterEnd, StackError, Unreachable, error_of


cdef enum:
    # What counted() has beside the options, which are above 0.
    QUEUED = -1
    RECEIVABLE = -2


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


cdef class Endpoint(Watched):
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
            self.rest_urgent = event.rest_urgent
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

    # ------------------------------------------------------------ for pollers

    cdef uint32_t events_now(self) noexcept:
        """As Linux's tcp_poll has them. An error stays one: asking for SO_ERROR does not clear it here."""
        cdef uint32_t now = 0, status
        if self.conn == NULL:
            now = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP
            if self.end != CLOSE_NORMAL:
                return now | EPOLLERR
        elif not self.established:
            return 0
        else:
            status = self.transport.status(self.transport, self.conn)
            if status & CONN_ABORTED:
                return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP | EPOLLERR
            if status & CONN_EOF:
                now = EPOLLIN | EPOLLRDHUP | (EPOLLHUP if self.shut else 0)
            elif self.transport.receivable(self.transport, self.conn) > 0:
                now = EPOLLIN
            if self.shut or self.is_writable():
                now |= EPOLLOUT
        return now | EPOLLPRI if self.urgent_now() else now

    cdef bint is_writable(self) noexcept:
        """What want_writable waits for: neither measure of the queue is above its mark."""
        return (self.transport.send_room(self.transport, self.conn) > 0
                and self.transport.send_queued(self.transport, self.conn) <= self.transport.option(
                    self.transport, self.conn, OPTION_LOW_WATER))

    cdef void await_room(self) noexcept:
        if self.conn != NULL and self.established and self.event.wanted & EVENT_WRITABLE:
            self.transport.want_writable(self.transport, self.conn)

    cdef void wishes_changed(self) noexcept:
        """Arrivals are told to whoever is armed: the peer's FIN is news to all of them. (Written at once: where a
        Poller ends in another thread, a turn reads it meanwhile.)"""
        cdef const watch_t *each = self.watches
        cdef uint32_t wanted = 0
        while each != NULL:
            if is_armed(each):
                wanted |= EVENT_DATA | EVENT_MORE
                if each.events & EPOLLOUT:
                    wanted |= EVENT_WRITABLE
            each = each.next
        self.event.wanted = wanted

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

    cdef uint32_t option_now(self, str call, int option) except? 0xFFFFFFFF:
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
        return bool(self.option_now("nodelay", OPTION_NODELAY))

    @nodelay.setter
    def nodelay(self, bint on):
        self.set_now("nodelay", OPTION_NODELAY, on)

    @property
    def keepalive(self) -> bool:
        """Keep-alive probes are sent when the connection is idle (MUST-24); off at first."""
        return bool(self.option_now("keepalive", OPTION_KEEPALIVE))

    @keepalive.setter
    def keepalive(self, bint on):
        self.set_now("keepalive", OPTION_KEEPALIVE, on)

    @property
    def cc(self) -> str:
        """The name of the congestion control. Another one can be given to a live connection: it begins with the window
        as it is."""
        name = self.stack.control_name(self.option_now("cc", OPTION_CC)) if self.stack is not None else None
        if name is None:
            raise error_of_status(CALL_UNSUPPORTED, "cc")
        return name

    @cc.setter
    def cc(self, name: str):
        self.set_now(f"cc={name!r}", OPTION_CC, name)

    def set_user_timeout(self, seconds: int) -> None:
        """Give up after this long without an answer to data (R2, MUST-21); 0: the stack's default. TCP_USER_TIMEOUT has
        it in milliseconds."""
        cdef uint32_t value = whole("seconds", seconds, 0, 65535)
        self.set_now("set_user_timeout()", OPTION_USER_TIMEOUT_MS, value * 1000)

    def set_low_water(self, size: int) -> None:
        """A send() that waits for a full queue goes on when at most `size` bytes of it are unacknowledged. At first the
        stack's snd_low_water_bytes; as much as the queue holds, or more: half of it."""
        self.set_now("set_low_water()", OPTION_LOW_WATER, whole("size", size, 0, 1 << 30))

    def set_unsent_low_water(self, size: int) -> None:
        """send() takes nothing while more than `size` bytes were never sent (Linux's TCP_NOTSENT_LOWAT): for what is
        better decided late. At first the stack's snd_unsent_low_water_bytes; as much as the queue holds: no mark."""
        self.set_now("set_unsent_low_water()", OPTION_UNSENT_LOW_WATER, whole("size", size, 0, 1 << 30))

    cdef int set_now(self, str call, int option, object value) except -1:
        """A number that is within the option's bounds, or the name of a congestion control."""
        cdef Transport stack = self.enter(call)
        try:
            self.need_conn(call)
            stack.now()
            self.set_inside(call, option, stack.control_number(value) if option == OPTION_CC else value)
            stack.push()
        finally:
            stack.leave()
        return 0

    cdef int set_inside(self, str call, int option, uint32_t value) except -1:
        """Inside the gate, with a conn. Every setting of an option comes here."""
        cdef int status = self.transport.set_option(self.transport, self.conn, option, value)
        if status == CALL_STATE and option == OPTION_MSS:
            raise StackError("state", f"{call}: it goes with the SYN: give it to connect(), or to the listener",
                             errno.EISCONN)
        if status != CALL_OK:
            raise error_of_status(status, f"{call} for {self.where()}")
        return 0

    def set_tos(self, tos: int) -> None:
        """The byte of DiffServ bits in every IP header from now on (IP_TOS; MUST-48, SHLD-21). Its last two bits are
        ECN's (RFC 3168), and not looked at."""
        self.set_now("set_tos()", OPTION_TOS, whole("tos", tos, 0, 255))

    def set_ttl(self, ttl: int) -> None:
        """Time to live of every packet from now on (IP_TTL, MUST-49)."""
        self.set_now("set_ttl()", OPTION_TTL, whole("ttl", ttl, 1, 255))

    # ------------------------------------------------------------ options by Linux's names (options.pyx)

    cdef int set_number(self, str call, str name, object value) except -1:
        """Inside the gate, with a conn."""
        cdef int code = option_code(name)
        cdef uint32_t number
        if name == "SO_LINGER":
            self.linger = None if value is None else option_number(call, name, value)
            return 0
        if name == "SO_OOBINLINE":
            option_number(call, name, value)
            return 0
        if code == OPTION_CC:
            number = self.stack.control_number(value)
        else:
            number = <uint32_t>option_number(call, name, value)
            if code == OPTION_MAY_FRAGMENT:
                number = number == 0
        return self.set_inside(call, code, number)

    def set_option(self, name: str, value: object) -> None:
        """Set an option by Linux's name: set_option("TCP_CORK", True). `ustack info --options` prints them all.

        Raises StackError with ENOPROTOOPT for a name that there is not, ValueError and TypeError for a value, the
        connection's end after it.
        """
        call = f"set_option({name!r})"
        ensure_option(call, name, False, True)
        cdef Transport stack = self.enter(call)
        try:
            self.need_conn(call)
            stack.now()
            self.set_number(call, name, value)
            stack.push()
        finally:
            stack.leave()

    def option(self, name: str) -> object:
        """What an option is now: a number in the table's unit, a name, a ConnectionInfo. SO_ERROR can be asked for
        after the end as well."""
        call = f"option({name!r})"
        ensure_option(call, name, False, False)
        if name == "SO_ERROR":
            return self.error or 0
        if name == "TCP_INFO":
            return self.info()
        if name == "SO_LINGER":
            return self.linger
        if name == "SO_OOBINLINE":
            return 1
        if name == "IP_MTU":
            return self.counted(call, OPTION_PATH_MTU)
        cdef int code = option_code(name)
        cdef uint32_t value
        cdef Transport stack = self.enter(call)
        try:
            self.need_conn(call)
            value = self.transport.option(self.transport, self.conn, code)
            if code == OPTION_CC:
                return stack.control_name(value)
            if code == OPTION_MAY_FRAGMENT:
                return 0 if value else 1
            return value
        finally:
            stack.leave()

    def setsockopt(self, level: int, optname: int, value: object) -> None:
        """set_option() as a socket has it: numbers of <sys/socket.h>, and an int, or bytes as C has them."""
        name = option_name("setsockopt()", level, optname)
        self.set_option(name, value_of_bytes(name, value) if isinstance(value, (bytes, bytearray)) else value)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> object:
        """option() as a socket has it: an int, or with `buflen` bytes as C has them."""
        name = option_name("getsockopt()", level, optname)
        if name == "TCP_INFO":
            raise StackError("unsupported", "getsockopt(): TCP_INFO: info() has it, typed", errno.ENOPROTOOPT)
        value = self.option(name)
        return value_as_bytes(name, value)[:buflen] if buflen else 0 if value is None else value

    @property
    def error(self) -> int | None:
        """The errno of what ended the connection (ECONNRESET, ETIMEDOUT, ...); None: nothing, or it ended as it
        should."""
        return None if self.conn != NULL or self.end == CLOSE_NORMAL else self.failure().errno

    @property
    def unacked_bytes(self) -> int:
        """Queued and not acknowledged, sent or not (SIOCOUTQ)."""
        return self.counted("unacked_bytes", QUEUED)

    @property
    def unsent_bytes(self) -> int:
        """Queued and never sent (SIOCOUTQNSD)."""
        return self.counted("unsent_bytes", OPTION_UNSENT)

    @property
    def receivable_bytes(self) -> int:
        """Received and not read (SIOCINQ); after the end what is left to read."""
        return len(self.rest) if self.conn == NULL else self.counted("receivable_bytes", RECEIVABLE)

    @property
    def urgent_bytes(self) -> int:
        """How much is still to be read of what the peer has called urgent, come or not (MUST-33); 0: nothing. A read
        ends where it does, so that SIOCATMARK is this having become 0."""
        return self.urgent_now() if self.conn == NULL else self.counted("urgent_bytes", OPTION_URGENT_UNREAD)

    cdef size_t urgent_now(self) noexcept:
        """Inside the gate."""
        if self.conn == NULL:
            return self.rest_urgent
        return self.transport.option(self.transport, self.conn, OPTION_URGENT_UNREAD)

    cdef uint32_t counted(self, str call, int which) except? 0xFFFFFFFF:
        """QUEUED, RECEIVABLE, or an option that is a number."""
        cdef Transport stack = self.enter(call)
        try:
            self.need_conn(call)
            if which == QUEUED:
                return self.transport.send_queued(self.transport, self.conn)
            if which == RECEIVABLE:
                return self.transport.receivable(self.transport, self.conn)
            return self.transport.option(self.transport, self.conn, which)
        finally:
            stack.leave()


cdef object value_of_bytes(str name, object value):
    """What C's setsockopt would have been given."""
    if name == "TCP_CONGESTION":
        return bytes(value).rstrip(b"\0").decode()
    if name == "SO_LINGER":
        on, seconds = struct.unpack("ii", value)
        return seconds if on else None
    return int.from_bytes(value[:4], sys.byteorder, signed=True)


cdef bytes value_as_bytes(str name, object value):
    if name == "TCP_CONGESTION":
        return value.encode() + b"\0"
    if name == "SO_LINGER":
        return struct.pack("ii", value is not None, value or 0)
    return struct.pack("i", value)
