# SPDX-License-Identifier: MIT
"""Output: the next hop, the reservation, the headers, the checksums."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.counters cimport count, counter_t
from ustack.base.debug cimport ensure
from ustack.base.posix cimport iovec
from ustack.base.types cimport ip_addr_is_v4, ip_addr_t
from ustack.ip.neighbour cimport (
    neighbour_find, neighbour_fresh, neighbour_insert, neighbour_reserve, neighbour_t, neighbour_wait)
from ustack.ip.records cimport (
    IP_NO_MEMORY, IP_NO_ROUTE, IP_OK, IP_PROTO_UDP, IP_RING_FULL, ip_is_foreign_host, ip_on_link, ip_route_t, ip_t)
from ustack.ip.v4.arp cimport arp_use
from ustack.link.device cimport offload_t
from ustack.wire.checksum cimport checksum_emit, checksum_fold, checksum_partial
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ethernet_emit
from ustack.wire.ipv4 cimport (
    IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, IPV4_MAX_BYTES, ipv4_begin, ipv4_finish, ipv4_pseudo_sum, ipv4_t)
from ustack.wire.octets cimport read_u32_be, write_u16_be

cdef enum:
    HEADERS_BYTES = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES


cdef neighbour_t *_resolve(ip_t *ip, const ip_route_t *route, const ip_addr_t *next_hop, int *status,
                           bint *waits) noexcept nogil:
    # The long way: find or make the entry, ask what its state demands. NULL: *status says why.
    cdef neighbour_t *entry
    cdef uint16_t index = neighbour_find(ip.neighbours, next_hop)
    if index == 0:
        if not ip_is_foreign_host(ip, next_hop.words_be[3]):     # also "no gateway", which is all zero
            status[0] = IP_NO_ROUTE
            count(ip.counters, counter_t.DROP_NO_ROUTE)
            return NULL
        index = neighbour_insert(ip.neighbours, next_hop, True)
        if index == 0:
            status[0] = IP_NO_MEMORY
            count(ip.counters, counter_t.DROP_NO_MEMORY)
            return NULL
    entry = &ip.neighbours.entries[index]
    if next_hop == &ip.config.gateway:
        entry.pinned = True          # also one that was there because the gateway asked for us first
    waits[0] = not arp_use(ip, index)
    route.neighbour[0] = index
    return entry


cdef inline void _write_headers(ip_t *ip, const ip_route_t *route, const neighbour_t *entry) noexcept nogil:
    cdef ipv4_t header
    ethernet_emit(ip.frame, entry.mac, ip.link.mac, ETHERTYPE_IPV4)
    header.tos = route.tos
    header.ttl = route.ttl
    header.protocol = route.protocol
    header.fragment = 0 if route.may_fragment else IPV4_DONT_FRAGMENT
    header.src_be = route.src.words_be[3]
    header.dst_be = route.dst.words_be[3]
    ipv4_begin(ip.frame + ETHERNET_HEADER_BYTES, &header)


cdef uint8_t *ip_reserve(ip_t *ip, const ip_route_t *route, uint32_t length, int *status,
                         uint64_t now_ns) noexcept nogil:
    cdef const ip_addr_t *next_hop = route.dst
    cdef neighbour_t *entry
    cdef bint waits = False
    ensure(length <= ip_payload_max(ip))
    ip.now_ns = now_ns
    ip.frame = NULL
    ip.pending_neighbour = 0
    if not ip_on_link(ip, next_hop.words_be[3]):
        next_hop = &ip.config.gateway
    entry = neighbour_fresh(ip.neighbours, route.neighbour[0], next_hop, now_ns)
    if entry == NULL:
        if not ip_addr_is_v4(route.dst) or not ip_is_foreign_host(ip, route.dst.words_be[3]):
            status[0] = IP_NO_ROUTE
            count(ip.counters, counter_t.DROP_NO_ROUTE)
            return NULL
        entry = _resolve(ip, route, next_hop, status, &waits)
        if entry == NULL:
            return NULL
    entry.used = 1
    if waits:
        ip.frame = neighbour_reserve(ip.neighbours, HEADERS_BYTES + length)
        if ip.frame == NULL:
            status[0] = IP_NO_MEMORY
            count(ip.counters, counter_t.DROP_NO_MEMORY)
            return NULL
        ip.pending_neighbour = route.neighbour[0]
    else:
        ip.frame = ip.link.ops.tx_reserve(ip.link, HEADERS_BYTES + length)
        if ip.frame == NULL:
            status[0] = IP_RING_FULL
            count(ip.counters, counter_t.TX_RING_FULL)
            return NULL
    _write_headers(ip, route, entry)
    ip.identification = route.identification if route.may_fragment else 0
    status[0] = IP_OK
    return ip.frame + HEADERS_BYTES


cdef inline void _finish(ip_t *ip, uint32_t length, const offload_t *offload) noexcept nogil:
    ipv4_finish(ip.frame + ETHERNET_HEADER_BYTES, <uint16_t>(IPV4_HEADER_BYTES + length), ip.identification)
    if ip.pending_neighbour:
        neighbour_wait(ip.neighbours, ip.pending_neighbour, HEADERS_BYTES + length, offload,
                       ip.config.neighbour_queue)
    else:
        ip.link.ops.tx_commit(ip.link, HEADERS_BYTES + length, offload)
    ip.frame = NULL


cdef inline uint32_t _pseudo_sum(const ip_t *ip, uint32_t length) noexcept nogil:
    cdef const uint8_t *header = ip.frame + ETHERNET_HEADER_BYTES
    return ipv4_pseudo_sum(read_u32_be(header + 12), read_u32_be(header + 16), header[9], length)


cdef inline void _leave_to_device(offload_t *offload, uint8_t *payload, uint32_t sum, uint16_t csum_offset,
                                  uint16_t header_length, uint16_t gso_size) noexcept nogil:
    offload.csum_start = HEADERS_BYTES
    offload.csum_offset = csum_offset
    write_u16_be(payload + csum_offset, checksum_fold(sum))
    if gso_size:
        offload.gso_size = gso_size
        offload.gso_family = 4
        offload.header_length = HEADERS_BYTES + header_length


cdef void ip_commit(ip_t *ip, uint32_t length, uint16_t csum_offset, uint16_t header_length,
                    uint16_t gso_size) noexcept nogil:
    cdef uint8_t *header = ip.frame + ETHERNET_HEADER_BYTES
    cdef uint8_t *payload = ip.frame + HEADERS_BYTES
    cdef uint32_t sum = _pseudo_sum(ip, length)
    cdef uint16_t checksum
    cdef offload_t offload
    ensure(ip.frame != NULL and <uint32_t>csum_offset + 2 <= length and length <= ip_payload_max(ip))
    ensure(gso_size == 0 or (ip.link.caps.tx_segmentation and ip.link.caps.tx_checksum and header_length < length))
    memset(&offload, 0, sizeof(offload))
    if ip.link.caps.tx_checksum:
        _leave_to_device(&offload, payload, sum, csum_offset, header_length, gso_size)
    else:
        write_u16_be(payload + csum_offset, 0)
        checksum = checksum_emit(checksum_partial(payload, length, sum))
        if checksum == 0 and header[9] == IP_PROTO_UDP:              # RFC 768: zero means "none"
            checksum = 0xFFFF
        write_u16_be(payload + csum_offset, checksum)
    _finish(ip, length, &offload)


cdef bint ip_commit_gathered(ip_t *ip, uint32_t length, uint16_t csum_offset, uint16_t header_length,
                             uint16_t gso_size, const iovec *pieces, uint32_t n_pieces) noexcept nogil:
    cdef offload_t offload
    ensure(ip.frame != NULL and ip_can_gather(ip) and length <= ip_payload_max(ip))
    ensure(gso_size and ip.link.caps.tx_segmentation and ip.link.caps.tx_checksum and header_length < length)
    memset(&offload, 0, sizeof(offload))
    _leave_to_device(&offload, ip.frame + HEADERS_BYTES, _pseudo_sum(ip, length), csum_offset, header_length, gso_size)
    ipv4_finish(ip.frame + ETHERNET_HEADER_BYTES, <uint16_t>(IPV4_HEADER_BYTES + length), ip.identification)
    if ip.link.ops.tx_gather(ip.link, HEADERS_BYTES + length, HEADERS_BYTES + header_length, &offload, pieces,
                             n_pieces) < 0:
        return False
    ip.frame = NULL
    return True


cdef void ip_commit_whole(ip_t *ip, uint32_t length) noexcept nogil:
    cdef offload_t offload
    ensure(ip.frame != NULL)
    memset(&offload, 0, sizeof(offload))
    _finish(ip, length, &offload)


cdef uint32_t ip_payload_mtu(const ip_t *ip) noexcept nogil:
    return min(ip.link.caps.mtu, <uint32_t>IPV4_MAX_BYTES) - IPV4_HEADER_BYTES


cdef uint32_t ip_payload_max(const ip_t *ip) noexcept nogil:
    if not ip.link.caps.tx_segmentation:
        return ip_payload_mtu(ip)
    return min(ip.link.caps.max_frame - ETHERNET_HEADER_BYTES, <uint32_t>IPV4_MAX_BYTES) - IPV4_HEADER_BYTES
