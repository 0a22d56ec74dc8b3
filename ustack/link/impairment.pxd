# SPDX-License-Identifier: MIT
# What an impaired path decides about one frame: queued or dropped, when its last byte arrives, lost, late, twice. One
# model for two media: frames in memory on a manual clock (simwire), and real ones between two interfaces (bridge).
#
#     admit:   queue (tail drop) ─▶ serialised at rate_bps ─▶ delay
#     carries: not what is longer than path_mtu: a black hole, no ICMP tells of it
#     decide:  lost? corrupted? late? twice? jitter
#
# It must not: hold a frame, read a clock or a system's randomness. The same seed, lengths and times give the same
# decisions. Above: simwire, ustack/bridge. Below: base/prng.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.prng cimport prng_next, prng_t

# A frame that waits for the wire or is being serialised.
ctypedef struct departure_t:
    uint64_t at_ns                          # when its last byte leaves
    uint32_t length

ctypedef struct impairment_t:
    prng_t prng
    # Settings. Writer: impairment_set.
    uint64_t delay_ns                       # propagation
    uint64_t jitter_ns                      # most that is added to it, anew for each frame
    uint64_t rate_bps                       # 0: serialisation takes no time, and nothing queues
    uint64_t reorder_ns                     # longest extra delay of a late frame, and shortest: equal for a constant
    uint64_t reorder_least_ns
    uint64_t queue_bytes                    # limits of what waits, the frame being serialised included
    uint64_t queue_frames
    uint64_t mark_bytes                     # a frame that finds more than this waiting is to be marked; 0: none is
    uint64_t path_mtu                       # bytes of the largest IP packet that arrives; 0: any does
    double loss
    double reorder
    double duplicate
    double corrupt
    # State. Writer: impairment_admit.
    uint64_t wire_free_ns                   # when the last accepted frame will have been serialised
    departure_t *departures                 # ring, ascending; grows up to queue_frames
    uint32_t capacity
    uint32_t head
    uint32_t waiting_frames
    uint64_t waiting_bytes
    uint64_t most_waiting_frames            # since the beginning
    uint64_t most_waiting_bytes

ctypedef struct fate_t:
    uint64_t due_ns                         # when the last byte arrives, without jitter and lateness
    uint64_t jitter_ns
    uint8_t marked                          # the queue was longer than mark_bytes
    uint8_t lost
    uint8_t corrupted
    uint8_t reordered
    uint8_t duplicated


# Nothing is impaired, and 1,000 frames may wait.
cdef void impairment_init(impairment_t *impairment, uint64_t seed) noexcept nogil
cdef void impairment_free(impairment_t *impairment) noexcept nogil
# False: the queue is full. Else fate.due_ns and fate.marked are set, and the frame has its place on the wire.
cdef bint impairment_admit(impairment_t *impairment, uint32_t length, uint64_t now_ns, fate_t *fate) noexcept nogil
# What chance does to a frame. Every one takes the same four numbers from the generator (five with jitter), whatever
# becomes of it: one frame's fate does not depend on another's. Who decides before the frame is admitted makes it
# independent of the queue as well: the n-th frame then has the same fate for the same seed.
cdef void impairment_decide(impairment_t *impairment, fate_t *fate) noexcept nogil


# Whether the path is wide enough for a frame of `length` bytes, its Ethernet header included.
cdef inline bint impairment_carries(const impairment_t *impairment, uint64_t length) noexcept nogil:
    return impairment.path_mtu == 0 or length <= impairment.path_mtu + 14


# How much later a reordered frame arrives: reorder_least_ns to reorder_ns. A constant takes no number.
cdef inline uint64_t impairment_lateness(impairment_t *impairment) noexcept nogil:
    cdef uint64_t span_ns = impairment.reorder_ns - impairment.reorder_least_ns + 1
    return impairment.reorder_least_ns + (prng_next(&impairment.prng) % span_ns if span_ns > 1 else 0)


# For Python faces: a value of a setting (the struct's names, and reorder_least_ns with reorder_ns) as it is to be used.
# Raises ValueError for a bad one, or for a name that is none of `names`.
cdef object impairment_check(tuple names, str name, object value)
cdef int impairment_set(impairment_t *impairment, str name, object value) except -1
