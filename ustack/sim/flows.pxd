# SPDX-License-Identifier: MIT
# What hosts of a simulated network say to each other, as applications of their stacks: one end opens and sends, the
# other listens and reads at once.
#
#     bulk        as fast as TCP takes it: `size` bytes, or endless
#     chunks      chunk_bytes each every_ns, whatever has become of the last one; by the stack's timer, so that each
#                 comes up to a tick late, but none is left out
#     requests    request_bytes, an answer of response_bytes, think_ns of silence, again
#
# A flow has a port of its own, at the end that opens. What it came to is counted at its two applications; what was sent
# again by a bystander at the sender's interface (flow_overhear), who believes no stack. Above: nodes (bystander),
# network. Below: application's contract.

from libc.stdint cimport uint8_t, uint32_t

from ustack.application cimport Application
from ustack.sim.records cimport flow_t, net_t, node_t


# One for each end, and each host. `context` is the net_t.
cdef class FlowSender(Application):
    pass


cdef class FlowReceiver(Application):
    pass


# A host has sent this IPv4 frame.
cdef void flow_overhear(net_t *net, node_t *node, const uint8_t *frame, uint32_t length) noexcept nogil
# Its time has come.
cdef void flow_start(net_t *net, flow_t *flow) noexcept nogil
cdef void flow_stop(net_t *net, flow_t *flow) noexcept nogil
# Ask its sender's TCP, if there is one.
cdef void flow_ask(const net_t *net, flow_t *flow) noexcept nogil
# Whether it ends by itself.
cdef bint flow_ends(const flow_t *flow) noexcept nogil
cdef void flow_free(flow_t *flow) noexcept nogil
