# SPDX-License-Identifier: MIT
# One direction of a wire between two links: frames in at one, packets out at the other when they have travelled.
#
#     from_link ─▶ cutter ─▶ impairment ─▶ on_time ─▶ to_link         constant delay: a queue
#                                      └─▶ late    ─▶                 a share of them, later by a constant: a second one
#
# A super-frame is cut before anything is decided: each packet is serialised, lost, late or doubled by itself. What has
# no room is dropped and counted; every frame in is under exactly one of `forwarded` (its packets), or a reason.
#
# It must not: read a clock, run any Python. Above: wire. Below: packets, store, link/impairment, the link contract.

from libc.stdint cimport uint32_t, uint64_t

from ustack.bridge.store cimport store_t
from ustack.link.device cimport link_t
from ustack.link.impairment cimport impairment_t

ctypedef struct direction_counters_t:
    uint64_t frames                  # received from the link, super-frames as one
    uint64_t super_frames            # of these
    uint64_t packets                 # that the frames were cut into
    uint64_t bytes                   # of these packets, Ethernet headers included
    uint64_t forwarded               # packets given to the other link, duplicates included
    uint64_t forwarded_bytes
    uint64_t queue_dropped           # the queue in front of the wire was full
    uint64_t lost
    uint64_t beyond_mtu              # packets longer than path_mtu
    uint64_t reordered
    uint64_t duplicated
    uint64_t marked                  # Congestion Experienced was set
    uint64_t unreadable              # frames that were cut, too short, or not what their device says
    uint64_t too_long                # packets beyond the other link's MTU
    uint64_t no_room                 # packets for which the memory was too little
    uint64_t behind_ns               # how much later than due the forwarded packets were given, all together
    uint64_t behind_most_ns          # and one of them at most

ctypedef struct direction_t:
    link_t *from_link
    link_t *to_link
    impairment_t impairment
    store_t on_time
    store_t late
    direction_counters_t counters

# 0, or -1 without memory. memory_bytes: of each of the two stores.
cdef int direction_init(direction_t *direction, link_t *from_link, link_t *to_link, uint64_t seed,
                        size_t memory_bytes) noexcept nogil
cdef void direction_free(direction_t *direction) noexcept nogil
# Take in what is there, about as much as direction_send gives in one call. Returns how many frames there were.
cdef uint32_t direction_receive(direction_t *direction, uint64_t now_ns) noexcept nogil
# Give the other link what has arrived by now, but for what it does not take, and submit it. Returns 0 or -errno.
cdef int direction_send(direction_t *direction, uint64_t now_ns) noexcept nogil
# When the next packet arrives; UINT64_MAX: none travels.
cdef uint64_t direction_next_ns(direction_t *direction) noexcept nogil
