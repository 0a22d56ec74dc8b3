# SPDX-License-Identifier: MIT
# The IP layer of one engine: frames in, packets out of them; transport payloads in, frames out.
#
# Read first: RFC 1122 section 3 (host requirements), RFC 791, RFC 826 (ARP), RFC 5227 (conflicts), RFC 792 (ICMP).
# Above: tcp (cimports this file), engine. Below: link, wire, buf, base. The room, from the bottom up:
#
#     neighbour   who answers to which address: states, bounds, packets that wait     records   plain data
#     ranges      addresses beyond the first
#     v4/arp      RFC 826 and 5227: questions, answers, conflicts                     address   addresses as text
#     v4/output   reservation, headers, checksums, next hop
#     v4/icmp     echo, errors in, errors out
#     v4/input    Ethernet and IPv4 checks, dispatch
#
# Input answers ARP and echo by itself and returns what is for a transport. Output is a reservation: the transport
# writes its header and payload straight into the link's slot (or, while the neighbour's address is being resolved, into
# a buffer that waits in the neighbour's bounded queue: the transport does not see the difference).
#
# Counted here: FRAMES_IN and BYTES_IN, and every drop of this floor. Frames that go out the link counts.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.base.counters cimport counters_t
from ustack.base.types cimport ip_addr_t
from ustack.ip.family cimport ip_default_packet_bytes, ip_header_bytes
from ustack.ip.neighbour cimport neighbour_fresh, neighbour_t
from ustack.ip.records cimport (
    IP_CONSUMED, IP_NO_MEMORY, IP_NO_ROUTE, IP_OK, IP_PROTO_TCP, IP_RING_FULL, IP_TCP,
    IP_TCP_ERROR, ip_config_t, ip_on_link, ip_route_t, ip_status_t, ip_t, ip_verdict_t, packet_t)
from ustack.ip.v4.input cimport ip_input
from ustack.ip.v4.output cimport (
    ip_can_gather, ip_commit, ip_commit_gathered, ip_payload_max, ip_payload_mtu, ip_reserve)
from ustack.link.device cimport link_t

# Users cimport everything from this file: the records of records.pxd, the families' numbers (family.pxd), ip_input
# (v4/input.pxd), ip_reserve, ip_commit, ip_can_gather, ip_commit_gathered, ip_payload_mtu and ip_payload_max
# (v4/output.pxd), and what follows.

# Defaults for everything but the address. config: written whole.
cdef void ip_config_defaults(ip_config_t *config) noexcept nogil
# link and counters must outlive ip. 0, or -1 without memory.
cdef int ip_init(ip_t *ip, link_t *link, counters_t *counters, const ip_config_t *config,
                 uint64_t now_ns) noexcept nogil
cdef void ip_destroy(ip_t *ip) noexcept nogil
# Tell the link who we are: gratuitous ARP for each address (RFC 5227 section 2.3 announcement), the second time, and of
# many addresses some, later, by ip_timers.
cdef void ip_announce(ip_t *ip, uint64_t now_ns) noexcept nogil
# True for an address that a connection may be opened to: unicast, not ours, not 0/8 (MUST-46).
cdef bint ip_is_valid_remote(const ip_t *ip, const ip_addr_t *address) noexcept nogil
# True if `address` is one of ours.
cdef bint ip_is_local(const ip_t *ip, const ip_addr_t *address) noexcept nogil
# Addresses that active opens come from, 1 at least, and the one with a number, which goes around.
cdef uint32_t ip_sources(const ip_t *ip) noexcept nogil
cdef void ip_source(const ip_t *ip, uint32_t number, ip_addr_t *out) noexcept nogil
# The upper layer has been answered from `address`: its next hop is reachable without a question (RFC 4861 section
# 7.3.1).
# neighbour: the caller's hint. It may be stale: nothing happens if that entry is somebody else's by now.
cdef inline void ip_confirm(ip_t *ip, uint16_t neighbour, const ip_addr_t *address, uint64_t now_ns) noexcept nogil:
    cdef neighbour_t *entry = neighbour_fresh(
        ip.neighbours, neighbour, address if ip_on_link(ip, address.words_be[3]) else &ip.config.gateway, now_ns)
    if entry != NULL and entry.first == NULL:
        entry.fresh_until_ns = now_ns + ip.config.neighbour_reachable_ns
    else:
        confirm_anew(ip, neighbour, address, now_ns)
# ... of an entry that is not known to be reachable now.
cdef void confirm_anew(ip_t *ip, uint16_t neighbour, const ip_addr_t *address, uint64_t now_ns) noexcept nogil
# Due neighbour retries, expiries and announcements; call once a poll. Returns ip_next_deadline.
cdef uint64_t ip_timers(ip_t *ip, uint64_t now_ns) noexcept nogil
# The next packet of ours that ip_timers gave up because its neighbour does not answer ARP, as if a router had sent it
# back: a host unreachable that quotes it. It is valid until the next call, and gone at the next ip_timers. False: none.
cdef bint ip_take_unreached(ip_t *ip, packet_t *packet) noexcept nogil
# True if the next hop to `address` has failed to answer ARP and was not asked again since. neighbour: the hint.
cdef bint ip_is_unreached(const ip_t *ip, uint16_t neighbour, const ip_addr_t *address) noexcept nogil
# When ip_timers next has something to do; UINT64_MAX: never. Every ip_reserve may bring it forward.
cdef uint64_t ip_next_deadline(const ip_t *ip) noexcept nogil
