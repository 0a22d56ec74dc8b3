# SPDX-License-Identifier: MIT
"""A queue of the simulation's, driven by hand: what becomes of each frame. Above: tests. Below: sim/queues."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.prng cimport prng_next, prng_seed, prng_t
from ustack.link.parcels cimport (
    parcel_data, parcel_free, parcel_new, parcel_pool_t, parcel_t, parcels_free, pool_empty)
from ustack.sim.queues cimport queue_init, queue_put, queue_take
from ustack.sim.records cimport queue_t
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4
from ustack.wire.octets cimport write_u16


def served(arrivals, services, *, kind, seed=0, idle_frame_ns=0, limit_frames=1000, limit_bytes=1 << 40, frame_bytes=0,
           codel_target_ns=5_000_000, codel_interval_ns=100_000_000, red_min_bytes=15_000, red_max_bytes=45_000,
           red_max_p=429_496_729, red_weight_shift=9, ecn=False):
    """arrivals: (ns, bytes) ascending. services: when the wire takes one, ascending; at one time arrivals come first.

    ecn: frames are IPv4 that may be marked, and are in place of being dropped early.

    What each arrival met ("in", "marked", "dropped", or what should not be: both), which arrival each service got
    (None: none), and RED's average in bytes after each arrival.
    """
    cdef queue_t queue
    cdef parcel_pool_t pool
    cdef prng_t prng
    cdef parcel_t *parcel
    cdef uint64_t at_ns, marked
    memset(&pool, 0, sizeof(pool))
    queue_init(&queue)
    prng_seed(&prng, seed)
    queue.kind = kind
    queue.ecn = ecn
    queue.limit_frames = limit_frames
    queue.limit_bytes = limit_bytes
    queue.frame_bytes = frame_bytes
    queue.codel.target_ns = codel_target_ns
    queue.codel.interval_ns = codel_interval_ns
    queue.red.min_bytes = red_min_bytes
    queue.red.max_bytes = red_max_bytes
    queue.red.max_p = red_max_p
    queue.red.weight_shift = red_weight_shift
    met, got, averages = [], [], []
    events = sorted([(at, 0, number) for number, (at, _) in enumerate(arrivals)]
                    + [(at, 1, number) for number, at in enumerate(services)])
    for at, is_service, number in events:
        at_ns = at
        if is_service:
            parcel = queue_take(&queue, &pool, at_ns)
            got.append(parcel.order if parcel != NULL else None)
            if parcel != NULL:
                parcel_free(&pool, parcel)
            continue
        parcel = parcel_new(&pool, <uint32_t>arrivals[number][1])
        if parcel == NULL:
            raise MemoryError
        memset(parcel + 1, 0, arrivals[number][1])
        if ecn:
            write_u16(parcel_data(parcel) + 12, ETHERTYPE_IPV4)
            parcel_data(parcel)[ETHERNET_HEADER_BYTES] = 0x45
            parcel_data(parcel)[ETHERNET_HEADER_BYTES + 1] = 2          # ECT(0)
        parcel.order = number
        marked = queue.marked
        word = "in" if queue_put(&queue, &pool, &prng, parcel, at_ns, idle_frame_ns) else "dropped"
        if queue.marked != marked:
            word = "marked" if word == "in" else "marked and dropped"
        met.append(word)
        averages.append(queue.red.average >> 24)
    parcels_free(&pool, &queue.waiting)
    pool_empty(&pool)
    if pool.live:
        raise AssertionError(f"{pool.live} parcels were lost")
    return met, got, averages


def drawn(seed, count):
    """The generator's numbers, as RED draws them: 32 bits each."""
    cdef prng_t prng
    prng_seed(&prng, seed)
    return [prng_next(&prng) >> 32 for _ in range(count)]
