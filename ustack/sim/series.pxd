# SPDX-License-Identifier: MIT
# Samples of flows and hops at equal intervals of virtual time. It changes nothing that it looks at. Above: network.
# Below: records of the simulation and of TCP.

from libc.stdint cimport uint64_t

from ustack.sim.records cimport net_t, sampler_t

cdef enum flow_column_t:
    FLOW_CWND
    FLOW_SSTHRESH
    FLOW_FLIGHT
    FLOW_SRTT
    FLOW_RTO
    FLOW_PACING
    FLOW_ACKED
    FLOW_RECEIVED
    FLOW_AGAIN
    FLOW_STATE
    FLOW_COLUMNS

cdef enum hop_column_t:
    HOP_QUEUE_BYTES
    HOP_QUEUE_FRAMES
    HOP_DROPPED
    HOP_MARKED
    HOP_SENT_BYTES
    HOP_COLUMNS

# From the first time on: columns for the flows and hops that there are. 0, or -1 without memory.
cdef int sampler_start(net_t *net, uint64_t every_ns, uint64_t rows_max) noexcept nogil
# One row, if it is time; when the next one is.
cdef uint64_t sampler_take(net_t *net) noexcept nogil
cdef void sampler_free(sampler_t *sampler) noexcept nogil
# {"times_ns": array, "flows": [{name: array}], "hops": [{name: array}]}
cdef dict sampler_arrays(const sampler_t *sampler)
