# SPDX-License-Identifier: MIT
# What waits in front of a wire: drop-tail, CoDel, RED. A frame that is being sent no longer waits.
#
# It must not: know what a frame is about beyond its length and its IP header's ECN bits. Sources: RFC 8289 (CoDel);
# Floyd and Jacobson, "Random Early Detection Gateways for Congestion Avoidance" (1993), and Floyd's "gentle" (2000);
# RFC 3168 section 5 for marks. Above: hops. Below: parcels, records.

from libc.stdint cimport uint8_t, uint64_t

from ustack.base.prng cimport prng_t
from ustack.link.parcels cimport parcel_pool_t, parcel_t
from ustack.sim.records cimport queue_t

cdef enum:
    RED_WEIGHT_SHIFT_MAX = 16

cdef void queue_init(queue_t *queue) noexcept nogil
# What waits stays; another discipline begins with nothing known of the past.
cdef void queue_set_kind(queue_t *queue, uint8_t kind) noexcept nogil
# Takes the parcel, or frees it. idle_frame_ns: what a frame of 1,500 bytes takes on this wire, for RED's idle times; 0:
# none goes.
cdef bint queue_put(queue_t *queue, parcel_pool_t *pool, prng_t *prng, parcel_t *parcel, uint64_t now_ns,
                    uint64_t idle_frame_ns) noexcept nogil
# RED's average after an idle time is as if each frame that the wire could have sent in it had found nothing. Before
# the wire's rate changes.
cdef void queue_idles(queue_t *queue, uint64_t now_ns, uint64_t idle_frame_ns) noexcept nogil
# The next one to be sent; NULL: none waits (any more), and the wire is idle from now on.
cdef parcel_t *queue_take(queue_t *queue, parcel_pool_t *pool, uint64_t now_ns) noexcept nogil
