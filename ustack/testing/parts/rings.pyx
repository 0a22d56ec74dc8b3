# SPDX-License-Identifier: MIT
"""The two receive rings of an AF_PACKET link without a kernel: a test is what stores the frames, step by step.

A processor of the kernel reserves the next slot of a ring, copies and stamps the frame, and sets the slot's status.
Each step is a call here, so that a test can let several processors overtake each other in every way they can.

Below: link/packet_receive. Not for the data path.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from ustack.buf.frame cimport frame_t
from ustack.link.device cimport link_t
from ustack.link.packet_abi cimport TP_STATUS_KERNEL, TP_STATUS_TS_SOFTWARE, TP_STATUS_USER, tpacket2_hdr
from ustack.link.packet_receive cimport packet_rx_burst, packet_rx_release
from ustack.link.packet_ring cimport RX_RINGS_MAX, packet_ring_t, rx_ring_t, slot_header

cdef enum:
    SLOT_BYTES = 256
    MAC_OFFSET = 96
    BURST_MAX = 64


cdef class ReceiveRings:
    """Ring 0 for large frames, ring 1 for small ones, of `slots` slots each, filled by up to `processors` at once.

    A frame is its number; where a ring is named, it is 0 or 1.
    """

    cdef packet_ring_t ring
    cdef link_t link
    cdef uint8_t *memory[RX_RINGS_MAX]
    cdef uint32_t reserved[RX_RINGS_MAX]
    cdef set in_hand                    # slots that a processor has reserved and not finished

    def __cinit__(self, slots: int, processors: int) -> None:
        cdef rx_ring_t *rx
        cdef int which, i
        memset(&self.ring, 0, sizeof(packet_ring_t))
        memset(&self.link, 0, sizeof(link_t))
        self.in_hand = set()
        for which in range(RX_RINGS_MAX):
            rx = &self.ring.rx[which]
            self.memory[which] = <uint8_t *>calloc(slots, SLOT_BYTES)
            rx.ring.slots = <uint8_t **>calloc(slots, sizeof(uint8_t *))
            if self.memory[which] == NULL or rx.ring.slots == NULL:
                raise MemoryError
            for i in range(slots):
                rx.ring.slots[i] = self.memory[which] + <size_t>i * SLOT_BYTES
            rx.ring.count = slots
            rx.ring.slot_bytes = SLOT_BYTES
            rx.fd = 0                       # there is such a ring; nothing here uses the descriptor
            self.reserved[which] = 0
        self.ring.lent_room = 2 * slots
        self.ring.lent_from = <uint8_t *>calloc(self.ring.lent_room, 1)
        if self.ring.lent_from == NULL:
            raise MemoryError
        self.ring.stores_max = processors
        self.link.impl = &self.ring

    def __dealloc__(self) -> None:
        cdef int which
        for which in range(RX_RINGS_MAX):
            free(self.memory[which])
            free(self.ring.rx[which].ring.slots)
        free(self.ring.lent_from)

    def reserve(self, int which) -> int | None:
        """The slot that a processor gets for its next frame; None: the ring is full."""
        cdef rx_ring_t *rx = &self.ring.rx[which]
        slot = self.reserved[which] % rx.ring.count
        if slot_header(&rx.ring, slot).tp_status != TP_STATUS_KERNEL or (which, slot) in self.in_hand:
            return None
        self.reserved[which] += 1
        self.in_hand.add((which, slot))
        return slot

    def stamp(self, int which, slot: int, number: int, time_ns: int) -> None:
        """The frame is copied into its slot and stamped."""
        cdef tpacket2_hdr *header = slot_header(&self.ring.rx[which].ring, slot)
        cdef uint32_t frame = number
        header.tp_mac = MAC_OFFSET
        header.tp_len = sizeof(uint32_t)
        header.tp_snaplen = sizeof(uint32_t)
        header.tp_sec = time_ns // 1000000000
        header.tp_nsec = time_ns % 1000000000
        memcpy(<uint8_t *>header + MAC_OFFSET, &frame, sizeof(uint32_t))

    def finish(self, int which, slot: int, *, stamped_on_arrival: bool = False) -> None:
        """The slot's status: it is the reader's now."""
        cdef tpacket2_hdr *header = slot_header(&self.ring.rx[which].ring, slot)
        self.in_hand.remove((which, slot))
        header.tp_status = TP_STATUS_USER | (TP_STATUS_TS_SOFTWARE if stamped_on_arrival else 0)

    def burst(self, max_frames: int = BURST_MAX) -> list[int]:
        """The link's rx_burst: the numbers of the frames that it lent."""
        cdef frame_t frames[BURST_MAX]
        cdef uint32_t number
        cdef uint32_t i, n = packet_rx_burst(&self.link, frames, min(max_frames, BURST_MAX))
        numbers = []
        for i in range(n):
            memcpy(&number, frames[i].data, sizeof(uint32_t))
            numbers.append(number)
        return numbers

    def release(self, n: int) -> None:
        """The link's rx_release of the oldest n frames."""
        packet_rx_release(&self.link, n)
