# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""A connection of a Stack: receiving, sending and its end, in the caller's thread.

A blocking call drives the engine until it can return; with a manual clock it does what it can at once. It must not:
know the protocol, nor what carries its bytes. Above: sockets, listener, stack. Below: endpoint, streams, application.

A Connection has a socket's methods under a socket's names (recv, sendall, makefile, settimeout, ...), so that code
written for sockets takes it: http.client works on one. It has no descriptor: fileno() says so.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from ustack.application cimport (
    CALL_OK, CLOSE_NORMAL, CONN_ABORTED, CONN_EOF, OPTION_LOW_WATER, OPTION_MORE, OPTION_URGENT, Transport, conn_t,
    transport_t)
from ustack.base.arguments cimport timeout_ns, whole
from ustack.blocking.endpoint cimport Endpoint, error_of_status
from ustack.blocking.watched cimport watches_wake
from ustack.buf.lent cimport lent_from_object, lent_release_pending, lent_t, lent_unref
from ustack.link.gate cimport warn_unclosed

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

import errno
import io
import socket

from ustack.application import reason_name
from ustack.blocking.streams import open_stream
from ustack.errors import SendAfterEnd, StackError, WouldBlock, error_of


cdef enum:
    # <sys/socket.h>'s, which Linux's ABI fixes
    MSG_OOB = 0x01
    MSG_PEEK = 0x02
    MSG_DONTWAIT = 0x40
    MSG_WAITALL = 0x100
    MSG_NOSIGNAL = 0x4000
    MSG_MORE = 0x8000
    RECEIVE_FLAGS = MSG_PEEK | MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL
    SEND_FLAGS = MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE


cdef class Connection(Endpoint):
    """One TCP connection. Made by Listener.accept() and Stack.connect().

    Its methods are those of a socket, in a socket's words (recv, sendall) or the stack's (receive, send). Every
    exception is an OSError with a socket's errno, and has the stack's `reason`. Dropped without close() it is closed,
    with a ResourceWarning. After a normal end it keeps what was not read, at most one receive buffer, while the program
    keeps it.
    """

    def __del__(self) -> None:
        if self.conn != NULL and not self.closed and self.backlog is None:
            warn_unclosed(self)
            self.stack.gate.defer(self._finish_dropped)     # which keeps us alive until then

    def _finish_dropped(self) -> None:
        if self.conn != NULL and self.stack.alive:
            self.finish()
            self.stack.push_with_gil()

    cdef object patience(self, object timeout):
        return self.timeout if timeout is None else timeout

    # ------------------------------------------------------------ receiving

    cdef Transport enter_to_take(self, str call):
        """As enter(). What is due is called, and raised, while nothing is taken: leave_with() does neither then."""
        cdef Transport stack = self.enter(call)
        stack.leave()
        return self.enter(call)

    cdef int leave_with(self, Transport stack, bint taken) except -1:
        """What was taken would be lost by what leaving may raise: that waits for the next call."""
        if taken:
            stack.gate.leave()
        else:
            stack.leave()
        return 0

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

    cdef bytes take_some(self, size_t wanted):
        """Up to so many bytes of what is there, not beyond the urgent ones. Inside the gate."""
        cdef size_t length
        cdef bytes out
        wanted = self.up_to_mark(wanted)
        if self.conn == NULL:
            out, self.rest = self.rest[:wanted], self.rest[wanted:]
            self.rest_urgent -= min(self.rest_urgent, <size_t>len(out))
            return out
        length = self.transport.receivable(self.transport, self.conn)
        self.stack.now()
        return take_bytes(self.transport, self.conn, length if length < wanted else wanted)

    cdef size_t up_to_mark(self, size_t wanted) noexcept:
        """RFC 9293 section 3.9.1.3: what follows urgent data comes in no buffer with it."""
        cdef size_t urgent = self.urgent_now()
        return urgent if urgent and urgent < wanted else wanted

    cdef bytes look_at(self, size_t wanted):
        """The same, and nothing changes by it."""
        cdef size_t length
        wanted = self.up_to_mark(wanted)
        if self.conn == NULL:
            return self.rest[:wanted]
        length = self.transport.receivable(self.transport, self.conn)
        return copy_bytes(self.transport, self.conn, length if length < wanted else wanted)

    cdef bytes receive_some(self, str call, size_t wanted, object timeout, int flags):
        cdef Transport stack = self.enter_to_take(call)
        cdef list parts = []
        cdef bytes out
        cdef size_t urgent
        if flags & MSG_DONTWAIT:
            timeout = 0
        try:
            while True:
                if not self.wait_readable(timeout):
                    return b"".join(parts)
                urgent = self.urgent_now()
                out = self.look_at(wanted) if flags & MSG_PEEK else self.take_some(wanted)
                if not flags & MSG_PEEK:
                    stack.push()            # the window may be worth an announcement
                parts.append(out)
                wanted -= <size_t>len(out)
                if wanted == 0 or not flags & MSG_WAITALL or flags & MSG_PEEK or urgent == <size_t>len(out):
                    return b"".join(parts)
        except (BlockingIOError, TimeoutError):
            if not parts:
                raise
            return b"".join(parts)
        finally:
            self.leave_with(stack, len(parts) > 0)

    def receive(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        """Up to `max_bytes` bytes, at least one; b"" when the peer has closed its side.

        timeout: seconds; None: that of settimeout(), for ever at first; 0: BlockingIOError if there is nothing now.
        What is urgent and what follows it are never in one piece (urgent_bytes). Raises the connection's end
        (ConnectionReset, ConnectionTimeout, ...) unless it was a normal one.
        """
        return self.receive_some("receive()", whole("max_bytes", max_bytes, 1, PY_SSIZE_T_MAX), timeout, 0)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """receive() as a socket has it: at most bufsize bytes, b"" at the end.

        flags: MSG_PEEK (what is read stays to be read, and the peer's window as it is), MSG_DONTWAIT, MSG_WAITALL (all
        of bufsize, unless the end, an error, the timeout or the end of urgent data comes first).
        """
        known_flags("recv()", flags, RECEIVE_FLAGS)
        cdef size_t wanted = whole("bufsize", bufsize, 0, PY_SSIZE_T_MAX)
        return b"" if wanted == 0 else self.receive_some("recv()", wanted, None, flags)

    def recv_into(self, buffer: object, nbytes: int = 0, flags: int = 0) -> int:
        """Receive straight into a writable buffer: at most nbytes (0: its size). The number of bytes, 0 at the end.
        flags: as recv()."""
        cdef Py_buffer view
        cdef Transport stack
        cdef size_t room, length = 0
        cdef bytes some
        known_flags("recv_into()", flags, RECEIVE_FLAGS)
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)   # may run the exporter's code: before we enter
        try:
            room = <size_t>view.len
            if nbytes != 0:
                room = whole("nbytes", nbytes, 0, view.len)
            if room == 0:
                return 0
            if flags or self.conn == NULL:
                some = self.receive_some("recv_into()", room, None, flags)
                memcpy(view.buf, PyBytes_AS_STRING(some), <size_t>len(some))
                return len(some)
            stack = self.enter_to_take("recv_into()")
            try:
                if not self.wait_readable(None):
                    return 0
                if self.conn == NULL:
                    some = self.take_some(room)
                    length = <size_t>len(some)
                    memcpy(view.buf, PyBytes_AS_STRING(some), length)
                    return length
                stack.now()
                length = self.transport.receive(self.transport, self.conn, <uint8_t *>view.buf, self.up_to_mark(room))
                stack.push()
                return length
            finally:
                self.leave_with(stack, length > 0)
        finally:
            PyBuffer_Release(&view)

    # ------------------------------------------------------------ sending

    def send(self, data: object, timeout: float | None = None, *, flags: int = 0) -> int:
        """Lend `data` (any contiguous buffer; do not change it until it is acknowledged) to the send queue.

        Returns its length when all of it is queued, which waits for room if the queue is full; with a manual clock, or
        timeout 0, what was accepted at once. timeout: seconds; None: that of settimeout(); 0: BlockingIOError if there
        is no room now. After a TimeoutError a part may have been queued. flags: MSG_MORE (more follows: what is no
        whole segment waits for it, 200 ms at most), MSG_OOB (all of it is urgent, and so is what was queued before and
        waits: the peer is told at once where that ends), MSG_DONTWAIT, MSG_NOSIGNAL (as ever). Raises the connection's
        end, or BrokenPipeError after shutdown() or close().
        """
        cdef lent_t *lent
        cdef uint64_t total, sent = 0
        cdef int64_t accepted
        cdef Transport stack
        known_flags("send()", flags, SEND_FLAGS)
        if flags & MSG_DONTWAIT:
            timeout = 0
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
            if flags & MSG_MORE or self.more:
                self.say_more(flags & MSG_MORE)
            while True:
                stack.now()
                accepted = self.transport.send(self.transport, self.conn, lent, sent, total - sent)
                if accepted < 0:
                    raise error_of_status(<int>accepted, f"send() to {self.where()}")
                sent += <uint64_t>accepted
                if flags & MSG_OOB and accepted:
                    self.say_urgent()
                if sent < total:
                    self.await_room()       # whoever waits for EPOLLOUT edge by edge
                stack.push()
                if sent == 0 and total > 0 and timeout is not None and timeout == 0:
                    raise WouldBlock("would_block", f"send() to {self.where()}: there is no room", errno.EAGAIN)
                if sent == total or stack.manual_clock or (timeout is not None and timeout == 0):
                    return sent
                stack.wait_until(lambda: self.has_room(), timeout,
                                 f"send() to {self.where()}: {sent} of {total} bytes queued, the peer took no more")
                self.need_conn("send()")
        finally:
            lent_unref(lent)
            stack.leave()

    cdef int say_more(self, bint more) except -1:
        """Before the data is queued: nothing is sent before it is pushed."""
        cdef int status = self.transport.set_option(self.transport, self.conn, OPTION_MORE, more)
        if status != CALL_OK:
            raise error_of_status(status, f"send() to {self.where()}: MSG_MORE")
        self.more = more
        return 0

    cdef int say_urgent(self) except -1:
        """Of what is queued, before it is pushed."""
        cdef int status = self.transport.set_option(self.transport, self.conn, OPTION_URGENT, 1)
        if status != CALL_OK:
            raise error_of_status(status, f"send() to {self.where()}: MSG_OOB: it is queued, but not as urgent")
        return 0

    def sendall(self, data: object, flags: int = 0) -> None:
        """Queue all of `data` as send() does, within the time of settimeout(). flags: as send().

        Raises BlockingIOError with `characters_written` if it may not wait and not all of it has room.
        """
        cdef uint64_t total = memoryview(data).nbytes
        cdef uint64_t sent = 0
        try:
            sent = self.send(data, None, flags=flags)
        except BlockingIOError:
            pass
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

    # ------------------------------------------------------------ urgent data

    @property
    def on_urgent(self) -> object:
        """Called with the connection when the peer has urgent data and had none, or has more of it (MUST-32; a socket's
        SIGURG); None, at first: nobody wants to know.

        It is called in the thread that drives the stack, between two turns or at the end of the call that made one (of
        one that gives something back, at the beginning of the next), and may use the stack: urgent_bytes says how much
        there is to be read. What it raises goes to sys.unraisablehook, but what interrupts it (KeyboardInterrupt, what
        a signal handler raises) comes out of run(), or of the call.
        """
        return self.urgent_handler

    @on_urgent.setter
    def on_urgent(self, handler: object):
        if handler is not None and not callable(handler):
            raise TypeError(f"on_urgent is a callable or None, not {type(handler).__name__}")
        self.urgent_handler = handler

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
            self.shut = True
            watches_wake(self.watches, 0)
            stack.push()
        finally:
            stack.leave()

    def close(self) -> None:
        """Done with both directions. What is queued is still delivered; unread data makes it a reset (SHLD-3).

        Files of makefile() that are open keep the connection open until the last of them is closed. With SO_LINGER it
        waits, or resets. Pollers watch it no longer. Idempotent.
        """
        cdef Transport stack
        left = None                         # let go outside of the gate (Watched.unwatch)
        if self.conn == NULL:
            self.closed = True
            left = self.unwatch()
            return
        stack = self.enter("close()")
        try:
            if self.files > 0:
                self.close_later = True
                return
            left = self.unwatch()
            if self.linger == 0:
                self.give_up()
            else:
                self.finish()
                stack.push()
                if self.linger and not stack.manual_clock:
                    self.wait_delivered()
        finally:
            stack.leave()

    cdef int wait_delivered(self) except -1:
        """Until the peer has all that was queued, and our FIN; SO_LINGER's time at most, as on Linux without a word."""
        try:
            self.stack.wait_until(lambda: self.state in ("FIN-WAIT-2", "CLOSED"), self.linger,
                                  f"close() of the connection with {self.where()}")
        except TimeoutError:
            pass
        return 0

    def abort(self) -> None:
        """Reset the connection now. Pollers watch it no longer. Idempotent."""
        cdef Transport stack
        left = None                         # as in close()
        if self.conn == NULL:
            self.closed = True
            left = self.unwatch()
            return
        stack = self.enter("abort()")
        try:
            left = self.unwatch()
            self.give_up()
        finally:
            stack.leave()

    def detach(self) -> int:
        """Raise io.UnsupportedOperation: there is no descriptor to detach."""
        return self.fileno()

    # ------------------------------------------------------------ as sockets have it

    def fileno(self) -> int:
        """Raise io.UnsupportedOperation: a connection inside this process has no descriptor.

        To wait for many of them, use Stack.poller(). To wait in an event loop, wait for Link.fileno() until
        Stack.next_deadline_ns, and poll() the stack.
        """
        raise io.UnsupportedOperation(
            "fileno(): a connection of this stack lives in the process and has no descriptor; Stack.poller() waits for "
            "many of them; or wait for Link.fileno() and call Stack.poll()")

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


cdef bytes copy_bytes(const transport_t *transport, conn_t *conn, size_t length):
    """The first so many of those that are receivable, which stay there."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    cdef uint8_t *room = <uint8_t *>PyBytes_AS_STRING(out)
    cdef const uint8_t *view
    cdef size_t copied = 0
    cdef uint32_t step = 0
    while copied < length:
        view = transport.peek(transport, conn, <uint32_t>copied, &step)
        if view == NULL:
            return out[:copied]
        if step > length - copied:
            step = <uint32_t>(length - copied)
        memcpy(room + copied, view, step)
        copied += step
    return out


cdef int known_flags(str call, object flags, int known) except -1:
    if flags & MSG_OOB & ~known:
        raise StackError("flags", f"{call}: MSG_OOB: urgent data is received in line, as by a socket with "
                         "SO_OOBINLINE; urgent_bytes says how much", errno.EINVAL)
    if flags & ~known:
        raise StackError("flags", f"{call}: flags {flags!r}: there are none but {flag_names(known)}", errno.EOPNOTSUPP)
    return 0


cdef str flag_names(int known):
    cdef tuple names = ("MSG_PEEK", "MSG_DONTWAIT", "MSG_WAITALL", "MSG_NOSIGNAL", "MSG_MORE", "MSG_OOB")
    return ", ".join([name for name in names if getattr(socket, name) & known])
