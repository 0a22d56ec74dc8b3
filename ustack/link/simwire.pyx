# SPDX-License-Identifier: MIT
"""The wire of a simulated network: queue, serialisation, delay, loss, reordering, duplication, corruption.

It reads no clock and no system randomness: the same seed, calls and times give the same bytes. One frame's way:

    filter (a Python callable, if set) -> queue (tail drop) -> serialised at rate_bps -> lost? corrupted? held back?
    -> delay -> heap ordered by arrival -> the receiver's ring (dropped when it is full) -> a second copy if duplicated

A super-frame is one frame here: lost, delayed and corrupted as a whole, as on a veth; too long for the path (path_mtu)
if its segments are. Below: impairment, which decides what becomes of a frame, and when it arrives; parcels. Above: sim.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from ustack.link.impairment cimport (
    fate_t, impairment_admit, impairment_carries, impairment_decide, impairment_free, impairment_init,
    impairment_lateness)
from ustack.link.parcels cimport (
    arrivals_free, arrivals_pop, arrivals_push, parcel_copy, parcel_data, parcel_flip_one_bit, parcel_free, parcel_mark,
    parcel_new, parcels_free, pool_empty)

cdef enum filter_verdict_t:
    FILTER_PASS = 0
    FILTER_DROP = 1
    FILTER_DUPLICATE = 2


# ---------------------------------------------------------------- one frame's way
cdef filter_verdict_t filter_frame(sim_wire_t *wire, sim_direction_t *direction, parcel_t **frame,
                                   uint64_t *extra_ns) noexcept with gil:
    """Ask the Python filter. It may replace *frame. An exception is parked in the owner and the frame is dropped."""
    cdef SimWire owner = <SimWire>wire.owner
    cdef parcel_t *replaced
    cdef object verdict
    try:
        hook = owner.filter_ab if direction.which == 0 else owner.filter_ba
        index = direction.stats.sent - 1
        verdict = hook(PyBytes_FromStringAndSize(<char *>parcel_data(frame[0]), frame[0].length), index)
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
            replaced = parcel_new(&wire.pool, <uint32_t>PyBytes_GET_SIZE(verdict))
            if replaced == NULL:
                raise MemoryError
            memcpy(parcel_data(replaced), PyBytes_AS_STRING(verdict), replaced.length)
            replaced.gso_size = frame[0].gso_size
            replaced.checksum = frame[0].checksum
            parcel_free(&wire.pool, frame[0])
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


cdef void put_in_flight(sim_wire_t *wire, sim_direction_t *direction, parcel_t *frame,
                        uint64_t due_ns) noexcept nogil:
    frame.at_ns = due_ns
    frame.order = direction.orders
    direction.orders += 1
    if arrivals_push(&direction.in_flight, frame) < 0:
        direction.stats.no_memory += 1
        parcel_free(&wire.pool, frame)


cdef uint32_t longest_packet(parcel_t *frame) noexcept nogil:
    """Bytes of the longest packet that a device would make of it: a super-frame's headers, and a segment."""
    cdef const uint8_t *data = parcel_data(frame)
    cdef uint32_t headers
    if frame.gso_size == 0 or frame.length < 54:
        return frame.length
    headers = 14 + (data[14] & 15) * 4
    headers += (data[headers + 12] >> 4) * 4 if headers + 12 < frame.length else 0
    return min(frame.length, headers + frame.gso_size)


cdef void sim_send(sim_end_t *end, parcel_t *frame) noexcept nogil:
    cdef sim_wire_t *wire = end.wire
    cdef sim_direction_t *direction = end.out
    cdef filter_verdict_t verdict = FILTER_PASS
    cdef uint64_t extra_ns = 0
    cdef fate_t fate
    cdef parcel_t *twin = NULL
    direction.stats.sent += 1
    if direction.filtered:
        verdict = filter_frame(wire, direction, &frame, &extra_ns)
        if verdict == FILTER_DROP:
            direction.stats.filtered += 1
            parcel_free(&wire.pool, frame)
            return
    if not impairment_admit(&direction.impairment, frame.length, wire.now_ns, &fate):
        direction.stats.queue_dropped += 1
        parcel_free(&wire.pool, frame)
        return
    fate.due_ns += extra_ns
    impairment_decide(&direction.impairment, &fate)
    if fate.lost:
        direction.stats.lost += 1
        parcel_free(&wire.pool, frame)
        return
    if not impairment_carries(&direction.impairment, longest_packet(frame)):
        direction.stats.beyond_mtu += 1
        parcel_free(&wire.pool, frame)
        return
    if fate.marked and parcel_mark(frame):
        direction.stats.marked += 1
    if fate.duplicated or verdict == FILTER_DUPLICATE:
        twin = parcel_copy(&wire.pool, frame)
    if fate.corrupted:
        direction.stats.corrupted += 1
        parcel_flip_one_bit(frame, &direction.impairment.prng)
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
    cdef parcel_t *frame
    while direction.in_flight.used > 0 and direction.in_flight.heap[0].at_ns <= wire.now_ns:
        frame = arrivals_pop(&direction.in_flight)
        if receiver.link == NULL or receiver.used == receiver.rx_slots:
            direction.stats.ring_dropped += 1
            if receiver.link != NULL:
                receiver.link.counters.rx_dropped += 1
            parcel_free(&wire.pool, frame)
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
        return end.arrived[(end.head + end.lent) % end.rx_slots].at_ns
    direction = &end.wire.directions[1] if end.out.which == 0 else &end.wire.directions[0]
    return direction.in_flight.heap[0].at_ns if direction.in_flight.used > 0 else UINT64_MAX


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
        end.arrived = <parcel_t **>malloc(rx_slots * sizeof(parcel_t *))
        if end.arrived == NULL:
            sim_wire_free(wire)
            return NULL
    return wire


cdef void sim_end_close(sim_end_t *end) noexcept nogil:
    cdef sim_wire_t *wire = end.wire
    end.link = NULL
    if end.reserved != NULL:
        parcel_free(&wire.pool, end.reserved)
        end.reserved = NULL
    parcels_free(&wire.pool, &end.queued)
    end.queued_frames = 0
    while end.used > 0:
        parcel_free(&wire.pool, end.arrived[end.head])
        end.head = (end.head + 1) % end.rx_slots
        end.used -= 1
    end.lent = 0


cdef void sim_wire_drain(sim_wire_t *wire) noexcept nogil:
    cdef uint32_t i
    for i in range(2):
        arrivals_free(&wire.directions[i].in_flight, &wire.pool)


cdef uint64_t sim_wire_free(sim_wire_t *wire) noexcept nogil:
    cdef uint64_t leaked
    cdef uint32_t i
    sim_wire_drain(wire)
    leaked = wire.pool.live
    pool_empty(&wire.pool)
    for i in range(2):
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
