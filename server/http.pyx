# SPDX-License-Identifier: MIT
"""The HTTP server: static files over HTTP/1.1, as an application of the engine, in nogil Cython.

    bytes ──▶ the same head as last time? ──▶ remembered? ──▶ plain? ──▶ kept until the hand-over: decide.pyx decides
                         │                          │            │                │
                         └──────────────────────────┴────────────┴────────────────┴──▶ decision
                                                    ──▶ ready-made response, lent to the send queue

A response to a small file is head and body in one buffer, prepared once and dated again each second; a large file is
mapped, and lent as it is. Nothing of this takes the GIL but a head that was not seen before, and only if it is more
than an ordinary request for one more path (plainheads). All such heads of a turn are decided in its hand-over, with the
GIL taken once (asking).

It must not write into what is lent, must not wait for anything, and must not read a clock on the data path: monotonic
time comes with the burst, the wall clock as an offset that `housekeeping` sets.

Read first: RFC 9112 (framing, connections), RFC 9110 (semantics); ustack/application.pxd.
Above: the command line. Below: everything else in this folder, from records up to receiving; application.pxd.
"""

import logging
import os
import stat
import time

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_TAKEN, CONN_ACTIVE, OPTION_LOW_WATER, OPTION_NODELAY, Application, Transport, application_t,
    close_reason_t, conn_t, transport_t, turn_charge, turn_spent)
from ustack.server.asking cimport decide_waiting
from ustack.server.connection cimport (
    connection_abort, connection_close, connection_idle, connection_linger, linger_data, linger_timeout)
from ustack.server.dates cimport write_http_date
from ustack.server.decide cimport Decider, interrupted
from ustack.server.exchange cimport exchange_end, exchange_of, exchanges_begin, exchanges_end
from ustack.server.filetable cimport files_begin, files_check_some, files_end, files_forget
from ustack.server.headtable cimport heads_begin, heads_end
from ustack.server.loading cimport Loader
from ustack.server.logring cimport log_begin, log_drain, log_end, log_half_full
from ustack.server.plainheads cimport plain_begin, plain_end
from ustack.server.ready cimport ready_begin, ready_end
from ustack.server.receiving cimport body_more, head_more, refuse_held, request
from ustack.server.records cimport (
    BODY_BYTES_UNIT_SHIFT, CLOSING, EXCHANGE_EOF, EXCHANGE_MASK, EXCHANGE_TAIL, PHASE_BODY, PHASE_DRAIN, PHASE_HEAD,
    PHASE_LINGER, PHASE_SENDING, PHASE_UNDECIDED, REQUEST_UNITS, SEEN_MASK, SEEN_SHIFT, TAKE_GIL_UNITS, exchange_t,
    server_t)
from ustack.server.sending cimport damaged, drain, response_end, send_more
from ustack.server.settings cimport settings_apply
from ustack.server.statistics cimport statistics_of

from ustack.server import accesslog, request as requests

_log = logging.getLogger("ustack.server")

cdef extern from "Python.h":
    int PyGILState_Check() nogil

cdef enum:
    FILES_CHECKED = 64                  # against the disk, by a call of housekeeping


# ---------------------------------------------------------------- upcalls (the contract is in application.pxd)

cdef int http_on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    if transport.status(transport, conn) & CONN_ACTIVE or server.closing or server.finishing:
        return ACCEPT_REFUSED
    server.stats.connections += 1
    server.stats.connections_open += 1
    # Every response is queued whole: waiting to fill a segment gains nothing.
    transport.set_option(transport, conn, OPTION_NODELAY, 1)
    connection_idle(server, transport, conn)
    return ACCEPT_TAKEN


cdef inline void charge(server_t *server, const transport_t *transport, uint32_t units) noexcept nogil:
    """Charge what was done to the turn."""
    turn_charge(transport, units + server.units)
    server.units = 0


cdef size_t http_on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                         size_t length) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    cdef exchange_t *exchange
    cdef size_t used = 0, before
    if server.closing:
        connection_abort(server, transport, conn)
    while used < length:
        if conn.user_data & CLOSING:
            return length
        if turn_spent(transport):
            server.stats.put_off += 1
            transport.resume(transport, conn)       # others have their turn first
            return used
        exchange = exchange_of(server, conn)
        if exchange == NULL:
            if transport.send_queued(transport, conn) > server.max_queued_bytes and (
                    transport.send_queued(transport, conn) > transport.option(transport, conn, OPTION_LOW_WATER)):
                # A client that asks faster than it reads: leave the rest to the receive window.
                transport.want_writable(transport, conn)
                return used
            used += request(server, transport, conn, data + used, length - used)
            charge(server, transport, REQUEST_UNITS)
        elif exchange.phase == PHASE_HEAD:
            used += head_more(server, transport, conn, exchange, data + used, length - used)
            charge(server, transport, REQUEST_UNITS)
        elif exchange.phase == PHASE_BODY:
            before = used
            used += body_more(server, transport, conn, exchange, data + used, length - used)
            charge(server, transport, REQUEST_UNITS + <uint32_t>(used - before >> BODY_BYTES_UNIT_SHIFT))
        elif exchange.phase == PHASE_SENDING or exchange.phase == PHASE_UNDECIDED:
            return used
        elif exchange.phase == PHASE_DRAIN:
            if not exchange.flags & EXCHANGE_TAIL and transport.send_queued(transport, conn):
                return used
            if damaged(server, exchange):
                server.stats.damaged_aborted += 1
                connection_abort(server, transport, conn)
                return length
            response_end(server, transport, conn, exchange.flags)
        else:
            return used + linger_data(server, transport, conn, exchange, length - used)
    return used


cdef void http_on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    cdef exchange_t *exchange = exchange_of(server, conn)
    if server.closing:
        connection_abort(server, transport, conn)
    if conn.user_data & CLOSING:
        return
    conn.user_data &= EXCHANGE_MASK         # what was seen queued is no measure of a stall any more
    if exchange == NULL:
        transport.resume(transport, conn)
    elif exchange.phase == PHASE_SENDING:
        transport.set_timeout(transport, conn, server.send_timeout_ns)
        send_more(server, transport, conn, exchange)
        if not conn.user_data & CLOSING:
            transport.resume(transport, conn)       # what came meanwhile was left in the receive queue
    elif exchange.phase == PHASE_DRAIN:
        drain(server, transport, conn, exchange)
    charge(server, transport, 0)


cdef void http_on_eof(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    cdef exchange_t *exchange = exchange_of(server, conn)
    if conn.user_data & CLOSING:
        return
    if exchange != NULL and exchange.phase == PHASE_UNDECIDED and not server.closing:
        exchange.flags |= EXCHANGE_EOF  # it counts when the head is decided
    elif exchange != NULL and (exchange.phase == PHASE_SENDING or exchange.phase == PHASE_DRAIN) and not server.closing:
        exchange.flags |= EXCHANGE_EOF  # a half-closed client still gets its response
        if exchange.flags & EXCHANGE_TAIL:
            drain(server, transport, conn, exchange)
    elif exchange != NULL and exchange.phase == PHASE_LINGER and transport.send_queued(transport, conn):
        exchange.flags |= EXCHANGE_EOF
    else:
        connection_close(server, transport, conn)


cdef void http_on_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    cdef exchange_t *exchange = exchange_of(server, conn)
    cdef uint64_t queued = transport.send_queued(transport, conn), seen = conn.user_data >> SEEN_SHIFT & SEEN_MASK
    if server.closing:
        connection_abort(server, transport, conn)
    elif exchange != NULL and (exchange.phase == PHASE_HEAD or exchange.phase == PHASE_BODY):
        server.stats.head_timeouts += 1
        refuse_held(server, transport, conn, exchange, 408)
    elif exchange != NULL and exchange.phase == PHASE_LINGER:
        linger_timeout(server, transport, conn, exchange)
    elif exchange != NULL and exchange.phase == PHASE_UNDECIDED:
        transport.set_timeout(transport, conn, server.send_timeout_ns)      # it waits for us, not for its client
    elif queued and (seen == 0 or queued < seen):
        # Something was acknowledged since the last look, or this is the first: wait on.
        conn.user_data = conn.user_data & (EXCHANGE_MASK | CLOSING) | (queued & SEEN_MASK) << SEEN_SHIFT
        transport.set_timeout(transport, conn, server.send_timeout_ns)
    elif queued:
        server.stats.stalled_aborted += 1
        connection_abort(server, transport, conn)
    elif exchange != NULL and exchange.phase == PHASE_DRAIN:
        drain(server, transport, conn, exchange)
    else:
        server.stats.idle_closed += 1
        connection_close(server, transport, conn)
    charge(server, transport, 0)


cdef uint32_t http_on_hand_over(application_t *app, const transport_t *transport) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    cdef uint32_t decided
    if server.undecided.first == 0:
        return 0
    server.stats.hand_overs += 1
    if not PyGILState_Check():
        server.stats.gil_taken += 1
    server.units += TAKE_GIL_UNITS
    with gil:
        decided = decide_waiting(server, transport)
    if log_half_full(&server.log):
        log_drain(&server.log)
    return decided


cdef void http_on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                         close_reason_t reason) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    server.stats.connections_open -= 1
    if conn.user_data & CLOSING:
        server.stats.connections_ending -= 1
    exchange_end(server, transport, conn)
    conn.user_data = 0
    if server.closing and server.stats.connections_open == 0:
        server_free(server)


cdef void finish_idle(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    """HttpServer.finish: a connection on which nothing is going on ends now."""
    cdef server_t *server = <server_t *>app.context
    if conn.user_data & (EXCHANGE_MASK | CLOSING) == 0 and transport.receivable(transport, conn) == 0:
        server.stats.idle_closed += 1
        connection_linger(server, transport, conn)


cdef void server_free(server_t *server) noexcept nogil:
    """Give everything back. Idempotent. No connection may be open: the records of busy ones go as well."""
    heads_end(server)
    files_end(server)
    log_end(&server.log)
    exchanges_end(server)
    plain_end(server)
    ready_end(server)


cdef void http_on_burst_begin(application_t *app, uint64_t now_ns) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    if not server.wall_known:
        set_wall_offset(server, now_ns)
    server.units = 0                    # housekeeping's is no connection's
    tick(server, now_ns)


cdef void http_on_burst_end(application_t *app, uint64_t now_ns) noexcept nogil:
    cdef server_t *server = <server_t *>app.context
    if log_half_full(&server.log):
        log_drain(&server.log)


# ---------------------------------------------------------------- time

cdef void tick(server_t *server, uint64_t now_ns) noexcept nogil:
    """Take the engine's time; at a new second, write the date that responses carry."""
    cdef uint64_t wall_ns
    server.now_ns = now_ns
    if now_ns < server.next_second_ns:
        return
    wall_ns = <uint64_t>(<int64_t>now_ns + server.wall_offset_ns)
    server.second = <int64_t>(wall_ns / 1_000_000_000)
    server.next_second_ns = now_ns + 1_000_000_000 - wall_ns % 1_000_000_000
    server.checks_left = server.checks_per_second
    write_http_date(server.date, server.second)


cdef void set_wall_offset(server_t *server, uint64_t now_ns) noexcept with gil:
    cdef HttpServer owner = <HttpServer>server.owner
    try:
        owner.set_wall_clock(now_ns)
    except BaseException as error:      # the offset stays what it was, and is asked for again with the next burst
        if not interrupted(server, error):
            _log.error("the wall clock could not be read", exc_info=error)


cdef class HttpServer(Application):
    """Serves the files below `directory`. One engine's application: pass it to Stack.listen(port, application=...)."""

    cdef server_t s
    cdef readonly object limits
    cdef object root
    cdef object log_file
    cdef object wall_clock
    cdef Decider decider

    def __cinit__(self, *args, **options):
        memset(&self.s, 0, sizeof(server_t))
        self.s.owner = <PyObject *>self
        self.s.app = &self.c
        self.s.log.fd = -1
        self.s.closing = 1                  # until __init__ is through
        self.c.context = &self.s
        self.c.on_accept = http_on_accept
        self.c.on_data = http_on_data
        self.c.on_writable = http_on_writable
        self.c.on_eof = http_on_eof
        self.c.on_timeout = http_on_timeout
        self.c.on_closed = http_on_closed
        self.c.on_burst_begin = http_on_burst_begin
        self.c.on_burst_end = http_on_burst_end
        self.c.on_hand_over = http_on_hand_over

    def __init__(self, directory, *, access_log=None, server_name="ustack", idle_timeout_s=75.0, head_timeout_s=20.0,
                 send_timeout_s=60.0, linger_s=2.0, revalidate_s=1.0, checks_per_second=1000, max_head_bytes=16384,
                 max_request_line_bytes=8192, max_header_count=100, max_body_bytes=65536, max_heads=4096,
                 max_heads_bytes=1 << 24, max_files=1024, max_held_bytes=1 << 34, max_copied_bytes=1 << 28,
                 small_file_bytes=49152, max_queued_bytes=262144, max_busy=1 << 20, max_request_bytes=1 << 26,
                 max_response_bytes=1 << 26, max_header_sections=256, log_lines=16384, hash_key=None,
                 wall_clock=time.time_ns):
        """Raises OSError if `directory` or the log cannot be opened, ValueError for a limit out of its range.

        access_log: a path (appended to, reopened when it is moved away), a descriptor, or None.
        revalidate_s: the longest that a change of a file goes unnoticed; mostly it is seen at once (checks_per_second).
        max_held_bytes: of mapped files and responses to small ones together; max_copied_bytes: of the bodies among them
        that are copies. max_heads_bytes: of remembered heads with their responses. max_request_bytes: of all requests
        that are not complete. max_response_bytes: of copies of responses and log lines, in flight or remembered.
        max_header_sections: that are remembered for themselves, so that a new path with a known section is decided
        without Python; rounded down to a power of two, 0 for none.
        hash_key: 16 bytes, random unless given.
        wall_clock: nanoseconds since 1970; read at most once per second.
        """
        if self.root is not None:
            raise RuntimeError("a server is initialised once")
        settings_apply(&self.s, locals())       # those of the arguments that it knows by name
        self.limits = requests.Limits(max_head_bytes, max_request_line_bytes, max_header_count, max_body_bytes)
        self.wall_clock = wall_clock
        self._decide_with(Loader(directory, max_files), server_name.encode("ascii"))
        self.log_file = accesslog.LogFile(access_log)
        self._allocate(max_heads, max_files, max_busy, log_lines, hash_key or os.urandom(16))
        self._watch_log()
        plain_begin(&self.s, max_header_sections)
        self.decider.prepare_shared()
        self.set_wall_clock(0)
        self.s.wall_known = 0           # the engine's monotonic time is not known before its first burst
        self.s.closing = 0

    def _decide_with(self, Loader loader, server_name):
        loader.s = &self.s
        self.root = loader.root
        self.s.root_fd = self.root.fd
        self.decider = Decider(loader, self.limits, server_name)
        self.decider.s = &self.s
        self.s.decider = <PyObject *>self.decider

    def _allocate(self, uint32_t max_heads, uint32_t max_files, uint32_t max_busy, uint32_t log_lines,
                  bytes hash_key):
        if len(hash_key) != 16:
            raise ValueError("hash_key must have 16 bytes")
        memcpy(self.s.hash_key, PyBytes_AS_STRING(hash_key), 16)
        if (heads_begin(&self.s, max_heads) != 0 or files_begin(&self.s, max_files) != 0 or ready_begin(&self.s) != 0
                or log_begin(&self.s.log, log_lines) != 0 or exchanges_begin(&self.s, max_busy) != 0):
            raise MemoryError

    def __dealloc__(self):
        server_free(&self.s)

    def close(self):
        """Write the log, give back every file. Idempotent.

        Connections that are open are aborted at their next event, and memory is given back with the last of them.
        """
        self.enter("HttpServer.close()")
        try:
            self._close()
        finally:
            self.leave()

    def _close(self):
        if self.s.closing:
            return
        self.s.closing = 1
        log_drain(&self.s.log)
        self.s.log.fd = -1
        self.log_file.close()
        self.root.close()
        if self.s.stats.connections_open == 0:
            server_free(&self.s)

    def finish(self, Transport transport not None):
        """Begin the end: take no connection any more, send a FIN on every idle one, and let each of the others end
        with the response that is under way, which says `Connection: close`.

        transport: the stack that this server was given to. It has to be run until `finished`. Idempotent.
        """
        if self.s.finishing or self.s.closing or not transport.alive or self.transport != transport.table:
            return
        transport.enter("finish()")
        try:
            self.s.finishing = 1
            self.s.last = NULL          # responses that were prepared before do not say that they are the last
            tick(&self.s, transport.now())
            self.transport.each(self.transport, &self.c, finish_idle)
            transport.push()
        finally:
            transport.leave()

    @property
    def finished(self):
        """No connection is left that waits for something of this server's."""
        return self.s.stats.connections_open == self.s.stats.connections_ending

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ------------------------------------------------------------ once per second

    cdef void set_wall_clock(self, uint64_t now_ns) except *:
        self.s.wall_offset_ns = <int64_t>self.wall_clock() - <int64_t>now_ns
        self.s.wall_known = 1
        self.s.next_second_ns = 0
        tick(&self.s, now_ns)

    def housekeeping(self, now_ns=None):
        """Write the log, follow the wall clock, a moved log and a replaced root; look for changed files, a few a call.

        About once per second, by the thread that runs the engine. now_ns: the engine's time, if it is known.
        """
        self.enter("HttpServer.housekeeping()")
        try:
            self._housekeeping(now_ns)
        finally:
            self.leave()

    def _housekeeping(self, now_ns):
        if self.s.closing:
            return
        if now_ns is not None:
            self.set_wall_clock(now_ns)     # its callable cannot close the server: we are inside
        else:
            self.s.wall_known = 0       # the next burst brings the time to compare with
        log_drain(&self.s.log)
        self.log_file.follow()
        self._watch_log()
        if self.root.replaced():
            files_forget(&self.s)
        files_check_some(&self.s, FILES_CHECKED)

    def _watch_log(self):
        self.s.log.fd = self.log_file.fd
        self.s.log.is_regular = self.s.log.fd >= 0 and stat.S_ISREG(os.fstat(self.s.log.fd).st_mode)

    def stats(self):
        """Counts since the start, and what is held now."""
        return statistics_of(&self.s)

    # ------------------------------------------------------------ deciding

    def decide(self, bytes head not None):
        """The status that a complete request head gets, decided anew as for one that was never seen. Nothing is sent:
        for benchmarks (tools/bench_heads.py) and fuzzers. Raises ValueError when the server is closed."""
        self.enter("HttpServer.decide()")
        try:
            if self.s.closing:
                raise ValueError("the server is closed")
            return self.decider.status_of(head)
        finally:
            self.leave()
