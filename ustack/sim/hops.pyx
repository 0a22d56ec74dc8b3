# SPDX-License-Identifier: MIT
"""One way of a link. See hops.pxd."""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from ustack.base.prng cimport prng_seed, prng_unit
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_VERIFIED
from ustack.link.capture cimport CAPTURE_OUTBOUND, capture_burst_ended, capture_frame
from ustack.link.impairment cimport fate_t, impairment_decide, impairment_init, impairment_lateness
from ustack.link.parcels cimport (
    arrivals_free, arrivals_pop, arrivals_push, arrives_before, parcel_copy, parcel_data, parcel_flip_one_bit,
    parcel_free, parcels_free, parcels_pop, parcels_push)
from ustack.sim.queues cimport RED_WEIGHT_SHIFT_MAX, queue_idles, queue_init, queue_put, queue_set_kind, queue_take
from ustack.sim.records cimport QUEUE_CODEL, QUEUE_DROPTAIL, QUEUE_RED, change_t, rate_step_t
from ustack.wire.checksum cimport checksum_emit, checksum_partial
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES
from ustack.wire.octets cimport write_u16_be
from ustack.wire.tcp cimport TCP_CHECKSUM_OFFSET, TCP_HEADER_BYTES

cdef enum:
    IDLE_FRAME_BITS = 1500 * 8

cdef uint64_t SECOND_NS = 1000000000ULL
cdef uint64_t TIME_MAX = 1ULL << 62
cdef object STEP_NS = 10000                 # of a trace that is repeated, on average at least: its steps are work


# ---------------------------------------------------------------- under way
cdef void put_under_way(hop_t *hop, parcel_pool_t *pool, parcel_t *parcel, uint64_t at_ns) noexcept nogil:
    parcel.at_ns = at_ns
    parcel.order = hop.orders
    hop.orders += 1
    if hop.in_order.last == NULL or at_ns >= hop.in_order.last.at_ns:
        parcels_push(&hop.in_order, parcel)
    elif arrivals_push(&hop.late, parcel) < 0:
        hop.counters.no_memory += 1
        parcel_free(pool, parcel)


cdef parcel_t *arrived(hop_t *hop, uint64_t now_ns) noexcept nogil:
    cdef parcel_t *first = hop.in_order.first
    if hop.late.used and (first == NULL or arrives_before(hop.late.heap[0], first)):
        if hop.late.heap[0].at_ns > now_ns:
            return NULL
        return arrivals_pop(&hop.late)
    if first == NULL or first.at_ns > now_ns:
        return NULL
    return parcels_pop(&hop.in_order)


# ---------------------------------------------------------------- what becomes of a frame
cdef bint listed(hop_t *hop) noexcept nogil:
    """Is the frame that has just left one of those to be lost?"""
    while hop.losses_at < hop.losses_count and hop.losses[hop.losses_at] < hop.counters.sent:
        hop.losses_at += 1
    return hop.losses_at < hop.losses_count and hop.losses[hop.losses_at] == hop.counters.sent


cdef bint burst_lost(hop_t *hop) noexcept nogil:
    """Gilbert and Elliott's model of a path with two states."""
    if prng_unit(&hop.chance.prng) < (hop.bad_to_good if hop.bad else hop.good_to_bad):
        hop.bad = not hop.bad
    return prng_unit(&hop.chance.prng) < (hop.loss_bad if hop.bad else hop.loss_good)


cdef void complete_checksum(parcel_t *parcel) noexcept nogil:
    """What a device would have filled in, for who looks at it: a capture. The segment begins behind an IPv4 header."""
    cdef uint8_t *ip = parcel_data(parcel) + ETHERNET_HEADER_BYTES
    cdef uint32_t header_bytes, length
    if parcel.checksum != CHECKSUM_PARTIAL or parcel.length < ETHERNET_HEADER_BYTES + 20:
        return
    header_bytes = (ip[0] & 15) * 4
    if ETHERNET_HEADER_BYTES + header_bytes + TCP_HEADER_BYTES > parcel.length:
        return
    length = parcel.length - ETHERNET_HEADER_BYTES - header_bytes
    write_u16_be(ip + header_bytes + TCP_CHECKSUM_OFFSET, checksum_emit(checksum_partial(ip + header_bytes, length, 0)))
    parcel.checksum = CHECKSUM_VERIFIED


cdef void depart(hop_t *hop, parcel_pool_t *pool, parcel_t *parcel, uint64_t now_ns) noexcept nogil:
    """Its last bit is out."""
    cdef fate_t fate
    cdef parcel_t *twin = NULL
    hop.counters.sent += 1
    hop.counters.sent_bytes += parcel.length
    if hop.capture != NULL:
        complete_checksum(parcel)
        capture_frame(hop.capture, now_ns, parcel_data(parcel), parcel.length, parcel.length, CAPTURE_OUTBOUND)
        capture_burst_ended(hop.capture)
    if hop.by_chance:
        impairment_decide(&hop.chance, &fate)
    else:
        memset(&fate, 0, sizeof(fate_t))
    if hop.good_to_bad > 0:
        fate.lost = burst_lost(hop)
    if listed(hop) or hop.cut or fate.lost:
        hop.counters.lost += 1
        parcel_free(pool, parcel)
        return
    if fate.duplicated:
        twin = parcel_copy(pool, parcel)
    if fate.corrupted:
        hop.counters.corrupted += 1
        complete_checksum(parcel)           # recorded or not: a bit that no checksum is about then hurts nobody
        parcel_flip_one_bit(parcel, &hop.chance.prng)
    now_ns += hop.chance.delay_ns + fate.jitter_ns
    if fate.reordered:
        hop.counters.reordered += 1
        put_under_way(hop, pool, parcel, now_ns + impairment_lateness(&hop.chance))
    else:
        put_under_way(hop, pool, parcel, now_ns)
    if twin != NULL:
        hop.counters.duplicated += 1
        put_under_way(hop, pool, twin, now_ns)


# ---------------------------------------------------------------- the wire
cdef inline uint64_t rate_now(const hop_t *hop) noexcept nogil:
    return hop.trace_bps if hop.trace_count else hop.rate_bps


cdef inline bint stands_still(const hop_t *hop) noexcept nogil:
    return hop.stopped or (hop.trace_count > 0 and hop.trace_bps == 0)


cdef inline uint64_t idle_frame_ns(const hop_t *hop) noexcept nogil:
    """What an average frame takes; 0: none goes."""
    cdef uint64_t rate_bps = rate_now(hop)
    if stands_still(hop):
        return 0
    return max(<uint64_t>1, IDLE_FRAME_BITS * SECOND_NS // rate_bps) if rate_bps else 1


cdef inline uint64_t serve_end_ns(uint64_t since_ns, uint64_t work, uint64_t rate_bps) noexcept nogil:
    return since_ns + (work + rate_bps - 1) // rate_bps


cdef void serve_next(hop_t *hop, parcel_pool_t *pool, uint64_t now_ns, uint64_t begun) noexcept nogil:
    """The wire is free. A wire that takes no time sends all that waits. begun: what it has done of the first frame's
    work, when it became free before the nanosecond was over."""
    cdef parcel_t *parcel
    while not stands_still(hop):
        parcel = queue_take(&hop.queue, pool, now_ns)
        if parcel == NULL:
            return
        if rate_now(hop) != 0:
            hop.serving = parcel
            hop.work = parcel.length * 8 * SECOND_NS
            hop.work -= begun if begun < hop.work else hop.work
            hop.since_ns = now_ns
            hop.served_ns = serve_end_ns(now_ns, hop.work, rate_now(hop))
            return
        depart(hop, pool, parcel, now_ns)


cdef void wire_pause(hop_t *hop, uint64_t now_ns) noexcept nogil:
    """Before the rate changes: how much of the frame is out, or how long there was none."""
    cdef uint64_t done
    if hop.serving != NULL and hop.served_ns != UINT64_MAX:
        done = hop.work if now_ns >= hop.served_ns else (now_ns - hop.since_ns) * rate_now(hop)
        hop.work -= done if done < hop.work else hop.work
        hop.served_ns = UINT64_MAX
    elif not stands_still(hop):
        queue_idles(&hop.queue, now_ns, idle_frame_ns(hop))
    elif hop.queue.red.idle_since_ns != 0:
        hop.queue.red.idle_since_ns += now_ns - hop.since_ns
    hop.since_ns = now_ns


cdef void wire_resume(hop_t *hop, parcel_pool_t *pool, uint64_t now_ns) noexcept nogil:
    """After it. A frame whose last bit is out has left, whatever became of the wire."""
    hop.since_ns = now_ns
    if hop.serving != NULL and hop.work == 0:
        hop.served_ns = now_ns
    if stands_still(hop):
        return
    if hop.serving == NULL:
        serve_next(hop, pool, now_ns, 0)
        return
    hop.served_ns = serve_end_ns(now_ns, hop.work, rate_now(hop)) if rate_now(hop) else now_ns


cdef void hop_send(hop_t *hop, parcel_pool_t *pool, parcel_t *parcel, uint64_t now_ns) noexcept nogil:
    hop.counters.offered += 1
    if not queue_put(&hop.queue, pool, &hop.chance.prng, parcel, now_ns,
                     idle_frame_ns(hop) if hop.queue.kind == QUEUE_RED else 0):
        return
    if hop.serving == NULL:
        serve_next(hop, pool, now_ns, 0)


cdef uint64_t begun_before(const hop_t *hop) noexcept nogil:
    """Of a next frame's work, what the wire does in the rest of the nanosecond in which this one leaves."""
    cdef uint64_t done = (hop.served_ns - hop.since_ns) * rate_now(hop)
    return done - hop.work if done > hop.work else 0


cdef parcel_t *hop_arrival(hop_t *hop, parcel_pool_t *pool, uint64_t now_ns) noexcept nogil:
    cdef parcel_t *parcel
    cdef uint64_t begun
    if hop.changes_at < hop.changes_count or hop.trace_at < hop.trace_count:
        change_due(hop, pool, now_ns)
    while hop.served_ns <= now_ns:
        parcel = hop.serving
        begun = begun_before(hop)
        hop.serving = NULL
        hop.served_ns = UINT64_MAX
        depart(hop, pool, parcel, now_ns)
        serve_next(hop, pool, now_ns, begun)
    parcel = arrived(hop, now_ns)
    if parcel != NULL:
        hop.counters.delivered += 1
        hop.counters.delivered_bytes += parcel.length
    return parcel


# ---------------------------------------------------------------- changes
cdef void change_due(hop_t *hop, parcel_pool_t *pool, uint64_t now_ns) noexcept nogil:
    """All that changes at one time does so before a frame moves."""
    cdef const change_t *change
    if not (hop.changes_at < hop.changes_count and hop.changes[hop.changes_at].at_ns <= now_ns
            or hop.trace_at < hop.trace_count
            and hop.trace_base_ns + hop.trace[hop.trace_at].after_ns <= now_ns):
        return
    wire_pause(hop, now_ns)
    while hop.changes_at < hop.changes_count and hop.changes[hop.changes_at].at_ns <= now_ns:
        change = &hop.changes[hop.changes_at]
        hop.changes_at += 1
        store(hop, change.setting, change.value)
    while hop.trace_at < hop.trace_count and hop.trace_base_ns + hop.trace[hop.trace_at].after_ns <= now_ns:
        hop.trace_bps = hop.trace[hop.trace_at].rate_bps
        hop.trace_at += 1
        if hop.trace_at == hop.trace_count and hop.trace_repeat_ns:
            hop.trace_at = 0
            hop.trace_base_ns += hop.trace_repeat_ns
    wire_resume(hop, pool, now_ns)


cdef int hop_schedule(hop_t *hop, uint64_t at_ns, str name, object value) except -1:
    cdef uint32_t number = number_of(name)
    cdef uint64_t word = word_of(value)
    cdef uint32_t at = hop.changes_count
    cdef change_t *grown
    if hop.changes_at:                      # those that are done make room
        hop.changes_count -= hop.changes_at
        memmove(hop.changes, hop.changes + hop.changes_at, hop.changes_count * sizeof(change_t))
        hop.changes_at = 0
        at = hop.changes_count
    grown = <change_t *>realloc(hop.changes, (at + 1) * sizeof(change_t))
    if grown == NULL:
        raise MemoryError
    hop.changes = grown
    while at > 0 and hop.changes[at - 1].at_ns > at_ns:
        hop.changes[at] = hop.changes[at - 1]
        at -= 1
    hop.changes[at].at_ns = at_ns
    hop.changes[at].setting = number
    hop.changes[at].value = word
    hop.changes_count += 1
    return 0


cdef int hop_set_trace(hop_t *hop, parcel_pool_t *pool, list steps, uint64_t repeat_ns, uint64_t now_ns) except -1:
    cdef rate_step_t *trace
    cdef uint32_t i
    before = -1
    for after, bps in steps:
        if not (isinstance(after, int) and isinstance(bps, int) and before < after < TIME_MAX and 0 <= bps < RATE_MAX):
            raise ValueError(f"rates: step {(after, bps)!r}: must be (ns, bits per second), one after the other")
        before = after
    if not steps or steps[0][0] != 0:
        raise ValueError("rates: the first step must be at 0 ns")
    if repeat_ns and repeat_ns <= <uint64_t>before:
        raise ValueError(f"rates: they are to be repeated after {repeat_ns} ns, before the last step at {before} ns")
    if repeat_ns and repeat_ns < len(steps) * STEP_NS:
        raise ValueError(
            f"rates: {len(steps)} steps in {repeat_ns} ns are too many: a repetition takes {STEP_NS} ns for each")
    trace = <rate_step_t *>malloc(len(steps) * sizeof(rate_step_t))
    if trace == NULL:
        raise MemoryError
    for i in range(<uint32_t>len(steps)):
        trace[i].after_ns = steps[i][0]
        trace[i].rate_bps = steps[i][1]
    wire_pause(hop, now_ns)
    free(hop.trace)
    hop.trace = trace
    hop.trace_count = <uint32_t>len(steps)
    hop.trace_at = 0
    hop.trace_base_ns = now_ns
    hop.trace_repeat_ns = repeat_ns
    hop.trace_bps = 0
    change_due(hop, pool, now_ns)
    return 0


cdef int hop_lose(hop_t *hop, list numbers) except -1:
    cdef uint64_t *losses
    cdef uint32_t i
    if any(not isinstance(number, int) or not 0 < number < TIME_MAX for number in numbers):
        raise ValueError("lose: frames are numbered from 1")
    ascending = sorted(set(numbers))
    losses = <uint64_t *>malloc((len(ascending) + 1) * sizeof(uint64_t))
    if losses == NULL:
        raise MemoryError
    for i in range(<uint32_t>len(ascending)):
        losses[i] = ascending[i]
    free(hop.losses)
    hop.losses = losses
    hop.losses_count = <uint32_t>len(ascending)
    hop.losses_at = 0
    return 0


# ---------------------------------------------------------------- settings
ctypedef struct place_t:
    size_t offset                           # of the field in hop_t
    size_t size                             # of the field: 4 or 8 bytes; of a queue's kind 1

cdef enum:
    SETTINGS_MAX = 32

cdef object RATE_MAX = 1 << 44              # 17 Tb/s: a frame's bits times 10**9 stay in 64 bits
cdef dict KINDS = {"droptail": QUEUE_DROPTAIL, "codel": QUEUE_CODEL, "red": QUEUE_RED}
cdef place_t[SETTINGS_MAX] PLACES
cdef dict SETTINGS = {}                     # name: index in PLACES, least and greatest value. Floats: probabilities
cdef hop_t ANY                              # what offsets are measured in


cdef int setting(str name, const void *field, size_t size, object least, object most) except -1:
    cdef uint32_t number = <uint32_t>len(SETTINGS)
    if number >= SETTINGS_MAX or name in SETTINGS:
        raise AssertionError(f"{name}: the table is full or has it twice")
    PLACES[number].offset = <size_t>(<const char *>field - <const char *>&ANY)
    PLACES[number].size = size
    SETTINGS[name] = (number, least, most)
    return 0


setting("rate_bps", &ANY.rate_bps, sizeof(ANY.rate_bps), 0, RATE_MAX)
setting("delay_ns", &ANY.chance.delay_ns, sizeof(ANY.chance.delay_ns), 0, 1 << 50)
setting("jitter_ns", &ANY.chance.jitter_ns, sizeof(ANY.chance.jitter_ns), 0, 1 << 50)
setting("queue", &ANY.queue.kind, sizeof(ANY.queue.kind), None, None)
setting("queue_bytes", &ANY.queue.limit_bytes, sizeof(ANY.queue.limit_bytes), 1, 1 << 40)
setting("queue_frames", &ANY.queue.limit_frames, sizeof(ANY.queue.limit_frames), 1, 1 << 24)
setting("mark_bytes", &ANY.queue.mark_bytes, sizeof(ANY.queue.mark_bytes), 0, 1 << 40)
setting("codel_target_ns", &ANY.queue.codel.target_ns, sizeof(ANY.queue.codel.target_ns), 1, 1 << 40)
setting("codel_interval_ns", &ANY.queue.codel.interval_ns, sizeof(ANY.queue.codel.interval_ns), 1, 1 << 40)
setting("red_min_bytes", &ANY.queue.red.min_bytes, sizeof(ANY.queue.red.min_bytes), 1, 1 << 31)
setting("red_max_bytes", &ANY.queue.red.max_bytes, sizeof(ANY.queue.red.max_bytes), 2, 1 << 31)
setting("red_max_p", &ANY.queue.red.max_p, sizeof(ANY.queue.red.max_p), 0.0, 1.0)
setting("red_weight_shift", &ANY.queue.red.weight_shift, sizeof(ANY.queue.red.weight_shift), 1, RED_WEIGHT_SHIFT_MAX)
setting("ecn", &ANY.queue.ecn, sizeof(ANY.queue.ecn), 0, 1)
setting("loss", &ANY.chance.loss, sizeof(ANY.chance.loss), 0.0, 1.0)
setting("loss_good", &ANY.loss_good, sizeof(ANY.loss_good), 0.0, 1.0)
setting("loss_bad", &ANY.loss_bad, sizeof(ANY.loss_bad), 0.0, 1.0)
setting("good_to_bad", &ANY.good_to_bad, sizeof(ANY.good_to_bad), 0.0, 1.0)
setting("bad_to_good", &ANY.bad_to_good, sizeof(ANY.bad_to_good), 0.0, 1.0)
setting("reorder", &ANY.chance.reorder, sizeof(ANY.chance.reorder), 0.0, 1.0)
setting("reorder_ns", &ANY.chance.reorder_ns, sizeof(ANY.chance.reorder_ns), 1, 1 << 50)
setting("duplicate", &ANY.chance.duplicate, sizeof(ANY.chance.duplicate), 0.0, 1.0)
setting("corrupt", &ANY.chance.corrupt, sizeof(ANY.chance.corrupt), 0.0, 1.0)
setting("mtu", &ANY.mtu, sizeof(ANY.mtu), 0, 65535)
setting("silent", &ANY.silent, sizeof(ANY.silent), 0, 1)
setting("down", &ANY.stopped, sizeof(ANY.stopped), 0, 1)
setting("cut", &ANY.cut, sizeof(ANY.cut), 0, 1)


cdef inline uint32_t number_of(str name) except 0xFFFFFFFF:
    return SETTINGS[name][0]


cdef object hop_check(str name, object value):
    if name not in SETTINGS:
        raise ValueError(f"no setting of a link is called {name!r}")
    _, least, most = SETTINGS[name]
    if least is None:
        if value not in KINDS:
            raise ValueError(f"{name} {value!r}: must be {', '.join(KINDS)}")
        return KINDS[value]
    if isinstance(most, float):
        if not isinstance(value, (int, float)) or not least <= value <= most:
            raise ValueError(f"{name} {value!r}: must be a probability, 0.0 to 1.0")
        return float(value)
    if not isinstance(value, int):
        raise ValueError(f"{name} {value!r}: must be a whole number")
    if not least <= value <= most:
        raise ValueError(f"{name} {value}: must be {least} to {most}")
    return int(value)


cdef uint64_t word_of(object value) noexcept:
    """Of a probability its double's bits."""
    cdef double number
    cdef uint64_t word
    if isinstance(value, float):
        number = value
        memcpy(&word, &number, 8)
        return word
    return value


cdef void store(hop_t *hop, uint32_t number, uint64_t word) noexcept nogil:
    cdef char *field = <char *>hop + PLACES[number].offset
    cdef double share
    if field == <char *>&hop.queue.kind:
        queue_set_kind(&hop.queue, <uint8_t>word)
    elif field == <char *>&hop.queue.red.max_p:
        memcpy(&share, &word, 8)
        hop.queue.red.max_p = <uint32_t>(share * 4294967295.0)
    elif PLACES[number].size == 8:
        memcpy(field, &word, 8)
    else:
        (<uint32_t *>field)[0] = <uint32_t>word
    hop.queue.frame_bytes = hop.mtu + ETHERNET_HEADER_BYTES if hop.mtu else 0
    hop.by_chance = (hop.chance.loss > 0 or hop.chance.reorder > 0 or hop.chance.duplicate > 0
                     or hop.chance.corrupt > 0 or hop.chance.jitter_ns > 0)


cdef int hop_set(hop_t *hop, parcel_pool_t *pool, dict checked, uint64_t now_ns) except -1:
    wire_pause(hop, now_ns)
    for name, value in checked.items():
        store(hop, number_of(name), word_of(value))
    wire_resume(hop, pool, now_ns)
    return 0


# ---------------------------------------------------------------- life
cdef hop_t *hop_new(uint64_t seed, uint32_t index, uint32_t begin, uint32_t end) noexcept nogil:
    cdef hop_t *hop = <hop_t *>calloc(1, sizeof(hop_t))
    if hop == NULL:
        return NULL
    hop.index = index
    hop.begin = begin
    hop.end = end
    hop.served_ns = UINT64_MAX
    queue_init(&hop.queue)
    impairment_init(&hop.chance, seed)
    prng_seed(&hop.chance.prng, seed ^ (index + 1) * 0x9E3779B97F4A7C15ULL)
    return hop


cdef void hop_free(hop_t *hop, parcel_pool_t *pool) noexcept nogil:
    if hop.serving != NULL:
        parcel_free(pool, hop.serving)
    parcels_free(pool, &hop.queue.waiting)
    parcels_free(pool, &hop.in_order)
    arrivals_free(&hop.late, pool)
    free(hop.losses)
    free(hop.changes)
    free(hop.trace)
    free(hop)
