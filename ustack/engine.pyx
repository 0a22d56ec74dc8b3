# SPDX-License-Identifier: MIT
"""THE MAP: one frame's way in, one burst's way out. See engine.pxd for the picture and the application's contract.

    engine_poll
      rx_burst ─▶ for each frame:  ip_input ─▶ tcp_input ─▶ deliver (on_accept, on_data: a view of the ring slot)
      rx_release
      ip_timers, tcp_timers
      engine_flush ─▶ for each connection with work:  upcalls ─▶ tcp_output
                      tx_submit: one system call

It holds no protocol: which layer is called when, and who tells the application, is all there is. Read first: ARCHITECTURE.md.
"""

from libc.stdint cimport UINT64_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset, strerror

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.counters cimport BYTES_OUT, FRAMES_OUT, counters_as_dict
from ustack.ip.address cimport ip_addr_from_text, ip_addr_text, ip_interface_from_text
from ustack.ip.layer cimport (IP_TCP, IP_TCP_ERROR, ip_announce, ip_config_defaults, ip_config_t, ip_destroy, ip_init,
                              ip_input, ip_next_deadline, ip_timers, ip_verdict_t, packet_t)
from ustack.tcp.calls cimport tcp_abort, tcp_receivable
from ustack.tcp.demux cimport FLOW_CONNECTION, FLOW_INDEX_BITS
from ustack.tcp.ending cimport syn_received_remove, time_wait_remove
from ustack.tcp.input cimport delivery_t, tcp_error, tcp_input
from ustack.tcp.output cimport OUTPUT_BLOCKED, tcp_output
from ustack.tcp.reassembly cimport reassembly_append, reassembly_consume, reassembly_peek
from ustack.tcp.rtt cimport rtt_rto_ns
from ustack.tcp.state cimport CLOSE_NO_MEMORY
from ustack.tcp.tcb cimport (
    TCB_ABORT, TCB_ACCEPTED, TCB_ACTIVE, TCB_CLOSED_BY_APP, TCB_EV_ACCEPT, TCB_EV_CLOSED, TCB_EV_DATA, TCB_EV_EOF,
    TCB_EV_TIMEOUT, TCB_EV_WRITABLE, TCB_LISTED, TCP_MAX_LISTENERS, tcb_at, tcb_release, tcp_config_defaults,
    tcp_config_t, tcp_destroy, tcp_init, work_add, work_return, work_take)
from ustack.tcp.timers cimport tcp_next_deadline, tcp_timers

import os

from ustack.buf.lent import alive as lent_alive
from ustack.tcp.state import state_name


cdef enum:
    EVENTS = (TCB_EV_ACCEPT | TCB_EV_DATA | TCB_EV_WRITABLE | TCB_EV_EOF | TCB_EV_TIMEOUT | TCB_EV_CLOSED)
    EVENTS_AGAIN = TCB_EV_ACCEPT | TCB_EV_DATA | TCB_EV_WRITABLE | TCB_EV_TIMEOUT
    FLUSH_BUDGET = 16384                    # connections served in one flush; the rest in the next poll


# ---------------------------------------------------------------- one poll

cdef uint32_t engine_poll(engine_t *engine, uint64_t now_ns) noexcept nogil:
    cdef link_t *link = engine.link
    cdef packet_t packet
    cdef delivery_t delivery
    cdef ip_verdict_t verdict
    cdef uint32_t n, i
    engine.now_ns = now_ns
    link.now_ns = now_ns
    n = link.ops.rx_burst(link, engine.frames, ENGINE_BURST)
    for i in range(n):
        verdict = ip_input(&engine.ip, &engine.frames[i], &packet, now_ns)
        if verdict == IP_TCP:
            tcp_input(&engine.tcp, &packet, now_ns, &delivery)
            if delivery.conn != NULL:
                deliver(engine, &delivery)
        elif verdict == IP_TCP_ERROR:
            tcp_error(&engine.tcp, &packet, now_ns)
    if n > 0:
        link.ops.rx_release(link, n)
    ip_timers(&engine.ip, now_ns)
    tcp_timers(&engine.tcp, now_ns)
    engine_flush(engine, now_ns)
    return n


cdef void engine_flush(engine_t *engine, uint64_t now_ns) noexcept nogil:
    cdef tcp_t *tcp = &engine.tcp
    cdef tcb_t *conn
    cdef uint32_t budget = FLUSH_BUDGET
    cdef bint submitted = False
    engine.now_ns = now_ns
    engine.link.now_ns = now_ns
    while budget > 0:
        conn = work_take(tcp)
        if conn == NULL:
            break
        budget -= 1
        if conn.flags & EVENTS:
            conn.flags |= TCB_LISTED        # what its upcalls leave behind is looked at right below
            upcalls(engine, conn)
            conn.flags &= ~<uint32_t>TCB_LISTED
            if conn.flags & TCB_EV_CLOSED:
                finish(engine, conn)
                continue
        if tcp_output(tcp, conn, now_ns) == OUTPUT_BLOCKED:
            work_return(tcp, conn)
            if submitted:
                break                       # the device takes no more now
            submit(engine)
            submitted = True
            continue
        submitted = False
        if conn.flags & EVENTS_AGAIN:
            work_add(tcp, conn)
    submit(engine)
    if engine.open_applications:
        close_bursts(engine)


cdef inline void submit(engine_t *engine) noexcept nogil:
    cdef int error = engine.link.ops.tx_submit(engine.link)
    if error != 0:
        engine.link_error = error
    engine.counters.value[<int>FRAMES_OUT] = engine.link.counters.tx_frames
    engine.counters.value[<int>BYTES_OUT] = engine.link.counters.tx_bytes


cdef uint64_t engine_next_deadline(engine_t *engine) noexcept nogil:
    cdef uint64_t tcp_ns, ip_ns
    if engine.tcp.work_head:
        return engine.now_ns
    tcp_ns = tcp_next_deadline(&engine.tcp)
    ip_ns = ip_next_deadline(&engine.ip)
    return tcp_ns if tcp_ns < ip_ns else ip_ns


cdef void engine_run(engine_t *engine, uint64_t until_ns, const bint *stop) noexcept nogil:
    cdef uint64_t now_ns = clock_monotonic_ns()
    cdef uint64_t deadline_ns, slept
    while not stop[0] and now_ns < until_ns and engine.link_error == 0:
        if engine_poll(engine, now_ns) == 0 and engine.link_error == 0:
            deadline_ns = engine_next_deadline(engine)
            if deadline_ns > now_ns:
                slept = engine.link.counters.waits
                engine.link_error = engine.link.ops.wait(engine.link, deadline_ns if deadline_ns < until_ns
                                                         else until_ns)
                if slept != engine.link.counters.waits:
                    return
        now_ns = clock_monotonic_ns()


# ---------------------------------------------------------------- upcalls

cdef inline application_t *application_of(engine_t *engine, const tcb_t *conn) noexcept nogil:
    """The connection's application, its burst begun."""
    cdef application_t *app = engine.applications[conn.app]
    if not engine.open_applications & (1ULL << conn.app):
        engine.open_applications |= 1ULL << conn.app
        if app.on_burst_begin != NULL:
            app.on_burst_begin(app, engine.now_ns)
    return app


cdef void close_bursts(engine_t *engine) noexcept nogil:
    cdef uint16_t i
    cdef application_t *app
    for i in range(1, engine.application_count + 1):
        if engine.open_applications & (1ULL << i):
            app = engine.applications[i]
            if app.on_burst_end != NULL:
                app.on_burst_end(app, engine.now_ns)
    engine.open_applications = 0


cdef inline bint wants_upcalls(const tcb_t *conn) noexcept nogil:
    return conn.flags & TCB_ACCEPTED and not conn.flags & (TCB_ABORT | TCB_CLOSED_BY_APP)


cdef bint accept(engine_t *engine, tcb_t *conn) noexcept nogil:
    """False: the application does not want it."""
    cdef application_t *app = application_of(engine, conn)
    cdef int answer
    conn.flags &= ~<uint32_t>TCB_EV_ACCEPT
    conn.flags |= TCB_ACCEPTED
    answer = app.on_accept(app, &engine.tcp, conn)
    if answer == ACCEPT_REFUSED:
        conn.flags &= ~<uint32_t>(TCB_ACCEPTED | TCB_ACTIVE)
        tcp_abort(&engine.tcp, conn)
        return False
    if answer == ACCEPT_WAITING:
        listener_waiting(&engine.tcp, conn)
    engine.tcp.established += 1
    return True


cdef void deliver(engine_t *engine, const delivery_t *delivery) noexcept nogil:
    """What one segment has for the application, while its frame is still lent to us."""
    cdef tcb_t *conn = delivery.conn
    cdef application_t *app
    cdef size_t consumed
    if conn.flags & TCB_EV_ACCEPT and not accept(engine, conn):
        return
    if delivery.length > 0:
        consumed = 0
        if wants_upcalls(conn):
            app = application_of(engine, conn)
            consumed = app.on_data(app, &engine.tcp, conn, delivery.data, delivery.length)
        if consumed < delivery.length:
            keep_rest(engine, conn, delivery.data + consumed, <uint32_t>(delivery.length - consumed))
    elif conn.flags & TCB_EV_DATA:
        offer_queue(engine, conn)


cdef void keep_rest(engine_t *engine, tcb_t *conn, const uint8_t *data, uint32_t length) noexcept nogil:
    """The octets are acknowledged or will be: if they cannot be kept, the connection cannot go on."""
    if conn.flags & (TCB_ABORT | TCB_CLOSED_BY_APP):
        tcp_abort(&engine.tcp, conn)        # closed with data unread (SHLD-3)
    elif (engine.tcp.rx_held_bytes >= engine.tcp.config.rx_memory_bytes
            or reassembly_append(&engine.tcp, conn, data, length) != 0):
        tcp_abort(&engine.tcp, conn)
        conn.close_reason = <uint8_t>CLOSE_NO_MEMORY


cdef void offer_queue(engine_t *engine, tcb_t *conn) noexcept nogil:
    cdef application_t *app
    cdef const uint8_t *data
    cdef uint32_t length
    cdef size_t consumed
    conn.flags &= ~<uint32_t>TCB_EV_DATA
    while wants_upcalls(conn):
        data = reassembly_peek(&engine.tcp, conn, &length)
        if data == NULL:
            return
        app = application_of(engine, conn)
        consumed = app.on_data(app, &engine.tcp, conn, data, length)
        reassembly_consume(&engine.tcp, conn, <uint32_t>consumed)
        if consumed < length:
            if conn.flags & TCB_CLOSED_BY_APP:
                tcp_abort(&engine.tcp, conn)
            return


cdef void upcalls(engine_t *engine, tcb_t *conn) noexcept nogil:
    """Every event on the connection but its end, in the order in which they can have happened."""
    cdef application_t *app
    if conn.flags & TCB_EV_ACCEPT and not accept(engine, conn):
        return
    if conn.flags & TCB_EV_DATA:
        offer_queue(engine, conn)
    if not wants_upcalls(conn):
        conn.flags &= ~<uint32_t>(EVENTS_AGAIN | TCB_EV_EOF)
        return
    app = application_of(engine, conn)
    if conn.flags & TCB_EV_WRITABLE:
        conn.flags &= ~<uint32_t>TCB_EV_WRITABLE
        app.on_writable(app, &engine.tcp, conn)
    if conn.flags & TCB_EV_EOF and tcp_receivable(&engine.tcp, conn) == 0 and wants_upcalls(conn):
        conn.flags &= ~<uint32_t>TCB_EV_EOF
        app.on_eof(app, &engine.tcp, conn)
    if conn.flags & TCB_EV_TIMEOUT and wants_upcalls(conn):
        conn.flags &= ~<uint32_t>TCB_EV_TIMEOUT
        app.on_timeout(app, &engine.tcp, conn)


cdef void finish(engine_t *engine, tcb_t *conn) noexcept nogil:
    """The last upcall; then the record is free."""
    cdef application_t *app
    if conn.flags & (TCB_ACCEPTED | TCB_ACTIVE):
        app = application_of(engine, conn)
        app.on_closed(app, &engine.tcp, conn, <close_reason_t>conn.close_reason)
    if conn.flags & TCB_ACCEPTED:
        engine.tcp.established -= 1
    tcb_release(&engine.tcp, conn)


cdef void listener_waiting(tcp_t *tcp, const tcb_t *conn) noexcept nogil:
    cdef int i
    for i in range(TCP_MAX_LISTENERS):
        if tcp.listeners[i].lport == conn.key.lport and tcp.listeners[i].app == conn.app:
            tcp.listeners[i].waiting += 1
            return


cdef uint16_t engine_add_application(engine_t *engine, application_t *app) noexcept nogil:
    if engine.application_count + 1 >= ENGINE_APPLICATIONS:
        return 0
    engine.application_count += 1
    engine.applications[engine.application_count] = app
    return engine.application_count


cdef void engine_abort_all(engine_t *engine, uint64_t now_ns) noexcept nogil:
    cdef tcp_t *tcp = &engine.tcp
    cdef uint32_t i
    cdef uint32_t rounds = 64
    tcp.now_ns = now_ns
    for i in range(tcp.flows.mask + 1):
        if tcp.flows.slots[i].target >> FLOW_INDEX_BITS == FLOW_CONNECTION:
            tcp_abort(tcp, tcb_at(tcp, tcp.flows.slots[i].target & ((1u << FLOW_INDEX_BITS) - 1)))
    while tcp.work_head and rounds > 0:
        engine_flush(engine, now_ns)
        rounds -= 1
    while tcp.syn_oldest:
        syn_received_remove(tcp, tcp.syn_oldest, False)
    while tcp.time_wait_oldest:
        time_wait_remove(tcp, tcp.time_wait_oldest)


# ---------------------------------------------------------------- owners

cdef class Application:
    """Base class of applications: a table of nogil upcalls (engine.pxd, application_t) and its owner.

    A subclass in Cython fills `self.c` in __cinit__. One Application serves one Engine.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.c, 0, sizeof(application_t))


cdef class Engine:
    """The stack of one link: frames in, upcalls out. Python face: ustack.Stack."""

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.c, 0, sizeof(engine_t))
        self.alive = False
        self.applications = []
        self.application_index = {}

    def __init__(self, Link link not None, str address not None, str gateway, object seed, object now_ns,
                 dict config not None):
        cdef ip_config_t ip_config
        cdef tcp_config_t tcp_config
        cdef int prefix_length
        cdef uint64_t seed_word
        cdef uint64_t start_ns
        if self.alive:
            raise RuntimeError("an engine is initialised once")
        if link.closed or link.c.ops == NULL:
            raise ValueError("the link is closed")
        ip_config_defaults(&ip_config)
        tcp_config_defaults(&tcp_config)
        ip_interface_from_text(address, &ip_config.address, &prefix_length)
        ip_config.prefix_length = <uint8_t>prefix_length
        if gateway is not None:
            ip_addr_from_text(gateway, &ip_config.gateway)
        for name, value in config.items():
            configure(&ip_config, &tcp_config, name, value)
        self.manual_clock = now_ns is not None
        start_ns = now_ns if self.manual_clock else clock_monotonic_ns()
        seed_word = int.from_bytes(os.urandom(8), "little") if seed is None else seed & 0xFFFFFFFFFFFFFFFF
        self.link = link
        self.c.link = &link.c
        self.c.now_ns = start_ns
        link.c.now_ns = start_ns
        if ip_init(&self.c.ip, &link.c, &self.c.counters, &ip_config, start_ns) != 0:
            raise MemoryError("no memory for the IP layer")
        if tcp_init(&self.c.tcp, &self.c.ip, &self.c.counters, &tcp_config, seed_word, start_ns) != 0:
            ip_destroy(&self.c.ip)
            raise MemoryError("no memory for TCP")
        self.alive = True
        ip_announce(&self.c.ip, start_ns)
        submit(&self.c)

    def __dealloc__(self) -> None:
        if self.alive:                      # without close(): the link may be gone already, so nothing is sent
            self.alive = False
            tcp_destroy(&self.c.tcp)
            ip_destroy(&self.c.ip)

    cdef uint64_t now(self) noexcept:
        """The time for a call between two polls; it never goes back."""
        cdef uint64_t now_ns = self.c.now_ns
        if not self.manual_clock:
            now_ns = clock_monotonic_ns()
        self.c.tcp.now_ns = now_ns
        return now_ns

    cdef void ensure_alive(self) except *:
        if not self.alive:
            raise ValueError("the stack is closed")

    cdef uint16_t register(self, Application application) except 0:
        """Index of an application, registered when it is new."""
        cdef uint16_t index = self.application_index.get(id(application), 0)
        if index == 0:
            index = engine_add_application(&self.c, &application.c)
            if index == 0:
                raise MemoryError(f"an engine serves at most {ENGINE_APPLICATIONS - 1} applications")
            self.applications.append(application)
            self.application_index[id(application)] = index
        return index

    cdef void destroy(self) except *:
        """Tell everybody, free everything, keep the balance for leaks()."""
        if not self.alive:
            return
        engine_abort_all(&self.c, self.now())
        self.closing_balance = self.balance()
        self.alive = False
        tcp_destroy(&self.c.tcp)
        ip_destroy(&self.c.ip)

    def balance(self) -> dict[str, int]:
        cdef tcp_t *tcp = &self.c.tcp
        return {
            "tcbs": tcp.tcbs.in_use, "syns": tcp.syns.in_use, "time_waits": tcp.time_waits.in_use,
            "send_pieces": tcp.send_pieces.in_use, "rx_queues": tcp.rx_queues.in_use,
            "rx_chunks": tcp.rx_chunks.in_use, "rx_held_bytes": tcp.rx_held_bytes,
            "timers": tcp.wheel.armed, "flows": tcp.flows.used, "lent": lent_alive(),
        }

    def leaks(self) -> dict[str, int]:
        """Records in use by pool: the present ones, or after close() those that were left. All zero then."""
        return self.balance() if self.alive else dict(self.closing_balance)

    def counters(self) -> dict[str, int]:
        """Every event counted since the start, by name (base/counters.pxd)."""
        return counters_as_dict(&self.c.counters)

    @property
    def established(self) -> int:
        """Connections that applications own now."""
        return self.c.tcp.established

    @property
    def next_deadline_ns(self) -> int | None:
        """When poll() next has something to do without a frame; None: never."""
        if not self.alive:
            return None
        cdef uint64_t deadline_ns = engine_next_deadline(&self.c)
        return None if deadline_ns == UINT64_MAX else deadline_ns

    def poll(self, now_ns: int | None = None) -> int:
        """One turn of the engine; the number of frames taken.

        now_ns: nanoseconds, never decreasing; needed by a stack with a manual clock, refused by one with a real clock.
        """
        cdef uint64_t at_ns
        cdef uint32_t frames
        self.ensure_alive()
        if self.manual_clock != (now_ns is not None):
            raise ValueError("poll() takes now_ns exactly when the stack was made with now_ns")
        at_ns = now_ns if self.manual_clock else clock_monotonic_ns()
        if at_ns < self.c.now_ns:
            raise ValueError(f"time goes back: {at_ns} after {self.c.now_ns}")
        with nogil:
            frames = engine_poll(&self.c, at_ns)
        return frames

    def run(self, duration_ns: int | None = None) -> None:
        """Drive the engine until stop(), the end of duration_ns, or a signal handler that raises.

        Sleeps on the link when nothing is to be done. Raises OSError when the link is gone.
        """
        cdef uint64_t until_ns = UINT64_MAX
        self.ensure_alive()
        if self.manual_clock:
            raise ValueError("a stack with a manual clock is driven by poll(now_ns)")
        self.stop_requested = False
        if duration_ns is not None:
            until_ns = clock_monotonic_ns() + <uint64_t>duration_ns
        while not self.stop_requested and clock_monotonic_ns() < until_ns:
            with nogil:
                engine_run(&self.c, slice_end(until_ns), &self.stop_requested)
            self.raise_link_error()         # and the interpreter runs signal handlers here

    def raise_link_error(self) -> None:
        """Raise what the link has reported since the last call, if anything."""
        cdef int error = self.c.link_error
        if error != 0:
            self.c.link_error = 0
            raise OSError(-error, f"link: {strerror(-error).decode()}")

    def stop(self) -> None:
        """Make run() return after its current turn. May be called from a signal handler or another thread."""
        self.stop_requested = True

    def connections(self) -> list[dict[str, object]]:
        """A snapshot of every connection: state and RFC 9293's variables."""
        cdef uint32_t i, target
        cdef list found = []
        self.ensure_alive()
        for i in range(self.c.tcp.flows.mask + 1):
            target = self.c.tcp.flows.slots[i].target
            if target >> FLOW_INDEX_BITS == FLOW_CONNECTION:
                found.append(connection_snapshot(&self.c.tcp, tcb_at(&self.c.tcp, target & ((1u << FLOW_INDEX_BITS) - 1))))
        return found


cdef uint64_t slice_end(uint64_t until_ns) noexcept nogil:
    """A busy engine comes up for signals ten times a second."""
    cdef uint64_t end_ns = clock_monotonic_ns() + 100000000
    return end_ns if end_ns < until_ns else until_ns


cdef dict connection_snapshot(const tcp_t *tcp, const tcb_t *tcb):
    """One connection in RFC 9293's names. Octets, segments and the units that the names say."""
    return {
        "state": state_name(tcb.state),
        "local": (ip_addr_text(&tcb.key.laddr), tcb.key.lport),
        "remote": (ip_addr_text(&tcb.key.raddr), tcb.key.rport),
        "snd_una": tcb.snd_una, "snd_nxt": tcb.snd_nxt, "snd_max": tcb.snd_max, "snd_wnd": tcb.snd_wnd,
        "snd_queued_bytes": tcb.snd_end - tcb.snd_una if <int32_t>(tcb.snd_end - tcb.snd_una) > 0 else 0,
        "rcv_nxt": tcb.rcv_nxt, "rcv_wnd": tcb.rcv_adv - tcb.rcv_nxt,
        "rcv_queued_bytes": tcp_receivable(tcp, tcb),
        "cwnd": tcb.cwnd, "ssthresh": tcb.ssthresh, "smss": tcb.smss,
        "srtt_us": tcb.srtt_us, "rttvar_us": tcb.rttvar_us, "rto_ns": rtt_rto_ns(tcp, tcb), "backoff": tcb.backoff,
        "snd_wscale": tcb.snd_wscale, "rcv_wscale": tcb.rcv_wscale, "options": tcb.options,
        "ts_recent": tcb.ts_recent, "ttl": tcb.ttl, "tos": tcb.tos,
        "soft_error": (tcb.soft_error >> 4, tcb.soft_error & 0x0F) if tcb.soft_error else None,
    }


cdef uint64_t bounded(str name, object value, uint64_t low, uint64_t high) except? 0xFFFFFFFFFFFFFFFF:
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be a whole number from {low} to {high}")
    return value


cdef void configure(ip_config_t *ip, tcp_config_t *tcp, str name, object value) except *:
    """One setting by its name in tcp_config_t or ip_config_t. Raises ValueError for names and values that do not exist."""
    cdef uint64_t day_ns = 86400ULL * 1000000000ULL
    if name == "max_connections":
        tcp.max_connections = <uint32_t>bounded(name, value, 1, 1 << 28)
    elif name == "syn_queue":
        tcp.syn_queue = <uint32_t>bounded(name, value, 1, 1 << 28)
    elif name == "time_wait_limit":
        tcp.time_wait_limit = <uint32_t>bounded(name, value, 1, 1 << 28)
    elif name == "rcv_buffer_bytes":
        tcp.rcv_buffer_bytes = <uint32_t>bounded(name, value, 1, 1 << 29)
    elif name == "rx_memory_bytes":
        tcp.rx_memory_bytes = <uint32_t>bounded(name, value, 1, 0xFFFFFFFF)
    elif name == "snd_queue_bytes":
        tcp.snd_queue_bytes = <uint32_t>bounded(name, value, 1, 1 << 30)
    elif name == "snd_low_water_bytes":
        tcp.snd_low_water_bytes = <uint32_t>bounded(name, value, 0, 1 << 30)
    elif name == "initial_window_segments":
        tcp.initial_window_segments = <uint16_t>bounded(name, value, 1, 1000)
    elif name == "mss":
        tcp.mss = <uint16_t>bounded(name, value, 64, 65495)
    elif name == "rto_initial_ns":
        tcp.rto_initial_ns = bounded(name, value, 1000000, day_ns)
    elif name == "rto_min_ns":
        tcp.rto_min_ns = bounded(name, value, 1000000, day_ns)
    elif name == "rto_max_ns":
        tcp.rto_max_ns = bounded(name, value, 1000000, day_ns)
    elif name == "delayed_ack_ns":
        tcp.delayed_ack_ns = bounded(name, value, 0, 499999999)
    elif name == "msl_ns":
        tcp.msl_ns = bounded(name, value, 0, day_ns)
    elif name == "user_timeout_ns":
        tcp.user_timeout_ns = bounded(name, value, 1000000, 5 * day_ns)
    elif name == "syn_timeout_ns":
        tcp.syn_timeout_ns = bounded(name, value, 1000000, 5 * day_ns)
    elif name == "syn_ack_timeout_ns":
        tcp.syn_ack_timeout_ns = bounded(name, value, 1000000, day_ns)
    elif name == "fin_wait_2_timeout_ns":
        tcp.fin_wait_2_timeout_ns = bounded(name, value, 1000000, day_ns)
    elif name == "keepalive_idle_ns":
        tcp.keepalive_idle_ns = bounded(name, value, 1000000, 5 * day_ns)
    elif name == "keepalive_interval_ns":
        tcp.keepalive_interval_ns = bounded(name, value, 1000000, day_ns)
    elif name == "keepalive_probes":
        tcp.keepalive_probes = <uint8_t>bounded(name, value, 1, 255)
    elif name == "ttl":
        tcp.ttl = <uint8_t>bounded(name, value, 1, 255)
        ip.ttl = tcp.ttl
    elif name == "timestamps":
        tcp.timestamps = <uint8_t>bounded(name, value, 0, 1)
    elif name == "sack":
        tcp.sack = <uint8_t>bounded(name, value, 0, 1)
    elif name == "window_scaling":
        tcp.window_scaling = <uint8_t>bounded(name, value, 0, 1)
    elif name == "neighbour_reachable_ns":
        ip.neighbour_reachable_ns = bounded(name, value, 1000000, day_ns)
    elif name == "neighbour_retry_ns":
        ip.neighbour_retry_ns = bounded(name, value, 1000000, day_ns)
    elif name == "neighbour_tries":
        ip.neighbour_tries = <uint8_t>bounded(name, value, 1, 255)
    elif name == "neighbour_queue":
        ip.neighbour_queue = <uint8_t>bounded(name, value, 1, 255)
    elif name == "neighbour_limit":
        ip.neighbour_limit = <uint16_t>bounded(name, value, 2, 65534)
    else:
        raise ValueError(f"{name}: there is no such setting")
