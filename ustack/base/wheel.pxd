# SPDX-License-Identifier: MIT
# Hierarchical timing wheel (Varghese and Lauck, 1987): O(1) arm, move and cancel for millions of timers.
#
# It knows no connection: a timer carries (kind, owner) and hands them back when it expires. A node is 16
# bytes and is named by a 32-bit id; id 0 means "no timer". Expiry frees the node. A timer never fires
# early; it fires at most one tick (WHEEL_TICK_NS) late, plus the caller's own delay.
#
# Four levels of 256 buckets; a bucket is a circular list through the nodes themselves, whose heads are
# nodes too, so that unlinking needs no bucket number:
#
#     level 0   1 tick a bucket        67 ms around
#     level 1   256 ticks              17 s
#     level 2   65,536 ticks           73 min
#     level 3   16,777,216 ticks       13 days (deadlines are clamped to WHEEL_MAX_TICKS, half of that, ahead)

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef enum:
    WHEEL_TICK_SHIFT = 18                   # 262,144 ns
    WHEEL_MAX_KIND = 7                      # kind takes 3 bits, owner 29: 536 million owners of a kind
    WHEEL_MAX_TICKS = 0x7FFFFFFF            # so that tick_before has an answer for any two armed deadlines
cdef enum:
    TIMER_NONE = 0

ctypedef struct timer_node_t:
    uint32_t next
    uint32_t prev
    uint32_t deadline_tick
    uint32_t kind_owner                     # kind << 29 | owner

ctypedef struct timer_event_t:
    uint32_t kind
    uint32_t owner
    uint32_t now_tick                       # the tick of now; 6.5 days behind the timer's own, when it is later still

ctypedef struct wheel_t:
    timer_node_t *nodes                     # grown by doubling; bucket heads are the first nodes
    uint32_t capacity                       # nodes in all, heads included
    uint32_t free_head
    uint32_t armed                          # timers in the wheel; tests assert zero at the end
    uint32_t tick                           # every bucket before this tick has been emptied
    uint32_t cascading                      # bucket whose timers are being placed again, 0: none
    uint64_t base_ns                        # time of the latest tick 0; moves on when `tick` wraps
    uint64_t occupied[4][4]                 # one bit a bucket: finds the next deadline without a walk

cdef int wheel_init(wheel_t *wheel, uint64_t now_ns) noexcept nogil           # 0, or -1 without memory
cdef void wheel_free(wheel_t *wheel) noexcept nogil
# Returns the timer's id, or TIMER_NONE without memory. A deadline that has passed fires at the next expire.
cdef uint32_t wheel_arm(wheel_t *wheel, uint64_t deadline_ns, uint32_t kind, uint32_t owner) noexcept nogil
cdef void wheel_move(wheel_t *wheel, uint32_t timer, uint64_t deadline_ns) noexcept nogil
cdef void wheel_cancel(wheel_t *wheel, uint32_t timer) noexcept nogil
# Takes up to `max_events` expired timers out, in order of their ticks. Call again while it returns max_events. *moves:
# how many timers of higher levels may be placed again, less what was done; at 0 the rest waits for the next call, and
# what is due after it as well (wheel_next_ns then says "now").
# A timer that was taken out has lost its id: forget the id of every event before acting on the first one, because
# the id may name another timer as soon as something is armed.
cdef uint32_t wheel_expire(wheel_t *wheel, uint64_t now_ns, timer_event_t *events,
                           uint32_t max_events, uint32_t *moves) noexcept nogil
# A time at or before the tick of the first deadline (equal to it within level 0), UINT64_MAX if nothing is armed.
cdef uint64_t wheel_next_ns(const wheel_t *wheel) noexcept nogil

# Ticks, for owners that keep deadlines in 32 bits: compare with tick_before, never with <.
cdef inline uint32_t wheel_tick_of(const wheel_t *wheel, uint64_t now_ns) noexcept nogil:
    return <uint32_t>((now_ns - wheel.base_ns) >> WHEEL_TICK_SHIFT)


# When an armed timer fires.
cdef inline uint32_t wheel_deadline_tick(const wheel_t *wheel, uint32_t timer) noexcept nogil:
    return wheel.nodes[timer].deadline_tick


# How long an armed timer will still take; negative: it is due.
cdef inline int64_t wheel_left_ns(const wheel_t *wheel, uint32_t timer, uint64_t now_ns) noexcept nogil:
    cdef int32_t ticks = <int32_t>(wheel.nodes[timer].deadline_tick - wheel_tick_of(wheel, now_ns))
    return ticks * <int64_t>(1 << WHEEL_TICK_SHIFT) - <int64_t>(now_ns - wheel.base_ns & (1 << WHEEL_TICK_SHIFT) - 1)


cdef inline bint tick_before(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(a - b) < 0
