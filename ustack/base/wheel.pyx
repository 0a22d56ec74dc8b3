# SPDX-License-Identifier: MIT
"""Hierarchical timing wheel. The contract and the picture are in wheel.pxd.

It must not read a clock and knows nothing of what its timers are for.

Where a timer lies follows from its deadline and the wheel's tick alone: the highest byte in which the two differ is
its level, the deadline's byte there its bucket (byte 0 when they are equal). So on level k everything shares the
bytes above k with the tick and lies ahead of it in byte k: levels 0 to 2 never wrap inside themselves, level 3 does,
as 32-bit ticks do. From this follow

* every bucket of a level is due before any bucket of the next level, and buckets of a level in their order: the
  lowest occupied level's first bucket is the next one, found in the bitmaps;
* the tick may jump ahead over empty buckets and nothing needs to be moved;
* when the tick reaches the first tick of a bucket above level 0, its timers are placed again and all of them fall to
  lower levels. A timer moves down at most three times in its life. Timers of one tick keep the order of arming. While
  a bucket is `cascading` the tick stays, so no other bucket can be due and nothing new can fall into it: the work may
  stop after any timer.

Deadlines are rounded up to ticks (never early), `now_ns` is rounded down.
"""

from libc.stdint cimport UINT32_MAX, UINT64_MAX, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.debug cimport ensure
from ustack.base.posix cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, MREMAP_MAYMOVE, PROT_READ, PROT_WRITE, mmap, mremap, munmap)


cdef extern from *:
    int lowest_bit "__builtin_ctzll"(unsigned long long value) noexcept nogil     # value != 0
    int leading_zeros "__builtin_clz"(unsigned int value) noexcept nogil          # value != 0


cdef enum:
    LEVELS = 4
    BUCKETS = 256
    HEADS = LEVELS * BUCKETS
    NODES_AT_FIRST = 2048
    OWNER_BITS = 29
    OWNER_MASK = (1 << OWNER_BITS) - 1


# -- lists and bitmaps

cdef inline void _link_last(wheel_t *wheel, uint32_t timer) noexcept nogil:
    """Put a node at the end of the bucket that its deadline asks for."""
    cdef timer_node_t *nodes = wheel.nodes
    cdef uint32_t deadline = nodes[timer].deadline_tick
    cdef uint32_t differing = deadline ^ wheel.tick
    cdef uint32_t level = 0
    cdef uint32_t head, last, bucket
    if differing >= BUCKETS:
        level = (31 - leading_zeros(differing)) >> 3
    bucket = (deadline >> (8 * level)) & (BUCKETS - 1)
    head = level * BUCKETS + bucket
    last = nodes[head].prev
    nodes[timer].next = head
    nodes[timer].prev = last
    nodes[last].next = timer
    nodes[head].prev = timer
    wheel.occupied[level][bucket >> 6] |= <uint64_t>1 << (bucket & 63)


cdef inline void _unlink(wheel_t *wheel, uint32_t timer) noexcept nogil:
    cdef timer_node_t *nodes = wheel.nodes
    cdef uint32_t after = nodes[timer].next
    cdef uint32_t before = nodes[timer].prev
    nodes[before].next = after
    nodes[after].prev = before
    if after == before:                 # both are the bucket's head: it was the last one
        wheel.occupied[after >> 8][(after >> 6) & 3] &= ~(<uint64_t>1 << (after & 63))


cdef inline int _first_at_or_after(const uint64_t *bits, uint32_t bucket) noexcept nogil:
    """The first occupied bucket from `bucket` to 255, or -1."""
    cdef uint32_t word = bucket >> 6
    cdef uint64_t masked
    if bucket >= BUCKETS:
        return -1
    masked = bits[word] & (UINT64_MAX << (bucket & 63))
    while masked == 0:
        word += 1
        if word == BUCKETS // 64:
            return -1
        masked = bits[word]
    return <int>(word * 64) + lowest_bit(masked)


cdef int _next_bucket(const wheel_t *wheel, uint32_t *start_tick) noexcept nogil:
    """The head of the bucket that is due next and its first tick; -1 if the wheel is empty."""
    cdef uint32_t shift, here
    cdef uint32_t tick = wheel.tick
    cdef int level, bucket
    for level in range(LEVELS):
        shift = 8 * <uint32_t>level
        here = (tick >> shift) & (BUCKETS - 1)
        bucket = _first_at_or_after(wheel.occupied[level], here if level == 0 else here + 1)
        if bucket < 0 and level == LEVELS - 1:
            bucket = _first_at_or_after(wheel.occupied[level], 0)
        if bucket >= 0:
            # The bytes above the level are the tick's, those below are zero.
            start_tick[0] = (tick & ~((<uint32_t>0xFF << shift) | ((<uint32_t>1 << shift) - 1))) | (
                <uint32_t>bucket << shift)
            return level * BUCKETS + bucket
    return -1


# -- nodes

cdef inline uint32_t _take_node(wheel_t *wheel) noexcept nogil:
    # A free node holds the distance from its successor in the list to its neighbour in memory. Mapped pages are
    # zero, so that new nodes are a free list already, of neighbours, without a write to any of them. Doubling moves
    # page tables, not pages: 0.03 ms for a million timers, 0.07 ms for sixteen million.
    cdef uint32_t timer = wheel.free_head
    cdef void *grown
    cdef size_t size = <size_t>wheel.capacity * sizeof(timer_node_t)
    if timer == wheel.capacity:
        if wheel.capacity > UINT32_MAX // 2:
            return TIMER_NONE
        grown = mremap(wheel.nodes, size, size * 2, MREMAP_MAYMOVE)
        if grown == MAP_FAILED:
            return TIMER_NONE
        wheel.nodes = <timer_node_t *>grown
        wheel.capacity *= 2
    wheel.free_head = timer + 1 + wheel.nodes[timer].next
    return timer


cdef inline void _give_node(wheel_t *wheel, uint32_t timer) noexcept nogil:
    wheel.nodes[timer].next = wheel.free_head - (timer + 1)
    wheel.nodes[timer].prev = UINT32_MAX                    # no armed node has it: see _ensure_armed
    wheel.free_head = timer


cdef inline void _ensure_armed(const wheel_t *wheel, uint32_t timer) noexcept nogil:
    ensure(timer >= HEADS)
    ensure(timer < wheel.capacity)
    ensure(wheel.nodes[timer].prev < wheel.capacity)        # expired or cancelled already
    ensure(wheel.nodes[wheel.nodes[timer].prev].next == timer)


# -- time

cdef inline uint64_t _tick_ns(const wheel_t *wheel) noexcept nogil:
    return wheel.base_ns + (<uint64_t>wheel.tick << WHEEL_TICK_SHIFT)


cdef inline uint32_t _deadline_tick(const wheel_t *wheel, uint64_t deadline_ns) noexcept nogil:
    cdef uint64_t tick_ns = _tick_ns(wheel)
    cdef uint64_t ahead_ns
    if deadline_ns <= tick_ns:
        return wheel.tick
    ahead_ns = deadline_ns - tick_ns
    if ahead_ns > <uint64_t>WHEEL_MAX_TICKS << WHEEL_TICK_SHIFT:
        return wheel.tick + WHEEL_MAX_TICKS
    return wheel.tick + <uint32_t>((ahead_ns + ((<uint64_t>1 << WHEEL_TICK_SHIFT) - 1)) >> WHEEL_TICK_SHIFT)


cdef inline void _advance(wheel_t *wheel, uint64_t ticks) noexcept nogil:
    cdef uint64_t tick = wheel.tick + ticks
    wheel.base_ns += (tick >> 32) << (32 + WHEEL_TICK_SHIFT)
    wheel.tick = <uint32_t>tick


# -- the contract

cdef int wheel_init(wheel_t *wheel, uint64_t now_ns) noexcept nogil:
    cdef int head
    cdef void *memory = mmap(NULL, NODES_AT_FIRST * sizeof(timer_node_t), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    memset(wheel, 0, sizeof(wheel_t))
    if memory == MAP_FAILED:
        return -1
    wheel.nodes = <timer_node_t *>memory
    wheel.capacity = NODES_AT_FIRST
    wheel.free_head = HEADS
    wheel.base_ns = now_ns
    for head in range(HEADS):
        wheel.nodes[head].next = head
        wheel.nodes[head].prev = head
    return 0


cdef void wheel_free(wheel_t *wheel) noexcept nogil:
    if wheel.nodes != NULL:
        munmap(wheel.nodes, <size_t>wheel.capacity * sizeof(timer_node_t))
    memset(wheel, 0, sizeof(wheel_t))


cdef uint32_t wheel_arm(wheel_t *wheel, uint64_t deadline_ns, uint32_t kind, uint32_t owner) noexcept nogil:
    cdef uint32_t timer = _take_node(wheel)
    ensure(kind <= WHEEL_MAX_KIND)
    ensure(owner <= OWNER_MASK)
    if timer == TIMER_NONE:
        return TIMER_NONE
    wheel.nodes[timer].deadline_tick = _deadline_tick(wheel, deadline_ns)
    wheel.nodes[timer].kind_owner = (kind << OWNER_BITS) | (owner & OWNER_MASK)
    _link_last(wheel, timer)
    wheel.armed += 1
    return timer


cdef void wheel_move(wheel_t *wheel, uint32_t timer, uint64_t deadline_ns) noexcept nogil:
    cdef uint32_t deadline_tick = _deadline_tick(wheel, deadline_ns)
    _ensure_armed(wheel, timer)
    if wheel.nodes[timer].deadline_tick == deadline_tick:
        return                          # a retransmission timer that every ACK moves seldom leaves its tick
    _unlink(wheel, timer)
    wheel.nodes[timer].deadline_tick = deadline_tick
    _link_last(wheel, timer)


cdef void wheel_cancel(wheel_t *wheel, uint32_t timer) noexcept nogil:
    _ensure_armed(wheel, timer)
    _unlink(wheel, timer)
    _give_node(wheel, timer)
    wheel.armed -= 1


cdef uint32_t _take_due(wheel_t *wheel, uint32_t head, uint64_t late, timer_event_t *events,
                        uint32_t room) noexcept nogil:
    """Take up to `room` timers out of a bucket of level 0, `late` ticks after its own."""
    cdef uint32_t now_tick = wheel.tick + <uint32_t>min(late, <uint64_t>WHEEL_MAX_TICKS)
    cdef uint32_t taken = 0
    cdef uint32_t timer
    while taken < room and wheel.nodes[head].next != head:
        timer = wheel.nodes[head].next
        events[taken].kind = wheel.nodes[timer].kind_owner >> OWNER_BITS
        events[taken].owner = wheel.nodes[timer].kind_owner & OWNER_MASK
        events[taken].now_tick = now_tick
        taken += 1
        _unlink(wheel, timer)
        _give_node(wheel, timer)
    wheel.armed -= taken
    return taken


cdef void _cascade(wheel_t *wheel, uint32_t *moves) noexcept nogil:
    """Place the timers of a bucket again, now that the tick has reached it: none comes back to it."""
    cdef uint32_t head = wheel.cascading
    cdef uint32_t timer
    while moves[0] > 0 and wheel.nodes[head].next != head:
        timer = wheel.nodes[head].next
        _unlink(wheel, timer)
        _link_last(wheel, timer)
        moves[0] -= 1
    if wheel.nodes[head].next == head:
        wheel.cascading = 0


cdef uint32_t wheel_expire(wheel_t *wheel, uint64_t now_ns, timer_event_t *events,
                           uint32_t max_events, uint32_t *moves) noexcept nogil:
    cdef uint64_t tick_ns = _tick_ns(wheel)
    cdef uint64_t ahead = 0             # ticks from the wheel's to now's; 64 bits, a process may have been stopped
    cdef uint32_t taken = 0
    cdef uint32_t start_tick = 0
    cdef uint32_t distance
    cdef int head
    if now_ns > tick_ns:
        ahead = (now_ns - tick_ns) >> WHEEL_TICK_SHIFT
    while taken < max_events:
        if wheel.cascading:
            _cascade(wheel, moves)
            if wheel.cascading:
                break
        head = _next_bucket(wheel, &start_tick)
        distance = start_tick - wheel.tick
        if head < 0 or distance > ahead:
            _advance(wheel, ahead)
            break
        _advance(wheel, distance)
        ahead -= distance
        if head < BUCKETS:
            taken += _take_due(wheel, <uint32_t>head, ahead, events + taken, max_events - taken)
        else:
            wheel.cascading = <uint32_t>head
    return taken


cdef uint64_t wheel_next_ns(const wheel_t *wheel) noexcept nogil:
    cdef uint32_t start_tick = 0
    if wheel.cascading:
        return _tick_ns(wheel)
    if _next_bucket(wheel, &start_tick) < 0:
        return UINT64_MAX
    return _tick_ns(wheel) + (<uint64_t>(start_tick - wheel.tick) << WHEEL_TICK_SHIFT)


# -- test shim

cdef class Wheel:
    """A wheel for tests. `start_tick` is the tick that stands for `now_ns`: near 2^32 it makes the ticks wrap."""

    cdef wheel_t c
    cdef readonly list ticks

    def __cinit__(self, uint64_t now_ns = 0, uint32_t start_tick = 0) -> None:
        if wheel_init(&self.c, now_ns) != 0:
            raise MemoryError
        self.c.tick = start_tick
        self.c.base_ns -= <uint64_t>start_tick << WHEEL_TICK_SHIFT

    def __dealloc__(self) -> None:
        wheel_free(&self.c)

    def arm(self, uint64_t deadline_ns, uint32_t kind, uint32_t owner) -> int:
        """The id of a new timer."""
        cdef uint32_t timer = wheel_arm(&self.c, deadline_ns, kind, owner)
        if timer == TIMER_NONE:
            raise MemoryError
        return timer

    def move(self, uint32_t timer, uint64_t deadline_ns) -> None:
        """Give an armed timer another deadline."""
        wheel_move(&self.c, timer, deadline_ns)

    def cancel(self, uint32_t timer) -> None:
        """Disarm a timer."""
        wheel_cancel(&self.c, timer)

    def expire(self, uint64_t now_ns, uint32_t max_events = 64, uint32_t max_moves = UINT32_MAX) -> list:
        """One call of wheel_expire: (kind, owner) of at most `max_events` (1 to 64) timers. ticks: their now_tick.

        max_moves: timers that may be placed again on their way.
        """
        cdef timer_event_t events[64]
        cdef uint32_t n, i
        cdef uint32_t moves = max_moves
        if not 1 <= max_events <= 64:
            raise ValueError("max_events must be 1 to 64")
        n = wheel_expire(&self.c, now_ns, events, max_events, &moves)
        self.ticks = [events[i].now_tick for i in range(n)]
        return [(events[i].kind, events[i].owner) for i in range(n)]

    @property
    def next_ns(self) -> int:
        """wheel_next_ns."""
        return wheel_next_ns(&self.c)

    @property
    def armed(self) -> int:
        """Timers in the wheel."""
        return self.c.armed

    @property
    def capacity(self) -> int:
        """Nodes in all, the 1,024 heads included."""
        return self.c.capacity

    @property
    def tick(self) -> int:
        """The wheel's own tick."""
        return self.c.tick

    def tick_of(self, uint64_t now_ns) -> int:
        """wheel_tick_of."""
        return wheel_tick_of(&self.c, now_ns)

    @property
    def occupied_buckets(self) -> int:
        """How many buckets the bitmaps say are in use."""
        return sum(bin(self.c.occupied[level][word]).count("1") for level in range(LEVELS) for word in range(4))
