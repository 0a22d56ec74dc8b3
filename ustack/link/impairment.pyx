# SPDX-License-Identifier: MIT
"""What an impaired path decides about one frame. The model and its rules: impairment.pxd."""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from ustack.base.prng cimport prng_seed, prng_unit

cdef enum:
    DEPARTURES_MIN = 64
    QUEUE_FRAMES = 1000
    QUEUE_FRAMES_MAX = 16777216
    REORDER_NS = 5000000


cdef void impairment_init(impairment_t *impairment, uint64_t seed) noexcept nogil:
    memset(impairment, 0, sizeof(impairment_t))
    prng_seed(&impairment.prng, seed)
    impairment.queue_frames = QUEUE_FRAMES
    impairment.queue_bytes = UINT64_MAX
    impairment.reorder_ns = REORDER_NS
    impairment.reorder_least_ns = 1


cdef void impairment_free(impairment_t *impairment) noexcept nogil:
    free(impairment.departures)
    impairment.departures = NULL
    impairment.capacity = impairment.waiting_frames = 0


# ---------------------------------------------------------------- queue in front of the wire
cdef bint make_room(impairment_t *impairment) noexcept nogil:
    """Double the ring. False: no memory."""
    cdef uint32_t capacity = impairment.capacity * 2 if impairment.capacity else DEPARTURES_MIN
    cdef departure_t *departures = <departure_t *>malloc(capacity * sizeof(departure_t))
    cdef uint32_t i
    if departures == NULL:
        return False
    for i in range(impairment.waiting_frames):
        departures[i] = impairment.departures[(impairment.head + i) & (impairment.capacity - 1)]
    free(impairment.departures)
    impairment.departures = departures
    impairment.capacity = capacity
    impairment.head = 0
    return True


cdef inline void leave_departed(impairment_t *impairment, uint64_t now_ns) noexcept nogil:
    while impairment.waiting_frames > 0 and impairment.departures[impairment.head].at_ns <= now_ns:
        impairment.waiting_bytes -= impairment.departures[impairment.head].length
        impairment.head = (impairment.head + 1) & (impairment.capacity - 1)
        impairment.waiting_frames -= 1


cdef bint enqueue(impairment_t *impairment, uint32_t length, uint64_t now_ns, fate_t *fate) noexcept nogil:
    cdef departure_t *departure
    leave_departed(impairment, now_ns)
    if (impairment.waiting_frames >= impairment.queue_frames
            or impairment.waiting_bytes + length > impairment.queue_bytes
            or (impairment.waiting_frames == impairment.capacity and not make_room(impairment))):
        return False
    fate.marked = impairment.mark_bytes > 0 and impairment.waiting_bytes > impairment.mark_bytes
    impairment.wire_free_ns = (max(impairment.wire_free_ns, now_ns)
                               + length * 8000000000ULL // impairment.rate_bps)
    departure = &impairment.departures[(impairment.head + impairment.waiting_frames) & (impairment.capacity - 1)]
    departure.at_ns = fate.due_ns = impairment.wire_free_ns
    departure.length = length
    impairment.waiting_frames += 1
    impairment.waiting_bytes += length
    impairment.most_waiting_frames = max(impairment.most_waiting_frames, <uint64_t>impairment.waiting_frames)
    impairment.most_waiting_bytes = max(impairment.most_waiting_bytes, impairment.waiting_bytes)
    return True


cdef bint impairment_admit(impairment_t *impairment, uint32_t length, uint64_t now_ns, fate_t *fate) noexcept nogil:
    fate.marked = False
    fate.due_ns = now_ns
    if impairment.rate_bps != 0 and not enqueue(impairment, length, now_ns, fate):
        return False
    fate.due_ns += impairment.delay_ns
    return True


# ---------------------------------------------------------------- chance
cdef void impairment_decide(impairment_t *impairment, fate_t *fate) noexcept nogil:
    fate.lost = prng_unit(&impairment.prng) < impairment.loss
    fate.corrupted = prng_unit(&impairment.prng) < impairment.corrupt
    fate.reordered = prng_unit(&impairment.prng) < impairment.reorder
    fate.duplicated = prng_unit(&impairment.prng) < impairment.duplicate
    fate.jitter_ns = 0
    if impairment.jitter_ns != 0:
        fate.jitter_ns = <uint64_t>(prng_unit(&impairment.prng) * <double>impairment.jitter_ns)


# ---------------------------------------------------------------- settings
# Name: least and greatest value. Probabilities are floats, all else are integers.
cdef dict BOUNDS = {
    "loss": (0.0, 1.0), "reorder": (0.0, 1.0), "duplicate": (0.0, 1.0), "corrupt": (0.0, 1.0),
    "delay_ns": (0, 1 << 60), "jitter_ns": (0, 1 << 60), "rate_bps": (0, 1 << 60), "reorder_ns": (1, 1 << 60),
    "queue_frames": (1, QUEUE_FRAMES_MAX), "queue_bytes": (1, UINT64_MAX), "mark_bytes": (0, UINT64_MAX),
    "path_mtu": (0, 65535),
}


cdef object impairment_check(tuple names, str name, object value):
    if name not in names:
        raise ValueError(f"no impairment is called {name!r}")
    least, most = BOUNDS[name]
    if isinstance(most, float):
        probability = float(value)
        if not least <= probability <= most:
            raise ValueError(f"{name} {value!r}: must be a probability, 0.0 to 1.0")
        return probability
    if not isinstance(value, int):
        raise ValueError(f"{name} {value!r}: must be an integer")
    if not least <= value <= most:
        raise ValueError(f"{name} {value}: must be {least} to {most}")
    return value


cdef int impairment_set(impairment_t *impairment, str name, object value) except -1:
    if name == "loss":
        impairment.loss = value
    elif name == "reorder":
        impairment.reorder = value
    elif name == "duplicate":
        impairment.duplicate = value
    elif name == "corrupt":
        impairment.corrupt = value
    elif name == "delay_ns":
        impairment.delay_ns = value
    elif name == "jitter_ns":
        impairment.jitter_ns = value
    elif name == "rate_bps":
        impairment.rate_bps = value
    elif name == "reorder_ns":
        impairment.reorder_ns = value
    elif name == "reorder_least_ns":
        impairment.reorder_least_ns = value
    elif name == "queue_frames":
        impairment.queue_frames = value
    elif name == "path_mtu":
        impairment.path_mtu = value
    elif name == "queue_bytes":
        impairment.queue_bytes = value
    else:
        impairment.mark_bytes = value
    return 0
