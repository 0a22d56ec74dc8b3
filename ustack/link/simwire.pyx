# SPDX-License-Identifier: MIT
"""The wire of a simulated network: queue, serialisation, delay, loss, reordering, duplication, corruption.

It reads no clock and no system randomness: the same seed, calls and times give the same bytes. One frame's way:

    filter (a Python callable, if set) -> queue (tail drop) -> serialised at rate_bps -> lost? corrupted? held back?
    -> delay -> heap ordered by arrival -> the receiver's ring (dropped when it is full) -> a second copy if duplicated

A super-frame is one frame here: lost, delayed and corrupted as a whole, as on a veth; too long for the path (path_mtu)
if its segments are. Below: impairment, which decides
what becomes of a frame, and when it arrives. Above: sim.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from ustack.base.debug cimport IS_DEBUG, ensure
from ustack.base.prng cimport prng_below
from ustack.buf.frame cimport CHECKSUM_UNKNOWN
from ustack.link.impairment cimport (
    fate_t, impairment_admit, impairment_carries, impairment_decide, impairment_free, impairment_init,
    impairment_lateness)
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4
from ustack.wire.ipv4 cimport IPV4_HEADER_BYTES, ipv4_mark
from ustack.wire.octets cimport read_u16

cdef enum:
    SMALL_BYTES = 2048                  # records of this capacity are kept for reuse
    HEAP_MIN = 64

cdef enum filter_verdict_t:
    FILTER_PASS = 0
    FILTER_DROP = 1
    FILTER_DUPLICATE = 2


# ---------------------------------------------------------------- frames
cdef sim_frame_t *sim_frame_new(sim_wire_t *wire, uint32_t length) noexcept nogil:
    cdef uint32_t capacity = length if length > SMALL_BYTES else SMALL_BYTES
    cdef sim_frame_t *frame
    if IS_DEBUG:
        capacity = length               # exact, and never reused: the address sanitizer sees every overrun
    if not IS_DEBUG and capacity == SMALL_BYTES and wire.free != NULL:
        frame = wire.free
        wire.free = frame.next
    else:
        frame = <sim_frame_t *>malloc(sizeof(sim_frame_t) + 2 + capacity)
        if frame == NULL:
            return NULL
    frame.next = NULL
    frame.due_ns = 0
    frame.order = 0
    frame.capacity = capacity
    frame.length = length
    frame.wire_length = length
    frame.gso_size = 0
    frame.checksum = CHECKSUM_UNKNOWN
    wire.live += 1
    return frame


cdef void sim_frame_free(sim_wire_t *wire, sim_frame_t *frame) noexcept nogil:
    ensure(wire.live > 0)
    wire.live -= 1
    if IS_DEBUG or frame.capacity != SMALL_BYTES:
        free(frame)
        return
    frame.next = wire.free
    wire.free = frame


cdef sim_frame_t *frame_copy(sim_wire_t *wire, sim_frame_t *frame) noexcept nogil:
    cdef sim_frame_t *twin = sim_frame_new(wire, frame.length)
    if twin != NULL:
        memcpy(sim_frame_data(twin), sim_frame_data(frame), frame.length)
        twin.wire_length = frame.wire_length
        twin.gso_size = frame.gso_size
        twin.checksum = frame.checksum
    return twin


# ---------------------------------------------------------------- heap of frames in flight
cdef inline bint arrives_before(const sim_frame_t *x, const sim_frame_t *y) noexcept nogil:
    return x.due_ns < y.due_ns or (x.due_ns == y.due_ns and x.order < y.order)


cdef int heap_push(sim_direction_t *direction, sim_frame_t *frame) noexcept nogil:
    """0, or -1 without memory (the frame is still the caller's)."""
    cdef uint32_t capacity, child, parent
    cdef sim_frame_t **grown
    if direction.heap_used == direction.heap_capacity:
        capacity = direction.heap_capacity * 2 if direction.heap_capacity else HEAP_MIN
        grown = <sim_frame_t **>realloc(direction.heap, capacity * sizeof(sim_frame_t *))
        if grown == NULL:
            return -1
        direction.heap = grown
        direction.heap_capacity = capacity
    child = direction.heap_used
    direction.heap_used += 1
    while child > 0:
        parent = (child - 1) // 2
        if not arrives_before(frame, direction.heap[parent]):
            break
        direction.heap[child] = direction.heap[parent]
        child = parent
    direction.heap[child] = frame
    return 0


cdef sim_frame_t *heap_pop(sim_direction_t *direction) noexcept nogil:
    cdef sim_frame_t *top = direction.heap[0]
    cdef sim_frame_t *last
    cdef uint32_t parent = 0
    cdef uint32_t child
    direction.heap_used -= 1
    if direction.heap_used == 0:
        return top
    last = direction.heap[direction.heap_used]
    while True:
        child = 2 * parent + 1
        if child >= direction.heap_used:
            break
        if child + 1 < direction.heap_used and arrives_before(direction.heap[child + 1], direction.heap[child]):
            child += 1
        if not arrives_before(direction.heap[child], last):
            break
        direction.heap[parent] = direction.heap[child]
        parent = child
    direction.heap[parent] = last
    return top


# ---------------------------------------------------------------- one frame's way
cdef filter_verdict_t filter_frame(sim_wire_t *wire, sim_direction_t *direction, sim_frame_t **frame,
                                   uint64_t *extra_ns) noexcept with gil:
    """Ask the Python filter. It may replace *frame. An exception is parked in the owner and the frame is dropped."""
    cdef SimWire owner = <SimWire>wire.owner
    cdef sim_frame_t *replaced
    cdef object verdict
    try:
        hook = owner.filter_ab if direction.which == 0 else owner.filter_ba
        index = direction.stats.sent - 1
        verdict = hook(PyBytes_FromStringAndSize(<char *>sim_frame_data(frame[0]), frame[0].length), index)
        if verdict is None:
            return FILTER_PASS
        if isinstance(verdict, str):
            if verdict == "drop":
                return FILTER_DROP
            if verdict == "duplicate":
                return FILTER_DUPLICATE
            raise ValueError(f"a filter returned {verdict!r}: 'drop' and 'duplicate' are the words it may use")
        if isinstance(verdict, bytes):
            if PyBytes_GET_SIZE(verdict) > SIM_FRAME_MAX:
                raise ValueError(f"a filter returned a frame of more than {SIM_FRAME_MAX} bytes")
            replaced = sim_frame_new(wire, <uint32_t>PyBytes_GET_SIZE(verdict))
            if replaced == NULL:
                raise MemoryError
            memcpy(sim_frame_data(replaced), PyBytes_AS_STRING(verdict), replaced.length)
            replaced.gso_size = frame[0].gso_size
            replaced.checksum = frame[0].checksum
            sim_frame_free(wire, frame[0])
            frame[0] = replaced
            return FILTER_PASS
        if isinstance(verdict, int) and verdict >= 0:
            extra_ns[0] = verdict
            return FILTER_PASS
        raise TypeError(f"a filter returned {verdict!r}: None, 'drop', 'duplicate', bytes or a delay in ns expected")
    except BaseException as error:  # noqa: B036 - raised again by the next call from Python
        if owner.error is None:
            owner.error = error
        return FILTER_DROP


cdef void put_in_flight(sim_wire_t *wire, sim_direction_t *direction, sim_frame_t *frame,
                        uint64_t due_ns) noexcept nogil:
    frame.due_ns = due_ns
    frame.order = direction.orders
    direction.orders += 1
    if heap_push(direction, frame) < 0:
        direction.stats.no_memory += 1
        sim_frame_free(wire, frame)


cdef void flip_one_bit(sim_direction_t *direction, sim_frame_t *frame) noexcept nogil:
    cdef uint32_t bit
    direction.stats.corrupted += 1
    if frame.length == 0:
        return
    bit = prng_below(&direction.impairment.prng, frame.length * 8)
    sim_frame_data(frame)[bit >> 3] ^= <uint8_t>(1 << (bit & 7))
    # What an earlier device said about the checksum is no longer true. A partial one can only fail now: no receiver
    # takes damaged bytes for good ones.
    frame.checksum = CHECKSUM_UNKNOWN


cdef uint32_t longest_packet(sim_frame_t *frame) noexcept nogil:
    """Bytes of the longest packet that a device would make of it: a super-frame's headers, and a segment."""
    cdef const uint8_t *data = sim_frame_data(frame)
    cdef uint32_t headers
    if frame.gso_size == 0 or frame.length < 54:
        return frame.length
    headers = 14 + (data[14] & 15) * 4
    headers += (data[headers + 12] >> 4) * 4 if headers + 12 < frame.length else 0
    return min(frame.length, headers + frame.gso_size)


cdef bint mark(sim_frame_t *frame) noexcept nogil:
    cdef uint8_t *data = sim_frame_data(frame)
    if (frame.length < ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES or read_u16(data + 12) != ETHERTYPE_IPV4
            or data[ETHERNET_HEADER_BYTES] >> 4 != 4):
        return False
    return ipv4_mark(data + ETHERNET_HEADER_BYTES)


cdef void sim_send(sim_end_t *end, sim_frame_t *frame) noexcept nogil:
    cdef sim_wire_t *wire = end.wire
    cdef sim_direction_t *direction = end.out
    cdef filter_verdict_t verdict = FILTER_PASS
    cdef uint64_t extra_ns = 0
    cdef fate_t fate
    cdef sim_frame_t *twin = NULL
    direction.stats.sent += 1
    if direction.filtered:
        verdict = filter_frame(wire, direction, &frame, &extra_ns)
        if verdict == FILTER_DROP:
            direction.stats.filtered += 1
            sim_frame_free(wire, frame)
            return
    if not impairment_admit(&direction.impairment, frame.length, wire.now_ns, &fate):
        direction.stats.queue_dropped += 1
        sim_frame_free(wire, frame)
        return
    fate.due_ns += extra_ns
    impairment_decide(&direction.impairment, &fate)
    if fate.lost:
        direction.stats.lost += 1
        sim_frame_free(wire, frame)
        return
    if not impairment_carries(&direction.impairment, longest_packet(frame)):
        direction.stats.beyond_mtu += 1
        sim_frame_free(wire, frame)
        return
    if fate.marked and mark(frame):
        direction.stats.marked += 1
    if fate.duplicated or verdict == FILTER_DUPLICATE:
        twin = frame_copy(wire, frame)
    if fate.corrupted:
        flip_one_bit(direction, frame)
    if fate.reordered:
        direction.stats.reordered += 1
        put_in_flight(wire, direction, frame, fate.due_ns + impairment_lateness(&direction.impairment))
    else:
        put_in_flight(wire, direction, frame, fate.due_ns)
    if twin != NULL:
        direction.stats.duplicated += 1
        put_in_flight(wire, direction, twin, fate.due_ns)
    deliver_due(wire, direction)


cdef void deliver_due(sim_wire_t *wire, sim_direction_t *direction) noexcept nogil:
    """What has arrived by now goes into the receiver's ring, in order of arrival."""
    cdef sim_end_t *receiver = direction.receiver
    cdef sim_frame_t *frame
    while direction.heap_used > 0 and direction.heap[0].due_ns <= wire.now_ns:
        frame = heap_pop(direction)
        if receiver.link == NULL or receiver.used == receiver.rx_slots:
            direction.stats.ring_dropped += 1
            if receiver.link != NULL:
                receiver.link.counters.rx_dropped += 1
            sim_frame_free(wire, frame)
            continue
        direction.stats.delivered += 1
        receiver.arrived[(receiver.head + receiver.used) % receiver.rx_slots] = frame
        receiver.used += 1


cdef void sim_advance(sim_wire_t *wire, uint64_t now_ns) noexcept nogil:
    if now_ns > wire.now_ns:
        wire.now_ns = now_ns
        deliver_due(wire, &wire.directions[0])
        deliver_due(wire, &wire.directions[1])


cdef uint64_t sim_next_ns(const sim_end_t *end) noexcept nogil:
    cdef const sim_direction_t *direction
    if end.link == NULL:
        return UINT64_MAX
    if end.used > end.lent:
        return end.arrived[(end.head + end.lent) % end.rx_slots].due_ns
    direction = &end.wire.directions[1] if end.out.which == 0 else &end.wire.directions[0]
    return direction.heap[0].due_ns if direction.heap_used > 0 else UINT64_MAX


# ---------------------------------------------------------------- life
cdef sim_wire_t *sim_wire_new(uint64_t seed, uint32_t mtu, uint32_t rx_slots, uint32_t tx_slots,
                              uint64_t now_ns, void *owner) noexcept nogil:
    cdef sim_wire_t *wire = <sim_wire_t *>calloc(1, sizeof(sim_wire_t))
    cdef sim_end_t *end
    cdef uint32_t i
    if wire == NULL:
        return NULL
    wire.now_ns = now_ns
    wire.mtu = mtu
    wire.owner = owner
    for i in range(2):
        impairment_init(&wire.directions[i].impairment, 2 * seed + i)
        wire.directions[i].which = <uint8_t>i
        wire.directions[i].receiver = &wire.ends[1 - i]
        end = &wire.ends[i]
        end.wire = wire
        end.out = &wire.directions[i]
        end.rx_slots = rx_slots
        end.tx_slots = tx_slots
        end.arrived = <sim_frame_t **>malloc(rx_slots * sizeof(sim_frame_t *))
        if end.arrived == NULL:
            sim_wire_free(wire)
            return NULL
    return wire


cdef void sim_end_close(sim_end_t *end) noexcept nogil:
    cdef sim_wire_t *wire = end.wire
    cdef sim_frame_t *frame
    end.link = NULL
    if end.reserved != NULL:
        sim_frame_free(wire, end.reserved)
        end.reserved = NULL
    while end.queued_first != NULL:
        frame = end.queued_first
        end.queued_first = frame.next
        sim_frame_free(wire, frame)
    end.queued_last = NULL
    end.queued = 0
    while end.used > 0:
        sim_frame_free(wire, end.arrived[end.head])
        end.head = (end.head + 1) % end.rx_slots
        end.used -= 1
    end.lent = 0


cdef void sim_wire_drain(sim_wire_t *wire) noexcept nogil:
    cdef uint32_t i
    for i in range(2):
        while wire.directions[i].heap_used > 0:
            sim_frame_free(wire, heap_pop(&wire.directions[i]))


cdef uint64_t sim_wire_free(sim_wire_t *wire) noexcept nogil:
    cdef sim_frame_t *frame
    cdef uint64_t leaked
    cdef uint32_t i
    sim_wire_drain(wire)
    leaked = wire.live
    while wire.free != NULL:
        frame = wire.free
        wire.free = frame.next
        free(frame)
    for i in range(2):
        free(wire.directions[i].heap)
        impairment_free(&wire.directions[i].impairment)
        free(wire.ends[i].arrived)
    free(wire)
    return leaked


cdef class SimWire:
    """Owner of a sim_wire_t and of the Python filters. Both ends and the network keep it alive."""

    def __cinit__(self, uint64_t seed, uint32_t mtu, uint32_t rx_slots, uint32_t tx_slots, uint64_t now_ns) -> None:
        self.c = sim_wire_new(seed, mtu, rx_slots, tx_slots, now_ns, <void *>self)
        if self.c == NULL:
            raise MemoryError
        self.gate = Gate()

    def __dealloc__(self) -> None:
        if self.c != NULL:
            sim_end_close(&self.c.ends[0])
            sim_end_close(&self.c.ends[1])
            sim_wire_free(self.c)

    cdef void raise_parked(self) except *:
        """Raise what a filter raised since the last call, once."""
        error = self.error
        if error is not None:
            self.error = None
            raise error
