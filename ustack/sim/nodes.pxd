# SPDX-License-Identifier: MIT
# Hosts and routers of a simulated network: a host's interface as a link, and what a router does with a packet.
#
# A host is alone in its network of four addresses, and its way out is the gateway there: ARP about it is answered at
# the interface and never travels. A router knows the way to each host (network.routes), takes one off the TTL, and
# tells the sender of a packet that may not be fragmented when it is too long for the next hop (RFC 1191); it fragments
# none. MAC addresses are the interface's concern alone. Above: network, pump. Below: hops, link's contract.

from libc.stdint cimport uint32_t, uint64_t

from ustack.link.device cimport Link
from ustack.link.gate cimport Gate
from ustack.link.parcels cimport parcel_t
from ustack.sim.records cimport net_t, node_t


ctypedef struct host_impl_t:                # link_t.impl
    net_t *net
    node_t *node


# A host's interface. Made by Network.
cdef class HostLink(Link):
    cdef host_impl_t impl                   # NULL: closed
    cdef object owner                       # the Network, which owns the node
    cdef void attach(self, object owner, net_t *net, node_t *node, Gate gate, uint32_t mtu)


# A frame has arrived. Takes the parcel.
cdef void node_receive(net_t *net, node_t *node, parcel_t *parcel) noexcept nogil
# NULL without memory.
cdef node_t *node_new(uint32_t index, bint is_host) noexcept nogil
cdef void node_free(net_t *net, node_t *node) noexcept nogil
# The host that an address belongs to; UINT32_MAX: none.
cdef uint32_t host_of_address(const net_t *net, uint32_t address_be) noexcept nogil
