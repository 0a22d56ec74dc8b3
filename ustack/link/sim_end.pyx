# SPDX-License-Identifier: MIT
"""One end of a simulated network as a link: the operations, and inject() and receive() for an end without a stack.

wait() returns at once, because a manual clock does not go on by waiting. It must not read a clock. What happens to a
frame on its way is simwire's.

Below: simwire, parcels, device (the contract). Above: sim (both ends and their wire).
"""

from errno import EBADF
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ustack.base.debug cimport ensure
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, backlog_reaches, link_ops_t, link_t, offload_t
from ustack.link.parcels cimport (
    parcel_commit, parcel_data, parcel_free, parcel_lend, parcel_new, parcel_received, parcel_reserve, parcel_t,
    parcels_pop, parcels_push)
from ustack.link.simwire cimport (
    SIM_FRAME_MAX, SIM_PACKET_MAX, SimWire, sim_advance, sim_end_close, sim_end_t, sim_next_ns, sim_send)
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES

cdef dict CHECKSUMS = {"unknown": CHECKSUM_UNKNOWN, "verified": CHECKSUM_VERIFIED, "partial": CHECKSUM_PARTIAL}
cdef dict CHECKSUM_NAMES = {value: name for name, value in CHECKSUMS.items()}


class SimFrame(NamedTuple):
    """One frame that has arrived, with what the receiving device says about it."""

    data: bytes
    checksum: str
    gso_size: int
    wire_length: int
    due_ns: int


# ---------------------------------------------------------------- operations
cdef inline sim_end_t *end_of(link_t *link) noexcept nogil:
    return <sim_end_t *>link.impl


cdef uint32_t sim_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    cdef parcel_t *frame
    cdef uint32_t n = 0
    sim_advance(end.wire, link.now_ns)
    while n < max_frames and end.lent < end.used:
        frame = end.arrived[(end.head + end.lent) % end.rx_slots]
        parcel_lend(link, frame, &frames[n])
        end.lent += 1
        n += 1
    return n


cdef void sim_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    ensure(n <= end.lent)
    while n > 0 and end.lent > 0:
        parcel_free(&end.wire.pool, end.arrived[end.head])
        end.head = (end.head + 1) % end.rx_slots
        end.used -= 1
        end.lent -= 1
        n -= 1


cdef bint sim_rx_behind(link_t *link, uint32_t frames, bint still) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    return backlog_reaches(end.used - end.lent, end.rx_slots, frames, still)


cdef uint8_t *sim_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    if end.queued_frames == end.tx_slots:
        return NULL
    return parcel_reserve(&end.wire.pool, &end.reserved, link, length)


cdef void sim_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    cdef parcel_t *frame = parcel_commit(&end.wire.pool, &end.reserved, link, length, offload)
    if frame != NULL:
        parcels_push(&end.queued, frame)
        end.queued_frames += 1


cdef int sim_tx_submit(link_t *link) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    cdef parcel_t *frame
    sim_advance(end.wire, link.now_ns)
    frame = parcels_pop(&end.queued)
    if frame == NULL:
        return 0
    link.counters.tx_submits += 1
    while frame != NULL:
        link.counters.tx_frames += 1
        link.counters.tx_bytes += frame.length
        sim_send(end, frame)
        frame = parcels_pop(&end.queued)
    end.queued_frames = 0
    return 0


cdef int sim_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    return 0                            # a manual clock does not go on by waiting


cdef void sim_refresh_counters(link_t *link) noexcept nogil:
    return


cdef link_ops_t SIM_OPS
SIM_OPS.rx_burst = sim_rx_burst
SIM_OPS.rx_release = sim_rx_release
SIM_OPS.rx_behind = sim_rx_behind
SIM_OPS.tx_reserve = sim_tx_reserve
SIM_OPS.tx_commit = sim_tx_commit
SIM_OPS.tx_submit = sim_tx_submit
SIM_OPS.wait = sim_wait
SIM_OPS.refresh_counters = sim_refresh_counters


# ---------------------------------------------------------------- Python face
cdef class SimLink(Link):
    """One end of a SimNetwork; made by it alone."""

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.c.ops = closed_link_ops()

    def __init__(self, SimWire wire not None, uint8_t which, *, bint checksum_offload,
                 bint segmentation_offload) -> None:
        if self.wire is not None or which > 1 or wire.c.ends[which].link != NULL:
            raise ValueError("this end of the network is in use")
        self.wire = wire
        self.gate = wire.gate
        self.end = &wire.c.ends[which]
        self.end.link = &self.c
        self.c.impl = self.end
        self.c.caps.mtu = wire.c.mtu
        self.c.caps.max_frame = ETHERNET_HEADER_BYTES + (SIM_PACKET_MAX if segmentation_offload else wire.c.mtu)
        self.c.caps.tx_checksum = checksum_offload
        self.c.caps.tx_segmentation = segmentation_offload
        self.c.caps.rx_checksum = checksum_offload
        self.c.mac[0] = 0x02            # locally administered
        self.c.mac[5] = 0x0A + which
        self.c.ops = &SIM_OPS

    cpdef void close(self) except *:
        """Stop receiving and sending. Frames on their way here are dropped on arrival."""
        if not self.closed:
            self.gate.check("close()")
            self.closed = True
            self.c.ops = closed_link_ops()
            self.c.impl = NULL
            if self.end != NULL:
                sim_end_close(self.end)
                self.end = NULL

    cdef void take_frame(self, object frame, int checksum, int gso_size, int wire_length) except *:
        cdef Py_ssize_t length
        cdef parcel_t *record
        octets = bytes(frame)
        length = PyBytes_GET_SIZE(octets)
        if length > SIM_FRAME_MAX:
            raise ValueError(f"a frame of {length} bytes: at most {SIM_FRAME_MAX} are possible")
        if not 0 <= gso_size <= 65535:
            raise ValueError(f"gso_size {gso_size}: must be 0 to 65535")
        if wire_length < length:
            raise ValueError(f"wire_length {wire_length}: must not be less than the frame's {length}")
        record = parcel_new(&self.wire.c.pool, <uint32_t>length)
        if record == NULL:
            raise MemoryError
        memcpy(parcel_data(record), PyBytes_AS_STRING(octets), length)
        record.wire_length = wire_length
        record.gso_size = gso_size
        record.checksum = checksum
        self.c.counters.tx_frames += 1
        self.c.counters.tx_bytes += length
        sim_send(self.end, record)

    def inject(self, frame: bytes, *, checksum: str = "unknown", gso_size: int = 0,
               wire_length: int | None = None) -> None:
        """Send `frame` from this end at network.now_ns. Nothing about it is checked: it may be hostile.

        checksum, gso_size: what the receiving device will say. wire_length: larger than the frame for one that arrives
        truncated. Raises ValueError for what no device can say, OSError when this end is closed.
        """
        self.require_open()
        if checksum not in CHECKSUMS:
            raise ValueError(f"checksum {checksum!r}: must be one of {', '.join(CHECKSUMS)}")
        self.gate.enter("SimLink.inject()")
        try:
            self.take_frame(frame, CHECKSUMS[checksum], gso_size, len(frame) if wire_length is None else wire_length)
        finally:
            self.gate.leave()
        self.wire.raise_parked()

    def receive(self) -> bytes | None:
        """Take the next frame that has arrived here by network.now_ns; None when there is none."""
        frame = self.receive_frame()
        return None if frame is None else frame.data

    def receive_frame(self) -> SimFrame | None:
        """Take the next frame with its checksum status and gso size. Not while a stack holds a burst of this end."""
        cdef parcel_t *record
        cdef parcel_t taken
        cdef bytes data
        self.require_open()
        self.gate.check("SimLink.receive()")
        self.wire.raise_parked()
        if self.end.lent > 0:
            raise RuntimeError("frames of this end are lent to a stack")
        if self.end.used == 0:
            return None
        record = self.end.arrived[self.end.head]
        data = PyBytes_FromStringAndSize(<char *>parcel_data(record), record.length)
        taken = record[0]
        parcel_received(&self.c, record)
        self.end.lent = 1
        sim_rx_release(&self.c, 1)
        # Making the tuple may run other Python (a collection, a profiler, another thread): the end is whole by then.
        return SimFrame(data, CHECKSUM_NAMES[taken.checksum], taken.gso_size, taken.wire_length, taken.at_ns)

    def receive_all(self) -> list[bytes]:
        """Take every frame that has arrived here by network.now_ns."""
        frames = []
        while (frame := self.receive()) is not None:
            frames.append(frame)
        return frames

    @property
    def waiting(self) -> int:
        """Frames that have arrived here and have not been taken."""
        return 0 if self.end == NULL else self.end.used - self.end.lent

    @property
    def next_event_ns(self) -> int | None:
        """When the next frame is here (in the past if one waits); None when none is on its way."""
        cdef uint64_t due_ns = UINT64_MAX if self.end == NULL else sim_next_ns(self.end)
        return None if due_ns == UINT64_MAX else due_ns

    cdef void raise_parked(self) except *:
        if self.wire is not None:
            self.wire.raise_parked()

    cdef void require_open(self) except *:
        if self.end == NULL:
            raise OSError(EBADF, "the link is closed")
