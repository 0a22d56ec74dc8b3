# SPDX-License-Identifier: MIT
"""Options of TCP segments, in SYNs, SYN-ACKs and on a live connection.

An input: a byte that says what it opens with, then segments: a byte of length and flags (option_does_t), and so many
bytes of options, padded with zeros to a word. Numbers, windows and checksums are right, so that only the options are in
question. What is read of options is written and read once more: it must be the same.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from ustack.base.posix cimport htonl
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.tcp.records.tcb cimport tcb_t
from ustack.tools.fuzz.target cimport Target
from ustack.tools.fuzz.world cimport (
    World, peer_open, peer_send, peer_t, slot_send, tcb_of_peer, world_next, world_settle, world_t)
from ustack.wire.tcp cimport (
    ACK, CWR, ECE, HAS_ACCECN, HAS_MSS, HAS_SACK, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, PSH, SYN,
    TCP_HEADER_BYTES, TCP_MAX_OPTION_BYTES, header_t, segment_accecn, segment_emit,
    segment_parse, segment_parse_options, segment_t)

cdef enum option_does_t:
    LENGTH = 0x3F                       # of the options
    HAS_TEXT = 0x40
    IS_LATE = 0x80                      # it comes at the next deadline

cdef enum opening_t:
    SYN_OF_INPUT = 0                    # the first options are a SYN's
    SYN_OFFERS_ALL
    WE_OPEN                             # ... a SYN-ACK's
    WE_OPEN_AT_ONCE                     # ... a SYN's that crosses ours
    OPENINGS


cdef bint comes_back(const uint8_t *options, uint32_t length) noexcept nogil:
    """Read, write, read: the same fields."""
    cdef uint8_t room[TCP_HEADER_BYTES + TCP_MAX_OPTION_BYTES]
    cdef segment_t first, second
    cdef header_t header
    cdef uint32_t need = 0
    memset(&first, 0, sizeof(first))
    memset(&second, 0, sizeof(second))
    memset(&header, 0, sizeof(header))
    if segment_parse_options(options, length, &first) != 0:
        return True
    header.has = first.has
    header.mss = first.mss
    header.wscale = first.wscale
    header.ts_val = first.ts_val
    header.ts_ecr = first.ts_ecr
    header.sack_count = first.sack_count
    memcpy(header.sack, first.sack, sizeof(header.sack))
    if first.sack_count:
        header.has |= HAS_SACK
    if first.has & HAS_ACCECN:
        header.accecn_kind = first.accecn[0]
        header.accecn_fields = <uint8_t>segment_accecn(&first, header.accecn)
    need = ((4 if header.has & HAS_MSS else 0) + (12 if header.has & HAS_TIMESTAMPS else 0)
            + (4 if header.has & HAS_SACK_PERMITTED and not header.has & HAS_TIMESTAMPS else 0)
            + (4 if header.has & HAS_WSCALE else 0) + (4 + 8 * header.sack_count if header.sack_count else 0)
            + (2 + 3 * header.accecn_fields + 3 & ~3u if header.has & HAS_ACCECN else 0))
    if need > TCP_MAX_OPTION_BYTES:
        return True                     # they were packed more tightly than we pack
    if segment_parse(room, segment_emit(room, &header), &second) != 0:
        return False
    return (first.has == second.has and first.mss == second.mss and first.wscale == second.wscale
            and first.ts_val == second.ts_val and first.ts_ecr == second.ts_ecr
            and first.sack_count == second.sack_count
            and memcmp(first.sack, second.sack, first.sack_count * sizeof(first.sack[0])) == 0)


cdef class Options(Target):
    """Options of segments."""

    cdef World world

    def __init__(self) -> None:
        self.world = World()

    cdef int run(self, const uint8_t *data, size_t size) except -1:
        cdef world_t *world = self.world.c
        cdef uint8_t first = data[0] if size else 0
        self.world.defaults(False)
        self.world.tcp_config.ecn = (first >> 2) % 6
        self.world.tcp_config.cc = (first >> 5) % 3
        self.world.begin(False, 1000000000)
        with nogil:
            play(world, first % OPENINGS, data + 1, size - 1 if size else 0)
        return self.world.end(False)


cdef uint32_t take(const uint8_t **data, size_t *size, uint8_t *options, uint8_t *does) noexcept nogil:
    """The next segment's options, padded; their length."""
    cdef uint32_t length, padded
    does[0] = 0
    if size[0] == 0:
        return 0
    does[0] = data[0][0]
    data[0] += 1
    size[0] -= 1
    length = min(<uint32_t>(does[0] & LENGTH), <uint32_t>TCP_MAX_OPTION_BYTES)
    length = <uint32_t>min(size[0], <size_t>length)
    padded = (length + 3) & ~3u
    memset(options, 0, TCP_MAX_OPTION_BYTES)
    memcpy(options, data[0], length)
    data[0] += length
    size[0] -= length
    return padded


cdef void play(world_t *world, uint8_t opening, const uint8_t *data, size_t size) noexcept nogil:
    cdef uint8_t options[TCP_MAX_OPTION_BYTES]
    cdef peer_t *peer = &world.peers[0]
    cdef header_t header
    cdef ip_addr_t address
    cdef const tcb_t *tcb
    cdef uint32_t length, rounds = 0
    cdef int status = 0
    cdef uint8_t does
    memset(&header, 0, sizeof(header))
    header.window = 60000
    if opening == SYN_OFFERS_ALL:
        header.flags = ECE | CWR
        header.has = HAS_MSS | HAS_SACK_PERMITTED | HAS_TIMESTAMPS | HAS_WSCALE
        header.mss = 536
        header.wscale = 3
        header.ts_val = 7
        peer_open(world, peer, &header)
    else:
        if opening != SYN_OF_INPUT:
            ip_addr_set_v4(&address, htonl(peer.address))
            world.engine.tcp.now_ns = world.now_ns
            world.engine.transport.connect(&world.engine.transport, &address, peer.port, 80, &world.app, &status)
            world_settle(world)
        length = take(&data, &size, options, &does)
        if not comes_back(options, length):
            world.fault = b"options do not come back as they were"
        header.seq = peer.iss
        header.ack = peer.stack_iss + 1
        header.flags = <uint16_t>(SYN | (ECE | CWR if does & HAS_TEXT else 0) | (ACK if opening == WE_OPEN else 0))
        peer_send(world, peer, &header, 0, 0, 0, options, length)
        world_settle(world)
        header.seq = peer.snd_nxt
        header.ack = peer.stack_iss + 1
        header.flags = ACK
        peer_send(world, peer, &header, 0, 0, 0, options if does & IS_LATE else NULL, length if does & IS_LATE else 0)
        world_settle(world)
    while size > 0 and world.fault == NULL and rounds < 64:
        rounds += 1
        tcb = tcb_of_peer(world, peer)
        if tcb == NULL:
            return
        world.engine.tcp.now_ns = world.now_ns
        slot_send(world, &world.slots[0] if world.slots[0].conn != NULL else &world.slots[1], 2000)
        world_settle(world)
        length = take(&data, &size, options, &does)
        if not comes_back(options, length):
            world.fault = b"options do not come back as they were"
        tcb = tcb_of_peer(world, peer)
        if tcb == NULL:
            return
        header.has = 0
        header.flags = ACK | PSH
        header.seq = tcb.rcv_nxt
        header.ack = tcb.snd_una + (tcb.snd_nxt - tcb.snd_una) // 2
        peer_send(world, peer, &header, 50 if does & HAS_TEXT else 0, 0, 0, options, length)
        world_settle(world)
        if does & IS_LATE:
            world_next(world, 0)
