# SPDX-License-Identifier: MIT
"""One direction of a wire. The contract and the picture: direction.pxd."""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.bridge.packets cimport (
    cutter_begin, cutter_length, cutter_step, cutter_t, cutter_write, packet_complete, packet_mark)
from ustack.bridge.store cimport (
    flight_data, flight_t, store_allocate, store_append, store_drop_first, store_first, store_free, store_t)
from ustack.buf.frame cimport frame_t
from ustack.link.device cimport link_t
from ustack.link.impairment cimport (
    fate_t, impairment_admit, impairment_carries, impairment_decide, impairment_free, impairment_init,
    impairment_lateness)
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, VLAN_TAG_BYTES

cdef enum:
    # A turn of one direction is to stay short, for the other's sake: some 2 us for each packet that is given, most of
    # them the receiving kernel's, and 45 packets in a super-frame.
    RX_BURST = 8
    RX_PACKETS = 128                    # after so many no further burst: as many come in as can go out
    TX_BURST = 128
    TX_BATCH = 32                       # packets for one system call


cdef int direction_init(direction_t *direction, link_t *from_link, link_t *to_link, uint64_t seed,
                        size_t memory_bytes) noexcept nogil:
    memset(direction, 0, sizeof(direction_t))
    direction.from_link = from_link
    direction.to_link = to_link
    impairment_init(&direction.impairment, seed)
    if store_allocate(&direction.on_time, memory_bytes) < 0 or store_allocate(&direction.late, memory_bytes) < 0:
        return -1
    return 0


cdef void direction_free(direction_t *direction) noexcept nogil:
    store_free(&direction.on_time)
    store_free(&direction.late)
    impairment_free(&direction.impairment)


# ---------------------------------------------------------------- in
cdef void carry(direction_t *direction, const cutter_t *cutter, uint32_t length, uint64_t now_ns) noexcept nogil:
    """One packet: decide, and keep it if it is to arrive."""
    cdef direction_counters_t *counters = &direction.counters
    cdef store_t *store = &direction.on_time
    cdef flight_t *flight
    cdef fate_t fate
    counters.packets += 1
    counters.bytes += length
    if (length > direction.to_link.caps.mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES
            or length > direction.to_link.caps.max_frame):
        counters.too_long += 1
        return
    impairment_decide(&direction.impairment, &fate)
    if not impairment_admit(&direction.impairment, length, now_ns, &fate):
        counters.queue_dropped += 1
        return
    fate.due_ns += fate.jitter_ns
    if fate.lost:
        counters.lost += 1
        return
    if not impairment_carries(&direction.impairment, length):
        counters.beyond_mtu += 1
        return
    if fate.reordered:
        counters.reordered += 1
        store = &direction.late
        fate.due_ns += impairment_lateness(&direction.impairment)
    flight = store_append(store, length, fate.due_ns)
    if flight == NULL:
        counters.no_room += 1
        return
    cutter_write(cutter, flight_data(flight), &flight.offload)
    if fate.marked and packet_mark(cutter, flight_data(flight)):
        counters.marked += 1
    if not direction.to_link.caps.tx_checksum:
        packet_complete(flight_data(flight), length, &flight.offload)
    if fate.duplicated:
        counters.duplicated += 1
        flight.copies += 1


cdef uint32_t receive_burst(direction_t *direction, uint64_t now_ns) noexcept nogil:
    cdef frame_t frames[RX_BURST]
    cdef cutter_t cutter
    cdef uint32_t n, i, length
    n = direction.from_link.ops.rx_burst(direction.from_link, frames, RX_BURST)
    for i in range(n):
        direction.counters.frames += 1
        direction.counters.super_frames += frames[i].gso_size != 0
        if not cutter_begin(&cutter, &frames[i]):
            direction.counters.unreadable += 1
            continue
        length = cutter_length(&cutter)
        while length > 0:
            carry(direction, &cutter, length, now_ns)
            cutter_step(&cutter)
            length = cutter_length(&cutter)
    if n > 0:
        direction.from_link.ops.rx_release(direction.from_link, n)
    return n


cdef uint32_t direction_receive(direction_t *direction, uint64_t now_ns) noexcept nogil:
    cdef uint64_t packets = direction.counters.packets
    cdef uint32_t n = RX_BURST, received = 0
    while n == RX_BURST and received < RX_PACKETS and direction.counters.packets - packets < RX_PACKETS:
        n = receive_burst(direction, now_ns)
        received += n
    return received


# ---------------------------------------------------------------- out
cdef inline store_t *next_store(direction_t *direction) noexcept nogil:
    """Whose first packet arrives before the other's; on_time where they arrive at once. NULL: none travels."""
    cdef flight_t *on_time = store_first(&direction.on_time)
    cdef flight_t *late = store_first(&direction.late)
    if late == NULL:
        return &direction.on_time if on_time != NULL else NULL
    return &direction.on_time if on_time != NULL and on_time.due_ns <= late.due_ns else &direction.late


cdef uint64_t direction_next_ns(direction_t *direction) noexcept nogil:
    cdef store_t *store = next_store(direction)
    return store_first(store).due_ns if store != NULL else UINT64_MAX


cdef bint give(direction_t *direction, flight_t *flight, uint64_t now_ns) noexcept nogil:
    """False: the link has no slot now."""
    cdef link_t *link = direction.to_link
    cdef uint8_t *slot = link.ops.tx_reserve(link, flight.length)
    if slot == NULL:
        return False
    memcpy(slot, flight_data(flight), flight.length)
    link.ops.tx_commit(link, flight.length, &flight.offload)
    direction.counters.forwarded += 1
    direction.counters.forwarded_bytes += flight.length
    direction.counters.behind_ns += now_ns - flight.due_ns
    direction.counters.behind_most_ns = max(direction.counters.behind_most_ns, now_ns - flight.due_ns)
    return True


cdef int direction_send(direction_t *direction, uint64_t now_ns) noexcept nogil:
    cdef link_t *link = direction.to_link
    cdef store_t *store
    cdef flight_t *flight
    cdef uint32_t given = 0
    cdef int status = 0
    while given < TX_BURST:
        store = next_store(direction)
        if store == NULL:
            break
        flight = store_first(store)
        if flight.due_ns > now_ns:
            break
        if not give(direction, flight, now_ns):
            status = link.ops.tx_submit(link)
            if status < 0 or not give(direction, flight, now_ns):
                break
        given += 1
        flight.copies -= 1
        if flight.copies == 0:
            store_drop_first(store)
        if given % TX_BATCH == 0:
            status = link.ops.tx_submit(link)
            if status < 0:
                break
    return status if status < 0 else link.ops.tx_submit(link)
