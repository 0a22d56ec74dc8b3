# SPDX-License-Identifier: MIT
"""Raw frames: ARP, IPv4, ICMP, fragments, TCP, with right and with wrong checksums, against a listener and a live
connection with text in flight.

An input is frames one after the other: a byte of frame_does_t, two of length (little endian), the frame. What a byte of
zero does is what lets most frames in: lengths, addresses and checksums are made right.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.base.counters cimport (
    DROP_FRAME_TRUNCATED, DROP_NEIGHBOUR_UNRESOLVED, DROP_NO_MEMORY, DROP_NO_ROUTE, FRAMES_IN)
from ustack.base.posix cimport htonl
from ustack.tcp.records.tcb cimport tcb_t
from ustack.tools.fuzz.target cimport Target
from ustack.tools.fuzz.world cimport (
    LISTEN_PORT, STACK_ADDRESS, World, mend_frame, peer_open, peer_t, slot_send, tcb_of_peer, world_next, world_put,
    world_settle, world_t, world_turn)
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4
from ustack.wire.octets cimport read_u16, write_u16, write_u32, write_u32_be
from ustack.wire.tcp cimport (
    HAS_MSS, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE, RST, header_t)

cdef enum frame_does_t:
    KEEPS_IP_CHECKSUM = 0x01
    KEEPS_CHECKSUM = 0x02
    KEEPS_LENGTH = 0x04
    KEEPS_ADDRESSES = 0x08
    IS_IN_A_BURST = 0x10                # the next one comes in the same turn
    COMES_LATER = 0x20                  # a second has passed
    COMES_AT_A_DEADLINE = 0x40
    IS_OF_CONNECTION = 0x80             # a segment's ports and numbers are the connection's

cdef enum:
    IP = ETHERNET_HEADER_BYTES
    FRAME_MAX = 2048
    START_NS = 1000000000               # a second
    PROTO_TCP = 6


cdef void make_right(world_t *world, uint8_t *frame, uint32_t length, uint8_t does) noexcept nogil:
    """What `does` does not keep as it is."""
    cdef const peer_t *peer = &world.peers[0]
    cdef const tcb_t *tcb
    cdef uint32_t head
    if not does & KEEPS_ADDRESSES and length >= IP:
        memcpy(frame, world.engine.link.mac, 6)
    if length < IP + 20 or read_u16(frame + 12) != ETHERTYPE_IPV4:
        return
    head = <uint32_t>(frame[IP] & 0xF) * 4
    if not does & KEEPS_LENGTH:
        write_u16(frame + IP + 2, <uint16_t>(length - IP))
    if not does & KEEPS_ADDRESSES:
        write_u32_be(frame + IP + 12, htonl(peer.address))
        write_u32_be(frame + IP + 16, htonl(STACK_ADDRESS))
    tcb = tcb_of_peer(world, peer)
    if does & IS_OF_CONNECTION and tcb != NULL and frame[IP + 9] == PROTO_TCP and length >= IP + head + 20:
        write_u16(frame + IP + head, peer.port)
        write_u16(frame + IP + head + 2, LISTEN_PORT)
        write_u32(frame + IP + head + 4, tcb.rcv_nxt)
        write_u32(frame + IP + head + 8, tcb.snd_nxt)
    mend_frame(frame, length, not does & KEEPS_IP_CHECKSUM, not does & KEEPS_CHECKSUM)


cdef bint is_answerable(const uint8_t *frame, uint32_t length) noexcept nogil:
    """May a RST be the answer?"""
    cdef uint32_t head
    if length < IP + 40 or read_u16(frame + 12) != ETHERTYPE_IPV4 or frame[IP + 9] != PROTO_TCP:
        return False
    head = <uint32_t>(frame[IP] & 0xF) * 4
    return length >= IP + head + 20 and not frame[IP + head + 13] & RST


cdef uint64_t refusals(const world_t *world) noexcept nogil:
    """Frames that came and were counted under a reason."""
    cdef uint64_t counted = 0
    cdef int which
    for which in range(<int>DROP_FRAME_TRUNCATED, <int>DROP_NO_MEMORY):
        if which != DROP_NEIGHBOUR_UNRESOLVED and which != DROP_NO_ROUTE:
            counted += world.engine.counters.value[which]
    return counted


cdef class Frames(Target):
    """Raw frames."""

    cdef World world

    def __init__(self) -> None:
        self.world = World()

    cdef int run(self, const uint8_t *data, size_t size) except -1:
        cdef world_t *world = self.world.c
        self.world.defaults(False)
        self.world.begin(False, START_NS)
        world.peers[0].trusted = False      # an input's text is its own
        self.open()
        with nogil:
            play(world, data, size)
        if world.fault == NULL and refusals(world) > world.engine.counters.value[<int>FRAMES_IN]:
            world.fault = b"a frame was counted under two reasons"
        return self.world.end(size > 0 and data[0] & 1)

    cdef void open(self) noexcept:
        """A connection with all options, its text in flight: ICMP errors about it are credible."""
        cdef header_t header
        memset(&header, 0, sizeof(header))
        header.has = HAS_MSS | HAS_SACK_PERMITTED | HAS_TIMESTAMPS | HAS_WSCALE
        header.mss = 1460
        header.wscale = 7
        header.window = 65535
        header.ts_val = 1
        peer_open(self.world.c, &self.world.c.peers[0], &header)
        slot_send(self.world.c, &self.world.c.slots[0], 100)
        world_settle(self.world.c)


cdef void play(world_t *world, const uint8_t *data, size_t size) noexcept nogil:
    cdef uint8_t frame[FRAME_MAX]
    cdef uint64_t before, came
    cdef uint32_t length, burst = 0
    cdef uint8_t does
    cdef bint answerable = False
    while size >= 3 and world.fault == NULL:
        does = data[0]
        length = data[1] | <uint32_t>data[2] << 8
        data += 3
        size -= 3
        length = min(length, <uint32_t>min(size, <size_t>FRAME_MAX))
        memcpy(frame, data, length)
        data += length
        size -= length
        make_right(world, frame, length, does)
        if does & COMES_LATER:
            world_turn(world, 1000000000)
        if does & COMES_AT_A_DEADLINE:
            world_next(world, 0)
        answerable = answerable or is_answerable(frame, length)
        world_put(world, frame, length)
        burst += 1
        if does & IS_IN_A_BURST and burst < 32:
            continue
        before = refusals(world)
        came = world.engine.counters.value[<int>FRAMES_IN]
        world.unanswerable = not answerable
        world_turn(world, 0)
        world.unanswerable = False
        if world.fault == NULL and refusals(world) - before > world.engine.counters.value[<int>FRAMES_IN] - came:
            world.fault = b"a frame was counted under two reasons"
        world_settle(world)
        answerable = False
        burst = 0
