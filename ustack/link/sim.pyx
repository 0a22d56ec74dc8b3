# SPDX-License-Identifier: MIT
"""A simulated network: two links joined by a wire in memory, with a manual clock and seeded impairments.

    with SimNetwork(seed=7, delay_ns=10_000_000, loss=0.01) as network:
        client = Stack(network.a, "198.18.0.1/24", seed=1, now_ns=0)
        server = Stack(network.b, "198.18.0.2/24", seed=2, now_ns=0)

Time is what network.advance() or a polled stack (link.now_ns) said last, whichever is later; nothing here reads a clock
and wait() returns at once. An end without a stack is driven with inject() and receive(). One thread at a time is inside
both ends (their stacks, inject(), receive(), advance()); another one gets an OwnershipError.

Below: simwire (what happens on the way), device (the contract). Above: stacks, the test kit.
"""

from errno import EBADF
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ustack.base.debug cimport ensure
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, device_accepts, link_ops_t, link_t, offload_t
from ustack.link.simwire cimport (
    SIM_FRAME_MAX, SimWire, sim_advance, sim_direction_t, sim_end_close, sim_end_t, sim_frame_data, sim_frame_free,
    sim_frame_new, sim_frame_t, sim_next_ns, sim_queue_resize, sim_send, sim_wire_drain)
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES

cdef enum:
    IP_PACKET_MAX = 65535               # a super-frame is still one IP packet

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
    cdef sim_frame_t *frame
    cdef uint32_t n = 0
    sim_advance(end.wire, link.now_ns)
    while n < max_frames and end.lent < end.used:
        frame = end.arrived[(end.head + end.lent) % end.rx_slots]
        frames[n].data = sim_frame_data(frame)
        frames[n].length = frame.length
        frames[n].wire_length = frame.wire_length
        frames[n].gso_size = frame.gso_size
        frames[n].vlan_id = 0
        frames[n].checksum = frame.checksum
        count_received(link, frame)
        end.lent += 1
        n += 1
    return n


cdef inline void count_received(link_t *link, sim_frame_t *frame) noexcept nogil:
    link.counters.rx_frames += 1
    link.counters.rx_bytes += frame.length
    if frame.wire_length > frame.length:
        link.counters.rx_truncated += 1


cdef void sim_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    ensure(n <= end.lent)
    while n > 0 and end.lent > 0:
        sim_frame_free(end.wire, end.arrived[end.head])
        end.head = (end.head + 1) % end.rx_slots
        end.used -= 1
        end.lent -= 1
        n -= 1


cdef uint8_t *sim_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    ensure(length <= link.caps.max_frame)
    if end.queued == end.tx_slots or length > link.caps.max_frame:
        return NULL
    if end.reserved != NULL:
        if end.reserved.capacity >= length:
            end.reserved.length = length
            return sim_frame_data(end.reserved)
        sim_frame_free(end.wire, end.reserved)
    end.reserved = sim_frame_new(end.wire, length)
    return sim_frame_data(end.reserved) if end.reserved != NULL else NULL


cdef void sim_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    cdef sim_frame_t *frame = end.reserved
    ensure(frame != NULL and length <= frame.length)
    if frame == NULL or length > frame.length:
        return
    end.reserved = NULL
    if not device_accepts(&link.caps, length, offload):
        link.counters.tx_dropped += 1
        sim_frame_free(end.wire, frame)
        return
    frame.length = length
    frame.wire_length = length
    frame.gso_size = offload.gso_size
    frame.checksum = CHECKSUM_PARTIAL if offload.csum_start != 0 else CHECKSUM_UNKNOWN
    if end.queued_last == NULL:
        end.queued_first = frame
    else:
        end.queued_last.next = frame
    end.queued_last = frame
    end.queued += 1


cdef int sim_tx_submit(link_t *link) noexcept nogil:
    cdef sim_end_t *end = end_of(link)
    cdef sim_frame_t *frame
    sim_advance(end.wire, link.now_ns)
    if end.queued_first == NULL:
        return 0
    link.counters.tx_submits += 1
    while end.queued_first != NULL:
        frame = end.queued_first
        end.queued_first = frame.next
        link.counters.tx_frames += 1
        link.counters.tx_bytes += frame.length
        sim_send(end, frame)
    end.queued_last = NULL
    end.queued = 0
    return 0


cdef int sim_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    return 0                            # a manual clock does not go on by waiting


cdef void sim_refresh_counters(link_t *link) noexcept nogil:
    return


cdef link_ops_t SIM_OPS
SIM_OPS.rx_burst = sim_rx_burst
SIM_OPS.rx_release = sim_rx_release
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
        self.c.caps.max_frame = ETHERNET_HEADER_BYTES + (IP_PACKET_MAX if segmentation_offload else wire.c.mtu)
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
        cdef sim_frame_t *record
        octets = bytes(frame)
        length = PyBytes_GET_SIZE(octets)
        if length > SIM_FRAME_MAX:
            raise ValueError(f"a frame of {length} bytes: at most {SIM_FRAME_MAX} are possible")
        if not 0 <= gso_size <= 65535:
            raise ValueError(f"gso_size {gso_size}: must be 0 to 65535")
        if wire_length < length:
            raise ValueError(f"wire_length {wire_length}: must not be less than the frame's {length}")
        record = sim_frame_new(self.wire.c, <uint32_t>length)
        if record == NULL:
            raise MemoryError
        memcpy(sim_frame_data(record), PyBytes_AS_STRING(octets), length)
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
        cdef sim_frame_t *record
        cdef sim_frame_t taken
        cdef bytes data
        self.require_open()
        self.gate.check("SimLink.receive()")
        self.wire.raise_parked()
        if self.end.lent > 0:
            raise RuntimeError("frames of this end are lent to a stack")
        if self.end.used == 0:
            return None
        record = self.end.arrived[self.end.head]
        data = PyBytes_FromStringAndSize(<char *>sim_frame_data(record), record.length)
        taken = record[0]
        count_received(&self.c, record)
        self.end.lent = 1
        sim_rx_release(&self.c, 1)
        # Making the tuple may run other Python (a collection, a profiler, another thread): the end is whole by then.
        return SimFrame(data, CHECKSUM_NAMES[taken.checksum], taken.gso_size, taken.wire_length, taken.due_ns)

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


cdef class SimNetwork:
    """SimNetwork(seed=0, *, mtu=1500, delay_ns=0, rate_bps=0, queue_frames=1000, loss=0.0, reorder=0.0,
duplicate=0.0, corrupt=0.0, reorder_ns=5000000, checksum_offload=False,
segmentation_offload=False, now_ns=0, rx_slots=4096, tx_slots=1024)
--

    Two links, `a` and `b`, and the wire between them.

    Every impairment is a number for both directions or a pair (a to b, b to a); impair() changes it later.

    delay_ns: propagation. rate_bps: serialisation, 0 takes no time. queue_frames: frames that may wait for the wire
    when it has a rate; later ones are dropped. loss, reorder, duplicate, corrupt: probabilities of one frame. A
    reordered frame is held back for 1 to reorder_ns more. A corrupted one has one bit flipped, anywhere.
    checksum_offload, segmentation_offload (which implies the first): capabilities of both ends; super-frames are
    delivered whole. rx_slots: frames that an end holds for its reader. tx_slots: frames between two submits.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.wire = SimWire(0, IP_PACKET_MAX, 1, 1, 0)      # without ends, for an object that nobody initialises

    def __init__(self, seed: int = 0, *, mtu: int = 1500, delay_ns: int | tuple[int, int] = 0,
                 rate_bps: int | tuple[int, int] = 0, queue_frames: int | tuple[int, int] = 1000,
                 loss: float | tuple[float, float] = 0.0, reorder: float | tuple[float, float] = 0.0,
                 duplicate: float | tuple[float, float] = 0.0, corrupt: float | tuple[float, float] = 0.0,
                 reorder_ns: int | tuple[int, int] = 5_000_000, checksum_offload: bool = False,
                 segmentation_offload: bool = False, now_ns: int = 0, rx_slots: int = 4096,
                 tx_slots: int = 1024) -> None:
        if not 68 <= mtu <= IP_PACKET_MAX:
            raise ValueError(f"mtu {mtu}: must be 68 to {IP_PACKET_MAX}")
        for name, value in (("rx_slots", rx_slots), ("tx_slots", tx_slots)):
            if not 1 <= value <= 1 << 20:
                raise ValueError(f"{name} {value}: must be 1 to {1 << 20}")
        if not 0 <= now_ns < 1 << 63:
            raise ValueError(f"now_ns {now_ns}: must be 0 to 2**63 - 1")
        checksum_offload = checksum_offload or segmentation_offload
        self.wire = SimWire(seed & 0xFFFFFFFFFFFFFFFF, mtu, rx_slots, tx_slots, now_ns)
        self.a = SimLink(self.wire, 0, checksum_offload=checksum_offload, segmentation_offload=segmentation_offload)
        self.b = SimLink(self.wire, 1, checksum_offload=checksum_offload, segmentation_offload=segmentation_offload)
        self.impair(delay_ns=delay_ns, rate_bps=rate_bps, queue_frames=queue_frames, loss=loss, reorder=reorder,
                    duplicate=duplicate, corrupt=corrupt, reorder_ns=reorder_ns)

    def impair(self, **impairments: object) -> None:
        """Change impairments from now on, by the constructor's names; frames on their way are not touched."""
        checked = []
        for name, value in impairments.items():
            pair = value if isinstance(value, tuple) else (value, value)
            if len(pair) != 2:
                raise ValueError(f"{name} {value!r}: must be a number or a pair (a to b, b to a)")
            checked.append((name, check_impairment(name, pair[0]), check_impairment(name, pair[1])))
        self.wire.gate.check("SimNetwork.impair()")
        for name, ab, ba in checked:
            set_impairment(&self.wire.c.directions[0], name, ab)
            set_impairment(&self.wire.c.directions[1], name, ba)

    def advance(self, now_ns: int) -> None:
        """Move the clock to now_ns. Raises ValueError when it would go back, or what a filter has raised."""
        if now_ns < self.wire.c.now_ns:
            raise ValueError(f"now_ns {now_ns}: the clock is at {self.wire.c.now_ns} and never goes back")
        self.wire.gate.enter("SimNetwork.advance()")
        try:
            sim_advance(self.wire.c, now_ns)
        finally:
            self.wire.gate.leave()
        self.wire.raise_parked()

    @property
    def now_ns(self) -> int:
        """The latest time that advance() or a stack on one of the ends has given."""
        return self.wire.c.now_ns

    @property
    def next_event_ns(self) -> int | None:
        """When the next frame reaches an end; at or before now_ns while one waits to be taken; None: no frame."""
        cdef uint64_t a_ns = sim_next_ns(&self.wire.c.ends[0])
        cdef uint64_t b_ns = sim_next_ns(&self.wire.c.ends[1])
        cdef uint64_t first_ns = a_ns if a_ns < b_ns else b_ns
        return None if first_ns == UINT64_MAX else first_ns

    @property
    def filter_ab(self) -> object:
        """Callable(frame: bytes, index: int) for scripted loss from a to b, or None.

        index counts this direction's frames from 0. It returns None (pass), "drop", "duplicate", a delay in ns, or the
        bytes to send instead. What it raises is raised by the call that it runs in (advance(), inject(), a stack's
        poll() or run()); that frame is dropped. It must not use the network or its stacks: OwnershipError.
        """
        return self.wire.filter_ab

    @filter_ab.setter
    def filter_ab(self, hook: object) -> None:
        self.wire.filter_ab = hook
        self.wire.c.directions[0].filtered = hook is not None

    @property
    def filter_ba(self) -> object:
        """The same from b to a."""
        return self.wire.filter_ba

    @filter_ba.setter
    def filter_ba(self, hook: object) -> None:
        self.wire.filter_ba = hook
        self.wire.c.directions[1].filtered = hook is not None

    def stats(self) -> dict[str, dict[str, int]]:
        """What became of the frames: {"ab": {...}, "ba": {...}}."""
        return {"ab": stats_of(&self.wire.c.directions[0]), "ba": stats_of(&self.wire.c.directions[1])}

    @property
    def live_frames(self) -> int:
        """Frames that somebody owns: reserved, committed, in flight, arrived, lent. Zero after close()."""
        return self.wire.c.live

    def close(self) -> None:
        """Close both ends and drop what is in flight."""
        self.wire.gate.check("SimNetwork.close()")
        if self.b is not None:
            self.a.close()
            self.b.close()
        sim_wire_drain(self.wire.c)
        self.wire.raise_parked()

    def __enter__(self) -> SimNetwork:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


cdef object check_impairment(str name, object value):
    if name in ("loss", "reorder", "duplicate", "corrupt"):
        probability = float(value)
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"{name} {value!r}: must be a probability, 0.0 to 1.0")
        return probability
    if not isinstance(value, int):
        raise ValueError(f"{name} {value!r}: must be an integer")
    if name in ("delay_ns", "rate_bps"):
        lowest, highest = 0, 1 << 60
    elif name == "reorder_ns":
        lowest, highest = 1, 1 << 60
    elif name == "queue_frames":
        lowest, highest = 1, 1 << 24
    else:
        raise ValueError(f"no impairment is called {name!r}")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} {value}: must be {lowest} to {highest}")
    return value


cdef void set_impairment(sim_direction_t *direction, str name, object value) except *:
    if name == "loss":
        direction.loss = value
    elif name == "reorder":
        direction.reorder = value
    elif name == "duplicate":
        direction.duplicate = value
    elif name == "corrupt":
        direction.corrupt = value
    elif name == "delay_ns":
        direction.delay_ns = value
    elif name == "rate_bps":
        direction.rate_bps = value
    elif name == "reorder_ns":
        direction.reorder_ns = value
    elif sim_queue_resize(direction, value) < 0:
        raise MemoryError


cdef dict stats_of(const sim_direction_t *direction):
    return {
        "sent": direction.stats.sent, "delivered": direction.stats.delivered, "filtered": direction.stats.filtered,
        "queue_dropped": direction.stats.queue_dropped, "lost": direction.stats.lost,
        "reordered": direction.stats.reordered, "duplicated": direction.stats.duplicated,
        "corrupted": direction.stats.corrupted, "ring_dropped": direction.stats.ring_dropped,
        "no_memory": direction.stats.no_memory,
    }
