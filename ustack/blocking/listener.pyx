# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Listeners of a Stack: accept() in the caller's thread, and the end of a port.

It must not: know the protocol, nor what carries its bytes. Above: stack. Below: sockets, connection, backlog.
"""

from libc.stdint cimport uint16_t, uint32_t

from ustack.application cimport (
    CALL_OK, OPTION_CC, OPTION_DEFER_ACCEPT_S, OPTION_MAY_FRAGMENT, OPTION_MSS, Transport)
from ustack.base.address cimport ip_addr_from_text
from ustack.base.arguments cimport timeout_ns
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.types cimport ip_addr_t
from ustack.blocking.backlog cimport Backlog
from ustack.blocking.connection cimport Connection
from ustack.blocking.options cimport ensure_option, option_code, option_name, option_number
from ustack.blocking.sockets cimport SocketApplication
from ustack.link.gate cimport warn_unclosed

import errno

from ustack.errors import StackError, WouldBlock


cdef class Listener:
    """A port in LISTEN. Made by Stack.listen().

    Dropped without close() it stops listening, with a ResourceWarning; one whose connections an Application takes goes
    on: nobody needs the object.
    """

    def __cinit__(self) -> None:
        self.options = {}

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

        timeout: seconds; None: that of settimeout(), for ever at first; 0: BlockingIOError if there is none now. Raises
        TimeoutError after it, ValueError when the listener or the stack is closed.
        """
        cdef Connection connection = None
        if timeout is None:
            timeout = self.timeout
        if not self.open:
            raise ValueError("accept(): the listener is closed")
        what = f"accept() on port {self.port}: no connection came"
        self.stack.enter("accept()")
        self.stack.leave()                  # what is due is called, and raised, while nothing is taken
        self.stack.enter("accept()")
        try:
            if not self.open:
                raise ValueError("accept(): the listener is closed")
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
            if connection is None:
                self.stack.leave()
            else:
                self.stack.gate.leave()

    def settimeout(self, timeout: float | None) -> None:
        """Seconds that accept() waits when it is not told otherwise. None: for ever. 0: BlockingIOError instead. What
        it accepts waits for ever at first, as a socket."""
        timeout_ns(timeout)
        self.timeout = None if timeout is None else float(timeout)

    def gettimeout(self) -> float | None:
        """What settimeout() has set; None at first."""
        return self.timeout

    def setblocking(self, flag: bool) -> None:
        """settimeout(None) or settimeout(0)."""
        self.timeout = None if flag else 0.0

    def set_option(self, name: str, value: object) -> None:
        """Set an option that connections begin with which it accepts from now on, by Linux's name (Connection has the
        same call; `ustack info --options`). TCP_MAXSEG and TCP_DEFER_ACCEPT are the port's own.

        Raises StackError with ENOPROTOOPT for a name that there is not, ValueError and TypeError for a value.
        """
        cdef int code
        cdef uint32_t number = 0
        call = f"set_option({name!r})"
        ensure_option(call, name, True, True)
        if not self.open:                   # one that nobody made has no stack either
            raise ValueError(f"{call}: the listener is closed")
        self.stack.enter(call)
        try:
            code = option_code(name)
            if name == "SO_LINGER":
                number = 0 if value is None else <uint32_t>option_number(call, name, value)
            elif code == OPTION_CC:
                number = self.stack.control_number(value)
            else:
                number = <uint32_t>option_number(call, name, value)
            if code == OPTION_MSS or code == OPTION_DEFER_ACCEPT_S:
                self.set_own(code, number)
            elif self.backlog is None:
                raise StackError("unsupported", f"{call}: its Application sets what its connections have",
                                 errno.EOPNOTSUPP)
            elif name == "SO_LINGER":
                self.backlog.linger = None if value is None else number
            else:
                self.backlog.inherit(code, number == 0 if code == OPTION_MAY_FRAGMENT else number)
            self.options[name] = number if code != OPTION_CC else value
        finally:
            self.stack.leave()

    cdef int set_own(self, int code, uint32_t number) except -1:
        cdef ip_addr_t local
        if self.address is not None:
            ip_addr_from_text(self.address, &local)
        if self.stack.set_listener_option(&local if self.address is not None else NULL, self.port, code,
                                          number) != CALL_OK:
            raise ValueError("set_option(): nobody listens there any more")
        return 0

    def option(self, name: str) -> object:
        """What set_option() has set; None: nothing, its connections begin with what is usual."""
        ensure_option(f"option({name!r})", name, True, False)
        return self.options.get(name)

    def setsockopt(self, level: int, optname: int, value: object) -> None:
        """set_option() as a socket has it, with a number."""
        self.set_option(option_name("setsockopt()", level, optname), value)

    def close(self) -> None:
        """Stop listening; connections that nobody has accepted are reset. Pollers watch it no longer. Idempotent."""
        left = None                         # let go outside of the gate (Watched.unwatch)
        if not self.open:
            return
        if not self.stack.alive:
            self.open = False
            if self.backlog is not None:
                left = self.backlog.unwatch()
            return
        self.stack.enter("Listener.close()")
        try:
            if self.backlog is not None:
                left = self.backlog.unwatch()
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
