# SPDX-License-Identifier: MIT
# The IP layer of one engine: frames in, packets out of them; transport payloads in, frames out.
#
# Read first: RFC 1122 section 3 (host requirements), RFC 791, RFC 826 (ARP), RFC 5227 (conflicts), RFC 792 (ICMP).
# Above: tcp (cimports this file), engine. Below: link, wire, buf, base.
#
# Input answers ARP and echo by itself and returns what is for a transport. Output is a reservation: the transport writes its
# header and payload straight into the link's slot (or, while the neighbour's address is being resolved, into a
# buffer that waits in the neighbour's bounded queue: the transport does not see the difference).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.counters cimport counters_t
from ustack.base.types cimport ip_addr_t
from ustack.buf.frame cimport frame_t
from ustack.link.device cimport link_t

cdef enum ip_verdict_t:
    IP_CONSUMED = 0          # handled here (ARP, echo) or dropped and counted
    IP_TCP = 1               # packet_t holds a TCP segment addressed to us
    IP_TCP_ERROR = 2         # packet_t holds an ICMP error about a TCP segment that we seem to have sent

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
    uint8_t broadcast        # sent to a broadcast or multicast address, of Ethernet or of IP
    # IP_TCP_ERROR only: src and dst are those of the quoted packet (src is us), payload the quoted TCP header's
    # first 8 octets at least.
    uint8_t icmp_type
    uint8_t icmp_code
    uint16_t icmp_mtu        # next-hop MTU of a fragmentation-needed, 0 if the router gave none

# Where an outgoing packet goes. The caller keeps `neighbour` with the connection; it is a hint that is verified.
ctypedef struct ip_route_t:
    const ip_addr_t *src
    const ip_addr_t *dst
    uint16_t *neighbour      # in and out: index into the neighbour table, 0 at first
    uint8_t protocol
    uint8_t tos
    uint8_t ttl

ctypedef struct neighbour_table_t      # neighbour.pxd

ctypedef struct ip_config_t:
    ip_addr_t address
    uint8_t prefix_length              # of the address's own family: 0..32
    ip_addr_t gateway                  # all zero: on-link destinations only
    uint8_t ttl                        # default of what this layer sends itself
    uint64_t neighbour_reachable_ns    # a confirmed entry is used without asking for this long
    uint64_t neighbour_retry_ns        # between two requests for one address
    uint8_t neighbour_tries            # requests before the waiting packets are dropped
    uint8_t neighbour_queue            # packets that wait for one answer
    uint16_t neighbour_limit           # entries in the table

ctypedef struct ip_t:
    link_t *link
    counters_t *counters
    ip_config_t config
    neighbour_table_t *neighbours
    uint16_t identification            # IPv4 ID of the next packet (RFC 6864: atomic datagrams may repeat)
    # The reservation in hand, between ip_reserve and ip_commit.
    ip_route_t route
    uint8_t *frame                     # NULL: none
    uint16_t pending_neighbour         # not 0: the frame waits for this neighbour instead of going to the link
    uint64_t now_ns

# Defaults for everything but the address. config: written whole.
cdef void ip_config_defaults(ip_config_t *config) noexcept nogil
# link and counters must outlive ip. 0, or -1 without memory.
cdef int ip_init(ip_t *ip, link_t *link, counters_t *counters, const ip_config_t *config,
                 uint64_t now_ns) noexcept nogil
cdef void ip_destroy(ip_t *ip) noexcept nogil
# Tell the link who we are: one gratuitous ARP (RFC 5227 section 2.3 announcement).
cdef void ip_announce(ip_t *ip, uint64_t now_ns) noexcept nogil
# One frame in. `packet` is filled for IP_TCP and IP_TCP_ERROR. Every drop is counted under one reason.
cdef ip_verdict_t ip_input(ip_t *ip, frame_t *frame, packet_t *packet, uint64_t now_ns) noexcept nogil
# Room for `length` transport octets (header and payload). NULL: the ring is full (nothing was lost: try after
# the next submit) — unless *status says otherwise. status: 0 ok, IP_NO_ROUTE, IP_RING_FULL, IP_NO_MEMORY.
cdef uint8_t *ip_reserve(ip_t *ip, const ip_route_t *route, uint32_t length, int *status,
                         uint64_t now_ns) noexcept nogil
# Send the reserved packet with `length` transport octets. Fills in the transport checksum at `csum_offset` (its
# field may hold anything): left to the device where it can, in software where not. gso_size not 0: a super-frame, whose
# transport header is `header_length` octets; only where link.caps.tx_segmentation.
cdef void ip_commit(ip_t *ip, uint32_t length, uint16_t csum_offset, uint16_t header_length,
                    uint16_t gso_size) noexcept nogil
# Largest transport length (header and payload) of an ordinary packet, and of a super-frame (equal without segmentation).
cdef uint32_t ip_payload_mtu(const ip_t *ip) noexcept nogil
cdef uint32_t ip_payload_max(const ip_t *ip) noexcept nogil
# True for an address that a connection may be opened to: unicast, not ours, not 0/8 (MUST-46).
cdef bint ip_is_valid_remote(const ip_t *ip, const ip_addr_t *address) noexcept nogil
# True if `address` is one of ours.
cdef bint ip_is_local(const ip_t *ip, const ip_addr_t *address) noexcept nogil
# The upper layer has heard from `src` in answer to what we sent: reachability without a question (RFC 4861 section 7.3.1).
cdef void ip_confirm(ip_t *ip, uint16_t neighbour, uint64_t now_ns) noexcept nogil
# Due neighbour retries and expiries; call once a poll. Returns when it next has something to do (UINT64_MAX: never).
cdef uint64_t ip_timers(ip_t *ip, uint64_t now_ns) noexcept nogil

cdef enum ip_status_t:
    IP_OK = 0
    IP_RING_FULL = 1
    IP_NO_ROUTE = 2
    IP_NO_MEMORY = 3
