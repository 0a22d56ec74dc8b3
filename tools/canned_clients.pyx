# SPDX-License-Identifier: MIT
"""Clients without a stack, at the far end of a link in memory: what a server costs by itself.

A CannedClients is such a link and, behind it, as many keep-alive clients as wanted. Each asks for the same thing again
as soon as it has the answer. Only the engine's polls are timed: requests are written before a poll, responses are
looked at after it, so that the clients' work is not in the figure. Every response must be in order, whole and as long
as the first one; anything else is counted in `unexpected`, and the measurement is worth nothing. More clients than an
address has ports live behind the first one's: the stack needs it as its gateway.

Its frames have the options that Linux negotiates (timestamps on every segment). Neighbours: above, bench_request;
below, engine, link/memory, wire.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport htonl, ntohl
from ustack.buf.frame cimport CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED
from ustack.engine.owner cimport Engine
from ustack.engine.poll cimport engine_poll
from ustack.engine.records cimport ENGINE_BURST
from ustack.link.memory cimport MemoryLink
from ustack.link.memory_ring cimport (
    far_commit, far_next, far_release, far_reserve, far_waiting, memory_sent_t, memory_t)
from ustack.wire.arp cimport ARP_BYTES, ARP_REPLY, ARP_REQUEST, arp_emit, arp_parse, arp_t
from ustack.wire.checksum cimport checksum_emit, checksum_partial
from ustack.wire.ethernet cimport (
    ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ethernet_emit, ethernet_parse, ethernet_t)
from ustack.wire.ipv4 cimport IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, ipv4_emit, ipv4_parse, ipv4_pseudo_sum, ipv4_t
from ustack.wire.octets cimport write_u16_be
from ustack.wire.tcp cimport (
    ACK, FIN, HAS_MSS, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, PSH, RST, SYN, TCP_CHECKSUM_OFFSET, header_t,
    segment_emit, segment_parse, segment_t)

import ipaddress

cdef enum:
    FIRST_PORT = 2000
    PORTS = 60000                   # of each address
    FURTHER_ADDRESS = 0x0A000000    # 10.0.0.0: that of the clients 1 * PORTS and on is the next one, and so on
    MOST_CLIENTS = 1 << 26
    MOST_REQUEST_BYTES = 1024
    FRAME_BYTES = 1514              # of the longest that a client sends
    PROTOCOL_TCP = 6
    WINDOW = 64240
    POLL_STEP_NS = 10000            # what the stack's clock moves from poll to poll
    ROUND_NS = 100000000            # ... or less: in this time each client has its turn, before the stack sends again
    OPEN_AT_ONCE = 32               # connections that are half open at a time
    MOST_IDLE_POLLS = 100           # without a response, before the clients give up

cdef enum client_state_t:
    CLIENT_CLOSED
    CLIENT_CONNECTING
    CLIENT_READY                    # may ask
    CLIENT_WAITING                  # has asked

ctypedef struct client_t:
    uint32_t snd_nxt
    uint32_t rcv_nxt
    uint32_t ts_recent
    uint32_t received               # bytes of the response so far
    uint8_t state                   # client_state_t

ctypedef struct canned_t:
    client_t *clients
    uint32_t client_count
    uint32_t opened                 # clients in play
    uint32_t next_client            # whose turn it is
    uint64_t open_step_ns           # from poll to poll while clients come into play, and afterwards
    uint64_t poll_step_ns
    memory_t *link                  # whose far end they are
    # who is who
    uint8_t client_mac[6]
    uint8_t server_mac[6]
    uint32_t client_be              # of the first PORTS clients
    uint32_t server_be
    uint16_t server_port
    uint8_t checksum                # checksum_status_t of what the clients send
    uint16_t arp_due                # ARP_REQUEST, ARP_REPLY, or 0
    uint8_t request[MOST_REQUEST_BYTES]
    uint32_t request_bytes
    uint32_t response_bytes         # 0: the first one is to tell
    uint64_t now_ns
    uint64_t responses
    uint64_t unexpected


# ---------------------------------------------------------------- the clients
cdef void write_requests(canned_t *canned) noexcept nogil:
    """Fill one burst: ARP if it is due, then what the next clients have to say."""
    cdef uint32_t looked = 0
    if canned.arp_due:
        write_arp(canned)
    while looked < canned.opened and far_waiting(canned.link) < ENGINE_BURST:
        write_segment(canned, canned.next_client)
        canned.next_client += 1
        if canned.next_client == canned.opened:
            canned.next_client = 0
        looked += 1


cdef inline uint32_t address_of(const canned_t *canned, uint32_t index) noexcept nogil:
    """Network order."""
    return canned.client_be if index < PORTS else htonl(FURTHER_ADDRESS + index // PORTS)


cdef inline uint32_t client_at(const canned_t *canned, uint32_t address_be, uint16_t port) noexcept nogil:
    """Index of the client there; if there is none, client_count or more."""
    cdef uint64_t place = 0 if address_be == canned.client_be else <uint32_t>(ntohl(address_be) - FURTHER_ADDRESS)
    cdef uint64_t index = place * PORTS + port - FIRST_PORT
    return <uint32_t>index if FIRST_PORT <= port < FIRST_PORT + PORTS and index < canned.client_count else MOST_CLIENTS


cdef void push_frame(canned_t *canned, uint32_t length) noexcept nogil:
    """The frame that was written into what far_reserve gave."""
    far_commit(canned.link, length, length).checksum = canned.checksum


cdef void write_arp(canned_t *canned) noexcept nogil:
    cdef arp_t arp
    cdef uint8_t *out = far_reserve(canned.link, FRAME_BYTES)
    arp.operation = canned.arp_due
    arp.sender_be = canned.client_be
    arp.target_be = canned.server_be
    memcpy(arp.sender_mac, canned.client_mac, 6)
    memcpy(arp.target_mac, canned.server_mac, 6)
    ethernet_emit(out, canned.server_mac, canned.client_mac, ETHERTYPE_ARP)
    arp_emit(out + ETHERNET_HEADER_BYTES, &arp)
    push_frame(canned, ETHERNET_HEADER_BYTES + ARP_BYTES)
    canned.arp_due = 0


cdef void write_segment(canned_t *canned, uint32_t index) noexcept nogil:
    """A SYN for a closed client, a request for one that may ask, nothing for others."""
    cdef client_t *client = &canned.clients[index]
    cdef header_t header
    if client.state != CLIENT_CLOSED and client.state != CLIENT_READY:
        return
    memset(&header, 0, sizeof(header))
    header.sport = <uint16_t>(FIRST_PORT + index % PORTS)
    header.dport = canned.server_port
    header.seq = client.snd_nxt
    header.window = WINDOW
    header.ts_val = <uint32_t>(canned.now_ns / 1000000)
    if client.state == CLIENT_CLOSED:
        header.flags = SYN
        header.has = HAS_MSS | HAS_WSCALE | HAS_SACK_PERMITTED | HAS_TIMESTAMPS
        header.mss = 1460
        header.wscale = 7
        client.snd_nxt += 1
        client.state = CLIENT_CONNECTING
        push_segment(canned, &header, address_of(canned, index), 0)
    else:
        header.flags = ACK | PSH
        header.has = HAS_TIMESTAMPS
        header.ack = client.rcv_nxt
        header.ts_ecr = client.ts_recent
        client.snd_nxt += canned.request_bytes
        client.received = 0
        client.state = CLIENT_WAITING
        push_segment(canned, &header, address_of(canned, index), canned.request_bytes)


cdef void push_segment(canned_t *canned, const header_t *header, uint32_t source_be,
                       uint32_t data_bytes) noexcept nogil:
    """Put a segment into the burst, followed by `data_bytes` of the request."""
    cdef uint8_t *out = far_reserve(canned.link, FRAME_BYTES)
    cdef uint8_t *tcp = out + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES
    cdef uint32_t tcp_bytes = segment_emit(tcp, header)
    cdef ipv4_t ip
    memcpy(tcp + tcp_bytes, canned.request, data_bytes)
    tcp_bytes += data_bytes
    memset(&ip, 0, sizeof(ip))
    ip.ttl = 64
    ip.protocol = PROTOCOL_TCP
    ip.fragment = IPV4_DONT_FRAGMENT
    ip.total_length = <uint16_t>(IPV4_HEADER_BYTES + tcp_bytes)
    ip.src_be = source_be
    ip.dst_be = canned.server_be
    ethernet_emit(out, canned.server_mac, canned.client_mac, ETHERTYPE_IPV4)
    ipv4_emit(out + ETHERNET_HEADER_BYTES, &ip)
    write_u16_be(tcp + TCP_CHECKSUM_OFFSET, checksum_emit(checksum_partial(
        tcp, tcp_bytes, ipv4_pseudo_sum(ip.src_be, ip.dst_be, PROTOCOL_TCP, tcp_bytes))))
    push_frame(canned, ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + tcp_bytes)


cdef void read_responses(canned_t *canned) noexcept nogil:
    """Look at everything that the stack has sent in this poll, and make room for the next."""
    cdef const memory_sent_t *sent
    while (sent := far_next(canned.link)) != NULL:
        read_frame(canned, sent.data, sent.length)
        far_release(canned.link)


cdef void read_frame(canned_t *canned, const uint8_t *frame, uint32_t length) noexcept nogil:
    cdef ethernet_t ethernet
    cdef ipv4_t ip
    cdef arp_t arp
    cdef segment_t segment
    cdef const uint8_t *packet = frame + ETHERNET_HEADER_BYTES
    cdef uint32_t us_be = canned.client_be
    if ethernet_parse(frame, length, &ethernet) != 0:
        canned.unexpected += 1
        return
    length -= ETHERNET_HEADER_BYTES
    if ethernet.ethertype == ETHERTYPE_ARP:
        if arp_parse(packet, length, &arp) == 0 and arp.operation == ARP_REQUEST and arp.target_be == us_be:
            canned.arp_due = ARP_REPLY
    elif ipv4_parse(packet, length, &ip) != 0 or ip.protocol != PROTOCOL_TCP:
        canned.unexpected += 1
    elif segment_parse(packet + ip.header_length, ip.total_length - ip.header_length, &segment) != 0:
        canned.unexpected += 1
    else:
        read_segment(canned, &segment, client_at(canned, ip.dst_be, segment.dport))


cdef void read_segment(canned_t *canned, const segment_t *segment, uint32_t index) noexcept nogil:
    cdef client_t *client
    if index >= canned.client_count or segment.flags & (RST | FIN):
        canned.unexpected += 1
        return
    client = &canned.clients[index]
    client.ts_recent = segment.ts_val
    if segment.flags & SYN:
        client.rcv_nxt = segment.seq + 1
        client.state = CLIENT_READY
    elif segment.length > 0:
        if segment.seq != client.rcv_nxt or client.state != CLIENT_WAITING:
            canned.unexpected += 1
            return
        client.rcv_nxt += segment.length
        client.received += segment.length
        if canned.response_bytes == 0:
            canned.response_bytes = segment.length
        if client.received == canned.response_bytes:
            client.state = CLIENT_READY
            canned.responses += 1
        elif client.received > canned.response_bytes:
            canned.unexpected += 1


cdef class CannedClients(MemoryLink):
    """`connections` clients that send `request`: the bytes of a whole HTTP request, whose response fits one segment.

    offload False: checksums are computed in software by both sides, as on a link that can do nothing for the stack.
    The stack on this link must have the address `server` and must be driven by exchange() alone. Beyond 60,000 of them
    it needs the gateway `client`.
    """

    cdef canned_t canned

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.canned, 0, sizeof(canned_t))

    def __init__(self, connections: int, request: bytes, *, client: str = "198.18.0.1", server: str = "198.18.0.2",
                 port: int = 80, offload: bool = True, now_ns: int = 1_000_000_000) -> None:
        if not 0 < connections <= MOST_CLIENTS:
            raise ValueError(f"connections: 1 to {MOST_CLIENTS}")
        if not 0 < len(request) <= MOST_REQUEST_BYTES:
            raise ValueError(f"request: 1 to {MOST_REQUEST_BYTES} bytes")
        MemoryLink.__init__(self, checksum_offload=offload, segmentation_offload=offload, rx_slots=ENGINE_BURST,
                            tx_slots=4096)
        self.canned.link = &self.memory
        self.canned.clients = <client_t *>calloc(connections, sizeof(client_t))
        if self.canned.clients == NULL:
            raise MemoryError
        self.canned.client_count = connections
        for index in range(connections):
            self.canned.clients[index].snd_nxt = <uint32_t>0xFFFFFF00 + <uint32_t>index
        memcpy(self.canned.request, <const uint8_t *>request, len(request))
        self.canned.request_bytes = len(request)
        memcpy(self.canned.client_mac, self.far_mac, 6)
        memcpy(self.canned.server_mac, self.c.mac, 6)
        self.canned.client_be = address_be(client)
        self.canned.server_be = address_be(server)
        self.canned.server_port = port
        self.canned.arp_due = ARP_REQUEST       # as a real client does first, so that the server knows it as well
        self.canned.checksum = CHECKSUM_VERIFIED if offload else CHECKSUM_UNKNOWN
        self.canned.now_ns = now_ns
        self.canned.open_step_ns = min(POLL_STEP_NS, <uint64_t>ROUND_NS * OPEN_AT_ONCE // 2 // connections)
        self.canned.poll_step_ns = min(POLL_STEP_NS, <uint64_t>ROUND_NS * ENGINE_BURST // connections)

    def __dealloc__(self) -> None:
        free(self.canned.clients)

    @property
    def now_ns(self) -> int:
        """The time of the next poll: what a stack with a manual clock is to be opened with."""
        return self.canned.now_ns

    @property
    def responses(self) -> int:
        """Whole responses so far."""
        return self.canned.responses

    @property
    def unexpected(self) -> int:
        """Frames that no client should have got."""
        return self.canned.unexpected

    @property
    def response_bytes(self) -> int:
        """Length of a response, head and body; 0 before the first."""
        return self.canned.response_bytes

    def exchange(self, engine: Engine, responses: int) -> tuple[int, int]:
        """Let the clients ask until they have at least `responses` more; returns (ns spent in polls, polls).

        Opens the connections the first time. Raises RuntimeError when the server does not answer, or not as expected.
        """
        cdef uint64_t spent_ns = 0
        cdef uint64_t polls = 0
        cdef uint64_t wanted = self.canned.responses + <uint64_t>responses
        cdef bint answered
        if engine.link is not self:
            raise ValueError("the engine is on another link")
        with nogil:
            answered = exchange_until(&self.canned, engine, wanted, &spent_ns, &polls)
        if not answered or self.canned.unexpected != 0:
            raise RuntimeError(f"{self.responses} responses, {self.unexpected} unexpected frames, then nothing")
        return spent_ns, polls

    def clock_ns(self, polls: int) -> int:
        """What timing `polls` polls costs by itself: the same readings of the clock with nothing between them."""
        cdef uint64_t spent_ns = 0
        cdef uint64_t count = polls
        cdef uint64_t before
        with nogil:
            while count > 0:
                before = clock_monotonic_ns()
                spent_ns += clock_monotonic_ns() - before
                count -= 1
        return spent_ns


cdef void poll_once(canned_t *canned, Engine engine, uint64_t step_ns, uint64_t *spent_ns,
                    uint64_t *polls) noexcept nogil:
    """One burst of requests, one poll, its responses."""
    cdef uint64_t before_ns
    write_requests(canned)
    canned.now_ns += step_ns
    before_ns = clock_monotonic_ns()
    engine_poll(&engine.c, canned.now_ns)
    spent_ns[0] += clock_monotonic_ns() - before_ns
    polls[0] += 1
    read_responses(canned)


cdef bint open_clients(canned_t *canned, Engine engine) noexcept nogil:
    """Bring the clients into play, a few at a time, each with its first response. False when one gets none."""
    cdef uint64_t ignored_ns = 0, ignored_polls = 0
    cdef uint32_t first, index
    while canned.opened < canned.client_count:
        first = canned.opened
        canned.opened = min(first + <uint32_t>OPEN_AT_ONCE, canned.client_count)
        canned.next_client = first
        poll_once(canned, engine, canned.open_step_ns, &ignored_ns, &ignored_polls)     # SYN
        canned.next_client = first
        poll_once(canned, engine, canned.open_step_ns, &ignored_ns, &ignored_polls)     # ACK with a request
        for index in range(first, canned.opened):
            if canned.clients[index].state != CLIENT_READY:
                return False
    return True


cdef bint exchange_until(canned_t *canned, Engine engine, uint64_t wanted, uint64_t *spent_ns,
                         uint64_t *polls) noexcept nogil:
    """False when the server has stopped answering or has answered wrongly."""
    cdef uint64_t responses
    cdef uint32_t idle_polls = 0
    if not open_clients(canned, engine):
        return False
    while canned.responses < wanted:
        responses = canned.responses
        poll_once(canned, engine, canned.poll_step_ns, spent_ns, polls)
        idle_polls = 0 if canned.responses != responses else idle_polls + 1
        if canned.unexpected != 0 or idle_polls > MOST_IDLE_POLLS:
            return False
    return True


cdef uint32_t address_be(text: str):
    cdef uint32_t value
    octets = ipaddress.IPv4Address(text).packed
    memcpy(&value, <const uint8_t *>octets, 4)
    return value
