# SPDX-License-Identifier: MIT
"""The rings of a link in memory: the operations of the stack's end, the calls of the far end.

Frames lie in a ring one behind the other, as memory_ring.pxd draws them; who writes and who reads never run at the same
time, so there is no barrier. It must not allocate for a frame, copy one, or read a clock.

Below: device (the contract). Above: memory (the Python face), benchmarks.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from ustack.base.debug cimport IS_DEBUG, ensure, poison, unpoison
from ustack.buf.frame cimport CHECKSUM_UNKNOWN, frame_t
from ustack.link.device cimport backlog_reaches, device_accepts, link_ops_t, link_t, offload_t


# ---------------------------------------------------------------- rings
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


cdef bint memory_rx_behind(link_t *link, uint32_t frames, bint still) noexcept nogil:
    cdef memory_t *memory = memory_of(link)
    return backlog_reaches(memory.rx_written - memory.rx_lent, memory.rx_slots, frames, still)


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
MEMORY_OPS.rx_behind = memory_rx_behind
MEMORY_OPS.tx_reserve = memory_tx_reserve
MEMORY_OPS.tx_commit = memory_tx_commit
MEMORY_OPS.tx_submit = memory_tx_submit
MEMORY_OPS.wait = memory_wait
MEMORY_OPS.refresh_counters = memory_refresh_counters


cdef const link_ops_t *memory_link_ops() noexcept nogil:
    return &MEMORY_OPS


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


# ---------------------------------------------------------------- memory
cdef int memory_rings_allocate(memory_t *memory, uint32_t rx_slots, uint32_t held_frames,
                               size_t ring_bytes) noexcept nogil:
    memory_rings_free(memory)
    memory.rx_slots = rx_slots
    memory.held_frames = held_frames
    memory.ring_bytes = ring_bytes & ~<size_t>(FRAME_ALIGNMENT - 1)
    memory.rx_bytes = <uint8_t *>malloc(memory.ring_bytes)
    memory.tx_bytes = <uint8_t *>malloc(memory.ring_bytes)
    memory.rx = <frame_t *>calloc(rx_slots, sizeof(frame_t))
    memory.tx = <memory_sent_t *>calloc(held_frames, sizeof(memory_sent_t))
    if memory.rx_bytes == NULL or memory.tx_bytes == NULL or memory.rx == NULL or memory.tx == NULL:
        return -1
    poison(memory.rx_bytes, memory.ring_bytes)
    poison(memory.tx_bytes, memory.ring_bytes)
    memory.tx_next = memory.tx
    memory.tx_at = memory.tx_bytes
    memory.tx_reserved = -1
    find_end(memory)
    find_limit(memory)
    return 0


cdef void memory_rings_free(memory_t *memory) noexcept nogil:
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
