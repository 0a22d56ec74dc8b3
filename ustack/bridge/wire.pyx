# SPDX-License-Identifier: MIT
"""A wire between two links: what a path does to packets, for real stacks at its ends.

    with lab_a.inside():
        a = PacketMmapLink(lab_a.ifname, busy_poll="never")
    with lab_b.inside():
        b = PacketMmapLink(lab_b.ifname, busy_poll="never")
    with a, b, Wire(a, b, rate_bps=100_000_000, delay_ns=10_000_000, queue_bytes=250_000, loss=0.01, seed=7) as wire:
        wire.run(60_000_000_000)

Packets are due at times that follow from one another (rate) and from when they came in (delay), not from when the
thread ran: a turn that comes late delivers late, and loses no capacity.

It must not: know what is in a packet beyond what cutting and marking need. One thread is in run() or turn(); stop() and
counters() are for any. Above: cli, tools. Below: direction, the link contract.
"""

import os

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.clock cimport clock_monotonic_ns
from ustack.bridge.direction cimport (
    direction_free, direction_init, direction_next_ns, direction_receive, direction_send, direction_t)
from ustack.link.device cimport Link, link_t
from ustack.link.gate cimport Gate
from ustack.link.impairment cimport impairment_check, impairment_set
from ustack.link.interface cimport sleep_on
from ustack.link.use cimport link_use
from ustack.link.packet_abi cimport relax

cdef enum:
    SLICE_NS = 20000000                 # signals, and links that are gone, are noticed so often
    BATCH_NS = 50000                    # a sleep and its end cost some 10 us: not for each of packets 12 us apart
    SPIN_CHECKS = 16
    MEMORY_MIN = 1 << 22
    MEMORY_MAX = 1 << 30
    MEMORY_WITHOUT_RATE = 1 << 26
    PACKET_BYTES = 1514

cdef tuple IMPAIRMENTS = (
    "delay_ns", "jitter_ns", "rate_bps", "queue_bytes", "queue_frames", "mark_bytes", "loss", "reorder", "reorder_ns",
    "duplicate", "path_mtu")


# ---------------------------------------------------------------- the loop
cdef int wire_turn(wire_t *wire, uint64_t now_ns, bint *moved) noexcept nogil:
    """Each direction once. Returns 0, or -errno when a device is gone."""
    cdef direction_t *direction
    cdef uint32_t received
    cdef int i, status, error = 0
    moved[0] = False
    for i in range(2):
        direction = &wire.directions[i]
        direction.from_link.now_ns = now_ns
        received = direction_receive(direction, now_ns)
        status = direction_send(direction, now_ns)
        if status < 0:
            error = status
        if received > 0:
            moved[0] = True
    return error


cdef uint64_t wire_next_ns(wire_t *wire) noexcept nogil:
    cdef uint64_t a_ns = direction_next_ns(&wire.directions[0])
    cdef uint64_t b_ns = direction_next_ns(&wire.directions[1])
    return a_ns if a_ns < b_ns else b_ns


cdef inline uint64_t given_to_both(const wire_t *wire) noexcept nogil:
    return wire.directions[0].counters.forwarded + wire.directions[1].counters.forwarded


cdef int wire_pause(wire_t *wire, uint64_t now_ns, uint64_t next_ns, bint frames_are_dense) noexcept nogil:
    """Sleep until the next packet is due or a frame comes. Whoever sends to a sleeper pays for waking it: where frames
    come at shorter intervals than a batch is long, none wakes it, and they are taken in together."""
    cdef link_t *a = wire.directions[0].from_link
    cdef short revents
    wire.sleeps += 1
    if frames_are_dense:
        return sleep_on(-1, 0, min(next_ns, now_ns + wire.batch_ns), &revents)
    return a.ops.wait(a, next_ns)                       # its wake_fd tells of b's frames, and of stop()


cdef int wire_run(wire_t *wire, uint64_t until_ns) noexcept nogil:
    cdef link_t *b = wire.directions[1].from_link
    cdef uint64_t now_ns = clock_monotonic_ns()
    cdef uint64_t next_ns, spun_since_ns = now_ns, given_ns = 0, given = given_to_both(wire)
    cdef uint64_t woke_ns = 0                           # when the sleep before this turn ended; 0: there was none
    cdef uint64_t frames_ns = 0                         # when the last sleep ended after which there were frames
    cdef bint moved, frames_are_dense = False
    cdef int status, _check
    while now_ns < until_ns and not wire.stopping:
        status = wire_turn(wire, now_ns, &moved)
        if status < 0:
            return status
        if woke_ns != 0:
            frames_are_dense = moved and woke_ns - frames_ns < 2 * wire.batch_ns
            if moved:
                frames_ns = woke_ns
            woke_ns = 0
        if given_to_both(wire) != given:
            given = given_to_both(wire)
            given_ns = now_ns
        if moved:
            spun_since_ns = now_ns = clock_monotonic_ns()
            continue
        next_ns = min(wire_next_ns(wire), until_ns)
        now_ns = clock_monotonic_ns()
        if next_ns <= now_ns or now_ns - spun_since_ns < wire.spin_ns:
            for _check in range(SPIN_CHECKS):
                relax()
            now_ns = clock_monotonic_ns()
            continue
        status = wire_pause(wire, now_ns, max(next_ns, given_ns + wire.batch_ns), frames_are_dense)
        if status < 0:
            return status
        woke_ns = now_ns = clock_monotonic_ns()
    return b.ops.wait(b, 0)                             # which it asks how it is


# ---------------------------------------------------------------- Python face
cdef class Wire:
    """Wire(a, b, *, seed=0, delay_ns=0, jitter_ns=0, rate_bps=0, queue_bytes=None, queue_frames=None, mark_bytes=0,
loss=0.0, reorder=0.0, reorder_ns=5000000, duplicate=0.0, path_mtu=0, memory_bytes=None, spin_ns=0, batch_ns=50000)
--

    A wire from link a to link b and back. It uses both links, and leaves them open.

    Every impairment is a number for both directions or a pair (a to b, b to a); impair() changes it later.

    rate_bps: serialisation of each packet, Ethernet header included; 0 takes no time, and nothing queues. queue_bytes,
    queue_frames: what may wait for the wire when it has a rate, the packet on it included; later ones are dropped.
    Without either, 1,000 packets. mark_bytes: packets that find more than this waiting, and can say so, are marked
    Congestion Experienced; 0: none is. delay_ns: propagation. jitter_ns: up to so much more, order kept. loss, reorder,
    duplicate: probabilities of one packet; a reordered one arrives reorder_ns later. path_mtu: bytes of the largest IP
    packet that arrives; what is longer vanishes, and nobody is told (0: none does).

    seed: the n-th packet of a direction is lost, late and doubled as the seed says, whatever happens to others.
    memory_bytes: for packets on their way, for each direction and twice with reordering; by default what rate, delay
    and queue need. A packet that finds no room is dropped and counted. spin_ns: how long run() goes on looking for
    packets before it sleeps. batch_ns: it sleeps at least for so long after it gave one, so that packets which are due
    at shorter intervals leave together; one that is due alone is not held up. Frames that come at shorter intervals
    are taken in together, too, so much later at most.

    Raises ValueError for a bad argument, and for links that are closed or in use.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.c, 0, sizeof(wire_t))
        self.gate = Gate()
        self.closed = True

    def __init__(self, Link a not None, Link b not None, *, seed: int = 0, memory_bytes: int | None = None,
                 spin_ns: int = 0, batch_ns: int = BATCH_NS, **impairments: object) -> None:
        if self.a is not None:
            raise ValueError("a wire is made once")
        for name, value in (("spin_ns", spin_ns), ("batch_ns", batch_ns)):
            if not 0 <= value <= SLICE_NS:
                raise ValueError(f"{name} {value}: must be 0 to {SLICE_NS}")
        checked = check_all(impairments)
        needed = [memory_for({name: pair[i] for name, pair in checked.items()}) for i in range(2)]
        if memory_bytes is not None:
            if not 1 <= memory_bytes <= MEMORY_MAX:
                raise ValueError(f"memory_bytes {memory_bytes}: must be 1 to {MEMORY_MAX}")
            needed = [memory_bytes, memory_bytes]
        self.a_use = link_use(a)
        self.b_use = link_use(b)
        self.c.spin_ns = spin_ns
        self.c.batch_ns = batch_ns
        if (direction_init(&self.c.directions[0], &a.c, &b.c, <uint64_t>(2 * seed & 0xFFFFFFFFFFFFFFFF), needed[0]) < 0
                or direction_init(&self.c.directions[1], &b.c, &a.c, <uint64_t>((2 * seed + 1) & 0xFFFFFFFFFFFFFFFF),
                                  needed[1]) < 0):
            raise MemoryError
        self.a = a
        self.b = b
        self.wake = _Wake(a, b)
        self.closed = False
        self.set_all(checked)

    def __dealloc__(self) -> None:
        direction_free(&self.c.directions[0])
        direction_free(&self.c.directions[1])

    cdef int enter(self, str call) except -1:
        if self.closed:
            raise ValueError("the wire is closed")
        self.gate.enter(call)
        try:
            self.a.gate.enter(call)
            if self.b.gate is not self.a.gate:
                try:
                    self.b.gate.enter(call)
                except BaseException:
                    self.a.gate.leave()
                    raise
        except BaseException:
            self.gate.leave()
            raise
        return 0

    cdef void leave(self) noexcept:
        if self.b.gate is not self.a.gate:
            self.b.gate.leave()
        self.a.gate.leave()
        self.gate.leave()

    def impair(self, **impairments: object) -> None:
        """Change impairments from now on, by the constructor's names; packets on their way are not touched."""
        checked = check_all(impairments)
        self.gate.check("Wire.impair()")
        self.set_all(checked)

    cdef int set_all(self, dict checked) except -1:
        for name, pair in checked.items():
            for i in range(2):
                impairment_set(&self.c.directions[i].impairment, name, pair[i])
                if name == "reorder_ns":
                    self.c.directions[i].impairment.reorder_least_ns = pair[i]
        return 0

    def turn(self, now_ns: int) -> int | None:
        """Take in one burst of each link and give what is due, at a time of the caller's: for simulations.

        Returns when the next packet arrives; None: none is on its way. Raises OSError when a link is gone.
        """
        cdef uint64_t at_ns = now_ns
        cdef uint64_t next_ns
        cdef bint moved
        cdef int status
        self.enter("Wire.turn()")
        try:
            with nogil:
                status = wire_turn(&self.c, at_ns, &moved)
                next_ns = wire_next_ns(&self.c)
        finally:
            self.leave()
        self.raise_for(status)
        return None if next_ns == UINT64_MAX else next_ns

    def run(self, duration_ns: int | None = None) -> None:
        """Move packets until stop(), for duration_ns, or until a signal handler raises.

        Raises OSError when a link is gone.
        """
        cdef uint64_t until_ns = (UINT64_MAX if duration_ns is None
                                  else clock_monotonic_ns() + <uint64_t>max(duration_ns, 0))
        cdef uint64_t slice_ns
        cdef int status = 0
        self.enter("Wire.run()")
        a_wakes, b_wakes = self.a.c.wake_fd, self.b.c.wake_fd
        a_spins, b_spins = self.a.c.spin_ns, self.b.c.spin_ns
        try:
            self.a.c.spin_ns = self.b.c.spin_ns = 0         # the loop spins for both
            self.a.c.wake_fd = self.wake.fileno()
            while not self.c.stopping and status == 0:
                slice_ns = min(until_ns, clock_monotonic_ns() + <uint64_t>SLICE_NS)
                with nogil:
                    status = wire_run(&self.c, slice_ns)
                self.a.raise_parked()
                self.b.raise_parked()
                PyErr_CheckSignals()
                if clock_monotonic_ns() >= until_ns:
                    break
        finally:
            self.c.stopping = False
            self.a.c.wake_fd, self.b.c.wake_fd = a_wakes, b_wakes
            self.a.c.spin_ns, self.b.c.spin_ns = a_spins, b_spins
            self.wake.clear()
            self.leave()
        self.raise_for(status)

    def stop(self) -> None:
        """End run(), or the next one; from any thread, and from a signal handler."""
        self.c.stopping = True
        if self.wake is not None:
            self.wake.set()

    cdef int raise_for(self, int status) except -1:
        if status < 0:
            raise OSError(-status, f"an end of the wire: {os.strerror(-status)}")
        return 0

    def counters(self) -> dict[str, dict[str, int]]:
        """What became of the packets, since the beginning: {"forward": {...}, "backward": {...}}, a to b and b to a.

        The names are those of direction_counters_t. travelling: packets on their way now. queue_most_bytes,
        queue_most_frames: what waited for the wire at most. memory_most_bytes: in use for packets on their way, at
        most. ring_dropped: frames that the link of origin lost before they were taken in.
        """
        return {"forward": counters_of(&self.c.directions[0]), "backward": counters_of(&self.c.directions[1])}

    @property
    def sleeps(self) -> int:
        """How often run() has slept."""
        return self.c.sleeps

    def close(self) -> None:
        """Drop what is on its way and let the links go; they stay open. Counters stay readable."""
        if self.closed:
            return
        self.gate.check("Wire.close()")
        for link in (self.a, self.b):
            link.counters()                                 # the last drops of the rings
        self.closed = True
        self.a_use = self.b_use = None
        self.wake.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Wake:
    """One descriptor that can be read when link b has a frame, or stop() was called."""

    def __init__(self, a: Link, b: Link) -> None:
        import select

        self._event = self._poll = None
        try:
            watched = b.fileno()
            a.fileno()
        except OSError:
            return                                          # links in memory: nothing ever sleeps
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._event, select.EPOLLIN)
        self._poll.register(watched, select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor to sleep on; -1: none."""
        return -1 if self._poll is None else self._poll.fileno()

    def set(self) -> None:
        """Make it readable."""
        if self._event is not None:
            os.eventfd_write(self._event, 1)

    def clear(self) -> None:
        """Take back what set() did."""
        if self._event is not None:
            try:
                os.eventfd_read(self._event)
            except BlockingIOError:
                pass

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptors back."""
        if self._event is not None:
            self._poll.close()
            os.close(self._event)
            self._event = self._poll = None


cdef dict check_all(dict impairments):
    """Each impairment as a checked pair; queue_frames follows from queue_bytes where only that is given."""
    checked = {}
    for name, value in impairments.items():
        if value is None and name in ("queue_bytes", "queue_frames"):
            continue
        pair = value if isinstance(value, tuple) else (value, value)
        if len(pair) != 2:
            raise ValueError(f"{name} {value!r}: must be a number or a pair (a to b, b to a)")
        checked[name] = tuple(impairment_check(IMPAIRMENTS, name, one) for one in pair)
    if "queue_bytes" in checked and "queue_frames" not in checked:
        # So many of the shortest frames: bytes alone decide.
        checked["queue_frames"] = tuple(min(max(limit // 14, 1), 1 << 24) for limit in checked["queue_bytes"])
    return checked


cdef object memory_for(dict impairments):
    """Bytes that hold a direction's packets on their way, with as much again for the records of small ones."""
    rate_bps = impairments.get("rate_bps", 0)
    if rate_bps == 0:
        return MEMORY_WITHOUT_RATE
    travel_ns = sum(impairments.get(name, 0) for name in ("delay_ns", "jitter_ns", "reorder_ns"))
    queue = impairments.get("queue_bytes", impairments.get("queue_frames", 1000) * PACKET_BYTES)
    return max(MEMORY_MIN, min(MEMORY_MAX, 2 * (rate_bps * travel_ns // 8_000_000_000 + queue)))


cdef dict counters_of(const direction_t *direction):
    counters = <dict>direction.counters
    counters["travelling"] = direction.on_time.count + direction.late.count
    counters["queue_most_bytes"] = direction.impairment.most_waiting_bytes
    counters["queue_most_frames"] = direction.impairment.most_waiting_frames
    counters["memory_most_bytes"] = direction.on_time.most_bytes + direction.late.most_bytes
    counters["ring_dropped"] = direction.from_link.counters.rx_dropped
    return counters
