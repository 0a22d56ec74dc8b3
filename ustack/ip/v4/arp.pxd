# SPDX-License-Identifier: MIT
# ARP: questions, answers, conflicts (RFC 826, RFC 5227, RFC 1122 section 2.3.2). The states are the neighbour cache's;
# this file says which ARP packet, use or time moves an entry from one to the next.
#
# It must not: build IP packets. Neighbours: above, output, input, layer; below, neighbour, state, wire, link.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.ip.records cimport ip_t

# Requests for our own addresses: whoever holds an old entry for one corrects it (RFC 5227 section 2.3). The first
# address, then those in ranges, ANNOUNCED_A_TIME at once and ANNOUNCED_MOST of ranges; all of them twice. What is left
# at ip.announce_ns.
cdef void arp_announce(ip_t *ip) noexcept nogil
# Those that are due at ip.now_ns.
cdef void arp_announce_more(ip_t *ip) noexcept nogil
# An ARP packet of `length` bytes behind the Ethernet header, at ip.now_ns.
cdef void arp_input(ip_t *ip, const uint8_t *packet, uint32_t length) noexcept nogil
# Output is about to send to this entry, which is not fresh: ask what has to be asked. True: its station address may be
# used now; False: the packet has to wait.
cdef bint arp_use(ip_t *ip, uint16_t index) noexcept nogil
# Repeats questions that are due, gives up on those repeated enough.
cdef void arp_timers(ip_t *ip) noexcept nogil
# The entry is reachable from now on, whatever it was; what waits for it is sent.
cdef void arp_confirm(ip_t *ip, uint16_t index) noexcept nogil
