# SPDX-License-Identifier: MIT
# Packets on their way, in the order in which they will arrive: one piece of memory, allocated once.
#
#     bytes:  [ packet | packet | ......... free ......... | packet | packet | rest ]
#                               ^ tail                      ^ head              ^ wraps_at
#
# A packet never crosses the end: one that does not fit there begins again at the front. An empty store begins at the
# front always, so that a short way stays in little cache. Above: direction. Below: nothing.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.link.device cimport offload_t

# The packet's bytes follow the record.
ctypedef struct flight_t:
    uint64_t due_ns
    uint32_t length
    offload_t offload                # what is left to the next device
    uint8_t copies                   # that are still to be sent

ctypedef struct store_t:
    uint8_t *bytes                   # NULL: there is no room for anything
    size_t size_bytes
    size_t head                      # of the packet that arrives first
    size_t tail                      # where the next one goes
    size_t wraps_at
    uint64_t count
    uint64_t most_bytes              # memory that was in use at once, since the beginning
    uint64_t latest_due_ns           # of the packet stored last: the next one does not overtake it
    uint8_t wrapped


cdef inline uint8_t *flight_data(flight_t *flight) noexcept nogil:
    return <uint8_t *>(flight + 1)


cdef inline flight_t *store_first(store_t *store) noexcept nogil:
    return <flight_t *>(store.bytes + store.head) if store.count > 0 else NULL


# 0, or -1 without memory.
cdef int store_allocate(store_t *store, size_t size_bytes) noexcept nogil
cdef void store_free(store_t *store) noexcept nogil
# Room for a packet that arrives at due_ns, or with the one before it if that is later. NULL: there is none.
cdef flight_t *store_append(store_t *store, uint32_t length, uint64_t due_ns) noexcept nogil
# Forget the first one; there is one.
cdef void store_drop_first(store_t *store) noexcept nogil
