# SPDX-License-Identifier: MIT
"""A simulated network: two links joined by a wire in memory, with a manual clock and seeded impairments.

    with SimNetwork(seed=7, delay_ns=10_000_000, loss=0.01) as network:
        client = Stack(network.a, "198.18.0.1/24", seed=1, now_ns=0)
        server = Stack(network.b, "198.18.0.2/24", seed=2, now_ns=0)

Time is what network.advance() or a polled stack (link.now_ns) said last, whichever is later; nothing here reads a clock
and wait() returns at once. An end without a stack is driven with inject() and receive(). One thread at a time is inside
both ends (their stacks, inject(), receive(), advance()); another one gets an OwnershipError.

Below: sim_end (an end as a link), simwire (the way), impairment (what happens on it). Above: stacks, the test kit.
"""

from libc.stdint cimport UINT64_MAX, uint64_t

from ustack.link.impairment cimport impairment_check, impairment_set
from ustack.link.sim_end cimport SimLink
from ustack.link.simwire cimport SIM_PACKET_MAX, SimWire, sim_advance, sim_direction_t, sim_next_ns, sim_wire_drain

cdef tuple IMPAIRMENTS = (
    "delay_ns", "rate_bps", "queue_frames", "mark_bytes", "loss", "reorder", "duplicate", "corrupt", "reorder_ns",
    "path_mtu")


cdef class SimNetwork:
    """SimNetwork(seed=0, *, mtu=1500, delay_ns=0, rate_bps=0, queue_frames=1000, mark_bytes=0, loss=0.0, reorder=0.0,
duplicate=0.0, corrupt=0.0, reorder_ns=5000000, path_mtu=0,
checksum_offload=False, segmentation_offload=False, now_ns=0, rx_slots=4096,
tx_slots=1024)
--

    Two links, `a` and `b`, and the wire between them.

    Every impairment is a number for both directions or a pair (a to b, b to a); impair() changes it later.

    delay_ns: propagation. rate_bps: serialisation, 0 takes no time. queue_frames: frames that may wait for the wire
    when it has a rate; later ones are dropped. mark_bytes: IPv4 packets that find more than this waiting, and say that
    their transport knows ECN, are marked Congestion Experienced; a super-frame whole; 0 marks none. loss, reorder,
    duplicate, corrupt: probabilities of one frame. A reordered frame is held back for 1 to reorder_ns more. A corrupted
    one has one bit flipped, anywhere.
    path_mtu: bytes of the largest IP packet that arrives; what is longer vanishes, and nobody is told (0: none does).
    checksum_offload, segmentation_offload (which implies the first): capabilities of both ends; super-frames are
    delivered whole. rx_slots: frames that an end holds for its reader. tx_slots: frames between two submits.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.wire = SimWire(0, SIM_PACKET_MAX, 1, 1, 0)      # without ends, for an object that nobody initialises

    def __init__(self, seed: int = 0, *, mtu: int = 1500, delay_ns: int | tuple[int, int] = 0,
                 rate_bps: int | tuple[int, int] = 0, queue_frames: int | tuple[int, int] = 1000,
                 mark_bytes: int | tuple[int, int] = 0, loss: float | tuple[float, float] = 0.0,
                 reorder: float | tuple[float, float] = 0.0, duplicate: float | tuple[float, float] = 0.0,
                 corrupt: float | tuple[float, float] = 0.0, reorder_ns: int | tuple[int, int] = 5_000_000,
                 path_mtu: int | tuple[int, int] = 0,
                 checksum_offload: bool = False, segmentation_offload: bool = False, now_ns: int = 0,
                 rx_slots: int = 4096, tx_slots: int = 1024) -> None:
        if not 68 <= mtu <= SIM_PACKET_MAX:
            raise ValueError(f"mtu {mtu}: must be 68 to {SIM_PACKET_MAX}")
        for name, value in (("rx_slots", rx_slots), ("tx_slots", tx_slots)):
            if not 1 <= value <= 1 << 20:
                raise ValueError(f"{name} {value}: must be 1 to {1 << 20}")
        if not 0 <= now_ns < 1 << 63:
            raise ValueError(f"now_ns {now_ns}: must be 0 to 2**63 - 1")
        checksum_offload = checksum_offload or segmentation_offload
        self.wire = SimWire(seed & 0xFFFFFFFFFFFFFFFF, mtu, rx_slots, tx_slots, now_ns)
        self.a = SimLink(self.wire, 0, checksum_offload=checksum_offload, segmentation_offload=segmentation_offload)
        self.b = SimLink(self.wire, 1, checksum_offload=checksum_offload, segmentation_offload=segmentation_offload)
        self.impair(delay_ns=delay_ns, rate_bps=rate_bps, queue_frames=queue_frames, mark_bytes=mark_bytes, loss=loss,
                    reorder=reorder, duplicate=duplicate, corrupt=corrupt, reorder_ns=reorder_ns,
                    path_mtu=path_mtu)

    def impair(self, **impairments: object) -> None:
        """Change impairments from now on, by the constructor's names; frames on their way are not touched."""
        checked = []
        for name, value in impairments.items():
            pair = value if isinstance(value, tuple) else (value, value)
            if len(pair) != 2:
                raise ValueError(f"{name} {value!r}: must be a number or a pair (a to b, b to a)")
            checked.append((name, impairment_check(IMPAIRMENTS, name, pair[0]),
                            impairment_check(IMPAIRMENTS, name, pair[1])))
        self.wire.gate.check("SimNetwork.impair()")
        for name, ab, ba in checked:
            impairment_set(&self.wire.c.directions[0].impairment, name, ab)
            impairment_set(&self.wire.c.directions[1].impairment, name, ba)

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
        return self.wire.c.pool.live

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


cdef dict stats_of(const sim_direction_t *direction):
    return {
        "sent": direction.stats.sent, "delivered": direction.stats.delivered, "filtered": direction.stats.filtered,
        "queue_dropped": direction.stats.queue_dropped, "lost": direction.stats.lost,
        "beyond_mtu": direction.stats.beyond_mtu, "reordered": direction.stats.reordered,
        "duplicated": direction.stats.duplicated, "corrupted": direction.stats.corrupted,
        "ring_dropped": direction.stats.ring_dropped, "marked": direction.stats.marked,
        "no_memory": direction.stats.no_memory,
    }
