# SPDX-License-Identifier: MIT
# The wire of a simulated network: what happens to a frame between two link ends. Seeded, on a manual clock.
#
#     end a                       direction ab                          end b
#     reserve/commit/submit --> filter, queue, loss, ... --> in flight --> arrived --> rx_burst/release
#                               (one generator each)        heap by due    FIFO, lent from its head
#
# Above: sim_end (an end as a link), sim (the Python face). Below: impairment, which decides what becomes of a frame,
# and parcels, the frames.
#
# A frame has one owner at a time: the sending end (reserved, committed), its direction's heap, the receiving
# end's FIFO.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.link.device cimport link_t
from ustack.link.gate cimport Gate
from ustack.link.impairment cimport impairment_t
from ustack.link.parcels cimport arrivals_t, parcel_pool_t, parcel_t, parcels_t

cdef enum:
    SIM_FRAME_MAX = 131072                  # bytes; more than any stack sends
    SIM_PACKET_MAX = 65535                  # bytes: a super-frame is still one IP packet

ctypedef struct sim_stats_t:
    uint64_t sent                           # frames that the sending end handed over
    uint64_t delivered                      # frames that reached the other end's ring
    uint64_t filtered                       # dropped by the filter
    uint64_t queue_dropped                  # tail drop in front of the wire
    uint64_t lost
    uint64_t beyond_mtu                     # longer than path_mtu
    uint64_t reordered
    uint64_t duplicated
    uint64_t corrupted
    uint64_t ring_dropped                   # the other end's ring was full, or the end was closed
    uint64_t marked                         # Congestion Experienced, set here or before
    uint64_t no_memory

ctypedef struct sim_direction_t:
    impairment_t impairment                 # what becomes of a frame
    sim_end_t *receiver
    arrivals_t in_flight
    uint64_t orders
    uint8_t which                           # 0: a to b, 1: b to a
    uint8_t filtered                        # a Python filter is set
    sim_stats_t stats

ctypedef struct sim_end_t:
    sim_wire_t *wire
    link_t *link                            # NULL: closed
    sim_direction_t *out
    parcel_t *reserved                   # between tx_reserve and tx_commit
    parcels_t queued                        # between tx_commit and tx_submit
    uint32_t queued_frames
    uint32_t tx_slots
    parcel_t **arrived                   # ring of rx_slots: `lent` frames from head, then those not yet taken
    uint32_t rx_slots
    uint32_t head
    uint32_t lent
    uint32_t used

ctypedef struct sim_wire_t:
    uint64_t now_ns
    sim_direction_t directions[2]
    sim_end_t ends[2]
    parcel_pool_t pool                      # `live` is zero after close
    uint32_t mtu
    void *owner                             # the SimWire: filters and their errors


cdef class SimWire:
    cdef sim_wire_t *c
    cdef object filter_ab
    cdef object filter_ba
    cdef Gate gate                          # one for both ends: what one does, the other sees
    cdef object error                       # first exception of a filter, raised by the next Python call
    cdef void raise_parked(self) except *


# All or nothing: NULL without memory. `owner` is borrowed.
cdef sim_wire_t *sim_wire_new(uint64_t seed, uint32_t mtu, uint32_t rx_slots, uint32_t tx_slots,
                              uint64_t now_ns, void *owner) noexcept nogil
# Frees the wire and every frame on it. Both ends must be closed. Returns the frames that still had an owner (a leak).
cdef uint64_t sim_wire_free(sim_wire_t *wire) noexcept nogil
# Frees what the end holds; what still travels towards it is dropped on arrival.
cdef void sim_end_close(sim_end_t *end) noexcept nogil
# Drops everything in flight, in both directions.
cdef void sim_wire_drain(sim_wire_t *wire) noexcept nogil
# Takes `frame` and sends it from `end`, at wire.now_ns.
cdef void sim_send(sim_end_t *end, parcel_t *frame) noexcept nogil
# Moves the clock (never back) and what is due by then into the receivers' rings.
cdef void sim_advance(sim_wire_t *wire, uint64_t now_ns) noexcept nogil
# When the next frame reaches `end` (at or before wire.now_ns if one waits to be taken), UINT64_MAX if none travels.
cdef uint64_t sim_next_ns(const sim_end_t *end) noexcept nogil
