# SPDX-License-Identifier: MIT
"""A transport over the kernel's sockets: an application that runs on this project's own TCP runs here unchanged, so
that a comparison of stacks compares stacks.

    transport = KernelTransport("epoll-lt")
    listener = transport.listen(8080, application=HttpServer("site"), address="127.0.0.1")
    transport.run()

The strategy is how it is learnt which sockets are ready (strategies.pyx); everything else is the same for all. The
transport starts no thread: it serves while run(), poll() or close() is running, in the caller's thread, without the
GIL. Only its own time can be given (now_ns): a socket's retransmissions are the kernel's, in the kernel's time.

In a process that fork() has made its copy is closed, and the connections stay the parent's. It must not: know a
protocol above TCP. Read first: application.pxd, turns.pxd. Above: cli, tools, tests. Below: life, turns, downcalls.
"""

from cython cimport no_gc_clear

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT64_MAX, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ustack.application cimport CALL_IN_USE, CALL_OK, Application, Transport
from ustack.base.address cimport ip_addr_from_text
from ustack.base.arguments cimport timeout_ns, whole
from ustack.base.bytestring cimport data_of, size_of
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport SIGTERM
from ustack.base.types cimport ip_addr_is_any, ip_addr_t
from ustack.buf.lent cimport lent_watch
from ustack.kernel.aio cimport reads_settle
from ustack.kernel.counters cimport FILE_READS_GIVEN_UP, kernel_counters_as_dict
from ustack.kernel.downcalls cimport downcalls_fill, listen_shared, listener_of
from ustack.kernel.life cimport Copy, kernel_begin, kernel_clear, kernel_discard, kernel_free
from ustack.kernel.processes cimport children_counters, children_signal
from ustack.kernel.readiness cimport SERVES_ALL, SERVES_IN_PROCESSES, readiness_ops_t, readiness_t
from ustack.kernel.records cimport (
    CONTROL_NAME_BYTES, CONTROLS_MOST, KERNEL_APPLICATIONS, KERNEL_LISTENERS, kernel_t)
from ustack.kernel.strategies cimport strategy_named
from ustack.kernel.threads cimport threads_most
from ustack.kernel.turns cimport (
    kernel_end_some, kernel_flush, kernel_next_deadline, kernel_run, kernel_settle, kernel_submit, kernel_turn,
    kernel_wait)
from ustack.kernel.upcalls cimport upcalls_hand_over
from ustack.link.gate cimport Gate, warn_unclosed

import errno
import warnings
from pathlib import Path

from ustack.errors import AddressInUse, WouldBlock

cdef enum:
    SLICE_NS = 100000000            # run() looks for signals and stop() this often
    END_MOST = 512                  # connections that one turn of close() ends
    MAX_CONNECTIONS = 1 << 24
    SPIN_MOST_NS = 100000000        # a stop is noticed after it

CONTROLS_FILE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


@no_gc_clear        # its end must find its Copy
cdef class KernelTransport(Transport):
    """KernelTransport(strategy="epoll-lt", *, now_ns=None, max_connections=None, send_queue_bytes=1 << 20,
    low_water_bytes=131072, unsent_low_water_bytes=1 << 30, max_unread_bytes=1 << 28, sndbuf_bytes=0, cc=None,
    reuse_port=False, spin_ns=0, cork=False, sendfile=False, zerocopy=False)
--

    Serves applications over the kernel's sockets.

    max_connections: None: 1,048,576, or as many descriptors as the strategy can watch. now_ns: the time of the first
    poll(), which then is told the time of each; None: a real clock. send_queue_bytes: of
    a connection, beyond what the kernel's buffer (sndbuf_bytes, 0: as it chooses) has taken. max_unread_bytes: of what
    applications have left of what was read, of all connections. cc: None: the kernel's own choice. reuse_port: other
    processes may listen on the same ports. spin_ns: the longest that run() goes on asking the strategy before it
    sleeps, while sleeps are that short. cork: TCP_CORK while something is queued. sendfile: of
    mapped files that are lent with their descriptor. zerocopy: MSG_ZEROCOPY for sends of 16 KiB and more. Raises
    ValueError, OSError.
    """

    cdef kernel_t c
    cdef list applications
    cdef bint stop_requested
    cdef bint come_up
    cdef bint begun
    cdef tuple control_names
    cdef readonly str bound                 # "pid_max: 3072": what bounds threads or processes; None: nothing does
    cdef Copy copy

    def __cinit__(self, *args: object, **options: object) -> None:
        kernel_clear(&self.c)
        self.applications = []
        self.copy = Copy.__new__(Copy)
        self.copy.alive = &self.alive
        self.copy.come_up = &self.come_up
        self.gate = self.copy.gate = Gate()

    def __init__(self, strategy: str = "epoll-lt", *, now_ns: int | None = None, max_connections: int | None = None,
                 send_queue_bytes: int = 1 << 20, low_water_bytes: int = 131072,
                 unsent_low_water_bytes: int = 1 << 30, max_unread_bytes: int = 1 << 28, sndbuf_bytes: int = 0,
                 cc: str | None = None, reuse_port: bool = False, spin_ns: int = 0,
                 cork: bool = False, sendfile: bool = False, zerocopy: bool = False) -> None:
        cdef const readiness_ops_t *ops
        if self.begun:
            raise RuntimeError("a transport is initialised once")
        ops = strategy_named(strategy)
        self.c.send_queue_bytes = whole("send_queue_bytes", send_queue_bytes, 1, 1 << 30)
        self.c.low_water_bytes = whole("low_water_bytes", low_water_bytes, 0, 1 << 30)
        if self.c.low_water_bytes >= self.c.send_queue_bytes:
            self.c.low_water_bytes = self.c.send_queue_bytes // 2
        self.c.unsent_low_water_bytes = min(
            whole("unsent_low_water_bytes", unsent_low_water_bytes, 0, 1 << 30), send_queue_bytes)
        self.c.max_unread_bytes = whole("max_unread_bytes", max_unread_bytes, 0, 1 << 40)
        self.c.sndbuf_bytes = whole("sndbuf_bytes", sndbuf_bytes, 0, 1 << 30)
        self.c.reuse_port = bool(reuse_port)
        self.c.cork = bool(cork)
        if self.c.cork and ops.send != NULL:
            raise ValueError(f"cork=True: {strategy} sends by requests of its own")
        self._send_files(strategy, ops, bool(sendfile))
        self.c.zerocopy = bool(zerocopy)
        if self.c.zerocopy and (ops.send != NULL or ops.serves != SERVES_ALL or not ops.tells_errors):
            raise ValueError(f"zerocopy=True: with {strategy} nobody would hear that a send is over"
                             + ("; there is io_uring-zc" if ops.send != NULL else ""))
        self.c.spin_ns = whole("spin_ns", spin_ns, 0, SPIN_MOST_NS)
        if self.c.spin_ns and ops.serves != SERVES_ALL:
            raise ValueError(f"spin_ns={spin_ns}: with {strategy}, who serves a connection asks nobody")
        self._learn_controls(cc)
        if max_connections is None and ops.serves != SERVES_ALL:
            max_connections, name = threads_most(ops.serves == SERVES_IN_PROCESSES)
            max_connections = min(max(max_connections, 1), MAX_CONNECTIONS)
            self.bound = f"{name}: {max_connections}"
        if max_connections is None:
            max_connections = ops.most_fd if ops.most_fd else 1 << 20
        most = whole("max_connections", max_connections, 1, MAX_CONNECTIONS)
        if ops.most_fd and most > <int>ops.most_fd:
            raise ValueError(f"max_connections={most}: {strategy} cannot watch descriptors of {ops.most_fd} and above "
                             "(FD_SETSIZE)")
        self.manual_clock = self.c.manual = now_ns is not None
        if self.manual_clock and ops.serves == SERVES_IN_PROCESSES:
            raise ValueError("now_ns: a process for each connection has the kernel's time")
        self.c.now_ns = whole("now_ns", now_ns, 0, 1 << 62) if self.manual_clock else clock_monotonic_ns()
        self.begun = True
        self.c.owner = <void *>self
        self.c.call_owner = call_applications
        self.copy.kernel = &self.c
        kernel_begin(&self.c, ops, <uint32_t>most)
        downcalls_fill(&self.c.transport)
        self.c.transport.budget = &self.c.budget
        self.table = &self.c.transport
        self.alive = True

    cdef int _send_files(self, str strategy, const readiness_ops_t *ops, bint wanted) except -1:
        if wanted and ops.send != NULL:
            raise ValueError(f"sendfile=True: {strategy} sends by requests of its own")
        if wanted and ops.serves != SERVES_ALL:
            raise ValueError(f"sendfile=True: with {strategy} sockets block, and so would sendfile(2)")
        self.c.files.by_descriptor = wanted
        if wanted:
            self.c.transport.files = &self.c.files
        return 0

    def _learn_controls(self, cc: str | None) -> None:
        """The congestion controls that this kernel offers: number 0 is its choice, unless cc names one."""
        cdef int index
        cdef bytes encoded
        names = CONTROLS_FILE.read_text().split()[:CONTROLS_MOST]
        if cc is not None:
            if cc not in names:
                raise ValueError(f"no congestion control {cc!r}; this kernel has: {', '.join(names)}")
            encoded = cc.encode()
            memcpy(self.c.cc, data_of(encoded), size_of(encoded))
        for index, name in enumerate(names):
            encoded = name.encode()[:CONTROL_NAME_BYTES - 1]
            memcpy(self.c.controls[index], data_of(encoded), size_of(encoded))
        self.c.control_count = <uint32_t>len(names)
        self.control_names = tuple(names)

    def __del__(self) -> None:
        if self.alive:
            warn_unclosed(self)
            self.gate.defer(self._destroy)

    def __dealloc__(self) -> None:
        if self.copy.kernel != NULL:
            self.copy.kernel = NULL         # __del__ could not: nobody is called
            kernel_discard(&self.c)

    # ------------------------------------------------------------ what every transport has

    cdef uint16_t register(self, Application application) except 0:
        if application.transport == self.table:
            return application.c.index
        self.ensure_usable(application)
        if self.c.application_count == KERNEL_APPLICATIONS - 1:
            raise MemoryError(f"a transport serves at most {KERNEL_APPLICATIONS - 1} applications")
        self.c.application_count += 1
        self.c.applications[self.c.application_count] = &application.c
        application.attach(self, <uint16_t>self.c.application_count, &self.come_up)
        self.applications.append(application)
        return application.c.index

    cdef uint64_t now(self) noexcept:
        if not self.manual_clock:
            self.c.now_ns = clock_monotonic_ns()
        return self.c.now_ns

    cdef int leave(self) except -1:
        self.gate.leave()
        return self.raise_parked_of(self.applications)

    cdef uint32_t turn(self, uint64_t at_ns) noexcept:
        cdef uint32_t happened
        lent_watch(&self.come_up)
        with nogil:
            if self.c.manual:
                reads_settle(&self.c)
            kernel_wait(&self.c, 0)
            happened = kernel_turn(&self.c, at_ns)
            if self.c.manual and self.c.threaded:
                happened += kernel_settle(&self.c)
            kernel_submit(&self.c)
        lent_watch(NULL)
        self._hand_over()
        return happened

    cdef void _hand_over(self) noexcept:
        if self.c.hand_overs:
            upcalls_hand_over(&self.c)

    cdef void push(self) noexcept:
        cdef uint64_t now_ns
        if not self.manual_clock and self.alive:
            now_ns = self.now()
            with nogil:
                kernel_flush(&self.c, now_ns)
            self._hand_over()

    cdef void push_with_gil(self) noexcept:
        if not self.manual_clock and self.alive:
            kernel_flush(&self.c, self.now())
            self._hand_over()

    cdef int control_number(self, object name) except -1:
        if name is None:
            name = bytes(self.c.cc).split(b"\0")[0].decode() or self.control_names[0]
        if name not in self.control_names:
            raise ValueError(f"no congestion control {name!r}; this kernel has: {', '.join(self.control_names)}")
        return self.control_names.index(name)

    cdef object control_name(self, int number):
        return self.control_names[number]

    cdef int _between_turns(self) except -1:
        self.gate.serve()
        self.raise_parked_of(self.applications)
        return PyErr_CheckSignals()

    cdef bint wait_for(self, object condition, uint64_t until_ns, str what) except -1:
        cdef uint64_t now_ns
        if self.manual_clock:
            raise WouldBlock("would_block", f"{what}; a manual clock does not wait: poll it", errno.EAGAIN)
        while not condition():
            self._between_turns()
            now_ns = clock_monotonic_ns()
            if now_ns >= until_ns:
                return False
            self._sleep(min(until_ns, now_ns + SLICE_NS), now_ns)

    cdef void _sleep(self, uint64_t until_ns, uint64_t now_ns) noexcept:
        """A wait of at most that long, and the turn after it."""
        cdef uint64_t deadline_ns = kernel_next_deadline(&self.c)
        if until_ns < deadline_ns:
            deadline_ns = until_ns
        lent_watch(&self.come_up)
        with nogil:
            kernel_wait(&self.c, deadline_ns - now_ns if deadline_ns > now_ns else 0)
            kernel_turn(&self.c, clock_monotonic_ns())
            kernel_submit(&self.c)
        lent_watch(NULL)
        self._hand_over()

    # ------------------------------------------------------------ for its user

    def listen(self, port: int, *, application: Application, address: str | None = None,
               backlog: int = 4096) -> "KernelListener":
        """The application gets the connections to this port; 0: one that the kernel chooses. address None: any.

        backlog: of connections that nobody has accepted yet, and of those that on_accept leaves waiting.
        """
        cdef ip_addr_t wanted
        cdef const ip_addr_t *at = NULL
        cdef uint16_t number = whole("port", port, 0, 65535)
        cdef uint32_t most = whole("backlog", backlog, 1, 1 << 20)
        cdef Application own = application
        cdef int answer
        if address is not None:
            ip_addr_from_text(address, &wanted)
            at = &wanted
        self.enter("listen()")
        try:
            self.register(own)
            answer = self.table.listen(self.table, at, number, &own.c, most)
            if answer == CALL_IN_USE:
                raise AddressInUse("in_use", f"port {number} is in use", errno.EADDRINUSE)
            if answer != CALL_OK:
                raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {address or 'any address'}, port {number}")
            return self._listener(at)
        finally:
            self.leave()

    def listen_shared(self, descriptor: int, *, application: Application, backlog: int = 4096) -> "KernelListener":
        """The same on a socket that listens already, and from which other processes take connections, too: each goes to
        one of them. The descriptor stays the caller's; the transport has a copy. Raises OSError."""
        cdef int fd = <int>whole("descriptor", descriptor, 0, 0x7FFFFFFF)
        cdef uint32_t most = whole("backlog", backlog, 1, 1 << 20)
        cdef Application own = application
        self.enter("listen_shared()")
        try:
            self.register(own)
            if listen_shared(&self.c, fd, &own.c, most) != CALL_OK:
                raise OSError(errno.EINVAL, f"descriptor {descriptor} is no IPv4 socket that listens")
            return self._listener(&self.c.latest_address)
        finally:
            self.leave()

    cdef KernelListener _listener(self, const ip_addr_t *at):
        """The face of the one that was made last."""
        cdef KernelListener listener = KernelListener.__new__(KernelListener)
        listener.transport = self
        listener.has_address = at != NULL and not ip_addr_is_any(at)
        if listener.has_address:
            listener.address = at[0]
        listener.port = self.c.latest_port
        return listener

    def poll(self, now_ns: int | None = None) -> int:
        """One turn, without waiting; how much happened in it. now_ns: exactly with a manual clock; never decreasing.

        With a manual clock reads of files (aio) have ended when it begins, unless that takes a minute
        (file_reads_late)."""
        cdef uint64_t at_ns
        self.enter("poll()")
        try:
            if self.manual_clock != (now_ns is not None):
                raise ValueError("poll() takes now_ns exactly when the transport was made with now_ns")
            at_ns = whole("now_ns", now_ns, self.c.now_ns, 1 << 62) if self.manual_clock else clock_monotonic_ns()
            return self.turn(at_ns)
        finally:
            self.leave()

    def run(self, duration_ns: int | None = None) -> None:
        """Serve until stop(), the end of duration_ns, or a signal handler that raises. Sleeps when nothing is ready."""
        cdef uint64_t until_ns = UINT64_MAX, slice_ns
        cdef uint64_t start_ns = clock_monotonic_ns()
        self.enter("run()")
        try:
            if self.manual_clock:
                raise ValueError("a transport with a manual clock is driven by poll(now_ns)")
            if duration_ns is not None:
                until_ns = start_ns + <uint64_t>whole("duration_ns", duration_ns, 0, UINT64_MAX - start_ns)
            self.stop_requested = False
            while self.alive and not self.stop_requested and clock_monotonic_ns() < until_ns:
                slice_ns = clock_monotonic_ns() + SLICE_NS
                if slice_ns > until_ns:
                    slice_ns = until_ns
                self.come_up = self.stop_requested or bool(self.gate.deferred)
                lent_watch(&self.come_up)
                with nogil:
                    kernel_run(&self.c, slice_ns, &self.come_up)
                lent_watch(NULL)
                self._hand_over()
                self._between_turns()
        finally:
            self.leave()

    def stop(self) -> None:
        """Make run() return: after its current turn, or, where it sleeps, within 100 ms. Allowed from anywhere."""
        self.stop_requested = True
        self.come_up = True

    def close(self, *, linger: float | None = 0.0) -> None:
        """Close every listener, serve connections that applications have closed for `linger` seconds at most, reset
        the others, let the applications go. Reads of files (aio) are waited for two seconds at most, then there is a
        RuntimeWarning: what they use stays until they have ended. Idempotent."""
        cdef uint64_t until_ns = UINT64_MAX, limit_ns = timeout_ns(linger)
        if not self.alive:
            return
        self.enter("close()")
        try:
            self._unlisten_all()
            if limit_ns < UINT64_MAX - clock_monotonic_ns():
                until_ns = clock_monotonic_ns() + limit_ns
            while not self.manual_clock and self.closing_connections() and clock_monotonic_ns() < until_ns:
                self._sleep(min(until_ns, clock_monotonic_ns() + SLICE_NS), clock_monotonic_ns())
                self._between_turns()
            self._destroy()
        finally:
            self.gate.leave()

    def finish_children(self) -> None:
        """With a process for each connection: have each finish what is under way, as HttpServer.finish() does here, and
        end. closing_connections() says how many are left. Those that close() finds are killed."""
        self.enter("finish_children()")
        try:
            children_signal(&self.c, SIGTERM)
        finally:
            self.leave()

    cdef void _unlisten_all(self) noexcept:
        cdef int index
        for index in range(KERNEL_LISTENERS):
            if self.c.listeners[index].fd >= 0:
                self.table.unlisten(self.table, &self.c.listeners[index].address, self.c.listeners[index].port)

    def _destroy(self) -> None:
        cdef bint more = True
        cdef uint64_t now_ns
        while more:
            now_ns = self.now()
            with nogil:
                more = kernel_end_some(&self.c, END_MOST, now_ns)
            self._hand_over()
        for application in self.applications:
            (<Application>application).detach()
        self.alive = False
        self.copy.kernel = NULL
        kernel_free(&self.c)
        given_up = self.c.counters[<int>FILE_READS_GIVEN_UP]
        if given_up:
            warnings.warn(f"{given_up} reads of files have not ended: what they read into, and their descriptors, stay "
                          "until they have", RuntimeWarning, stacklevel=3)

    # ------------------------------------------------------------ looking

    @property
    def strategy(self) -> str:
        """Its name."""
        return self.c.readiness.ops.name.decode() if self.c.readiness != NULL else ""

    @property
    def established(self) -> int:
        """Connections that applications own now."""
        return self.c.established

    def closing_connections(self) -> int:
        """Of them, those that their applications have closed, and that still have bytes or a FIN to come or to go; and
        sockets that outlive their connections, because the kernel still sends from memory (zerocopy)."""
        return self.c.closing + self.c.orphan_count

    @property
    def next_deadline_ns(self) -> int | None:
        """When poll() next has something to do unless a socket becomes ready; None: never."""
        if not self.alive:
            return None
        self.gate.check("next_deadline_ns")
        cdef uint64_t deadline_ns = kernel_next_deadline(&self.c)
        return None if deadline_ns == UINT64_MAX else max(deadline_ns, self.c.now_ns)

    def counters(self) -> dict[str, int]:
        """Every event counted since the start, by name (counters.pxd). readiness_overflows: times that a strategy had
        lost what it was to tell, and asked about everything instead (rtsig), or that the completion ring was full
        (io_uring). readiness_shortages: times that a receive found every registered buffer in use (io_uring). With a
        process for each connection, what a child has counted is in it once it has ended."""
        cdef uint64_t overflows = self.c.readiness.overflows if self.c.readiness != NULL else 0
        cdef uint64_t shortages = self.c.readiness.shortages if self.c.readiness != NULL else 0
        counters = kernel_counters_as_dict(self.c.counters)
        if self.c.board != NULL:
            for name, more in kernel_counters_as_dict(children_counters(&self.c)).items():
                counters[name] += more
        return {**counters, "readiness_overflows": overflows, "readiness_shortages": shortages}

    def leaks(self) -> dict[str, int]:
        """Records in use, by pool: all zero once every connection has ended. receive_buffers: of io_uring, which its
        connections share."""
        cdef readiness_t *readiness = self.c.readiness
        cdef uint32_t buffers = 0
        if readiness != NULL and readiness.ops.buffers_in_use != NULL:
            buffers = readiness.ops.buffers_in_use(readiness)
        return {"connections": self.c.conns.in_use, "pieces": self.c.pieces.in_use, "timers": self.c.wheel.armed,
                "unread_bytes": self.c.unread_bytes, "receive_buffers": buffers}

    def __enter__(self) -> "KernelTransport":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


cdef void call_applications(void *owner, const char *what) noexcept:
    """In a child that serves one connection: it is inside nothing of Python's, though its copy of the gate says so."""
    cdef KernelTransport transport = <KernelTransport>owner
    transport.gate.inside = 0
    for application in transport.applications:
        call = getattr(application, what.decode(), None)
        if call is not None:
            call(*((transport,) if what == b"finish" else ()))


cdef class KernelListener:
    """A port that a transport listens on, made by KernelTransport.listen()."""

    cdef KernelTransport transport
    cdef ip_addr_t address
    cdef bint has_address
    cdef readonly int port

    def __init__(self) -> None:
        raise TypeError("use KernelTransport.listen()")

    def close(self) -> None:
        """Take no connection any more; those that there are go on. Idempotent."""
        cdef const ip_addr_t *at = &self.address if self.has_address else NULL
        if self.transport is None or not self.transport.alive:
            return
        self.transport.enter("close()")
        try:
            if listener_of(&self.transport.c, at, <uint16_t>self.port) != NULL:
                self.transport.table.unlisten(self.transport.table, at, <uint16_t>self.port)
        finally:
            self.transport.leave()
            self.transport = None
