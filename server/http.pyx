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

This file is the Python face: the server's lifetime, and what is done once per second. What happens on connections is
in upcalls.pyx. The server must not write into what is lent, must not wait for anything, and must not read a clock on
the data path: monotonic time comes with the burst, the wall clock as an offset that `housekeeping` sets.

Read first: RFC 9112 (framing, connections), RFC 9110 (semantics); ustack/application.pxd.
Above: the command line. Below: everything else in this folder, from records up to receiving; application.pxd.
"""

import os
import stat
import time

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from ustack.application cimport Application, Transport
from ustack.server.decide cimport Decider
from ustack.server.filetable cimport files_check_some, files_forget
from ustack.server.loading cimport Loader
from ustack.server.logring cimport log_drain
from ustack.server.plainheads cimport plain_begin
from ustack.server.records cimport server_t
from ustack.server.settings cimport settings_apply
from ustack.server.statistics cimport statistics_of
from ustack.server.tables cimport tables_begin, tables_end
from ustack.server.upcalls cimport finish_idle, upcalls_fill
from ustack.server.wallclock cimport WallClock, tick

from ustack.server import accesslog, request as requests

cdef enum:
    FILES_CHECKED = 64                  # against the disk, by a call of housekeeping


cdef class HttpServer(Application):
    """Serves the files below `directory`. One engine's application: pass it to Stack.listen(port, application=...)."""

    cdef server_t s
    cdef readonly object limits
    cdef object root
    cdef object log_file
    cdef WallClock clock
    cdef Decider decider

    def __cinit__(self, *args, **options):
        memset(&self.s, 0, sizeof(server_t))
        self.s.owner = <PyObject *>self
        self.s.app = &self.c
        self.s.log.fd = -1
        self.s.closing = 1                  # until __init__ is through
        self.c.context = &self.s
        upcalls_fill(&self.c)
        self.clock = WallClock.__new__(WallClock)
        self.clock.s = &self.s
        self.s.wall_clock = <PyObject *>self.clock

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
        self.clock.read = wall_clock
        self._decide_with(Loader(directory, max_files), server_name.encode("ascii"))
        self.log_file = accesslog.LogFile(access_log)
        self._allocate(max_heads, max_files, max_busy, log_lines, hash_key or os.urandom(16))
        self._watch_log()
        plain_begin(&self.s, max_header_sections)
        self.decider.prepare_shared()
        self.clock.set(0)
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
        tables_begin(&self.s, max_heads, max_files, max_busy, log_lines)

    def __dealloc__(self):
        tables_end(&self.s)

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
            tables_end(&self.s)

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
            self.clock.set(now_ns)          # its callable cannot close the server: we are inside
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
