# SPDX-License-Identifier: MIT
# A link that is nothing but memory: a device with two rings, and a far end that is driven by calls. Body: memory.pyx.
#
#                  far_reserve, far_commit ──▶ rx ring ──▶ rx_burst, rx_release
#     far end                                                                        stack
#                  far_next, far_release   ◀── tx ring ◀── tx_reserve, tx_commit, tx_submit
#
# Each ring is a row of descriptors and a piece of memory in which the frames lie one behind the other, each at a
# multiple of 64; what does not fit before the end starts again at the front, and an empty ring always starts there, so
# that little traffic stays in little cache. Nothing is allocated for a frame, nothing is copied but by who writes or
# reads it. Every bound is given when the link is opened; a ring without room refuses.
#
# With the address sanitizer, memory outside of the frames is poisoned: who writes one byte more than was reserved, or
# reads a frame that was released, is stopped.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.buf.frame cimport frame_t
from ustack.link.device cimport Link, link_t, offload_t

# A frame that the stack has sent.
ctypedef struct memory_sent_t:
    uint8_t *data
    uint32_t length
    offload_t offload

ctypedef struct memory_t:
    link_t *link
    size_t ring_bytes                # of rx_bytes and of tx_bytes
    # towards the stack: the oldest rx_lent frames are lent, the others wait
    uint8_t *rx_bytes
    frame_t *rx
    uint32_t rx_slots
    uint32_t rx_oldest               # slot
    uint32_t rx_count
    uint32_t rx_lent
    size_t rx_end                    # where the next frame goes, if it fits there
    uint8_t *far_reserved
    uint32_t far_reserved_bytes
    # from the stack: the youngest tx_queued frames are not submitted
    uint8_t *tx_bytes
    memory_sent_t *tx
    uint32_t held_frames             # slots
    uint32_t tx_slots                # bound of tx_queued
    uint32_t tx_oldest               # slot
    uint32_t tx_count
    uint32_t tx_queued
    size_t tx_end
    uint8_t *tx_reserved
    uint32_t tx_reserved_bytes


cdef class MemoryLink(Link):
    cdef memory_t memory
    cdef uint8_t far_mac[6]
    cdef int allocate(self, uint32_t rx_slots, uint32_t held_frames, size_t ring_bytes) except -1
    cdef void free_rings(self) noexcept
    cdef int require_open(self, str call) except -1
    cdef bint put(self, bytes frame, int checksum, int gso_size, uint32_t wire_length, int vlan_id) noexcept
    cdef bint put_packet(self, bytes packet, uint16_t ethertype) noexcept
    cdef void answer_arp(self, bytes frame) noexcept


# Room for a frame of `length` bytes, all the caller's until it is committed; reserving again gives up the last one.
# NULL: the ring is full, which is counted (rx_dropped).
cdef uint8_t *far_reserve(memory_t *memory, uint32_t length) noexcept nogil
# The frame is in the ring; length: at most what was reserved. Returns its view, to change what the device says about it
# (checksum unknown, no super-frame, no tag, nothing cut). NULL when nothing was reserved.
cdef frame_t *far_commit(memory_t *memory, uint32_t length) noexcept nogil
# The oldest frame that has been submitted; valid until it is released. NULL: there is none.
cdef const memory_sent_t *far_next(const memory_t *memory) noexcept nogil
# Give up the frame that far_next has shown.
cdef void far_release(memory_t *memory) noexcept nogil
