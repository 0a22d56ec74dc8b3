# SPDX-License-Identifier: MIT
"""A link in memory: what a program, a test or a benchmark puts in, a stack receives, and what it sends comes out.

    with MemoryLink() as link, Stack(link, "10.0.0.2/24", now_ns=0) as stack:
        link.inject_packet(packet)          # IP packets, as a tunnel has them; inject(frame) takes Ethernet frames
        stack.poll(now_ns)
        while (packet := link.receive_packet()) is not None:
            ...

It has no clock, no impairments and no other end of its own: link.sim has two ends and a wire between them. wait()
returns at once. Compiled code uses the far_* functions (memory_ring.pxd) and copies nothing.

Below: memory_ring (what moves the frames), wire (for packets). Above: tunnels, the unit tests of ip, benchmarks.
"""

from errno import EBADF

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from ustack.base.bytestring cimport bytes_from, data_of
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, offload_t
from ustack.link.interface cimport parse_mac
from ustack.link.memory_ring cimport (
    far_commit, far_next, far_release, far_reserve, footprint, memory_link_ops, memory_rings_allocate,
    memory_rings_free, memory_sent_t, memory_t)
from ustack.wire.arp cimport ARP_BYTES, ARP_REPLY, ARP_REQUEST, arp_emit, arp_parse, arp_t
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ethernet_emit

cdef enum:
    IP_PACKET_MAX = 65535
    MTU_MIN = 68
    MTU_MAX = 1 << 20
    SLOTS_MAX = 1 << 20
    RING_BYTES_MAX = 1 << 30
    ETHERTYPE_IPV6 = 0x86DD

cdef dict CHECKSUMS = {"unknown": CHECKSUM_UNKNOWN, "verified": CHECKSUM_VERIFIED, "partial": CHECKSUM_PARTIAL}


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
        if memory_rings_allocate(memory, rx_slots, held_frames, ring_bytes) != 0:
            raise MemoryError
        memory.link = &self.c
        self.c.caps.mtu = mtu
        self.c.caps.max_frame = max_frame
        self.c.caps.tx_segmentation = segmentation_offload
        self.c.caps.tx_checksum = self.c.caps.rx_checksum = checksum_offload or segmentation_offload
        self.c.impl = memory
        self.c.ops = memory_link_ops()

    def __dealloc__(self) -> None:
        memory_rings_free(&self.memory)

    cpdef void close(self) except *:
        """Stop receiving and sending. Frames still lent are gone, as are those that nobody has taken."""
        if not self.closed:
            self.gate.check("close()")
            if self.memory.link != NULL:
                self.c.ops.refresh_counters(&self.c)
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
        frame = bytes_from(sent.data, sent.length)
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
        self.c.ops.tx_submit(&self.c)
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
        if (arp_parse(data_of(frame) + ETHERNET_HEADER_BYTES,
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
