# SPDX-License-Identifier: MIT
# The two rings of a link in memory, seen by the stack and by the far end. Bodies: memory_ring.pyx.
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
#
# The stack's own turn is what benchmarks measure: the operations do as little as can be. The far end does the rest, and
# what it can tell is counted when somebody asks (refresh_counters).
#
# Below: device (the contract). Above: memory (the link, and its far end in Python), benchmarks.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.buf.frame cimport frame_t
from ustack.link.device cimport link_ops_t, link_t, offload_t

# A frame that the stack has sent.
ctypedef struct memory_sent_t:
    uint8_t *data
    uint32_t length
    offload_t offload

ctypedef struct memory_t:
    link_t *link
    size_t ring_bytes                # of rx_bytes and of tx_bytes
    # Towards the stack: a slot each; the counts only grow. released <= lent <= written <= released + rx_slots.
    uint8_t *rx_bytes
    frame_t *rx
    uint32_t rx_slots
    uint32_t rx_next                 # slot of the next frame to lend
    uint64_t rx_written
    uint64_t rx_lent
    uint64_t rx_released
    uint64_t rx_written_bytes
    uint64_t rx_written_cut          # frames that are longer on the wire
    uint8_t *rx_at                   # where the next frame goes, if it fits there
    uint8_t *far_reserved            # NULL: nothing is
    uint32_t far_reserved_bytes
    # From the stack: taken <= submitted <= written <= taken + held_frames, written <= submitted + tx_slots.
    uint8_t *tx_bytes
    memory_sent_t *tx
    memory_sent_t *tx_next           # slot of the next frame
    uint32_t held_frames             # slots
    uint32_t tx_slots
    uint64_t tx_written
    uint64_t tx_submitted
    uint64_t tx_taken
    uint64_t tx_limit                # tx_written must not go beyond it
    uint8_t *tx_at                   # where the next frame goes
    uint8_t *tx_end                  # so far it may go
    int64_t tx_reserved              # bytes at tx_at; -1: nothing is reserved


cdef enum:
    FRAME_ALIGNMENT = 64

# What a frame takes of a ring: never 0, and never without a byte that the sanitizer can watch.
cdef inline size_t footprint(uint32_t length) noexcept nogil:
    return (<size_t>length + FRAME_ALIGNMENT) & ~<size_t>(FRAME_ALIGNMENT - 1)


# Frames that are in the ring towards the stack, lent ones included.
cdef inline uint64_t far_waiting(const memory_t *memory) noexcept nogil:
    return memory.rx_written - memory.rx_released


# Room for a frame of `length` bytes, all the caller's until it is committed; reserving again gives up the last one.
# NULL: the ring is full, which is counted (rx_dropped).
cdef uint8_t *far_reserve(memory_t *memory, uint32_t length) noexcept nogil
# The frame is in the ring. length: at most what was reserved; wire_length: more for a frame that was cut. Returns its
# view, to change what the device says about it (checksum unknown, no super-frame, no tag). NULL: nothing was reserved.
cdef frame_t *far_commit(memory_t *memory, uint32_t length, uint32_t wire_length) noexcept nogil
# The oldest frame that has been submitted; valid until it is released. NULL: there is none. What the device's
# capabilities do not cover is dropped here, and counted (tx_dropped).
cdef const memory_sent_t *far_next(memory_t *memory) noexcept nogil
# Give up the frame that far_next has shown.
cdef void far_release(memory_t *memory) noexcept nogil

# What a link does whose `impl` is a memory_t.
cdef const link_ops_t *memory_link_ops() noexcept nogil
# Memory for so many frames, and empty rings in it; what an attempt before has left is freed. -1: there is none.
cdef int memory_rings_allocate(memory_t *memory, uint32_t rx_slots, uint32_t held_frames,
                               size_t ring_bytes) noexcept nogil
# Idempotent.
cdef void memory_rings_free(memory_t *memory) noexcept nogil
