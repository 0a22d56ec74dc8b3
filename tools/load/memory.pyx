# SPDX-License-Identifier: MIT
"""A load client and a server's stack in one process, joined by memory: no device, no privilege, one core.

    with MemoryWorld(server, seed=1) as world:
        client = LoadClient(world.SERVER, 80, [request], connections=64)
        world.run(client, SECOND)

Frames are copied from one stack's ring into the other's; checksums are the device's business, and super-frames stay
whole. With a step, time is virtual: each round of two turns takes that long, or lasts until something is due, so that a
test gives the same counts each time. Without one the clock is the machine's, and what each side's turns take of the
processor is measured apart.

Above: running, tests. Below: client, engine, link.memory.
"""

from libc.stdint cimport INT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ustack.application cimport Application
from ustack.base.arguments cimport whole
from ustack.base.clock cimport clock_monotonic_ns, clock_thread_ns
from ustack.buf.frame cimport CHECKSUM_PARTIAL, frame_t
from ustack.engine.owner cimport Engine
from ustack.engine.poll cimport engine_next_deadline, engine_poll
from ustack.engine.records cimport engine_t
from ustack.link.memory cimport MemoryLink
from ustack.link.memory_ring cimport far_commit, far_next, far_release, far_reserve, memory_sent_t, memory_t
from ustack.tools.load.client cimport LoadClient, load_finish, load_is_over, load_part, load_pump
from ustack.tools.load.records cimport load_t

from ustack.blocking.stack import Stack

cdef enum:
    END_ROUNDS = 1000000
    QUIET_ROUNDS = 3                        # in which nothing moves: whatever was to come has come

RING_SLOTS = 8192
RING_BYTES = 64 << 20


ctypedef struct world_t:
    engine_t *client
    engine_t *server
    memory_t *client_link
    memory_t *server_link
    uint64_t now_ns
    uint64_t step_ns                        # 0: the machine's clock
    bint measures
    uint64_t client_ns                      # of the processor, in turns of the client and its pump
    uint64_t server_ns
    uint64_t carried                        # frames


cdef void carry(world_t *world, memory_t *source, memory_t *sink) noexcept nogil:
    """What one side has sent, into the other's ring. What finds no room stays, and holds its sender back."""
    cdef const memory_sent_t *sent
    cdef uint8_t *room
    cdef frame_t *view
    while (sent := far_next(source)) != NULL:
        room = far_reserve(sink, sent.length)
        if room == NULL:
            return
        memcpy(room, sent.data, sent.length)
        view = far_commit(sink, sent.length, sent.length)
        if sent.offload.csum_start:
            view.checksum = CHECKSUM_PARTIAL
        view.gso_size = sent.offload.gso_size
        far_release(source)
        world.carried += 1


cdef uint32_t turn_of_server(world_t *world) noexcept nogil:
    cdef uint64_t before_ns = clock_thread_ns() if world.measures else 0
    cdef uint32_t frames = engine_poll(world.server, world.now_ns)
    if world.measures:
        world.server_ns += clock_thread_ns() - before_ns
    return frames


cdef uint32_t turn_of_client(world_t *world, load_t *load, uint64_t *wanted_ns) noexcept nogil:
    cdef uint64_t before_ns = clock_thread_ns() if world.measures else 0
    cdef uint32_t frames
    wanted_ns[0] = load_pump(load, world.now_ns)
    frames = engine_poll(world.client, world.now_ns)
    if world.measures:
        world.client_ns += clock_thread_ns() - before_ns
    return frames


cdef bint round_trip(world_t *world, load_t *load, uint64_t until_ns) noexcept nogil:
    """A turn of each side. False: nothing moved."""
    cdef uint64_t wanted_ns = 0, carried = world.carried, due_ns
    cdef uint32_t frames
    if world.step_ns == 0:
        world.now_ns = clock_monotonic_ns()
    frames = turn_of_client(world, load, &wanted_ns)
    carry(world, world.client_link, world.server_link)
    frames += turn_of_server(world)
    carry(world, world.server_link, world.client_link)
    if world.step_ns:
        world.now_ns += world.step_ns
        if frames == 0 and world.carried == carried:
            due_ns = min(wanted_ns, engine_next_deadline(world.client), engine_next_deadline(world.server), until_ns)
            if due_ns > world.now_ns:
                world.now_ns = due_ns
    return frames > 0 or world.carried != carried


cdef class MemoryWorld:
    """MemoryWorld(server, *, sources=None, step_ns=0, measures=False, seed=1, profile='rfc', client=None,
**config)
--

    Two stacks: `server` (an Application, such as HttpServer) listens on port 80 of SERVER; run() takes the client.
    None: who uses it listens on `server_stack` as he likes.

    sources: more addresses for the client's stack. step_ns: virtual time. measures: read the processor's clock around
    each turn. profile, client: the client's stack's alone, settings by name; config: of both.
    """

    SERVER = "198.18.0.2"
    CLIENT = "198.18.0.1"

    cdef world_t world
    cdef readonly object server_stack
    cdef readonly object client_stack
    cdef list links

    def __init__(self, server: Application | None, *, sources: str | None = None, step_ns: int = 0,
                 measures: bool = False, seed: int = 1, profile: str = "rfc",
                 client: dict[str, int] | None = None, **config: int) -> None:
        cdef MemoryLink ours, theirs
        cdef Engine engine
        self.world.step_ns = <uint64_t>whole("step_ns", step_ns, 0, INT64_MAX)
        self.world.measures = measures
        self.world.now_ns = clock_monotonic_ns() if step_ns == 0 else 1000000000
        self.links = [
            MemoryLink(mac=mac, segmentation_offload=True, rx_slots=RING_SLOTS, tx_slots=RING_SLOTS,
                       held_frames=RING_SLOTS, ring_bytes=RING_BYTES)
            for mac in ("02:00:00:00:00:01", "02:00:00:00:00:02")]
        ours, theirs = self.links
        more = {"profile": profile} if sources is None else {"profile": profile, "sources": sources}
        self.client_stack = Stack(ours, self.CLIENT + "/15", seed=2 * seed, now_ns=self.world.now_ns,
                                  **more, **config, **(client or {}))
        self.server_stack = Stack(theirs, self.SERVER + "/15", seed=2 * seed + 1, now_ns=self.world.now_ns, **config)
        if server is not None:
            self.server_stack.listen(80, application=server, backlog=1 << 20)
        engine = self.client_stack
        self.world.client = &engine.c
        engine = self.server_stack
        self.world.server = &engine.c
        self.world.client_link = &ours.memory
        self.world.server_link = &theirs.memory

    def begin(self, client: LoadClient, duration_ns: int | None = None) -> None:
        """Begin with a client that is driven by run()."""
        client.begin(self.client_stack, duration_ns)

    def run(self, client: LoadClient, duration_ns: int) -> bool:
        """So long, or until the load is over; whether it is."""
        cdef Engine ours = self.client_stack
        cdef Engine theirs = self.server_stack
        cdef uint64_t until_ns, slice_ns
        cdef int _i
        ours.enter("MemoryWorld.run()")
        try:
            theirs.enter("MemoryWorld.run()")
            try:
                if self.world.step_ns == 0:
                    self.world.now_ns = clock_monotonic_ns()
                until_ns = self.world.now_ns + <uint64_t>whole("duration_ns", duration_ns, 0, INT64_MAX)
                while self.world.now_ns < until_ns and not load_is_over(&client.load):
                    slice_ns = min(until_ns, self.world.now_ns + 100000000)
                    with nogil:
                        while self.world.now_ns < slice_ns and not load_is_over(&client.load):
                            round_trip(&self.world, &client.load, slice_ns)
                    ours.hand_over()
                    theirs.hand_over()
                    ours.between_turns()
                    theirs.between_turns()
            finally:
                theirs.leave()
        finally:
            ours.leave()
        return load_is_over(&client.load)

    def finish(self, client: LoadClient) -> int:
        """Count what is left, and end the connections, both ends, but for TIME-WAIT. How many times some were ended."""
        cdef Engine ours = self.client_stack
        cdef Engine theirs = self.server_stack
        cdef uint32_t quiet = 0, rounds = 0
        cdef bint more = True
        parts = 0
        ours.enter("MemoryWorld.finish()")
        try:
            theirs.enter("MemoryWorld.finish()")
            try:
                load_finish(&client.load, self.world.now_ns)
                while more or ((ours.c.tcp.established or theirs.c.tcp.established) and quiet < QUIET_ROUNDS
                               and rounds < END_ROUNDS):
                    if more:
                        more = load_part(&client.load)
                        parts += 1
                    else:
                        rounds += 1
                    quiet = 0 if round_trip(&self.world, &client.load, self.world.now_ns) else quiet + 1
                    theirs.hand_over()
                    ours.between_turns()
            finally:
                theirs.leave()
        finally:
            ours.leave()
        return parts

    @property
    def now_ns(self) -> int:
        """The time of the last turn."""
        return self.world.now_ns

    @property
    def processor_ns(self) -> tuple[int, int]:
        """Of the client's turns and the server's, where they are measured."""
        return self.world.client_ns, self.world.server_ns

    @property
    def carried(self) -> int:
        """Frames, both ways."""
        return self.world.carried

    def close(self) -> None:
        """End both stacks."""
        self.client_stack.close(linger=0.0)
        self.server_stack.close(linger=0.0)
        for link in self.links:
            link.close()

    def __enter__(self) -> MemoryWorld:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
