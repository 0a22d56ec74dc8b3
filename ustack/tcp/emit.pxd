# SPDX-License-Identifier: MIT
# Segments without data, sent at once: what input and timers answer with when there is no connection to leave work on
# (RST, SYN-ACK of a half-open record, ACK of a TIME-WAIT record). Segments of connections are
# output's and its room's, send/.
#
# Above: input, arrival, timers, output, send, engine. Below: tcb, wire/tcp, ip.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.base.types cimport ip_addr_t
from ustack.ip.layer cimport ip_status_t
from ustack.tcp.records.tcb cimport flow_key_t, syn_received_t, tcb_t, tcp_t, time_wait_t
from ustack.wire.tcp cimport header_t, segment_t

# IP_OK, or why it was not sent (ip_status_t); for its caller it is then as if the network had lost it.
cdef ip_status_t emit_bare(tcp_t *tcp, const flow_key_t *key, header_t *header, uint8_t ttl, uint8_t tos,
                           uint16_t *neighbour) noexcept nogil
# RST for a segment that belongs to nothing (RFC 9293 section 3.10.7.1). Never for a RST. options, ts_recent: of the
# record whose key this is (it carries timestamps if the record's segments do), 0: there is none.
cdef void emit_reset_for(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, uint8_t options,
                         uint32_t ts_recent) noexcept nogil
# again: 0 the first, 1, 2, ... the next ones. By RFC 9768 they fall back by that (section 3.2.3.2.2).
cdef ip_status_t emit_syn_ack(tcp_t *tcp, const syn_received_t *syn, uint32_t again) noexcept nogil
# The same for a record that is not kept; ts_val: of our clock, carrying what it says (cookies).
cdef ip_status_t emit_cookie(tcp_t *tcp, const syn_received_t *syn, uint32_t ts_val, uint32_t again) noexcept nogil
cdef void emit_syn_received_ack(tcp_t *tcp, const syn_received_t *syn) noexcept nogil
cdef void emit_time_wait_ack(tcp_t *tcp, const time_wait_t *record) noexcept nogil
# RST of a connection: <SEQ=SND.NXT><ACK=RCV.NXT><CTL=RST,ACK>.
cdef ip_status_t emit_reset_of(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# What we offer in a SYN.
# What a peer takes that names no MSS (MUST-15): 536 for IPv4, 1220 for IPv6.
cdef uint16_t default_mss(const ip_addr_t *raddr) noexcept nogil
cdef uint16_t advertised_mss(const tcp_t *tcp) noexcept nogil
# ... of a connection, or a listener, that may have one of its own.
cdef uint16_t tcb_advertised_mss(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
cdef uint16_t syn_ack_mss(tcp_t *tcp, const syn_received_t *syn) noexcept nogil
cdef uint8_t advertised_wscale(const tcp_t *tcp) noexcept nogil
# The window of a SYN, and so the first one we offer: it is never scaled (RFC 7323 section 2.2). options: that the peer
# is known to agree on, which make its segments shorter; 0 in the SYN of an active open.
cdef uint16_t first_window(const tcp_t *tcp, uint8_t options) noexcept nogil
# The same in bytes as a scaled field can say it: the furthest right edge that is announced before there is a tcb. Never
# to the left of the SYN-ACK's (SHLD-14), nor more than a new connection accepts.
cdef uint32_t first_edge(const tcp_t *tcp, uint8_t options) noexcept nogil
