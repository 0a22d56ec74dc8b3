# SPDX-License-Identifier: MIT
"""A link in memory: what a program, a test or a benchmark puts in, a stack receives, and what it sends comes out.

    with MemoryLink() as link, Stack(link, "10.0.0.2/24", now_ns=0) as stack:
        link.inject_packet(packet)          # IP packets, as a tunnel has them; inject(frame) takes Ethernet frames
        stack.poll(now_ns)
        while (packet := link.receive_packet()) is not None:
            ...

It has no clock, no impairments and no other end of its own: link.sim has two ends and a wire between them. wait()
returns at once. Compiled code uses the far_* functions (memory.pxd) and copies nothing.

Below: device (the contract), wire (for packets). Above: tunnels, the unit tests of ip, benchmarks.
"""

from errno import EBADF

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from ustack.base.debug cimport IS_DEBUG, ensure, poison, unpoison
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, device_accepts, link_ops_t, link_t, offload_t
from ustack.link.interface cimport parse_mac
from ustack.wire.arp cimport ARP_BYTES, ARP_REPLY, ARP_REQUEST, arp_emit, arp_parse, arp_t
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ethernet_emit

cdef enum:
    FRAME_ALIGNMENT = 64
    IP_PACKET_MAX = 65535
    MTU_MIN = 68
    MTU_MAX = 1 << 20
    SLOTS_MAX = 1 << 20
    RING_BYTES_MAX = 1 << 30
    ETHERTYPE_IPV6 = 0x86DD

cdef dict CHECKSUMS = {"unknown": CHECKSUM_UNKNOWN, "verified": CHECKSUM_VERIFIED, "partial": CHECKSUM_PARTIAL}


# ---------------------------------------------------------------- rings
cdef inline size_t footprint(uint32_t length) noexcept nogil:
    """Never 0, and never without a byte that the sanitizer can watch."""
    return (<size_t>length + FRAME_ALIGNMENT) & ~<size_t>(FRAME_ALIGNMENT - 1)


cdef inline uint8_t *room_in(uint8_t *ring, size_t ring_bytes, const uint8_t *oldest, uint8_t *at,
                             size_t needed) noexcept nogil:
    """oldest: the oldest frame, NULL: the ring is empty. at: behind the youngest."""
    if oldest == NULL:
        return ring if needed <= ring_bytes else NULL
    if at <= oldest:                            # the frames go on at the front
        return at if needed <= <size_t>(oldest - at) else NULL
    if needed <= <size_t>(ring + ring_bytes - at):
        return at
    return ring if needed <= <size_t>(oldest - ring) else NULL


# ---------------------------------------------------------------- operations
cdef inline memory_t *memory_of(link_t *link) noexcept nogil:
    return <memory_t *>link.impl


cdef uint32_t memory_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef memory_t *memory = memory_of(link)
    cdef uint32_t n = <uint32_t>min(memory.rx_written - memory.rx_lent, <uint64_t>max_frames)
    cdef uint32_t before_end = min(n, memory.rx_slots - memory.rx_next)
    memcpy(frames, &memory.rx[memory.rx_next], before_end * sizeof(frame_t))
    memcpy(&frames[before_end], memory.rx, (n - before_end) * sizeof(frame_t))
    memory.rx_next += n
    if memory.rx_next >= memory.rx_slots:
        memory.rx_next -= memory.rx_slots
    memory.rx_lent += n
    return n


cdef void memory_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef memory_t *memory = memory_of(link)
    cdef frame_t *frame
    cdef uint32_t i
    ensure(n <= memory.rx_lent - memory.rx_released)
    n = <uint32_t>min(<uint64_t>n, memory.rx_lent - memory.rx_released)
    if IS_DEBUG:
        for i in range(n):
            frame = &memory.rx[(memory.rx_released + i) % memory.rx_slots]
            poison(frame.data, frame.length)
    memory.rx_released += n


cdef uint8_t *memory_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    cdef memory_t *memory = memory_of(link)
    ensure(length <= link.caps.max_frame)
    if length > link.caps.max_frame or memory.tx_written == memory.tx_limit:
        return NULL
    if IS_DEBUG and memory.tx_reserved > 0:
        poison(memory.tx_at, memory.tx_reserved)
    if memory.tx_at + footprint(length) > memory.tx_end and not go_to_the_front(memory, footprint(length)):
        memory.tx_reserved = -1
        return NULL
    unpoison(memory.tx_at, length)
    memory.tx_reserved = length
    return memory.tx_at


cdef void memory_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef memory_t *memory = memory_of(link)
    cdef memory_sent_t *sent = memory.tx_next
    ensure(<int64_t>length <= memory.tx_reserved)
    if <int64_t>length > memory.tx_reserved:
        return
    if IS_DEBUG:
        poison(memory.tx_at, memory.tx_reserved)
        unpoison(memory.tx_at, length)
    memory.tx_reserved = -1
    sent.data = memory.tx_at
    sent.length = length
    sent.offload = offload[0]
    memory.tx_at += footprint(length)
    memory.tx_written += 1
    link.counters.tx_bytes += length
    memory.tx_next = sent + 1 if sent + 1 != memory.tx + memory.held_frames else memory.tx


cdef bint go_to_the_front(memory_t *memory, size_t needed) noexcept nogil:
    """There is no room behind the youngest frame."""
    cdef uint8_t *oldest = NULL
    cdef uint8_t *at
    if memory.tx_written != memory.tx_taken:
        oldest = memory.tx[memory.tx_taken % memory.held_frames].data
    at = room_in(memory.tx_bytes, memory.ring_bytes, oldest, memory.tx_at, needed)
    if at == NULL:
        return False
    memory.tx_at = at
    find_end(memory)
    return True


cdef void find_end(memory_t *memory) noexcept nogil:
    cdef uint8_t *oldest = memory.tx[memory.tx_taken % memory.held_frames].data
    if memory.tx_written != memory.tx_taken and oldest >= memory.tx_at:
        memory.tx_end = oldest
    else:
        memory.tx_end = memory.tx_bytes + memory.ring_bytes


cdef void find_limit(memory_t *memory) noexcept nogil:
    memory.tx_limit = min(memory.tx_submitted + memory.tx_slots, memory.tx_taken + memory.held_frames)


cdef int memory_tx_submit(link_t *link) noexcept nogil:
    cdef memory_t *memory = memory_of(link)
    link.counters.tx_submits += memory.tx_submitted != memory.tx_written
    memory.tx_submitted = memory.tx_written
    link.counters.tx_frames = memory.tx_written
    find_limit(memory)
    return 0


cdef int memory_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    return 0                            # whoever could put a frame in is waiting for this call to return


cdef void memory_refresh_counters(link_t *link) noexcept nogil:
    cdef memory_t *memory = memory_of(link)
    cdef frame_t *frame
    cdef uint64_t i
    link.counters.rx_frames = memory.rx_lent
    link.counters.rx_bytes = memory.rx_written_bytes
    link.counters.rx_truncated = memory.rx_written_cut
    for i in range(memory.rx_lent, memory.rx_written):
        frame = &memory.rx[i % memory.rx_slots]
        link.counters.rx_bytes -= frame.length
        link.counters.rx_truncated -= frame.wire_length > frame.length
    link.counters.tx_frames = memory.tx_written


cdef link_ops_t MEMORY_OPS
MEMORY_OPS.rx_burst = memory_rx_burst
MEMORY_OPS.rx_release = memory_rx_release
MEMORY_OPS.tx_reserve = memory_tx_reserve
MEMORY_OPS.tx_commit = memory_tx_commit
MEMORY_OPS.tx_submit = memory_tx_submit
MEMORY_OPS.wait = memory_wait
MEMORY_OPS.refresh_counters = memory_refresh_counters


# ---------------------------------------------------------------- far end
cdef uint8_t *far_reserve(memory_t *memory, uint32_t length) noexcept nogil:
    cdef uint8_t *oldest = NULL
    if IS_DEBUG:
        poison(memory.far_reserved, memory.far_reserved_bytes)
    memory.far_reserved = NULL
    memory.far_reserved_bytes = 0
    if memory.rx_written != memory.rx_released:
        oldest = memory.rx[memory.rx_released % memory.rx_slots].data
    if memory.rx_written - memory.rx_released < memory.rx_slots:
        memory.far_reserved = room_in(memory.rx_bytes, memory.ring_bytes, oldest, memory.rx_at, footprint(length))
    if memory.far_reserved == NULL:
        memory.link.counters.rx_dropped += 1
        return NULL
    memory.far_reserved_bytes = length
    unpoison(memory.far_reserved, length)
    return memory.far_reserved


cdef frame_t *far_commit(memory_t *memory, uint32_t length, uint32_t wire_length) noexcept nogil:
    cdef frame_t *frame = &memory.rx[memory.rx_written % memory.rx_slots]
    ensure(memory.far_reserved != NULL and length <= memory.far_reserved_bytes and length <= wire_length)
    if memory.far_reserved == NULL or length > memory.far_reserved_bytes or length > wire_length:
        return NULL
    if IS_DEBUG:
        poison(memory.far_reserved, memory.far_reserved_bytes)
        unpoison(memory.far_reserved, length)
    frame.data = memory.far_reserved
    frame.length = length
    frame.wire_length = wire_length
    frame.gso_size = 0
    frame.vlan_id = 0
    frame.checksum = CHECKSUM_UNKNOWN
    memory.rx_at = memory.far_reserved + footprint(length)
    memory.rx_written += 1
    memory.rx_written_bytes += length
    memory.rx_written_cut += wire_length > length
    memory.far_reserved = NULL
    memory.far_reserved_bytes = 0
    return frame


cdef const memory_sent_t *far_next(memory_t *memory) noexcept nogil:
    cdef memory_sent_t *sent
    while memory.tx_taken != memory.tx_submitted:
        sent = &memory.tx[memory.tx_taken % memory.held_frames]
        if device_accepts(&memory.link.caps, sent.length, &sent.offload):
            return sent
        memory.link.counters.tx_dropped += 1
        take_oldest(memory)
    return NULL


cdef void far_release(memory_t *memory) noexcept nogil:
    ensure(memory.tx_taken != memory.tx_submitted)
    if memory.tx_taken != memory.tx_submitted:
        take_oldest(memory)


cdef void take_oldest(memory_t *memory) noexcept nogil:
    cdef memory_sent_t *sent = &memory.tx[memory.tx_taken % memory.held_frames]
    poison(sent.data, sent.length)
    memory.tx_taken += 1
    if memory.tx_taken == memory.tx_written and memory.tx_reserved < 0:
        memory.tx_at = memory.tx_bytes
    find_end(memory)
    find_limit(memory)


# ---------------------------------------------------------------- Python face
cdef int in_range(str name, object value, object least, object most) except -1:
    if not least <= value <= most:
        raise ValueError(f"{name} {value}: must be {least} to {most}")
    return 0


cdef class MemoryLink(Link):
    """MemoryLink(*, mac="02:00:00:00:00:02", far_mac="02:00:00:00:00:01", mtu=1500, max_frame=None,
checksum_offload=False, segmentation_offload=False, rx_slots=1024, tx_slots=1024, held_frames=4096,
ring_bytes=4194304)
--

    A link in memory, whose far end is the caller.

    mac: the station address of the stack's end; far_mac: of the far end, for packets. checksum_offload,
    segmentation_offload (which implies the first): what the device does for the stack; a super-frame is delivered
    whole. max_frame: the longest frame that the stack may send, by default what the MTU or segmentation needs.

    rx_slots: frames that wait for the stack or are lent to it. tx_slots: frames between two submits; 0: it takes none.
    held_frames: frames that the stack has sent and nobody has taken, those included. ring_bytes: memory for the frames
    of each direction. A frame for the stack that finds no room is counted in rx_dropped; when its own find none, the
    stack waits.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.c.ops = closed_link_ops()

    def __init__(self, *, mac: str = "02:00:00:00:00:02", far_mac: str = "02:00:00:00:00:01", mtu: int = 1500,
                 max_frame: int | None = None, checksum_offload: bool = False, segmentation_offload: bool = False,
                 rx_slots: int = 1024, tx_slots: int = 1024, held_frames: int = 4096,
                 ring_bytes: int = 4194304) -> None:
        cdef memory_t *memory = &self.memory
        if memory.link != NULL:
            raise ValueError("a link is opened once")
        in_range("mtu", mtu, MTU_MIN, MTU_MAX)
        if max_frame is None:
            max_frame = ETHERNET_HEADER_BYTES + (max(mtu, IP_PACKET_MAX) if segmentation_offload else mtu)
        in_range("max_frame", max_frame, mtu + ETHERNET_HEADER_BYTES, MTU_MAX + ETHERNET_HEADER_BYTES)
        in_range("rx_slots", rx_slots, 1, SLOTS_MAX)
        in_range("tx_slots", tx_slots, 0, SLOTS_MAX)
        in_range("held_frames", held_frames, 1, SLOTS_MAX)
        in_range("ring_bytes", ring_bytes, footprint(max_frame), RING_BYTES_MAX)
        parse_mac(mac, self.c.mac)
        parse_mac(far_mac, self.far_mac)
        memory.tx_slots = tx_slots
        self.allocate(rx_slots, held_frames, ring_bytes)
        memory.link = &self.c
        self.c.caps.mtu = mtu
        self.c.caps.max_frame = max_frame
        self.c.caps.tx_segmentation = segmentation_offload
        self.c.caps.tx_checksum = self.c.caps.rx_checksum = checksum_offload or segmentation_offload
        self.c.impl = memory
        self.c.ops = &MEMORY_OPS

    cdef int allocate(self, uint32_t rx_slots, uint32_t held_frames, size_t ring_bytes) except -1:
        cdef memory_t *memory = &self.memory
        self.free_rings()               # of an attempt that failed
        memory.rx_slots = rx_slots
        memory.held_frames = held_frames
        memory.ring_bytes = ring_bytes & ~<size_t>(FRAME_ALIGNMENT - 1)
        memory.rx_bytes = <uint8_t *>malloc(memory.ring_bytes)
        memory.tx_bytes = <uint8_t *>malloc(memory.ring_bytes)
        memory.rx = <frame_t *>calloc(rx_slots, sizeof(frame_t))
        memory.tx = <memory_sent_t *>calloc(held_frames, sizeof(memory_sent_t))
        if memory.rx_bytes == NULL or memory.tx_bytes == NULL or memory.rx == NULL or memory.tx == NULL:
            raise MemoryError
        poison(memory.rx_bytes, memory.ring_bytes)
        poison(memory.tx_bytes, memory.ring_bytes)
        memory.tx_next = memory.tx
        memory.tx_at = memory.tx_bytes
        memory.tx_reserved = -1
        find_end(memory)
        find_limit(memory)
        return 0

    cdef void free_rings(self) noexcept:
        cdef memory_t *memory = &self.memory
        if memory.rx_bytes != NULL:
            unpoison(memory.rx_bytes, memory.ring_bytes)
        if memory.tx_bytes != NULL:
            unpoison(memory.tx_bytes, memory.ring_bytes)
        free(memory.rx_bytes)
        free(memory.tx_bytes)
        free(memory.rx)
        free(memory.tx)
        memory.rx_bytes = memory.tx_bytes = NULL
        memory.rx = NULL
        memory.tx = NULL

    def __dealloc__(self) -> None:
        self.free_rings()

    cpdef void close(self) except *:
        """Stop receiving and sending. Frames still lent are gone, as are those that nobody has taken."""
        if not self.closed:
            self.gate.check("close()")
            if self.memory.link != NULL:
                memory_refresh_counters(&self.c)
            self.closed = True
            self.c.ops = closed_link_ops()
            self.c.impl = NULL

    cdef int require_open(self, str call) except -1:
        if self.closed or self.memory.link == NULL:
            raise OSError(EBADF, "the link is closed")
        return self.gate.check(call)

    # ------------------------------------------------------------ frames
    def inject(self, frame: object, *, checksum: str = "unknown", gso_size: int = 0, wire_length: int | None = None,
               vlan_id: int = 0) -> bool:
        """Give the stack a frame. Nothing about it is checked: it may be hostile. False: it found no room.

        checksum, gso_size, vlan_id: what the device says about it. wire_length: larger than the frame for one that was
        cut. Raises ValueError for what no device can say, OSError when the link is closed.
        """
        octets = frame if type(frame) is bytes else bytes(memoryview(frame))
        if checksum not in CHECKSUMS:
            raise ValueError(f"checksum {checksum!r}: must be one of {', '.join(CHECKSUMS)}")
        in_range("gso_size", gso_size, 0, 65535)
        in_range("vlan_id", vlan_id, 0, 4095)
        if wire_length is None:
            wire_length = len(octets)
        in_range("frame bytes", len(octets), 0, RING_BYTES_MAX)
        in_range("wire_length", wire_length, len(octets), RING_BYTES_MAX)
        self.require_open("MemoryLink.inject()")
        return self.put(octets, CHECKSUMS[checksum], gso_size, wire_length, vlan_id)

    cdef bint put(self, bytes frame, int checksum, int gso_size, uint32_t wire_length, int vlan_id) noexcept:
        cdef uint32_t length = <uint32_t>PyBytes_GET_SIZE(frame)
        cdef uint8_t *room = far_reserve(&self.memory, length)
        cdef frame_t *view
        if room == NULL:
            return False
        memcpy(room, PyBytes_AS_STRING(frame), length)
        view = far_commit(&self.memory, length, wire_length)
        view.checksum = <uint8_t>checksum
        view.gso_size = <uint16_t>gso_size
        view.vlan_id = <uint16_t>vlan_id
        return True

    def receive(self) -> bytes | None:
        """Take the oldest frame that the stack has sent; None when there is none."""
        cdef const memory_sent_t *sent
        self.require_open("MemoryLink.receive()")
        sent = far_next(&self.memory)
        if sent == NULL:
            return None
        frame = PyBytes_FromStringAndSize(<const char *>sent.data, sent.length)
        far_release(&self.memory)
        return frame

    def receive_all(self) -> list[bytes]:
        """Take every frame that the stack has sent, oldest first."""
        frames = []
        while (frame := self.receive()) is not None:
            frames.append(frame)
        return frames

    def take(self) -> list[tuple[bytes, dict[str, int]]]:
        """The same, each with what the stack left to the device: offload_t by field.

        For a link that is driven without an engine: what is committed and not submitted is submitted first.
        """
        cdef const memory_sent_t *sent
        cdef offload_t offload
        self.require_open("MemoryLink.take()")
        memory_tx_submit(&self.c)
        taken = []
        while not self.closed and (sent := far_next(&self.memory)) != NULL:
            offload = sent.offload
            frame = self.receive()
            taken.append((frame, <dict>offload))
        return taken

    # ------------------------------------------------------------ packets
    def inject_packet(self, packet: object) -> bool:
        """Give the stack an IP packet, from far_mac to its own address. False: it found no room.

        Raises ValueError for what begins like no IP packet.
        """
        octets = packet if type(packet) is bytes else bytes(memoryview(packet))
        version = octets[0] >> 4 if octets else 0
        if version not in (4, 6):
            raise ValueError("an IP packet begins with its version, 4 or 6")
        in_range("packet bytes", len(octets), 1, IP_PACKET_MAX)
        self.require_open("MemoryLink.inject_packet()")
        return self.put_packet(octets, ETHERTYPE_IPV4 if version == 4 else ETHERTYPE_IPV6)

    cdef bint put_packet(self, bytes packet, uint16_t ethertype) noexcept:
        cdef uint32_t length = <uint32_t>PyBytes_GET_SIZE(packet)
        cdef uint8_t *room = far_reserve(&self.memory, ETHERNET_HEADER_BYTES + length)
        if room == NULL:
            return False
        ethernet_emit(room, self.c.mac, self.far_mac, ethertype)
        memcpy(room + ETHERNET_HEADER_BYTES, PyBytes_AS_STRING(packet), length)
        far_commit(&self.memory, ETHERNET_HEADER_BYTES + length, ETHERNET_HEADER_BYTES + length)
        return True

    def receive_packet(self) -> bytes | None:
        """Take the oldest IP packet that the stack has sent; None when there is none.

        Whatever address the stack asks for by ARP on the way there is answered with far_mac: poll it once more. Raises
        ValueError on a link with offloads, whose packets are not complete.
        """
        if self.c.caps.tx_checksum:
            raise ValueError("packets are for links without offloads: a device would have to complete them")
        while (frame := self.receive()) is not None:
            ethertype = int.from_bytes(frame[12:14], "big")
            if ethertype in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
                return frame[ETHERNET_HEADER_BYTES:]
            if ethertype == ETHERTYPE_ARP:
                self.answer_arp(frame)
        return None

    cdef void answer_arp(self, bytes frame) noexcept:
        cdef arp_t arp
        cdef uint32_t asked_be
        cdef uint8_t *room
        if (arp_parse(<const uint8_t *>PyBytes_AS_STRING(frame) + ETHERNET_HEADER_BYTES,
                      <uint32_t>PyBytes_GET_SIZE(frame) - ETHERNET_HEADER_BYTES, &arp) != 0
                or arp.operation != ARP_REQUEST or arp.target_be == arp.sender_be or arp.sender_be == 0):
            return                          # an announcement or a probe of its own address is no question
        room = far_reserve(&self.memory, ETHERNET_HEADER_BYTES + ARP_BYTES)
        if room == NULL:
            return                          # it asks again
        asked_be = arp.target_be
        arp.operation = ARP_REPLY
        arp.target_be = arp.sender_be
        arp.sender_be = asked_be
        memcpy(arp.target_mac, arp.sender_mac, 6)
        memcpy(arp.sender_mac, self.far_mac, 6)
        ethernet_emit(room, arp.target_mac, self.far_mac, ETHERTYPE_ARP)
        arp_emit(room + ETHERNET_HEADER_BYTES, &arp)
        far_commit(&self.memory, ETHERNET_HEADER_BYTES + ARP_BYTES, ETHERNET_HEADER_BYTES + ARP_BYTES)

    # ------------------------------------------------------------ state
    @property
    def waiting(self) -> int:
        """Frames for the stack that it has not been lent."""
        return self.memory.rx_written - self.memory.rx_lent

    @property
    def sent(self) -> int:
        """Frames that the stack has submitted and nobody has taken."""
        return self.memory.tx_submitted - self.memory.tx_taken
