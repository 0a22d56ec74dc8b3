# SPDX-License-Identifier: MIT
"""The HTTP server: static files over HTTP/1.1, as an application of the engine, in nogil Cython.

    octets ──▶ the same head as last time? ──▶ remembered? ──▶ one call of the parser (GIL): request.py decides
                         │                          │                     │
                         └──────────────────────────┴─────────────────────┴──▶ decision ──▶ ready-made response,
                                                                                            lent to the send queue

A response to a small file is head and body in one buffer, prepared once and dated again each second; a large file is
mapped, and lent as it is. Nothing of this takes the GIL but a head that was not seen before, and only if it is more
than an ordinary request for one more path (plainheads.pxi).

It must not write into what is lent, must not wait for anything, and must not read a clock on the data path: monotonic
time comes with the burst, the wall clock as an offset that `housekeeping` sets.

Read first: RFC 9112 (framing, connections), RFC 9110 (semantics); ustack/application.pxd.
Above: the command line. Below: application.pxd, tcp/calls.pxd, buf/lent.pxd; request, files, response, accesslog (.py).
Below, in this folder: records, chunks, dates, grammar, logring. In parts: ready, heads (remembered), filetable,
plainheads, connection (.pxi, included here, one module).
"""

import logging
import os
import stat
import time

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.errno cimport EINTR, ENAMETOOLONG, ENOENT, ENOSYS, ENOTDIR, EPERM, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset, strdup, strlen, strrchr

from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_TAKEN, Application, application_t, close_reason_t, conn_t, transport_t)
from ustack.base.prng cimport siphash13
from ustack.buf.lent cimport lent_from_copy, lent_from_file, lent_ref, lent_t, lent_unref
from ustack.buf.slab cimport slab_alloc, slab_at, slab_destroy, slab_init, slab_release
from ustack.engine.owner cimport Engine
from ustack.engine.transport cimport engine_of, tcb_of
from ustack.server.chunks cimport chunks_read
from ustack.server.dates cimport DATE_BYTES, write_http_date
from ustack.server.grammar cimport is_request_target, is_token
from ustack.server.logring cimport log_begin, log_drain, log_end, log_half_full, log_keep
from ustack.server.records cimport *
from ustack.tcp.calls cimport (
    tcp_abort, tcp_close, tcp_receivable, tcp_resume, tcp_send, tcp_send_queued, tcp_set_nodelay, tcp_set_timeout,
    tcp_shutdown, tcp_want_writable)
from ustack.tcp.records.demux cimport flow_connection, flow_slot_count
from ustack.tcp.records.tcb cimport TCB_ACCEPTED, TCB_ACTIVE, tcb_t, tcp_t
from ustack.tcp.records.work cimport turn_charge, turn_spent

from ustack.errors import is_interruption
from ustack.server import accesslog, files, request as requests, response as responses

include "ready.pxi"
include "heads.pxi"
include "filetable.pxi"
include "plainheads.pxi"
include "connection.pxi"

_log = logging.getLogger("ustack.server")
_NOT_FOUND = responses.Refusal(404)

cdef enum:
    ABSENT = -2                         # HttpServer.find: nothing has that name
    RECORDS_MAX = 1 << 28               # of one kind that may be asked for: sizes in bytes are far from overflowing
    SMALL_FILE_MAX = 1 << 30


# ---------------------------------------------------------------- upcalls (the contract is in application.pxd)

cdef int http_on_accept(application_t *app, const transport_t *transport, conn_t *known) noexcept nogil:
    cdef tcp_t *tcp = &engine_of(transport).tcp
    cdef tcb_t *conn = tcb_of(known)
    cdef server_t *server = <server_t *>app.context
    if conn.flags & TCB_ACTIVE or server.closing or server.finishing:
        return ACCEPT_REFUSED
    server.stats.connections += 1
    server.stats.connections_open += 1
    tcp_set_nodelay(tcp, conn, True)    # every response is queued whole; waiting to fill a segment gains nothing
    connection_idle(server, tcp, conn)
    return ACCEPT_TAKEN


cdef inline void charge(server_t *server, tcp_t *tcp, uint32_t units) noexcept nogil:
    """Charge what was done to the turn."""
    turn_charge(tcp, units + server.units)
    server.units = 0


cdef size_t http_on_data(application_t *app, const transport_t *transport, conn_t *known, const uint8_t *data,
                         size_t length) noexcept nogil:
    cdef tcp_t *tcp = &engine_of(transport).tcp
    cdef tcb_t *conn = tcb_of(known)
    cdef server_t *server = <server_t *>app.context
    cdef busy_t *busy
    cdef size_t used = 0, before
    if server.closing:
        connection_abort(server, tcp, conn)
    while used < length:
        if conn.user_data & CLOSING:
            return length
        if turn_spent(tcp):
            server.stats.put_off += 1
            tcp_resume(tcp, conn)       # others have their turn first
            return used
        busy = busy_of(server, conn)
        if busy == NULL:
            if (tcp_send_queued(conn) > server.max_queued_bytes
                    and tcp_send_queued(conn) > tcp.config.snd_low_water_bytes):
                # A client that asks faster than it reads: leave the rest to the receive window.
                tcp_want_writable(tcp, conn)
                return used
            used += request(server, tcp, conn, data + used, length - used)
            charge(server, tcp, REQUEST_UNITS)
        elif busy.phase == PHASE_HEAD:
            used += head_more(server, tcp, conn, busy, data + used, length - used)
            charge(server, tcp, REQUEST_UNITS)
        elif busy.phase == PHASE_BODY:
            before = used
            used += body_more(server, tcp, conn, busy, data + used, length - used)
            charge(server, tcp, REQUEST_UNITS + <uint32_t>(used - before >> BODY_BYTES_UNIT_SHIFT))
        elif busy.phase == PHASE_SENDING:
            return used
        elif busy.phase == PHASE_DRAIN:
            if not busy.flags & B_TAIL and tcp_send_queued(conn):
                return used
            if damaged(server, busy):
                server.stats.damaged_aborted += 1
                connection_abort(server, tcp, conn)
                return length
            response_end(server, tcp, conn, busy.flags)
        else:
            return used + linger_data(server, tcp, conn, busy, length - used)
    return used


cdef void http_on_writable(application_t *app, const transport_t *transport, conn_t *known) noexcept nogil:
    cdef tcp_t *tcp = &engine_of(transport).tcp
    cdef tcb_t *conn = tcb_of(known)
    cdef server_t *server = <server_t *>app.context
    cdef busy_t *busy = busy_of(server, conn)
    if server.closing:
        connection_abort(server, tcp, conn)
    if conn.user_data & CLOSING:
        return
    conn.user_data &= BUSY_MASK         # what was seen queued is no measure of a stall any more
    if busy == NULL:
        tcp_resume(tcp, conn)
    elif busy.phase == PHASE_SENDING:
        tcp_set_timeout(tcp, conn, server.send_timeout_ns)
        send_more(server, tcp, conn, busy)
        if not conn.user_data & CLOSING:
            tcp_resume(tcp, conn)       # what came meanwhile was left in the receive queue
    elif busy.phase == PHASE_DRAIN:
        drain(server, tcp, conn, busy)
    charge(server, tcp, 0)


cdef void http_on_eof(application_t *app, const transport_t *transport, conn_t *known) noexcept nogil:
    cdef tcp_t *tcp = &engine_of(transport).tcp
    cdef tcb_t *conn = tcb_of(known)
    cdef server_t *server = <server_t *>app.context
    cdef busy_t *busy = busy_of(server, conn)
    if conn.user_data & CLOSING:
        return
    if busy != NULL and (busy.phase == PHASE_SENDING or busy.phase == PHASE_DRAIN) and not server.closing:
        busy.flags |= B_EOF             # a half-closed client still gets its response
        if busy.flags & B_TAIL:
            drain(server, tcp, conn, busy)
    elif busy != NULL and busy.phase == PHASE_LINGER and tcp_send_queued(conn):
        busy.flags |= B_EOF
    else:
        connection_close(server, tcp, conn)


cdef void http_on_timeout(application_t *app, const transport_t *transport, conn_t *known) noexcept nogil:
    cdef tcp_t *tcp = &engine_of(transport).tcp
    cdef tcb_t *conn = tcb_of(known)
    cdef server_t *server = <server_t *>app.context
    cdef busy_t *busy = busy_of(server, conn)
    cdef uint64_t queued = tcp_send_queued(conn), seen = conn.user_data >> SEEN_SHIFT & SEEN_MASK
    if server.closing:
        connection_abort(server, tcp, conn)
    elif busy != NULL and (busy.phase == PHASE_HEAD or busy.phase == PHASE_BODY):
        server.stats.head_timeouts += 1
        refuse_held(server, tcp, conn, busy, 408)
    elif busy != NULL and busy.phase == PHASE_LINGER:
        linger_timeout(server, tcp, conn, busy)
    elif queued and (seen == 0 or queued < seen):
        # Something was acknowledged since the last look, or this is the first: wait on.
        conn.user_data = conn.user_data & (BUSY_MASK | CLOSING) | (queued & SEEN_MASK) << SEEN_SHIFT
        tcp_set_timeout(tcp, conn, server.send_timeout_ns)
    elif queued:
        server.stats.stalled_aborted += 1
        connection_abort(server, tcp, conn)
    elif busy != NULL and busy.phase == PHASE_DRAIN:
        drain(server, tcp, conn, busy)
    else:
        server.stats.idle_closed += 1
        connection_close(server, tcp, conn)
    charge(server, tcp, 0)


cdef void http_on_closed(application_t *app, const transport_t *transport, conn_t *known,
                         close_reason_t reason) noexcept nogil:
    cdef tcb_t *conn = tcb_of(known)
    cdef server_t *server = <server_t *>app.context
    server.stats.connections_open -= 1
    if conn.user_data & CLOSING:
        server.stats.connections_ending -= 1
    busy_end(server, conn)
    conn.user_data = 0
    if server.closing and server.stats.connections_open == 0:
        server_free(server)


cdef void server_free(server_t *server) noexcept nogil:
    """Give everything back. Idempotent. No connection may be open: the records of busy ones go as well."""
    cdef uint32_t index
    while server.decision_count:
        head_forget(server, server.decision_count - 1)
    if server.files != NULL:
        for index in range(server.file_limit):
            file_drop(server, &server.files[index])
    log_end(&server.log)
    if server.continue_100 != NULL:
        lent_unref(server.continue_100)
        server.continue_100 = NULL
    if server.busy.record_bytes:
        slab_destroy(&server.busy)
        server.busy.record_bytes = 0
    for index in range(<uint32_t>(SHARED_STATUSES * FULL_FORMS)):
        ready_free(&server.shared[index])
    if server.ledger != NULL:
        ledger_drop(server.ledger)
        server.ledger = NULL
    free(server.read_buffer)
    server.read_buffer = NULL
    plain_end(server)
    free(server.files)
    free(server.file_buckets)
    free(server.free_files)
    server.file_buckets = NULL
    server.free_files = NULL
    free(server.decisions)
    free(server.buckets)
    server.files = NULL
    server.decisions = NULL
    server.buckets = NULL


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


# ---------------------------------------------------------------- what takes the GIL

cdef void set_wall_offset(server_t *server, uint64_t now_ns) noexcept with gil:
    cdef HttpServer owner = <HttpServer>server.owner
    try:
        owner.set_wall_clock(now_ns)
    except BaseException as error:      # the offset stays what it was, and is asked for again with the next burst
        if not owner.interrupted(error):
            _log.error("the wall clock could not be read", exc_info=error)


cdef enum:
    INTERRUPTIONS = 8                   # times that one decision is begun again because a signal handler raised in it


cdef void unexpected(server_t *server, error, what) noexcept:
    """Count and log; the client gets a 500."""
    server.stats.internal_errors += 1
    _log.error(what, exc_info=error)


cdef decision_t *decide_unseen(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept with gil:
    """Parse and decide; remember what lasts. NULL without memory: the connection is aborted.

    What a signal handler raises meanwhile is for who runs the stack, not for this client: it is kept for him, and the
    decision begun again.
    """
    cdef HttpServer owner = <HttpServer>server.owner
    cdef int _i
    server.units += UNSEEN_UNITS + <uint32_t>(length >> HEAD_BYTES_UNIT_SHIFT)
    for _i in range(INTERRUPTIONS):
        try:
            return owner.decide_head(<bytes>(<const char *>head)[:length], hashed)
        except MemoryError:
            return NULL
        except BaseException as error:
            if not owner.interrupted(error):
                unexpected(server, error, "a request could not be answered")
                return decide_refusal(server, 500, head, length)
    return NULL


cdef decision_t *decide_refusal(server_t *server, int status, const uint8_t *head, size_t length) noexcept with gil:
    cdef HttpServer owner = <HttpServer>server.owner
    cdef int _i
    server.units += UNSEEN_UNITS
    for _i in range(INTERRUPTIONS):
        try:
            line = <bytes>(<const char *>head)[:length if length < 1024 else 1024] if head != NULL else b""
            return owner.refusal(responses.Refusal(status, close=True), line, None)
        except BaseException as error:
            if not owner.interrupted(error):
                return NULL
    return NULL


cdef lent_t *lent_from_bytes(bytes octets) except NULL:
    cdef lent_t *lent = lent_from_copy(<const uint8_t *>PyBytes_AS_STRING(octets), <uint64_t>PyBytes_GET_SIZE(octets))
    if lent == NULL:
        raise MemoryError
    return lent


cdef object identity_of(const identity_t *identity):
    return files.Identity(identity.device, identity.inode, identity.size, identity.mtime_ns, identity.ctime_ns)


cdef bytes read_whole(int fd, Py_ssize_t size):
    """A small file's first `size` octets, or fewer if it was cut."""
    parts = []
    cdef Py_ssize_t left = size
    while left > 0:
        part = os.read(fd, left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


cdef class HttpServer(Application):
    """Serves the files below `directory`. One engine's application: pass it to Stack.listen(port, application=...)."""

    cdef server_t s
    cdef readonly object limits
    cdef object root
    cdef object log_file
    cdef bytes server_name
    cdef object wall_clock
    cdef list resources                 # by the number of a file_t that is `described`
    cdef object absent                  # name that the last look-up did not find, for as long as nobody makes it

    def __cinit__(self, *args, **options):
        memset(&self.s, 0, sizeof(server_t))
        self.s.owner = <PyObject *>self
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
        hash_key: 16 octets, random unless given.
        wall_clock: nanoseconds since 1970; read at most once per second.
        """
        if self.root is not None:
            raise RuntimeError("a server is initialised once")
        if min(idle_timeout_s, head_timeout_s, send_timeout_s, linger_s) <= 0 or revalidate_s < 0:
            raise ValueError("a time limit must be positive")
        if (not 0 < max_request_line_bytes <= max_head_bytes <= 1 << 20 or not 1 <= max_files <= RECORDS_MAX
                or not 0 <= max_heads <= RECORDS_MAX or not 1 <= max_busy <= RECORDS_MAX
                or not 0 <= max_header_sections <= RECORDS_MAX):
            raise ValueError("a limit is out of its range")
        if (not 0 <= small_file_bytes <= SMALL_FILE_MAX or max_request_bytes < 2 * max_head_bytes
                or max_response_bytes < 1 << 20):
            raise ValueError("a limit is out of its range")
        if log_lines < 2 or log_lines & (log_lines - 1):
            raise ValueError("log_lines must be a power of two")
        self.limits = requests.Limits(max_head_bytes, max_request_line_bytes, max_header_count, max_body_bytes)
        self.server_name = server_name.encode("ascii")
        self.s.small_file_bytes = small_file_bytes
        self.wall_clock = wall_clock
        self.resources = [None] * max_files
        self.s.idle_timeout_ns = <uint64_t>(idle_timeout_s * 1e9)
        self.s.head_timeout_ns = <uint64_t>(head_timeout_s * 1e9)
        self.s.send_timeout_ns = <uint64_t>(send_timeout_s * 1e9)
        self.s.linger_ns = <uint64_t>(linger_s * 1e9)
        self.s.revalidate_ns = <uint64_t>(revalidate_s * 1e9)
        self.s.checks_per_second = checks_per_second
        self.s.linger_bytes = max(262144, 4 * max_body_bytes)
        self.s.max_head_bytes = max_head_bytes
        self.s.max_request_line_bytes = max_request_line_bytes
        self.s.max_queued_bytes = max_queued_bytes
        self.s.max_remembered_bytes = 2048
        self.s.max_body_bytes = max_body_bytes
        self.s.max_decision_bytes = max_heads_bytes
        self.s.max_held_bytes = max_held_bytes
        self.s.max_copied_bytes = max_copied_bytes
        self.s.max_request_bytes = max_request_bytes
        self.s.max_response_bytes = max_response_bytes
        self.root = files.DocumentRoot(directory)
        self.s.root_fd = self.root.fd
        self.log_file = accesslog.LogFile(access_log)
        self._allocate(max_heads, max_files, max_busy, log_lines, hash_key or os.urandom(16))
        self._watch_log()
        plain_begin(&self.s, max_header_sections)
        self.set_wall_clock(0)
        self.s.wall_known = 0           # the engine's monotonic time is not known before its first burst
        self.s.closing = 0

    def _allocate(self, uint32_t max_heads, uint32_t max_files, uint32_t max_busy, uint32_t log_lines,
                  bytes hash_key):
        cdef uint32_t buckets = 2, file_buckets = 2, index
        while buckets < max_heads * 2:
            buckets *= 2
        while file_buckets < max_files * 2:
            file_buckets *= 2
        if len(hash_key) != 16:
            raise ValueError("hash_key must have 16 octets")
        memcpy(self.s.hash_key, PyBytes_AS_STRING(hash_key), 16)
        self.s.decisions = <decision_t **>calloc(max_heads + 1, sizeof(void *))
        self.s.decision_limit = max_heads
        self.s.buckets = <uint32_t *>calloc(buckets, sizeof(uint32_t))
        self.s.bucket_mask = buckets - 1
        self.s.read_buffer = <uint8_t *>malloc(self.s.small_file_bytes + 1)
        self.s.ledger = <ledger_t *>calloc(1, sizeof(ledger_t))
        if self.s.ledger != NULL:
            self.s.ledger.refs = 1
        if (self.s.read_buffer == NULL or self.s.ledger == NULL or self.s.decisions == NULL
                or self.s.buckets == NULL or log_begin(&self.s.log, log_lines) != 0
                or slab_init(&self.s.busy, (sizeof(busy_t) + 63) & ~<size_t>63, max_busy) != 0):
            raise MemoryError
        self.s.continue_100 = lent_from_bytes(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.s.file_limit = max_files
        self.s.files = <file_t *>calloc(max_files, sizeof(file_t))
        self.s.file_buckets = <uint32_t *>calloc(file_buckets, sizeof(uint32_t))
        self.s.file_bucket_mask = file_buckets - 1
        self.s.free_files = <uint32_t *>malloc(max_files * sizeof(uint32_t))
        if self.s.files == NULL or self.s.file_buckets == NULL or self.s.free_files == NULL:
            raise MemoryError
        for index in range(max_files):
            self.s.free_files[index] = max_files - 1 - index

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

    def finish(self, Engine engine not None):
        """Begin the end: take no connection any more, send a FIN on every idle one, and let each of the others end
        with the response that is under way, which says `Connection: close`.

        engine: the stack that this server was given to. It has to be run until `finished`. Idempotent.
        """
        cdef tcp_t *tcp = &engine.c.tcp
        cdef uint16_t app = self.c.index if self.transport == engine.table else 0
        cdef uint64_t at
        cdef tcb_t *conn
        if self.s.finishing or self.s.closing or not engine.alive or app == 0:
            return
        engine.enter("finish()")
        try:
            self.s.finishing = 1
            self.s.last = NULL          # responses that were prepared before do not say that they are the last
            tick(&self.s, engine.now())
            for at in range(flow_slot_count(tcp)):
                conn = flow_connection(tcp, at)
                if (conn != NULL and conn.app == app and conn.flags & TCB_ACCEPTED
                        and conn.user_data & (BUSY_MASK | CLOSING) == 0 and tcp_receivable(tcp, conn) == 0):
                    self.s.stats.idle_closed += 1
                    connection_linger(&self.s, tcp, conn)
            engine.push()
        finally:
            engine.leave()

    @property
    def finished(self):
        """No connection is left that waits for something of this server's."""
        return self.s.stats.connections_open == self.s.stats.connections_ending

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ------------------------------------------------------------ once per second

    cdef bint interrupted(self, error) noexcept:
        """Keep what is not a failure of ours for who runs the stack (Application.park). False: it is one."""
        if not is_interruption(error):
            return False
        self.park(error)
        return True

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
        cdef uint32_t budget = 64, looked = 0
        cdef file_t *file
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
            self._forget_files()
        while budget and looked < self.s.file_limit:
            file = &self.s.files[self.s.file_hand]
            self.s.file_hand = (self.s.file_hand + 1) % self.s.file_limit
            looked += 1
            if file.live:
                file_check(&self.s, file)
                budget -= 1

    def _watch_log(self):
        self.s.log.fd = self.log_file.fd
        self.s.log.is_regular = self.s.log.fd >= 0 and stat.S_ISREG(os.fstat(self.s.log.fd).st_mode)

    def _forget_files(self):
        cdef uint32_t index
        for index in range(self.s.file_limit):
            file_drop(&self.s, &self.s.files[index])

    def stats(self):
        """Counts since the start, and what is held now."""
        cdef http_stats_t *counts = &self.s.stats
        found = dict(counts[0])
        classes = found.pop("responses")
        for index in range(2, STATUS_CLASSES):
            found[f"responses_{index}xx"] = classes[index]
        found["log_lines"] = self.s.log.written_lines
        found["log_lost"] = self.s.log.lost_lines
        found["heads_remembered"] = self.s.decision_count
        found["files_open"] = self.s.file_count
        found["held_bytes"] = self.s.held_bytes
        found["copied_bytes"] = self.s.copied_bytes
        found["heads_bytes"] = self.s.decision_bytes
        found["request_bytes"] = self.s.request_bytes
        found["response_bytes"] = self.s.ledger.bytes if self.s.ledger != NULL else 0
        found["connections_busy"] = self.s.busy.in_use
        # Why the access log lost its last lines; None while it takes them.
        found["log_error"] = os.strerror(self.s.log.error) if self.s.log.error else None
        return found

    # ------------------------------------------------------------ deciding

    def decide(self, bytes head not None):
        """The status that a complete request head gets, decided anew as for one that was never seen. Nothing is sent:
        for benchmarks (tools/bench_heads.py) and fuzzers. Raises ValueError when the server is closed."""
        self.enter("HttpServer.decide()")
        try:
            return self._decide(head)
        finally:
            self.leave()

    def _decide(self, bytes head):
        cdef decision_t *decision
        if self.s.closing:
            raise ValueError("the server is closed")
        decision = self.decide_head(head, siphash13(self.s.hash_key, <const uint8_t *>PyBytes_AS_STRING(head),
                                                    <size_t>PyBytes_GET_SIZE(head)))
        status = decision.status
        if decision.flags & D_REMEMBERED:
            head_drop(&self.s, decision)
        else:
            decision_free(decision)
        return status

    cdef decision_t *decide_head(self, bytes head, uint64_t hashed) except NULL:
        """Parse, decide, prepare; remember what lasts. The caller owns what is not D_REMEMBERED."""
        cdef decision_t *decision
        cdef int64_t number
        cdef bint lasting = True        # what is raised before the disk is asked follows from the head alone
        request = None
        self.absent = None
        try:
            request = requests.parse(head, self.limits)
            path = requests.locate(request)
            requests.check_expectation(request)
            lasting = False
            number = self.find(path)
            if number == ABSENT:
                decision = self.refusal(_NOT_FOUND, head, request)
            else:
                choice = requests.decide(request, self.describe(<uint32_t>number), self.s.second)
                decision = self.build(request, <uint32_t>number, choice)
                lasting = choice.lasting
        except responses.Refusal as refusal:
            if refusal.status == 301:
                refusal.fields = [(b"Location", requests.with_slash(request, path))]
            decision = self.refusal(refusal, head, request)
        else:
            if self.absent is not None:
                decision.missing = strdup(PyBytes_AS_STRING(self.absent))
                decision.checked_ns = self.s.now_ns
                lasting = decision.missing != NULL
            elif self.s.log.fd >= 0:
                try:
                    self.note(decision, head, request)
                except BaseException:
                    decision_free(decision)
                    raise
        try:
            if request is not None and not decision.flags & D_LINGER and request.has_body:
                self.await_body(decision, request, head)
                lasting = False
        except BaseException:
            decision_free(decision)
            raise
        if lasting and not self.s.finishing:
            head_remember(&self.s, decision, <const uint8_t *>PyBytes_AS_STRING(head), <size_t>len(head), hashed)
        return decision

    cdef decision_t *blank(self, int status, request, bint close) except NULL:
        cdef decision_t *decision = <decision_t *>calloc(1, sizeof(decision_t))
        if decision == NULL:
            raise MemoryError
        decision.file = NO_FILE
        decision.status = <uint16_t>status
        # The last response says that it is the last (RFC 9112 section 9.6).
        decision.form = responses.CLOSE if close or request is None or self.s.finishing else request.connection
        if decision.form == responses.CLOSE:
            decision.flags |= D_CLOSE
        if close:
            decision.flags |= D_LINGER
        if request is not None and request.method == b"HEAD":
            decision.flags |= D_HEAD_ONLY
        return decision

    cdef decision_t *refusal(self, refusal, bytes head, request) except NULL:
        """A response without a file. request: None if the head could not be parsed."""
        status = refusal.status
        # Whether the client sends the body that it has announced is not known once it gets anything but 100.
        close = refusal.close or (request is not None and requests.waits_for_continue(request))
        cdef decision_t *decision = self.blank(status, request, close)
        cdef int shared = responses.shared_index(status)
        try:
            if shared >= 0:
                decision.shared = <uint8_t>(shared * FULL_FORMS + decision.form + 1)
                if self.s.shared[decision.shared - 1].lent == NULL:
                    self.prepare_refusal(&self.s.shared[decision.shared - 1], status, refusal.fields, decision.form,
                                         counted=False)
            else:
                self.prepare_refusal(&decision.own, status, refusal.fields, decision.form)
            self.note(decision, head, request)
        except responses.Refusal as instead:    # no room for a response of its own
            decision_free(decision)
            return self.refusal(instead, head, request)
        except BaseException:
            decision_free(decision)
            raise
        return decision

    cdef decision_t *build(self, request, uint32_t number, choice) except NULL:
        """A response from a file, or about one."""
        cdef file_t *file = &self.s.files[number]
        cdef bint close = choice.status >= 400 and requests.waits_for_continue(request)
        cdef decision_t *decision = self.blank(choice.status, request, close)
        cdef variant_t *variant
        cdef const char *octets
        decision.file = number
        decision.generation = file.generation
        try:
            if choice.variant is None:
                self.prepare_refusal(&decision.own, choice.status, choice.fields, decision.form)
                return decision
            decision.variant = 1 if choice.variant.coding else 0
            variant = &file.variant[decision.variant]
            body = b""
            if variant.mapped or choice.length > INLINE_BYTES:
                decision.body_at = choice.offset
                decision.body_length = choice.length
            elif choice.length:
                octets = <const char *>variant.body.data + <size_t>choice.offset
                body = octets[:<Py_ssize_t>choice.length]
            if choice.whole:
                decision.flags |= D_FULL
                if variant.full[decision.form].lent == NULL:
                    self.prepare(&variant.full[decision.form], 200, choice.fields, decision.form, body, True, number,
                                 True)
                    self.s.held_bytes += variant.full[decision.form].lent.length
                    self.s.full_bytes += variant.full[decision.form].lent.length
            else:
                self.prepare(&decision.own, choice.status, choice.fields, decision.form, body, True, number, False)
        except BaseException:
            decision_free(decision)
            raise
        return decision

    cdef int prepare_refusal(self, ready_t *ready, int status, fields, int form, bint counted=True) except -1:
        body = responses.refusal_body(status)
        self.prepare(ready, status, [*fields, *responses.refusal_fields(status, body)], form, body, counted)
        return 0

    cdef int prepare(self, ready_t *ready, int status, fields, int form, bytes body, bint counted=True,
                     uint32_t keep=NO_FILE, bint whole=False) except -1:
        """counted: against max_response_bytes. keep, whole: see responses_make_room. Raises Refusal(503) where no more
        of them may be made."""
        head = responses.response_head(status, fields, form, self.server_name)
        cdef bytes octets = head + body
        cdef lent_t *lent = NULL
        if not counted:
            lent = lent_from_bytes(octets)
        elif responses_make_room(&self.s, <uint64_t>PyBytes_GET_SIZE(octets), keep, whole):
            lent = counted_copy(&self.s, <const uint8_t *>PyBytes_AS_STRING(octets), <uint64_t>PyBytes_GET_SIZE(octets))
        if lent == NULL:
            self.s.stats.responses_refused += 1
            raise responses.Refusal(503, close=True)
        ready.lent = lent
        ready.head_length = <uint32_t>len(head)
        ready.date_at = responses.date_offset(status)
        ready.second = -1
        return 0

    cdef int note(self, decision_t *decision, bytes head, request) except -1:
        """Keep what the access log will say."""
        if self.s.log.fd < 0:
            return 0
        line = head.partition(b"\r\n")[0]
        referer = agent = None
        if request is not None:
            referer, agent = request.one(b"referer"), request.one(b"user-agent")
        text, split = accesslog.log_text(line, referer, agent)
        decision.log_text = counted_copy(&self.s, <const uint8_t *>PyBytes_AS_STRING(text),
                                         <uint64_t>PyBytes_GET_SIZE(text))
        decision.log_split = split
        if decision.log_text == NULL:
            self.s.log.lost_lines += 1
        return 0

    cdef int await_body(self, decision_t *decision, request, bytes head) except -1:
        """Have the request's body read and discarded before the response, unless the connection ends anyway."""
        decision.head = <uint8_t *>malloc(len(head))
        if decision.head == NULL:
            raise MemoryError
        memcpy(decision.head, PyBytes_AS_STRING(head), len(head))
        decision.head_length = <uint32_t>len(head)
        decision.request_body = request.content_length
        if request.chunked:
            decision.flags |= D_CHUNKED
        if requests.waits_for_continue(request):
            decision.flags |= D_CONTINUE
        return 0

    # ------------------------------------------------------------ plain heads (plainheads.pxi)

    cdef section_t *learn_section(self, bytes octets, int minor) except NULL:
        """What request.py makes of a header section behind the request line of a GET or HEAD."""
        cdef section_t *section = <section_t *>calloc(1, sizeof(section_t))
        cdef bytes text = b""
        if section == NULL:
            raise MemoryError
        try:
            request = requests.plain_request(octets, minor, self.limits)
            if request is not None:
                section.is_plain = 1
                section.form = request.connection
                section.closes = section.form == responses.CLOSE
                section.accepts_gzip = requests.accepts_gzip(request)
                text, split = accesslog.log_text(b"", request.one(b"referer"), request.one(b"user-agent"))
                text = text[split:]
            section.minor = <uint8_t>minor
            section.length = <uint32_t>len(octets)
            section.bytes = <uint8_t *>malloc(len(octets))
            section.log_length = <uint32_t>len(text)
            section.log_text = <uint8_t *>malloc(len(text) + 1)
            if section.bytes == NULL or section.log_text == NULL:
                raise MemoryError
            memcpy(section.bytes, PyBytes_AS_STRING(octets), len(octets))
            memcpy(section.log_text, PyBytes_AS_STRING(text), len(text))
        except BaseException:
            section_free(section)
            raise
        return section

    cdef shape_t *learn_shape(self, bytes extension, int form) except? NULL:
        """The head of a 200 to a file with this extension. NULL: it is too long."""
        cdef shape_t *shape
        cdef uint8_t *octets
        parts = requests.head_in_parts(extension, form, self.server_name)
        cdef bytes whole = b"".join(parts)
        if len(whole) > SHAPE_BYTES:
            return NULL
        octets = <uint8_t *>malloc(len(whole))
        if octets == NULL:
            raise MemoryError
        memcpy(octets, PyBytes_AS_STRING(whole), len(whole))
        if self.s.shape_count < SHAPES_MAX:
            shape = &self.s.shapes[self.s.shape_count]
            self.s.shape_count += 1
        else:
            shape = &self.s.shapes[self.s.shape_hand]
            self.s.shape_hand = (self.s.shape_hand + 1) % SHAPES_MAX
            free(shape.octets)
        shape.octets = octets
        for index, part in enumerate(parts):
            shape.parts[<int>index] = <uint32_t>len(part)
        memcpy(shape.extension, PyBytes_AS_STRING(extension), len(extension))
        shape.extension_length = <uint8_t>len(extension)
        shape.form = <uint8_t>form
        shape.date_at = responses.date_offset(200)
        return shape

    # ------------------------------------------------------------ files

    cdef int64_t find(self, bytes path) except -1:
        """The number of the file_t for a path, opened if need be; ABSENT, with the name in self.absent. Raises
        Refusal."""
        cdef stat_t found
        cdef lent_t *body = NULL
        cdef int verdict = OPEN_IN_GENERAL
        cdef size_t length = <size_t>len(path)
        cdef uint64_t hashed = siphash13(self.s.hash_key, <const uint8_t *>PyBytes_AS_STRING(path), length)
        cdef file_t *file = file_lookup(&self.s, <const uint8_t *>PyBytes_AS_STRING(path), length, hashed)
        if file != NULL and file_fresh(&self.s, file):
            return file - self.s.files
        cdef bint directory = length == 0 or path.endswith(b"/")
        cdef bytes name = path + files.INDEX if directory else path
        if not self.s.skip_file_open:
            verdict = file_open(&self.s, PyBytes_AS_STRING(name), &found, &body)
        self.s.skip_file_open = 0
        self.s.units += SMALL_FILE_UNITS if verdict == 0 else 2 * LOOK_UNITS if verdict < 0 else FILE_UNITS
        if verdict == 0:
            file = file_take(&self.s, length, hashed, PyBytes_AS_STRING(name), &found, body)
            if file == NULL:
                raise MemoryError
            return file - self.s.files
        if verdict < 0 and directory and path:
            name = path[:len(path) - 1]  # without it no index is there; with it, the general way says 403
            if fstatat(self.s.root_fd, PyBytes_AS_STRING(name), &found, 0) == 0 or not is_absent(errno):
                verdict = OPEN_IN_GENERAL
        if verdict < 0 and path:
            self.absent = name
            return ABSENT
        for _ in range(3):
            with self.root.open(path) as opened:
                loaded = self.load(length, hashed, opened)
            if loaded is not None:
                return loaded
        raise responses.Refusal(503)    # it shrinks each time it is looked at

    cdef object describe(self, uint32_t number):
        """The files.Resource that a live file_t is."""
        cdef file_t *file = &self.s.files[number]
        if not file.described:
            self.resources[number] = files.describe(<bytes>file.variant[0].path, identity_of(&file.variant[0].identity),
                                                    identity_of(&file.variant[1].identity))
            file.described = 1
        return self.resources[number]

    cdef object load(self, size_t path_length, uint64_t hashed, opened):
        """Take an opened resource into the table. None: it was cut meanwhile."""
        cdef variant_t variants[2]
        cdef uint32_t number
        cdef file_t *file
        memset(variants, 0, sizeof(variants))
        resource = opened.resource
        try:
            complete = (self.fill(&variants[0], resource.plain.path, resource.plain.identity, opened.fd)
                        and self.fill(&variants[1], resource.plain.path + files.GZIP_SUFFIX, resource.gzip_identity,
                                      opened.gzip_fd if resource.gzip else -1))
            present = [variant.size for variant in (resource.plain, resource.gzip) if variant is not None]
            size = sum(present)
            copied = sum(one for one in present if one <= self.s.small_file_bytes)
            number = file_make_room(&self.s, size, copied) if complete else NO_FILE
        except BaseException:
            variant_clear(&self.s, &variants[0])
            variant_clear(&self.s, &variants[1])
            raise
        if number == NO_FILE:
            variant_clear(&self.s, &variants[0])
            variant_clear(&self.s, &variants[1])
            return None
        file = &self.s.files[number]
        file.variant[0] = variants[0]
        file.variant[1] = variants[1]
        file.has_gzip = resource.gzip is not None
        file.described = 1
        self.resources[number] = resource
        file_appear(&self.s, file, path_length, hashed)
        return number

    cdef bint fill(self, variant_t *variant, bytes path, identity, int fd) except -1:
        """Name and octets of one variant; no octets without a descriptor. False: fewer are there than stat said."""
        cdef lent_t *body = NULL
        variant.path = strdup(PyBytes_AS_STRING(path))
        if variant.path == NULL:
            raise MemoryError
        variant.identity.device, variant.identity.inode = identity.device, identity.inode
        variant.identity.size = identity.size
        variant.identity.mtime_ns, variant.identity.ctime_ns = identity.mtime_ns, identity.ctime_ns
        if fd < 0 or identity.size == 0:
            return True
        if identity.size <= self.s.small_file_bytes:
            body = lent_from_bytes(read_whole(fd, identity.size))
        else:
            body = lent_from_file(fd)
            variant.mapped = 1
        variant.body = body
        self.s.held_bytes += body.length
        if not variant.mapped:
            self.s.copied_bytes += body.length
        return body.length >= variant.identity.size
