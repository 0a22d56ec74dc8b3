# SPDX-License-Identifier: MIT
# The memory and the sockets of one AF_PACKET link: TPACKET_V2 rings. Body: packet_ring.pyx.
#
# A peer's super-frame needs a slot of 64 KB, but most frames are of one MTU at most. So there are two receive rings, on
# two sockets that divide the frames by length (a filter in the kernel): few large slots, and many small ones. The first
# socket also has the transmit ring. With one receive ring, the first one takes every frame. A third socket has no ring
# and receives nothing: it sends frames that lie in several places.
#
#     socket 0:  | rx block 0 | rx block 1 | ... | tx block 0 | ... |    a block: slots side by side, and an unused rest
#     socket 1:  | rx block 0 | rx block 1 | ... |
#
#     rx slot:  tpacket2_hdr | sockaddr_ll | gap | virtio_net_hdr | frame ...     (frame at tp_mac)
#     tx slot:  tpacket2_hdr | virtio_net_hdr | frame ...
#
# tp_status says whose a slot is. Receive: the kernel writes TP_STATUS_USER when it is ours, we write TP_STATUS_KERNEL
# when it is released. Transmit: we write TP_STATUS_SEND_REQUEST, the kernel TP_STATUS_AVAILABLE.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.link.device cimport link_t
from ustack.link.interface cimport interface_t, spin_t
from ustack.link.packet_abi cimport TP_STATUS_USER, TPACKET2_HDRLEN, load_acquire, sockaddr_ll, tpacket2_hdr

ctypedef struct ring_t:
    uint8_t **slots                  # address of each
    uint32_t count
    uint32_t slot_bytes

cdef enum:
    LARGE_FRAMES = 0                 # and all of them, when there is one receive ring
    SMALL_FRAMES = 1
    RX_RINGS_MAX = 2
    SLOTS_AUTO = 0xFFFFFFFF
    # What stands before the frame in a receive slot, and a little more; the kernel decides, and read_slot checks.
    RX_HEAD_BYTES = 96

ctypedef struct rx_ring_t:
    ring_t ring
    int fd                           # -1: there is no such ring
    uint32_t next                    # first slot not yet read
    uint32_t oldest                  # first slot not yet released
    uint32_t held                    # slots from oldest to next: those lent to the stack
    uint64_t drops                   # frames that found it full, as the kernel counts them
    uint8_t *map
    size_t map_bytes

ctypedef struct packet_ring_t:
    rx_ring_t rx[RX_RINGS_MAX]
    uint8_t *lent_from               # a queue: for each frame lent, in order, the ring it is from
    uint32_t lent_room               # slots of both rings
    uint32_t lent_first
    uint32_t lent
    uint32_t stores_max              # processors: so many frames can be on their way into a ring at once
    int fd                           # rx[LARGE_FRAMES].fd, which sends as well
    int gather_fd                    # sends frames from several places: a socket with a ring takes none of these
    int netlink_fd
    int ifindex
    ring_t tx
    uint32_t tx_next                 # slot of the next reservation
    uint32_t tx_unsent               # committed slots before tx_next that the kernel has not looked at
    uint64_t tx_stuck_since_ns       # when the device first refused the oldest unsent frame, 0: it did not
    uint64_t gather_after_ns         # the kernel has refused a frame in one piece: do not ask again before
    uint64_t segments_asked_ns       # when the device was last asked whether it takes super-frames
    uint8_t tx_reserved              # tx_next is in the caller's hands
    uint8_t tx_blocked               # a reservation failed: wait for POLLOUT as well
    uint8_t bypasses_qdisc           # frames go straight to the device: it takes super-frames
    uint8_t gone                     # the interface has been removed
    spin_t spin

# What is asked for when a link is opened.
ctypedef struct ring_plan_t:
    uint32_t rx_slots                # for frames of any length
    uint32_t rx_small_slots          # for frames that the MTU allows; 0: no second ring; SLOTS_AUTO: as many as is good
    uint32_t tx_slots
    uint32_t slot_bytes              # of rx_slots and tx_slots


cdef inline packet_ring_t *ring_of(link_t *link) noexcept nogil:
    return <packet_ring_t *>link.impl


cdef inline tpacket2_hdr *slot_header(ring_t *ring, uint32_t index) noexcept nogil:
    return <tpacket2_hdr *>ring.slots[index]


cdef inline uint32_t after(const ring_t *ring, uint32_t index) noexcept nogil:
    return index + 1 if index + 1 < ring.count else 0


cdef inline uint32_t tx_data_offset() noexcept nogil:
    # Where the kernel looks for what is to be sent (tpacket_parse_header): the virtio_net header, then the frame.
    return <uint32_t>(TPACKET2_HDRLEN - sizeof(sockaddr_ll))


# The header of the slot `ahead` of the next one to read, if a frame is in it; NULL if not.
cdef inline tpacket2_hdr *received(rx_ring_t *rx, uint32_t ahead) noexcept nogil:
    cdef uint32_t index = rx.next + ahead
    cdef tpacket2_hdr *header
    if rx.held + ahead >= rx.ring.count:
        return NULL
    header = slot_header(&rx.ring, index if index < rx.ring.count else index - rx.ring.count)
    return header if load_acquire(&header.tp_status) & TP_STATUS_USER else NULL


cdef inline bint ring_ready(packet_ring_t *ring) noexcept nogil:
    return received(&ring.rx[LARGE_FRAMES], 0) != NULL or received(&ring.rx[SMALL_FRAMES], 0) != NULL


# Open sockets, bound to the interface and receiving. interface: filled in. Raises OSError and leaves
# nothing open.
cdef packet_ring_t *packet_ring_open(str ifname, bytes name, const ring_plan_t *plan,
                                     interface_t *interface) except NULL
cdef void packet_ring_close(packet_ring_t *ring) noexcept
# Go past the queueing discipline while the device takes super-frames, and through it, which segments them in software,
# while it does not. Returns whether that changed.
cdef bint follow_segmentation(packet_ring_t *ring, uint64_t now_ns) noexcept nogil
