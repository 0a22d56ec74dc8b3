# SPDX-License-Identifier: MIT
"""The IP layer of one engine: its life, its timers, and what others ask about addresses."""

from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from ustack.base.counters cimport counters_t
from ustack.base.types cimport ip_addr_equal, ip_addr_is_v4, ip_addr_set_v4, ip_addr_t
from ustack.ip.neighbour cimport (
    LIST_PROBE, LIST_USED, NEIGHBOUR_FAILED, neighbour_next_ns, neighbour_t, neighbour_table_free, neighbour_table_new,
    waiting_frame, waiting_t)
from ustack.ip.ranges cimport ranges_hold, ranges_nth, ranges_size
from ustack.ip.records cimport IP_PROTO_TCP, ip_config_t, ip_is_foreign_host, ip_on_link, ip_t, packet_t
from ustack.ip.v4.arp cimport arp_announce, arp_announce_more, arp_confirm, arp_timers
from ustack.link.device cimport link_t
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES
from ustack.wire.icmpv4 cimport ICMP_HOST_UNREACHABLE, ICMP_UNREACHABLE
from ustack.wire.ipv4 cimport IPV4_HEADER_BYTES, ipv4_mask_be
from ustack.wire.octets cimport read_u32_be

cdef enum:
    SECOND_NS = 1000000000


cdef void ip_config_defaults(ip_config_t *config) noexcept nogil:
    memset(config, 0, sizeof(ip_config_t))
    config.prefix_length = 32
    config.ttl = 64
    config.neighbour_reachable_ns = 30ULL * SECOND_NS
    config.neighbour_retry_ns = SECOND_NS            # RFC 1122 section 2.3.2.1: at most one per second and destination
    config.neighbour_tries = 3
    config.neighbour_queue = 8
    config.neighbour_limit = 1024


cdef int ip_init(ip_t *ip, link_t *link, counters_t *counters, const ip_config_t *config,
                 uint64_t now_ns) noexcept nogil:
    memset(ip, 0, sizeof(ip_t))
    ip.link = link
    ip.counters = counters
    ip.config = config[0]
    ip.now_ns = now_ns
    ip.address_be = config.address.words_be[3]
    ip.mask_be = ipv4_mask_be(config.prefix_length)
    ip.announce_ns = UINT64_MAX
    if config.prefix_length <= 30:                   # RFC 3021: a link of two has no broadcast address
        ip.subnet_broadcast_be = ip.address_be | ~ip.mask_be
    ip.neighbours = neighbour_table_new(config.neighbour_limit, counters)
    return 0 if ip.neighbours != NULL else -1


cdef void ip_destroy(ip_t *ip) noexcept nogil:
    forget_unreached(ip)
    neighbour_table_free(ip.neighbours)
    ip.neighbours = NULL
    ip.frame = NULL


cdef void ip_announce(ip_t *ip, uint64_t now_ns) noexcept nogil:
    ip.now_ns = now_ns
    arp_announce(ip)


cdef bint ip_is_valid_remote(const ip_t *ip, const ip_addr_t *address) noexcept nogil:
    return ip_addr_is_v4(address) and ip_is_foreign_host(ip, address.words_be[3])


cdef bint ip_is_local(const ip_t *ip, const ip_addr_t *address) noexcept nogil:
    return ip_addr_equal(address, &ip.config.address) or ranges_hold(ip.config.ranges, ip.config.range_count, address)


cdef uint32_t ip_sources(const ip_t *ip) noexcept nogil:
    return ranges_size(ip.config.ranges, ip.config.range_count) if ip.config.range_count else 1


cdef void ip_source(const ip_t *ip, uint32_t number, ip_addr_t *out) noexcept nogil:
    if ip.config.range_count == 0:
        out[0] = ip.config.address
    else:
        ranges_nth(ip.config.ranges, ip.config.range_count, number % ip_sources(ip), out)


cdef void confirm_anew(ip_t *ip, uint16_t neighbour, const ip_addr_t *address, uint64_t now_ns) noexcept nogil:
    cdef neighbour_t *entry
    if neighbour == 0 or neighbour > ip.neighbours.limit:
        return
    entry = &ip.neighbours.entries[neighbour]
    if not ip_addr_equal(&entry.address, address):
        if ip_on_link(ip, address.words_be[3]) or not ip_addr_equal(&entry.address, &ip.config.gateway):
            return
    # Only these two lists were sent to and have a station address.
    if entry.list == LIST_USED or entry.list == LIST_PROBE:
        ip.now_ns = now_ns
        arp_confirm(ip, neighbour)


cdef uint64_t ip_timers(ip_t *ip, uint64_t now_ns) noexcept nogil:
    cdef uint64_t next_ns = ip_next_deadline(ip)
    forget_unreached(ip)
    if next_ns > now_ns:
        return next_ns
    ip.now_ns = now_ns
    arp_timers(ip)
    if ip.announce_ns <= now_ns:
        arp_announce_more(ip)
    return ip_next_deadline(ip)


cdef uint64_t ip_next_deadline(const ip_t *ip) noexcept nogil:
    cdef uint64_t next_ns = neighbour_next_ns(ip.neighbours)
    if next_ns < ip.questions_ns:
        next_ns = ip.questions_ns
    return next_ns if next_ns < ip.announce_ns else ip.announce_ns


# ---------------------------------------------------------------- packets for neighbours that do not answer

cdef waiting_t *next_unreached(ip_t *ip) noexcept nogil:
    """The caller frees it."""
    cdef waiting_t *waiting = ip.unreached
    if waiting != NULL:
        ip.unreached = waiting.next
    return waiting


cdef inline void forget_unreached(ip_t *ip) noexcept nogil:
    cdef waiting_t *waiting
    free(ip.unreached_taken)
    ip.unreached_taken = NULL
    while ip.unreached != NULL:
        waiting = next_unreached(ip)
        free(waiting)


cdef bint ip_take_unreached(ip_t *ip, packet_t *packet) noexcept nogil:
    cdef uint8_t *header
    free(ip.unreached_taken)
    ip.unreached_taken = next_unreached(ip)
    if ip.unreached_taken == NULL:
        return False
    # Written by ip_commit: Ethernet, an IPv4 header without options, the transport's header and data.
    header = waiting_frame(ip.unreached_taken) + ETHERNET_HEADER_BYTES
    memset(packet, 0, sizeof(packet_t))
    ip_addr_set_v4(&packet.src, read_u32_be(header + 12))
    ip_addr_set_v4(&packet.dst, read_u32_be(header + 16))
    packet.payload = header + IPV4_HEADER_BYTES
    packet.payload_length = ip.unreached_taken.length - ETHERNET_HEADER_BYTES - IPV4_HEADER_BYTES
    if header[9] != IP_PROTO_TCP:
        packet.payload_length = 0               # nobody's connection
    packet.icmp_type = ICMP_UNREACHABLE
    packet.icmp_code = ICMP_HOST_UNREACHABLE
    return True


cdef bint ip_is_unreached(const ip_t *ip, uint16_t neighbour, const ip_addr_t *address) noexcept nogil:
    cdef const neighbour_t *entry
    if neighbour == 0 or neighbour > ip.neighbours.limit:
        return False
    entry = &ip.neighbours.entries[neighbour]
    if not ip_on_link(ip, address.words_be[3]):
        address = &ip.config.gateway
    return entry.state == NEIGHBOUR_FAILED and ip_addr_equal(&entry.address, address)
