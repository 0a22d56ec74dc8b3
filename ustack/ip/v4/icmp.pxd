# SPDX-License-Identifier: MIT
# ICMP: echo, errors about what we sent, errors about what we cannot use (RFC 792, RFC 1122 section 3.2.2).
#
# It must not: act on an error (the transport does), or answer anything that was not sent to us alone. Redirects and
# source quenches change nothing here (RFC 9293 MUST-55). Neighbours: above, input; below, output, state, wire.

from libc.stdint cimport uint8_t, uint64_t

from ustack.ip.records cimport ip_t, ip_verdict_t, packet_t

# packet: a whole ICMP packet. For an error about a TCP segment it is rewritten into the quoted packet's view.
cdef ip_verdict_t icmp_input(ip_t *ip, packet_t *packet) noexcept nogil
# Tell the sender of `packet` that it was not usable: type 3 and this code. `header` is its IPv4 header. Says nothing
# when RFC 1122 section 3.2.2 forbids it or the allowance is used up. The caller counts the drop.
cdef void icmp_unreachable(ip_t *ip, const packet_t *packet, const uint8_t *header, uint8_t code) noexcept nogil
