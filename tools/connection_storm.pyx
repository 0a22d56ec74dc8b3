# SPDX-License-Identifier: MIT
"""Clients without a stack that open and end connections by the million, and a clock on every turn of the engine.

A ConnectionStorm is a link in memory and, at its far end, as many clients as wanted: each knows its sequence numbers
(4 bytes are kept, the rest follows from its index) and answers what the stack sends. Frames are written before a turn
and read after it, so that only the engine's own work is in a turn's processor time. Neighbours: above, bench_turns;
below, engine, link/memory, wire. See canned_clients for clients that ask for something.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from ustack.application cimport ACCEPT_TAKEN, Application, application_t, close_reason_t, conn_t, transport_t
from ustack.base.clock cimport clock_thread_ns
from ustack.base.posix cimport htonl, ntohl
from ustack.buf.frame cimport CHECKSUM_VERIFIED
from ustack.engine.owner cimport Engine
from ustack.engine.poll cimport engine_end_some, engine_poll
from ustack.engine.records cimport ENGINE_BURST, engine_t
from ustack.link.memory cimport MemoryLink
from ustack.link.memory_ring cimport (
    far_commit, far_next, far_release, far_reserve, far_waiting, memory_sent_t, memory_t)
from ustack.wire.arp cimport ARP_BYTES, ARP_REPLY, ARP_REQUEST, arp_emit, arp_parse, arp_t
from ustack.wire.ethernet cimport (
    ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ethernet_emit, ethernet_parse, ethernet_t)
from ustack.wire.ipv4 cimport IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, ipv4_emit, ipv4_parse, ipv4_t
from ustack.wire.tcp cimport ACK, FIN, HAS_MSS, RST, SYN, header_t, segment_emit, segment_parse, segment_t

cdef enum:
    FIRST_PORT = 1024
    PORTS = 64000                       # of each client address
    FIRST_ADDRESS = 0x0A000001          # 10.0.0.1, behind the gateway
    GATEWAY = 0xC6120001
    FRAME_BYTES = 127                   # of the longest that a client sends
    MOST_FRAMES_OUT = 8192
    SERVER_PORT = 80
    PROTOCOL_TCP = 6
    WINDOW = 64240
    TURN_STEP_NS = 10000                # what the stack's clock moves from turn to turn
    MOST_IDLE_TURNS = 100000            # nothing happens: give up
    REPLY_SHIFT = 30                    # above a client's index
    MOST_CLIENTS = 1 << 28

cdef enum reply_t:
    REPLY_ACK = 0                       # of the SYN-ACK
    REPLY_FIN = 1                       # the stack has closed: acknowledge its FIN and send ours
    REPLY_LAST = 2                      # of the FIN that answers ours

ctypedef struct storm_t:
    uint32_t clients
    uint32_t *rcv_nxt                   # of each client
    uint32_t *replies                   # ring of reply_t << REPLY_SHIFT | index, one slot a client
    uint64_t reply_first
    uint64_t reply_count
    bint clients_close                  # a FIN of the stack's is an answer
    uint64_t established
    uint64_t ended                      # FIN or RST of the stack's seen
    uint64_t unexpected
    memory_t *link                      # whose far end they are
    bint arp_due
    uint8_t client_mac[6]
    uint8_t server_mac[6]
    uint32_t server_be
    uint64_t now_ns
    # processor time of each turn of the present phase
    uint32_t *turn_ns
    uint32_t turns
    uint32_t turn_capacity


# ---------------------------------------------------------------- what clients write

cdef inline uint32_t client_isn(uint32_t index) noexcept nogil:
    return index * 2654435761u


cdef void push_frame(storm_t *storm, uint32_t length) noexcept nogil:
    """The frame that was written into what far_reserve gave."""
    far_commit(storm.link, length, length).checksum = CHECKSUM_VERIFIED


cdef void write_arp(storm_t *storm) noexcept nogil:
    cdef arp_t arp
    cdef uint8_t *out = far_reserve(storm.link, FRAME_BYTES)
    arp.operation = ARP_REPLY
    arp.sender_be = htonl(GATEWAY)
    arp.target_be = storm.server_be
    memcpy(arp.sender_mac, storm.client_mac, 6)
    memcpy(arp.target_mac, storm.server_mac, 6)
    ethernet_emit(out, storm.server_mac, storm.client_mac, ETHERTYPE_ARP)
    arp_emit(out + ETHERNET_HEADER_BYTES, &arp)
    push_frame(storm, ETHERNET_HEADER_BYTES + ARP_BYTES)
    storm.arp_due = False


cdef void write_segment(storm_t *storm, uint32_t index, uint32_t seq, uint8_t flags) noexcept nogil:
    cdef uint8_t *out = far_reserve(storm.link, FRAME_BYTES)
    cdef header_t header
    cdef ipv4_t ip
    cdef uint32_t length
    memset(&header, 0, sizeof(header))
    header.sport = <uint16_t>(FIRST_PORT + index % PORTS)
    header.dport = SERVER_PORT
    header.seq = client_isn(index) + seq
    header.flags = flags
    header.window = WINDOW
    if flags & SYN:
        header.has = HAS_MSS
        header.mss = 1460
    else:
        header.ack = storm.rcv_nxt[index]
    length = segment_emit(out + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES, &header)
    memset(&ip, 0, sizeof(ip))
    ip.ttl = 64
    ip.protocol = PROTOCOL_TCP
    ip.fragment = IPV4_DONT_FRAGMENT
    ip.total_length = <uint16_t>(IPV4_HEADER_BYTES + length)
    ip.src_be = htonl(FIRST_ADDRESS + index / PORTS)
    ip.dst_be = storm.server_be
    ethernet_emit(out, storm.server_mac, storm.client_mac, ETHERTYPE_IPV4)
    ipv4_emit(out + ETHERNET_HEADER_BYTES, &ip)
    push_frame(storm, ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + length)


cdef void write_replies(storm_t *storm) noexcept nogil:
    """Begin a burst: what clients owe."""
    cdef uint32_t entry, index, kind
    if storm.arp_due:
        write_arp(storm)
    while storm.reply_count > 0 and far_waiting(storm.link) < ENGINE_BURST:
        entry = storm.replies[storm.reply_first % storm.clients]
        storm.reply_first += 1
        storm.reply_count -= 1
        index = entry & ((1u << REPLY_SHIFT) - 1)
        kind = entry >> REPLY_SHIFT
        write_segment(storm, index, 2 if kind == REPLY_LAST else 1, ACK | FIN if kind == REPLY_FIN else ACK)


# ---------------------------------------------------------------- what clients read

cdef void read_frames(storm_t *storm) noexcept nogil:
    cdef const memory_sent_t *sent
    while (sent := far_next(storm.link)) != NULL:
        read_frame(storm, sent.data, sent.length)
        far_release(storm.link)


cdef void read_frame(storm_t *storm, const uint8_t *frame, uint32_t length) noexcept nogil:
    cdef ethernet_t ethernet
    cdef ipv4_t ip
    cdef arp_t arp
    cdef segment_t segment
    cdef const uint8_t *packet = frame + ETHERNET_HEADER_BYTES
    if ethernet_parse(frame, length, &ethernet) != 0:
        storm.unexpected += 1
        return
    length -= ETHERNET_HEADER_BYTES
    if ethernet.ethertype == ETHERTYPE_ARP:
        if arp_parse(packet, length, &arp) == 0 and arp.operation == ARP_REQUEST and arp.target_be == htonl(GATEWAY):
            storm.arp_due = True
    elif ipv4_parse(packet, length, &ip) != 0 or ip.protocol != PROTOCOL_TCP:
        storm.unexpected += 1
    elif segment_parse(packet + ip.header_length, ip.total_length - ip.header_length, &segment) != 0:
        storm.unexpected += 1
    else:
        read_segment(storm, (ntohl(ip.dst_be) - FIRST_ADDRESS) * PORTS + segment.dport - FIRST_PORT, &segment)


cdef void read_segment(storm_t *storm, uint32_t index, const segment_t *segment) noexcept nogil:
    cdef uint32_t kind
    if index >= storm.clients:
        storm.unexpected += 1
        return
    if segment.flags & RST:
        storm.ended += 1
        return
    if segment.flags & SYN:
        kind = REPLY_ACK
        storm.established += 1
    elif segment.flags & FIN:
        kind = REPLY_LAST if storm.clients_close else REPLY_FIN
        storm.ended += 1
    else:
        return                              # an ACK of a FIN
    if storm.reply_count == storm.clients:
        storm.unexpected += 1
        return
    storm.rcv_nxt[index] = segment.seq + 1
    storm.replies[(storm.reply_first + storm.reply_count) % storm.clients] = kind << REPLY_SHIFT | index
    storm.reply_count += 1


# ---------------------------------------------------------------- the server

cdef int server_on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    transport.set_timeout(transport, conn, (<uint64_t *>app.context)[0])
    return ACCEPT_TAKEN


cdef size_t server_on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                           size_t length) noexcept nogil:
    return length


cdef void server_on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    return


cdef void server_closes(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    transport.close(transport, conn)


cdef void server_on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                           close_reason_t reason) noexcept nogil:
    return


cdef class IdleServer(Application):
    """Takes every connection, sets an idle timeout, and closes after it or after the peer's FIN."""

    cdef uint64_t timeout_ns

    def __cinit__(self) -> None:
        self.c.context = &self.timeout_ns
        self.c.on_accept = server_on_accept
        self.c.on_data = server_on_data
        self.c.on_writable = server_on_writable
        self.c.on_eof = server_closes
        self.c.on_timeout = server_closes
        self.c.on_closed = server_on_closed

    def __init__(self, timeout_ns: int) -> None:
        self.timeout_ns = timeout_ns


# ---------------------------------------------------------------- turns

cdef int note_turn(storm_t *storm, uint64_t spent_ns) noexcept nogil:
    cdef void *grown
    if storm.turns == storm.turn_capacity:
        grown = realloc(storm.turn_ns, 2 * <size_t>storm.turn_capacity * sizeof(uint32_t))
        if grown == NULL:
            return -1
        storm.turn_ns = <uint32_t *>grown
        storm.turn_capacity *= 2
    storm.turn_ns[storm.turns] = <uint32_t>(spent_ns if spent_ns < 0xFFFFFFFFu else 0xFFFFFFFFu)
    storm.turns += 1
    return 0


cdef int turn(storm_t *storm, engine_t *engine) noexcept nogil:
    """One measured turn with the burst that is ready."""
    cdef uint64_t before_ns
    storm.now_ns += TURN_STEP_NS
    before_ns = clock_thread_ns()
    engine_poll(engine, storm.now_ns)
    before_ns = clock_thread_ns() - before_ns
    read_frames(storm)
    return note_turn(storm, before_ns)


cdef bint open_all(storm_t *storm, engine_t *engine) noexcept nogil:
    cdef uint32_t next_client = 0, idle = 0
    cdef uint64_t before
    while engine.tcp.established < storm.clients:
        before = engine.tcp.established
        write_replies(storm)
        while next_client < storm.clients and far_waiting(storm.link) < ENGINE_BURST:
            write_segment(storm, next_client, 0, SYN)
            next_client += 1
        if turn(storm, engine) != 0:
            return False
        idle = 0 if engine.tcp.established != before or next_client < storm.clients else idle + 1
        if idle > MOST_IDLE_TURNS or storm.unexpected:
            return False
    return True


cdef bint end_all(storm_t *storm, engine_t *engine, bint clients_close) noexcept nogil:
    """Until no connection is left: by the clients' FINs, or by what the stack does by itself."""
    cdef uint32_t next_client = 0 if clients_close else storm.clients
    cdef uint32_t idle = 0, before
    storm.clients_close = clients_close
    while engine.tcp.tcbs.in_use > 0:
        before = engine.tcp.tcbs.in_use
        write_replies(storm)
        while next_client < storm.clients and far_waiting(storm.link) < ENGINE_BURST:
            write_segment(storm, next_client, 1, FIN | ACK)
            next_client += 1
        if turn(storm, engine) != 0:
            return False
        idle = 0 if engine.tcp.tcbs.in_use != before or next_client < storm.clients else idle + 1
        if idle > MOST_IDLE_TURNS or storm.unexpected:
            return False
    return True


cdef bint forget_all(storm_t *storm, engine_t *engine) noexcept nogil:
    cdef uint32_t idle = 0, before
    while engine.tcp.time_waits.in_use > 0:
        before = engine.tcp.time_waits.in_use
        write_replies(storm)
        if turn(storm, engine) != 0:
            return False
        idle = 0 if engine.tcp.time_waits.in_use != before else idle + 1
        if idle > MOST_IDLE_TURNS:
            return False
    return True


cdef bint stack_ends(storm_t *storm, engine_t *engine) noexcept nogil:
    cdef uint64_t before_ns
    cdef bint more = True
    while more:
        write_replies(storm)
        storm.now_ns += TURN_STEP_NS
        before_ns = clock_thread_ns()
        more = engine_end_some(engine, storm.now_ns)
        before_ns = clock_thread_ns() - before_ns
        read_frames(storm)
        if note_turn(storm, before_ns) != 0:
            return False
    return True


cdef class ConnectionStorm(MemoryLink):
    """`connections` clients. The stack on this link must have the address 198.18.0.2/24 and the gateway 198.18.0.1,
    and be driven by the methods here alone. Each returns the ns of processor time of every turn that it took, as a
    memoryview that is valid until the next call, and raises RuntimeError when the stack does not do its part."""

    cdef storm_t storm

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.storm, 0, sizeof(storm_t))

    def __init__(self, connections: int, *, now_ns: int = 1_000_000_000) -> None:
        if not 0 < connections <= MOST_CLIENTS:
            raise ValueError(f"connections: 1 to {MOST_CLIENTS}")
        if self.storm.rcv_nxt != NULL:
            raise RuntimeError("a storm is initialised once")
        MemoryLink.__init__(self, checksum_offload=True, rx_slots=ENGINE_BURST, tx_slots=MOST_FRAMES_OUT,
                            held_frames=MOST_FRAMES_OUT)
        self.storm.link = &self.memory
        self.storm.clients = connections
        self.storm.rcv_nxt = <uint32_t *>calloc(connections, sizeof(uint32_t))
        self.storm.replies = <uint32_t *>calloc(connections, sizeof(uint32_t))
        self.storm.turn_capacity = 4096
        self.storm.turn_ns = <uint32_t *>malloc(self.storm.turn_capacity * sizeof(uint32_t))
        if self.storm.rcv_nxt == NULL or self.storm.replies == NULL or self.storm.turn_ns == NULL:
            raise MemoryError
        # Ours, not a connection's: in memory before anything is measured.
        memset(self.storm.rcv_nxt, 1, connections * sizeof(uint32_t))
        memset(self.storm.replies, 1, connections * sizeof(uint32_t))
        memcpy(self.storm.client_mac, self.far_mac, 6)
        memcpy(self.storm.server_mac, self.c.mac, 6)
        self.storm.server_be = htonl(GATEWAY + 1)
        self.storm.arp_due = True
        self.storm.now_ns = now_ns

    def __dealloc__(self) -> None:
        free(self.storm.rcv_nxt)
        free(self.storm.replies)
        free(self.storm.turn_ns)

    @property
    def now_ns(self) -> int:
        """The time of the last turn: what a stack with a manual clock is to be opened with."""
        return self.storm.now_ns

    @property
    def established(self) -> int:
        """SYN-ACKs that clients have got."""
        return self.storm.established

    @property
    def ended(self) -> int:
        """FINs and RSTs that clients have got."""
        return self.storm.ended

    cdef object result(self, bint done, str what):
        if not done or self.storm.unexpected:
            raise RuntimeError(f"{what}: {self.storm.established} opened, {self.storm.ended} ended, "
                               f"{self.storm.unexpected} unexpected frames, then nothing")
        turns = <uint32_t[:self.storm.turns]>self.storm.turn_ns
        self.storm.turns = 0
        return memoryview(turns)

    cdef engine_t *engine_of(self, Engine engine) except NULL:
        if engine.link is not self:
            raise ValueError("the engine is on another link")
        return &engine.c

    def open(self, engine: Engine) -> memoryview:
        """Every client opens a connection."""
        cdef engine_t *c = self.engine_of(engine)
        with nogil:
            done = open_all(&self.storm, c)
        return self.result(done, "open")

    def idle(self, engine: Engine, after_ns: int) -> memoryview:
        """So much time passes in one step: every connection's timeout is due at once, and the server closes them."""
        cdef engine_t *c = self.engine_of(engine)
        self.storm.now_ns += after_ns
        with nogil:
            done = end_all(&self.storm, c, False)
        return self.result(done, "idle")

    def forget(self, engine: Engine, after_ns: int) -> memoryview:
        """So much time passes in one step: every TIME-WAIT record expires at once."""
        cdef engine_t *c = self.engine_of(engine)
        self.storm.now_ns += after_ns
        with nogil:
            done = forget_all(&self.storm, c)
        return self.result(done, "forget")

    def leave(self, engine: Engine) -> memoryview:
        """Every client closes its connection."""
        cdef engine_t *c = self.engine_of(engine)
        with nogil:
            done = end_all(&self.storm, c, True)
        return self.result(done, "leave")

    def end(self, engine: Engine) -> memoryview:
        """The stack ends every connection, as Stack.close() does, which must follow."""
        cdef engine_t *c = self.engine_of(engine)
        with nogil:
            done = stack_ends(&self.storm, c)
        return self.result(done, "end")
