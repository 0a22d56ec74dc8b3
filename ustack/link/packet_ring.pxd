# SPDX-License-Identifier: MIT
# The memory and the socket of one AF_PACKET link: two TPACKET_V2 rings in one mapping. Body: packet_ring.pyx.
#
#     | rx block 0 | rx block 1 | ... | tx block 0 | ... |        a block: slots side by side, and an unused rest
#
#     rx slot:  tpacket2_hdr | sockaddr_ll | gap | virtio_net_hdr | frame ...     (frame at tp_mac)
#     tx slot:  tpacket2_hdr | virtio_net_hdr | frame ...
#
# tp_status says whose a slot is. Receive: the kernel writes TP_STATUS_USER when it is ours, we write TP_STATUS_KERNEL
# when it is released. Transmit: we write TP_STATUS_SEND_REQUEST, the kernel TP_STATUS_AVAILABLE.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.link.interface cimport interface_t, spin_t
from ustack.link.packet_abi cimport TPACKET2_HDRLEN, sockaddr_ll, tpacket2_hdr

ctypedef struct ring_t:
    uint8_t **slots                  # address of each
    uint32_t count
    uint32_t slot_bytes

ctypedef struct packet_ring_t:
    int fd
    int ifindex
    uint8_t *map
    size_t map_bytes
    ring_t rx
    ring_t tx
    uint8_t *rx_skipped              # for each receive slot: given back when it was read, not at release
    uint32_t rx_next                 # first slot not yet read
    uint32_t rx_oldest               # first slot not yet released
    uint32_t rx_held                 # slots from rx_oldest to rx_next, skipped ones included
    uint32_t rx_lent                 # of them, those lent to the stack
    uint32_t tx_next                 # slot of the next reservation
    uint32_t tx_unsent               # committed slots before tx_next that the kernel has not looked at
    uint64_t tx_stuck_since_ns       # when the device first refused the oldest unsent frame, 0: it did not
    uint8_t tx_reserved              # tx_next is in the caller's hands
    uint8_t tx_blocked               # a reservation failed: wait for POLLOUT as well
    uint8_t gone                     # the interface has been removed
    spin_t spin


cdef inline tpacket2_hdr *slot_header(ring_t *ring, uint32_t index) noexcept nogil:
    return <tpacket2_hdr *>ring.slots[index]


cdef inline uint32_t after(const ring_t *ring, uint32_t index) noexcept nogil:
    return index + 1 if index + 1 < ring.count else 0


cdef inline uint32_t tx_data_offset() noexcept nogil:
    # Where the kernel looks for what is to be sent (tpacket_parse_header): the virtio_net header, then the frame.
    return <uint32_t>(TPACKET2_HDRLEN - sizeof(sockaddr_ll))


# An open socket, bound to the interface and receiving. interface: filled in. Raises OSError and leaves nothing open.
cdef packet_ring_t *packet_ring_open(str ifname, bytes name, uint32_t rx_slots, uint32_t tx_slots, uint32_t slot_bytes,
                                     interface_t *interface) except NULL
cdef void packet_ring_close(packet_ring_t *ring) noexcept
