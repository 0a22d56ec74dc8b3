# SPDX-License-Identifier: MIT
"""Hosts and routers. See nodes.pxd."""

from cython cimport no_gc_clear
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from ustack.base.debug cimport ensure
from ustack.base.posix cimport htonl, ntohl
from ustack.buf.frame cimport frame_t
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport link_ops_t, link_t, offload_t
from ustack.link.parcels cimport (
    parcel_commit, parcel_data, parcel_free, parcel_lend, parcel_new, parcel_reserve, parcels_free, parcels_pop,
    parcels_push)
from ustack.sim.clockwork cimport clock_set
from ustack.sim.flows cimport flow_overhear
from ustack.sim.hops cimport hop_fits, hop_next_ns, hop_send
from ustack.sim.records cimport NO_HOP, RX_PARCELS_MAX, hop_t
from ustack.wire.arp cimport ARP_BYTES, ARP_REPLY, ARP_REQUEST, arp_emit, arp_parse, arp_t
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ethernet_emit
from ustack.wire.icmpv4 cimport (
    ICMP_FRAGMENTATION_NEEDED, ICMP_HEADER_BYTES, ICMP_UNREACHABLE, icmp_emit, icmp_t)
from ustack.wire.ipv4 cimport IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, ipv4_emit, ipv4_t
from ustack.wire.checksum cimport checksum_update16
from ustack.wire.octets cimport read_u16, read_u16_be, read_u32_be, write_u16_be

cdef enum:
    HOSTS_BASE = 0xC6120000                 # 198.18.0.0; the routers' are in 198.19.0.0/16
    ROUTERS_BASE = 0xC6130000
    QUOTE_BYTES = 576 - 28                  # RFC 1812 section 4.3.2.3
    ICMP_TTL = 64
    IPV4_TTL = 8                            # offsets in the header
    IPV4_CHECKSUM = 10
    IPV4_DESTINATION = 16
    PROTOCOL_ICMP = 1

cdef uint8_t[6] GATEWAY_MAC                 # of every host's gateway
GATEWAY_MAC[:] = [0x02, 0, 0, 0, 1, 0]


# ---------------------------------------------------------------- forwarding
cdef uint32_t host_of_address(const net_t *net, uint32_t address_be) noexcept nogil:
    cdef uint32_t offset = ntohl(address_be) - HOSTS_BASE
    cdef uint32_t index = offset >> 2
    if offset & 3 != 2 or index >= net.node_count or not net.nodes[index].is_host:
        return UINT32_MAX
    return index


cdef inline bint is_ipv4(parcel_t *parcel) noexcept nogil:
    return (parcel.length >= ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES
            and read_u16(parcel_data(parcel) + 12) == ETHERTYPE_IPV4)


cdef void too_long(net_t *net, node_t *node, hop_t *hop, parcel_t *parcel) noexcept nogil:
    """Tell the sender what the next hop carries, if it has asked not to be fragmented and is no error itself."""
    cdef const uint8_t *ip = parcel_data(parcel) + ETHERNET_HEADER_BYTES
    cdef uint32_t quote = parcel.length - ETHERNET_HEADER_BYTES
    cdef parcel_t *error
    cdef uint8_t *out
    cdef ipv4_t header
    cdef icmp_t message
    hop.counters.beyond_mtu += 1
    if hop.silent or not read_u16(ip + 6) & IPV4_DONT_FRAGMENT or ip[9] == PROTOCOL_ICMP:
        return
    # Routers fragment nothing, and the way back may be as narrow: the error is no longer than the packet was.
    quote = min(quote - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES, <uint32_t>QUOTE_BYTES)
    error = parcel_new(&net.pool, ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + ICMP_HEADER_BYTES + quote)
    if error == NULL:
        return
    out = parcel_data(error)
    ethernet_emit(out, GATEWAY_MAC, GATEWAY_MAC, ETHERTYPE_IPV4)
    out += ETHERNET_HEADER_BYTES
    header.tos = 0
    header.ttl = ICMP_TTL
    header.protocol = PROTOCOL_ICMP
    header.header_length = IPV4_HEADER_BYTES
    header.total_length = <uint16_t>(IPV4_HEADER_BYTES + ICMP_HEADER_BYTES + quote)
    header.identification = 0
    header.fragment = 0
    header.src_be = node.gateway_be if node.is_host else node.address_be
    header.dst_be = read_u32_be(ip + 12)
    ipv4_emit(out, &header)
    memcpy(out + IPV4_HEADER_BYTES + ICMP_HEADER_BYTES, ip, quote)
    message.type = ICMP_UNREACHABLE
    message.code = ICMP_FRAGMENTATION_NEEDED
    message.rest_be = htonl(<uint32_t>hop.mtu)
    icmp_emit(out + IPV4_HEADER_BYTES, ICMP_HEADER_BYTES + quote, &message)
    if node.is_host:
        deliver(net, node, error)
    else:
        forward(net, node, error)


cdef inline void send_by(net_t *net, node_t *node, hop_t *hop, parcel_t *parcel) noexcept nogil:
    if not hop_fits(hop, parcel):
        too_long(net, node, hop, parcel)
        parcel_free(&net.pool, parcel)
        return
    net.frames += 1
    hop_send(hop, &net.pool, parcel, net.now_ns)
    clock_set(&net.clock, hop.source, hop_next_ns(hop))


cdef void forward(net_t *net, node_t *node, parcel_t *parcel) noexcept nogil:
    cdef uint8_t *ip = parcel_data(parcel) + ETHERNET_HEADER_BYTES
    cdef uint32_t host, hop
    cdef uint16_t before
    if not is_ipv4(parcel):
        node.unroutable += 1
        parcel_free(&net.pool, parcel)
        return
    host = host_of_address(net, read_u32_be(ip + IPV4_DESTINATION))
    hop = node.routes[host] if host != UINT32_MAX else NO_HOP
    if hop == NO_HOP:
        node.unroutable += 1
        parcel_free(&net.pool, parcel)
        return
    if ip[IPV4_TTL] <= 1:
        node.expired += 1
        parcel_free(&net.pool, parcel)
        return
    before = read_u16_be(ip + IPV4_TTL)
    ip[IPV4_TTL] -= 1
    write_u16_be(ip + IPV4_CHECKSUM,
                 checksum_update16(read_u16_be(ip + IPV4_CHECKSUM), before, read_u16_be(ip + IPV4_TTL)))
    send_by(net, node, net.hops[hop], parcel)


cdef void deliver(net_t *net, node_t *node, parcel_t *parcel) noexcept nogil:
    """Into a host's ring; its stack is to have a turn now."""
    cdef uint8_t *frame = parcel_data(parcel)
    if node.link == NULL or node.held >= RX_PARCELS_MAX:
        node.ring_dropped += 1
        if node.link != NULL:
            node.link.counters.rx_dropped += 1
        parcel_free(&net.pool, parcel)
        return
    if parcel.length >= ETHERNET_HEADER_BYTES:
        memcpy(frame, node.mac, 6)
        memcpy(frame + 6, GATEWAY_MAC, 6)
    parcels_push(&node.arrived, parcel)
    node.held += 1
    clock_set(&net.clock, node.source, net.now_ns)


cdef void node_receive(net_t *net, node_t *node, parcel_t *parcel) noexcept nogil:
    if node.is_host:
        deliver(net, node, parcel)
    else:
        forward(net, node, parcel)


# ---------------------------------------------------------------- a host's interface
cdef void answer_arp(net_t *net, node_t *node, parcel_t *parcel) noexcept nogil:
    """Who asks for the gateway is told; a probe for its own address, and an announcement, are nobody's business."""
    cdef arp_t question, answer
    cdef uint8_t *out
    cdef parcel_t *reply
    if (arp_parse(parcel_data(parcel) + ETHERNET_HEADER_BYTES, parcel.length - ETHERNET_HEADER_BYTES, &question) != 0
            or question.operation != ARP_REQUEST or question.target_be != node.gateway_be):
        return
    reply = parcel_new(&net.pool, ETHERNET_HEADER_BYTES + ARP_BYTES)
    if reply == NULL:
        return
    out = parcel_data(reply)
    ethernet_emit(out, node.mac, GATEWAY_MAC, ETHERTYPE_ARP)
    answer.operation = ARP_REPLY
    memcpy(answer.sender_mac, GATEWAY_MAC, 6)
    answer.sender_be = node.gateway_be
    memcpy(answer.target_mac, question.sender_mac, 6)
    answer.target_be = question.sender_be
    arp_emit(out + ETHERNET_HEADER_BYTES, &answer)
    deliver(net, node, reply)


cdef inline host_impl_t *impl_of(link_t *link) noexcept nogil:
    return <host_impl_t *>link.impl


cdef uint32_t host_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef node_t *node = impl_of(link).node
    cdef parcel_t *parcel
    cdef uint32_t n = 0
    while n < max_frames:
        parcel = parcels_pop(&node.arrived)
        if parcel == NULL:
            break
        parcel_lend(link, parcel, &frames[n])
        parcels_push(&node.lent, parcel)
        n += 1
    return n


cdef void host_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef host_impl_t *impl = impl_of(link)
    cdef parcel_t *parcel
    while n > 0:
        parcel = parcels_pop(&impl.node.lent)
        ensure(parcel != NULL)
        if parcel == NULL:
            return
        impl.node.held -= 1
        parcel_free(&impl.net.pool, parcel)
        n -= 1


cdef uint8_t *host_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    return parcel_reserve(&impl_of(link).net.pool, &impl_of(link).node.reserved, link, length)


cdef void host_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef host_impl_t *impl = impl_of(link)
    cdef parcel_t *parcel = parcel_commit(&impl.net.pool, &impl.node.reserved, link, length, offload)
    if parcel != NULL:
        parcels_push(&impl.node.committed, parcel)


cdef int host_tx_submit(link_t *link) noexcept nogil:
    cdef host_impl_t *impl = impl_of(link)
    cdef net_t *net = impl.net
    cdef node_t *node = impl.node
    cdef parcel_t *parcel = parcels_pop(&node.committed)
    if parcel == NULL:
        return 0
    link.counters.tx_submits += 1
    while parcel != NULL:
        link.counters.tx_frames += 1
        link.counters.tx_bytes += parcel.length
        if is_ipv4(parcel):
            flow_overhear(net, node, parcel_data(parcel), parcel.length)
            if node.out != NO_HOP:
                send_by(net, node, net.hops[node.out], parcel)
                parcel = parcels_pop(&node.committed)
                continue
            node.unroutable += 1
        elif parcel.length >= ETHERNET_HEADER_BYTES + ARP_BYTES:
            answer_arp(net, node, parcel)
        parcel_free(&net.pool, parcel)
        parcel = parcels_pop(&node.committed)
    return 0


cdef int host_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    return 0                                # a manual clock does not go on by waiting


cdef void host_refresh_counters(link_t *link) noexcept nogil:
    return


cdef link_ops_t HOST_OPS
HOST_OPS.rx_burst = host_rx_burst
HOST_OPS.rx_release = host_rx_release
HOST_OPS.tx_reserve = host_tx_reserve
HOST_OPS.tx_commit = host_tx_commit
HOST_OPS.tx_submit = host_tx_submit
HOST_OPS.wait = host_wait
HOST_OPS.refresh_counters = host_refresh_counters


@no_gc_clear        # the network that its node is in must outlive it
cdef class HostLink(Link):
    """A host's interface in a simulated network; made by Network alone."""

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.c.ops = closed_link_ops()

    cdef void attach(self, object owner, net_t *net, node_t *node, Gate gate, uint32_t mtu):
        self.owner = owner
        self.gate = gate
        self.impl.net = net
        self.impl.node = node
        node.link = &self.c
        self.c.impl = &self.impl
        self.c.caps.mtu = mtu
        self.c.caps.max_frame = ETHERNET_HEADER_BYTES + mtu
        self.c.caps.tx_checksum = True
        self.c.caps.rx_checksum = True
        memcpy(self.c.mac, node.mac, 6)
        self.c.ops = &HOST_OPS

    cpdef void close(self) except *:
        """Take no more frames; those under way are dropped on arrival."""
        cdef node_t *node = self.impl.node
        if self.closed or node == NULL:
            return
        self.gate.check("close()")
        self.closed = True
        self.c.ops = closed_link_ops()
        drop_all(self.impl.net, node)
        node.link = NULL
        self.impl.node = NULL


# ---------------------------------------------------------------- life
cdef node_t *node_new(uint32_t index, bint is_host) noexcept nogil:
    cdef node_t *node = <node_t *>calloc(1, sizeof(node_t))
    if node == NULL:
        return NULL
    node.index = index
    node.is_host = is_host
    node.out = NO_HOP
    if is_host:
        node.address_be = htonl(HOSTS_BASE + 4 * index + 2)
        node.gateway_be = htonl(HOSTS_BASE + 4 * index + 1)
    else:
        node.address_be = htonl(ROUTERS_BASE + index + 1)
    node.mac[0] = 0x02                      # locally administered
    node.mac[3] = 1                        # the gateway's has 0 here
    node.mac[4] = <uint8_t>(index >> 8)
    node.mac[5] = <uint8_t>index
    return node


cdef void drop_all(net_t *net, node_t *node) noexcept nogil:
    parcels_free(&net.pool, &node.arrived)
    parcels_free(&net.pool, &node.lent)
    parcels_free(&net.pool, &node.committed)
    if node.reserved != NULL:
        parcel_free(&net.pool, node.reserved)
        node.reserved = NULL
    node.held = 0


cdef void node_free(net_t *net, node_t *node) noexcept nogil:
    drop_all(net, node)
    free(node.routes)
    free(node)
