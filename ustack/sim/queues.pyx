# SPDX-License-Identifier: MIT
"""What waits in front of a wire. See queues.pxd."""

from libc.math cimport sqrt
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.prng cimport prng_next
from ustack.link.parcels cimport parcel_free, parcel_mark, parcels_pop, parcels_push
from ustack.sim.records cimport QUEUE_CODEL, QUEUE_RED, codel_t, red_t

cdef enum:
    LIMIT_FRAMES = 1000
    CODEL_TARGET_NS = 5000000
    CODEL_INTERVAL_NS = 100000000
    ETHERNET_BYTES = 1514                   # a full frame of it
    RED_SHIFT = 24                          # of red.average
    RED_PART_SHIFT = 20                     # of red.idle_part: what a frame of 12,000 bits takes at 1 bit/s fits
    RED_WEIGHT_SHIFT = 9                    # 1/512 is 0.002, the paper's
    RED_IDLE_MAX = 64                       # e-foldings after which the average is nothing
    CODEL_AGAIN = 16                        # intervals (RFC 8289 section 5.5)

cdef uint64_t ONE = 1ULL << 32              # probability 1


cdef void queue_init(queue_t *queue) noexcept nogil:
    memset(queue, 0, sizeof(queue_t))
    queue.limit_frames = LIMIT_FRAMES
    queue.limit_bytes = UINT64_MAX
    queue.longest_bytes = ETHERNET_BYTES
    queue.codel.target_ns = CODEL_TARGET_NS
    queue.codel.interval_ns = CODEL_INTERVAL_NS
    queue.red.weight_shift = RED_WEIGHT_SHIFT
    queue.red.min_bytes = 15 * ETHERNET_BYTES
    queue.red.max_bytes = 45 * ETHERNET_BYTES
    queue.red.max_p = <uint32_t>(ONE // 10)


cdef void queue_set_kind(queue_t *queue, uint8_t kind) noexcept nogil:
    if kind == queue.kind:
        return
    queue.kind = kind
    queue.codel.first_above_ns = queue.codel.drop_next_ns = 0
    queue.codel.count = queue.codel.lastcount = 0
    queue.codel.dropping = False
    queue.red.average = 0
    queue.red.count = 0


cdef inline bint marked_instead(queue_t *queue, parcel_t *parcel) noexcept nogil:
    if queue.ecn and parcel_mark(parcel):
        queue.marked += 1
        return True
    return False


cdef inline void drop_early(queue_t *queue, parcel_pool_t *pool, parcel_t *parcel) noexcept nogil:
    queue.early_dropped += 1
    parcel_free(pool, parcel)


# ---------------------------------------------------------------- RED
cdef void queue_idles(queue_t *queue, uint64_t now_ns, uint64_t idle_frame_ns) noexcept nogil:
    cdef red_t *red = &queue.red
    cdef uint64_t idle_ns, looks
    if red.idle_since_ns == 0:
        return
    idle_ns = now_ns - red.idle_since_ns
    red.idle_since_ns = now_ns
    red.idle_part += <uint32_t>((idle_ns % idle_frame_ns << RED_PART_SHIFT) // idle_frame_ns)
    looks = idle_ns // idle_frame_ns + (red.idle_part >> RED_PART_SHIFT)
    red.idle_part &= (1 << RED_PART_SHIFT) - 1
    if looks >> red.weight_shift >= RED_IDLE_MAX:
        red.average = 0
    while looks > 0 and red.average > 0:
        red.average -= (red.average >> red.weight_shift) + 1
        looks -= 1


cdef inline void red_look(queue_t *queue, uint64_t now_ns, uint64_t idle_frame_ns) noexcept nogil:
    """The average, at an arrival."""
    cdef red_t *red = &queue.red
    if idle_frame_ns != 0:
        queue_idles(queue, now_ns, idle_frame_ns)
    red.average = red.average - (red.average >> red.weight_shift) + (queue.bytes << RED_SHIFT >> red.weight_shift)


cdef uint64_t red_probability(const red_t *red, uint64_t average) noexcept nogil:
    """Of 2**32: up to max_p between the marks, from there on to certainty at twice the upper one."""
    if average < red.min_bytes:
        return 0
    if average < red.max_bytes:
        return red.max_p * (average - red.min_bytes) // (red.max_bytes - red.min_bytes)
    if average < 2 * red.max_bytes:
        return red.max_p + (ONE - red.max_p) * (average - red.max_bytes) // red.max_bytes
    return ONE


cdef bint red_chooses(red_t *red, prng_t *prng, uint64_t probability) noexcept nogil:
    """Drops are spread evenly: the probability of the next one grows with the frames since the last."""
    cdef uint64_t spent = red.count * probability
    if probability == 0:
        red.count = 0
        return False
    red.count += 1
    if spent < ONE and (prng_next(prng) >> 32) * (ONE - spent) >> 32 >= probability:
        return False
    red.count = 1
    return True


cdef bint red_passes(queue_t *queue, prng_t *prng, parcel_t *parcel) noexcept nogil:
    cdef uint64_t probability = red_probability(&queue.red, queue.red.average >> RED_SHIFT)
    if not red_chooses(&queue.red, prng, probability):
        return True
    return probability < ONE and marked_instead(queue, parcel)


# ---------------------------------------------------------------- CoDel
cdef inline uint64_t control_law(const codel_t *codel, uint64_t at_ns, uint32_t count) noexcept nogil:
    return at_ns + <uint64_t>(<double>codel.interval_ns / sqrt(<double>count))


cdef inline uint64_t max_packet(const queue_t *queue) noexcept nogil:
    """RFC 8289's maxpacket_, the interface's MTU: a queue of one full frame is never too long. A wire that takes any
    frame has seen a full one, or is Ethernet."""
    return queue.frame_bytes if queue.frame_bytes else queue.longest_bytes


cdef parcel_t *codel_look(queue_t *queue, uint64_t now_ns, bint *ok_to_drop) noexcept nogil:
    """dodequeue: the oldest, and whether all have waited too long for a whole interval."""
    cdef codel_t *codel = &queue.codel
    cdef parcel_t *parcel = take(queue)
    ok_to_drop[0] = False
    if parcel == NULL or now_ns - parcel.at_ns < codel.target_ns or queue.bytes <= max_packet(queue):
        codel.first_above_ns = 0
    elif codel.first_above_ns == 0:
        codel.first_above_ns = now_ns + codel.interval_ns
    else:
        ok_to_drop[0] = now_ns >= codel.first_above_ns
    return parcel


cdef parcel_t *codel_take(queue_t *queue, parcel_pool_t *pool, uint64_t now_ns) noexcept nogil:
    cdef codel_t *codel = &queue.codel
    cdef bint ok_to_drop
    cdef uint32_t delta
    cdef parcel_t *parcel = codel_look(queue, now_ns, &ok_to_drop)
    if codel.dropping:
        if not ok_to_drop:
            codel.dropping = False
        while codel.dropping and now_ns >= codel.drop_next_ns:
            codel.count += 1
            if marked_instead(queue, parcel):
                codel.drop_next_ns = control_law(codel, codel.drop_next_ns, codel.count)
                break
            drop_early(queue, pool, parcel)
            parcel = codel_look(queue, now_ns, &ok_to_drop)
            if ok_to_drop:
                codel.drop_next_ns = control_law(codel, codel.drop_next_ns, codel.count)
            else:
                codel.dropping = False
    elif ok_to_drop:
        if not marked_instead(queue, parcel):
            drop_early(queue, pool, parcel)
            parcel = codel_look(queue, now_ns, &ok_to_drop)
        codel.dropping = True
        delta = codel.count - codel.lastcount
        codel.count = 1
        if delta > 1 and now_ns < codel.drop_next_ns + CODEL_AGAIN * codel.interval_ns:
            codel.count = delta
        codel.drop_next_ns = control_law(codel, now_ns, codel.count)
        codel.lastcount = codel.count
    return parcel


# ---------------------------------------------------------------- in and out
cdef inline parcel_t *take(queue_t *queue) noexcept nogil:
    cdef parcel_t *parcel = parcels_pop(&queue.waiting)
    if parcel != NULL:
        queue.frames -= 1
        queue.bytes -= parcel.length
    return parcel


cdef bint queue_put(queue_t *queue, parcel_pool_t *pool, prng_t *prng, parcel_t *parcel, uint64_t now_ns,
                    uint64_t idle_frame_ns) noexcept nogil:
    if queue.kind == QUEUE_RED:
        red_look(queue, now_ns, idle_frame_ns)
    if queue.frames >= queue.limit_frames or queue.bytes + parcel.length > queue.limit_bytes:
        queue.tail_dropped += 1
        queue.red.count = 1
        parcel_free(pool, parcel)
        return False
    if queue.kind == QUEUE_RED and not red_passes(queue, prng, parcel):
        drop_early(queue, pool, parcel)
        return False
    if queue.mark_bytes > 0 and queue.bytes > queue.mark_bytes and parcel_mark(parcel):
        queue.marked += 1
    parcel.at_ns = now_ns
    parcels_push(&queue.waiting, parcel)
    queue.red.idle_since_ns = 0
    queue.frames += 1
    queue.bytes += parcel.length
    if parcel.length > queue.longest_bytes:
        queue.longest_bytes = parcel.length
    queue.most_frames = max(queue.most_frames, <uint64_t>queue.frames)
    queue.most_bytes = max(queue.most_bytes, queue.bytes)
    return True


cdef parcel_t *queue_take(queue_t *queue, parcel_pool_t *pool, uint64_t now_ns) noexcept nogil:
    cdef parcel_t *parcel
    parcel = codel_take(queue, pool, now_ns) if queue.kind == QUEUE_CODEL else take(queue)
    if parcel == NULL and queue.red.idle_since_ns == 0:
        queue.red.idle_since_ns = now_ns
        queue.red.idle_part = 0
    return parcel
