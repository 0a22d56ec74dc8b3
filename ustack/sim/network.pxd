# SPDX-License-Identifier: MIT
# The Python face of a simulated network. Body and documentation: network.pyx.

from libc.stdint cimport uint64_t

from ustack.link.gate cimport Gate
from ustack.sim.records cimport flow_t, hop_t, net_t


cdef class Network:
    cdef net_t c
    cdef Gate gate                          # one for the network and all its stacks
    cdef readonly bint closed
    cdef bint routed                        # the routes are those of the present links
    cdef dict _nodes                        # name -> number
    cdef dict _stacks                       # name -> Stack
    cdef dict _hops                         # (name, name) -> Hop
    cdef dict _flows                        # name -> Flow
    cdef dict _senders                      # name -> FlowSender
    cdef dict _receivers
    cdef list _captures
    cdef int add_node(self, str name, bint is_host) except -1
    cdef int number_of(self, object name) except -1
    cdef Hop add_hop(self, int begin, int end)
    cdef int route(self) except -1
    cdef int schedule(self, uint64_t at_ns, int flow, bint stop) except -1
    cdef int control_of(self, object stack, object name) except -2
    cdef int look_at_stacks(self) except -1
    cdef int set_clocks(self) except -1
    cdef int between(self) except -1
    cdef list in_order(self)


cdef class Hop:
    cdef Network network                    # keeps the hop alive
    cdef hop_t *c
    cdef readonly str name
    cdef object capture
    cdef int check(self, str call) except -1
    cdef int changed(self) except -1


cdef class Flow:
    cdef Network network
    cdef flow_t *c
    cdef readonly str name
    cdef object source
    cdef object sink
    cdef object cc
