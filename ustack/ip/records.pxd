# SPDX-License-Identifier: MIT
# The records of the IP layer: a received packet, a route to send by, the configuration, the layer itself. Plain data:
# what happens to it is in arp, output, icmp, input and layer. Users cimport all of this from layer.pxd.
#
# Neighbours: above, every other file of this room; below, neighbour, link, wire, buf, base.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.counters cimport counters_t
from ustack.base.types cimport ip_addr_t
from ustack.ip.neighbour cimport neighbour_table_t, waiting_t
from ustack.ip.ranges cimport IP_RANGES_MOST, ip_range_t, ranges_hold_v4
from ustack.link.device cimport link_t
from ustack.wire.ipv4 cimport ipv4_is_broadcast, ipv4_is_loopback, ipv4_is_multicast, ipv4_is_this_network

cdef enum ip_verdict_t:
    IP_CONSUMED = 0          # handled here (ARP, echo) or dropped and counted
    IP_TCP = 1               # packet_t holds a TCP segment addressed to us
    IP_TCP_ERROR = 2         # packet_t holds an ICMP error about a TCP segment that we seem to have sent

cdef enum ip_status_t:
    IP_OK = 0
    IP_RING_FULL = 1
    IP_NO_ROUTE = 2
    IP_NO_MEMORY = 3

cdef enum:
    IP_DEFENCES = 64         # own addresses whose last defence is remembered; 16 bytes for each

cdef enum:
    IP_PROTO_ICMP = 1
    IP_PROTO_TCP = 6
    IP_PROTO_UDP = 17

# A view of one received packet; everything points into the frame and dies with it.
ctypedef struct packet_t:
    ip_addr_t src
    ip_addr_t dst
    uint8_t *payload         # transport header
    uint32_t payload_length  # by the IP header, never beyond the frame
    uint16_t gso_size        # copied from the frame
    uint8_t checksum         # checksum_status_t, copied from the frame
    uint8_t tos
    uint8_t ttl
    uint8_t broadcast        # sent to a broadcast or multicast address
    # IP_TCP_ERROR only: src and dst are those of the quoted packet (src is us), payload the quoted TCP header's
    # first 8 bytes at least.
    uint8_t icmp_type
    uint8_t icmp_code
    uint16_t icmp_mtu        # next-hop MTU of a fragmentation-needed, 0 if the router gave none
    uint16_t icmp_quoted_length  # total length of the quoted packet, as the router says

# Where an outgoing packet goes. The caller keeps `neighbour` with the connection; it is a hint that is verified.
# Nothing it points to is read after ip_reserve has returned.
ctypedef struct ip_route_t:
    const ip_addr_t *src
    const ip_addr_t *dst
    uint16_t *neighbour      # in and out: index into the neighbour table, 0 at first
    uint8_t protocol
    uint8_t tos
    uint8_t ttl
    uint8_t may_fragment     # 1: DF is clear, routers may fragment, and `identification` is sent; ordinary frames only
    uint16_t identification  # read with may_fragment: no value twice for one destination while fragments may live

ctypedef struct ip_config_t:
    ip_addr_t address                  # the first one: who we are in what this layer sends by itself
    uint32_t range_count
    ip_range_t ranges[IP_RANGES_MOST]  # more addresses, sorted; where there are any, active opens come from these
    uint8_t prefix_length              # of the address's own family: 0..32
    ip_addr_t gateway                  # all zero: on-link destinations only
    uint8_t ttl                        # default of what this layer sends itself
    uint64_t neighbour_reachable_ns    # a confirmed entry is used without asking for this long
    uint64_t neighbour_retry_ns        # between two requests for one address
    uint8_t neighbour_tries            # requests before the waiting packets are dropped
    uint8_t neighbour_queue            # packets that wait for one answer
    uint16_t neighbour_limit           # entries in the table

# One of our addresses has been claimed by somebody else, and we have said that it is ours (RFC 5227 section 2.4).
ctypedef struct ip_defence_t:
    uint64_t again_ns                  # not before then; this place is anybody's from then on
    uint32_t address_be

ctypedef struct ip_t:
    link_t *link
    counters_t *counters
    ip_config_t config
    neighbour_table_t *neighbours
    # The reservation in hand, between ip_reserve and ip_commit.
    uint16_t identification            # 0 where DF is set
    uint8_t *frame                     # NULL: none
    waiting_t *unreached               # frames whose neighbour did not answer: for ip_take_unreached, oldest first
    waiting_t *unreached_last
    waiting_t *unreached_taken         # the one that the caller is looking at
    uint16_t pending_neighbour         # not 0: the frame waits for this neighbour instead of going to the link
    uint64_t now_ns                    # of the call in progress
    # Made from config and link once, by ip_init.
    uint32_t address_be
    uint32_t mask_be
    uint32_t subnet_broadcast_be       # 0: the prefix is too long to have one
    # Writers: arp and icmp, each its own.
    ip_defence_t defences[IP_DEFENCES]  # the first place is the first address's alone
    uint32_t announced                 # in this round, of the first address and those in ranges, in their order
    uint32_t announce_rounds           # that are left, with this one
    uint64_t announce_ns               # when the next ones are announced; UINT64_MAX: none is left
    uint64_t questions_ns              # the ring was full: no question that is due is asked before
    uint64_t error_tat_ns              # when the allowance for ICMP errors is whole again


cdef inline bint ip_on_link(const ip_t *ip, uint32_t address_be) noexcept nogil:
    return (address_be ^ ip.address_be) & ip.mask_be == 0


# One of ours. With one address, a comparison; and one more for those that are not.
cdef inline bint ip_is_own(const ip_t *ip, uint32_t address_be) noexcept nogil:
    return address_be == ip.address_be or (
        ip.config.range_count != 0 and ranges_hold_v4(ip.config.ranges, ip.config.range_count, address_be))


# Unicast, somebody else's: an address that a packet may come from or go to (RFC 1122 section 3.2.1.3).
cdef inline bint ip_is_foreign_host(const ip_t *ip, uint32_t address_be) noexcept nogil:
    return not (ipv4_is_multicast(address_be) or ipv4_is_broadcast(address_be) or ipv4_is_this_network(address_be)
                or ipv4_is_loopback(address_be) or ip_is_own(ip, address_be)
                or address_be == ip.subnet_broadcast_be)
